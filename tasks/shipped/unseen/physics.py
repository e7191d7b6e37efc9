"""Tasks on differential equations: learn Burgers' solution operator, solve the heat equation.

All is computed when a task is made, with NumPy in double precision; no data are read.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.common import types
from veldt.tasks.data import dataset
from veldt.tasks.shipped import supervised

# Shapes: B batch, N functions or points, G grid points, K frequencies, W width.

VISCOSITY = 0.1
"""Viscosity in Burgers' equation."""
DIFFUSIVITY = 0.1
"""Diffusivity in the heat equation."""

_FINE_GRID = 128  # Of the solver; the task has every other point.
_END_TIME = 1.0
_WAVES = ((1, 1.0), (4, 1.0))  # Half-waves over the rod at time 0, and their heights.
_BOUNDARY_WEIGHT = 10.0

_Parameters: TypeAlias = list[tuple[jax.Array, jax.Array]]


class FourierOperator(nn.Module):
    """A Fourier neural operator on a periodic interval (Li et al. 2021, arXiv 2010.08895).

    Departure: the few frequencies are taken and given back by products with sines and cosines,
    which here is faster than a fast Fourier transform.

    Attributes:
      width: Number of channels W.
      num_frequencies: Number of frequencies K that a layer mixes, from 0 on.
      num_layers: Number of layers.
    """

    width: int
    num_frequencies: int
    num_layers: int

    @nn.compact
    def __call__(self, values: jax.Array) -> jax.Array:
        """Map functions [B, G] to functions [B, G]."""
        num_points = values.shape[1]
        place = np.arange(num_points) / num_points
        angles = 2 * math.pi * np.outer(place, np.arange(self.num_frequencies))
        cosines, sines = jnp.float32(np.cos(angles)), jnp.float32(np.sin(angles))  # [G, K]
        shape = (2, self.num_frequencies, self.width, self.width)
        start = nn.initializers.normal(1 / self.width)
        x = nn.Dense(self.width)(values[..., None])  # [B, G, W]
        for layer in range(self.num_layers):
            real, imaginary = self.param(f"kernel_{layer}", start, shape)  # each [K, W, W]
            mixed = mix(x, cosines, sines, real, imaginary)
            x = nn.gelu(mixed + nn.Dense(self.width)(x))
        return nn.Dense(1)(nn.gelu(nn.Dense(2 * self.width)(x)))[..., 0]


class HeatNetwork(nn.Module):
    """A tanh perceptron u(x, t) and what is wrong with it as the heat equation's solution.

    Physics-informed, after Raissi et al. 2019 (Journal of Computational Physics 378).

    Attributes:
      widths: Widths of the hidden layers.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        """Map points [B, 2] of place and time, each 0..1, to three values of each, [B, 3].

        They are the equation's residual there, u at that place at time 0, and u at that time at the
        end of the rod that is nearer.
        """
        sizes = (2, *self.widths, 1)
        layers = []
        for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            last = layer == len(self.widths)
            start = nn.initializers.variance_scaling(
                0.01 if last else 1.0, "fan_in", "truncated_normal"
            )
            kernel = self.param(f"kernel_{layer}", start, (fan_in, fan_out))
            bias = self.param(f"bias_{layer}", nn.initializers.zeros, (fan_out,))
            layers.append((kernel, bias))
        return wrongness(functools.partial(_perceptron, layers), points)


def mix(
    x: jax.Array, cosines: jax.Array, sines: jax.Array, real: jax.Array, imaginary: jax.Array
) -> jax.Array:
    """Mix the channels of functions [B, G, W], each frequency's by a complex matrix of its own.

    Args:
      x: Values, [B, G, W].
      cosines: Waves on the grid, [G, K].
      sines: The same, a quarter of a wave later.
      real: Real parts of the matrices, [K, W, W].
      imaginary: Imaginary parts.
    """
    in_phase = jnp.einsum("gk,bgw->bkw", cosines, x) / x.shape[1]
    out_of_phase = jnp.einsum("gk,bgw->bkw", sines, x) / x.shape[1]

    def through(signal: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum("bkw,kwv->bkv", signal, kernel)

    cosine_part = through(in_phase, real) + through(out_of_phase, imaginary)
    sine_part = through(out_of_phase, real) - through(in_phase, imaginary)
    back = jnp.einsum("gk,bkw->bgw", cosines, cosine_part)
    return 2 * (back + jnp.einsum("gk,bkw->bgw", sines, sine_part))


def wrongness(solution: Callable[[jax.Array], jax.Array], points: jax.Array) -> jax.Array:
    """Return residual, initial value and boundary value of a function at points [B, 2]: [B, 3].

    Args:
      solution: Function of points [..., 2] to values [...], each of its own point alone.
      points: Places and times.
    """
    along_place = jnp.broadcast_to(jnp.array([1.0, 0.0]), points.shape)
    along_time = jnp.broadcast_to(jnp.array([0.0, 1.0]), points.shape)

    def slope(points: jax.Array) -> jax.Array:
        return jax.jvp(solution, (points,), (along_place,))[1]

    curvature = jax.jvp(slope, (points,), (along_place,))[1]
    change = jax.jvp(solution, (points,), (along_time,))[1]
    place, time = points[:, 0], points[:, 1]
    initial = solution(jnp.stack([place, jnp.zeros_like(time)], axis=-1))
    boundary = solution(jnp.stack([jnp.round(place), time], axis=-1))
    return jnp.stack([change - DIFFUSIVITY * curvature, initial, boundary], axis=-1)


def heat_error(outputs: jax.Array, targets: jax.Array) -> types.Scalar:
    """Return the mean square of the residual and, weighted, of the wrong initial and end values."""
    weights = jnp.array([1.0, _BOUNDARY_WEIGHT, _BOUNDARY_WEIGHT])
    return jnp.sum(weights * jnp.mean(jnp.square(outputs - targets), axis=0))


def burgers_operator() -> supervised.SupervisedTask:
    """Map a velocity to that of Burgers' equation a second later with a Fourier neural operator."""
    splits = _flows()
    return supervised.SupervisedTask(
        name="burgers_operator",
        module=FourierOperator(width=24, num_frequencies=12, num_layers=3),
        criterion=supervised.squared_error,
        splits=supervised.on_device(splits),
        batch_size=16,
        eval_size=256,
        reference_loss=jnp.asarray(np.mean(np.square(splits["train"].targets)), jnp.float32),
    )


def heat_pinn() -> supervised.SupervisedTask:
    """Solve the heat equation on a rod by a tanh perceptron whose loss is the equation itself."""
    points = np.random.RandomState(0).uniform(size=(4096, 2)).astype(np.float32)
    targets = np.zeros((len(points), 3), np.float32)
    targets[:, 1] = heat_solution(points[:, 0], np.zeros(len(points)))
    reference = _BOUNDARY_WEIGHT * np.mean(np.square(targets[:, 1]))  # Of u = 0.
    return supervised.SupervisedTask(
        name="heat_pinn",
        module=HeatNetwork((48, 48, 48)),
        criterion=heat_error,
        splits=supervised.on_device(dataset.split_rows(dataset.Examples(points, targets))),
        batch_size=128,
        eval_size=512,
        reference_loss=jnp.asarray(reference, jnp.float32),
    )


def heat_solution(place: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the temperature of the rod, whose ends are kept at 0."""
    total = np.zeros(np.broadcast(place, time).shape)
    for number, height in _WAVES:
        wave = number * math.pi
        total += height * np.exp(-DIFFUSIVITY * wave**2 * time) * np.sin(wave * place)
    return total


def solve_burgers(start: np.ndarray, num_steps: int = 50) -> np.ndarray:
    """Solve u_t + u u_x = VISCOSITY u_xx with period 2 pi from `start` [N, G] to time 1.

    Spectral in space, without the third of the frequencies that would alias; in time, Runge-Kutta
    of order 4 for the convection and the exact factor for the viscosity.
    """
    num_points = start.shape[1]
    wave = np.arange(num_points // 2 + 1)
    kept = wave <= num_points // 3
    step = _END_TIME / num_steps
    half_decay = np.exp(-VISCOSITY * wave**2 * step / 2)

    def convection(spectrum: np.ndarray) -> np.ndarray:
        values = np.fft.irfft(spectrum, num_points)
        return -0.5j * wave * kept * np.fft.rfft(values**2)

    u = np.fft.rfft(start) * kept
    for _ in range(num_steps):
        first = convection(u)
        second = convection(half_decay * (u + 0.5 * step * first))
        third = convection(half_decay * u + 0.5 * step * second)
        fourth = convection(half_decay * (half_decay * u + step * third))
        u = half_decay**2 * (u + step / 6 * first) + step / 6 * (
            2 * half_decay * (second + third) + fourth
        )
    return np.fft.irfft(u, num_points)


def random_velocities(num_functions: int, num_points: int) -> np.ndarray:
    """Draw Fourier series of four frequencies and mean 0 on a grid: [num_functions, num_points]."""
    random = np.random.RandomState(0)
    wave = np.arange(1, 5)
    angles = 2 * math.pi * np.outer(wave, np.arange(num_points) / num_points)
    drawn = random.normal(size=(2, num_functions, len(wave))) / wave
    return drawn[0] @ np.cos(angles) + drawn[1] @ np.sin(angles)


@functools.cache
def _flows() -> dataset.Splits:
    """Return velocities at the start and at the end, float32 [N, G]."""
    start = random_velocities(1024, _FINE_GRID)
    end = solve_burgers(start)
    start, end = start[:, ::2], end[:, ::2]
    return dataset.split_rows(dataset.Examples(start.astype(np.float32), end.astype(np.float32)))


def _perceptron(layers: _Parameters, points: jax.Array) -> jax.Array:
    """Map points [..., 2] to values [...] by tanh layers, the last one without."""
    x = 2.0 * points - 1.0
    for kernel, bias in layers[:-1]:
        x = jnp.tanh(x @ kernel + bias)
    kernel, bias = layers[-1]
    return (x @ kernel + bias)[..., 0]
