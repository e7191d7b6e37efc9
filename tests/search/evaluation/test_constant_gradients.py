"""Metagradients by a rule's numbers: right, judged, stored, and worth their price."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.search import fakes, older_stores
from veldt.search.config import finals_config, objectives
from veldt.search.config.finals_config import PRICE, FinalsConfig, TuningConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.evaluation import coordinates
from veldt.search.evaluation.constant_gradients import Gradient, GradientJob
from veldt.search.evaluation.evaluator import Evaluator
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, Outcome, ProxyRun, RunResult, Status
from veldt.search.evaluation.proxy_loop import ProxyLoop
from veldt.search.evolution import job_records
from veldt.search.finals import constant_tuning, final_runs, final_stages
from veldt.search.finals.final_runs import Contender
from veldt.search.program import Program
from veldt.search.runtime.encode import Capacity
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks import base
from veldt.tasks.inner_loop import unroll
from veldt.tasks.pool.base import JobResult, JobStatus

CURVATURES = np.array([1.0, 0.3, 0.1], np.float32)
NUM_STEPS = 12
SEEDS = (2, 5)
SEARCH_SEED = 7


class Bowl(base.Task):
    """A quadratic without noise, from a start that depends on the seed."""

    name = "bowl"

    def __init__(self):
        self.curvatures = jnp.asarray(CURVATURES)

    def init(self, key):
        # Drawing normal numbers would take longer to compile than all the rest.
        digits = jax.random.key_data(key)[0] // jnp.asarray([1, 7, 49], jnp.uint32) % 7
        return 0.7 + 0.1 * digits.astype(jnp.float32)

    def loss(self, params, key, batch):
        return 0.5 * jnp.sum(self.curvatures * params**2) + 0.0 * batch, {}

    def train_batch(self, key):
        return jnp.zeros(())

    def eval_batch(self, split):
        return jnp.zeros(())

    def normalizer(self, loss):
        return base.clip_normalized(loss)


def bowl():
    """What the proxy names."""
    return Bowl()


PROXY = ProxyConfig(f"{__name__}:bowl", NUM_STEPS, 3)
# Every kind of constant: a share, a size, one below zero, one that starts at zero.
RULE = Program.parse(
    "def rule(w, g, m, *, b=0.5, gain=1.5, flip=-0.8, wd=0.0):\n"
    "    m = b * m + gain * g\n"
    "    return wd * w - flip * m, m\n"
)
JUMP = Program.parse(
    "def rule(w, g, *, b=0.9):\n    x = 0.5 * g\n    return where(less(b, 0.9), g, x)\n"
)


@pytest.fixture(scope="module")
def worker():
    return make_worker("held_out_loss")


def make_worker(objective):
    return Evaluator([ProxyLoop(PROXY, Capacity(), SEARCH_SEED, objectives.load(objective))])


@functools.cache
def starts():
    """Where the worker's runs start, by the search's convention of keys; float64 [S, 3]."""
    base_key = jax.random.key(SEARCH_SEED)
    keys = [jax.random.fold_in(base_key, seed) for seed in SEEDS]
    idle = optax.identity()
    return np.array([unroll.init(Bowl(), idle, key).params for key in keys], np.float64)


def score(genotype, window=None):
    """The rule's score, in NumPy and float64: of the end, or of the mean of the last losses."""
    c = dict(genotype.program.constants)
    curvatures = CURVATURES.astype(np.float64)
    w, m, losses = starts(), 0.0, []
    for _ in range(NUM_STEPS):
        g = curvatures * w
        losses.append(0.5 * np.sum(g * w, axis=1))
        m = c["b"] * m + c["gain"] * g
        w = w - genotype.learning_rate * (c["wd"] * w - c["flip"] * m)
    end = 0.5 * np.sum(curvatures * w * w, axis=1)
    found = np.mean(losses[-window:], axis=0) if window else end
    return float(np.mean(np.log(np.minimum(found, 1.5))))


def slopes(point, h, **options):
    """Central differences of the score at a point, by coordinate."""
    steps = h * np.eye(len(point))
    sides = [
        [score(coordinates.decode(RULE, point + sign * step), **options) for step in steps]
        for sign in (1, -1)
    ]
    return np.subtract(*sides) / (2 * h)


def start_at(rate):
    return coordinates.encode(RULE, Genotype(RULE, rate))


def job_at(genotype, start=RULE):
    return GradientJob(start, genotype, 0, SEEDS, candidate=3)


AWAY = np.array([0.7, 1.4, -1.3, 0.4, 5.0])  # The gain, 1.5, falls below 1 and stays a size.


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_gradient_is_the_slope_of_the_score_by_coordinates(worker, shift):
    point = start_at(0.1) + shift * AWAY
    genotype = coordinates.decode(RULE, point)
    found = worker(job_at(genotype))
    assert found.score == pytest.approx(score(genotype), abs=1e-4)
    for h in (1e-2, 2.5e-3):
        np.testing.assert_allclose(found.values, slopes(point, h), rtol=2e-3, atol=2e-4)
    assert min(abs(x) for x in found.values) > 1e-3  # Every number counts.


def test_a_gradient_under_a_schedule_is_that_of_the_scheduled_training():
    """Its score is that of an evaluation, and not that at a constant rate."""
    proxy = replace(PROXY, schedule="warmup_linear")
    loss = objectives.load("held_out_loss")
    scheduled = Evaluator([ProxyLoop(proxy, Capacity(), SEARCH_SEED, loss)])
    genotype = Genotype(RULE, 0.1)
    found = scheduled(job_at(genotype))
    runs = tuple(ProxyRun(0, seed) for seed in SEEDS)
    assert found.score == pytest.approx(scheduled(EvalJob(genotype, runs)).fitness, abs=1e-4)
    assert abs(found.score - score(genotype)) > 0.01


@pytest.mark.slow
def test_the_training_loss_is_differentiated_where_it_is_the_objective():
    point = start_at(0.1)
    genotype = coordinates.decode(RULE, point)
    found = make_worker("train_loss")(job_at(genotype))
    window = NUM_STEPS // PROXY.num_chunks
    assert found.score == pytest.approx(score(genotype, window), abs=1e-4)
    np.testing.assert_allclose(
        found.values, slopes(point, 2.5e-3, window=window), rtol=2e-3, atol=2e-4
    )


def test_a_mistuned_rule_is_mended_within_the_budget(worker):
    mistuned = Genotype(RULE, 0.005)  # Of the compiled program.
    budget = 1 + 3 * (PRICE + len(finals_config.STEP_FACTORS))
    found = constant_tuning.tune(
        mistuned,
        lambda rules: [score(rule) for rule in rules],
        TuningConfig(budget=budget, method="metagradient"),
        seed=0,
        differentiate=lambda start, genotype: worker(job_at(genotype, start)).values,
    )
    assert found.score == score(found.genotype) < found.start_score - 2
    assert found.num_evaluations == budget and found.num_gradients == 3


@pytest.mark.slow
def test_a_gradient_that_is_not_the_slope_is_not_given():
    found = make_worker("held_out_loss")(job_at(Genotype(JUMP, 0.1), JUMP))
    assert found.values is None and found.score is None
    assert "differences" in found.message


# ------------------------------------------------------------------------------ in the store


class Worker:
    """`run_now` with gradients by formula, counting the jobs; `fail` says what becomes of one."""

    def __init__(self, fail=None):
        self.jobs, self.fail = [], fail

    def __call__(self, runs):
        for i, run in enumerate(runs):
            job = run.payload
            assert run.label == "gradient, #3: quadratic" or job.proxy
            self.jobs.append(job)
            values = (job.genotype.learning_rate / 3, float(len(job.seeds)), 0.1 + 0.2)
            found = Gradient(values, -1.5, "fine")
            if self.fail == "check" and job.proxy == 1:
                found = Gradient(None, None, "rough")
            status = JobStatus.TIMEOUT if self.fail == "timeout" else JobStatus.OK
            yield JobResult(i, status, found if status is JobStatus.OK else None, "late", 2.0, "w")


CONFIG = fakes.small_config(
    tasks=(ProxyConfig("quadratic", 50), ProxyConfig("digits_mlp", 30)), meta_validation=()
)
RUNS = final_runs.each_seed(range(2), job_records.SELECT_SEEDS, 3)
CONTENDER = Contender(3, "#3", RULE)


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path) as made:
        add_rule(made)
        yield made


def add_rule(store):
    with store.transaction():
        store.insert(
            "candidate", id=3, behaviour="b", program=str(RULE), learning_rate=0.1, length=1,
            status="ok", fitness=-1.0, num_steps=1, message="",
        )  # fmt: skip


def take(store, worker, genotype=None, runs=RUNS):
    genotype = genotype or Genotype(RULE, 0.1)
    return final_runs.Runs(CONFIG, store, worker).gradient(CONTENDER, RULE, genotype, runs)


def test_a_gradient_is_taken_once_and_read_back_to_the_bit(store):
    worker = Worker()
    before = integrity.problems(store)  # A candidate that nobody proposed.
    first = take(store, worker)
    assert first == (0.1 / 3, 3.0, 0.1 + 0.2)
    assert take(store, worker) == first
    assert [(job.proxy, job.seeds) for job in worker.jobs] == [
        (proxy, tuple(run.seed for run in RUNS if run.proxy == proxy)) for proxy in (0, 1)
    ]
    rows = store.rows("SELECT task, num_steps, score, status FROM gradient ORDER BY task")
    assert rows == [
        {"task": task, "num_steps": PRICE * steps * 3, "score": -1.5, "status": "ok"}
        for task, steps in (("digits_mlp", 30), ("quadratic", 50))
    ]
    assert integrity.problems(store) == before


def test_a_gradient_elsewhere_or_over_other_seeds_is_another(store):
    worker = Worker()
    take(store, worker)
    take(store, worker, Genotype(RULE, 0.2))
    assert (
        take(store, worker, runs=final_runs.each_seed(range(2), job_records.SELECT_SEEDS, 4))[1]
        == 4
    )
    assert len(worker.jobs) == 6


@pytest.mark.parametrize(
    ("fail", "status"), [("check", Status.REJECTED), ("timeout", Status.TIMEOUT)]
)
def test_a_gradient_that_failed_on_one_task_is_none_and_not_tried_again(store, fail, status):
    worker = Worker(fail)
    assert take(store, worker) is None
    assert take(store, worker) is None
    assert len(worker.jobs) == 2
    found = final_runs.stored_gradient(store, CONFIG, worker.jobs[1])
    if fail == "check":
        assert found == Gradient(None, None, "rough")
    else:
        assert found == Outcome(status, None, message="late")
    assert store.first("SELECT COUNT(*) FROM gradient WHERE status = ?", (status.value,)) >= 1


# ------------------------------------------------------------------------------ in the finals


class Killed(Exception):
    pass


class Formula:
    """`run_now` that trains nothing: the score is how far a rule's numbers are from a target."""

    def __init__(self, lifetime=10**9):
        self.jobs, self.lifetime = [], lifetime

    def __call__(self, runs):
        for i, run in enumerate(runs):
            if len(self.jobs) == self.lifetime:
                raise Killed
            self.jobs.append(run.payload)
            yield JobResult(i, JobStatus.OK, self.answer(run.payload), "", 0.1, "w")

    def answer(self, job):
        if isinstance(job, GradientJob):
            return Gradient(tuple(2 * self.offset(job.start, job.genotype)), -1.0, "fine")
        value = float(np.sum(self.offset(RULE, job.genotype) ** 2))
        return Outcome.of([RunResult(r, Status.OK, 1.0, (value,), 10, 0.1) for r in job.runs])

    def offset(self, start, genotype):
        return coordinates.encode(start, genotype) - start_at(0.1) - AWAY


def play(store, run_now):
    finals_config = FinalsConfig(
        baselines=(), num_rates=1, lowest_rate=0.1, final_seeds=1,
        tuning=TuningConfig(budget=25, method="metagradient"),
    )  # fmt: skip
    config = replace(CONFIG, finals=finals_config)
    return final_stages.Finals(config, 3, store, run_now).run()


def kinds(jobs):
    return ["gradient" if isinstance(job, GradientJob) else job.purpose for job in jobs]


def test_finals_take_metagradients_and_go_on_after_any_job(store, tmp_path_factory):
    whole = Formula()
    (expected,) = play(store, whole)
    one_step = ["gradient"] * 2 + ["tuning"] * len(finals_config.STEP_FACTORS)
    assert kinds(whole.jobs) == ["select", "tuning", *one_step, *one_step, "final"]
    assert expected.select < whole.answer(whole.jobs[1]).fitness
    again = Formula()
    assert play(store, again) == [expected] and not again.jobs
    for lifetime in range(len(whole.jobs)):
        with Store.create(tmp_path_factory.mktemp("other")) as other:
            add_rule(other)
            cut = Formula(lifetime)
            with pytest.raises(Killed):
                play(other, cut)
            rest = Formula()
            assert play(other, rest) == [expected]
            assert kinds(cut.jobs + rest.jobs) == kinds(whole.jobs)


@pytest.mark.parametrize("lifetime", [2, 7, 14])
def test_finals_along_metagradients_begun_by_version_5_are_tuned_anew(
    store, tmp_path_factory, lifetime
):
    """Its runs at one learning rate may be of other constants, so none of them is taken."""
    (expected,) = play(store, whole := Formula())
    directory = tmp_path_factory.mktemp("older")
    with Store.create(directory) as other:
        add_rule(other)
        with pytest.raises(Killed):
            play(other, Formula(lifetime))
    older_stores.downgrade(directory, 5)
    with Store.open(directory) as other:
        rest = Formula()
        assert play(other, rest) == [expected]
        assert kinds(rest.jobs) == kinds(whole.jobs)[1:]  # All but the choice of a rate.
