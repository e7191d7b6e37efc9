"""Burgers' equation against the Cole-Hopf integral; the heat equation against its solution."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.shipped.unseen import physics

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def cole_hopf(coefficients, place, time):
    """The exact solution from u = a' sin(k x), by sums over the heat kernel on the line."""
    wave = np.arange(1, len(coefficients) + 1)
    y = np.arange(-4096, 8192) * (2 * math.pi / 4096)
    primitive = (coefficients / wave) @ (1 - np.cos(np.outer(wave, y)))
    distance = place[:, None] - y
    exponent = -(distance**2) / (4 * physics.VISCOSITY * time) - primitive / (2 * physics.VISCOSITY)
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return (weight * distance / time).sum(axis=1) / weight.sum(axis=1)


def test_the_solver_agrees_with_cole_and_hopf():
    coefficients = np.array([0.8, -0.4, 0.3])
    place = 2 * math.pi * np.arange(128) / 128
    start = coefficients @ np.sin(np.outer([1, 2, 3], place))
    ours = physics.solve_burgers(start[None])[0]
    np.testing.assert_allclose(ours, cole_hopf(coefficients, place, 1.0), atol=1e-4)


def test_the_tasks_flows_keep_their_mean_and_need_no_finer_steps():
    start = physics.random_velocities(50, 128)
    end = physics.solve_burgers(start)
    np.testing.assert_allclose(start.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(end.mean(axis=1), 0.0, atol=1e-12)
    assert (np.square(end).mean(axis=1) < np.square(start).mean(axis=1)).all()
    finer = physics.solve_burgers(physics.random_velocities(50, 512), num_steps=200)[:, ::4]
    assert np.square(end - finer).mean() < 1e-6 * np.square(end).mean()


def test_the_operator_knows_functions_and_not_grids():
    """A coarser grid gives the same function there, as far as gelu makes no new frequencies."""
    module = physics.FourierOperator(width=6, num_frequencies=3, num_layers=1)
    place = 2 * math.pi * np.arange(64) / 64
    values = jnp.asarray(np.sin(place) + 0.3 * np.cos(2 * place), jnp.float32)[None]
    params = jit(module.init)(jax.random.key(0), values)
    fine, coarse = jit(lambda: [module.apply(params, v) for v in (values, values[:, ::2])])()
    np.testing.assert_allclose(fine[:, ::2], coarse, atol=1e-4)


def test_a_layer_mixes_frequencies_as_a_fourier_transform_does():
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 16, 3))
    kernel = random.normal(size=(2, 4, 3, 3))
    angles = 2 * math.pi * np.outer(np.arange(16) / 16, np.arange(4))
    ours = physics.mix(*(jnp.float32(a) for a in (x, np.cos(angles), np.sin(angles), *kernel)))
    spectrum = np.fft.rfft(x, axis=1)[:, :4]
    mixed = np.einsum("bkw,kwv->bkv", spectrum, kernel[0] + 1j * kernel[1])
    waves = np.exp(1j * angles)
    expected = 2 * np.einsum("gk,bkv->bgv", waves, mixed).real / 16
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def exact(points):
    """The rod's temperature by JAX; NumPy's formula is compared with it."""
    place, time = points[..., 0], points[..., 1]
    total = jnp.zeros_like(place)
    for number, height in ((1, 1.0), (4, 1.0)):
        rate = physics.DIFFUSIVITY * (number * math.pi) ** 2
        total += height * jnp.exp(-rate * time) * jnp.sin(number * math.pi * place)
    return total


def test_nothing_is_wrong_with_the_exact_solution_and_much_with_zero():
    task = physics.heat_pinn()
    batch = task.eval_batch("valid")
    right = physics.wrongness(exact, batch.inputs)
    assert physics.heat_error(right, batch.targets) < 1e-8
    nothing = physics.wrongness(lambda points: 0.0 * points[..., 0], batch.inputs)
    loss = physics.heat_error(nothing, batch.targets)
    np.testing.assert_allclose(task.normalizer(loss), 1.0, atol=0.2)
    points = np.asarray(batch.inputs, float)
    np.testing.assert_allclose(
        physics.heat_solution(points[:, 0], points[:, 1]), exact(batch.inputs), atol=1e-5
    )


def test_the_residual_of_a_polynomial():
    """u = x^2 t + 3 x: u_t = x^2, u_xx = 2 t."""
    points = jnp.asarray(np.random.default_rng(0).uniform(size=(20, 2)), jnp.float32)
    x, t = np.asarray(points).T
    found = physics.wrongness(lambda p: p[..., 0] ** 2 * p[..., 1] + 3 * p[..., 0], points)
    np.testing.assert_allclose(found[:, 0], x**2 - physics.DIFFUSIVITY * 2 * t, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], 3 * x, rtol=1e-6)
    np.testing.assert_allclose(found[:, 2], np.where(x > 0.5, t + 3, 0.0), rtol=1e-6)
