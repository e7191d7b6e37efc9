"""Rules that read the run's progress and its loss, from the program to what a user gets.

Oracles: Optax's own Muon with Optax's own schedule; the known optimum of a convex task.
"""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from veldt.search.export.optax_module import export_optax
from veldt.tasks import base, suites
from veldt.tasks.suites import SuiteTask

NUM_STEPS = 300
RATE = 0.02


def exported(name: str, folder: Path) -> Any:
    """The factory of a rule's exported file, imported as its user would."""
    path = folder / f"{name}_file.py"
    path.write_text(export_optax(veldt.load_rule(name)))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.mark.parametrize("source", ["program", "file"])
def test_muon_with_its_decay_inside_is_optaxs_muon_with_optaxs_schedule(
    source: str, tmp_path: Path, x64: Any
) -> None:
    """Over 300 steps of a regression, in float64: parameters and not just single updates."""
    factory = veldt.load_rule("muon_linear").as_optax
    if source == "file":
        factory = exported("muon_linear", tmp_path)
    linear = optax.linear_schedule(RATE, 0.0, NUM_STEPS)
    with x64():
        # Progress counts the step being made, Optax's schedule those before it; an integer count
        # would make the schedule float32.
        theirs = optax.contrib.muon(lambda count: linear(count + 1.0))
        rng = np.random.default_rng(0)
        params = {"w": jnp.asarray(rng.normal(size=(6, 4))), "b": jnp.zeros(4)}
        x, y = jnp.asarray(rng.normal(size=(64, 6))), jnp.asarray(rng.normal(size=(64, 4)))

        def loss(params: Any) -> Any:
            return jnp.mean((jnp.tanh(x @ params["w"]) + params["b"] - y) ** 2)

        def run(tx: Any) -> Any:
            def step(carry: Any, _: None) -> tuple[Any, Any]:
                params, state = carry
                updates, state = tx.update(jax.grad(loss)(params), state, params)
                params = optax.apply_updates(params, updates)
                return (params, state), params

            return jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=NUM_STEPS)[1])(
                params
            )

        ours = run(factory(RATE, num_steps=NUM_STEPS))
        expected = run(theirs)
        for name, path in expected.items():
            assert path.dtype == jnp.float64 and path.shape[0] == NUM_STEPS
            np.testing.assert_allclose(ours[name], path, rtol=0, atol=1e-11)
        # The last step is of length zero; the one before is not.
        moves = np.abs(np.diff(np.asarray(expected["w"]), axis=0)).max(axis=(1, 2))
        assert moves[-1] == 0.0 and moves[-2] > 0.0


class Regression(base.Task):
    """Least squares that can be solved exactly: the lowest loss is 0, and there is no noise."""

    name = "regression"

    def __init__(self, scale: float = 1.0) -> None:
        rng = np.random.default_rng(3)
        self.x = jnp.asarray(scale * rng.normal(size=(40, 8)), jnp.float32)
        self.y = self.x @ jnp.asarray(rng.normal(size=8), jnp.float32)

    def init(self, key: Any) -> Any:
        return {"w": jax.random.normal(key, (8,))}

    def loss(self, params: Any, key: Any, batch: Any) -> Any:
        return jnp.mean((self.x @ params["w"] - self.y) ** 2) + 0.0 * batch, {}

    def normalizer(self, loss: Any) -> Any:
        return base.clip_normalized(loss / jnp.mean(self.y**2))

    def train_batch(self, key: Any) -> Any:
        return jnp.zeros(())

    def eval_batch(self, split: Any) -> Any:
        return jnp.zeros(())


@pytest.mark.parametrize("source", ["program", "file"])
@pytest.mark.parametrize("name", ["polyak", "momo"])
def test_a_polyak_rule_reaches_the_optimum_at_any_scale_of_the_problem(
    name: str, source: str, tmp_path: Path
) -> None:
    """One rate, 1, for problems whose best constant rates differ ten thousandfold."""
    rule = veldt.load_rule(name)
    constants = {"max_rate": 1e9} if name == "polyak" else {"rate": 1e9}
    factory = rule.as_optax if source == "program" else exported(name, tmp_path)
    for scale in (0.1, 1.0, 10.0):
        task = Regression(scale)
        curve = veldt.train(task, factory(1.0, **constants), num_steps=400, seed=0)
        start = float(curve.valid_losses[0])
        assert curve.final_valid_loss < 1e-4 * start, (name, scale)
        assert not curve.hollow
    plain = veldt.train(Regression(0.1), optax.sgd(0.01), num_steps=400, seed=0)
    assert plain.final_valid_loss > 0.1 * plain.valid_losses[0]


BOTH = """\
def both(w, g):
    return (1 - 0.5 * progress) * g * (loss / (square(global_norm(g)) + 1e-12))
"""


def test_evaluate_gives_the_loss_and_the_length(tmp_path: Path) -> None:
    """The benchmark trains rules that read both, as programs and as exported files, at one rate."""
    rule = veldt.Program.parse(BOTH)
    (tmp_path / "both_file.py").write_text(export_optax(rule, learning_rate=1.0))
    task = SuiteTask(f"{__name__}:Regression", 200)
    results = veldt.evaluate(
        {"both": rule, "file": tmp_path / "both_file.py", "polyak": "polyak", "sgd": optax.sgd},
        suite=suites.Suite("convex", "One convex task.", (task,)),
        rates=(1.0,),
        step_times=False,
        baselines=False,
    )
    scores = {row.name: row.tasks[0] for row in results.rows}
    for name in ("both", "file", "polyak"):
        assert not scores[name].failed and scores[name].diverged == scores[name].hollow == 0.0
        assert scores[name].train < 1e-3
    assert scores["both"].train_loss == pytest.approx(scores["file"].train_loss, rel=1e-4)
    assert scores["sgd"].diverged == 1.0  # at this rate
