"""A training's state as flat arrays: what is differentiated, and the rest.

Everything that keeps, hashes or differentiates states works on `Packed`: two tuples of plain
arrays, the inexact ones, through which gradients go, and all others (counters, keys as their raw
bits). `StateSpec` is the static map between the two; it also holds the step to what `init` made.
"""

import dataclasses
import functools
import math
import reprlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, final

import jax
import jax.numpy as jnp

from veldt.meta import errors

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60

State: TypeAlias = Any
"""Pytree of arrays: a training between two steps."""


class Packed(NamedTuple):
    """A state as plain arrays.

    Attributes:
      moving: The inexact leaves, through which gradients go.
      rest: All other leaves.
    """

    moving: tuple[Any, ...]
    rest: tuple[Any, ...]


@final
@dataclasses.dataclass(frozen=True)
class StateSpec:
    """The structure of a state; hashable, static under jit.

    Attributes:
      treedef: Structure of the state.
      paths: Path of each leaf, such as ".params['w']".
      shapes: Shape of each leaf; of a key, the shape of the raw bits.
      dtypes: Type of each leaf; of a key, uint32.
      impls: Generator of each key; None for what is no key.
    """

    treedef: Any
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    impls: tuple[Any, ...]

    @classmethod
    def of(cls, make: Callable[..., State], *args: Any) -> "StateSpec":
        """Return the spec of what `make(*args)` returns; nothing is computed."""
        impls: list[Any] = []

        def plain(*args: Any) -> State:
            leaves, treedef = jax.tree.flatten(make(*args))
            impls.extend(jax.random.key_impl(x) if _is_key(x) else None for x in leaves)
            return jax.tree.unflatten(treedef, [_plain(x) for x in leaves])

        shapes = jax.eval_shape(plain, *args)
        leaves, treedef = jax.tree.flatten(shapes)
        with_paths = jax.tree_util.tree_leaves_with_path(shapes)
        return cls(
            treedef=treedef,
            paths=tuple(jax.tree_util.keystr(path) for path, _ in with_paths),
            shapes=tuple(tuple(leaf.shape) for leaf in leaves),
            dtypes=tuple(jnp.dtype(leaf.dtype) for leaf in leaves),
            impls=tuple(impls),
        )

    @functools.cached_property
    def is_moving(self) -> tuple[bool, ...]:
        """Whether gradients go through each leaf."""
        return tuple(jnp.issubdtype(dtype, jnp.inexact) for dtype in self.dtypes)

    @functools.cached_property
    def packed_paths(self) -> tuple[str, ...]:
        """`paths` in the order of `Packed`'s leaves."""
        pairs = list(zip(self.paths, self.is_moving, strict=True))
        return tuple(p for p, moves in pairs if moves) + tuple(p for p, m in pairs if not m)

    @property
    def num_bytes(self) -> int:
        """Size of one state."""
        sizes = zip(self.shapes, self.dtypes, strict=True)
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in sizes)

    @property
    def abstract(self) -> Packed:
        """A packed state of `jax.ShapeDtypeStruct`."""
        pairs = zip(self.shapes, self.dtypes, strict=True)
        return self._part([jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in pairs])

    def pack(self, state: State) -> Packed:
        """Return a state's arrays.

        Raises:
          ReplayError: It is not of this spec; names the first leaf that differs.
        """
        leaves, treedef = jax.tree.flatten(state)
        if treedef != self.treedef:
            raise errors.ReplayError(
                "init and step must return states of one structure: "
                f"{difference(self.treedef, treedef)}"
            )
        plain = [_plain(x) for x in leaves]
        for path, leaf, shape, dtype in zip(
            self.paths, plain, self.shapes, self.dtypes, strict=True
        ):
            if leaf.shape != shape or leaf.dtype != dtype:
                raise errors.ReplayError(
                    f"state{path} was {dtype}{list(shape)} at the start and is "
                    f"{leaf.dtype}{list(leaf.shape)} after a step; cast it in init or in step"
                )
        return self._part(plain)

    def unpack(self, packed: Packed) -> State:
        """Inverse of `pack`."""
        moving, rest = iter(packed.moving), iter(packed.rest)
        leaves = []
        for moves, impl in zip(self.is_moving, self.impls, strict=True):
            leaf = next(moving) if moves else next(rest)
            leaves.append(leaf if impl is None else jax.random.wrap_key_data(leaf, impl=impl))
        return jax.tree.unflatten(self.treedef, leaves)

    def _part(self, leaves: list[Any]) -> Packed:
        pairs = list(zip(leaves, self.is_moving, strict=True))
        return Packed(tuple(x for x, m in pairs if m), tuple(x for x, m in pairs if not m))


def difference(given: Any, came: Any, path: str = "state") -> str:
    """Return the first difference of two `PyTreeDef`s, in words; empty if there is none.

    Args:
      given: Structure at the start.
      came: Structure that came back.
      path: Name of the place.
    """
    if given == came:
        return ""
    before, after = given.node_data(), came.node_data()
    if before is None or after is None or before[0] is not after[0]:
        return f"{path} was {_kind(before)} at the start, and {_kind(after)} came back"
    name = before[0].__name__
    pairs = list(zip(given.children(), came.children(), strict=False))
    labels = _labels(before, len(pairs))
    if len(given.children()) != len(came.children()) or (
        isinstance(before[1], list | dict) and before[1] != after[1]
    ):
        return f"{path}, a {name}, had {_parts(given)} at the start, and {_parts(came)} came back"
    for label, (one, other) in zip(labels, pairs, strict=True):
        if found := difference(one, other, f"{path}{label}"):
            return found
    return _static(before[1], after[1], f"{path}, a {name},")


def _static(before: Any, after: Any, path: str) -> str:
    """Return the first difference of what two nodes hold besides their children."""
    if isinstance(before, tuple | list) and isinstance(after, tuple | list):
        for one, other in zip(before, after, strict=False):
            if one != other:
                return _static(one, other, path)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() & after.keys():
            if before[key] != after[key]:
                return _static(before[key], after[key], path)
    if callable(before) and callable(after):
        names = [getattr(each, "__qualname__", repr(each)) for each in (before, after)]
        if names[0] == names[1]:
            return (
                f"{path} holds the function {names[0]}, which was made anew: make it once, outside "
                "init and step (for an nnx.Optimizer the Optax transform), or keep arrays alone in "
                "the state (nnx.split, nnx.state)"
            )
    return f"{path} held {_SHORT.repr(before)} at the start, and {_SHORT.repr(after)} came back"


def _labels(node: tuple[type, Any], count: int) -> list[str]:
    """Return how the children of a node are written after the place of the node."""
    kind, data = node
    if kind is dict:
        return [f"[{key!r}]" for key in data]
    if hasattr(kind, "_fields"):
        return [f".{name}" for name in kind._fields]
    named = data[0] if isinstance(data, tuple) and data and isinstance(data[0], tuple) else ()
    if len(named) == count and all(isinstance(name, str) for name in named):
        return [f".{name}" for name in named]
    return [f"[{i}]" for i in range(count)]


def _kind(node: tuple[type, Any] | None) -> str:
    if node is None:
        return "an array"
    return "None" if node[0] is type(None) else f"a {node[0].__name__}"


def _parts(structure: Any) -> str:
    kind, data = structure.node_data()
    if kind is dict:
        return f"the keys {', '.join(map(repr, data))}"
    return f"{len(structure.children())} parts"


def num_bytes(tree: Any) -> int:
    """Return the bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _plain(x: Any) -> jax.Array:
    """Return a leaf as an array of a definite type, a key as its bits."""
    array = jax.random.key_data(x) if _is_key(x) else jnp.asarray(x)
    # A weak type would change on the way round a loop.
    return jax.lax.convert_element_type(array, array.dtype)
