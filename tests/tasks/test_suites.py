"""Suites name shipped tasks, each once, of many kinds; what is wrong with one is said."""

import jax
import pytest

from veldt.tasks import registry, suites
from veldt.tasks.common import errors

KIND_OF = {factory.__name__: kind for kind, row in registry.KINDS.items() for factory in row}


def kinds(suite):
    return {KIND_OF[entry.task] for entry in suite.tasks}


def test_suites_hold_shipped_tasks_that_need_no_files_but_full():
    for name, suite in suites.SUITES.items():
        assert suites.load_suite(name) is suite
        assert suite.name == name
        assert suite.description
        tasks = {entry.task for entry in suite.tasks}
        assert len(tasks) == len(suite.tasks)
        assert tasks <= set(registry.TASKS)
        # The char_ tasks' text differs between machines.
        assert not any(task.startswith("char_") for task in tasks)
        if name != "full":
            assert not any(task.startswith("fashion_") for task in tasks)


def test_suites_have_the_sizes_promised():
    smoke, small, full = (suites.SUITES[name] for name in ("smoke", "small", "full"))
    assert 3 <= len(smoke.tasks) <= 4
    assert len(kinds(smoke)) == len(smoke.tasks)
    assert len(small.tasks) >= 12
    assert kinds(small) == set(registry.KINDS)
    assert len(full.tasks) >= 30
    assert len([entry for entry in full.tasks if not entry.task.startswith("fashion_")]) >= 30
    assert set(small.tasks) <= set(full.tasks)


def test_the_tasks_of_small_differ_in_size_batch_and_horizon():
    small = suites.SUITES["small"]
    assert len({entry.num_steps for entry in small.tasks}) >= 4
    tasks = [registry.load_task(entry.task) for entry in small.tasks]
    key = jax.random.key(0)
    batches = [jax.tree.leaves(jax.eval_shape(task.train_batch, key))[0] for task in tasks]
    assert len({batch.shape[0] for batch in batches}) >= 5
    params = [jax.tree.leaves(jax.eval_shape(task.init, key)) for task in tasks]
    sizes = [sum(leaf.size for leaf in leaves) for leaves in params]
    assert max(sizes) / min(sizes) > 500


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((), "suite 'mine' has no tasks"),
        (
            (suites.SuiteTask("a", 1), suites.SuiteTask("b", 1), suites.SuiteTask("a", 2)),
            "suite 'mine' names a twice",
        ),
        ((suites.SuiteTask("a", 0),), "task 'a' has num_steps 0; it must be at least 1"),
    ],
)
def test_a_wrong_suite_says_what_is_wrong(tasks, message):
    with pytest.raises(errors.TaskError, match=message):
        suites.Suite("mine", "own tasks", tasks)


def test_an_unknown_suite_gets_the_nearest_spelling():
    with pytest.raises(errors.TaskError, match=r"'smal' \(did you mean 'small'\?\).*smoke, small"):
        suites.load_suite("smal")
