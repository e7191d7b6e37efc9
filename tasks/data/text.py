"""Texts cut into windows of symbols: the embedded one, Python's own, a file of the user's.

The first 80% of a text's bytes are for training, then 10% for validation and 10% for test. The
vocabulary is the bytes of the training part and one symbol for all others.
"""

import ast
import dataclasses
import functools
import gzip
import importlib.resources
import os
import sysconfig
from pathlib import Path
from typing import final

import numpy as np

from veldt.tasks.common import errors
from veldt.tasks.data import dataset

# Shapes: N windows, T symbols in a window, V vocabulary.

TEXT_VARIABLE = "VELDT_TEXT"
"""Environment variable that names the text file of the language tasks."""

# In every Python from 3.11 to 3.14, as one file each; 0.7 MB together.
STANDARD_LIBRARY_MODULES = (
    "argparse",
    "calendar",
    "configparser",
    "dataclasses",
    "difflib",
    "fractions",
    "inspect",
    "ipaddress",
    "random",
    "shutil",
    "statistics",
    "subprocess",
    "tarfile",
    "typing",
)

# As above, and none of those: what families of tasks read, so that tasks on the others are new.
FAMILY_MODULES = (
    "codecs",
    "enum",
    "ftplib",
    "imaplib",
    "locale",
    "mailbox",
    "optparse",
    "pickletools",
    "platform",
    "plistlib",
    "smtplib",
    "threading",
    "traceback",
    "uuid",
)
_MANUAL = Path("pydoc_data", "topics.py")

_OWN_CURE = f"Set {TEXT_VARIABLE} to any text or code file of 100 kB or more."
_PYTHON_CURE = "Install all of Python's standard library, or name other sources in tasks.texts."
_MIN_WINDOWS = 16  # In the smallest part; fewer give no useful measurement.


@final
@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text cut into windows of symbols.

    Attributes:
      splits: Inputs uint8 [N, T] and targets uint8 [N, T], each target the symbol that follows.
      num_symbols: Number of symbols V: those that occur in training and one for the rest.
    """

    splits: dataset.Splits
    num_symbols: int


@functools.cache
def load_jargon(window: int) -> Corpus:
    """Load the embedded text, 400 kB of English prose (the Jargon File), the same everywhere."""
    path = importlib.resources.files(__package__) / "jargon.txt.gz"
    return _cut(gzip.decompress(path.read_bytes()), window, "jargon.txt.gz")


def load_own(window: int, text_file: Path | None = None) -> Corpus:
    """Load the text that the argument or `VELDT_TEXT` names; by default, Python's own source.

    That is a fixed list of modules of the running Python's standard library, whose text differs a
    little between Python versions: compare losses within one version.

    Raises:
      MissingDataError: The file, or Python's own source, is not there.
      TaskError: The text is too short.
    """
    user_file = os.environ.get(TEXT_VARIABLE)
    if text_file is None and user_file:
        text_file = Path(user_file)
    if text_file is not None:
        return _read((text_file.resolve(),), window, _OWN_CURE)
    return _read(_modules(STANDARD_LIBRARY_MODULES), window, _OWN_CURE)


def load_code(window: int) -> Corpus:
    """Load other modules of the running Python's standard library than `load_own` does.

    Raises:
      MissingDataError: Python's own source is not there.
    """
    return _read(_modules(FAMILY_MODULES), window, _PYTHON_CURE)


@functools.cache
def load_manual(window: int) -> Corpus:
    """Load the running Python's manual, the text behind `help("topics")`: 0.6 MB of English prose.

    Raises:
      MissingDataError: The manual is not there.
    """
    path = Path(sysconfig.get_path("stdlib")) / _MANUAL
    try:
        (topics,) = (
            node.value for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.Assign)
        )
        texts = ast.literal_eval(topics)  # Data, which is not run.
    except (OSError, ValueError, SyntaxError) as error:
        what = f"Python's manual ({error})"
        raise errors.MissingDataError.of(what, (path,), _PYTHON_CURE) from error
    content = "\n".join(texts[topic] for topic in sorted(texts))
    return _cut(content.encode(), window, str(path))


def _modules(names: tuple[str, ...]) -> tuple[Path, ...]:
    folder = Path(sysconfig.get_path("stdlib"))
    return tuple(folder / f"{name}.py" for name in names)


@functools.cache
def _read(files: tuple[Path, ...], window: int, cure: str) -> Corpus:
    try:
        content = b"".join(file.read_bytes() for file in files)
    except OSError as error:
        raise errors.MissingDataError.of(f"text ({error})", files[:1], cure) from error
    return _cut(content, window, str(files[0]))


def _cut(content: bytes, window: int, source: str) -> Corpus:
    """Split a text's bytes, number them, and cut each part into windows."""
    text = np.frombuffer(content, np.uint8)
    train, valid, test = np.split(text, [len(text) * 8 // 10, len(text) * 9 // 10])
    if len(test) <= _MIN_WINDOWS * window:
        raise errors.TaskError(
            f"the text {source} has {len(text)} bytes; a language task needs at least "
            f"{10 * (_MIN_WINDOWS * window + 1)}."
        )
    known = np.unique(train)
    symbol_of = np.full(256, len(known), np.uint8)  # The last symbol stands for all other bytes.
    symbol_of[known] = np.arange(len(known))
    splits: dataset.Splits = {
        "train": _windows(symbol_of[train], window),
        "valid": _windows(symbol_of[valid], window),
        "test": _windows(symbol_of[test], window),
    }
    return Corpus(splits, num_symbols=len(known) + 1)


def _windows(symbols: np.ndarray, window: int) -> dataset.Examples:
    """Cut symbols into windows of T with the T that follow one later, in a fixed random order."""
    num_windows = (len(symbols) - 1) // window
    num_used = num_windows * window
    rows = dataset.shuffled(num_windows)
    return dataset.Examples(
        symbols[:num_used].reshape(num_windows, window)[rows],
        symbols[1 : num_used + 1].reshape(num_windows, window)[rows],
    )
