"""Tasks that a user gives as objects, where a config has names.

A config names its tasks, so that a run can be stored, read and resumed. A task that is given as an
object stands there as `object:NAME`, with the object's own name, and travels beside the config, to
all workers. A run keeps a fingerprint of each, and does not go on with another one.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self, final

from veldt.tasks import base, registry, task_fingerprint
from veldt.tasks.common import errors
from veldt.tasks.common.disk import run_directory


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TaskObjects:
    """Tasks by the names that a config has for them.

    Attributes:
      tasks: Tasks that were given as objects; all other names are those of `registry`.
    """

    tasks: Mapping[str, base.Task] = dataclasses.field(default_factory=dict)

    @classmethod
    def collect(cls, value: Any) -> tuple[Any, Self]:
        """Take the task objects out of a value.

        Args:
          value: Any nest of mappings, lists and tuples.

        Returns:
          The value with a name in the place of each task, and the tasks.

        Raises:
          TaskError: A task breaks the contract of `Task`, two have one name, or a class is given.
        """
        found: dict[str, base.Task] = {}

        def plain(value: Any) -> Any:
            match value:
                case base.Task():
                    return _add(found, value)
                case type() if issubclass(value, base.Task):
                    raise errors.TaskError(
                        f"{value.__name__} is a class of tasks: give an instance, "
                        f"{value.__name__}()"
                    )
                case Mapping():
                    return {key: plain(item) for key, item in value.items()}
                case tuple() if not hasattr(value, "_fields"):
                    return tuple(map(plain, value))
                case list():
                    return list(map(plain, value))
            return value

        return plain(value), cls(found)

    def load(self, name: str) -> base.Task:
        """Return the task of a name; errors as those of `registry.load_task`."""
        return self.tasks[name] if name in self.tasks else registry.load_task(name)

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each task that was given as an object, by its name."""
        return {name: task_fingerprint.fingerprint(task) for name, task in self.tasks.items()}

    def check_stored(self, run_dir: Path) -> None:
        """Check that the run in a directory, if there is one, was begun with these tasks.

        Raises:
          FileError: A task of the same name was another one.
        """
        record = run_directory.read_record(run_dir)
        stored = {} if record is None else record.task_objects or {}
        for name, now in self.fingerprints().items() if stored else ():
            if name in stored and not task_fingerprint.matches(stored[name], now):
                own = name.removeprefix(registry.OBJECT)
                raise errors.FileError(
                    f"{run_dir} holds a run on another task {own!r}: "
                    "its data, model or loss differ from those of the object given now. Resume "
                    "with the same task, or choose another run directory"
                )

    def check_sendable(self) -> None:
        """Check that other processes can be given the tasks.

        Raises:
          TaskError: One of them cannot be pickled.
        """
        from ray import cloudpickle

        for name, task in self.tasks.items():
            try:
                cloudpickle.dumps(task)
            except Exception as error:
                raise errors.TaskError(
                    f"task {name.removeprefix(registry.OBJECT)!r} cannot be sent to Ray's workers, "
                    f"since it cannot be pickled ({type(error).__name__}: {error}): give it as "
                    '"module:factory", which each worker imports, or take threads of this process, '
                    'pool={"backend": "inline"}'
                ) from error


NONE: Final = TaskObjects()
"""No objects: all tasks are named."""


def _add(found: dict[str, base.Task], task: base.Task) -> str:
    """Add a task, and return its name in configs."""
    base.check_task(task)
    name = registry.OBJECT + (re.sub(r"[^\w.+-]+", "_", task.name) or "task")
    if found.setdefault(name, task) is not task:
        raise errors.TaskError(
            f"two tasks are named {task.name!r}; give each a name of its own (`name`)"
        )
    return name
