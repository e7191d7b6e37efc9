"""Tasks as pytrees, the comparable scale, and the check of a stranger's task."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks import base
from veldt.tasks.common import errors


class Line(base.Task):
    """The example of the module's docstring, with settings of its own."""

    name = "line"

    def __init__(self, slope=2.0):
        self.x = jnp.linspace(-1.0, 1.0, 300)
        self.settings = {"slope": slope, "history": [1, 2], "offsets": np.zeros(3)}

    def init(self, key):
        return {"slope": jnp.zeros(())}

    def loss(self, params, key, batch):
        return jnp.mean((params["slope"] * batch - self.settings["slope"] * batch) ** 2), {}

    def train_batch(self, key):
        return jax.random.choice(key, self.x[:200], (16,))

    def eval_batch(self, split):
        return {"train": self.x[:200], "valid": self.x[200:250], "test": self.x[250:]}[split]

    def normalizer(self, loss):
        return base.clip_normalized(loss / jnp.mean((2.0 * self.x) ** 2))


def test_a_plain_class_passes_through_jit_with_its_arrays_as_arguments():
    task = Line()
    leaves = jax.tree.leaves(task)
    assert [leaf.shape for leaf in leaves] == [(3,), (300,)]
    through = jax.jit(lambda task: task)(task)
    assert type(through) is Line
    np.testing.assert_array_equal(through.x, task.x)
    assert through.settings["slope"] == 2.0
    assert through.settings["history"] == [1, 2]


def test_static_settings_are_part_of_what_is_compiled():
    traces = []

    @jax.jit
    def loss(task):
        traces.append(task.settings["slope"])
        return task.loss({"slope": 0.0}, None, jnp.ones(2))[0]

    assert [float(loss(Line(slope))) for slope in (2.0, 3.0, 2.0)] == [4.0, 9.0, 4.0]
    assert traces == [2.0, 3.0]


def test_placeholders_for_arrays_keep_the_structure():
    """JAX rebuilds trees with axes, None or objects for leaves (vmap's in_axes, for one)."""
    task = Line()
    structure = jax.tree.structure(task)
    for placeholder in (0, object()):
        rebuilt = jax.tree.unflatten(structure, [placeholder, placeholder])
        assert jax.tree.structure(rebuilt) == structure
        assert jax.tree.leaves(rebuilt) == [placeholder, placeholder]
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), task, task)
    axes = jax.tree.unflatten(structure, [None, 0])
    sums = jax.vmap(lambda task: task.x.sum() + task.settings["offsets"].sum(), in_axes=(axes,))(
        stacked
    )
    assert sums.shape == (2,)


def test_frozen_dataclasses_work_too():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Frozen(Line):
        x: jax.Array
        settings: dict

    task = Frozen(jnp.ones(300), {"slope": 1.0})
    doubled = jax.tree.map(lambda x: 2 * x, task)
    np.testing.assert_array_equal(doubled.x, 2.0)
    assert dataclasses.replace(doubled, settings={"slope": 3.0}).settings == {"slope": 3.0}


def test_clip_normalized_is_total():
    given = jnp.array([0.0, 1.0, 1.4, 1.6, jnp.inf, -jnp.inf, jnp.nan])
    np.testing.assert_allclose(base.clip_normalized(given), [0, 1, 1.4, 1.5, 1.5, 1.5, 1.5])


class NoName(Line):
    name = None


class IntegerParams(Line):
    def init(self, key):
        return {"slope": jnp.zeros((), int)}


class NoParams(Line):
    def init(self, key):
        return {}


class VectorLoss(Line):
    def loss(self, params, key, batch):
        return params["slope"] * batch, {}


class PythonBranch(Line):
    def loss(self, params, key, batch):
        return (batch.sum() if params["slope"] > 0 else batch.mean()), {}


class ForgotSplit(Line):
    def eval_batch(self, split):
        return {"train": self.x, "valid": self.x}[split]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (NoName(), "`name` must be a string"),
        (IntegerParams(), r"parameter \['slope'\] is int32"),
        (NoParams(), "`init` returned no parameters"),
        (VectorLoss(), r"floats of shape \[\], not float32\[16\]"),
        (PythonBranch(), "cannot be traced by JAX: TracerBoolConversionError"),
        (ForgotSplit(), "cannot be traced by JAX: KeyError: 'test'"),
        ("digits_mlp", r"no veldt.Task \(it is a str\)"),
    ],
)
def test_check_task_says_what_is_wrong(broken, message):
    with pytest.raises(errors.TaskError, match=message):
        base.check_task(broken)


def test_check_task_returns_a_good_task():
    task = Line()
    assert base.check_task(task) is task
