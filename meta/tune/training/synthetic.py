"""Training rows that are learned: a few rows that a model is trained on in place of all.

Such et al. 2020 (generative teaching, arXiv 1912.07768) and Wang et al. 2018 (dataset distillation,
arXiv 1811.10959): the rows, the shares of classes in their labels, and the optimizer's numbers
beside them are meta-parameters, and the outcome is the loss on real validation rows. Departure: the
rows themselves are learned, and no generator that makes them; parameters start anew in each run.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Literal, final

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from veldt.meta import errors
from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.common.config import bounds
from veldt.tasks.shipped import supervised

# Shapes: R learned rows, C classes, B rows of a batch.

INPUTS: Final = "synthetic_inputs"
LABELS: Final = "synthetic_labels"
# A row starts with about 0.86 of its own class among ten.
_OWN_LOGIT: Final = 4.0


@final
@dataclasses.dataclass(frozen=True)
class SyntheticConfig:
    """Learned training rows, for tasks that classify examples of a data set.

    Attributes:
      rows_per_class: number of rows of each class.
      start: "rows", the first training rows of each class, or "noise" with the mean and the
        standard deviation of the training inputs.
      labels: whether the shares of the classes in each row's label are learned too, from mostly its
        own class; without, a row's label is its class.
      step: what an input moves by where its meta-parameter moves by 1, in standard deviations of
        all training inputs.
    """

    rows_per_class: int = 1
    start: Literal["rows", "noise"] = "rows"
    labels: bool = True
    step: float = 0.3

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "rows_per_class")
        bounds.above(self, 0, "step")


@flax.struct.dataclass
class Labelled:
    """A batch of learned rows.

    Attributes:
      inputs: Inputs of the model, [B, ...].
      shares: Shares of the classes in each label, float [B, C].
    """

    inputs: jax.Array
    shares: jax.Array


@final
class SyntheticTask(base.Task):
    """A task that is trained on given rows and evaluated on its own.

    Attributes:
      name: The plain task's.
      task: The plain task.
      rows: All rows to train on.
    """

    def __init__(self, task: supervised.SupervisedTask, rows: Labelled) -> None:
        self.name = task.name
        self.task = task
        self.rows = rows

    def init(self, key: types.Key) -> types.Params:
        return self.task.init(key)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        if not isinstance(batch, Labelled):
            return self.task.loss(params, key, batch)
        logits: Any = self.task.module.apply(params, batch.inputs, rngs={"noise": key})
        return -jnp.mean(jnp.sum(batch.shares * jax.nn.log_softmax(logits), axis=-1)), {}

    def train_batch(self, key: types.Key) -> types.Batch:
        """Return all rows, or as many as a batch of the plain task has, drawn with replacement."""
        count, size = len(self.rows.shares), self.task.batch_size
        if count <= size:
            return self.rows
        drawn = jax.random.randint(key, (size,), 0, count)
        return jax.tree.map(lambda array: array[drawn], self.rows)

    def eval_batch(self, split: types.Split) -> types.Batch:
        return self.task.eval_batch(split)

    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        return self.task.normalizer(loss)


def init(config: SyntheticConfig, task: base.Task, seed: int) -> dict[str, np.ndarray]:
    """Return the meta-parameters at the start, by name: `INPUTS` [R, ...] and `LABELS` [R, C].

    Args:
      config: Learned rows.
      task: Task that is trained.
      seed: Seed of the noise.

    Raises:
      MetaTrainError: The task classifies no examples with one label each, or has not as many rows
        of a class.
    """
    classes = _classes(task)
    assert isinstance(task, supervised.SupervisedTask)
    train = jax.tree.map(np.asarray, task.splits["train"])
    per_class = config.rows_per_class
    if config.start == "noise":
        shape = (len(classes) * per_class, *train.inputs.shape[1:])
        noise = np.random.default_rng(seed).standard_normal(shape)
        inputs = train.inputs.mean() + train.inputs.std() * noise
    else:
        chosen = [np.flatnonzero(train.targets == label)[:per_class] for label in classes]
        for label, rows in zip(classes, chosen, strict=True):
            if len(rows) < per_class:
                raise errors.MetaTrainError(
                    f"synthetic.rows_per_class is {per_class}; {task.name} has {len(rows)} "
                    f"training rows of class {label}: give less, or start: noise"
                )
        inputs = train.inputs[np.concatenate(chosen)]
    found = {INPUTS: (inputs / _unit(config, task)).astype(np.float32)}
    if config.labels:
        found[LABELS] = _OWN_LOGIT * _own(len(classes), per_class)
    return found


def make(config: SyntheticConfig, task: base.Task, meta_params: Mapping[str, Any]) -> SyntheticTask:
    """Return the task that is trained on the rows that meta-parameters are."""
    assert isinstance(task, supervised.SupervisedTask)
    inputs = meta_params[INPUTS] * _unit(config, task)
    if config.labels:
        shares = jax.nn.softmax(meta_params[LABELS])
    else:
        shares = jnp.asarray(_own(len(inputs) // config.rows_per_class, config.rows_per_class))
    return SyntheticTask(task, Labelled(inputs, shares))


def numbers(
    config: SyntheticConfig, task: base.Task, meta_params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the rows themselves, by name: inputs [R, ...] and shares of classes [R, C]."""
    rows = make(config, task, meta_params).rows
    return {INPUTS: np.asarray(rows.inputs), LABELS: np.asarray(rows.shares)}


def _unit(config: SyntheticConfig, task: supervised.SupervisedTask) -> Any:
    return config.step * jnp.std(task.splits["train"].inputs)


def _own(num_classes: int, per_class: int) -> np.ndarray:
    """Return 1 for each row's own class, float [R, C]."""
    return np.repeat(np.eye(num_classes, dtype=np.float32), per_class, axis=0)


def _classes(task: base.Task) -> np.ndarray:
    """Return the classes of a task's training rows.

    Raises:
      MetaTrainError: It has none, or not one for each row.
    """
    if (
        isinstance(task, supervised.SupervisedTask)
        and task.criterion is supervised.cross_entropy
        and np.ndim(task.splits["train"].targets) == 1
    ):
        classes = np.unique(np.asarray(task.splits["train"].targets))
        if np.issubdtype(np.asarray(task.splits["train"].inputs).dtype, np.floating) and (
            list(classes) == list(range(len(classes)))
        ):
            return classes
    raise errors.MetaTrainError(
        f"synthetic is for tasks that give each example, of numbers, one of its classes; "
        f"{task.name} is none"
    )
