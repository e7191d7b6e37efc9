"""Suites name shipped tasks, each once, of many kinds; what is wrong with one is said."""

import jax
import pytest
import yaml

from veldt import config
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
    smoke, small, full, unseen = suites.SUITES.values()
    assert 3 <= len(smoke.tasks) <= 4
    assert len(kinds(smoke)) == len(smoke.tasks)
    assert len(small.tasks) >= 12
    assert len(kinds(small)) == len(small.tasks)
    assert kinds(small) | kinds(unseen) == set(registry.KINDS)
    assert len(unseen.tasks) >= 13
    assert len(full.tasks) >= 30
    assert len([entry for entry in full.tasks if not entry.task.startswith("fashion_")]) >= 30
    assert set(small.tasks) <= set(full.tasks)


def named_tasks(node):
    """Every task that a config names, anywhere in it."""
    if isinstance(node, dict):
        found = {node["task"]} if isinstance(node.get("task"), str) else set()
        return found.union(*map(named_tasks, node.values()))
    return set().union(*map(named_tasks, node)) if isinstance(node, list) else set()


def test_no_shipped_config_trains_on_the_unseen_or_chooses_by_them():
    """Whatever the engine: tasks, meta-validation and the stages of the finals."""
    unseen = {entry.task for entry in suites.SUITES["unseen"].tasks}
    configs = [yaml.safe_load(path.read_text()) for path in config.CONFIG_DIR.glob("*.yaml")]
    named = [named_tasks(content) for content in configs]
    assert len([tasks for tasks in named if tasks]) >= 5
    assert not unseen & set().union(*named)


def test_the_unseen_share_no_data_with_what_searches_train_on():
    for entry in suites.SUITES["unseen"].tasks:
        assert not entry.task.startswith(("digits", "letters", "breast", "char", "quadratic"))


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
