"""Two small colour photographs, and square windows cut from disjoint parts of them."""

import functools
import importlib.resources
from collections.abc import Mapping

import numpy as np

from veldt.tasks.common import types
from veldt.tasks.data import dataset

# Shapes: H rows of pixels, X columns of pixels, N windows, S side of a window; 3 colours.

STRIPES: Mapping[types.Split, tuple[tuple[int, int], ...]] = {
    "train": ((0, 32), (50, 80), (98, 128), (146, 176), (194, 213)),
    "valid": ((32, 50), (176, 194)),
    "test": ((80, 98), (128, 146)),
}
"""First column of each vertical stripe of a photograph, and the column after its last."""

_MIN_RANGE = 48  # Grey levels from the darkest value to the brightest; clear sky has fewer.


@functools.cache
def load_photos() -> dict[str, np.ndarray]:
    """Load the embedded photographs: by name, uint8 [H, X, 3], 142 rows of 213 pixels."""
    path = importlib.resources.files(__package__) / "photos.npz"
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in sorted(arrays.files)}


@functools.cache
def load_windows(side: int) -> dict[types.Split, np.ndarray]:
    """Cut windows uint8 [N, S, S, 3] at random places: 4,096 for training, 1,024 for each other.

    A split's windows lie within its `STRIPES` of both photographs. They overlap one another; none
    is nearly one colour. The order is random and fixed.
    """
    sizes: dict[types.Split, int] = {"train": 4096, "valid": 1024, "test": 1024}
    return {split: _windows(side, STRIPES[split], size) for split, size in sizes.items()}


def _windows(side: int, stripes: tuple[tuple[int, int], ...], size: int) -> np.ndarray:
    """Return the first `size` of all windows in the stripes, in a fixed random order."""
    found = []
    for photo in load_photos().values():
        for first, end in stripes:
            cuts = np.lib.stride_tricks.sliding_window_view(
                photo[:, first:end], (side, side), axis=(0, 1)
            )
            found.append(np.moveaxis(cuts, 2, -1).reshape(-1, side, side, 3))
    windows = np.concatenate(found)
    axes = (1, 2, 3)
    lively = np.flatnonzero(windows.max(axis=axes) - windows.min(axis=axes) >= _MIN_RANGE)
    return windows[lively[dataset.shuffled(len(lively))[:size]]]
