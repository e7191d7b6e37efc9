"""The formats of `veldt export`: for each the writer of its text, which is imported when asked for.

A writer takes a program, `learning_rate` and `provenance`, and returns the text of one file, or of
several by their places in a folder.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias, cast

from veldt.tasks.common import errors, spelling
from veldt.tasks.common.disk import atomic_files

Writer: TypeAlias = Callable[..., str | Mapping[str, str]]

WRITERS: Final[Mapping[str, tuple[str, str]]] = {
    "optax": ("optax_module", "export_optax"),
    "torch": ("torch_module", "export_torch"),
    "latex": ("latex", "export_latex"),
    "optax-contrib": ("contrib", "export_contrib"),
}
"""Module and function of each format's writer."""

PACKAGE: Final = ("package", "export_package")
"""Writer of a package that `pip` installs."""


def writer(name: str) -> Writer:
    """Return the writer of a format.

    Raises:
      UnknownNameError: There is no such format.
    """
    if name not in WRITERS:
        raise errors.UnknownNameError(
            f"cannot export to {name!r}.{spelling.question(name, WRITERS)} Formats: "
            f"{', '.join(WRITERS)}"
        )
    return load(WRITERS[name])


def load(place: tuple[str, str]) -> Writer:
    """Return the writer in a module of this folder."""
    module, function = place
    return cast(Writer, getattr(importlib.import_module(f"veldt.search.export.{module}"), function))


def write(text: str | Mapping[str, str], place: Path) -> list[Path]:
    """Write what a writer returned, and return the files.

    Args:
      text: Text of one file, or texts of several by their places in a folder.
      place: File, or folder, which is new or empty; parent folders are made.

    Raises:
      FileError: A folder is not empty, or a file cannot be written.
    """
    if isinstance(text, str):
        files = {place: text}
    elif place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise errors.FileError(f"{str(place)!r} is not an empty folder: give a new one")
    else:
        files = {place / name: content for name, content in text.items()}
    for file, content in files.items():
        atomic_files.make_folder(file.parent)
        atomic_files.write_bytes(file, content.encode())
    return list(files)
