"""A preconditioner before any transform: the Hessian's diagonal, by Hutchinson's probes.

Yao, Gholami, Shen, Mustafa, Keutzer & Mahoney 2021, "AdaHessian: An Adaptive Second Order Optimizer
for Machine Learning" (arXiv 2006.00719), and the authors' `optim_adahessian.py`: with z of random
signs, z * (H z) is the diagonal in expectation, and its square is averaged as Adam averages the
gradient's. AdaHessian divides the averaged gradient; a preconditioner divides the gradient. So

    optax.chain(optax.ema(0.9), hutchinson(optax.sgd(0.15)))

is AdaHessian. It departs in two places. Averaging over a kernel's spatial axes depends on how
kernels are laid out and is the caller's (`average`). Where probes are taken every few steps only,
the average moves, and is corrected, by probes and not by steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import errors
from veldt.learned_opt.wrappers import whole_trees
from veldt.tasks.common import types


class HutchinsonState(NamedTuple):
    """State of `hutchinson`. The probes' keys follow from the seed and the count."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    nu: types.Params  # as the parameters, at least float32; average of the squared diagonal
    inner: types.OptState


def hutchinson(
    tx: optax.GradientTransformation,
    b2: float = 0.999,
    power: float = 1.0,
    *,
    eps: float = 1e-4,
    update_interval: int = 1,
    average: Callable[[jax.Array], jax.Array] | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Return the transform that is given the gradient over the Hessian's diagonal.

        nu <- b2 * nu + (1 - b2) * (z * (H z))^2
        gradient / ((nu / (1 - b2^probes)) ^ (power / 2) + eps)

    The objective of the batch comes by Optax's extra argument, as for its own
    `hutchinson_estimator_diag_hessian`; a probe costs about two gradients:

        updates, state = tx.update(grads, state, params, obj_fn=lambda params: loss(params, batch))

    Args:
      tx: Transform.
      b2: Decay of the average of the squared diagonal, in [0, 1).
      power: Power of the diagonal to divide by, in [0, 1].
      eps: Number that is added to what is divided by.
      update_interval: Steps from one probe to the next, at least 1.
      average: Function of one tensor's size of z * (H z), which returns what broadcasts to it,
        such as the means over a kernel's spatial axes. None leaves all entries to themselves.
      seed: Seed of the probes.
    """
    if update_interval < 1:
        raise errors.OptionError.of("hutchinson", "update_interval", update_interval, "at least 1")
    inner = optax.with_extra_args_support(tx)

    def magnitude(leaf: jax.Array) -> jax.Array:
        size = jnp.abs(leaf)
        size = size.astype(jnp.promote_types(size.dtype, jnp.float32))
        return size if average is None else average(size)

    def init_fn(params: types.Params) -> HutchinsonState:
        nu = jax.tree.map(lambda leaf: jnp.zeros_like(magnitude(leaf)), params)
        return HutchinsonState(jnp.zeros([], jnp.int32), nu, inner.init(params))

    def update_fn(
        updates: types.Grads,
        state: HutchinsonState,
        params: types.Params | None = None,
        *,
        obj_fn: Callable[[types.Params], jax.Array] | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, HutchinsonState]:
        if params is None:
            raise errors.MissingInputError.params("hutchinson")
        if obj_fn is None:
            raise errors.MissingInputError.obj_fn("hutchinson")

        def probed() -> types.Params:
            signs = random_signs(jax.random.fold_in(jax.random.key(seed), state.count), params)
            _, product = jax.jvp(jax.grad(obj_fn), (params,), (signs,))
            # |z * (H z)| = |H z|, since z is of signs.
            return jax.tree.map(
                lambda nu, hz: (b2 * nu + (1 - b2) * magnitude(hz) ** 2).astype(nu.dtype),
                state.nu,
                product,
            )

        if update_interval == 1:
            nu = probed()
        else:
            is_due = state.count % update_interval == 0
            nu = jax.lax.cond(is_due, probed, lambda: state.nu)
        correction = 1 - b2 ** (state.count // update_interval + 1)
        updates = jax.tree.map(
            lambda g, nu: (g / ((nu / correction) ** (power / 2) + eps)).astype(g.dtype),
            updates,
            nu,
        )
        moved, after = inner.update(updates, state.inner, params, obj_fn=obj_fn, **extra_args)
        return moved, HutchinsonState(optax.safe_increment(state.count), nu, after)

    return whole_trees.on_trained(optax.GradientTransformationExtraArgs(init_fn, update_fn))


def random_signs(key: types.Key, params: types.Params) -> types.Params:
    """Return a tree of random signs, shaped as the parameters; the key is consumed."""
    keys = iter(jax.random.split(key, max(len(jax.tree.leaves(params)), 1)))

    def of_leaf(leaf: jax.Array) -> jax.Array:
        signs = jax.random.rademacher(next(keys), jnp.shape(leaf), jnp.int8)
        return signs.astype(jnp.result_type(leaf))

    return jax.tree.map(of_leaf, params)
