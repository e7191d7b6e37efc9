"""Compiling with the device's options: the same numbers, and parts of larger programs."""

import json
import os
import subprocess
import sys
import textwrap

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


def compile_together(tmp_path, number):
    """Processes that compile the same at the same time; gives their hits and misses."""
    code = """
        import json, pathlib, sys, time
        import jax
        from veldt.tasks.common import compiling

        counts = {"hits": 0, "misses": 0}

        def heard(event, **_):
            kind = event.removeprefix("/jax/compilation_cache/cache_")
            if kind in counts:
                counts[kind] += 1

        jax.monitoring.register_event_listener(heard)
        compiling.keep_compiled_for("session_1")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

        def function(x):
            time.sleep(1.0)  # Long enough for all to be at it.
            return 2.0 * x + 1.0

        folder, name, number = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
        (folder / f"ready-{name}").touch()
        while len(list(folder.glob("ready-*"))) < number:
            time.sleep(0.01)
        with compiling.once_a_node("session_1"):
            jax.jit(function).lower(jax.ShapeDtypeStruct((3,), "float32")).compile()
        print(json.dumps(counts))
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("JAX_COMP")}
    env |= {"TMPDIR": str(tmp_path)}
    env.pop("RAY_TMPDIR", None)
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    started = [
        subprocess.Popen([*command, str(i), str(number)], stdout=subprocess.PIPE, env=env)
        for i in range(number)
    ]
    out = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0] * number
    return [json.loads(text) for text in out]


def test_workers_that_start_together_on_a_node_compile_once(tmp_path):
    counts = compile_together(tmp_path, 3)
    assert sum(count["misses"] for count in counts) == 1
    assert sum(count["hits"] for count in counts) == 2


def test_who_waits_for_a_first_that_fails_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert jax.config.jax_compilation_cache_dir  # The tests' own.
    with pytest.raises(ValueError, match="mine"), compiling.once_a_node("a"):
        raise ValueError("mine")
    monkeypatch.setattr(compiling, "_WAIT_S", 0.05)
    passed = []
    with compiling.once_a_node("a"):
        with compiling.once_a_node("a"):  # Another's, which waits in vain.
            passed.append(1)
        with compiling.once_a_node("b"):
            passed.append(2)
    assert passed == [1, 2]
