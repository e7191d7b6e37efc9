"""A rule's exported file as the optimizer of `veldt tune`: it gets the run's length and loss."""

import jax
import numpy as np
import pytest

import veldt
from veldt.meta.tune import config, problem
from veldt.meta.tune.training.hyperparameters import Hyperparameter
from veldt.search.export.optax_module import export_optax

RULE = """\
def decayed(w, g, m, *, b=0.9):
    m = interp(g, m, b)
    return (1 - progress) * m * (loss / (loss + 0.1)), m
"""


@pytest.fixture
def exported(tmp_path, monkeypatch):
    (tmp_path / "decayed_file.py").write_text(export_optax(veldt.Program.parse(RULE)))
    monkeypatch.chdir(tmp_path)
    return "decayed_file:decayed"


def test_a_rule_that_reads_both_is_tuned(exported):
    settings = config.TuneConfig(
        task="quadratic",
        optimizer=exported,
        num_steps=20,
        tune={"learning_rate": Hyperparameter(start=0.05)},
        seeds=1,
        check_seeds=1,
    )
    training = problem.Problem(settings).check()
    meta_params = problem.Problem(settings).meta_params
    found = veldt.metagradient(training, meta_params, key=jax.random.key(0))
    # The metagradient is that of the whole run: finite differences agree.
    moved = {sign: {k: v + sign * 1e-3 for k, v in meta_params.items()} for sign in (-1, 1)}
    outcomes = {
        sign: float(veldt.metagradient(training, at, key=jax.random.key(0)).outcome)
        for sign, at in moved.items()
    }
    (name,) = meta_params
    slope = (outcomes[1] - outcomes[-1]) / 2e-3
    np.testing.assert_allclose(float(np.ravel(found.gradient[name])[0]), slope, rtol=0.02)
