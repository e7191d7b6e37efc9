"""Tasks of meta-validation: whole tasks, always the same, apart from what is trained on."""

import jax
import numpy as np
import pytest

from veldt import config
from veldt.meta.train.config import MetaTrainConfig
from veldt.tasks import base, registry, suites
from veldt.tasks.families import checks

NAMES = ("clutter_mlp", "clutter_conv", "clutter_autoencoder", "diabetes_mlp")


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_whole_and_always_the_same(name):
    task, again = (base.check_task(getattr(checks, name)()) for _ in range(2))
    first, second = (jax.tree.leaves(each.eval_batch("valid")) for each in (task, again))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_validated_on_is_in_no_suite_and_its_data_in_no_family():
    settings = config.load_config(MetaTrainConfig, "scaled")
    scored = {entry.task for suite in suites.SUITES.values() for entry in suite.tasks}
    names = {check.task for check in settings.meta_validation}
    assert not names & scored
    assert {name.partition(":")[2] for name in names if ":" in name} == set(NAMES)
    assert all(isinstance(registry.load_task(name), base.Task) for name in names)
    drawn = {*settings.tasks.images, *settings.tasks.texts, *settings.tasks.tables}
    assert not drawn & {"clutter", "diabetes", "digits", "jargon"}
