"""Descending along metagradients: any training, any meta-parameters, a few dozen steps.

This is metagradient descent (MGD, arXiv 2503.13751) without its signs, as a function for a training
of one's own; `loop` is the same with a run directory.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta.replay import api
from veldt.meta.replay.task_training import Training
from veldt.meta.tune import config
from veldt.tasks.common.nan_last import lowest


@final
@dataclasses.dataclass(frozen=True)
class Tuned:
    """What came of a descent.

    Attributes:
      meta_params: Those of the lowest finite outcome; those at the start if there is none.
      outcome: Theirs; NaN if no update's was finite.
      outcomes: Of each update, before it.
    """

    meta_params: MetaParams
    outcome: float
    outcomes: tuple[float, ...]


def tune(
    training: Training | Callable[[int], Training],
    meta_params: MetaParams,
    *,
    num_updates: int = 30,
    learning_rate: float = 0.1,
    outer: config.OuterConfig | None = None,
    memory_bytes: int | None = None,
    check: api.Check = "none",
    seed: int = 0,
    report: Callable[[int, float, MetaParams], None] | None = None,
) -> Tuned:
    """Improve a training's meta-parameters by its metagradients: `veldt.tune`.

    Args:
      training: What is run; or a function of the update's number that returns it, to have other
        batches each time (outcomes then compare only as far as those are alike).
      meta_params: A pytree of floats, on scales where steps of the outer learning rate make sense:
        logarithms of what is positive.
      num_updates: Metagradients.
      learning_rate: How far Adam moves a meta-parameter at first, with a cosine decay.
      outer: How else meta-parameters move; in place of `learning_rate`.
      memory_bytes: For stored states; see `veldt.metagradient`.
      check: How metagradients are examined; one that fails is replaced by an estimate.
      seed: Of the checks.
      report: Is called with the update's number, its outcome and the meta-parameters before it.

    Raises:
      ReplayError: A metagradient cannot be computed.
    """
    if outer is None:
        outer = config.OuterConfig(learning_rate=learning_rate, max_change=None)
    tx = make_outer(outer, num_updates)
    meta_params = jax.tree.map(jnp.asarray, meta_params)
    state, kept = tx.init(meta_params), meta_params
    outcomes: list[float] = []
    for update in range(num_updates):
        found = api.metagradient(
            training if isinstance(training, Training) else training(update),
            meta_params,
            key=jax.random.fold_in(jax.random.key(seed), update),
            memory_bytes=memory_bytes,
            check=check,
        )
        if report is not None:
            report(update, found.outcome, meta_params)
        outcomes.append(found.outcome)
        if lowest(outcomes) == update:
            kept = meta_params
        if all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found.gradient)):
            steps, state = tx.update(found.gradient, state, meta_params)
            meta_params = optax.apply_updates(meta_params, steps)
    best = lowest(outcomes)
    return Tuned(kept, math.nan if best is None else outcomes[best], tuple(outcomes))


def make_outer(outer: config.OuterConfig, num_updates: int) -> optax.GradientTransformation:
    """Return what moves meta-parameters along their gradient.

    Args:
      outer: Its settings.
      num_updates: Over which its learning rate decays.
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
