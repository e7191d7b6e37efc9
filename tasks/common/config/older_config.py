"""The config of a run that an older version began, with the fields that it could not have.

A new field comes with the default that keeps everything as it was. So what a stored config lacks is
its default, and only then is it compared with the config that a run is resumed with.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from veldt.tasks.common import older_names


def fill(config_class: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config with defaults for what it lacks, in nested configs too.

    Args:
      config_class: The dataclass that it is one of.
      stored: Plain values, as JSON or YAML has them.
    """
    hints = typing.get_type_hints(config_class)
    found = dict(stored)
    for field in dataclasses.fields(config_class):
        if field.name in found:
            found[field.name] = _filled(hints[field.name], found[field.name])
        elif field.default is not dataclasses.MISSING:
            found[field.name] = _plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = _plain(field.default_factory())
    return found


def _filled(hint: Any, value: Any) -> Any:
    """Fill what a value of this type holds; modules get their present names."""
    if isinstance(value, str):
        return older_names.present(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return fill(hint, value) if isinstance(value, Mapping) else value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        configs = [arg for arg in args if isinstance(arg, type) and dataclasses.is_dataclass(arg)]
        return _filled(configs[0], value) if len(configs) == 1 else value
    if isinstance(value, Mapping) and len(args) == 2:
        return {key: _filled(args[1], item) for key, item in value.items()}
    if isinstance(value, Sequence) and args:
        return [_filled(args[0], item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """A default as JSON has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
