"""Synthetic images with natural statistics: figures on a background of fallen leaves.

Photographs have edges, parts that hide other parts, and the same statistics at every scale. The
"dead leaves" model has all three (Lee, Mumford and Huang 2001, doi:10.1023/A:1011109015675): discs
of random grey fall on one another, and the odds of a radius r are those of r^-3. Here a figure lies
on top, and its shape is the class. A member has a random figure for each class; an example moves it
by whole pixels and gives it a grey that says more or less about the class. So classes are more or
less easy for a linear model, and an autoencoder has edges to draw.

Departure: discs have soft edges of one pixel, without which images of 8x8 pixels would be ragged.
"""

import dataclasses
import math
from typing import final

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.common import types
from veldt.tasks.data.dataset import Examples
from veldt.tasks.families import hashing, sources

# Shapes: B examples, C classes, H side of an image, L leaves.

_WORDS_PER_LEAF = 4  # Place down, place right, radius, grey.
_LEAST_RADIUS = 1.0  # pixels
_MARGIN = 2.0  # Leaves fall on this many pixels around the image, too.
_FIGURE_PERIODS = 2  # Figures are random fields of at most so many periods along an axis.


@flax.struct.dataclass
class LeafConfig:
    """One classification problem.

    Attributes:
      figures: Share of each pixel that a class's figure covers, 0 to 1, float [C, H, H].
      told: Share of a figure's grey that its class determines, 0 to 1, float [].
      noise: Standard deviation of the noise on pixels; greys have 1, float [].
    """

    figures: jax.Array
    told: types.Scalar
    noise: types.Scalar


@final
@dataclasses.dataclass(frozen=True)
class Leaves(sources.ProceduralSource):
    """Random problems of figures on fallen leaves.

    Attributes:
      name: Name within the names of families.
      num_leaves: Number of discs L of a background.
      largest_shift: Largest movement of a figure along an axis, in pixels.
      noises: Least and greatest `noise`, log-uniform in between.
      num_outputs: Number of classes C, even.
      side: Side of an image H.
    """

    name: str = "leaves"
    num_leaves: int = 10
    largest_shift: int = 1
    noises: tuple[float, float] = (0.05, 0.5)
    num_outputs: int = 10
    side: int = 8

    def sample(self, key: types.Key) -> LeafConfig:
        key_figures, key_numbers = jax.random.split(key)
        draws = jax.random.uniform(key_numbers, (2,))
        low, high = self.noises
        return LeafConfig(
            figures=self._figures(key_figures),
            told=draws[0],
            noise=low * (high / low) ** draws[1],
        )

    def examples(self, cfg: LeafConfig, selection: types.Selection) -> Examples:
        """Make the images [B, H * H] of names uint32 [B, 2], and their class numbers."""
        numbers = hashing.words(selection, 0, 4)
        label = (numbers[:, 0] % self.num_outputs).astype(jnp.int32)
        cover = self._moved(cfg.figures[label], numbers[:, 1:3])
        sign = jnp.where(label % 2 == 0, 1.0, -1.0)
        free = jnp.sqrt(1 - jnp.square(cfg.told)) * hashing.centred(numbers[:, 3])
        grey = (cfg.told * sign + free)[:, None, None]
        ground = self.background(hashing.words(selection, 4, _WORDS_PER_LEAF * self.num_leaves))
        images = (ground + cover * (grey - ground)).reshape(-1, self.side**2)
        start = 4 + _WORDS_PER_LEAF * self.num_leaves
        pixels = hashing.centred(hashing.words(selection, start, self.side**2))
        images = (images + cfg.noise * pixels) * jax.lax.rsqrt(1 + jnp.square(cfg.noise))
        return Examples(images, label)

    def background(self, words: jax.Array) -> jax.Array:
        """Let leaves fall: words uint32 [B, 4 L] make images float [B, H, H]."""
        words = words.reshape(-1, self.num_leaves, _WORDS_PER_LEAF)
        places = (self.side + 2 * _MARGIN) * hashing.uniform(words[..., :2]) - _MARGIN
        # The inverse of the distribution function of r^-3 between the least and the image's side.
        rest = 1 - (_LEAST_RADIUS / self.side) ** 2
        radii = _LEAST_RADIUS * jax.lax.rsqrt(1 - rest * hashing.uniform(words[..., 2]))
        greys = hashing.centred(words[..., 3])
        pixels = jnp.arange(self.side) + 0.5
        # The first leaf lies below all and covers everything.
        images = jnp.broadcast_to(greys[:, 0, None, None], (words.shape[0], self.side, self.side))
        for leaf in range(1, self.num_leaves):
            down = jnp.square(pixels - places[:, leaf, :1])
            right = jnp.square(pixels - places[:, leaf, 1:])
            distance = jnp.sqrt(down[:, :, None] + right[:, None, :])
            cover = jnp.clip(radii[:, leaf, None, None] - distance + 0.5, 0.0, 1.0)
            images = images + cover * (greys[:, leaf, None, None] - images)
        return images

    def _figures(self, key: types.Key) -> jax.Array:
        """Draw the shape of each class, float [C, H, H]: where a smooth random field is high."""
        periods = range(-_FIGURE_PERIODS, _FIGURE_PERIODS + 1)
        waves = np.array([(i, j) for i in periods for j in periods if (i, j) > (0, 0)])
        grid = np.stack(np.meshgrid(*[np.arange(self.side)] * 2, indexing="ij"), axis=-1)
        phases = 2 * math.pi / self.side * grid.reshape(-1, 2) @ waves.T  # [H * H, M]
        sizes = 1 / np.linalg.norm(waves, axis=1)
        basis = np.concatenate([np.cos(phases) * sizes, np.sin(phases) * sizes], axis=1)
        basis /= np.sqrt(np.mean(np.sum(np.square(basis), axis=1)))
        coefficients = jax.random.normal(key, (self.num_outputs, basis.shape[1]))
        fields = coefficients @ jnp.asarray(basis.T, jnp.float32)
        return jax.nn.sigmoid(8.0 * fields).reshape(-1, self.side, self.side)

    def _moved(self, figures: jax.Array, words: jax.Array) -> jax.Array:
        """Move figures [B, H, H] by whole pixels, around the edges, as words [B, 2] say."""
        choices = jnp.uint32(2 * self.largest_shift + 1)
        shifts = (words % choices).astype(jnp.int32)
        for axis in (1, 2):
            moved = jnp.zeros_like(figures)
            for choice in range(2 * self.largest_shift + 1):
                chosen = (shifts[:, axis - 1] == choice)[:, None, None]
                rolled = jnp.roll(figures, choice - self.largest_shift, axis=axis)
                moved = jnp.where(chosen, rolled, moved)
            figures = moved
        return figures
