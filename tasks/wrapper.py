"""A task made of another one: the same data on the same scale, with other parameters or losses."""

from veldt.tasks import base
from veldt.tasks.common import types


class TaskWrapper(base.Task):
    """A task with the data and normalizer of another; subclasses define parameters and loss.

    Attributes:
      task: Wrapped task.
    """

    task: base.Task

    def train_batch(self, key: types.Key) -> types.Batch:
        return self.task.train_batch(key)

    def sample(self, key: types.Key) -> types.Selection:
        return self.task.sample(key)

    def gather(self, selection: types.Selection) -> types.Batch:
        return self.task.gather(selection)

    def eval_batch(self, split: types.Split) -> types.Batch:
        return self.task.eval_batch(split)

    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        return self.task.normalizer(loss)
