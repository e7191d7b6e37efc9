"""The loop of a tuning: a metagradient, a step of the outer optimizer, now and then a look.

All that decides what comes next is in a frozen `Progress`, which checkpoints hold; so a tuning that
was killed goes on to the same numbers.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.meta import array_lists, checkpoint
from veldt.meta.replay import api, fallback
from veldt.meta.replay.task_training import TaskTraining
from veldt.meta.tune import config, descent, problem
from veldt.tasks.common import stopping, types

_CHECK_KEY = 1
_MOST_LOGGED = 64  # numbers of a hyperparameter; there may be one for each example
_FACTS = (
    "update",
    "looked_at",
    "best_outcome",
    "first_outcome",
    "num_skipped",
    "num_fallbacks",
    "distrusted",
    "forward_runs",
    "wall_s",
)


@final
@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a tuning is.

    Attributes:
      update: Updates done.
      meta_params: By name, on their scales.
      opt_state: The outer optimizer's, as plain leaves; None before the first update.
      looked_at: The last update that a look was taken after; -1 before the first.
      best: The meta-parameters of the lowest look; None before the first.
      best_outcome: Of these.
      first_outcome: Of the first look, at the start.
      num_skipped: Updates whose gradient was not finite.
      num_fallbacks: Updates by evolution strategies, since the metagradient failed its check.
      distrusted: Whether the last check failed: until the next one updates are estimates.
      forward_runs: Runs of training that gradients took forward, those again, those of checks and
        of estimates included.
      wall_s: Seconds so far, of all sittings.
    """

    update: int
    meta_params: Mapping[str, np.ndarray]
    opt_state: array_lists.Leaves | None = None
    looked_at: int = -1
    best: Mapping[str, np.ndarray] | None = None
    best_outcome: float = math.inf
    first_outcome: float = math.nan
    num_skipped: int = 0
    num_fallbacks: int = 0
    distrusted: bool = False
    forward_runs: float = 0.0
    wall_s: float = 0.0


class Watcher(Protocol):
    """Is told what happens."""

    def updated(self, progress: Progress, figures: Mapping[str, Any]) -> None:
        """An update was done."""
        ...

    def checked(self, progress: Progress, figures: Mapping[str, Any]) -> None:
        """A look was taken."""
        ...

    def doing(self, text: str) -> None:
        """What is done until then."""
        ...


def run(
    settings: config.TuneConfig,
    subject: problem.Problem,
    progress: Progress,
    watcher: Watcher,
    save: Callable[[Progress], None],
    journal: Path | None = None,
) -> Progress:
    """Go on to the last update, and return where it ends.

    Args:
      settings: The tuning's.
      subject: Its trainings.
      progress: Where it is.
      watcher: Is told.
      save: Keeps progress; called after each update.
      journal: A folder for metagradients' own progress; None keeps none.

    Raises:
      ReplayError: A metagradient could not be computed, or failed its check and
        `settings.on_failure` is "raise".
    """
    outer = descent.make_outer(settings.outer, settings.num_updates)
    while True:
        due = progress.update % settings.check_every == 0
        last = progress.update == settings.num_updates
        if (due or last) and progress.looked_at < progress.update:
            watcher.doing(f"compiling and running {settings.check_seeds} runs on fixed seeds")
            progress, figures = _look(subject, progress)
            with stopping.hold():  # What was told is kept.
                watcher.checked(progress, figures)
                save(progress)
        if last:
            return progress
        number, total = progress.update + 1, settings.num_updates
        watcher.doing(f"compiling and running metagradient {number:,} of {total:,}")
        progress, figures = _update(settings, subject, outer, progress, journal)
        with stopping.hold():  # What was told is kept.
            watcher.updated(progress, figures)
            save(progress)


def _look(subject: problem.Problem, progress: Progress) -> tuple[Progress, dict[str, Any]]:
    """Compare the hyperparameters with the best so far, on seeds that no update had."""
    began = time.monotonic()
    outcome, hollow = problem.look(subject.check(), dict(progress.meta_params))
    better = math.isfinite(outcome) and outcome < progress.best_outcome
    after = dataclasses.replace(
        progress,
        looked_at=progress.update,
        best=progress.meta_params if better or progress.best is None else progress.best,
        best_outcome=outcome if better else progress.best_outcome,
        first_outcome=outcome if progress.looked_at < 0 else progress.first_outcome,
        wall_s=progress.wall_s + time.monotonic() - began,
    )
    return after, {"outcome": outcome, "best": better, "hollow": hollow}


@final
@dataclasses.dataclass(frozen=True)
class _Found:
    """A gradient, what it took, and what is logged of it."""

    outcome: float
    gradient: Any
    estimated: bool
    forward_runs: float
    figures: Mapping[str, Any]


def _metagradient(
    settings: config.TuneConfig,
    training: TaskTraining,
    meta_params: Mapping[str, jax.Array],
    key: types.Key,
    verify: api.Check,
    directory: Path | None,
) -> _Found:
    found = api.metagradient(
        training,
        meta_params,
        key=key,
        memory_bytes=int(settings.memory_mb * 2**20),
        directory=directory,
        check=verify,
        on_failure=settings.on_failure,
    )
    estimated = found.method != "replay"
    steps = 0 if found.cost is None else found.cost.forward_steps
    figures = {
        "method": found.method,
        "verdict": found.verdict.message,
        "metasmoothness": found.verdict.metasmoothness,
        "peak_bytes": None if found.cost is None else found.cost.peak_bytes,
        "plan": found.plan.describe(),
    }
    runs = steps / settings.num_steps + api.NUM_CHECK_RUNS[verify]
    runs += fallback.NUM_RUNS if estimated else 0
    return _Found(found.outcome, found.gradient, estimated, runs, figures)


def _estimate(
    training: TaskTraining, meta_params: Mapping[str, jax.Array], key: types.Key
) -> _Found:
    """Take the gradient's place for as long as it is not trusted."""
    figures = {
        "method": "full ES",
        "verdict": "the last metagradient that was checked failed: an estimate until the next",
        "metasmoothness": None,
        "peak_bytes": None,
        "plan": "none",
    }
    return _Found(
        problem.outcome(training, dict(meta_params)),
        fallback.estimate(training, meta_params, key),
        True,
        fallback.NUM_RUNS + 1,
        figures,
    )


def _update(
    settings: config.TuneConfig,
    subject: problem.Problem,
    outer: optax.GradientTransformation,
    progress: Progress,
    journal: Path | None,
) -> tuple[Progress, dict[str, Any]]:
    began = time.monotonic()
    meta_params = {name: jnp.asarray(value) for name, value in progress.meta_params.items()}
    key = jax.random.fold_in(jax.random.key(settings.seed), progress.update)
    key = jax.random.fold_in(key, _CHECK_KEY)
    training = subject.training_of(progress.update)
    # Agreement with differences costs as much again: it is asked where a look is due.
    due = progress.update % settings.check_every == 0
    if progress.distrusted and not due:
        found = _estimate(training, meta_params, key)
    else:
        directory = None if journal is None else journal / f"update_{progress.update}"
        verify = settings.verify if due else "none"
        found = _metagradient(settings, training, meta_params, key, verify, directory)
    leaves = jax.tree.leaves(found.gradient)
    usable = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)
    state = outer.init(meta_params)
    if progress.opt_state is not None:
        state = array_lists.rebuild(state, progress.opt_state)
    if usable:
        steps, state = outer.update(found.gradient, state, meta_params)
        meta_params = optax.apply_updates(meta_params, steps)
    wall_s = time.monotonic() - began
    after = dataclasses.replace(
        progress,
        update=progress.update + 1,
        meta_params={name: np.asarray(value) for name, value in meta_params.items()},
        opt_state=array_lists.leaves(state),
        num_skipped=progress.num_skipped + (not usable),
        num_fallbacks=progress.num_fallbacks + found.estimated,
        distrusted=found.estimated,
        forward_runs=progress.forward_runs + found.forward_runs,
        wall_s=progress.wall_s + wall_s,
    )
    figures = {
        "outcome": found.outcome,
        "meta_grad_norm": float(optax.tree.norm(found.gradient)),
        **found.figures,
        "seconds": wall_s,
        "hyperparameters": {
            name: numbers.tolist()
            for name, numbers in subject.numbers(after.meta_params).items()
            if numbers.size <= _MOST_LOGGED
        },
    }
    return after, figures


def store(progress: Progress) -> checkpoint.Stored:
    """Return what a checkpoint keeps."""
    arrays = {
        "meta_params": dict(progress.meta_params),
        "best": dict(progress.best or {}),
        "opt_state": list(progress.opt_state or ()),
    }
    facts = {name: _as_json(getattr(progress, name)) for name in _FACTS}
    kept = {name: jax.tree.map(np.asarray, part) for name, part in arrays.items() if part}
    return checkpoint.Stored(kept, facts)


def restore(stored: checkpoint.Stored) -> Progress:
    """Return the progress that a checkpoint was made of."""
    kept = stored.arrays
    # Progress of veldt 0.1 before `distrusted` has none.
    facts = {name: stored.facts.get(name, False) for name in _FACTS}
    for name, missing in (("best_outcome", math.inf), ("first_outcome", math.nan)):
        if facts[name] is None:
            facts[name] = missing
    return Progress(
        meta_params=kept["meta_params"],
        best=kept.get("best"),
        opt_state=tuple(kept["opt_state"]) if "opt_state" in kept else None,
        **facts,
    )


def _as_json(value: float) -> float | None:
    return value if math.isfinite(value) else None
