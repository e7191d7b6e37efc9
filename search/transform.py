"""A program as an Optax transform, in native JAX.

`scale_by_program` is the rule in descent direction, `optax_factory` adds the learning rate and the
sign. The state is a step count and one tree per *live* slot: a slot that cannot reach the update
costs no memory. Everything is jittable, vmappable and differentiable with respect to the constants,
which may be traced.
"""

import inspect
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from veldt.search import execute
from veldt.search.errors import ProgramError
from veldt.search.program import Program


class ScaleByProgramState(NamedTuple):
    """State of `scale_by_program`."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    slots: dict[str, Any]  # one tree shaped as the parameters per live slot, by the slot's name


def scale_by_program(
    program: Program, /, **constants: Any
) -> optax.GradientTransformationExtraArgs:
    """The program's update, in descent direction, before the learning rate.

    Args:
      program: the rule.
      **constants: values for the program's constants (numbers or traced scalars) in place of its
        defaults.

    Raises:
      ProgramError: a constant that the program does not have.
    """
    unknown = sorted(set(constants) - {name for name, _ in program.constants})
    if unknown:
        allowed = ", ".join(name for name, _ in program.constants) or "none"
        raise ProgramError(f"{program.name} has no constant {unknown[0]!r}; it has: {allowed}")
    flow = program.lower()

    def init_fn(params: Any) -> ScaleByProgramState:
        slots = {name: optax.tree.zeros_like(params) for name in flow.live_slots}
        return ScaleByProgramState(jnp.zeros([], jnp.int32), slots)

    def update_fn(
        updates: Any, state: ScaleByProgramState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, ScaleByProgramState]:
        del extra_args
        if params is None:
            raise ValueError(
                f"{program.name} reads the parameters: call update(grads, state, params)"
            )
        count = optax.safe_increment(state.count)
        grads, treedef = _flatten(updates)
        tensors = {"w": treedef.flatten_up_to(params), "g": grads}
        tensors |= {name: treedef.flatten_up_to(tree) for name, tree in state.slots.items()}
        # bfloat16 cannot count past 256: the step is kept in at least float32.
        step = [count.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in grads]
        update, new_slots = execute.execute(flow, jnp, tensors, step, constants)
        slots = {
            name: treedef.unflatten(leaves)
            for name, leaves in zip(flow.live_slots, new_slots, strict=True)
        }
        return treedef.unflatten(update), ScaleByProgramState(count, slots)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _flatten(tree: Any) -> tuple[list[Any], Any]:
    leaves, treedef = jax.tree.flatten(tree)
    return leaves, treedef


class OptaxFactory(Protocol):
    """`factory(learning_rate, **constants)`, with the program's constants in its signature."""

    def __call__(
        self, learning_rate: optax.ScalarOrSchedule, **constants: Any
    ) -> optax.GradientTransformationExtraArgs: ...


def optax_factory(program: Program) -> OptaxFactory:
    """The program as an optimizer's factory: training does `w <- w - learning_rate * update`.

    The factory's signature names the constants, so that
    `optax.inject_hyperparams(program.as_optax)` finds them.
    """

    def factory(
        learning_rate: optax.ScalarOrSchedule, **constants: Any
    ) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(
            optax.chain(
                scale_by_program(program, **constants),
                optax.scale_by_learning_rate(learning_rate),
            )
        )

    rate = inspect.Parameter("learning_rate", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        for name, value in program.constants
    ]
    factory.__name__ = factory.__qualname__ = program.name
    factory.__doc__ = program.doc or f"The update rule {program.name} as an Optax transform."
    factory.__signature__ = inspect.Signature([rate, *keywords])  # type: ignore[attr-defined]
    return factory
