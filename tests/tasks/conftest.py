"""A tiny stand-in for Fashion-MNIST, in the published file format."""

import gzip
import struct

import numpy as np
import pytest


def idx_bytes(array):
    """The idx format as its authors describe it: type 8 is unsigned byte, sizes big-endian."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture(scope="session")
def fashion_folder(tmp_path_factory):
    """Four idx files, two of them gzipped: 180 training and 40 test images.

    Class c is a bright stripe at height 2 c, so that the task can be learned.
    """
    folder = tmp_path_factory.mktemp("fashion")
    rng = np.random.default_rng(0)
    for part, num_images in (("train", 180), ("t10k", 40)):
        labels = rng.integers(0, 10, num_images).astype(np.uint8)
        images = rng.integers(0, 60, (num_images, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 4] += 180
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    return folder
