"""The family of training one model on the data sets of one source.

The model's structure, the batch size and the source are the family's and static; what a member
draws is traced: its data set, the scale of its initial weights, the contrast and brightness of its
images or of its table. (Permutations of pixels or classes are not drawn: dense layers with random
weights, and the optimizers that see them, do not notice.)
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, final

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.data.dataset import Examples
from veldt.tasks.families import sources
from veldt.tasks.shipped import supervised

# Shapes: B examples, N pixels.

Goal: TypeAlias = Literal["classify", "reconstruct", "predict", "regress"]
"""Classify images or rows, reconstruct images, predict the next symbols, or values of rows."""

Initialiser: TypeAlias = Literal["normal", "uniform"]
"""Distribution of initial weights: as Flax has it (truncated normal), or uniform."""

_Criterion: TypeAlias = Callable[[Any, jax.Array], types.Scalar]
_CRITERIA: dict[Goal, _Criterion] = {
    "classify": supervised.cross_entropy,
    "reconstruct": supervised.squared_error,
    "predict": supervised.cross_entropy,
    "regress": supervised.squared_error,
}


@flax.struct.dataclass
class MemberConfig:
    """One member.

    Attributes:
      data: Configuration of the source.
      init_scale: Factor on initial weights (not biases), float [].
      contrast: Standard deviation of the images' pixels, float [].
      brightness: Mean of the images' pixels, float [].
      num_examples: Number of examples of the training set, uint32 []; 0 for no limit.
    """

    data: types.TaskConfig
    init_scale: types.Scalar
    contrast: types.Scalar
    brightness: types.Scalar
    num_examples: types.Scalar


@final
@dataclasses.dataclass(frozen=True, eq=False)
class MemberTask(base.Task):
    """Train the family's model on one data set.

    Attributes:
      family: Family of the task, with all but the configuration.
      cfg: Configuration of the member.
      name: Name in tables and errors.
    """

    family: "SupervisedFamily"
    cfg: MemberConfig
    name: str

    def init(self, key: types.Key) -> types.Params:
        """Draw the module's parameters, weights scaled. The key is consumed."""
        shapes = jax.eval_shape(self.train_batch, key).inputs
        inputs = jnp.zeros((1, *shapes.shape[1:]), shapes.dtype)
        params = self.family.module.init(key, inputs)
        if self.family.initialiser == "uniform":
            params = _uniform_weights(key, params)
        scale = self.cfg.init_scale
        return jax.tree.map(lambda leaf: leaf * scale if leaf.ndim > 1 else leaf, params)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the mean cross-entropy in nats, or the mean squared error, of a batch."""
        del key
        outputs: Any = self.family.module.apply(params, batch.inputs)
        # In full precision even if the model was run in less.
        return _CRITERIA[self.family.goal](outputs.astype(jnp.float32), batch.targets), {}

    def sample(self, key: types.Key) -> types.Selection:
        source, batch_size = self.family.source, self.family.batch_size
        if self.family.data_sizes is None:
            return source.select(key, batch_size)
        return source.select_of(key, batch_size, self.cfg.num_examples)

    def gather(self, selection: types.Selection) -> types.Batch:
        return self._seen(self.family.source.examples(self.cfg.data, selection))

    def train_batch(self, key: types.Key) -> types.Batch:
        """Draw a minibatch. The key is consumed."""
        return self.gather(self.sample(key))

    def eval_batch(self, split: types.Split) -> types.Batch:
        held_out = self.family.source.held_out(self.cfg.data, split, self.family.eval_size)
        return self._seen(held_out)

    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        """Return the loss relative to that of guessing, of a grey image, or of the mean value."""
        reference: types.Scalar | float
        match self.family.goal:
            case "classify" | "predict":
                reference = math.log(self.family.source.num_outputs)
            case "reconstruct":
                reference = jnp.square(self.cfg.contrast)
            case "regress":
                reference = 1.0
        return base.clip_normalized(loss / reference)

    def _seen(self, examples: Examples) -> Examples:
        """Return examples as the model gets them."""
        if self.family.goal == "predict":
            return examples
        images = self.cfg.contrast * examples.inputs
        if self.family.goal == "reconstruct":
            return Examples(images, images)
        return Examples(images + self.cfg.brightness, examples.targets)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class SupervisedFamily(base.TaskFamily):
    """Members that train one model on data sets of one source.

    Attributes:
      name: Name in tables and errors.
      source: Source of the examples.
      module: Model that is trained.
      goal: Goal of learning.
      batch_size: Number of examples of a training batch, B.
      eval_size: Largest number of examples in an evaluation batch.
      initialiser: Distribution of the initial weights.
      init_scales: Least and greatest `init_scale`, log-uniform in between.
      contrasts: Least and greatest `contrast`, log-uniform in between.
      brightnesses: Least and greatest `brightness`, uniform in between; images that are
        reconstructed have mean 0.
      data_sizes: Least and greatest number of training examples of a member, log-uniform; None for
        all that the source has; a procedural source never repeats one.
    """

    name: str
    source: sources.Source
    module: nn.Module
    goal: Goal
    batch_size: int
    eval_size: int = 256
    initialiser: Initialiser = "normal"
    init_scales: tuple[float, float] = (0.5, 2.0)
    contrasts: tuple[float, float] = (0.2, 1.0)
    brightnesses: tuple[float, float] = (0.0, 0.5)
    data_sizes: tuple[int, int] | None = None

    def sample(self, key: types.Key) -> MemberConfig:
        key_data, key_numbers = jax.random.split(key)
        draws = jax.random.uniform(key_numbers, (3,))
        low, high = self.brightnesses
        return MemberConfig(
            data=self.source.sample(key_data),
            init_scale=_log_between(self.init_scales, draws[0]),
            contrast=_log_between(self.contrasts, draws[1]),
            brightness=low + (high - low) * draws[2],
            num_examples=self._num_examples(key),
        )

    def _num_examples(self, key: types.Key) -> types.Scalar:
        if self.data_sizes is None:
            return jnp.zeros((), jnp.uint32)
        draw = jax.random.uniform(jax.random.fold_in(key, 2))
        return jnp.round(_log_between(self.data_sizes, draw)).astype(jnp.uint32)

    def task(self, cfg: MemberConfig) -> MemberTask:
        return MemberTask(self, cfg, self.name)


def _uniform_weights(key: types.Key, params: types.Params) -> types.Params:
    """Draw weight matrices anew, uniform with variance 1 / inputs; the key is consumed."""
    leaves, treedef = jax.tree.flatten(params)
    draw = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
    drawn = [
        draw(jax.random.fold_in(key, i), leaf.shape, leaf.dtype) if leaf.ndim > 1 else leaf
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, drawn)


def _log_between(bounds: tuple[float, float], share: types.Scalar) -> types.Scalar:
    low, high = bounds
    return low * (high / low) ** share
