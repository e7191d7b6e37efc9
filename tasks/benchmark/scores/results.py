"""What a comparison found, as plain frozen data: per task and candidate, and over the suite.

Scores of one task:

* `speedup`: see `scores`.
* `train`, `test`: final losses on the task's normalised scale (0 perfect, 1 knows nothing), and
  `train_ratio`, `test_ratio`: over tuned Adam's; below 1 is better than Adam.
* `diverged`: the share of all runs, whatever their rate, that ended without a finite loss.
* `hollow`: the share whose loss is the arithmetic's doing (`inner_loop.hollow`); it counts no more
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


@final
@dataclass(frozen=True, slots=True)
class TaskScore:
    """How one candidate did on one task. Losses are means over seeds.

    Attributes:
      task: its name.
      failed: whether an exception ended it; it then counts as diverged everywhere.
      selected: whether the candidate was selected on this task, which then does not count.
      rate: the learning rate of the lowest training loss.
      valid_rate: the learning rate of the lowest validation loss.
      at_edge: whether `rate` is the lowest or highest of the rates tried: a wider grid might help.
      speedup: over Adam's envelope.
      capped: whether the true speed-up is larger.
      train_loss: at the end, in the task's own units.
      test_loss: likewise, at `valid_rate`.
      train: normalised training loss.
      test: normalised test loss.
      train_ratio: over tuned Adam's.
      test_ratio: likewise.
      diverged: share of all runs.
      untuned_speedup: at the one rate for all tasks.
      untuned_test_ratio: likewise, over Adam's at its one rate.
      step_ratio: see `Cost`; None where not measured.
      state_bytes: likewise.
      curve: normalised training loss at each check, at `rate`.
      hollow: share of all runs; 0 in what versions before 0.2 wrote.
      at_floor: whether a loss is at the floor below which none can be told apart.
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
    """How one candidate did over the suite, with one schedule.

    Attributes:
      name: the candidate's.
      schedule: of its learning rate.
      source: "run" or "archive".
      num_rates: learning rates that it was tuned over; 1: not at all.
      speedup: interquartile mean over tasks, with its 95% interval.
      train_ratio: likewise; below 1 is better than tuned Adam.
      test_ratio: likewise.
      untuned_rate: the one rate for all tasks.
      untuned_speedup: with it.
      untuned_test_ratio: with it.
      won: share of tasks with a lower test loss than tuned Adam; an equal one counts half.
      won_untuned: likewise, both with one rate for all tasks.
      diverged: share of all runs.
      num_capped: tasks whose speed-up is cut off at the horizon of Adam's curves.
      num_at_edge: tasks whose best rate is at the edge of those tried.
      num_failed: tasks ended by an exception.
      num_selected: tasks left out of all of these, since the candidate was selected on them.
      step_ratio: geometric mean over the tasks measured; None where none was.
      state_bytes: mean over the tasks measured.
      tasks: in the suite's order.
      hollow: share of all runs; 0 in what versions before 0.2 wrote.
      num_at_floor: tasks with a loss at the floor below which none can be told apart.
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
      task: its name.
      num_steps: length of a candidate's run.
      num_params: of its model.
      fingerprint: of its data, start and loss.
      reference: where Adam's curves come from: "archive" or "run".
      steps: of the checks of a candidate's run.
      envelope: normalised training loss of Adam's lower envelope at these steps.
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
    """What the comparison itself took.

    Attributes:
      num_runs: trainings of the candidates, those done in an earlier sitting too.
      compile_s: worker-seconds of tracing and compiling them.
      run_s: worker-seconds of training and checking.
      wall_s: seconds of this sitting, start to end.
    """

    num_runs: int
    compile_s: float
    run_s: float
    wall_s: float

    @property
    def compile_share(self) -> float:
        """Compiling's share of the work; 0 where there was none."""
        total = self.compile_s + self.run_s
        return self.compile_s / total if total else 0.0


@final
@dataclass(frozen=True, slots=True)
class Results:
    """A whole comparison.

    Attributes:
      suite: its name.
      seeds: of the candidates' runs.
      rates_per_candidate: how many learning rates a row was tuned over, at most.
      horizon: where speed-ups are cut off.
      tasks: the suite's.
      rows: candidates first, then the archive's baselines.
      effort: what it took.
      versions: of Python, JAX, Optax, veldt, and the device, by name.
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
        """The row with this label.

        Raises:
          KeyError: there is none.
        """
        for row in self.rows:
            if row.label == label:
                return row
        raise KeyError(f"no row {label!r}; there are {', '.join(row.label for row in self.rows)}")

    def to_json(self) -> str:
        """All of it as JSON; an infinite loss is null."""
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
