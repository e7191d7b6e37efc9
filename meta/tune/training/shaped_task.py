"""A classification task that hyperparameters shape: weights of its data, smoothing, noise.

Training batches carry a weight for each example and are made noisy; evaluation is the plain task's,
so that outcomes mean the same whatever the hyperparameters are.
"""

from typing import Any, final

import flax.struct
import jax
import jax.numpy as jnp

from veldt.meta import errors
from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.data import dataset
from veldt.tasks.shipped import supervised

# Shapes: B rows of a batch, N training examples, C classes.


@flax.struct.dataclass
class Weighted:
    """A training batch.

    Attributes:
      examples: Inputs and classes.
      weights: Weight of each example, float [B].
    """

    examples: dataset.Examples
    weights: jax.Array


@flax.struct.dataclass
class Shape:
    """Hyperparameters of a task; None leaves the task as it is.

    Attributes:
      label_smoothing: Share of the target that is spread over all classes, float [].
      input_noise: Standard deviation of Gaussian noise on the inputs, relative to that of all
        training inputs, float [].
      class_weights: Factor of an example's loss by class, float [C].
      example_weights: Factor of an example's loss by row among the training examples, float [N].
    """

    label_smoothing: jax.Array | None = None
    input_noise: jax.Array | None = None
    class_weights: jax.Array | None = None
    example_weights: jax.Array | None = None


@final
class ShapedTask(base.Task):
    """A task trained with weights, label smoothing and noise.

    Attributes:
      name: The plain task's.
      task: The plain task.
      shape: What shapes it.
    """

    def __init__(self, task: supervised.SupervisedTask, shape: Shape) -> None:
        self.name = task.name
        self.task = task
        self.shape = shape

    def init(self, key: types.Key) -> types.Params:
        return self.task.init(key)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        if not isinstance(batch, Weighted):
            return self.task.loss(params, key, batch)
        shape, (inputs, targets) = self.shape, (batch.examples.inputs, batch.examples.targets)
        if shape.input_noise is not None:
            key, key_noise = jax.random.split(key)
            size = shape.input_noise * jnp.std(self.task.splits["train"].inputs)
            inputs = inputs + size * jax.random.normal(key_noise, inputs.shape, inputs.dtype)
        logits: Any = self.task.module.apply(params, inputs, rngs={"noise": key})
        logs = jax.nn.log_softmax(logits)
        losses = -jnp.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]
        if shape.label_smoothing is not None:
            share = shape.label_smoothing
            losses = (1 - share) * losses - share * jnp.mean(logs, axis=-1)
        weights = batch.weights.reshape(-1, *(1,) * (losses.ndim - 1))
        return jnp.mean(weights * losses), {}

    def sample(self, key: types.Key) -> types.Selection:
        return self.task.sample(key)

    def gather(self, selection: types.Selection) -> types.Batch:
        examples = self.task.gather(selection)
        weights = jnp.ones(selection.shape, jnp.float32)
        if self.shape.example_weights is not None:
            weights = weights * self.shape.example_weights[selection]
        if self.shape.class_weights is not None:
            weights = weights * self.shape.class_weights[examples.targets]
        return Weighted(examples, weights)

    def train_batch(self, key: types.Key) -> types.Batch:
        return self.gather(self.sample(key))

    def eval_batch(self, split: types.Split) -> types.Batch:
        return self.task.eval_batch(split)

    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        return self.task.normalizer(loss)


def num_elements(name: str, task: base.Task) -> int | None:
    """Return how many numbers a hyperparameter of a task has: N, C, or None for a single one.

    Raises:
      MetaTrainError: The task is no classification.
    """
    if not (
        isinstance(task, supervised.SupervisedTask) and task.criterion is supervised.cross_entropy
    ):
        raise errors.MetaTrainError(
            f"{name} is for tasks that classify examples of a data set; {task.name} is none"
        )
    if name == "example_weights":
        return len(task.splits["train"].inputs)
    if name == "class_weights":
        outputs = jax.eval_shape(
            lambda: task.module.apply(
                task.init(jax.random.key(0)),
                task.splits["train"].inputs[:1],
                rngs={"noise": jax.random.key(0)},
            )
        )
        return int(outputs.shape[-1])
    return None
