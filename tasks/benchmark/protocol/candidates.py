"""Candidates of the benchmark: an optimizer, its learning rates, and its identity.

A candidate travels to the workers of the task pool, so it is a frozen, picklable value that makes
its transform where that is needed. `FactoryCandidate` is anything that `module:function` makes; the
package `search` has one for programs. All candidates of one comparison are tuned over as many
learning rates; each candidate chooses its own, since a sign update and a gradient step of the same
rate have nothing in common.
"""

import abc
import contextlib
import dataclasses
import hashlib
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Self, cast, final

import jax
import jax.numpy as jnp
import optax

from veldt.tasks.common import errors
from veldt.tasks.common.user_code import imports

RATE_SPACING: Final = math.sqrt(10.0)
NUM_RATES: Final = 7
DEFAULT_CENTRE: Final = 10**-2.0
"""Centre of the rates of unknown optimizers: Adam's, so rates from 3.2e-4 to 0.32."""


def rate_grid(centre: float) -> tuple[float, ...]:
    """Return `NUM_RATES` learning rates around `centre`, each `RATE_SPACING` times the last."""
    half = (NUM_RATES - 1) / 2
    return tuple(centre * RATE_SPACING ** (i - half) for i in range(NUM_RATES))


class Candidate(abc.ABC):
    """An optimizer to be compared. Subclasses are frozen dataclasses.

    Attributes:
      name: Name in tables.
      rates: Peak learning rates to choose from, rising.
    """

    name: str
    rates: tuple[float, ...]

    @property
    def selected_on(self) -> frozenset[str]:
        """Tasks that the candidate was selected on, which are no evidence for how good it is."""
        return frozenset()

    def renamed(self, name: str) -> Self:
        """Return the same candidate under another name."""
        return dataclasses.replace(self, name=name)  # type: ignore[type-var]

    def with_rates(self, rates: tuple[float, ...]) -> Self:
        """Return the same candidate with other learning rates."""
        return dataclasses.replace(self, rates=rates)  # type: ignore[type-var]

    @abc.abstractmethod
    def make_tx(self, learning_rate: Any, num_steps: int) -> optax.GradientTransformation:
        """Return the transform of one run.

        Args:
          learning_rate: Traced scalar, or an `optax.Schedule` of traced numbers.
          num_steps: Length of the run.
        """

    def check(self) -> None:
        """Make a transform and its state, by shapes alone, to see that it can be made.

        Raises:
          TaskError: It cannot be made.
        """
        try:
            tx = self.make_tx(jnp.asarray(self.rates[0], jnp.float32), 100)
            jax.eval_shape(tx.init, {"w": jnp.zeros((3, 2)), "b": jnp.zeros((2,))})
        except errors.TaskError:
            raise
        except Exception as error:
            raise errors.TaskError(
                f"optimizer {self.name!r} cannot be made: {type(error).__name__}: {error}"
            ) from error

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """A text that differs between optimizers that could train differently.

        Stored results are found by it and the rates; the name plays no part.
        """


@final
@dataclass(frozen=True, slots=True)
class FactoryCandidate(Candidate):
    """A candidate of an Optax factory: Optax's own, or a function of the user's.

    The factory's first argument is the learning rate, a number or a schedule. Without a
    parameter `learning_rate` the updates are multiplied by it instead. A parameter `num_steps`, if
    there is one, gets the length of the run.

    Attributes:
      name: Name in tables.
      factory: Text "module:function".
      options: Further keyword arguments.
      rates: Peak learning rates.
    """

    name: str
    factory: str
    options: tuple[tuple[str, float], ...] = ()
    rates: tuple[float, ...] = rate_grid(DEFAULT_CENTRE)

    def make_tx(self, learning_rate: Any, num_steps: int) -> optax.GradientTransformation:
        function = self._load()
        parameters = inspect.signature(function).parameters
        options: dict[str, Any] = dict(self.options)
        if "num_steps" in parameters:
            options["num_steps"] = num_steps
        if takes_learning_rate(function):
            return checked(self.name, function(learning_rate=learning_rate, **options))
        tx = checked(self.name, function(**options))
        if callable(learning_rate):
            return optax.chain(tx, optax.scale_by_schedule(learning_rate))
        return optax.chain(tx, optax.scale(learning_rate))

    @property
    def identity(self) -> str:
        options = ",".join(f"{key}={value!r}" for key, value in self.options)
        self._load()
        return f"{self.factory}({options}) {_version(self.factory)}"

    def _load(self) -> Callable[..., Any]:
        return imports.load_object("optimizer", self.factory)


def factory_candidate(factory: str) -> FactoryCandidate:
    """Return the candidate that "module:function" names, checked as far as possible without a task.

    Raises:
      TaskError: There is no such function, or it cannot be called as a factory.
    """
    function = imports.load_object("optimizer", factory)
    try:
        signature = inspect.signature(function)
    except ValueError:  # Some functions written in C have none.
        raise errors.TaskError(f"optimizer {factory!r} is no factory of an optimizer") from None
    required = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in ("learning_rate", "num_steps")
    ]
    if required:
        raise errors.TaskError(
            f"optimizer {factory!r} also needs {', '.join(required)}; a factory is called as "
            "factory(learning_rate=...), or factory() if it has no such parameter, and gets "
            "num_steps if it has that. Write one that fills in the rest."
        )
    centre = DEFAULT_CENTRE if takes_learning_rate(function) else 1.0
    return FactoryCandidate(factory, factory, rates=rate_grid(centre))


def takes_learning_rate(function: Callable[..., Any]) -> bool:
    """Return whether a factory has a parameter `learning_rate`."""
    return "learning_rate" in inspect.signature(function).parameters


def checked(name: str, tx: object) -> optax.GradientTransformation:
    """Return the result of a factory, if it is a transform.

    Raises:
      TaskError: It is not a transform.
    """
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        raise errors.TaskError(
            f"optimizer {name!r} is no optax.GradientTransformation; the factory returned "
            f"{type(tx).__name__}."
        )
    return cast(optax.GradientTransformation, tx)


def _version(factory: str) -> str:
    """Return the version of an installed package; of anything that may be edited, the hash."""
    module = factory.partition(":")[0]
    path = Path(sys.modules[module].__file__ or "")
    if {"site-packages", "dist-packages"} & set(path.parts):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(module.partition(".")[0])
    content = path.read_bytes() if path.is_file() else b""
    return hashlib.sha256(content).hexdigest()[:16]
