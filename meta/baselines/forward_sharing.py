"""Forward-mode differentiation with sharing: a schedule's hypergradient over a whole run.

Micaelli and Storkey 2021 (FDS, arXiv 2007.07869; github.com/polo5/NonGreedyGradientHPO). The
tangents Z = dw / dλ go along with training, one per hyperparameter, so memory does not grow with
the length of the run; the hypergradient is ∇L_V · Z at its end. Hyperparameters are shared by
contiguous steps, K values to a run of T steps, which averages the noise of the single steps'
hypergradients and keeps tangents few.

    values = {"rate": jnp.zeros(5), "momentum": jnp.zeros(5)}
    tx = bounded_descent(learning_rate=0.1, momentum=0.1, max_change=0.1, min_change=0.01)
    loss, grads = forward_gradient(task, make_tx, values, key, num_steps=1000)
    updates, state = tx.update(grads, state, values)

Departures: `make_tx` is any Optax transform, and its float state has tangents too (the code has
gradient descent with momentum and weight decay, by hand). Tangents are clipped themselves (±100 by
default), where the code clips their products with the Hessian (±100) and gradients (±3). The bound
on a step's change is applied to the gradient before momentum, as there.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from veldt.meta.hypergradient import bilevel
from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.inner_loop import unroll

# Shapes: K values of one hyperparameter, H values of all together, T steps.

MakeTx: TypeAlias = Callable[[bilevel.HyperParams], optax.GradientTransformation]
"""One step's hyperparameters, leaves [], to the transform of that step."""


def shared(values: bilevel.HyperParams, step: types.Scalar, num_steps: int) -> bilevel.HyperParams:
    """Return the hyperparameters of a step: of leaves [K], the value of its K-th of the run.

    Args:
      values: Leaves [K], of whatever K each.
      step: Number of the step, t, int [], below `num_steps`.
      num_steps: Number of steps of the run, T.
    """
    return jax.tree.map(lambda each: each[step * each.shape[0] // num_steps], values)


def forward_gradient(
    task: base.Task,
    make_tx: MakeTx,
    values: bilevel.HyperParams,
    key: types.Key,
    *,
    num_steps: int,
    max_tangent: float | jax.Array = 100.0,
) -> tuple[types.Scalar, bilevel.HyperParams]:
    """Train once and return the final validation loss and its hypergradient.

    Args:
      task: What is trained, by `veldt.tasks.inner_loop.unroll`.
      make_tx: The transform of a step.
      values: Leaves [K].
      key: The run's; it is consumed.
      num_steps: Number of steps of the run, T, static.
      max_tangent: Every entry of a tangent is clipped to this, after every step.

    Returns:
      The validation loss, float [], and the gradient, shaped as `values`.
    """
    flat, unravel = jax.flatten_util.ravel_pytree(values)
    first = unroll.init(task, make_tx(shared(values, jnp.zeros((), jnp.int32), num_steps)), key)
    floats, rebuild = _split(first)
    directions = jnp.eye(flat.size, dtype=flat.dtype)  # [H, H]
    zeros = jax.tree.map(lambda x: jnp.zeros((flat.size, *x.shape), x.dtype), floats)

    def body(
        carry: tuple[unroll.UnrollState, list[jax.Array]], _: None
    ) -> tuple[tuple[unroll.UnrollState, list[jax.Array]], None]:
        state, tangents = carry
        floats, rebuild = _split(state)

        def advance(
            floats: list[jax.Array], flat: jax.Array
        ) -> tuple[list[jax.Array], unroll.UnrollState]:
            tx = make_tx(shared(unravel(flat), state.step, num_steps))
            after, _ = unroll.step_fn(task, tx, rebuild(floats))
            return _split(after)[0], after

        def push(tangent: list[jax.Array], direction: jax.Array) -> Any:
            return jax.jvp(advance, (floats, flat), (tangent, direction), has_aux=True)

        _, pushed, after = jax.vmap(push, out_axes=(None, 0, None))(tangents, directions)
        return (after, optax.tree.clip(pushed, -max_tangent, max_tangent)), None

    (last, tangents), _ = jax.lax.scan(body, (first, zeros), None, length=num_steps)

    floats, rebuild = _split(last)

    def valid_loss(floats: list[jax.Array]) -> types.Scalar:
        return unroll.evaluate(task, rebuild(floats).params, last.key, "valid")

    loss, grads = jax.value_and_grad(valid_loss)(floats)
    # Each tangent's product with the gradient, leaf by leaf: [H].
    products = [
        jnp.tensordot(tangent, each, axes=each.ndim)
        for tangent, each in zip(tangents, grads, strict=True)
    ]
    return loss, unravel(jnp.sum(jnp.stack(products), axis=0))


def bounded_descent(
    learning_rate: float = 0.1,
    momentum: float = 0.1,
    *,
    max_change: float = 0.1,
    min_change: float,
) -> optax.GradientTransformation:
    """Return FDS's outer optimizer: gradient descent with bounded steps.

    What is NaN in a hypergradient counts as zero. A value changes by at most `max_change` times
    itself or by `min_change`, whichever is more, in a step without momentum.

    Args:
      learning_rate: Learning rate of the hyperparameters.
      momentum: Decay of the trace.
      max_change: Share of a value, 0.1 in the paper.
      min_change: What a value may change by however small it is, so that zero can be left.
    """

    def bound(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        def clip(grad: jax.Array, value: jax.Array) -> jax.Array:
            most = jnp.maximum(min_change, max_change * jnp.abs(value)) / learning_rate
            return jnp.clip(jnp.where(jnp.isnan(grad), 0.0, grad), -most, most)

        return jax.tree.map(clip, updates, params)

    return optax.chain(optax.stateless(bound), optax.sgd(learning_rate, momentum))


def _split(
    state: unroll.UnrollState,
) -> tuple[list[jax.Array], Callable[[list[jax.Array]], unroll.UnrollState]]:
    """Return the float leaves of a state and a function that puts others in their place."""
    leaves, treedef = jax.tree.flatten(state)
    is_float = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def rebuild(floats: list[jax.Array]) -> unroll.UnrollState:
        given = iter(floats)
        merged = [
            next(given) if float_ else leaf for leaf, float_ in zip(leaves, is_float, strict=True)
        ]
        return jax.tree.unflatten(treedef, merged)

    floats = [leaf for leaf, float_ in zip(leaves, is_float, strict=True) if float_]
    return floats, rebuild
