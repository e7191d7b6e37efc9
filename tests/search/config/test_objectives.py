"""Objectives: each against training that this file does by itself, in a search and out of one."""

import json
import math

import jax
import pytest

from tests.search import fakes, rerun
from veldt.search import rule_sources
from veldt.search.config import objectives, search_config
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.objectives import Training
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import SearchError
from veldt.search.evaluation.evaluator import Evaluator, EvaluatorFactory
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun, Status
from veldt.search.evaluation.proxy_loop import ProxyLoop
from veldt.search.report import search_report
from veldt.search.run import run_search
from veldt.search.runtime.encode import Capacity
from veldt.search.storage.store import Store
from veldt.tasks import registry
from veldt.tasks.common.errors import FileError
from veldt.tasks.inner_loop import unroll
from veldt.tasks.pool.config import PoolConfig

PROXY = ProxyConfig("quadratic", 60, 3)
RATE = 0.05


COMPILED = {}


def worker(objective):
    """An evaluator; all of this file's share what they compile, which no objective changes."""
    loop = ProxyLoop(PROXY, Capacity(), 5, objectives.load(objective))
    loop._compiled = COMPILED
    return Evaluator([loop])


def evaluate(objective, rate=RATE, hurdle=(), rule="adamw", seed=3):
    genotype = Genotype(rule_sources.load_rule(rule), rate)
    return worker(objective)(EvalJob(genotype, (ProxyRun(0, seed),), hurdle))


@pytest.fixture(scope="module")
def native():
    """Normalised (training, validation) loss of AdamW, as a function of the rate."""
    task = registry.load_task("quadratic")

    @jax.jit
    def train(task, rate):
        tx = rule_sources.load_rule("adamw").as_optax(rate)
        key = jax.random.fold_in(jax.random.key(5), 3)
        state, losses = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=60)
        valid = unroll.evaluate(task, state.params, key, "valid")
        return task.normalizer(losses[40:].mean()), task.normalizer(valid)

    return lambda rate: tuple(float(x) for x in train(task, rate))


def test_train_loss_is_that_of_the_last_batches(native):
    outcome = evaluate("train_loss")
    assert outcome.fitness == pytest.approx(math.log(native(RATE)[0]), rel=1e-4)
    assert len(outcome.runs[0].log_losses) == 3 and outcome.runs[0].num_steps == 60
    # The hurdle is of the same loss: validation's, which here is another, would not do.
    passing = (tuple(loss + 1e-6 for loss in outcome.runs[0].log_losses),)
    assert evaluate("train_loss", hurdle=passing).status is Status.OK
    assert native(RATE)[0] != pytest.approx(native(RATE)[1], rel=1e-3)


def test_robustness_is_the_mean_over_learning_rates(native):
    outcome = evaluate("lr_robustness")
    losses = [math.log(native(RATE * 2.0**i)[1]) for i in range(-2, 3)]
    assert outcome.fitness == pytest.approx(sum(min(loss, 0.0) for loss in losses) / 5, rel=1e-4)
    assert outcome.runs[0].num_steps == 5 * 60
    assert outcome.runs[0].log_losses[-2] == pytest.approx(math.log(native(RATE)[1]), rel=1e-4)
    # The score has a hurdle of its own, beyond those of the checks.
    *checks, score = outcome.runs[0].log_losses
    hurdle = (*(loss + 1.0 for loss in checks), score - 1e-6)
    assert evaluate("lr_robustness", hurdle=(hurdle,)).status is Status.REJECTED


def test_rates_that_diverge_count_as_nothing_learnt():
    def training(valid):
        return Training("t", 0, 0.1, 2, (1, 2), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, valid))

    trained = [training(math.exp(-2)), None, training(1.4), training(0.0), None]
    floor = objectives.MIN_LOG_LOSS
    score = objectives.load("lr_robustness").score(trained)
    assert score == pytest.approx((-2.0 + 0.0 + 0.0 + floor + 0.0) / 5)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Writes a module `own_objectives` into the current directory."""
    (tmp_path / "own_objectives.py").write_text(
        "import math\n"
        "def late(run):\n"
        "    assert run.steps == (20, 40, 60) and run.task == 'quadratic' and run.seed == 3\n"
        "    return math.log(run.valid[0]) + run.train[-1] - run.learning_rate\n"
        "def broken(run):\n"
        "    return float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)


def test_a_function_of_the_user_scores_a_run(own_module, native):
    outcome = evaluate("own_objectives:late")
    first = evaluate("held_out_loss").runs[0].log_losses[0]
    assert outcome.fitness == pytest.approx(first + native(RATE)[0] - RATE, rel=1e-4)
    broken = evaluate("own_objectives:broken")
    assert broken.status is Status.DIVERGED and broken.fitness is None
    with pytest.raises(SearchError, match=r"no function or class 'lat'.*late"):
        evaluate("own_objectives:lat")


def test_a_misspelt_objective_is_named_before_anything_runs():
    with pytest.raises(ValueError, match=r"'held_out'.*did you mean 'held_out_loss'"):
        fakes.small_config(objective="held_out")
    with pytest.raises(SearchError, match="train_loss, lr_robustness"):
        objectives.load("speed")


def test_a_search_keeps_to_its_objective_to_the_end(tmp_path):
    config = SearchConfig(
        tasks=(PROXY,),
        meta_validation=(),
        objective="lr_robustness",
        max_evaluations=12,
        population_size=6,
        fresh_seeds=2,
        window=4,
        hurdle=math.inf,
        finals=FinalsConfig(num_rates=2, select_seeds=1, final_seeds=2),
        pool=PoolConfig(num_workers=1),
    )
    assert EvaluatorFactory(config.evaluator)()._loops[0].objective.rate_factors[1:]
    run_search.run_search(config, tmp_path / "run", factory=lambda: worker("lr_robustness"))
    with Store.open(tmp_path / "run", read_only=True) as store:
        steps = store.rows("SELECT DISTINCT num_steps FROM evaluation WHERE status = 'ok'")
        stored = json.loads(store.meta()["config"])
    assert steps == [{"num_steps": 300}]
    assert search_config.read_stored(stored, "store").evaluator.objective == "lr_robustness"
    assert rerun.replay(tmp_path / "run", tmp_path / "again") == []
    assert "over learning rates from 1/4 to 4 times" in (tmp_path / "run" / "best.json").read_text()
    assert "over learning rates from 1/4 to 4 times" in search_report.render(tmp_path / "run")
    other = search_config.read_stored({**stored, "objective": "train_loss"}, "store")
    with pytest.raises(FileError, match='objective = "lr_robustness", not "train_loss"'):
        run_search.run_search(other, tmp_path / "run", resume=True)
