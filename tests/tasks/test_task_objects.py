"""Tasks given as objects: their names in configs, what a run keeps of them, and other processes."""

import dataclasses
import json
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta import toys
from veldt.tasks import registry, task_objects
from veldt.tasks.common.disk import run_directory
from veldt.tasks.common.disk.run_directory import RunDirectory, Terms
from veldt.tasks.common.errors import FileError, TaskError
from veldt.tasks.task_objects import TaskObjects


@dataclasses.dataclass(frozen=True)
class Config:
    task: str


TERMS = Terms("tune", Config)


class Guarded(toys.Bowl):
    """A task that no other process can have."""

    def __init__(self):
        super().__init__(name="guarded")
        self.lock = threading.Lock()


def test_objects_get_names_wherever_they_are():
    bowl, other = toys.Bowl(), toys.Bowl(name="a second: one")
    given = {"tasks": [{"task": bowl}, (other, 3), "digits_mlp"], "stages": ({"tasks": [bowl]},)}
    plain, objects = TaskObjects.collect(given)
    assert plain == {
        "tasks": [{"task": "object:bowl"}, ("object:a_second_one", 3), "digits_mlp"],
        "stages": ({"tasks": ["object:bowl"]},),
    }
    assert objects.load("object:bowl") is bowl
    assert objects.load("object:a_second_one") is other
    assert objects.load("quadratic").name == "quadratic"
    assert TaskObjects.collect({"x": 1})[0] == {"x": 1}
    assert task_objects.NONE.fingerprints() == {}


def test_what_is_no_task_object_is_said():
    with pytest.raises(TaskError, match=r"Bowl is a class of tasks: give an instance, Bowl\(\)"):
        TaskObjects.collect([toys.Bowl])
    with pytest.raises(TaskError, match="two tasks are named 'bowl'"):
        TaskObjects.collect([toys.Bowl(), toys.Bowl(2.0)])

    class Wrong(toys.Bowl):
        def loss(self, params, key, batch):
            return params

    with pytest.raises(TaskError, match=r"`loss` must return the pair \(loss, aux\)"):
        TaskObjects.collect([Wrong()])


def test_a_name_without_its_object_says_what_to_do():
    for function in (registry.load_task, registry.check_name, task_objects.NONE.load):
        with pytest.raises(TaskError, match=r"'spiral' was given to Python as an object.*resume="):
            function("object:spiral")


def begin(path, objects, *, resume=False):
    """Begin a run, or go on with it, as engines do."""
    if resume:
        objects.check_stored(path)
    with RunDirectory(path, TERMS, Config("object:bowl"), objects.fingerprints()) as directory:
        directory.begin(holds_run=resume, resume=resume)
    return run_directory.read_record(path)


def test_a_run_goes_on_with_the_same_task_alone(tmp_path):
    def of(curvature):
        return TaskObjects({"object:bowl": toys.Bowl(curvature)})

    first = begin(tmp_path, of(1.0))
    assert set(first.task_objects) == {"object:bowl"}
    assert begin(tmp_path, of(np.float32(1.0)), resume=True) == first
    assert begin(tmp_path, of(jnp.float32(1.0 + 1e-6)), resume=True) == first  # By rounding.
    with pytest.raises(FileError, match="holds a run on another task 'bowl'"):
        begin(tmp_path, of(1.5), resume=True)
    assert run_directory.read_record(tmp_path) == first


def test_a_run_without_objects_is_written_as_before(tmp_path):
    record = begin(tmp_path, task_objects.NONE)
    assert record.task_objects is None
    assert "task_objects" not in json.loads((tmp_path / "run.json").read_text())


def test_a_task_that_cannot_be_sent_is_refused():
    TaskObjects({"object:bowl": toys.Bowl()}).check_sendable()
    # As in a notebook, whose classes no worker can import.
    made = type("Local", (toys.Bowl,), {"__module__": "__main__"})
    TaskObjects({"object:bowl": made()}).check_sendable()
    with pytest.raises(TaskError, match=r"cannot be sent to Ray's workers.*module:factory"):
        TaskObjects({"object:guarded": Guarded()}).check_sendable()
