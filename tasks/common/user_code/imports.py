"""Import of a user's object, named as "module:name", from here or from installed packages."""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from veldt.tasks.common import errors, spelling
from veldt.tasks.common.user_code import older_names

_END_PROCESS: Final = os._exit


def load_object(kind: str, name: str) -> Callable[..., Any]:
    """Import "module:name" and return the function or class of that name.

    Args:
      kind: Kind of object, for messages: "task".
      name: Module as in an import statement, colon, name.

    Raises:
      UnknownNameError: There is no such module, or no such name in it.
      TaskError: The import fails, or the object cannot be called.
    """
    module_name, _, object_name = older_names.present(name).partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), object_name]):
        raise errors.UnknownNameError(
            f'{kind} {name!r}: write "module:factory", the module as in an import statement '
            "(no slashes, no .py) and the factory's name."
        )
    with current_directory_importable():
        _forbid_second_copy(kind, name, module_name)
        try:
            with no_exit():
                module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # A missing module that the user's module imports is a failure of that module.
            missing = f"{module_name}.".startswith(f"{error.name}.")
            raise (errors.UnknownNameError if missing else errors.TaskError)(
                f"{kind} {name!r}: {error}{_near(module_name) if missing else ''}; looked in the "
                f"current directory {Path.cwd()} and the installed packages."
            ) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise errors.TaskError(
                f"{kind} {name!r}: importing {module_name} failed: {type(error).__name__}: {error}"
            ) from error
    found = getattr(module, object_name, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if callable(value)]
        raise errors.UnknownNameError(
            f"{kind} {name!r}: {module_name} has no function or class {object_name!r}"
            f"{spelling.did_you_mean(object_name, functions)}."
        )
    return found


def call(kind: str, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the result of a user's function; any exception becomes an error that names it.

    Args:
      kind: Kind of object, for messages: "task".
      name: Name that the user gave.
      function: Function of the user.
      *args: Positional arguments.
      **kwargs: Keyword arguments.

    Raises:
      TaskError: The function raised, or tried to end the process.
    """
    try:
        with no_exit(), current_directory_importable():
            return function(*args, **kwargs)
    except (errors.TaskError, KeyboardInterrupt):
        raise
    except BaseException as error:
        called = getattr(function, "__name__", repr(function))
        raise errors.TaskError(
            f"{kind} {name!r}: {called}() failed: {type(error).__name__}: {error}"
        ) from error


@contextlib.contextmanager
def no_exit() -> Iterator[None]:
    """Make `os._exit` raise `SystemExit` in a user's code, as `sys.exit` does, during the block.

    Otherwise the process would end without a message. veldt's own `os._exit` is taken before.
    """
    here = os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != here:  # A forked child process has to end this way.
            _END_PROCESS(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = _END_PROCESS


@contextlib.contextmanager
def current_directory_importable() -> Iterator[None]:
    """Put the current directory first on the import path, as `python -m` does, for a while."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        yield
    finally:
        sys.path.remove(here)


def _near(module_name: str) -> str:
    """Return a hint of a module in the current directory with nearly this name."""
    folder = Path.cwd().joinpath(*module_name.split(".")[:-1])
    prefix = module_name.rpartition(".")[0]
    found = {path.stem for path in folder.glob("*.py")} if folder.is_dir() else set()
    known = [f"{prefix}.{stem}" if prefix else stem for stem in sorted(found - {"__init__"})]
    return spelling.did_you_mean(module_name, known)


def _forbid_second_copy(kind: str, name: str, module_name: str) -> None:
    """Raise an error for `tasks.x:y` from veldt's checkout: it would copy every class."""
    top = module_name.partition(".")[0]
    if top == "veldt" or top in sys.modules:
        return
    spec = importlib.util.find_spec(top)
    veldt_root = Path(__file__).resolve().parents[3]
    is_room = (veldt_root / "veldt" / top).exists()  # What else is in a checkout may be named.
    if is_room and spec and spec.origin and Path(spec.origin).resolve().parent.parent == veldt_root:
        raise errors.TaskError(f"{kind} {name!r} lies inside veldt: write 'veldt.{name}'.")
