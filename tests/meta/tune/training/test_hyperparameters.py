"""Scales, schedules, and what they become as a file."""

import ast
import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veldt.meta import errors
from veldt.meta.tune import config, schedule_file
from veldt.meta.tune.training.hyperparameters import Hyperparameter


@given(st.sampled_from(["log", "logit", "linear"]), st.floats(0.001, 0.999), st.integers(0, 6))
def test_the_start_is_what_training_sees(scale, start, knots):
    spec = Hyperparameter(start, scale, 0 if knots == 1 else knots)
    value = spec.value(jnp.asarray(spec.init()), 10)
    for step in (0, 3, 9) if callable(value) else (0,):
        seen = value(jnp.int32(step)) if callable(value) else value
        assert float(seen) == pytest.approx(start, rel=1e-4)


def test_a_schedule_is_geometric_between_its_knots():
    spec = Hyperparameter(0.1, "log", 3)
    schedule = spec.value(jnp.log(jnp.array([0.1, 0.001, 0.01])), 101)
    assert float(schedule(jnp.int32(0))) == pytest.approx(0.1)
    assert float(schedule(jnp.int32(25))) == pytest.approx(0.01)
    assert float(schedule(jnp.int32(50))) == pytest.approx(0.001)
    assert float(schedule(jnp.int32(100))) == pytest.approx(0.01)


def test_a_smooth_schedule_moves_as_a_kernel_says():
    spec = Hyperparameter(0.1, "log", 9, smooth=1.5)
    start = spec.init()
    np.testing.assert_allclose(spec.numbers(start), 0.1, rtol=1e-5)
    np.testing.assert_allclose(spec.numbers(start + 0.3), 0.1 * np.exp(0.3), rtol=1e-5)
    moved = start.copy()
    moved[4] += 1.0
    change = np.log(spec.numbers(moved) / 0.1)
    # Knots near the ends have less of a kernel; those around the middle all of it, almost.
    weights = np.exp(-0.5 * (np.arange(-8, 9) / 1.5) ** 2)
    for knot in range(9):
        own = weights[8 - knot : 17 - knot]
        assert change[knot] == pytest.approx(weights[8 + 4 - knot] / own.sum(), rel=1e-3)
    by_part = spec.numbers(np.stack([start, moved]))
    np.testing.assert_allclose(by_part[1], spec.numbers(moved), rtol=1e-5)
    value = spec.value(jnp.asarray(moved), 17)
    assert float(value(jnp.int32(8))) == pytest.approx(float(spec.numbers(moved)[4]), rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"start": 0.0}, "above 0"),
        ({"start": 1.5, "scale": "logit"}, "between 0 and 1"),
        ({"start": float("nan"), "scale": "linear"}, "finite"),
        ({"start": 1.0, "knots": 1}, "0, or 2 or more"),
        ({"start": 1.0, "smooth": 1.0}, "give knots"),
        ({"start": 1.0, "smooth": -1.0, "knots": 3}, "0 or more"),
    ],
)
def test_what_cannot_be_is_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        Hyperparameter(**fields)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"groups": {"head": "("}}, "no regular expression"),
        ({"tune": {"rate_of_tail": Hyperparameter(1.0)}}, "no group 'tail'"),
        ({"fixed": {"learning_rate": 1.0}}, "both in tune and in fixed"),
        ({"tune": {}}, "tune is empty"),
        ({"seeds": 0}, "seeds is 0"),
    ],
)
def test_configs_that_do_not_hold_together_are_refused(more, match):
    fields = {"task": "quadratic", "num_steps": 5, "tune": {"learning_rate": Hyperparameter(0.1)}}
    with pytest.raises(ValueError, match=match):
        config.TuneConfig(**{**fields, **more})


TUNED = {
    "learning_rate": Hyperparameter(0.1, "log", 4),
    "b1": Hyperparameter(0.9, "logit", 3),
    "shift": Hyperparameter(0.0, "linear", 2),
    "weight_decay": Hyperparameter(1e-3),
}
NUMBERS = {
    "learning_rate": np.array([0.001, 0.1, 0.02, 0.0005], np.float32),
    "b1": np.array([0.8, 0.95, 0.5], np.float32),
    "shift": np.array([-1.0, 2.0], np.float32),
    "weight_decay": np.float32(0.01),
}


def test_the_file_holds_the_schedules_that_were_found(tmp_path):
    settings = config.TuneConfig("quadratic", 50, TUNED)
    remark = 'a """quote""" and\nimport os\nos.remove("x") \\'
    schedule_file.write(settings, NUMBERS, tmp_path, remark)
    tree = ast.parse((tmp_path / "schedules.py").read_text())
    # Nothing of the remark is code.
    kinds = (ast.Import, ast.Assign, ast.FunctionDef, ast.Expr)
    assert all(isinstance(node, kinds) for node in tree.body)
    imported = [a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names]
    assert imported == ["jax", "jax.numpy"]
    assert sum(isinstance(node, ast.Expr) for node in tree.body) == 1
    spec = importlib.util.spec_from_file_location("schedules", tmp_path / "schedules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, scale in (("learning_rate", jnp.log), ("b1", lambda x: jnp.log(x / (1 - x)))):
        ours = TUNED[name].value(scale(NUMBERS[name]), 50)
        for step in (0, 7, 31, 49):
            assert float(getattr(module, name)(step)) == pytest.approx(
                float(ours(jnp.int32(step))), rel=1e-4
            )
    assert float(module.shift(49)) == 2.0
    assert float(module.learning_rate(1000)) == pytest.approx(0.0005, rel=1e-4)
    assert module.weight_decay == 0.01
    with np.load(tmp_path / "tuned.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(NUMBERS)
        np.testing.assert_array_equal(arrays["b1"], NUMBERS["b1"])


@pytest.mark.parametrize("name", ["a b", "x\nimport os", "lambda", ""])
def test_names_that_are_no_arguments_get_nowhere_near_the_file(name):
    settings = config.TuneConfig("quadratic", 50, {name: Hyperparameter(1.0)})
    with pytest.raises(errors.MetaTrainError, match="no name of an argument"):
        schedule_file.check_names(settings)
