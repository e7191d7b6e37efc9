"""The compiled parts of a metagradient: five programs, whatever the length of the run and the plan.

Bounds are traced, so XLA never sees how long a run is, and needs the memory of one step. Every plan
uses the same programs, so that plans differ in cost and in nothing else.
"""

from typing import Any, Final

import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta.replay import state_hashing, states
from veldt.meta.replay.task_training import Training
from veldt.tasks.common import compiling, types

# Shapes: L size of the buffer, M = NUM_MARKS, N leaves of a state.

NUM_MARKS: Final = 128
"""How many states a call of `forward` can hash."""

Buffer = states.Packed
"""States, leaves [L, ...]; that of step i is at i modulo L."""


def _init(training: Training, meta_params: MetaParams) -> states.State:
    return training.init(meta_params)


_initial = jax.jit(_init)


def spec_of(training: Training, meta_params: MetaParams) -> states.StateSpec:
    """Return what the states of a training are made of.

    Trainings of a kind are traced once: tracing a network's start takes tens of milliseconds, as
    long as the whole metagradient of a short run.
    """
    shapes = _initial.eval_shape(training, meta_params)
    return states.StateSpec.of(lambda state: state, shapes)


def _start(spec: states.StateSpec, training: Training, meta_params: MetaParams) -> states.Packed:
    return spec.pack(training.init(meta_params))


def _forward(
    spec: states.StateSpec,
    training: Training,
    meta_params: MetaParams,
    buffer: Buffer,
    state: states.Packed,
    first: types.Scalar,
    last: types.Scalar,
    marks: jax.Array,
) -> tuple[Buffer, states.Packed, jax.Array, jax.Array]:
    """Run from state `first` to state `last`.

    Args:
      spec: Spec of states, static.
      training: Training that is run.
      meta_params: Meta-parameters of the run.
      buffer: Where the states before each step are put; donated.
      state: State `first`.
      first: int32 [].
      last: int32 [].
      marks: Numbers of the states to be hashed, all after `first`, in order, then -1; int32 [M].

    Returns:
      The buffer; state `last`; the hashes of state `first`, uint32 [N]; those of the marked states,
      uint32 [M, N].
    """

    def body(
        i: types.Scalar, carry: tuple[Buffer, states.Packed, jax.Array, types.Scalar]
    ) -> tuple[Buffer, states.Packed, jax.Array, types.Scalar]:
        buffer, state, hashes, row = carry
        buffer = _put(buffer, state, i)
        state = spec.pack(training.step(meta_params, spec.unpack(state), i))
        is_marked = marks[row] == i + 1
        hashes = jax.lax.cond(
            is_marked, lambda: hashes.at[row].set(state_hashing.hash_leaves(state)), lambda: hashes
        )
        return buffer, state, hashes, row + is_marked

    before = state_hashing.hash_leaves(state)
    hashes = jnp.zeros((NUM_MARKS, before.size), jnp.uint32)
    carry = (buffer, state, hashes, jnp.zeros((), jnp.int32))
    buffer, state, hashes, _ = jax.lax.fori_loop(first, last, body, carry)
    return buffer, state, before, hashes


def _finish(
    spec: states.StateSpec, training: Training, meta_params: MetaParams, state: states.Packed
) -> tuple[types.Scalar, tuple[Any, ...], MetaParams]:
    """Return the outcome of the last state, and its gradient by that and by the meta-parameters."""

    def outcome(moving: tuple[Any, ...], meta_params: MetaParams) -> types.Scalar:
        return training.outcome(meta_params, spec.unpack(state._replace(moving=moving)))

    value, grads = jax.value_and_grad(outcome, argnums=(0, 1))(state.moving, meta_params)
    return value, *grads


def _reverse(
    spec: states.StateSpec,
    training: Training,
    meta_params: MetaParams,
    buffer: Buffer,
    state: states.Packed,
    adjoint: tuple[Any, ...],
    meta_grad: MetaParams,
    first: types.Scalar,
    last: types.Scalar,
) -> tuple[Buffer, tuple[Any, ...], MetaParams]:
    """Take the adjoint from state `last` to state `first`, one step after another.

    Args:
      spec: Spec of states, static.
      training: What is reversed.
      meta_params: Meta-parameters of the run.
      buffer: The states before each step but the last one; donated.
      state: The state before the last step.
      adjoint: Gradient of the outcome by the moving leaves of state `last`.
      meta_grad: What has been gathered of the gradient by the meta-parameters.
      first: int32 [].
      last: int32 [].

    Returns:
      The buffer, the adjoint at state `first`, and the gradient with these steps' share.
    """
    buffer = _put(buffer, state, last - 1)

    def body(
        k: types.Scalar, carry: tuple[tuple[Any, ...], MetaParams]
    ) -> tuple[tuple[Any, ...], MetaParams]:
        adjoint, meta_grad = carry
        i = last - 1 - k
        before = _get(buffer, i)

        def moved(moving: tuple[Any, ...], meta_params: MetaParams) -> tuple[Any, ...]:
            state = spec.unpack(before._replace(moving=moving))
            return spec.pack(training.step(meta_params, state, i)).moving

        _, pull_back = jax.vjp(moved, before.moving, meta_params)
        adjoint, share = pull_back(adjoint)
        return adjoint, jax.tree.map(jnp.add, meta_grad, share)

    adjoint, meta_grad = jax.lax.fori_loop(0, last - first, body, (adjoint, meta_grad))
    return buffer, adjoint, meta_grad


def _through_start(
    spec: states.StateSpec,
    training: Training,
    meta_params: MetaParams,
    adjoint: tuple[Any, ...],
    meta_grad: MetaParams,
) -> MetaParams:
    """Return the gradient with the share of state 0, whose adjoint is given."""
    _, pull_back = jax.vjp(lambda z: spec.pack(training.init(z)).moving, meta_params)
    (share,) = pull_back(adjoint)
    return jax.tree.map(jnp.add, meta_grad, share)


def _run(
    spec: states.StateSpec, training: Training, meta_params: MetaParams
) -> tuple[types.Scalar, types.Params]:
    """Return the outcome of a whole run, and what it trained."""

    def body(i: types.Scalar, state: states.Packed) -> states.Packed:
        return spec.pack(training.step(meta_params, spec.unpack(state), i))

    num_steps = jnp.asarray(training.num_steps, jnp.int32)
    packed = jax.lax.fori_loop(
        jnp.zeros((), jnp.int32), num_steps, body, _start(spec, training, meta_params)
    )
    state = spec.unpack(packed)
    return training.outcome(meta_params, state), training.params(state)


def _put(buffer: Buffer, state: states.Packed, step: types.Scalar) -> Buffer:
    return jax.tree.map(
        lambda slots, x: jax.lax.dynamic_update_index_in_dim(slots, x, step % slots.shape[0], 0),
        buffer,
        state,
    )


def _get(buffer: Buffer, step: types.Scalar) -> states.Packed:
    return jax.tree.map(
        lambda slots: jax.lax.dynamic_index_in_dim(slots, step % slots.shape[0], keepdims=False),
        buffer,
    )


# The buffer is changed in place; states are not given away, for they may be stored.
start = compiling.jit(_start, static_argnums=0)
forward = compiling.jit(_forward, static_argnums=0, donate_argnums=3)
finish = compiling.jit(_finish, static_argnums=0)
reverse = compiling.jit(_reverse, static_argnums=0, donate_argnums=3)
through_start = compiling.jit(_through_start, static_argnums=0)
run = compiling.jit(_run, static_argnums=0)


def _zeros(spec: states.StateSpec, leaf_steps: int, training: Training) -> Buffer:
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros((leaf_steps, *leaf.shape), leaf.dtype), spec.abstract
    )
    buffer: Buffer = training.place(zeros, axis=1)
    return buffer


_empty = compiling.jit(_zeros, static_argnums=(0, 1))


def empty_buffer(spec: states.StateSpec, leaf_steps: int, training: Training) -> Buffer:
    """Return a buffer for L = `leaf_steps` states, on the training's devices."""
    # One call of the device: one for each of a network's leaves takes as long as some ten steps.
    buffer: Buffer = _empty(spec, leaf_steps, training)
    return buffer
