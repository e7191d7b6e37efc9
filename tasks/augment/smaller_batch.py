"""Members that train on a part of each batch: noisier gradients at the same evaluation."""

from typing import final

import jax

from veldt.tasks import base, wrapper
from veldt.tasks.augment import family_wrapper as family_wrapper
from veldt.tasks.common import types


@final
class SmallerBatchTask(wrapper.TaskWrapper):
    """The same task on the first rows of each training batch.

    Attributes:
      task: Wrapped task; the arrays of its batches have the examples along the first axis.
      num_rows: Number of rows of a training batch.
    """

    def __init__(self, name: str, task: base.Task, num_rows: int) -> None:
        self.name = name
        self.task = task
        self.num_rows = num_rows

    def init(self, key: types.Key) -> types.Params:
        return self.task.init(key)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        return self.task.loss(params, key, batch)

    def train_batch(self, key: types.Key) -> types.Batch:
        return self._first_rows(self.task.train_batch(key))

    def gather(self, selection: types.Selection) -> types.Batch:
        return self._first_rows(self.task.gather(selection))

    def _first_rows(self, batch: types.Batch) -> types.Batch:
        return jax.tree.map(lambda array: array[: self.num_rows], batch)


@final
class SmallerBatch(family_wrapper.FamilyWrapper):
    """Members of a family with a fixed number of rows of their batches.

    Attributes:
      name: Name in tables and errors.
      family: Wrapped family.
      num_rows: Number of rows of a training batch.
    """

    def __init__(self, family: base.TaskFamily, num_rows: int) -> None:
        self.name = f"{family.name}, {num_rows} rows of it"
        self.family = family
        self.num_rows = num_rows

    def task(self, cfg: types.TaskConfig) -> SmallerBatchTask:
        return SmallerBatchTask(self.name, self.family.task(cfg), self.num_rows)
