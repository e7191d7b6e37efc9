"""Embedded data against scikit-learn's own copies, splits, and the idx reader."""

import gzip
import pickle

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given
from hypothesis import strategies as st

from veldt.tasks import registry
from veldt.tasks.common import errors
from veldt.tasks.data import dataset


def sorted_rows(array):
    return array[np.lexsort(array.T)]


def test_digits_are_scikit_learns():
    splits = dataset.load_digits()
    ours = np.concatenate(
        [np.column_stack([part.inputs, part.targets]) for part in splits.values()]
    )
    theirs = sklearn.datasets.load_digits()
    expected = np.column_stack([theirs.data.astype(np.float32) / 16, theirs.target])
    np.testing.assert_array_equal(sorted_rows(ours), sorted_rows(expected))


def test_breast_cancer_is_scikit_learns_up_to_scale():
    splits = dataset.load_breast_cancer()
    theirs = sklearn.datasets.load_breast_cancer()
    order = dataset.shuffled(569)
    ours = np.concatenate([splits[split].inputs for split in ("test", "valid", "train")])
    labels = np.concatenate([splits[split].targets for split in ("test", "valid", "train")])
    np.testing.assert_array_equal(labels, theirs.target[order])
    # Standardising is affine: each column correlates perfectly with the original.
    for column, original in zip(ours.T, theirs.data[order].T, strict=True):
        np.testing.assert_allclose(np.corrcoef(column, original)[0, 1], 1.0, rtol=1e-6)
    np.testing.assert_allclose(splits["train"].inputs.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(splits["train"].inputs.std(axis=0), 1.0, rtol=1e-5)
    assert abs(splits["test"].inputs.mean()) > 1e-4  # its own mean was not used


@pytest.mark.parametrize("name", dataset.TABLES)
def test_tables_are_scikit_learns_up_to_scale(name):
    splits = dataset.load_table(name)
    theirs = np.unique(
        np.column_stack(getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)), axis=0
    )
    ours = np.concatenate(
        [np.column_stack([part.inputs, part.targets]) for part in splits.values()]
    )
    # Standardising is affine: what turns the sorted columns back turns the rows back.
    back = np.column_stack(
        [
            np.polyval(np.polyfit(np.sort(column), np.sort(original), 1), column)
            for column, original in zip(ours.T, theirs.T, strict=True)
        ]
    )
    np.testing.assert_allclose(sorted_rows(back.round(3)), sorted_rows(theirs.round(3)), atol=2e-3)
    train = splits["train"]
    np.testing.assert_allclose(train.inputs.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(train.inputs.std(axis=0), 1.0, rtol=1e-5)
    if dataset.TABLES[name] is None:
        assert train.targets.shape == (len(train.inputs), 1)
        np.testing.assert_allclose(train.targets.std(), 1.0, rtol=1e-5)
    else:
        assert {*train.targets.tolist()} == {*range(dataset.TABLES[name])}


@given(num_rows=st.integers(3, 2000))
def test_splits_are_a_partition_of_the_rows_in_60_20_20(num_rows):
    rows = np.arange(num_rows)
    splits = dataset.split_rows(dataset.Examples(rows, rows))
    sizes = {split: len(part.inputs) for split, part in splits.items()}
    assert sizes["valid"] == sizes["test"] == round(num_rows / 5)
    everything = np.concatenate([part.inputs for part in splits.values()])
    np.testing.assert_array_equal(np.sort(everything), rows)
    for part in splits.values():
        np.testing.assert_array_equal(part.inputs, part.targets)


def test_the_shuffle_never_changes():
    """Published numbers rest on these splits; the values are RandomState(0)'s."""
    np.testing.assert_array_equal(dataset.shuffled(8), [6, 2, 1, 7, 3, 0, 5, 4])


def test_loaders_read_once():
    assert dataset.load_digits() is dataset.load_digits()


def test_fashion_is_read_from_plain_and_gzipped_files(monkeypatch, fashion_folder):
    monkeypatch.setenv(dataset.DATA_VARIABLE, str(fashion_folder))
    splits = dataset.load_fashion_mnist()
    shapes = {split: part.inputs.shape for split, part in splits.items()}
    assert shapes == {"train": (150, 28, 28), "valid": (30, 28, 28), "test": (40, 28, 28)}
    raw = gzip.decompress((fashion_folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert splits["test"].inputs.tobytes() == raw[16:]
    for part in splits.values():
        # Class c is a bright stripe at height 2 c: images and labels stayed together.
        brightest = part.inputs.mean(axis=2).argmax(axis=1)
        assert (brightest // 2 - part.targets <= 1).all()
        assert (brightest // 2 >= part.targets).all()


def test_fashion_is_found_in_a_folder_of_its_name(monkeypatch, fashion_folder, tmp_path):
    (tmp_path / "fashion-mnist").symlink_to(fashion_folder)
    monkeypatch.setenv(dataset.DATA_VARIABLE, str(tmp_path))
    assert len(dataset.load_fashion_mnist()["test"].inputs) == 40


def test_missing_data_name_the_folders_searched_and_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv(dataset.DATA_VARIABLE, str(tmp_path))
    monkeypatch.setattr(dataset, "_DEBIAN_FASHION", tmp_path / "debian")
    with pytest.raises(errors.MissingDataError) as caught:
        registry.load_task("fashion_mlp")
    message = str(caught.value)
    assert message.startswith("Fashion-MNIST was not found")
    assert str(tmp_path / "fashion-mnist") in message
    assert str(tmp_path / "debian") in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert dataset.DATA_VARIABLE in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # noqa: S301, our own bytes


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-labels-idx1-ubyte", None, "train-labels-idx1-ubyte.* was not found"),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x05abc", r"header says \[5\], .* 3 bytes"),
        ("train-labels-idx1-ubyte", b"GIF89a", "no idx file"),
        ("train-labels-idx1-ubyte", b"", "no idx file"),
        (
            "train-labels-idx1-ubyte",
            b"\0\0\x08\x01\0\0\0\x01a",
            r"images \[180, 28, 28\] but labels",
        ),
        ("t10k-images-idx3-ubyte.gz", b"not gzip", "cannot be read"),
        ("t10k-images-idx3-ubyte.gz", gzip.compress(b"x" * 99)[:-9], "cannot be read"),
    ],
    ids=["absent", "short", "not idx", "empty", "other length", "not gzip", "cut off"],
)
def test_damaged_files_are_named(monkeypatch, fashion_folder, tmp_path, file, content, message):
    for path in fashion_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    monkeypatch.setenv(dataset.DATA_VARIABLE, str(tmp_path))
    with pytest.raises(errors.TaskError, match=message) as caught:
        dataset.load_fashion_mnist()
    assert str(tmp_path) in str(caught.value)


def test_letters_are_sixteen_measurements_of_twenty_six_letters():
    splits = dataset.load_letters()
    inputs = np.concatenate([part.inputs for part in splits.values()])
    targets = np.concatenate([part.targets for part in splits.values()])
    assert inputs.shape == (18_668, 16)  # of 20,000 rows, 1,332 are copies of others
    assert set(targets) == set(range(26))
    # On a whole-number scale of 0..15 before they were standardised.
    assert max(len(np.unique(column)) for column in inputs.T) == 16
    np.testing.assert_allclose(splits["train"].inputs.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(splits["train"].inputs.std(axis=0), 1.0, rtol=1e-4)
    rows = {
        split: {row.tobytes() for row in np.column_stack([part.inputs, part.targets])}
        for split, part in splits.items()
    }
    assert len(set.union(*rows.values())) == len(inputs)
