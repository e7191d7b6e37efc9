"""Dataclasses to YAML or JSON and back: strict, typed, with errors that give the place.

YAML is read as nodes, which keep their place, and built into values of a type annotation:
bool, int, float, str, an enum with string values, `Literal`, `X | None`, `tuple[X, ...]`,
`dict[str, X]`, and dataclasses of these. Three things are stricter than PyYAML's loaders. Scalars
follow YAML 1.2's core rules, so `1e-3` is a number and `no` a string (YAML 1.1, which PyYAML
speaks, has it the other way round). A key given twice is an error. And no tag makes an object:
a config from a stranger is data. Plain values, as JSON has them, become nodes too, so that there is
one set of checks.
"""

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, final

import yaml

from veldt.tasks.common import errors, spelling

Annotation: TypeAlias = Any
"""A type annotation: a class, or one of typing's forms."""

MISSING = dataclasses.MISSING

_TAG = "tag:yaml.org,2002:"
_NO_LINE = -1  # Line of a value that was not read from text.
_SCALARS = {
    "bool": re.compile(r"true|false"),
    "null": re.compile(r"null|~|"),
    "int": re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*"),
    "float": re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.inf"
    ),
}
# PyYAML looks resolvers up by a scalar's first letter; None stands for any.
_RESOLVERS: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {
    None: [(_TAG + kind, re.compile(f"(?:{r.pattern})\\Z")) for kind, r in _SCALARS.items()]
}


@final
class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS


@final
class _Dumper(yaml.SafeDumper):
    """A dumper that quotes strings which either set of rules would read as something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own, which its stubs call an instance's)
        key: [*yaml.SafeDumper.yaml_implicit_resolvers.get(key, []), *_RESOLVERS[None]]
        for key in [None, *yaml.SafeDumper.yaml_implicit_resolvers]
    }


def read(text: str, name: str) -> yaml.Node:
    """Parse one YAML document; an empty one is an empty mapping.

    Args:
      text: The document.
      name: Origin of the document, for messages.

    Raises:
      ConfigError: Not YAML; the message gives the line.
    """
    try:
        loader = _Loader(text)
        loader.name = name
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = name if mark is None or name.startswith("--") else f"{name}:{mark.line + 1}"
        raise errors.ConfigError(f"{place}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise errors.ConfigError(f"{name}: not valid YAML: {error}") from None
    return empty_mapping(name) if node is None else node


def empty_mapping(name: str) -> yaml.MappingNode:
    """Return a mapping without keys, with `name` as its origin."""
    mark = yaml.Mark(name, 0, 0, 0, None, 0)
    return yaml.MappingNode(_TAG + "map", [], mark, mark)


def string(text: str, name: str) -> yaml.ScalarNode:
    """Return `text` as a string node, even if YAML would read it as something else."""
    mark = yaml.Mark(name, 0, 0, 0, None, 0)
    return yaml.ScalarNode(_TAG + "str", text, mark, mark)


def node_of(plain: object, name: str) -> yaml.Node:
    """Return the node that YAML text of a plain value would have.

    Args:
      plain: Plain values, as `to_plain` returns them.
      name: Origin of the values, for messages.
    """
    mark = yaml.Mark(name, 0, _NO_LINE, 0, None, 0)
    if isinstance(plain, Mapping):
        pairs = [(node_of(str(key), name), node_of(item, name)) for key, item in plain.items()]
        return yaml.MappingNode(_TAG + "map", pairs, mark, mark)
    if isinstance(plain, list | tuple):
        return yaml.SequenceNode(_TAG + "seq", [node_of(item, name) for item in plain], mark, mark)
    kind, text = "str", str(plain)
    if plain is None or isinstance(plain, bool):
        kind, text = ("null", "null") if plain is None else ("bool", text.lower())
    elif isinstance(plain, int | float):
        kind, text = type(plain).__name__, text.replace("inf", ".inf")
    return yaml.ScalarNode(_TAG + kind, text, mark, mark)


def dump(value: object) -> str:
    """Return YAML text that `build` turns back into an equal value, with all fields."""
    return yaml.dump(to_plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def to_plain(value: object) -> Any:
    """Return a config as mappings, lists and scalars, as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_plain(getattr(value, name)) for name in hints(type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value.value if isinstance(value, enum.Enum) else value


def from_plain(annotation: Annotation, plain: object, name: str) -> Any:
    """Return a value of the annotated type from the result of `to_plain`, or from a part of it.

    Args:
      annotation: Type of the value. Missing fields of a dataclass get their defaults, so that the
        config of an older version is read too.
      plain: Plain values.
      name: Origin of the values, for messages.

    Raises:
      ConfigError: It does not fit; the message gives the name, the path and what is allowed.
    """
    return build(annotation, node_of(plain, name))


def build(annotation: Annotation, node: yaml.Node, path: str = "", base: object = MISSING) -> Any:
    """Return a value of the annotated type.

    Args:
      annotation: Type of the value.
      node: Node of the document.
      path: Path of the value in the document (`pool.num_workers`), for messages.
      base: Value with the fields that a mapping for a dataclass leaves out, before the defaults of
        the class apply.

    Raises:
      ConfigError: The node does not fit; the message gives place, path and what is allowed.
    """
    if dataclasses.is_dataclass(annotation):
        return _build_dataclass(annotation, node, path, base)
    origin, args = _parts(annotation)
    if origin in (typing.Union, types.UnionType):
        return _build_union(args, node, path, base)
    if origin is Literal or (isinstance(annotation, type) and issubclass(annotation, enum.Enum)):
        return _build_choice(annotation, node, path)
    if origin is tuple:
        if not isinstance(node, yaml.SequenceNode):
            raise mismatch(annotation, node, path)
        kinds = item_annotations(annotation, len(node.value))
        if len(kinds) != len(node.value):
            raise error_at(
                node, path, f"expected {len(kinds)} values, not the {len(node.value)} given"
            )
        return tuple(
            build(kind, item, join(path, str(i)))
            for i, (kind, item) in enumerate(zip(kinds, node.value, strict=True))
        )
    if origin in (dict, Mapping):
        if not isinstance(node, yaml.MappingNode):
            raise mismatch(annotation, node, path)
        return {k: build(args[1], item, join(path, k)) for k, item in entries(node, path).items()}
    if annotation in (bool, int, float, str):
        return _build_scalar(annotation, node, path)
    raise TypeError(f"{path}: a config field cannot be annotated {annotation}")


def is_null(node: yaml.Node) -> bool:
    """Return whether a node is YAML's null."""
    return bool(node.tag == _TAG + "null")


def item_annotations(annotation: Annotation, num_items: int) -> tuple[Annotation, ...]:
    """Return the annotation of each item of a tuple's, which may hold any number or a fixed one."""
    args = typing.get_args(annotation)
    return (args[0],) * num_items if args[-1:] == (Ellipsis,) else args


def entries(node: yaml.MappingNode, path: str) -> dict[str, yaml.Node]:
    """Return a mapping's values by key.

    Raises:
      ConfigError: A key is no string, or is given twice.
    """
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or is_null(key):
            raise error_at(key, path, "a key must be a plain word")
        if key.value in found:
            raise error_at(key, join(path, key.value), "this key is given twice")
        found[key.value] = value
    return found


def hints(cls: type) -> dict[str, Annotation]:
    """Return the annotations of a dataclass's fields that its constructor takes, by name."""
    resolved = typing.get_type_hints(cls)
    return {field.name: resolved[field.name] for field in dataclasses.fields(cls) if field.init}


def default_of(cls: type, name: str, base: object) -> object:
    """Return a field's value where none is given: the base's, or the default, or `MISSING`."""
    if isinstance(base, cls):
        return getattr(base, name)
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def spell(annotation: Annotation) -> str:
    """Return in words what a type annotation accepts."""
    origin, args = _parts(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spell(arg) for arg in args)
    if choices := _choices(annotation):
        return "one of " + ", ".join(map(str, choices))
    if origin is tuple:
        return f"a list (each {spell(args[0])})" if args[-1] is Ellipsis else "a list"
    if origin in (dict, Mapping):
        return f"a mapping (each {spell(args[1])})"
    if dataclasses.is_dataclass(annotation):
        return "a mapping"
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    return words.get(annotation, "null" if annotation is type(None) else str(annotation))


def join(path: str, key: str) -> str:
    """Extend a path by one key."""
    return f"{path}.{key}" if path else key


def error_at(node: yaml.Node, path: str, message: str) -> errors.ConfigError:
    """Return an error with file and line (or the option), path, and what is wrong."""
    mark = node.start_mark
    where = path or "the config"
    if mark.name.startswith("--"):  # An override: the name gives the line, and mostly the path.
        named = mark.name[2:].replace("-", "_") == path.replace("-", "_")
        return errors.ConfigError(f"{mark.name}: {'' if named else where + ': '}{message}")
    place = mark.name if mark.line == _NO_LINE else f"{mark.name}:{mark.line + 1}"
    return errors.ConfigError(f"{place}: {where}: {message}")


def mismatch(annotation: Annotation, node: yaml.Node, path: str) -> errors.ConfigError:
    """Return the error of a value that is of another type than annotated."""
    message = f"expected {spell(annotation)}, not {_describe(node)}"
    if annotation is int and re.fullmatch(r"[0-9]+(\.0*)?(e\+?[0-9])?", str(node.value)):
        message += f"; write {float(node.value):.0f}"
    return error_at(node, path, message)


def _parts(annotation: Annotation) -> tuple[Any, tuple[Annotation, ...]]:
    """Return `tuple[int, ...]` as (`tuple`, (`int`, `...`)); a plain class as (None, ())."""
    return typing.get_origin(annotation), typing.get_args(annotation)


def _build_dataclass(cls: Any, node: yaml.Node, path: str, base: object) -> Any:
    if not isinstance(node, yaml.MappingNode):
        raise mismatch(cls, node, path)
    annotations = hints(cls)
    given = entries(node, path)
    for (key, _), name in zip(node.value, given, strict=True):
        if name not in annotations:
            hint = spelling.question(name.replace("-", "_"), annotations)
            allowed = ", ".join(annotations) or "nothing"
            raise error_at(key, join(path, name), f"unknown key.{hint} Allowed here: {allowed}")
    values = {}
    for name, annotation in annotations.items():
        default = default_of(cls, name, base)
        if name in given:
            values[name] = build(annotation, given[name], join(path, name), default)
        elif default is MISSING:
            raise error_at(
                node, join(path, name), f"this key is required; expected {spell(annotation)}"
            )
        else:
            values[name] = default
    try:
        return cls(**values)
    except ValueError as error:
        raise error_at(node, path, str(error)) from error


def _build_union(args: tuple[Annotation, ...], node: yaml.Node, path: str, base: object) -> object:
    if is_null(node) and type(None) in args:
        return None
    arms = [arg for arg in args if arg is not type(None)]
    if len(arms) == 1 and not isinstance(node, yaml.ScalarNode):
        return build(arms[0], node, path, base)  # Its error is about a part, so more precise.
    for arm in arms:
        try:
            return build(arm, node, path, base)
        except errors.ConfigError:
            continue
    raise mismatch(typing.Union[args], node, path)  # noqa: UP007 (made from a tuple)


def _build_choice(annotation: Annotation, node: yaml.Node, path: str) -> object:
    choices = _choices(annotation)
    for choice, value in choices.items():
        if isinstance(node, yaml.ScalarNode) and node.value == choice:
            return value
    hint = spelling.question(node.value, choices) if isinstance(node, yaml.ScalarNode) else ""
    raise error_at(node, path, f"expected {spell(annotation)}, not {_describe(node)}.{hint}")


def _choices(annotation: Annotation) -> dict[str, object]:
    """Return the values of a `Literal` or an enum, by how they are written."""
    origin, args = _parts(annotation)
    if origin is Literal:
        return {str(value): value for value in args}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {str(member.value): member for member in annotation}
    return {}


def _build_scalar(kind: type, node: yaml.Node, path: str) -> bool | int | float | str:
    # The tag can be explicit (`!!int x`), so the text is checked too.
    tag = node.tag.removeprefix(_TAG)
    fits = isinstance(node, yaml.ScalarNode) and (tag == "str" or _is_written_as(tag, node.value))
    if fits and kind is str and tag == "str":
        return str(node.value)
    if fits and kind is bool and tag == "bool":
        return bool(node.value == "true")
    if fits and kind is int and tag == "int":
        return int(node.value)
    if fits and kind is float and tag in ("int", "float"):
        return float(node.value.replace(".inf", "inf"))
    raise mismatch(kind, node, path)


def _is_written_as(kind: str, text: str) -> bool:
    return kind in _SCALARS and _SCALARS[kind].fullmatch(text) is not None


def _describe(node: yaml.Node) -> str:
    """Return in words what was given."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    kind = node.tag.removeprefix(_TAG)
    words = {"str": f"the string {node.value!r}", "null": "null"}
    return words.get(kind, node.value if kind in _SCALARS else f"a value tagged {node.tag}")
