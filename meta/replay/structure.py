"""In what two structures of states differ, in a line: the place, what was there, what is."""

import reprlib
from typing import Any, Final

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def difference(given: Any, came: Any, path: str = "state") -> str:
    """Return the first difference of two `PyTreeDef`s; empty if there is none.

    Args:
      given: The structure at the start.
      came: That which came back.
      path: What the place is called.
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
    """The first difference of what a node holds besides its children."""
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
    """How a node's children are written after its place."""
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
