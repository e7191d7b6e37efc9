"""The fields of a config for people: the text of `--help`, drawn from the dataclasses."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, final

import yaml

from veldt.tasks.common.config import codec


@final
@dataclasses.dataclass(frozen=True)
class FieldInfo:
    """One field of a config.

    Attributes:
      option: Option that overrides the field (`--pool.num-workers`), or key in an item of a list.
      kind: Accepted values, in words.
      default: Default as YAML on one line, "required", or empty if the keys have defaults.
      description: Description from the dataclass's docstring, under `Attributes:`.
      keys: Keys of each item of a list or a mapping of mappings, or of a mapping inside one.
    """

    option: str
    kind: str
    default: str
    description: str
    keys: tuple["FieldInfo", ...] = ()


def list_fields(cls: type, prefix: str = "--", base: object = None) -> tuple[FieldInfo, ...]:
    """Return all fields of a config, those of nested dataclasses in place of the nest.

    Args:
      cls: Dataclass of the config.
      prefix: Start of each option.
      base: Config whose values are the defaults; None for the defaults of the class.
    """
    rows: list[FieldInfo] = []
    for name, annotation in codec.hints(cls).items():
        option = prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(annotation):
            inner = codec.default_of(cls, name, base)
            rows += list_fields(typing.cast(type, annotation), option + ".", inner)
        else:
            rows.append(_field(cls, name, annotation, option, base))
    return tuple(rows)


def list_keys(cls: type) -> tuple[FieldInfo, ...]:
    """Return the keys of a mapping for a dataclass, as a YAML file has them."""
    return tuple(_field(cls, name, kind, name) for name, kind in codec.hints(cls).items())


def describe(rows: typing.Iterable[FieldInfo], indent: int = 2) -> list[str]:
    """Return the lines of `--help`; keys that were shown before are not shown again."""
    return _lines(rows, " " * indent, {})


def _lines(
    rows: typing.Iterable[FieldInfo], indent: str, shown: dict[tuple[FieldInfo, ...], str]
) -> list[str]:
    lines = []
    for row in rows:
        default = f"; {row.default}" if row.default else ""
        lines.append(f"{indent}{row.option} ({row.kind}{default})")
        if row.description:
            lines.append(f"{indent}    {row.description}")
        keys = "keys of each" if "(each" in row.kind else "keys"
        if row.keys in shown:
            lines.append(f"{indent}    {keys}: those of {shown[row.keys]}")
        elif row.keys:
            shown[row.keys] = row.option
            lines += [f"{indent}    {keys}:", *_lines(row.keys, indent + "      ", shown)]
    return lines


def _field(cls: type, name: str, annotation: Any, option: str, base: object = None) -> FieldInfo:
    inner = _inner(annotation)
    default = codec.default_of(cls, name, base)
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        text = ""
    else:
        text = "required" if default is codec.MISSING else one_line(default)
    keys = () if inner is None else list_keys(inner)
    description = _attributes(cls).get(name, "")
    return FieldInfo(option, codec.spell(annotation), text, description, keys)


def _inner(annotation: Any) -> type | None:
    """Return the dataclass that is annotated, or that of the items of a list or mapping."""
    if dataclasses.is_dataclass(annotation):
        return typing.cast(type, annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple or origin in (typing.Union, types.UnionType):
        found = [inner for arg in args if (inner := _inner(arg)) is not None]
        return found[0] if found else None
    if origin in (dict, Mapping):
        return _inner(args[1])
    return None


def _attributes(cls: type) -> Mapping[str, str]:
    """Return the `Attributes:` of a Google-style docstring, each joined to one line."""
    _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    indent = re.match(r" *", section)
    entry = re.compile(rf"{indent[0] if indent else ''}(\w+): (.*)")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if match := entry.match(line):
            name = match[1]
            found[name] = match[2].strip()
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def one_line(value: object) -> str:
    """Return a config's value as YAML on one line."""
    text = yaml.safe_dump(yaml.safe_load(codec.dump(value)), default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()
