"""Costs of a step: measured in turns with Adam, and the bytes of state counted."""

import jax
import pytest

from veldt.tasks import registry
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.runs import costs


@pytest.mark.parametrize(
    ("name", "per_parameter", "beside"),
    [
        ("sgd_momentum", 4, 0),
        ("adam", 8, 4),
        ("lion", 4, 4),
        ("schedule_free_adamw", 8, None),
    ],
)
def test_bytes_of_state_are_those_of_the_arrays(name, per_parameter, beside):
    task = registry.load_task("quadratic")
    num_params = sum(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0)))
    )
    found = costs.state_bytes(task, baselines.BASELINES[name]) * num_params
    extra = found - per_parameter * num_params
    assert extra == beside if beside is not None else 0 < extra < 64


def test_a_cost_is_measured_in_turns_with_adam():
    task = registry.load_task("breast_cancer_logistic")
    calls = []
    runner = costs.adam_runner(task)

    def adam():
        calls.append(runner)
        runner()

    found = costs.measure(task, baselines.BASELINES["lion"], adam)
    assert found.step_ratio > 0
    assert found.state_bytes == costs.state_bytes(task, baselines.BASELINES["lion"])
    assert len(calls) > costs.NUM_ROUNDS  # Once to see how long it takes, then in every round.
