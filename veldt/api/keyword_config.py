"""Configs from keyword arguments: what a command takes as YAML and options, from Python.

A call names a config, or takes the stored one of the run that it continues, and gives fields in its
place, in Python's own values. Tasks may be objects.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, final

import numpy as np

from veldt import config as config_lib
from veldt.meta.train.config import CheckConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.program import Program
from veldt.tasks import base
from veldt.tasks.common import errors, spelling
from veldt.tasks.common.config import codec, older_config
from veldt.tasks.common.disk import run_directory
from veldt.tasks.task_objects import TaskObjects

ConfigT = TypeVar("ConfigT")
AnyTask: TypeAlias = (
    str | base.Task | tuple[str | base.Task, int] | ProxyConfig | CheckConfig | Mapping[str, Any]
)
"""A task's name, "module:factory", a task object, either with a number of steps, or the config that
names a task."""


@final
@dataclasses.dataclass(frozen=True)
class Call:
    """A function of `veldt` that runs an engine.

    Attributes:
      name: Name of the function.
      kind: Kind of the run.
      config_class: Dataclass of the config.
      arguments: Names of the function's own arguments, for messages.
      task_lists: Fields that are lists of tasks.
    """

    name: str
    kind: run_directory.Kind
    config_class: type
    arguments: tuple[str, ...]
    task_lists: tuple[str, ...]

    def config(
        self,
        source: str | Path | Mapping[str, Any] | object,
        fields: Mapping[str, Any],
        num_steps: int,
    ) -> tuple[Any, TaskObjects]:
        """Return a config, and the tasks in it that were given as objects.

        Args:
          source: Name or path of a config, a config, or its plain values.
          fields: Keyword arguments that are fields, nested ones as mappings or with dots.
          num_steps: Number of steps of a task that is given without one.

        Raises:
          ConfigError: A keyword is unknown or a value cannot be used; the message names it.
          TaskError: A task object cannot be used.
        """
        known = codec.hints(self.config_class)
        for name in fields:
            if name.partition(".")[0] not in known:
                hint = spelling.question(name, (*self.arguments, *known))
                raise errors.ConfigError(
                    f"{self.name}(): unknown keyword {name!r}.{hint} Own keywords: "
                    f"{', '.join(self.arguments)}; fields: {', '.join(known)}"
                )
        given = {
            name: as_tasks(value, num_steps) if name in self.task_lists else value
            for name, value in fields.items()
        }
        named, objects = TaskObjects.collect(given)
        plain = {name: self._plain(value, name) for name, value in named.items()}
        return config_lib.load_with(self.config_class, source, plain, f"{self.name}()"), objects

    def stored(self, run_dir: Path) -> Mapping[str, Any] | None:
        """Return the config of the run in a directory; None if no run of this kind is there."""
        if run_directory.kind_of(run_dir) != self.kind:
            return None
        return older_config.fill(self.config_class, run_directory.read_config(run_dir))

    def _plain(self, value: Any, name: str) -> Any:
        """Return a keyword's value as JSON has it."""
        match value:
            case None | bool() | int() | float() | str():
                return value
            case np.generic():
                return value.item()
            case np.ndarray():
                return value.tolist()
            case Path():
                return str(value)
            case Mapping():
                return {str(key): self._plain(item, f"{name}.{key}") for key, item in value.items()}
            case list() | tuple():
                return [self._plain(item, f"{name}.{i}") for i, item in enumerate(value)]
        if dataclasses.is_dataclass(value) and not isinstance(value, type | Program):
            return codec.to_plain(value)
        raise errors.ConfigError(
            f"{self.name}(): {name}: a config holds plain values, so that the run can be stored, "
            f"and this is {_kind(value)}"
        )


def as_tasks(given: Any, num_steps: int) -> Sequence[Any]:
    """Return tasks as the fields of the config that names each.

    Args:
      given: One task or several.
      num_steps: Number of steps of a task that is given without one.
    """
    several = isinstance(given, Iterable) and not (
        isinstance(given, str | Mapping | base.Task) or _is_pair(given)
    )
    return [_task_fields(one, num_steps) for one in (given if several else [given])]


def _task_fields(given: Any, num_steps: int) -> Any:
    if isinstance(given, Mapping):
        return {"num_steps": num_steps, **given}
    if _is_pair(given):
        return {"task": given[0], "num_steps": given[1]}
    if dataclasses.is_dataclass(given) and not isinstance(given, type | base.Task):
        return codec.to_plain(given)
    return {"task": given, "num_steps": num_steps}


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], int)


def _kind(value: Any) -> str:
    if isinstance(value, Program):
        return "a Program: write str(program) to a .py file, and give the file"
    if callable(value) and hasattr(value, "__qualname__"):
        return f'the function {value.__qualname__}: name it "module:function"'
    return f"a {type(value).__name__}"
