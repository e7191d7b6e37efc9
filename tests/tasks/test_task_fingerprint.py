"""Fingerprints change with what a task is, and with nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks import registry, task_fingerprint
from veldt.tasks.shipped import control, image_models, quadratic


@pytest.fixture(scope="module")
def task():
    return registry.load_task("digits_mlp")


@pytest.fixture(scope="module")
def print_of_task(task):
    return task_fingerprint.fingerprint(task)


def test_it_is_short_and_the_same_twice(task, print_of_task):
    assert len(print_of_task) < 120
    assert print_of_task.isascii()
    jax.random.normal(jax.random.key(5)) + jnp.ones(3)  # what else ran plays no part
    assert task_fingerprint.fingerprint(registry.load_task("digits_mlp")) == print_of_task
    assert task_fingerprint.matches(print_of_task, print_of_task)


def test_the_name_plays_no_part(task, print_of_task):
    renamed = dataclasses.replace(task, name="something_else")
    assert task_fingerprint.matches(task_fingerprint.fingerprint(renamed), print_of_task)


def changed_pixels(task):
    train = task.splits["train"]
    return {**task.splits, "train": train._replace(inputs=train.inputs * 1.01)}


def swapped_labels(task):
    """Two examples that no fixed batch shows change their labels: only the exact part sees it."""
    train = task.splits["train"]
    targets = np.array(train.targets)
    targets[[-1, -2]] = (targets[[-1, -2]] + 1) % 10
    return {**task.splits, "train": train._replace(targets=jnp.asarray(targets))}


@pytest.mark.parametrize(
    "change",
    [
        lambda task: {"module": image_models.Mlp((33, 10))},
        lambda task: {"module": image_models.Mlp((32, 10), jnp.tanh)},
        lambda task: {"module": image_models.Mlp((32, 10), output_variance=0.9)},
        lambda task: {"batch_size": 32},
        lambda task: {"eval_size": 100},
        lambda task: {"criterion": lambda logits, labels: 1.002 * task.criterion(logits, labels)},
        lambda task: {"reference_loss": 1.01 * task.reference_loss},
        lambda task: {"splits": changed_pixels(task)},
        lambda task: {"splits": swapped_labels(task)},
    ],
)
def test_it_changes_with_model_data_loss_and_scale(task, print_of_task, change):
    other = dataclasses.replace(task, **change(task))
    assert not task_fingerprint.matches(task_fingerprint.fingerprint(other), print_of_task)


def test_gradients_count_too(task, print_of_task):
    """The ES-estimated task differs from its own by the step alone."""
    es = task_fingerprint.fingerprint(registry.load_task("digits_mlp_es"))
    assert es.split(":")[0] == print_of_task.split(":")[0]
    assert not task_fingerprint.matches(es, print_of_task)


def test_tasks_that_make_their_data_have_fingerprints():
    stiff = task_fingerprint.fingerprint(quadratic.quadratic_stiff())
    assert not task_fingerprint.matches(stiff, task_fingerprint.fingerprint(quadratic.quadratic()))
    assert task_fingerprint.matches(
        stiff, task_fingerprint.fingerprint(quadratic.quadratic_stiff())
    )
    cart = task_fingerprint.fingerprint(control.cartpole_policy())
    assert task_fingerprint.matches(cart, task_fingerprint.fingerprint(control.cartpole_policy()))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("ab:+1.00000e+00,+2.0e+00", "ab:+1.00005e+00,+2.0e+00", True),  # rounding of a machine
        ("ab:+1.00000e+00,+2.0e+00", "ab:+1.00020e+00,+2.0e+00", False),
        ("ab:+1.00000e+00,+2.0e+00", "ac:+1.00000e+00,+2.0e+00", False),
        ("ab:+1.00000e+00,+2.0e+00", "ab:+1.00000e+00", False),
        ("ab:+nan", "ab:+nan", True),
        ("ab:+nan", "ab:+1.0e+00", False),
        ("ab:", "ab:", False),
        ("ab:x", "ab:x", False),
        ("", "", False),
    ],
)
def test_matching_is_exact_in_the_hash_and_tolerant_in_the_losses(first, second, expected):
    assert task_fingerprint.matches(first, second) is expected
