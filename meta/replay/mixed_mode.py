"""Second derivatives forward over reverse: a task whose training's steps are cheaper to reverse.

To reverse a step of training is to differentiate a gradient. Left alone, JAX does it in reverse
over reverse, which keeps the inner backward pass's intermediate values for the outer one. But the
product of a vector with a Hessian, which is symmetric, is as well the derivative of the gradient
along that vector: forward over reverse, which keeps none (MixFlow-MG: Kemaev et al. 2025, arXiv
2505.00793). Here a task's loss gets that rule, for its parameters and for all else that it reads,
so that nothing about the training need be said.

Wrap the task in what `TaskTraining` is made of: `return MixedModeTask(task), transform`. It pays
where a step's intermediate values are large beside its state: of a character GRU, XLA's temporary
memory went from 6.6 states to 5.1 and the time down by a tenth; of a small perceptron it was no
gain (both measured once, on the CPU).

Reverse mode only: JAX has no forward mode of a function with a reverse rule.
"""

from typing import Any, final

import jax
import jax.numpy as jnp

from veldt.tasks import base, wrapper
from veldt.tasks.common import types


@final
class MixedModeTask(wrapper.TaskWrapper):
    """The same task, its loss with a rule for second derivatives.

    Attributes:
      task: The task as it was.
    """

    def __init__(self, task: base.Task) -> None:
        self.task = task
        self.name = task.name

    def init(self, key: types.Key) -> types.Params:
        return self.task.init(key)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the task's loss."""
        leaves, treedef = jax.tree.flatten((params, (self.task, key, batch)))
        moves = tuple(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves)

        def plain(moving: list[Any], rest: list[Any]) -> tuple[types.Scalar, types.Aux]:
            iterators = iter(rest), iter(moving)
            merged = jax.tree.unflatten(treedef, [next(iterators[move]) for move in moves])
            params, (task, key, batch) = merged
            return task.loss(params, key, batch)

        pairs = list(zip(leaves, moves, strict=True))
        moving = [leaf for leaf, move in pairs if move]
        return _mixed(plain)(moving, [leaf for leaf, move in pairs if not move])


def _mixed(function: Any) -> Any:
    """Give `function(x, rest) -> (value, aux)` the rule, for derivatives by x."""

    def gradient(x: Any, rest: Any) -> Any:
        return jax.grad(function, has_aux=True)(x, rest)[0]

    @jax.custom_vjp
    def value_and_grad(x: Any, rest: Any) -> Any:
        (value, aux), grads = jax.value_and_grad(function, has_aux=True)(x, rest)
        return value, aux, grads

    def value_and_grad_fwd(x: Any, rest: Any) -> Any:
        out = value_and_grad(x, rest)
        return out, (x, rest, out[2])

    def value_and_grad_bwd(kept: Any, cotangents: Any) -> Any:
        x, rest, grads = kept
        by_value, _, by_grads = cotangents
        # Symmetric: the derivative of the gradient along a vector is the vector times it.
        _, product = jax.jvp(lambda x: gradient(x, rest), (x,), (by_grads,))
        return jax.tree.map(lambda g, p: by_value * g + p, grads, product), None

    value_and_grad.defvjp(value_and_grad_fwd, value_and_grad_bwd)

    @jax.custom_vjp
    def value(x: Any, rest: Any) -> Any:
        return function(x, rest)

    def value_fwd(x: Any, rest: Any) -> Any:
        result, aux, grads = value_and_grad(x, rest)
        return (result, aux), grads

    def value_bwd(grads: Any, cotangents: Any) -> Any:
        return jax.tree.map(lambda g: cotangents[0] * g, grads), None

    value.defvjp(value_fwd, value_bwd)
    return value
