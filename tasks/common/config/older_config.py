"""The config of an older version's run, with defaults for the fields that it lacks.

A new field has a default that keeps everything as it was. So a field that a stored config lacks has
its default, and only then is the config compared with the one that a run is resumed with.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final

from veldt.tasks.common.config import codec
from veldt.tasks.common.user_code import older_names

# Fields that a class had in a version between two releases, and that changed no result.
_GONE: Final[Mapping[str, frozenset[str]]] = {"PoolConfig": frozenset({"proposers"})}


def fill(config_class: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config with defaults for the fields that it lacks, in nested configs too.

    Modules that have moved have their present names, and fields that are gone are left out.

    Args:
      config_class: Dataclass of the config.
      stored: Plain values, as JSON or YAML has them.
    """
    hints = codec.hints(config_class)
    gone = _GONE.get(config_class.__name__, ())
    found = {
        key: _filled(hints.get(key), value) for key, value in stored.items() if key not in gone
    }
    for name in hints:
        default = codec.default_of(config_class, name, None)
        if name not in found and default is not codec.MISSING:
            found[name] = codec.to_plain(default)
    return found


def _filled(hint: Any, value: Any) -> Any:
    """Return a value of this type with all fields."""
    if isinstance(value, str):
        return older_names.present(value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        configs = [arg for arg in args if dataclasses.is_dataclass(arg)]
        hint = configs[0] if len(configs) == 1 else None
        origin, args = typing.get_origin(hint), ()
    if isinstance(value, Mapping):
        if dataclasses.is_dataclass(hint):
            return fill(typing.cast(type, hint), value)
        inner = args[1] if len(args) == 2 else None
        return {key: _filled(inner, item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_filled(args[0] if args else None, item) for item in value]
    return value
