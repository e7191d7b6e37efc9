"""The embedded photographs against scikit-learn's own copies, and windows from apart."""

import numpy as np
import pytest
import sklearn.datasets

from veldt.tasks.data import photos


def test_the_photographs_are_scikit_learns_shrunk_by_three():
    image = pytest.importorskip("PIL.Image")  # scikit-learn reads its photographs by it.
    for name, ours in photos.load_photos().items():
        theirs = sklearn.datasets.load_sample_image(f"{name}.jpg")
        shrunk = image.fromarray(theirs[:426, :639]).reduce(3)
        # Decoders of JPEG may differ by a level or two.
        np.testing.assert_allclose(ours.astype(int), np.asarray(shrunk, int), atol=3)


def test_no_pixel_is_in_two_splits_and_windows_fit():
    columns = np.zeros(213, int)
    for stripes in photos.STRIPES.values():
        for first, end in stripes:
            assert end - first >= 16
            columns[first:end] += 1
    np.testing.assert_array_equal(columns, 1)


def test_windows_are_cut_from_their_splits_stripes():
    windows = photos.load_windows(16)
    assert {split: len(part) for split, part in windows.items()} == {
        "train": 4096,
        "valid": 1024,
        "test": 1024,
    }
    for split, part in windows.items():
        assert part.dtype == np.uint8
        for window in part[:5]:
            corner = window[0, 0]
            found = [
                (row, column)
                for photo in photos.load_photos().values()
                for row, column in np.argwhere((photo == corner).all(axis=-1))
                if np.array_equal(photo[row : row + 16, column : column + 16], window)
            ]
            assert any(
                first <= column and column + 16 <= end
                for _, column in found
                for first, end in photos.STRIPES[split]
            )


def test_a_window_is_drawn_once():
    windows = photos.load_windows(16)
    rows = {window.tobytes() for part in windows.values() for window in part}
    assert len(rows) == sum(map(len, windows.values()))
