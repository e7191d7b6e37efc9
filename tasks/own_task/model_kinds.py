"""Models of several libraries behind one interface: `init` and `apply`, as linen modules have it.

What is made here are the others: a flax.nnx module, an equinox module, and a pair of functions. An
instance of nnx or equinox has its parameters already, so all runs start from these; a function that
makes an instance draws new ones for each run.

equinox is imported only where the user's model is one of its modules.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, final

import flax.linen as nn
import jax
from flax import nnx

from veldt.tasks.common import array_tree, errors, types
from veldt.tasks.data import dataset

Start: TypeAlias = Callable[[types.Key], types.Params]
"""The parameters at the start of a run, from a key."""

ACCEPTED = (
    "an instance of a flax.nnx, linen or equinox module, a function of `rngs` (nnx) or of `key` "
    "that makes one, or a pair of functions (init, apply)"
)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class FixedStart(array_tree.ArrayTree):
    """The same parameters for each run.

    Attributes:
      params: Parameters.
    """

    params: types.Params

    def __call__(self, key: types.Key) -> types.Params:
        del key
        return self.params


@final
@dataclasses.dataclass(frozen=True)
class DrawnStart:
    """New parameters for each run.

    Attributes:
      make: Function of a key that makes a model.
      split: Function that returns the parameters of a model.
    """

    make: Callable[[types.Key], Any]
    split: Callable[[Any], types.Params]

    def __call__(self, key: types.Key) -> types.Params:
        return self.split(self.make(key))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class NnxModel(array_tree.ArrayTree):
    """A flax.nnx module; its parameters are those of kind `nnx.Param`.

    Attributes:
      start: Parameters at the start, nested dictionaries.
      graph: Module without its arrays.
      constants: Other arrays of the module, nested dictionaries.
    """

    start: Start
    graph: Any
    constants: Any

    def init(self, key: types.Key, inputs: dataset.Array) -> types.Params:
        """Return the parameters at the start. The key is consumed."""
        del inputs
        return self.start(key)

    def apply(self, params: types.Params, inputs: dataset.Array, *, rngs: Any = None) -> Any:
        """Return the outputs."""
        del rngs
        return self._merged(params)(inputs)

    def changed(self, params: types.Params, inputs: dataset.Array) -> bool:
        """Return whether a call changes arrays other than parameters, as dropout does."""
        model = self._merged(params)
        model(inputs)
        after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
        pairs = zip(jax.tree.leaves(self.constants), jax.tree.leaves(after), strict=True)
        return any(bool((one != other).any()) for one, other in pairs)

    def _merged(self, params: types.Params) -> Any:
        return nnx.merge(self.graph, nnx.State(params), nnx.State(self.constants))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class EquinoxModel(array_tree.ArrayTree):
    """An equinox module, which takes one example; its parameters are its floating arrays.

    Attributes:
      start: Parameters at the start: a module without the rest.
      rest: Module without its parameters.
    """

    start: Start
    rest: Any

    def init(self, key: types.Key, inputs: dataset.Array) -> types.Params:
        """Return the parameters at the start. The key is consumed."""
        del inputs
        return self.start(key)

    def apply(self, params: types.Params, inputs: dataset.Array, *, rngs: Any = None) -> Any:
        """Return the outputs."""
        del rngs
        import equinox

        return jax.vmap(equinox.combine(params, self.rest))(inputs)


@final
@dataclasses.dataclass(frozen=True)
class FunctionModel:
    """A model of two functions.

    Attributes:
      start: Function of a key that returns parameters.
      call: Function of parameters and inputs that returns outputs.
    """

    start: Start
    call: Callable[[types.Params, Any], Any]

    def init(self, key: types.Key, inputs: dataset.Array) -> types.Params:
        """Return the parameters at the start. The key is consumed."""
        del inputs
        return self.start(key)

    def apply(self, params: types.Params, inputs: dataset.Array, *, rngs: Any = None) -> Any:
        """Return the outputs."""
        del rngs
        return self.call(params, inputs)


def of(model: Any) -> Any:
    """Return a user's model with the methods `init` and `apply`.

    Raises:
      TaskError: It is of no kind that is known.
    """
    if isinstance(model, type):
        key = "key" if _is_equinox_class(model) else "rngs"
        made = f"lambda {key}: {model.__name__}(..., {key}={key})"
        how = f", or a function that makes one, such as {made}"
        raise errors.TaskError(
            f"the model is the class {model.__name__}: give an instance"
            f"{'' if issubclass(model, nn.Module) else how}"
        )
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, tuple) and len(model) == 2 and all(map(callable, model)):
        return FunctionModel(*model)
    if is_equinox(model) or isinstance(model, nnx.Module):
        return _of_module(model, None)
    if callable(model):
        make = _by_key(model)
        found = make(jax.random.key(0))
        if is_equinox(found) or isinstance(found, nnx.Module):
            return _of_module(found, make)
        what = (
            "a linen module: give the module itself"
            if isinstance(found, nn.Module)
            else f"{type(found).__name__}, which is no module"
        )
        raise errors.TaskError(
            f"the function {name_of(model)} returned {what}. A model is {ACCEPTED}"
        )
    raise errors.TaskError(f"the model is {type(model).__name__}, not {ACCEPTED}")


def name_of(model: Any) -> str:
    """Return a name for a model: that of its class, or of its function."""
    if isinstance(model, tuple):
        return name_of(model[1])
    is_function = inspect.isroutine(model) and model.__name__ != "<lambda>"
    if is_function:
        return str(model.__name__)
    return "model" if inspect.isroutine(model) else type(model).__name__


def is_equinox(model: Any) -> bool:
    """Return whether an object is a module of equinox; equinox is not imported."""
    return _is_equinox_class(type(model))


def _is_equinox_class(model: type) -> bool:
    return any(
        kind.__module__.partition(".")[0] == "equinox" and kind.__name__ == "Module"
        for kind in model.__mro__
    )


def _of_module(model: Any, make: Callable[[types.Key], Any] | None) -> NnxModel | EquinoxModel:
    split = _equinox_params if is_equinox(model) else _nnx_params
    start = FixedStart(split(model)) if make is None else DrawnStart(make, split)
    if is_equinox(model):
        import equinox

        return EquinoxModel(start, equinox.partition(model, equinox.is_inexact_array)[1])
    parts: Any = nnx.split(model, nnx.Param, ...)
    graph, _, rest = parts
    return NnxModel(start, graph, nnx.to_pure_dict(rest))


def _nnx_params(model: nnx.Module) -> types.Params:
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def _equinox_params(model: Any) -> types.Params:
    import equinox

    return equinox.filter(model, equinox.is_inexact_array)


def _by_key(make: Callable[[Any], Any]) -> Callable[[types.Key], Any]:
    """Return a user's function as one of a key.

    Raises:
      TaskError: It takes something else.
    """
    try:
        names = list(inspect.signature(make).parameters)
    except (TypeError, ValueError):
        names = []
    if len(names) != 1:
        raise errors.TaskError(
            f"the function {name_of(make)} takes ({', '.join(names)}); one that makes a model "
            "takes `rngs`, for nnx, or `key`, and nothing else. Two functions of your own are "
            "given as a pair (init, apply)"
        )
    return _FromRngs(make) if names == ["rngs"] else make


@final
@dataclasses.dataclass(frozen=True)
class _FromRngs:
    """A function of a key from one of `rngs`."""

    make: Callable[[nnx.Rngs], Any]

    def __call__(self, key: types.Key) -> Any:
        return self.make(nnx.Rngs(key))
