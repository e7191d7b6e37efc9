"""The origin of an error: file and line in the user's code, where it is not veldt's own.

A task, an optimizer or an objective of the user's may raise anywhere: traced by JAX deep inside a
training loop, or called back from compiled code, where only a text is left. The user needs
the place in their file; a traceback through veldt and JAX hides it.
"""

import re
import sysconfig
import traceback
from pathlib import Path
from typing import Final

_VELDT: Final = Path(__file__).resolve().parents[3]
_PACKAGES: Final = ("veldt", "tasks", "learned_opt", "meta", "search")
_FRAME: Final = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


def describe(error: BaseException) -> str | None:
    """Return one line with the error and its place; None if no frame is of a user's file."""
    line = _from_text(error)
    if line is not None:
        return line
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if is_theirs(frame.filename)]
    if not theirs:
        return None
    last = theirs[-1]
    what = f"{type(error).__name__}: {error}".split("\n", 1)[0].rstrip(": ")
    return f"{what} ({last.filename}, line {last.lineno}, in {last.name})"


def _from_text(error: BaseException) -> str | None:
    """Return that line for an error whose text holds a traceback, as those of JAX's callbacks."""
    text = str(error)
    theirs = [frame for frame in _FRAME.findall(text) if is_theirs(frame[0])]
    if "Traceback" not in text or not theirs:
        return None
    path, line, function = theirs[-1]
    # The error itself is the line without indentation, after the frames.
    said = [each for each in text[text.rindex(f'"{path}"') :].split("\n") if each[:1].strip()]
    what = said[1] if len(said) > 1 else type(error).__name__
    return f"{what} ({path}, line {line}, in {function})"


def is_theirs(filename: str) -> bool:
    """Return whether a source file is the user's: not veldt's, Python's or a package's."""
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    ours = [_VELDT / package for package in _PACKAGES]
    ours += [Path(place).resolve() for place in sysconfig.get_paths().values()]
    return not any(folder in path.parents for folder in ours)
