"""Finding tasks by name, the user's own among them, and what is said when that fails."""

import pathlib
import sys
import textwrap

import pytest

from veldt.tasks import base, registry
from veldt.tasks.common import errors
from veldt.tasks.data import dataset

OWN_TASK = """
import jax
import jax.numpy as jnp
from own_helpers import SLOPE
from veldt.tasks import base


class Line(base.Task):
    name = "line"

    def __init__(self):
        self.x = jnp.linspace(-1.0, 1.0, 30)

    def init(self, key):
        return {"slope": jnp.zeros(())}

    def loss(self, params, key, batch):
        return jnp.mean((params["slope"] * batch - SLOPE * batch) ** 2), {}

    def train_batch(self, key):
        return jax.random.choice(key, self.x[:20], (16,))

    def eval_batch(self, split):
        return {"train": self.x[:20], "valid": self.x[20:25], "test": self.x[25:]}[split]

    def normalizer(self, loss):
        return base.clip_normalized(loss)


class Vector(Line):
    def loss(self, params, key, batch):
        return params["slope"] * batch, {}


def fails():
    raise RuntimeError("no GPU for you")


def returns_none():
    return None


NUMBER = 3
"""


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A current directory with modules of the user's; they are forgotten afterwards."""
    modules = {
        "own_tasks": OWN_TASK,
        "own_helpers": "SLOPE = 2.0",
        "own_broken": "1 / 0",
        "own_needs_more": "import a_package_that_nobody_has",
    }
    for module, text in modules.items():
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for module in modules:
        sys.modules.pop(module, None)


def test_unknown_names_get_the_nearest_spelling_and_the_list():
    with pytest.raises(errors.UnknownTaskError) as caught:
        registry.load_task("digits_mpl")
    message = str(caught.value)
    assert "unknown task 'digits_mpl' (did you mean 'digits_mlp'?)" in message
    assert "char_transformer" in message
    assert "module:factory" in message


def test_a_task_of_the_users_own_is_found_in_the_current_directory(own_folder):
    path_before = list(sys.path)
    task = registry.load_task("own_tasks:Line")
    assert isinstance(task, base.Task)
    assert task.name == "line"
    assert sys.path == path_before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own_task:Line",
            r"No module named 'own_task' \(did you mean 'own_tasks'\?\); looked in the current dir",
        ),
        ("own_tasks:Lime", r"no function or class 'Lime' \(did you mean 'Line'\?\)"),
        ("own_tasks:NUMBER", "no function or class 'NUMBER'"),
        ("own_tasks:fails", r"fails\(\) failed: RuntimeError: no GPU for you"),
        ("own_tasks:returns_none", r"is no usable task: None is no veldt.Task"),
        ("own_tasks:Vector", r"is no usable task: task 'line': `loss` and `normalizer` must"),
        ("own_broken:Line", "importing own_broken failed: ZeroDivisionError"),
        ("own_needs_more:Line", "No module named 'a_package_that_nobody_has'"),
        ("own_tasks.py:Line", r"No module named 'own_tasks.py'"),
        ("./own_tasks:Line", 'write "module:factory"'),
        ("own_tasks:", 'write "module:factory"'),
        (":Line", 'write "module:factory"'),
        ("own_tasks:Line:x", 'write "module:factory"'),
    ],
)
def test_what_is_wrong_with_an_own_task_is_said(own_folder, name, message):
    path_before = list(sys.path)
    with pytest.raises(errors.TaskError, match=message) as caught:
        registry.load_task(name)
    assert repr(name) in str(caught.value)
    assert sys.path == path_before


def test_the_packages_are_not_importable_a_second_time(monkeypatch):
    checkout = pathlib.Path(registry.__file__).resolve().parent.parent
    monkeypatch.chdir(checkout)
    with pytest.raises(errors.TaskError, match=r"write 'veldt.tasks.shipped.images:digits_mlp'"):
        registry.load_task("tasks.shipped.images:digits_mlp")
    assert "tasks" not in sys.modules
    assert registry.load_task("veldt.tasks.shipped.images:digits_mlp").name == "digits_mlp"


def test_the_list_describes_every_task(monkeypatch, tmp_path):
    monkeypatch.setattr(dataset, "_DEBIAN_FASHION", tmp_path)
    rows = {row.name: row for row in registry.list_tasks()}
    assert list(rows) == list(registry.TASKS)
    assert rows["digits_mlp"].num_params == 64 * 32 + 32 + 32 * 10 + 10
    assert rows["digits_mlp"].batch_shape == (64, 64)
    assert all(row.description.endswith(".") for row in rows.values())
    assert {row.kind for row in rows.values()} == set(registry.KINDS)
    assert rows["digits_vae"].kind == "variational autoencoder"
    assert rows["fashion_mlp"].num_params is None
    assert "apt-get install" in rows["fashion_mlp"].missing
    assert not rows["char_gru"].missing


def test_the_families_are_families_of_their_name():
    for name, make in registry.TASK_FAMILIES.items():
        family = make()
        assert isinstance(family, base.TaskFamily)
        assert family.name == name
