"""Whether a tuning was worth it: beside it the best constant rate and the best cosine.

Both are chosen on the seeds that the tuning's checks were on, by no more training runs than the
tuning took, a run backward counted as two; the other hyperparameters stay where the tuning began.
Then all are run on seeds that nothing was chosen on, and compared seed by seed.

All trials go to the pool at once. Their outcomes are in `comparison.json` as soon as they are
known: a resumed tuning repeats none.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from veldt.meta.baselines import grids
from veldt.meta.train import log
from veldt.meta.tune import config, loop, problem, tuning_jobs
from veldt.meta.tune.tuning_jobs import TuningJobs
from veldt.meta.tune.tuning_worker import OutcomeJob, Rate
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.common.nan_last import lowest

FILE: Final = "comparison.json"
_ENDS: Final = (0.0, 0.1)  # of a cosine, as shares of its peak
_FEWEST, _MOST = 3, 17  # rates of a grid
_REACH: Final = 30.0  # from the start's and the tuned rates to the grid's ends
_BACKWARD_RUNS: Final = 2  # that one run backward costs
# Of Student's t at 97.5%, by degrees of freedom from 1; later ones are near the last.
_QUANTILES: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179),
    *(2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064),
)


@final
@dataclasses.dataclass(frozen=True)
class Row:
    """One way to set the learning rate.

    Attributes:
      name: Name of the way, for people.
      num_runs: Number of training runs that it was chosen by.
      fresh: Outcome on each seed that nothing was chosen on; NaN where a run diverged.
    """

    name: str
    num_runs: int
    fresh: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of its outcomes on fresh seeds; NaN if one is no number."""
        return float(np.mean(self.fresh))


def cost(settings: config.TuneConfig, progress: loop.TuningProgress) -> int:
    """Return the training runs that a tuning took, a run backward counted as two."""
    checks = -(-progress.update // settings.check_every) + 1
    backward = _BACKWARD_RUNS * progress.update
    runs = (progress.forward_runs + backward) * settings.seeds + checks * settings.check_seeds
    return math.floor(runs)


def compare(
    settings: config.TuneConfig,
    subject: problem.Problem,
    progress: loop.TuningProgress,
    run_dir: Path,
    jobs: TuningJobs,
    doing: Callable[[str], None],
) -> tuple[Row, ...]:
    """Return what was learned and what it is compared with; nothing without a learning rate.

    Args:
      settings: Settings of the tuning.
      subject: Trainings of the tuning.
      progress: The last state of the tuning.
      run_dir: Folder that keeps the outcomes.
      jobs: Jobs of the tuning, on its pool.
      doing: Function that receives what is run, in words.
    """
    if not is_comparable(settings) or progress.best is None:
        return ()
    trials = _Trials(subject, jobs, run_dir / FILE)
    others = _OtherRates(settings, subject, progress)
    budget = cost(settings, progress)
    mine = trials.begin_fresh("what was learned", progress.best, "tuned")
    kinds = others.grids(budget // settings.check_seeds)
    tried = {
        kind: [
            trials.begin(
                f"{kind} {number} of {len(grid.rates)}",
                subject.check_seeds,
                others.with_rates(rates),
                "by_step",
            )
            for number, rates in enumerate(grid.rates)
        ]
        for kind, grid in kinds.items()
    }
    doing("running what was learned on fresh seeds")
    rows = [Row("what was learned", budget, mine())]
    fresh: list[tuple[str, int, Callable[[], tuple[float, ...]]]] = []
    for kind, grid in kinds.items():
        outcomes = []
        for number, outcome in enumerate(tried[kind]):
            doing(f"comparing with {kind} rates: {number} of {len(grid.rates)}")
            outcomes.append(outcome())
        best = lowest(outcomes) or 0
        peak = float(grid.settings["peak"][best])
        end = float(grid.settings["end"][best]) if "end" in grid.settings else None
        to = "" if end is None else f" to {peak * end:.3g}"
        name = f"best {kind} rate, {peak:.3g}{to}"
        params = others.with_rates(grid.rates[best])
        ended = trials.begin_fresh(name, params, "by_step")
        fresh.append((name, len(grid.rates) * settings.check_seeds, ended))
    for name, num_runs, ended in fresh:
        doing(f"running {name} on fresh seeds")
        rows.append(Row(name, num_runs, ended()))
    trials.write_rows(rows)
    return tuple(rows)


def is_comparable(settings: config.TuneConfig) -> bool:
    """Return whether a tuning has a learning rate that a constant or a cosine could replace."""
    return settings.compare and problem.RATE in settings.tune and settings.num_steps > 1


def read(run_dir: Path) -> tuple[Row, ...]:
    """Return the rows that a run has stored; none where it has not got that far."""
    try:
        found = json.loads((run_dir / FILE).read_text(encoding="utf-8"))["rows"]
        return tuple(
            Row(str(row["name"]), int(row["num_runs"]), tuple(map(log.number, row["fresh"])))
            for row in found
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def lines(rows: Sequence[Row]) -> list[str]:
    """Return what the comparison says, a line for each other rate."""
    if not rows:
        return []
    mine, *rest = rows
    said = [f"on {len(mine.fresh)} fresh seeds: {mine.name} {_text(mine.mean)}"]
    for row in rest:
        differences = np.asarray(row.fresh) - np.asarray(mine.fresh)
        said.append(f"  {row.name}: {_text(row.mean)} ({row.num_runs:,} of at most "
                    f"{mine.num_runs:,} runs to choose it): {conclusion(differences)}")  # fmt: skip
    return said


def conclusion(differences: np.ndarray) -> str:
    """Say whether what was learned is better, by the other outcomes less its own, seed by seed."""
    if not np.isfinite(differences).all():
        return "not comparable, since runs diverged"
    if len(differences) < 2:
        return "not better for sure: one seed has no interval"
    mean = float(np.mean(differences))
    quantile = _QUANTILES[min(len(differences) - 1, len(_QUANTILES)) - 1]
    half = quantile * float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    interval = f"difference {mean:+.3g}, 95% interval {mean - half:+.3g} to {mean + half:+.3g}"
    if mean - half > 0:
        return f"what was learned is better ({interval})"
    return f"what was learned is {'worse' if mean + half < 0 else 'not better'} ({interval})"


@final
class _OtherRates:
    """Learning rates that are given step by step, the rest as at the tuning's start."""

    def __init__(
        self, settings: config.TuneConfig, subject: problem.Problem, progress: loop.TuningProgress
    ):
        start = settings.tune[problem.RATE].start
        self._meta_params = {name: np.asarray(x) for name, x in subject.meta_params.items()}
        self._num_steps = settings.num_steps
        learned = subject.numbers(progress.best or progress.meta_params)[problem.RATE]
        rates = [start, *(x for x in np.ravel(learned).tolist() if math.isfinite(x) and x > 0)]
        self._low, self._high = min(rates) / _REACH, max(rates) * _REACH

    def with_rates(self, rates: Any) -> dict[str, np.ndarray]:
        """Return the meta-parameters of rates, float [T]."""
        return {**self._meta_params, problem.RATE: np.asarray(rates, np.float32)}

    def grids(self, most: int) -> Mapping[str, grids.ScheduleGrid]:
        """Return what may be tried, at most so many settings of each kind, or the fewest."""

        def peaks(count: int) -> list[float]:
            count = min(max(count, _FEWEST), _MOST)
            found: list[float] = np.geomspace(self._low, self._high, count).tolist()
            return found

        return {
            "constant": grids.constant(peaks(most), num_steps=self._num_steps),
            "cosine": grids.cosine(peaks(most // len(_ENDS)), _ENDS, num_steps=self._num_steps),
        }


@final
class _Trials:
    """The outcomes that are known, by name, in a file, and those that are under way."""

    def __init__(self, subject: problem.Problem, jobs: TuningJobs, path: Path):
        self._subject, self._jobs, self._path = subject, jobs, path
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self._outcomes = {str(k): log.number(v) for k, v in found["outcomes"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._outcomes = {}

    def begin(
        self, key: str, seeds: range, meta_params: Mapping[str, Any], rate: Rate
    ) -> Callable[[], float]:
        """Begin runs, and return the function that awaits their outcome and writes it down.

        Args:
          key: Name of the outcome; where it is known nothing is run.
          seeds: Numbers of the runs' seeds.
          meta_params: Meta-parameters of the runs.
          rate: Form of the learning rate among them.
        """
        if key in self._outcomes:
            return lambda: self._outcomes[key]
        groups = self._subject.groups(seeds)
        plain = {name: np.asarray(value) for name, value in meta_params.items()}
        numbers = self._jobs.submit(key, [OutcomeJob(group, plain, rate) for group in groups])

        def outcome() -> float:
            ended = self._jobs.take(numbers)
            self._outcomes[key], _ = problem.judge(ended, tuning_jobs.shares(groups))
            self._write({})
            return self._outcomes[key]

        return outcome

    def begin_fresh(
        self, name: str, meta_params: Mapping[str, Any], rate: Rate
    ) -> Callable[[], tuple[float, ...]]:
        """Begin a run on each fresh seed, and return the function that awaits the outcomes."""
        awaited = [
            self.begin(f"{name}, fresh seed {i}", range(seed, seed + 1), meta_params, rate)
            for i, seed in enumerate(self._subject.fresh_seeds)
        ]
        return lambda: tuple(outcome() for outcome in awaited)

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write down the end of it."""
        self._write({"rows": [dataclasses.asdict(row) for row in rows]})

    def _write(self, more: Mapping[str, Any]) -> None:
        plain = log.finite({"outcomes": self._outcomes, **more})
        atomic_files.write_bytes(self._path, json.dumps(plain).encode())


def _text(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else "diverged"
