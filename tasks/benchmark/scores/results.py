"""The results of a comparison as plain frozen data: per task and candidate, and over the suite.

Scores of one task:

* `speedup`: see `scores`.
* `train`, `test`: final losses on the task's normalised scale (0 perfect, 1 knows nothing), and
  `train_ratio`, `test_ratio`: over tuned Adam's; below 1 is better than Adam.
* `diverged`: the share of all runs, at any rate, that ended without a finite loss.
* `hollow`: the share whose loss comes from the arithmetic (`inner_loop.hollow`); it counts no more
  than that of a diverged run.

Over the suite: interquartile means (of the logarithm, for ratios) with 95% stratified bootstrap
intervals. *Untuned* is with one rate for all tasks. `scoring` says how each is made.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, final

from veldt.tasks.benchmark.protocol.schedules import CONSTANT
from veldt.tasks.benchmark.scores.aggregate import Interval
from veldt.tasks.common import formatting
from veldt.tasks.common.html.markup import table, tag


@final
@dataclass(frozen=True, slots=True)
class TaskScore:
    """The scores of one candidate on one task. Losses are means over seeds.

    Attributes:
      task: Name of the task.
      failed: Whether an exception ended it; it then counts as diverged everywhere.
      selected: Whether the candidate was selected on this task, which then does not count.
      rate: Learning rate of the lowest training loss.
      valid_rate: Learning rate of the lowest validation loss.
      at_edge: Whether `rate` is the lowest or highest of the rates tried: a wider grid might help.
      speedup: Speed-up over Adam's envelope.
      capped: Whether the true speed-up is larger.
      train_loss: Training loss at the end, in the task's own units.
      test_loss: Test loss at the end at `valid_rate`, in the task's own units.
      train: Normalised training loss.
      test: Normalised test loss.
      train_ratio: Training loss over tuned Adam's.
      test_ratio: Test loss over tuned Adam's.
      diverged: Share of all runs that diverged.
      untuned_speedup: Speed-up at the one rate for all tasks.
      untuned_test_ratio: Test loss at the one rate over Adam's at its one rate.
      step_ratio: Time of a step (see `Cost`); None where not measured.
      state_bytes: Bytes of state (see `Cost`); None where not measured.
      curve: Normalised training loss at each check, at `rate`.
      hollow: Share of all runs that are hollow; 0 in files of versions before 0.2.
      at_floor: Whether a loss is at the floor, below which losses are not distinguished.
    """

    task: str
    failed: bool
    selected: bool
    rate: float
    valid_rate: float
    at_edge: bool
    speedup: float
    capped: bool
    train_loss: float
    test_loss: float
    train: float
    test: float
    train_ratio: float
    test_ratio: float
    diverged: float
    untuned_speedup: float
    untuned_test_ratio: float
    step_ratio: float | None
    state_bytes: float | None
    curve: tuple[float, ...]
    hollow: float = 0.0
    at_floor: bool = False


@final
@dataclass(frozen=True, slots=True)
class Row:
    """The scores of one candidate over the suite, with one schedule.

    Attributes:
      name: Name of the candidate.
      schedule: Schedule of the learning rate.
      source: Origin, "run" or "archive".
      num_rates: Number of learning rates that the row was tuned over; 1 for not tuned.
      speedup: Interquartile mean over tasks of the speed-up, with its 95% interval.
      train_ratio: Interquartile mean of the training loss over tuned Adam's; below 1 is better.
      test_ratio: Interquartile mean of the test loss over tuned Adam's.
      untuned_rate: One rate for all tasks.
      untuned_speedup: Speed-up with the one rate.
      untuned_test_ratio: Test loss over Adam's, both with one rate.
      won: Share of tasks with a lower test loss than tuned Adam; an equal one counts half.
      won_untuned: Share of tasks with a lower test loss, both with one rate for all tasks.
      diverged: Share of all runs that diverged.
      num_capped: Number of tasks whose speed-up is cut off at the horizon of Adam's curves.
      num_at_edge: Number of tasks whose best rate is at the edge of those tried.
      num_failed: Number of tasks ended by an exception.
      num_selected: Number of tasks left out everywhere, since the candidate was selected on them.
      step_ratio: Geometric mean over the tasks measured; None if none was.
      state_bytes: Mean over the tasks measured.
      tasks: Scores by task, in the suite's order.
      hollow: Share of all runs that are hollow; 0 in files of versions before 0.2.
      num_at_floor: Number of tasks with a loss at the floor, where losses are not distinguished.
    """

    name: str
    schedule: str
    source: str
    num_rates: int
    speedup: Interval
    train_ratio: Interval
    test_ratio: Interval
    untuned_rate: float
    untuned_speedup: Interval
    untuned_test_ratio: Interval
    won: float
    won_untuned: float
    diverged: float
    num_capped: int
    num_at_edge: int
    num_failed: int
    num_selected: int
    step_ratio: float | None
    state_bytes: float | None
    tasks: tuple[TaskScore, ...]
    hollow: float = 0.0
    num_at_floor: int = 0

    @property
    def label(self) -> str:
        """The name, with the schedule in short where it is not constant: `muon cosine`."""
        if self.schedule == CONSTANT:
            return self.name
        return f"{self.name} {self.schedule.removeprefix('warmup_')}"


@final
@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task of the suite, as it was used.

    Attributes:
      task: Name of the task.
      num_steps: Length of a candidate's run.
      num_params: Number of parameters of the model.
      fingerprint: Fingerprint of data, start and loss.
      reference: Origin of Adam's curves: "archive" or "run".
      steps: Steps of the checks of a candidate's run.
      envelope: Normalised training loss of Adam's lower envelope at these steps.
    """

    task: str
    num_steps: int
    num_params: int
    fingerprint: str
    reference: str
    steps: tuple[int, ...]
    envelope: tuple[float, ...]


@final
@dataclass(frozen=True, slots=True)
class Effort:
    """The effort of the comparison.

    Attributes:
      num_runs: Number of trainings of the candidates, also those of an earlier session.
      compile_s: Worker-seconds of tracing and compiling.
      run_s: Worker-seconds of training and checking.
      wall_s: Seconds of this session, start to end.
    """

    num_runs: int
    compile_s: float
    run_s: float
    wall_s: float

    @property
    def compile_share(self) -> float:
        """Share of compiling in the work; 0 where there was none."""
        total = self.compile_s + self.run_s
        return self.compile_s / total if total else 0.0


@final
@dataclass(frozen=True, slots=True)
class Results:
    """A whole comparison.

    Attributes:
      suite: Name of the suite.
      seeds: Seeds of the candidates' runs.
      rates_per_candidate: Number of learning rates that a row was tuned over, at most.
      horizon: Limit at which speed-ups are cut off.
      tasks: Tasks of the suite.
      rows: Rows, candidates first, then the archive's baselines.
      effort: Effort of the comparison.
      versions: Versions of Python, JAX, Optax, veldt, and the device, by name.
    """

    suite: str
    seeds: tuple[int, ...]
    rates_per_candidate: int
    horizon: float
    tasks: tuple[TaskRecord, ...]
    rows: tuple[Row, ...]
    effort: Effort
    versions: dict[str, str]

    def row(self, label: str) -> Row:
        """Return the row with this label.

        Raises:
          KeyError: There is none.
        """
        for row in self.rows:
            if row.label == label:
                return row
        raise KeyError(f"no row {label!r}; there are {', '.join(row.label for row in self.rows)}")

    def to_records(self) -> list[dict[str, Any]]:
        """Return the scores over the suite as dictionaries, one a row."""
        records = []
        for row in self.rows:
            record: dict[str, Any] = {
                "candidate": row.name,
                "schedule": row.schedule,
                "source": row.source,
            }
            for name in ("speedup", "train_ratio", "test_ratio"):
                interval: Interval = getattr(row, name)
                record |= {
                    name: interval.value,
                    f"{name}_low": interval.low,
                    f"{name}_high": interval.high,
                }
            names = ("won", "untuned_rate", "diverged", "hollow", "step_ratio", "state_bytes")
            records.append(record | {name: getattr(row, name) for name in names})
        return records

    def to_pandas(self) -> Any:
        """Return the scores over the suite as a pandas DataFrame.

        Raises:
          VeldtError: pandas is not installed.
        """
        return formatting.data_frame(self.to_records())

    def __repr__(self) -> str:
        width = max((len(row.label) for row in self.rows), default=0)
        rows = (
            f"{row.label:{width}}  speed-up {row.speedup}  test loss {row.test_ratio}"
            for row in self.rows
        )
        return "\n".join([self._title(), *rows])

    def _repr_html_(self) -> str:
        heads = ("optimizer", "speed-up", "training loss", "test loss", "won", "diverged")
        rows = []
        for row in self.rows:
            intervals = (row.speedup, row.train_ratio, row.test_ratio)
            shares = f"{row.won:.0%}", f"{row.diverged:.0%}"
            rows.append(("", (row.label, *intervals, *shares)))
        return tag(
            "div",
            tag("b", self._title()),
            table(heads, rows, numbers=range(1, len(heads))),
            "Losses are over tuned Adam's, below 1 is better; [95% intervals over seeds].",
        )

    def _title(self) -> str:
        return f"{self.suite}: {len(self.tasks)} tasks, {len(self.seeds)} seeds"

    def to_json(self) -> str:
        """Return everything as JSON; an infinite loss is null."""
        data = {"format": 1, **dataclasses.asdict(self)}
        data["effort"]["compile_share"] = self.effort.compile_share
        return json.dumps(_finite(data), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
