"""A program as an Optax transform, in native JAX.

`scale_by_program` is the rule in descent direction, `optax_factory` adds the learning rate and the
sign. The state is a step count and one tree per *live* slot: a slot that cannot reach the update
costs no memory, and one that does not vary along rows, or along columns, has length 1 there
(`constant_axes.py`). Everything is jittable, vmappable and differentiable with respect to the
constants, which may be traced.

A rule that reads `progress` needs the length of the run when its transform is made, and one that
reads `loss` needs the loss at each update, by Optax's own keyword: `update(..., value=loss)`.
"""

import inspect
import types
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt.errors import MissingInputError
from veldt.search.errors import ProgramError
from veldt.search.language.dataflow import Dataflow, lower
from veldt.search.language.roles import EMBEDDING, LAST, Roles
from veldt.search.language.statements import LOSS, PROGRESS, AbstractProgram
from veldt.search.runtime import execute, state_arrays
from veldt.tasks.inner_loop import trainable
from veldt.tasks.inner_loop.flat import Layout


class ScaleByProgramState(NamedTuple):
    """State of `scale_by_program`."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    slots: dict[str, Any]  # by the slot's name, a tree of arrays that broadcast to the parameters


def scale_by_program(
    program: AbstractProgram,
    /,
    roles: Roles | None = None,
    *,
    num_steps: Any = None,
    state_dtype: Any = None,
    **constants: Any,
) -> optax.GradientTransformationExtraArgs:
    """Return the program's update, in descent direction, before the learning rate.

    Args:
      program: Rule.
      roles: Roles of the parameters, where the guesses from their names are wrong; for a program
        that reads such a role.
      num_steps: Length of the run, a number that may be traced; for a program that reads
        `progress`, and without effect on others.
      state_dtype: Dtype of the state's real numbers; None for that of the parameters.
      **constants: Values for the program's constants (numbers or traced scalars) in place of the
        defaults.

    Raises:
      ProgramError: A constant that the program does not have, or no length of the run where the
        program reads it.
    """
    unknown = sorted(set(constants) - {name for name, _ in program.constants})
    if unknown:
        allowed = ", ".join(name for name, _ in program.constants) or "none"
        raise ProgramError(f"{program.name} has no constant {unknown[0]!r}; it has: {allowed}")
    return scale_by_dataflow(
        lower(program),
        program.name,
        roles,
        num_steps=num_steps,
        state_dtype=state_dtype,
        constants=constants,
    )


def scale_by_dataflow(
    flow: Dataflow,
    name: str = "the rule",
    roles: Roles | None = None,
    *,
    num_steps: Any = None,
    state_dtype: Any = None,
    constants: Mapping[str, Any] = types.MappingProxyType({}),
) -> optax.GradientTransformationExtraArgs:
    """Return `scale_by_program` of a program that is lowered already.

    Args:
      flow: Lowered program.
      name: Name of the rule in errors.
      roles: Roles of the parameters, as for `scale_by_program`.
      num_steps: Length of the run, as for `scale_by_program`.
      state_dtype: Dtype of the state's real numbers, as for `scale_by_program`.
      constants: Values for the program's constants, over the defaults.

    Raises:
      ProgramError: The rule reads `progress`, and no length of the run is given, or none of at
        least 1.
    """
    if PROGRESS in flow.live_of_run:
        _check_num_steps(name, num_steps)

    def init_fn(params: Any) -> ScaleByProgramState:
        leaves, treedef = _flatten(params)
        shapes = execute.slot_shapes(flow, [jnp.shape(leaf) for leaf in leaves])
        slots = {
            slot: treedef.unflatten(map(_zeros, leaves, thin)) for slot, thin in shapes.items()
        }
        return ScaleByProgramState(jnp.zeros([], jnp.int32), slots)

    def update_fn(
        updates: Any,
        state: ScaleByProgramState,
        params: Any = None,
        *,
        value: Any = None,
        num_steps: Any,
        constants: Mapping[str, Any],
        **extra_args: Any,
    ) -> tuple[Any, ScaleByProgramState]:
        del extra_args
        if params is None:
            raise MissingInputError.params(name)
        if value is None and LOSS in flow.live_of_run:
            raise MissingInputError.value(name)
        count = optax.safe_increment(state.count)
        grads, treedef = _flatten(updates)
        inputs = {"w": treedef.flatten_up_to(params), "g": grads}
        inputs |= {slot: treedef.flatten_up_to(tree) for slot, tree in state.slots.items()}
        if flow.live_roles:
            by_leaf = (roles or Roles()).of(updates)
            inputs |= {role: [leaf[role] for leaf in by_leaf] for role in flow.live_roles}
        # bfloat16 cannot count past 256: the step is kept in at least float32.
        wide = [jnp.promote_types(leaf.dtype, jnp.float32) for leaf in grads]
        step = [count.astype(dtype) for dtype in wide]
        if PROGRESS in flow.live_of_run:
            inputs[PROGRESS] = [jnp.minimum(own / num_steps, 1.0) for own in step]
        if LOSS in flow.live_of_run:
            inputs[LOSS] = [jnp.asarray(value).astype(dtype) for dtype in wide]
        update, new_slots = execute.execute(flow, jnp, inputs, step, constants)
        slots = {
            slot: treedef.unflatten(leaves)
            for slot, leaves in zip(flow.live_slots, new_slots, strict=True)
        }
        return treedef.unflatten(update), ScaleByProgramState(count, slots)

    tx = optax.GradientTransformationExtraArgs(init_fn, update_fn)
    if state_dtype is not None:
        tx = state_arrays.keep_dtype(tx, state_dtype)
    # As arguments: a function for another kind of mesh cannot close over traced numbers.
    kept = state_arrays.keep_shardings(tx, num_steps=num_steps, constants=dict(constants))
    return trainable.skip_untrainable(kept)


def on_vector(
    tx: optax.GradientTransformationExtraArgs, layout: Layout
) -> optax.GradientTransformationExtraArgs:
    """Return a transform of trees as one of the interpreter's flat vectors [D].

    Args:
      tx: Transform of trees.
      layout: Places of the tree's leaves in the vector.
    """

    def update_fn(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        tree = None if params is None else layout.unravel(params)
        updates, state = tx.update(layout.unravel(updates), state, tree, **extra_args)
        return layout.ravel(updates), state

    return optax.GradientTransformationExtraArgs(
        lambda params: tx.init(layout.unravel(params)), update_fn
    )


def _check_num_steps(name: str, num_steps: Any) -> None:
    """Check the length of the run as far as it is known when a transform is made."""
    if num_steps is not None and isinstance(num_steps, jax.core.Tracer):
        return
    if num_steps is None or not float(num_steps) >= 1:
        raise ProgramError(
            f"{name} reads progress, which is the step over the length of the run: give the number "
            f"of steps, at least 1, as in as_optax(learning_rate, num_steps=1000); got {num_steps}"
        )


def _flatten(tree: Any) -> tuple[list[Any], Any]:
    leaves, treedef = jax.tree.flatten(tree)
    return leaves, treedef


def _zeros(like: Any, shape: tuple[int, ...]) -> jax.Array:
    # An array is sharded as the parameter along each axis that it shares.
    full = jnp.shape(like)
    if len(full) == len(shape) and all(
        size in (1, own) for size, own in zip(shape, full, strict=True)
    ):
        axes = tuple(axis for axis, size in enumerate(shape) if size != full[axis])
        return jnp.zeros_like(jnp.sum(like, axis=axes, keepdims=True) if axes else like)
    return jnp.zeros(shape, jnp.asarray(like).dtype)


_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY


class OptaxFactory(Protocol):
    """`factory(learning_rate, **constants)`, with the program's constants in its signature."""

    def __call__(
        self, learning_rate: optax.ScalarOrSchedule, **constants: Any
    ) -> optax.GradientTransformationExtraArgs: ...


def optax_factory(program: AbstractProgram) -> OptaxFactory:
    """Return the program as an optimizer's factory: `w <- w - learning_rate * update`.

    The factory's signature names the constants, so that
    `optax.inject_hyperparams(program.as_optax)` finds them. Where the program reads a role that is
    guessed from the parameters' names, the factory takes `roles=Roles(...)` too, where it reads
    `progress`, `num_steps=`, and where it has a state, `state_dtype=`.
    """

    def factory(
        learning_rate: optax.ScalarOrSchedule,
        roles: Roles | None = None,
        *,
        num_steps: Any = None,
        state_dtype: Any = None,
        **constants: Any,
    ) -> optax.GradientTransformationExtraArgs:
        return trainable.skip_untrainable(
            optax.chain(
                scale_by_program(
                    program, roles, num_steps=num_steps, state_dtype=state_dtype, **constants
                ),
                optax.scale_by_learning_rate(learning_rate),
            )
        )

    rate = inspect.Parameter("learning_rate", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    keywords = [
        inspect.Parameter(name, _KEYWORD, default=value) for name, value in program.constants
    ]
    flow = lower(program)
    if PROGRESS in flow.live_of_run:
        keywords.append(inspect.Parameter("num_steps", _KEYWORD))
    if flow.live_slots:
        keywords.append(inspect.Parameter("state_dtype", _KEYWORD, default=None))
    if {LAST, EMBEDDING} & set(flow.live_roles):
        keywords.append(inspect.Parameter("roles", _KEYWORD, default=None))
    factory.__name__ = factory.__qualname__ = program.name
    factory.__doc__ = program.doc or f"The update rule {program.name} as an Optax transform."
    factory.__signature__ = inspect.Signature([rate, *keywords])  # type: ignore[attr-defined]
    return factory
