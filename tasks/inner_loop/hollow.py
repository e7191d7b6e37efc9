"""Hollow runs: losses that come from the limits of the arithmetic and not from training.

Parameters of 1e8 make all logits of a classifier equal at a size where float32 swallows log(n), and
`logsumexp(x) - x_label` is exactly 0: the loss of a perfect classifier, at the accuracy of a guess.
A learned variance that shrinks to nothing, a validation set with one class in it, and a mean over
what is left after infinities are masked do the same in other ways. A search that selects by the
loss finds all of these. So every scored run is checked again at its end, and a run is *hollow*
if one of these tests finds it:

1. *Range.* The norm of the parameters is beyond `MAX_GROWTH` times what it was at the start (or 1,
   if that is more): float32 has no fractions there.
2. *Floor.* The loss is at `MIN_NORMALIZED`, the floor below which losses are not distinguished, and
   the norm has grown by more than `MAX_GROWTH_AT_FLOOR`.
3. *Last bits.* With every parameter moved by a relative `JITTER` up or down, the logarithm of the
   normalised loss on the next training batch (the cheapest data there is) is worse by more than
   `TOLERANCE`. Honest runs move by less than 0.001, also with 16 times the jitter
   (`benchmarks/hollow.py`).
4. *Unearned.* The loss on training batches ended where it began or higher, at "knows nothing" or
   worse, and yet the validation loss is below half of that.
5. *Jump.* The loss is at the floor, and no training step had a loss between the floor and
   `JUMP`, a tenth of knowing nothing: training did not lead to it. (This finds even an infinity
   that a task masks to 0. One step of Newton's method on a bowl is found too; such a task says
   nothing about optimizers. A loss below 0 has no floor there, and is not tested.)
6. *Swing.* In between, the norm was beyond `MAX_GROWTH_AT_FLOOR` times what it was at
   both ends. Measured only where training losses are scored, since only there a run could profit.

A run at the floor that passes is honest. But two losses at the floor cannot be distinguished, and
every comparison of them reports that.
"""

from typing import Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.inner_loop import unroll

MIN_NORMALIZED: Final = 1e-6
"""Below this a normalised loss counts as perfect, so that its logarithm alone decides nothing."""

MAX_GROWTH: Final = 2.0**24
MAX_GROWTH_AT_FLOOR: Final = 2.0**10
JITTER: Final = 2.0**-16
TOLERANCE: Final = 0.05
JUMP: Final = 0.1

KNOWS_NOTHING: Final = 1.0  # On the normalised scale.
HALF: Final = 0.5

REASONS: Final = (
    "",
    "its parameters left the range in which float32 has fractions",
    "its loss is at the floor, with parameters a thousand times as large as at the start",
    "its loss is lost when the parameters move by their last bits",
    "its validation loss fell and its training loss did not",
    "its loss is at the floor, and no step had one on the way there",
    "its parameters were a thousand times as large on the way as at both ends",
)
"""Meanings of the codes of `judge`, in words; the first is for an honest run."""


class Recheck(NamedTuple):
    """Measurements at the end of a run, besides the losses; all of shape [].

    Attributes:
      before: Normalised loss on the next training batch.
      after: Normalised loss on the same batch at jittered parameters.
      size: Norm of the parameters (`size`).
    """

    before: jax.Array
    after: jax.Array
    size: jax.Array


def size(params: types.Params) -> jax.Array:
    """Return the Euclidean norm of all parameters, float32 []; infinite for NaN and beyond 1e19.

    This is a dot product and not the largest entry, since it is taken at every step where training
    losses are scored, and XLA has a fast one.
    """
    leaves = [jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(params)]
    norm = jnp.sqrt(jnp.sum(jnp.stack([jnp.vdot(leaf, leaf) for leaf in leaves])))
    return jnp.where(jnp.isnan(norm), jnp.inf, norm)


def jitter(params: types.Params) -> types.Params:
    """Return the parameters, each a relative `JITTER` larger or smaller.

    The direction is a fixed hash of the position: no random numbers, so this costs one pass. A type
    coarser than `JITTER` moves by two units in the last place.
    """
    return jax.tree.map(_jitter_leaf, params)


def _jitter_leaf(leaf: jax.Array) -> jax.Array:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    position = jnp.arange(leaf.size, dtype=jnp.uint32).reshape(leaf.shape)
    hashed = position * jnp.uint32(2654435761)
    hashed = (hashed ^ (hashed >> 15)) * jnp.uint32(2246822519)  # Neighbours differ in the top bit.
    by = max(JITTER, 2 * float(jnp.finfo(leaf.dtype).eps))
    factor = jnp.where(hashed >> 31 == 0, 1.0 + by, 1.0 - by)
    return leaf * factor.astype(leaf.dtype)


def recheck(task: base.Task, params: types.Params, key: types.Key, step: types.Scalar) -> Recheck:
    """Return measurements of a run's end: two losses of one batch and one pass over parameters.

    Args:
      task: Task that was trained.
      params: Parameters that the run is scored by.
      key: Key of the run (`UnrollState.key`).
      step: Number of steps done (`UnrollState.step`).
    """
    loss = unroll.batch_loss(task, key, step)
    before, after = (task.normalizer(loss(each)) for each in (params, jitter(params)))
    return Recheck(before, after, size(params))


def judge(
    loss: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    start_size: ArrayLike,
    end_size: ArrayLike,
    *,
    peak_size: ArrayLike = 0.0,
    train: tuple[ArrayLike, ArrayLike] | None = None,
    lowest: ArrayLike | None = None,
) -> NDArray[np.int8]:
    """Return codes for runs that ended with finite losses; all arguments broadcast.

    Args:
      loss: Normalised loss on the scored split.
      before: Normalised loss on one batch (`Recheck`).
      after: Normalised loss on that batch at jittered parameters.
      start_size: Norm of the parameters before the first step.
      end_size: Norm of the parameters after the last step.
      peak_size: Largest norm in between, where it was measured.
      train: Normalised training losses early and at the end, where both were taken.
      lowest: Lowest normalised training loss of any step that was above the floor, by
        `lowest_above_floor`, where it was taken.

    Returns:
      Codes, positions in `REASONS`: 0 for an honest run.
    """
    below_zero = np.asarray(loss, np.float64) < 0
    loss, before, after = _floored(loss), _floored(before), _floored(after)
    with np.errstate(invalid="ignore", over="ignore"):
        growth = np.asarray(end_size, float) / np.maximum(np.asarray(start_size, float), 1.0)
        ends = np.maximum(np.maximum(np.asarray(start_size, float), end_size), 1.0)
        beyond = ~(growth <= MAX_GROWTH) | (np.asarray(peak_size, float) > MAX_GROWTH * ends)
        tests = [
            (6, np.asarray(peak_size, float) > MAX_GROWTH_AT_FLOOR * ends),
            (5, (loss <= MIN_NORMALIZED) & ~below_zero & ~(_or(lowest, 0.0) < JUMP)),
            (4, _unearned(loss, train)),
            (2, (loss <= MIN_NORMALIZED) & ~(growth <= MAX_GROWTH_AT_FLOOR)),
            (3, ~(np.log(after) - np.log(before) <= TOLERANCE)),
            (1, beyond),
        ]
    code = np.zeros(np.broadcast_shapes(*(np.shape(found) for _, found in tests)), np.int8)
    for number, found in tests:
        code = np.where(found, np.int8(number), code)
    return code


def lowest_above_floor(task: base.Task, losses: jax.Array) -> jax.Array:
    """Return the lowest of the normalised losses above the floor; infinity if there is none.

    Args:
      task: Task that is trained.
      losses: Losses of some steps in the task's own units, [K].
    """
    normalized = jax.vmap(task.normalizer)(losses)
    return jnp.min(jnp.where(normalized > MIN_NORMALIZED, normalized, jnp.inf))


def at_floor(log_loss: float) -> bool:
    """Return whether a score is at the floor, below which scores are not distinguished."""
    return log_loss <= np.log(MIN_NORMALIZED) + 1e-9


def _floored(loss: ArrayLike) -> NDArray[np.float64]:
    """Return the loss as it is scored; one that is not finite gets the worst value."""
    values = np.asarray(loss, np.float64)
    return np.maximum(np.where(np.isfinite(values), values, np.inf), MIN_NORMALIZED)


def _or(value: ArrayLike | None, default: float) -> NDArray[np.float64]:
    return np.asarray(default if value is None else value, np.float64)


def _unearned(
    loss: NDArray[np.float64], train: tuple[ArrayLike, ArrayLike] | None
) -> NDArray[np.bool_]:
    if train is None:
        return np.zeros((), bool)
    early, last = (np.asarray(value, np.float64) for value in train)
    return (last >= np.maximum(early, KNOWS_NOTHING)) & (loss < HALF)


class PeakState(NamedTuple):
    """The state of `track_peak`.

    Attributes:
      peak: Largest norm so far, float32 [].
    """

    peak: jax.Array


def track_peak() -> optax.GradientTransformation:
    """Return a transform that changes nothing and records the largest norm of the parameters."""

    def init_fn(params: optax.Params) -> PeakState:
        return PeakState(size(params))

    def update_fn(
        updates: optax.Updates, state: PeakState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, PeakState]:
        assert params is not None, "track_peak reads the parameters"
        return updates, PeakState(jnp.maximum(state.peak, size(params)))

    return optax.GradientTransformation(init_fn, update_fn)


def peak_of(opt_state: types.OptState) -> jax.Array:
    """Return the peak that a `track_peak` anywhere in a state has recorded; 0 without one."""
    found = [
        node.peak
        for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, PeakState))
        if isinstance(node, PeakState)
    ]
    return jnp.max(jnp.stack(found)) if found else jnp.zeros((), jnp.float32)
