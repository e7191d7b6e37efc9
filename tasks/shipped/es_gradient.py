"""Any task with its gradient estimated by evolution strategies: a wrapper that makes it noisy."""

from typing import final

import jax
import jax.flatten_util

from veldt.tasks import base, wrapper
from veldt.tasks.common import types
from veldt.tasks.shipped import estimated_gradient, images


@final
class EsGradientTask(wrapper.TaskWrapper):
    """The same task, its gradient estimated from the loss at random nearby parameters.

    The estimate is that of antithetic evolution strategies, with P pairs of standard normal
    directions e (Salimans et al. 2017, arXiv 1703.03864): the mean of
    `e (loss(params + scale e) - loss(params - scale e)) / (2 scale)`. Its expectation is the
    gradient of the loss smoothed by Gaussian noise of that scale; the loss itself is not smoothed.

    Attributes:
      task: Wrapped task.
      num_pairs: Number of pairs P.
      scale: Standard deviation of the perturbations.
    """

    def __init__(
        self, name: str, task: base.Task, *, num_pairs: int, scale: float | types.Scalar
    ) -> None:
        self.name = name
        self.task = task
        self.num_pairs = num_pairs
        self.scale = scale

    def init(self, key: types.Key) -> types.Params:
        return self.task.init(key)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the task's loss; the key also draws the directions. All pairs see one batch."""
        key_loss, key_directions = jax.random.split(key)
        loss, aux = self.task.loss(params, key_loss, batch)
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        centre = jax.lax.stop_gradient(flat)
        directions = jax.random.normal(key_directions, (self.num_pairs, flat.size), flat.dtype)

        def half_difference(direction: jax.Array) -> types.Scalar:
            above, _ = self.task.loss(unravel(centre + self.scale * direction), key_loss, batch)
            below, _ = self.task.loss(unravel(centre - self.scale * direction), key_loss, batch)
            return (above - below) / (2 * self.scale)

        slopes = jax.vmap(half_difference)(directions)  # [P]
        gradient = slopes @ directions / self.num_pairs
        return estimated_gradient.with_gradient_of(loss, gradient @ flat), aux


def digits_mlp_es() -> EsGradientTask:
    """Classify 8x8 digits with a 64-32-10 perceptron; gradients estimated from 8 pairs."""
    return EsGradientTask("digits_mlp_es", images.digits_mlp(), num_pairs=8, scale=0.01)


def digits_conv_es() -> EsGradientTask:
    """Classify 8x8 digits with two small convolutions; gradients estimated from 32 pairs."""
    return EsGradientTask("digits_conv_es", images.digits_conv(), num_pairs=32, scale=0.03)
