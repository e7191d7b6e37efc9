"""The loop of a tuning: a gradient, a step of the outer optimizer, now and then a check.

`veldt.tune` (`descent`) and `veldt tune` (`run_tuning`) both run it; a `Descent` says what a
gradient and a check are. All that decides what comes next is in a frozen `TuningProgress`, which
checkpoints hold, so a tuning that was killed resumes to the same numbers.

It is metagradient descent (MGD, arXiv 2503.13751), whose signs are one of the outer optimizers.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta import array_lists, checkpoint
from veldt.meta.train import log
from veldt.meta.tune import config
from veldt.tasks.common import stopping

# What a checkpoint keeps beside arrays: names of `TuningProgress` by names in the file.
_FACTS = {
    "update": "update",
    "looked_at": "checked_at",
    "best_outcome": "best_outcome",
    "first_outcome": "first_outcome",
    "num_skipped": "num_skipped",
    "num_fallbacks": "num_fallbacks",
    "distrusted": "distrusted",
    "forward_runs": "forward_runs",
    "wall_s": "wall_s",
}


@final
@dataclasses.dataclass(frozen=True)
class TuningProgress:
    """The state of a tuning between two updates.

    Attributes:
      update: Number of updates done.
      meta_params: Meta-parameters; in a run directory by name, on their scales.
      opt_state: State of the outer optimizer, as plain leaves; None before the first update.
      checked_at: Number of updates done at the last check; -1 before the first check.
      best: Meta-parameters with the lowest outcome so far; None before the first outcome.
      best_outcome: Outcome of `best`; infinity before the first finite outcome.
      first_outcome: Outcome at the start; NaN before it is known.
      num_skipped: Number of updates whose gradient was not finite.
      num_fallbacks: Number of updates by evolution strategies, in place of metagradients that
        failed their check.
      distrusted: Whether the last metagradient failed its check, so that updates are estimates
        until the next check.
      forward_runs: Number of forward runs of training, with those of checks and of estimates.
      wall_s: Seconds of all sessions.
    """

    update: int
    meta_params: MetaParams
    opt_state: array_lists.Leaves | None = None
    checked_at: int = -1
    best: MetaParams | None = None
    best_outcome: float = math.inf
    first_outcome: float = math.nan
    num_skipped: int = 0
    num_fallbacks: int = 0
    distrusted: bool = False
    forward_runs: float = 0.0
    wall_s: float = 0.0


@final
@dataclasses.dataclass(frozen=True)
class Step:
    """A gradient for one update.

    Attributes:
      outcome: Outcome of the training at the meta-parameters before the update.
      gradient: Gradient of the outcome, shaped as the meta-parameters.
      estimated: Whether evolution strategies estimated the gradient.
      forward_runs: Number of forward runs of training that it took.
      figures: What is logged of it, by name.
    """

    outcome: float
    gradient: Any
    estimated: bool = False
    forward_runs: float = 0.0
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@final
@dataclasses.dataclass(frozen=True)
class Descent:
    """What a tuning descends on.

    Attributes:
      num_updates: Number of updates in all.
      outer: Settings of the optimizer that moves the meta-parameters.
      gradient: Function that takes the gradient at a state of the tuning.
      check: Function that returns an outcome to choose the best meta-parameters by, at a state of
        the tuning, and what is logged of it; None chooses by the outcomes of the updates.
      check_every: Number of updates between two checks.
      logged: Function that returns what is logged of meta-parameters after an update.
    """

    num_updates: int
    outer: config.OuterConfig
    gradient: Callable[[TuningProgress], Step]
    check: Callable[[TuningProgress], tuple[float, Mapping[str, Any]]] | None = None
    check_every: int = 1
    logged: Callable[[MetaParams], Mapping[str, Any]] = lambda _: {}


class TuningWatcher(Protocol):
    """An observer of a tuning; it changes nothing of it."""

    def updated(self, progress: TuningProgress, figures: Mapping[str, Any]) -> None:
        """Receive the state after an update, and its figures."""
        ...

    def checked(self, progress: TuningProgress, figures: Mapping[str, Any]) -> None:
        """Receive the state after a check, and its figures."""
        ...

    def doing(self, text: str) -> None:
        """Receive what is done until the next call."""
        ...


def run(
    descent: Descent,
    progress: TuningProgress,
    watcher: TuningWatcher | None = None,
    save: Callable[[TuningProgress], None] = lambda _: None,
) -> TuningProgress:
    """Run a tuning from its present state to its last update, and return its last state.

    Args:
      descent: What it descends on.
      progress: The present state of the tuning.
      watcher: Observer of updates and checks; None for none.
      save: Function that keeps a state; it is called after each update and each check.

    Raises:
      ReplayError: A metagradient could not be computed or is not trusted, and no estimate may take
        its place.
    """
    outer = make_outer(descent.outer, descent.num_updates)
    while True:
        last = progress.update == descent.num_updates
        due = last or progress.update % descent.check_every == 0
        if descent.check is not None and due and progress.checked_at < progress.update:
            if watcher is not None:
                watcher.doing("compiling and running the check on fixed seeds")
            progress, figures = _check(descent.check, progress)
            with stopping.hold():  # What was reported is kept.
                if watcher is not None:
                    watcher.checked(progress, figures)
                save(progress)
        if last:
            return progress
        if watcher is not None:
            number, total = progress.update + 1, descent.num_updates
            watcher.doing(f"compiling and running metagradient {number:,} of {total:,}")
        progress, figures = _update(descent, outer, progress)
        with stopping.hold():  # What was reported is kept.
            if watcher is not None:
                watcher.updated(progress, figures)
            save(progress)


def _check(
    check: Callable[[TuningProgress], tuple[float, Mapping[str, Any]]], progress: TuningProgress
) -> tuple[TuningProgress, dict[str, Any]]:
    """Compare the meta-parameters with the best so far."""
    began = time.monotonic()
    outcome, figures = check(progress)
    after = dataclasses.replace(_keep_best(progress, outcome), checked_at=progress.update)
    wall_s = progress.wall_s + time.monotonic() - began
    best = after.best_outcome < progress.best_outcome
    return dataclasses.replace(after, wall_s=wall_s), {"outcome": outcome, "best": best, **figures}


def _keep_best(progress: TuningProgress, outcome: float) -> TuningProgress:
    """Return a state that knows the outcome of its meta-parameters."""
    better = math.isfinite(outcome) and outcome < progress.best_outcome
    return dataclasses.replace(
        progress,
        best=progress.meta_params if better or progress.best is None else progress.best,
        best_outcome=outcome if better else progress.best_outcome,
        first_outcome=outcome if progress.best is None else progress.first_outcome,
    )


def _update(
    descent: Descent, outer: optax.GradientTransformation, progress: TuningProgress
) -> tuple[TuningProgress, dict[str, Any]]:
    """Move the meta-parameters along a gradient, where it is finite."""
    began = time.monotonic()
    found = descent.gradient(progress)
    if descent.check is None:
        progress = _keep_best(progress, found.outcome)
    meta_params = jax.tree.map(jnp.asarray, progress.meta_params)
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
        meta_params=jax.tree.map(np.asarray, meta_params),
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
        **descent.logged(after.meta_params),
    }
    return after, figures


def make_outer(outer: config.OuterConfig, num_updates: int) -> optax.GradientTransformation:
    """Return the optimizer that moves meta-parameters along their gradient.

    Args:
      outer: Settings of the optimizer.
      num_updates: Number of updates over which the learning rate decays.
    """
    rate: optax.ScalarOrSchedule = outer.learning_rate
    if outer.decay == "cosine":
        rate = optax.cosine_decay_schedule(outer.learning_rate, num_updates, 0.1)
    match outer.optimizer:
        case "adam":
            tx = optax.adam(rate)
        case "signed":
            tx = optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(rate))
        case "normalised":
            tx = optax.chain(optax.stateless(_normalised), optax.scale_by_learning_rate(rate))
    if outer.max_change is not None:
        tx = optax.chain(tx, optax.clip(outer.max_change))
    return tx


def _normalised(updates: Any, params: Any) -> Any:
    del params
    leaves = jax.tree.leaves(updates)
    square = sum(jnp.sum(jnp.square(leaf)) for leaf in leaves) / sum(leaf.size for leaf in leaves)
    return jax.tree.map(lambda leaf: leaf * jax.lax.rsqrt(jnp.maximum(square, 1e-30)), updates)


def store(progress: TuningProgress) -> checkpoint.Stored:
    """Return what a checkpoint keeps."""
    arrays = {
        "meta_params": dict(progress.meta_params),
        "best": dict(progress.best or {}),
        "opt_state": list(progress.opt_state or ()),
    }
    facts = log.finite({stored: getattr(progress, name) for stored, name in _FACTS.items()})
    kept = {name: jax.tree.map(np.asarray, part) for name, part in arrays.items() if part}
    return checkpoint.Stored(kept, facts)


def restore(stored: checkpoint.Stored) -> TuningProgress:
    """Return the state that a checkpoint was made of."""
    kept = stored.arrays
    # Checkpoints of early versions of veldt 0.1 have no `distrusted`.
    facts = {name: stored.facts.get(key, False) for key, name in _FACTS.items()}
    for name, missing in (("best_outcome", math.inf), ("first_outcome", math.nan)):
        if facts[name] is None:
            facts[name] = missing
    return TuningProgress(
        meta_params=kept["meta_params"],
        best=kept.get("best"),
        opt_state=tuple(kept["opt_state"]) if "opt_state" in kept else None,
        **facts,
    )
