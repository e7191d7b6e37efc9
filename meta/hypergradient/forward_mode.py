"""The metagradient by forward mode: the tangents of all meta-parameters carried along.

The cost is one tangent per number of the meta-parameters, K in all: about 1 + 2 K forward runs and
K + 1 states, whatever the length of the run. Nothing is run again, so nothing need be
deterministic. In time it wins for one or two meta-parameters; in memory for as many as a plan would
keep states.
"""

from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta.replay import programs, states
from veldt.meta.replay.task_training import Training
from veldt.tasks.common import compiling, types

# Shapes: K numbers of the meta-parameters.


def forward_metagradient(
    training: Training, meta_params: MetaParams
) -> tuple[types.Scalar, MetaParams]:
    """Return the outcome of a run and its gradient by the meta-parameters.

    Args:
      training: Training that is run.
      meta_params: Meta-parameters of the run, inexact arrays.
    """
    return _forward(programs.spec_of(training, meta_params), training, meta_params)


def _tangents(
    spec: states.StateSpec, training: Training, meta_params: MetaParams
) -> tuple[types.Scalar, MetaParams]:
    flat, unravel = jax.flatten_util.ravel_pytree(meta_params)
    directions = jax.vmap(unravel)(jnp.eye(flat.size, dtype=flat.dtype))  # leaves [K, ...]

    def push(function: Any, moving: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        """Return `function(moving, meta_params)` and its tangents, [K, ...]."""

        def one(tangent: tuple[Any, ...], direction: MetaParams) -> Any:
            primals = moving, meta_params
            return jax.jvp(function, primals, (tangent, direction), has_aux=True)

        # What does not depend on the direction is computed once.
        return jax.vmap(one, out_axes=(None, 0, None))(tangents, directions)

    def start(moving: tuple[Any, ...], meta_params: MetaParams) -> Any:
        del moving
        packed = spec.pack(training.init(meta_params))
        return packed.moving, packed.rest

    def body(
        i: types.Scalar, carry: tuple[states.Packed, tuple[Any, ...]]
    ) -> tuple[states.Packed, tuple[Any, ...]]:
        packed, tangents = carry

        def step(moving: tuple[Any, ...], meta_params: MetaParams) -> Any:
            state = spec.unpack(packed._replace(moving=moving))
            after = spec.pack(training.step(meta_params, state, i))
            return after.moving, after.rest

        moving, tangents, rest = push(step, packed.moving, tangents)
        return states.Packed(moving, rest), tangents

    moving, tangents, rest = push(start, (), ())
    num_steps = jnp.asarray(training.num_steps, jnp.int32)
    carry = (states.Packed(moving, rest), tangents)
    packed, tangents = jax.lax.fori_loop(jnp.zeros((), jnp.int32), num_steps, body, carry)

    def outcome(moving: tuple[Any, ...], meta_params: MetaParams) -> Any:
        return training.outcome(meta_params, spec.unpack(packed._replace(moving=moving))), ()

    value, slopes, _ = push(outcome, packed.moving, tangents)
    return value, unravel(slopes.astype(flat.dtype))


_forward = compiling.jit(_tangents, static_argnums=0)
