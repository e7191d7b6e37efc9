"""Errors of the learned-optimizer room: one root, one class for each thing a user can put right.

Messages are put together by `of`, not by `__init__`: an exception is unpickled by calling its class
with its message, and these cross process boundaries.
"""

from collections.abc import Iterable
from typing import Self

from veldt.tasks.common import errors, spelling


class LearnedOptError(errors.VeldtError, ValueError):
    """Root of the room's errors: a rule is unknown, or was not given what it reads."""


class UnknownArchitectureError(LearnedOptError):
    """Raised by `registry.architecture` for a name, or a field, that there is not."""

    exit_code = errors.USAGE

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> "UnknownArchitectureError":
        """Say which name was given, the nearest known one, and all known ones."""
        known = sorted(known)
        near = spelling.did_you_mean(name, known)
        return cls(f"unknown {kind} {name!r}{near}. Known: {', '.join(known) or 'none'}.")


class UnknownOptionError(LearnedOptError):
    """Raised by `weights.Weights.as_optax` for a keyword that the rule does not take."""

    @classmethod
    def of(cls, rule: str, option: str, known: Iterable[str]) -> "UnknownOptionError":
        """Say which option was given, the nearest one, and all that the rule takes."""
        known = sorted(known)
        near = spelling.did_you_mean(option, known)
        return cls(
            f"{rule} takes no option {option!r}{near}. Options: {', '.join(known) or 'none'}."
        )


class WeightsError(LearnedOptError):
    """Raised for a weight file that is not there, is damaged, or is something else."""

    @classmethod
    def of(cls, source: object, why: str) -> Self:
        """Say which file, and what is wrong with it."""
        return cls(f"{source}: {why}")


class UnknownWeightsError(WeightsError):
    """Raised for weights that are not there: a name that nothing has, a path to nothing."""

    exit_code = errors.USAGE


class OptionError(LearnedOptError):
    """Raised for an option's value that a wrapper cannot work with."""

    @classmethod
    def of(cls, wrapper: str, option: str, given: object, allowed: str) -> "OptionError":
        """Say which option was given what, and what is allowed."""
        return cls(f"{wrapper}: {option} must be {allowed}; got {given!r}")


class MissingInputError(LearnedOptError):
    """Raised by a rule that was not given an input that it reads."""

    @classmethod
    def params(cls, rule: str) -> "MissingInputError":
        """Say that the parameters were left out of `update`."""
        return cls(f"{rule} reads the parameters: call update(grads, state, params)")

    @classmethod
    def value(cls, rule: str) -> "MissingInputError":
        """Say that the loss was left out of `update`."""
        return cls(
            f"{rule} reads the loss: call update(grads, state, params, value=loss). Where someone "
            "else's loop calls update without it, such as TrainState.apply_gradients, wrap the "
            "transform: veldt.loss_in_state(tx), and write the loss before each update: "
            "opt_state = optax.tree.set(opt_state, loss=loss); see docs/loops.md"
        )

    @classmethod
    def grad_fn(cls, wrapper: str) -> "MissingInputError":
        """Say that the gradient's function was left out of `update`."""
        return cls(
            f"{wrapper} takes a second gradient: call update(grads, state, params, "
            "grad_fn=jax.grad(lambda params, _: loss(params, batch))). For a loop that cannot, "
            "there is veldt.wrappers.sam_alternating"
        )

    @classmethod
    def obj_fn(cls, wrapper: str) -> "MissingInputError":
        """Say that the objective was left out of `update`."""
        return cls(
            f"{wrapper} probes the objective's Hessian: call update(grads, state, params, "
            "obj_fn=lambda params: loss(params, batch))"
        )

    @classmethod
    def num_steps(cls, rule: str, given: object) -> "MissingInputError":
        """Say that the length of the run was left out, or is no length."""
        return cls(
            f"{rule} reads how far training has got: as_optax(meta_params, num_steps=N) needs the "
            f"number of steps, at least 1; got {given!r}"
        )
