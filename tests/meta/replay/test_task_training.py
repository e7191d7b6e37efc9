"""Training a task, as a training: against the inner loop that every engine uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.replay import trainings
from veldt.meta.replay import programs, states
from veldt.meta.replay import task_training as training
from veldt.tasks.inner_loop import unroll

NUM_STEPS = 7
Z = trainings.meta_params("momentum")


def run(**options):
    task_training = trainings.curve("momentum", NUM_STEPS, **options)
    spec = states.StateSpec.of(task_training.init, Z)
    return programs.run(spec, task_training, Z)


@jax.jit
def unrolled(task, key):
    tx = trainings.TRANSFORMS["momentum"](Z)
    state, losses = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=NUM_STEPS)
    return state.params, losses, unroll.evaluate(task, state.params, key, "valid")


@pytest.fixture(scope="module")
def expected():
    keys = [jax.random.key(seed) for seed in (0, 5)]
    return [unrolled(trainings.Curve(), key) for key in keys]


def test_it_is_the_inner_loop_and_the_mean_over_seeds(expected):
    outcome, params = run(seeds=(0, 5))
    for i, (theirs, _, _) in enumerate(expected):
        for ours, other in zip(jax.tree.leaves(params), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(ours[i], other, rtol=1e-5, atol=1e-7)
    assert outcome == pytest.approx(np.mean([float(valid) for _, _, valid in expected]), rel=1e-5)


def test_the_last_window_is_the_mean_of_its_losses(expected):
    outcome, _ = run(seeds=5, objective=training.LastWindow(3))
    assert outcome == pytest.approx(float(np.mean(expected[1][1][-3:])), rel=1e-5)


def largest(task, params, key):
    return jnp.max(jnp.abs(params["out"]))


def test_the_outcome_may_be_any_function(expected):
    outcome, _ = run(objective=largest)
    assert outcome == pytest.approx(float(np.abs(expected[0][0]["out"]).max()), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps=0"),
        ({"seeds": ()}, "number of seeds"),
        ({"objective": training.LastWindow(8)}, "from 1 to 7"),
        ({"objective": "test"}, "valid"),
    ],
)
def test_bad_settings_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        trainings.curve("momentum", **{"num_steps": NUM_STEPS, **options})
