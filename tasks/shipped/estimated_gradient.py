"""A loss with the gradient of another function: for gradients that are estimated.

Training takes `jax.grad` of a task's loss. Where a gradient comes from samples (evolution
strategies, policy gradients), the loss is a number for people, and a second function, the
surrogate, has the estimate as its gradient.
"""

import jax

from veldt.tasks.common import types


@jax.custom_jvp
def with_gradient_of(value: types.Scalar, surrogate: types.Scalar) -> types.Scalar:
    """Return `value`, whose derivatives, forward and reverse, are those of `surrogate`.

    Where no derivative is taken the surrogate is not used, and under `jit` not computed.
    """
    del surrogate
    return value


@with_gradient_of.defjvp
def _with_gradient_of_jvp(
    primals: tuple[types.Scalar, types.Scalar], tangents: tuple[types.Scalar, types.Scalar]
) -> tuple[types.Scalar, types.Scalar]:
    return with_gradient_of(*primals), tangents[1]
