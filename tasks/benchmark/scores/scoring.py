"""Scores from finished sweeps.

Every candidate is tuned over as many learning rates with as many seeds. Training speed is scored at
the rate with the lowest training loss, held-out loss on the test split at the rate with the lowest
validation loss. The rate is chosen on the seeds that are scored; so is Adam's, over twice as many
rates and at every step anew, which counts against the candidate rather than for it.

The same seed means the same start and the same batches, so where Adam's reference has a candidate's
seeds the two are compared on these, and bootstrap draws seeds for both together. *Untuned* is with
one rate for all tasks: that with the lowest mean log normalised validation loss, for the candidate
as for Adam.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from veldt.tasks.benchmark.runs.costs import Cost
from veldt.tasks.benchmark.runs.sweep import SPLITS, Sweep
from veldt.tasks.benchmark.scores import aggregate
from veldt.tasks.benchmark.scores import speedup as scores
from veldt.tasks.benchmark.scores.aggregate import Interval
from veldt.tasks.benchmark.scores.results import Row, TaskScore
from veldt.tasks.common import errors
from veldt.tasks.inner_loop.hollow import MIN_NORMALIZED

Normalizer = Callable[[np.ndarray], np.ndarray]


@final
@dataclass(frozen=True, eq=False)
class Entry:
    """A candidate's runs with one schedule, before scoring.

    Attributes:
      name: Name of the candidate.
      schedule: Schedule of the learning rate.
      source: Origin, "run" (here and now) or "archive".
      sweeps: Sweeps by task; a task on which the candidate failed is missing.
      costs: Costs by task, where measured.
      selected_on: Tasks that the candidate was selected on; which do not count in the means.
    """

    name: str
    schedule: str
    source: str
    sweeps: Mapping[str, Sweep]
    costs: Mapping[str, Cost]
    selected_on: frozenset[str] = frozenset()


@final
@dataclass(frozen=True, eq=False)
class Reference:
    """A task, and Adam's runs that its scores are relative to.

    Attributes:
      task: Name of the task.
      num_steps: Length of a candidate's run.
      adam: Adam's long sweep over the fine grid of rates.
      normalizer: Function from losses, any shape, to the task's normalised scale.
    """

    task: str
    num_steps: int
    adam: Sweep
    normalizer: Normalizer


def compare(references: Sequence[Reference], entries: Sequence[Entry]) -> tuple[Row, ...]:
    """Return the scores of every entry on every task, and over them.

    Args:
      references: Tasks of the suite.
      entries: Candidates with their runs.

    Returns:
      A row per entry, in their order.

    Raises:
      TaskError: An entry was selected on every task.
    """
    return tuple(_Scorer(references, entry).row() for entry in entries)


@final
@dataclass(frozen=True, eq=False)
class _Tuned:
    """A sweep's final losses on the normalised scale, and the rates that they choose.

    Attributes:
      sweep: Sweep.
      finals: Normalised final losses, by split, float64 [L, S].
      best: Position of the chosen rate, by the reported split: train by train, test by valid.
    """

    sweep: Sweep
    finals: Mapping[str, np.ndarray]
    best: Mapping[str, int]

    @classmethod
    def of(cls, sweep: Sweep, normalizer: Normalizer) -> "_Tuned":
        finals = np.asarray(normalizer(sweep.losses[:, :, -1]), np.float64)
        return cls(
            sweep,
            {split: finals[..., i] for i, split in enumerate(SPLITS)},
            {
                "train": scores.best_rate(sweep, "train"),
                "test": scores.best_rate(sweep, "valid"),
            },
        )

    def normalized(self, split: str, rate: int, drawn: np.ndarray) -> float:
        """Return the mean over drawn seeds."""
        return float(self.finals[split][rate, drawn].mean())


@final
@dataclass(frozen=True, eq=False)
class _Adam:
    """Adam as a candidate is compared with it on a task.

    Attributes:
      long: Fine grid, to the horizon.
      contest: Runs as a contestant: every second rate, to the candidate's number of steps.
      paired: Whether the seeds are the candidate's, in the same order.
    """

    long: Sweep
    contest: _Tuned
    paired: bool

    @classmethod
    def beside(cls, reference: Reference, sweep: Sweep) -> "_Adam":
        """Return Adam with a candidate's seeds, where it has them all."""
        adam = reference.adam
        known = adam.seeds.tolist()
        paired = set(sweep.seeds.tolist()) <= set(known)
        if paired:
            where = [known.index(seed) for seed in sweep.seeds.tolist()]
            adam = adam.take(seeds=where)
        contest = _Tuned.of(contestant(adam, reference.num_steps), reference.normalizer)
        return cls(adam, contest, paired)

    def seeds_of(self, drawn: np.ndarray) -> np.ndarray:
        """Return the positions of the seeds that go with the candidate's drawn ones; else all."""
        return drawn if self.paired else np.arange(len(self.long.seeds))


def contestant(adam: Sweep, num_steps: int) -> Sweep:
    """Return Adam's reference cut down to a contestant's budget of rates and steps."""
    return adam.take(rates=slice(1, None, 2)).until(num_steps)


@final
class _Scorer:
    """The scoring of one entry beside Adam, task by task, for any draw of seeds."""

    def __init__(self, references: Sequence[Reference], entry: Entry):
        self._references = references
        self._entry = entry
        model = next(iter(entry.sweeps.values()), None)
        sweeps = [entry.sweeps.get(r.task) or _all_diverged(r, model) for r in references]
        pairs = list(zip(references, sweeps, strict=True))
        self._ours = [_Tuned.of(sweep, r.normalizer) for r, sweep in pairs]
        self._adams = [_Adam.beside(r, sweep) for r, sweep in pairs]
        self._counted = [i for i, r in enumerate(references) if r.task not in entry.selected_on]
        if not self._counted:
            raise errors.TaskError(
                f"{entry.name} was selected on every task: nothing shows how good it is"
            )
        self._shared = _shared_rate([self._ours[i] for i in self._counted])
        self._adam_shared = _shared_rate([self._adams[i].contest for i in self._counted])

    def row(self) -> Row:
        """Return the entry's scores."""
        everything = tuple(self._task(i) for i in range(len(self._references)))
        tasks = [everything[i] for i in self._counted]
        ratios = [task.step_ratio for task in tasks if task.step_ratio is not None]
        sizes = [task.state_bytes for task in tasks if task.state_bytes is not None]
        shared = self._shared
        return Row(
            name=self._entry.name,
            schedule=self._entry.schedule,
            source=self._entry.source,
            num_rates=len(self._ours[0].sweep.rates),
            speedup=self._over_tasks(self._speedup),
            train_ratio=_exp(self._over_tasks(functools.partial(self._log_ratio, "train"))),
            test_ratio=_exp(self._over_tasks(functools.partial(self._log_ratio, "test"))),
            untuned_rate=float(self._ours[0].sweep.rates[shared]),
            untuned_speedup=self._over_tasks(functools.partial(self._speedup, rate=shared)),
            untuned_test_ratio=_exp(
                self._over_tasks(functools.partial(self._log_ratio, "test", rate=shared))
            ),
            won=float(np.mean([_win(task.test_ratio) for task in tasks])),
            won_untuned=float(np.mean([_win(task.untuned_test_ratio) for task in tasks])),
            diverged=float(np.mean([task.diverged for task in tasks])),
            hollow=float(np.mean([task.hollow for task in tasks])),
            num_at_floor=sum(task.at_floor for task in tasks),
            num_capped=sum(task.capped for task in tasks),
            num_at_edge=sum(task.at_edge for task in tasks),
            num_failed=sum(task.failed for task in tasks),
            step_ratio=math.exp(np.mean(np.log(ratios))) if ratios else None,
            state_bytes=float(np.mean(sizes)) if sizes else None,
            num_selected=len(everything) - len(tasks),
            tasks=everything,
        )

    def _task(self, i: int) -> TaskScore:
        reference, ours, shared = self._references[i], self._ours[i], self._shared
        sweep, seeds = ours.sweep, np.arange(len(ours.sweep.seeds))
        rate, valid_rate = ours.best["train"], ours.best["test"]
        speedup = self._speedup_at(i, seeds, rate)
        cost = self._entry.costs.get(reference.task)
        curve = reference.normalizer(sweep.losses[rate, :, :, SPLITS.index("train")])
        return TaskScore(
            task=reference.task,
            failed=reference.task not in self._entry.sweeps,
            selected=reference.task in self._entry.selected_on,
            rate=float(sweep.rates[rate]),
            valid_rate=float(sweep.rates[valid_rate]),
            at_edge=len(sweep.rates) > 1 and rate in (0, len(sweep.rates) - 1),
            speedup=speedup.value,
            capped=speedup.capped,
            train_loss=float(scores.final_losses(sweep, rate, "train").mean()),
            test_loss=float(scores.final_losses(sweep, valid_rate, "test").mean()),
            train=ours.normalized("train", rate, seeds),
            test=ours.normalized("test", valid_rate, seeds),
            train_ratio=math.exp(self._log_ratio("train", i, seeds)),
            test_ratio=math.exp(self._log_ratio("test", i, seeds)),
            diverged=float(sweep.diverged.mean()),
            hollow=float(sweep.hollow_runs.mean()),
            at_floor=min(
                ours.normalized("train", rate, seeds), ours.normalized("test", valid_rate, seeds)
            )
            <= MIN_NORMALIZED,
            untuned_speedup=self._speedup_at(i, seeds, shared).value,
            untuned_test_ratio=math.exp(self._log_ratio("test", i, seeds, rate=shared)),
            step_ratio=cost.step_ratio if cost else None,
            state_bytes=cost.state_bytes if cost else None,
            curve=tuple(round(float(value), 6) for value in curve.mean(axis=0)),
        )

    def _over_tasks(self, score: Callable[[int, np.ndarray], float]) -> Interval:
        """Return the interquartile mean, over the tasks that count, of a score of drawn seeds."""
        counted = self._counted
        seeds = [np.arange(len(self._ours[i].sweep.seeds)) for i in counted]
        return aggregate.bootstrap(seeds, lambda position, drawn: score(counted[position], drawn))

    def _speedup(self, i: int, drawn: np.ndarray, rate: int | None = None) -> float:
        """Return the speed-up at the task's best rate, or at a given one."""
        return self._speedup_at(
            i, drawn, self._ours[i].best["train"] if rate is None else rate
        ).value

    def _speedup_at(self, i: int, drawn: np.ndarray, rate: int) -> scores.Speedup:
        adam = self._adams[i]
        loss = float(scores.final_losses(self._ours[i].sweep, rate, "train")[drawn].mean())
        envelope = scores.envelope(adam.long, adam.seeds_of(drawn))
        return scores.speedup(envelope, loss, self._references[i].num_steps)

    def _log_ratio(self, split: str, i: int, drawn: np.ndarray, rate: int | None = None) -> float:
        """Return the log of the normalised loss over Adam's, both at the best or the one rate."""
        ours, adam = self._ours[i], self._adams[i]
        if rate is None:
            rate, adam_rate = ours.best[split], adam.contest.best[split]
        else:
            adam_rate = self._adam_shared
        mine = ours.normalized(split, rate, drawn)
        theirs = adam.contest.normalized(split, adam_rate, adam.seeds_of(drawn))
        return math.log(max(mine, MIN_NORMALIZED) / max(theirs, MIN_NORMALIZED))


def _all_diverged(reference: Reference, model: Sweep | None) -> Sweep:
    """Return diverged runs for a failed candidate, with the rates and seeds of one that ran."""
    like = contestant(reference.adam, reference.num_steps)
    rates, seeds = (like.rates, like.seeds) if model is None else (model.rates, model.seeds)
    losses = np.full((len(rates), len(seeds), len(like.steps), len(SPLITS)), np.inf, np.float32)
    return dataclasses.replace(like, rates=rates, seeds=seeds, losses=losses)


def _shared_rate(tuned: Sequence[_Tuned]) -> int:
    """Return the position of the one rate for all tasks."""
    logs = [np.log(np.maximum(one.finals["valid"].mean(-1), MIN_NORMALIZED)) for one in tuned]
    return int(np.argmin(np.mean(logs, axis=0)))


def _exp(interval: Interval) -> Interval:
    return Interval(math.exp(interval.value), math.exp(interval.low), math.exp(interval.high))


def _win(ratio: float) -> float:
    """Return 1 for a lower loss, half for an equal one."""
    return 0.5 if ratio == 1.0 else float(ratio < 1.0)
