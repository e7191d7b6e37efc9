"""The task of predicting targets from inputs: any Flax module, any of the splits of `dataset`.

One final class serves images, tables and text; what differs is data: the module, the criterion and
the loss of a predictor that knows nothing, which scales the normalizer. A module that is random
(a variational autoencoder, dropout) draws from its stream "noise": `self.make_rng("noise")`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, final

import flax.linen as nn
import jax
import jax.numpy as jnp

from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.data import dataset


class Model(Protocol):
    """A model that is no linen module, with the methods of one."""

    def init(self, key: types.Key, inputs: Any, /) -> types.Params:
        """Draw parameters; `inputs` are a few examples. The key is consumed."""
        ...

    def apply(self, params: types.Params, inputs: Any, /, *, rngs: Any = None) -> Any:
        """Return the outputs for a batch of inputs; `rngs` are keys by stream."""
        ...


@final
@dataclasses.dataclass(frozen=True, eq=False)
class SupervisedTask(base.Task):
    """Train `module` to turn inputs into targets.

    Attributes:
      name: Name in tables and errors.
      module: Model; `module.apply(params, inputs)` gives outputs.
      criterion: Function `(outputs, targets) -> loss`, float, shape []; outputs of the module.
      splits: Examples, arrays on the device.
      batch_size: Number of rows of a training batch, drawn with replacement.
      eval_size: Largest number of rows in an evaluation batch: the first ones, which are shuffled.
      reference_loss: Loss of a predictor that knows nothing, float32, shape [].
    """

    name: str
    module: nn.Module | Model
    criterion: Callable[[Any, jax.Array], types.Scalar]
    splits: Mapping[types.Split, dataset.Examples]
    batch_size: int
    eval_size: int
    reference_loss: types.Scalar

    def init(self, key: types.Key) -> types.Params:
        """Draw the module's parameters. The key is consumed."""
        return self.module.init(key, self.splits["train"].inputs[:1])

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the criterion on a batch of examples. The key is the module's stream "noise"."""
        outputs: Any = self.module.apply(params, batch.inputs, rngs={"noise": key})
        return self.criterion(outputs, batch.targets), {}

    def sample(self, key: types.Key) -> types.Selection:
        """Draw row numbers, int32 [batch_size]. The key is consumed."""
        num_rows = self.splits["train"].inputs.shape[0]
        # `randint` draws twice to remove a bias that is below num_rows / 2**32 here, and triples
        # the time to compile; one draw will do.
        bits = jax.random.bits(key, (self.batch_size,), jnp.uint32)
        return (bits % num_rows).astype(jnp.int32)

    def gather(self, selection: types.Selection) -> types.Batch:
        """Fetch the training rows that `sample` named."""
        # Rows are in bounds by construction: this spares a clamp and a select per step.
        return jax.tree.map(
            lambda array: array.at[selection].get(mode="promise_in_bounds"), self.splits["train"]
        )

    def train_batch(self, key: types.Key) -> types.Batch:
        """Draw a training minibatch of `batch_size` examples. The key is consumed."""
        return self.gather(self.sample(key))

    def eval_batch(self, split: types.Split) -> types.Batch:
        """Return the first `eval_size` examples of a split."""
        return jax.tree.map(lambda array: array[: self.eval_size], self.splits[split])

    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        """Return the loss relative to knowing nothing, cut off as in `base.clip_normalized`."""
        return base.clip_normalized(loss / self.reference_loss)


def on_device(splits: dataset.Splits) -> dict[types.Split, dataset.Examples]:
    """Copy splits to the default device, so that a jitted call does not do it every time."""
    return {split: jax.tree.map(jnp.asarray, part) for split, part in splits.items()}


def cross_entropy(logits: jax.Array, labels: jax.Array) -> types.Scalar:
    """Return the mean cross-entropy in nats of logits [..., C] against class numbers int [...]."""
    # A comparison instead of an indexed read: its gradient is element-wise, not a scatter.
    is_label = labels[..., None] == jnp.arange(logits.shape[-1])
    label_logits = jnp.sum(jnp.where(is_label, logits, 0.0), axis=-1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - label_logits)


def squared_error(outputs: jax.Array, targets: jax.Array) -> types.Scalar:
    """Return the mean squared error of outputs against targets of the same shape."""
    return jnp.mean(jnp.square(outputs - targets))
