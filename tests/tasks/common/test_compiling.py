"""Compiling with the device's options: the same numbers, and parts of larger programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks.common import compiling


def descend(x, num_steps):
    """A loop with a static length."""
    return jax.lax.fori_loop(0, num_steps, lambda _, y: y - 0.1 * jnp.sin(y), x)


def test_it_computes_what_jit_computes():
    x = jnp.linspace(-3.0, 3.0, 7)
    ours = compiling.jit(descend, static_argnums=1)
    assert np.array_equal(ours(x, 5), jax.jit(descend, static_argnums=1)(x, 5))


def test_what_is_alike_is_compiled_once():
    function = compiling.jit(lambda x, n: n * x, static_argnums=1)
    for x in (jnp.ones(3), jnp.zeros(3)):
        function(x, 2)
    assert function.compiled()._cache_size() == 1
    function(jnp.ones(3), 3)
    assert function.compiled()._cache_size() == 2


def test_it_may_be_a_part_of_a_larger_program():
    part = compiling.jit(descend, static_argnums=1)
    x = jnp.linspace(-1.0, 1.0, 3)
    whole = jax.jit(lambda x: 2.0 * part(x, 4))
    np.testing.assert_allclose(whole(x), 2.0 * descend(x, 4), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda x: part(x, 4))(x), descend(x, 4), rtol=1e-6)
    slope = jax.grad(lambda x: part(x, 1))(0.5)
    assert float(slope) == pytest.approx(1 - 0.1 * np.cos(0.5), rel=1e-5)


def test_shapes_can_be_asked_for():
    part = compiling.jit(descend, static_argnums=1)
    found = jax.eval_shape(lambda x: part(x, 4), jnp.zeros((2, 3)))
    assert found.shape == (2, 3)


def test_it_keeps_its_name_and_docstring():
    assert compiling.jit(descend).__name__ == "descend"
    assert compiling.jit(descend).__doc__ == "A loop with a static length."


def test_the_cpu_compiles_at_its_first_level(monkeypatch):
    assert compiling.options() == {"xla_backend_optimization_level": 1}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiling.options() == {}


def test_making_it_does_not_ask_for_devices(monkeypatch):
    def ask():
        raise AssertionError("asked")

    monkeypatch.setattr(jax, "default_backend", ask)
    function = compiling.jit(descend, static_argnums=1)
    with pytest.raises(AssertionError, match="asked"):
        function(jnp.ones(2), 1)
