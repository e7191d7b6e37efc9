"""The directory that a run of this room is kept in: taken by one process, holding one config."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from veldt.meta import checkpoint, errors
from veldt.tasks.common.disk import atomic_files, lock

CONFIG_FILE: Final = "config.yaml"


def take(
    run_dir: Path,
    now: Mapping[str, Any],
    stack: contextlib.ExitStack,
    *,
    resume: bool,
    check_same: Callable[[Mapping[str, Any]], None],
) -> None:
    """Make or open a run directory, lock it until `stack` closes, and write the run's config.

    Args:
      run_dir: The directory.
      now: The config as JSON has it.
      stack: Holds the lock.
      resume: Whether a run may be there.
      check_same: Is given the config of a run that is there; raises if it is another run.

    Raises:
      MetaTrainError: It cannot be made, or holds a run and `resume` is False.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.MetaTrainError(
            f"the run directory {run_dir} cannot be made: {error.strerror}"
        ) from None
    stack.enter_context(lock.DirectoryLock(run_dir))
    path = run_dir / CONFIG_FILE
    if (run_dir / checkpoint.FOLDER).exists():
        if not resume:
            raise errors.MetaTrainError(
                f"{run_dir} already holds a run: continue it with --resume, or choose another "
                "--run-dir"
            )
        check_same(read_config(path))
    atomic_files.write_bytes(path, yaml.safe_dump(dict(now), sort_keys=False).encode())


def read_config(path: Path) -> Mapping[str, Any]:
    """Return the config that a run directory holds, as YAML has it.

    Raises:
      MetaTrainError: It cannot be read, or is none.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise errors.MetaTrainError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise errors.MetaTrainError(f"{path} is no config of a run")
    return found


def differs(
    run_dir: Path, key: str, before: Any, now: Any, remark: str = ""
) -> errors.MetaTrainError:
    """Return the error that says that a directory holds another run."""
    return errors.MetaTrainError(
        f"{run_dir} holds a run with {key} = {json.dumps(before)}, not {json.dumps(now)}{remark}. "
        f"Choose another --run-dir, or resume with {run_dir / CONFIG_FILE}"
    )
