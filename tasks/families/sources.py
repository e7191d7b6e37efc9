"""Sources of examples: the abstract `Source`, and data sets that are stored.

A source is a distribution over data sets of one shape. Data sets of a source differ in their
configuration, arrays that may be traced; what all share (the rows of a stored data set) are arrays
of the source.
"""

import abc
import math
from typing import final, get_args

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.common import array_tree, types
from veldt.tasks.data import dataset, text
from veldt.tasks.data.dataset import Examples
from veldt.tasks.families import hashing
from veldt.tasks.shipped import generative, supervised

# Shapes: B examples, N pixels, T symbols in a window.


class Source(array_tree.ArrayTree, abc.ABC):
    """A distribution over data sets. Subclasses are final, and pytrees.

    Images and rows of tables are float32 [B, N] with mean 0 and mean square 1 over a data set, near
    enough; their targets are class numbers int32 [B], or values float32 [B, 1] of that scale. Texts
    are windows of symbols [B, T], and their targets the symbols that follow [B, T].

    Attributes:
      name: Name within the names of families.
      num_outputs: Number of classes, of symbols, or of values to predict.
    """

    name: str
    num_outputs: int

    @abc.abstractmethod
    def sample(self, key: types.Key) -> types.TaskConfig:
        """Draw one data set's configuration. The key is consumed."""

    @abc.abstractmethod
    def select(self, key: types.Key, num_examples: int) -> types.Selection:
        """Draw the selection of so many training examples (B). The key is consumed."""

    @abc.abstractmethod
    def select_of(
        self, key: types.Key, num_examples: int, data_size: types.Scalar
    ) -> types.Selection:
        """Draw a selection from the first `data_size` examples (uint32 []). The key is consumed."""

    @abc.abstractmethod
    def examples(self, cfg: types.TaskConfig, selection: types.Selection) -> Examples:
        """Return the training examples that `selection` names."""

    @abc.abstractmethod
    def held_out(self, cfg: types.TaskConfig, split: types.Split, num_examples: int) -> Examples:
        """Return the first examples of a split, always the same; splits share none."""


class ProceduralSource(Source):
    """Examples without end, made when they are needed: two words name each one."""

    def select(self, key: types.Key, num_examples: int) -> types.Selection:
        return hashing.names(key, num_examples)

    def select_of(
        self, key: types.Key, num_examples: int, data_size: types.Scalar
    ) -> types.Selection:
        return hashing.names_of_rows(hashing.names(key, num_examples)[:, 0] % data_size)

    def held_out(self, cfg: types.TaskConfig, split: types.Split, num_examples: int) -> Examples:
        # Names from a fixed generator: a training example is one of them with a chance of 2^-63.
        random = np.random.RandomState(get_args(types.Split).index(split))
        names = random.randint(0, 2**32, (num_examples, 2), dtype=np.uint32)
        return self.examples(cfg, jnp.asarray(names))


@final
class StoredSource(Source):
    """A stored data set; the only member of its distribution.

    Attributes:
      splits: Examples, arrays on the device.
    """

    def __init__(self, name: str, splits: dataset.Splits, num_outputs: int) -> None:
        self.name = name
        self.splits = supervised.on_device(splits)
        self.num_outputs = num_outputs

    def sample(self, key: types.Key) -> types.TaskConfig:
        del key
        return ()

    def select(self, key: types.Key, num_examples: int) -> types.Selection:
        # One draw per row: the bias is below num_rows / 2**32 (see `SupervisedTask.sample`).
        bits = jax.random.bits(key, (num_examples,), jnp.uint32)
        return (bits % self.splits["train"].inputs.shape[0]).astype(jnp.int32)

    def select_of(
        self, key: types.Key, num_examples: int, data_size: types.Scalar
    ) -> types.Selection:
        return (self.select(key, num_examples) % data_size).astype(jnp.int32)

    def examples(self, cfg: types.TaskConfig, selection: types.Selection) -> Examples:
        del cfg
        return jax.tree.map(
            lambda array: array.at[selection].get(mode="promise_in_bounds"), self.splits["train"]
        )

    def held_out(self, cfg: types.TaskConfig, split: types.Split, num_examples: int) -> Examples:
        del cfg
        return jax.tree.map(lambda array: array[:num_examples], self.splits[split])


def digits() -> StoredSource:
    """Return the embedded 8x8 digits, centred on their mean image; 10 classes."""
    splits = dataset.load_digits()
    images = generative.centred(splits)
    scale = np.float32(1 / math.sqrt(np.mean(np.square(images["train"].inputs))))
    return StoredSource(
        "digits",
        {
            split: Examples(images[split].inputs * scale, part.targets)
            for split, part in splits.items()
        },
        num_outputs=10,
    )


def jargon(window: int) -> StoredSource:
    """Return the embedded English prose in windows of so many bytes (T)."""
    corpus = text.load_jargon(window)
    return StoredSource("jargon", corpus.splits, corpus.num_symbols)


def code(window: int) -> StoredSource:
    """Return source code of Python's own library in windows of so many bytes (T)."""
    corpus = text.load_code(window)
    return StoredSource("code", corpus.splits, corpus.num_symbols)


def manual(window: int) -> StoredSource:
    """Return Python's own manual in windows of so many bytes (T)."""
    corpus = text.load_manual(window)
    return StoredSource("manual", corpus.splits, corpus.num_symbols)


def table(name: str) -> StoredSource:
    """Return one of `dataset.TABLES`."""
    return StoredSource(name, dataset.load_table(name), dataset.TABLES[name] or 1)
