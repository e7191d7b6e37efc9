"""Synthetic images to classify: smooth random patterns, moved, mixed and noised.

A member has a prototype image or several for each class, a sum of a few plane waves with random
coefficients. An example is a prototype that is moved by a random part of a pixel or more (each wave
turns by its own phase), made stronger or weaker and deformed (noise on the coefficients), perhaps
with another prototype laid over it, and with noise on each pixel. All that makes a member difficult
is in its configuration. Nothing is learned from data, so an optimizer that is trained on these has
seen no task of the benchmark.

Making a batch costs a few hashes per number, a product with the waves and no call of a generator.
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

# Shapes: B examples, M waves, P prototypes, H side of an image.

_WAVES = np.array([(1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2), (2, 1), (1, -2)])
"""Whole periods along both axes of an image, one of each pair k, -k; int [M, 2]."""

_SINE = tuple(
    (-1) ** k * (2 * math.pi) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(5)
)
"""Taylor coefficients of sin(2 pi x) / x in powers of x squared."""

_AMPLITUDE_SPREAD = 0.3  # Relative standard deviation of an example's strength.


@flax.struct.dataclass
class PatternConfig:
    """One classification problem.

    Attributes:
      prototypes: Coefficients of the waves' cosines and sines, float [P, 2, M]; class c has the
        prototypes c, c + C, c + 2C, ...
      envelope: Relative size of each wave, float [M].
      shift: Largest movement along an axis, in pixels, float [].
      deformation: Size of the noise on coefficients against that of prototypes, float [].
      clutter: Size of the prototype laid over, against the first, float [].
      noise: Standard deviation of the noise on pixels; a prototype's pixels have 1, float [].
    """

    prototypes: jax.Array
    envelope: jax.Array
    shift: types.Scalar
    deformation: types.Scalar
    clutter: types.Scalar
    noise: types.Scalar


@final
@dataclasses.dataclass(frozen=True)
class Patterns(sources.ProceduralSource):
    """Random pattern classification problems of one shape.

    Attributes:
      name: Name within the names of families.
      shifts: Least and greatest `shift`, uniform in between; H / 2 is anywhere.
      clutters: Least and greatest `clutter`, uniform in between.
      noises: Least and greatest of `noise` and `deformation`, each log-uniform in between.
      prototypes_per_class: Number of prototypes; more than one make classes that no linear model
        distinguishes well.
      num_outputs: Number of classes C.
      side: Side of an image H, even.
    """

    name: str = "patterns"
    shifts: tuple[float, float] = (0.0, 1.5)
    clutters: tuple[float, float] = (0.0, 0.0)
    noises: tuple[float, float] = (0.1, 0.8)
    prototypes_per_class: int = 1
    num_outputs: int = 10
    side: int = 8

    def sample(self, key: types.Key) -> PatternConfig:
        key_prototypes, key_numbers = jax.random.split(key)
        draws = jax.random.uniform(key_numbers, (5,))
        # The steeper the spectrum, the smoother the images: decay 0.5 to 2 per octave and axis.
        lengths = jnp.asarray(np.linalg.norm(_WAVES, axis=1), jnp.float32)
        envelope = lengths ** -(0.5 + 1.5 * draws[0])
        envelope = envelope / jnp.sqrt(jnp.sum(jnp.square(envelope)))
        num_prototypes = self.num_outputs * self.prototypes_per_class
        shape = (num_prototypes, 2, len(_WAVES))
        prototypes = envelope * jax.random.normal(key_prototypes, shape)
        # The mean square of a wave over the pixels is a half.
        power = 0.5 * jnp.sum(jnp.square(prototypes)) / num_prototypes
        prototypes = prototypes / jnp.sqrt(power)
        low, high = self.noises
        return PatternConfig(
            prototypes=prototypes,
            envelope=envelope,
            shift=_between(self.shifts, draws[1]),
            deformation=low * (high / low) ** draws[2],
            clutter=_between(self.clutters, draws[3]),
            noise=low * (high / low) ** draws[4],
        )

    def examples(self, cfg: PatternConfig, selection: types.Selection) -> Examples:
        """Make the images [B, H * H] of names uint32 [B, 2], and their class numbers."""
        num_waves = len(_WAVES)
        numbers = hashing.words(selection, 0, 5)
        prototype = _row(numbers[:, 0], len(cfg.prototypes))
        amplitude = 1 + _AMPLITUDE_SPREAD * hashing.centred(numbers[:, 1:2])
        cosines, sines = (amplitude * part for part in _take(cfg.prototypes, prototype))
        if self.clutters[1] > 0:
            # Above or below zero by the first bit: on average the two have nothing in common.
            signed = jnp.where(numbers[:, 4:] >> 31 == 0, cfg.clutter, -cfg.clutter)
            other = _take(cfg.prototypes, _row(numbers[:, 4], len(cfg.prototypes)))
            cosines, sines = cosines + signed * other[0], sines + signed * other[1]
        shifts = cfg.shift * (2 * hashing.uniform(numbers[:, 2:4]) - 1)
        down, right = jnp.asarray(_WAVES.T / self.side, jnp.float32)
        turned = _turn(cosines, sines, down * shifts[:, :1] + right * shifts[:, 1:])
        images = jnp.zeros(())
        for k, (part, waves) in enumerate(zip(turned, _waves(self.side), strict=True)):
            words = hashing.words(selection, 5 + k * num_waves, num_waves)
            noise = cfg.deformation * cfg.envelope * hashing.centred(words)
            images = images + (part + noise) @ jnp.asarray(waves)
        pixels = hashing.words(selection, 5 + 2 * num_waves, self.side**2)
        images = images + cfg.noise * hashing.centred(pixels)
        label = (prototype % self.num_outputs).astype(jnp.int32)
        return Examples(images * jax.lax.rsqrt(self._power(cfg)), label)

    def _power(self, cfg: PatternConfig) -> types.Scalar:
        """Return the mean square of a pixel before it is scaled to 1; the parts' powers add up."""
        strength = 1 + _AMPLITUDE_SPREAD**2
        return strength + cfg.clutter**2 + cfg.deformation**2 + cfg.noise**2


PATTERNS: dict[str, Patterns] = {
    source.name: source
    for source in (
        Patterns("patterns"),
        Patterns("textures", shifts=(4.0, 4.0), noises=(0.05, 0.4)),
        Patterns("clusters", prototypes_per_class=4),
        Patterns("clutter", clutters=(0.3, 1.0)),
    )
}
"""Kinds of problems: near their place; anywhere; of several prototypes; with another laid over."""


def _waves(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines of the waves at each pixel, each float32 [M, H * H]."""
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1)
    phases = 2 * math.pi / side * grid.reshape(-1, 2) @ _WAVES.T  # [H * H, M]
    return np.cos(phases).T.astype(np.float32), np.sin(phases).T.astype(np.float32)


def _turn(cosines: jax.Array, sines: jax.Array, turns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Turn each wave's pair of coefficients by so many full turns; all [B, M]."""
    cos, sin = _sine_of_turns(turns + 0.25), _sine_of_turns(turns)
    return cosines * cos - sines * sin, cosines * sin + sines * cos


def _sine_of_turns(turns: jax.Array) -> jax.Array:
    """Return sin(2 pi turns) within 1e-4, at half the time of `jnp.sin` on CPU."""
    # Brought into -1/4 to 1/4, where the series has converged: sin(pi - x) is sin(x).
    centred = turns - jnp.round(turns)
    folded = jnp.clip(centred, -0.25, 0.25) * 2 - centred
    square = jnp.square(folded)
    total = jnp.full_like(square, _SINE[-1])
    for coefficient in _SINE[-2::-1]:
        total = total * square + coefficient
    return folded * total


def _row(words: jax.Array, num_rows: int) -> jax.Array:
    return (words % num_rows).astype(jnp.int32)


def _take(prototypes: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return cosines and sines [B, M] of the prototypes [P, 2, M] with numbers [B]."""
    # Apart, here and above: XLA on CPU is slow to concatenate.
    cosines, sines = (
        part.at[index].get(mode="promise_in_bounds")
        for part in (prototypes[:, 0], prototypes[:, 1])
    )
    return cosines, sines


def _between(bounds: tuple[float, float], share: types.Scalar) -> types.Scalar:
    low, high = bounds
    return low + (high - low) * share
