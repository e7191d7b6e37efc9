"""Gradients that arrive late, as from workers that compute them on parameters of some steps ago.

A task has no state, so this is a transform around the optimizer's: `delayed(tx, num_steps)`. The
family's `wrap` puts it where meta-training makes its transforms.
"""

from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import optax

from veldt.tasks import base
from veldt.tasks.augment import family_wrapper
from veldt.tasks.common import types

# Shapes: K steps of delay.


class DelayedState(NamedTuple):
    """The gradients that have not arrived yet.

    Attributes:
      num_updates: Number of updates so far, int32 [].
      waiting: Last K gradients, leaves [K, ...]; that of step t in place t modulo K.
      inner: State of the transform that gets the gradients.
    """

    num_updates: types.Scalar
    waiting: types.Grads
    inner: types.OptState


def delayed(
    tx: optax.GradientTransformation, num_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Return a transform that gives `tx` the gradient of `num_steps` (K) steps before.

    As with workers that all begin at the initial parameters, the first gradient is there at once:
    it stands for those before it, in the first K + 1 updates. Extra arguments, such as the loss as
    `value`, are not delayed.

    Args:
      tx: Transform that gets the late gradients.
      num_steps: Number of steps of delay K, 0 or more, static.

    Raises:
      ValueError: `num_steps` is negative.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps={num_steps} must be at least 0")
    tx = optax.with_extra_args_support(tx)
    if num_steps == 0:
        return tx

    def init_fn(params: types.Params) -> DelayedState:
        waiting = jax.tree.map(lambda leaf: jnp.zeros((num_steps, *leaf.shape), leaf.dtype), params)
        return DelayedState(jnp.zeros((), jnp.int32), waiting, tx.init(params))

    def update_fn(
        updates: types.Grads,
        state: DelayedState,
        params: types.Params | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, DelayedState]:
        place = state.num_updates % num_steps
        is_first = state.num_updates == 0

        def arrive(waiting: jax.Array, grad: jax.Array) -> jax.Array:
            return jnp.where(is_first, grad, waiting[place])

        def send(waiting: jax.Array, grad: jax.Array) -> jax.Array:
            return jnp.where(is_first, grad, waiting.at[place].set(grad))

        late = jax.tree.map(arrive, state.waiting, updates)
        waiting = jax.tree.map(send, state.waiting, updates)
        moves, inner = tx.update(late, state.inner, params, **extra_args)
        return moves, DelayedState(state.num_updates + 1, waiting, inner)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@final
class Delayed(family_wrapper.FamilyWrapper):
    """Members of a family whose gradients come some steps late.

    Attributes:
      name: Name in tables and errors.
      family: Wrapped family.
      num_steps: Number of steps of delay.
    """

    def __init__(self, family: base.TaskFamily, num_steps: int) -> None:
        self.name = f"{family.name}, late by {num_steps}"
        self.family = family
        self.num_steps = num_steps

    def wrap(self, tx: optax.GradientTransformation) -> optax.GradientTransformation:
        return self.family.wrap(delayed(tx, self.num_steps))
