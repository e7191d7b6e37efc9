"""What the benchmark compares: an optimizer, its learning rates, and what makes it itself.

A candidate travels to the workers of the task pool, so it is a frozen, picklable value that makes
its transform where that is needed. `FactoryCandidate` is anything that `module:function` makes; the
search room has one for programs. All candidates of one comparison are tuned over as many learning
rates; which ones is the candidate's own matter, since a sign update and a gradient step of the same
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

from veldt.tasks.common import errors, imports

RATE_SPACING: Final = math.sqrt(10.0)
NUM_RATES: Final = 7
DEFAULT_CENTRE: Final = 10**-2.0
"""Of optimizers that nothing is known of: Adam's, so rates from 3.2e-4 to 0.32."""


def rate_grid(centre: float) -> tuple[float, ...]:
    """`NUM_RATES` learning rates around `centre`, each `RATE_SPACING` times the one before."""
    half = (NUM_RATES - 1) / 2
    return tuple(centre * RATE_SPACING ** (i - half) for i in range(NUM_RATES))


class Candidate(abc.ABC):
    """An optimizer to be compared. Subclasses are frozen dataclasses.

    Attributes:
      name: what tables call it.
      rates: peak learning rates to choose from, rising.
    """

    name: str
    rates: tuple[float, ...]

    @property
    def selected_on(self) -> frozenset[str]:
        """Tasks that it was selected on: no evidence for how good it is."""
        return frozenset()

    def renamed(self, name: str) -> Self:
        """The same under another name."""
        return dataclasses.replace(self, name=name)  # type: ignore[type-var]

    def with_rates(self, rates: tuple[float, ...]) -> Self:
        """The same over other learning rates."""
        return dataclasses.replace(self, rates=rates)  # type: ignore[type-var]

    @abc.abstractmethod
    def make_tx(self, learning_rate: Any, num_steps: int) -> optax.GradientTransformation:
        """The transform of one run.

        Args:
          learning_rate: a traced scalar, or an `optax.Schedule` of traced numbers.
          num_steps: length of the run.
        """

    def check(self) -> None:
        """Makes a transform and its state, by shapes alone.

        Raises:
          TaskError: it cannot be made.
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

        Stored results are found again by it, beside the rates; the name plays no part.
        """


@final
@dataclass(frozen=True, slots=True)
class FactoryCandidate(Candidate):
    """What an Optax factory makes: Optax's own, or a function of the user's.

    The factory's first argument is the learning rate, a number or a schedule. One without a
    parameter `learning_rate` has its updates multiplied instead. A parameter `num_steps`, if there
    is one, is told the length of the run.

    Attributes:
      name: what tables call it.
      factory: "module:function".
      options: further keyword arguments.
      rates: peak learning rates.
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
    """The candidate that "module:function" names, checked as far as that goes without a task.

    Raises:
      TaskError: there is no such function, or it cannot be called as a factory.
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
            "factory(learning_rate=...), or factory() if it has no such parameter, and is told "
            "num_steps if it has that. Write one that fills in the rest."
        )
    centre = DEFAULT_CENTRE if takes_learning_rate(function) else 1.0
    return FactoryCandidate(factory, factory, rates=rate_grid(centre))


def takes_learning_rate(function: Callable[..., Any]) -> bool:
    """Whether a factory has a parameter `learning_rate`."""
    return "learning_rate" in inspect.signature(function).parameters


def checked(name: str, tx: object) -> optax.GradientTransformation:
    """What a factory returned, if it is a transform.

    Raises:
      TaskError: it is none.
    """
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        raise errors.TaskError(
            f"optimizer {name!r} is no optax.GradientTransformation; the factory returned "
            f"{type(tx).__name__}."
        )
    return cast(optax.GradientTransformation, tx)


def _version(factory: str) -> str:
    """The version of an installed package; of anything that may be edited, its file's hash."""
    module = factory.partition(":")[0]
    path = Path(sys.modules[module].__file__ or "")
    if {"site-packages", "dist-packages"} & set(path.parts):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(module.partition(".")[0])
    content = path.read_bytes() if path.is_file() else b""
    return hashlib.sha256(content).hexdigest()[:16]
