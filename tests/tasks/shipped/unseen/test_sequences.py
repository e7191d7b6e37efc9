"""Sequences that a procedure makes: the answers are right, and the gated unit is the published."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.shipped.unseen import sequences

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def test_targets_are_the_sorted_inputs():
    for part in sequences.sorting_problems(10, 32).values():
        for numbers, target in zip(part.inputs[:50], part.targets[:50], strict=True):
            assert sorted(numbers.tolist()) == target.tolist()
        assert part.inputs.max() == 31


def test_two_numbers_are_marked_one_in_each_half_and_added():
    for part in sequences.adding_problems(24).values():
        marks = part.inputs[..., 1]
        np.testing.assert_array_equal(marks[:, :12].sum(axis=1), 1.0)
        np.testing.assert_array_equal(marks[:, 12:].sum(axis=1), 1.0)
        for row, target in zip(part.inputs[:50], part.targets[:50], strict=True):
            np.testing.assert_allclose(row[row[:, 1] == 1.0, 0].sum(), target, rtol=1e-5)


def test_the_gated_unit_is_the_papers():
    """Zhou et al. 2016, equations 7a to 7c, one number at a time."""
    module = sequences.MinimalGatedUnit(5)
    inputs = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    params = jit(module.init)(jax.random.key(0), inputs)
    ours = jit(module.apply)(params, jnp.asarray(inputs))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, float), params["params"])
    state = np.zeros((2, 5))
    for t in range(4):
        drive = inputs[:, t] @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
        forget = 1 / (1 + np.exp(1.0 - drive[:, :5] - state @ p["forget_kernel"]))
        new = np.tanh(drive[:, 5:] + (forget * state) @ p["new_kernel"])
        state = (1 - forget) * state + forget * new
    expected = state @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]
    np.testing.assert_allclose(ours, expected[:, 0], atol=1e-5)
