"""Data sets as splits of examples: the embedded ones, and Fashion-MNIST if it is on disk.

A loader is a pure function of its files, returns NumPy arrays and reads them once per process.
Nothing is read at import and nothing is downloaded. Rows are shuffled once with a fixed seed and
cut into train, validation and test parts that share no row.
"""

import functools
import gzip
import importlib.resources
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from veldt.tasks.common import errors, types

Array: TypeAlias = jax.Array | np.ndarray

DATA_VARIABLE = "VELDT_DATA"
"""Environment variable that names the folder of the user's data sets."""

_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Of package dataset-fashion-mnist.


class Examples(NamedTuple):
    """N examples, or a batch of them.

    Attributes:
      inputs: Inputs of the model, [N, ...].
      targets: Desired outputs: class numbers, int32 [N] or [N, T], or values, float [N, ...].
    """

    inputs: Array
    targets: Array


Splits: TypeAlias = Mapping[types.Split, Examples]
"""The three parts of a data set, by name."""


def shuffled(num_rows: int, *, seed: int = 0) -> np.ndarray:
    """Return a fixed permutation of `num_rows` row numbers, int64 [num_rows]."""
    # RandomState's streams are frozen for good; Generator's may change with NumPy (NEP 19).
    return np.random.RandomState(seed).permutation(num_rows)


def split_rows(examples: Examples, *, seed: int = 0) -> Splits:
    """Shuffle the rows and cut them into 60% train, 20% validation and 20% test."""
    num_rows = len(examples.inputs)
    num_held_out = round(0.2 * num_rows)
    test, valid, train = np.split(shuffled(num_rows, seed=seed), [num_held_out, 2 * num_held_out])
    return {
        "train": take(examples, train),
        "valid": take(examples, valid),
        "test": take(examples, test),
    }


def _standardized(splits: Splits) -> Splits:
    """Shift and scale features to mean 0 and standard deviation 1 on the training part."""
    mean = splits["train"].inputs.mean(axis=0)
    scale = splits["train"].inputs.std(axis=0)
    return {
        split: part._replace(inputs=(part.inputs - mean) / scale) for split, part in splits.items()
    }


def take(examples: Examples, rows: np.ndarray) -> Examples:
    """Return the rows with the given numbers."""
    return Examples(examples.inputs[rows], examples.targets[rows])


@functools.cache
def load_digits() -> Splits:
    """Load the 1,797 real 8x8 digits: inputs float32 [N, 64] in 0..1, targets int32 [N] in 0..9."""
    pixels, labels = _read_embedded("digits.npz")
    return split_rows(Examples(pixels.astype(np.float32) / 16, labels.astype(np.int32)))


@functools.cache
def load_breast_cancer() -> Splits:
    """Load the Wisconsin tumours: inputs float32 [N, 30], targets int32 [N], 1 is benign.

    Features have mean 0 and standard deviation 1 on the training part.
    """
    features, labels = _read_embedded("breast_cancer.npz")
    return _standardized(split_rows(Examples(features, labels.astype(np.int32))))


@functools.cache
def load_letters() -> Splits:
    """Load 20,000 letters in many fonts: inputs float32 [N, 16], targets int32 [N], A is 0.

    The inputs are moments and edge counts of the letters' images; on the training part they have
    mean 0 and standard deviation 1. Some rows occur several times, since their measurements are
    whole numbers 0..15; the copies are left out, so that no row is in two parts.
    """
    features, labels = _read_embedded("letters.npz")
    rows = np.unique(np.column_stack([features, labels]), axis=0)
    inputs, targets = rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int32)
    return _standardized(split_rows(Examples(inputs, targets)))


TABLES: Mapping[str, int | None] = {"iris": 3, "wine": 3, "diabetes": None}
"""The small tables that no suite has, with the number of classes; None for a value to predict."""


@functools.cache
def load_table(name: str) -> Splits:
    """Load one of `TABLES`: inputs float32 [N, F], targets int32 [N] or float32 [N, 1].

    Features, and values to predict, have mean 0 and standard deviation 1 on the training part. A
    row that occurs twice is taken once, so that no row is in two parts.
    """
    features, targets = _read_embedded(f"{name}.npz")
    rows = np.unique(np.column_stack([features, targets.astype(np.float32)]), axis=0)
    inputs, targets = rows[:, :-1], rows[:, -1]
    if TABLES[name] is not None:
        return _standardized(split_rows(Examples(inputs, targets.astype(np.int32))))
    splits = _standardized(split_rows(Examples(inputs, targets[:, None])))
    mean, scale = splits["train"].targets.mean(), splits["train"].targets.std()
    return {
        split: part._replace(targets=(part.targets - mean) / scale)
        for split, part in splits.items()
    }


def load_fashion_mnist() -> Splits:
    """Load Fashion-MNIST: inputs uint8 [N, 28, 28], targets int32 [N] in 0..9.

    The published test part is the test part; a sixth of the training part is for validation.

    Raises:
      MissingDataError: The files are in none of the folders searched.
      TaskError: A file is damaged.
    """
    user_folder = os.environ.get(DATA_VARIABLE)
    folders = [_DEBIAN_FASHION]
    if user_folder:
        folders = [Path(user_folder), Path(user_folder) / "fashion-mnist", *folders]
    for folder in folders:
        if _find_idx(folder, "train-images-idx3-ubyte") is not None:
            return _read_fashion_mnist(folder.resolve())
    raise errors.MissingDataError.of(
        "Fashion-MNIST",
        folders,
        "On Debian or Ubuntu: apt-get install dataset-fashion-mnist. Elsewhere: put its four idx "
        f"files (plain or .gz) into a folder and set {DATA_VARIABLE} to that folder.",
    )


@functools.cache
def _read_fashion_mnist(folder: Path) -> Splits:
    def read(part: str) -> Examples:
        images = _read_idx(folder, f"{part}-images-idx3-ubyte")
        labels = _read_idx(folder, f"{part}-labels-idx1-ubyte")
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise errors.TaskError(
                f"Fashion-MNIST in {folder}: the {part} part has images {list(images.shape)} "
                f"but labels {list(labels.shape)}."
            )
        return Examples(images, labels.astype(np.int32))

    published = read("train")
    num_rows = len(published.inputs)
    valid, train = np.split(shuffled(num_rows), [num_rows // 6])
    return {"train": take(published, train), "valid": take(published, valid), "test": read("t10k")}


def _read_embedded(file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs and targets of a file in tasks/data."""
    path = importlib.resources.files(__package__) / file
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return arrays["inputs"], arrays["targets"]


def _find_idx(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _read_idx(folder: Path, name: str) -> np.ndarray:
    """Read an idx file of bytes: magic 0 0 8 ndim, big-endian sizes, then the values."""
    path = _find_idx(folder, name)
    if path is None:
        raise errors.MissingDataError.of(
            f"Fashion-MNIST (file {name})",
            [folder],
            "The other files are there: copy this one too.",
        )
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise errors.TaskError(f"{path} cannot be read: {error}") from error
    num_dims = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * num_dims
    if content[:3] != b"\x00\x00\x08" or len(content) < start:
        raise errors.TaskError(f"{path} is no idx file of bytes (it begins {content[:4]!r}).")
    shape = np.frombuffer(content, ">i4", count=num_dims, offset=4)
    if len(content) - start != math.prod(shape.tolist()):
        raise errors.TaskError(
            f"{path} is damaged: its header says {shape.tolist()}, "
            f"it holds {len(content) - start} bytes."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
