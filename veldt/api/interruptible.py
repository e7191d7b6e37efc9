"""A run from Python: where it is kept, what it shows, and how it is interrupted.

Ctrl-C, or a notebook's stop button, raises `KeyboardInterrupt` out of the call, as from any other
Python code; what was reported by then is stored. A run without a directory has a temporary one,
which lives as long as its result, and stays where the run was interrupted.
"""

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from veldt.tasks.common import stopping
from veldt.tasks.common.progress import choose
from veldt.tasks.common.progress.display import Display, Silent

ResultT = TypeVar("ResultT")


def run(
    name: str,
    run_dir: str | Path | None,
    work: Callable[[Path, Display], ResultT],
    *,
    progress: bool,
) -> ResultT:
    """Do a run's work in its directory, and return its result.

    Args:
      name: Name of the function that was called, for the note after an interrupt.
      run_dir: Directory of the run; None for a temporary one.
      work: Function of the directory and a display.
      progress: Whether the progress is shown.

    Raises:
      KeyboardInterrupt: The run was interrupted.
    """
    path = Path(tempfile.mkdtemp(prefix="veldt_")) if run_dir is None else Path(run_dir)
    display = choose.make_display() if progress else Silent()
    try:
        result = work(path, display)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # The terminal may be gone.
            display.note(
                f"interrupted; what was reported is stored. veldt.load_run({str(path)!r}) reads "
                f"it, and veldt.{name}(..., run_dir={str(path)!r}, resume=True) goes on"
            )
        raise
    except BaseException:
        if run_dir is None:
            shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        with stopping.hold(firmly=True):
            display.close()
    if run_dir is None:
        weakref.finalize(result, shutil.rmtree, path, ignore_errors=True)
    return result
