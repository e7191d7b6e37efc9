"""Evaluation: equal to native training, statuses instead of NaN, hurdles, one compile."""

import math
import pickle
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.search import rule_sources
from veldt.search.config import objectives
from veldt.search.config.proxy_config import EvaluatorConfig, ProxyConfig
from veldt.search.evaluation import proxy_loop
from veldt.search.evaluation.evaluator import EvaluatorFactory
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun, Status
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.runtime import encode, optax_transform
from veldt.tasks import base, registry
from veldt.tasks.inner_loop import unroll
from veldt.tasks.pool import base as pool

PROXY = ProxyConfig("quadratic", 60, 3)


@pytest.fixture(scope="module")
def factory():
    return EvaluatorFactory(EvaluatorConfig((PROXY,), seed=5))


@pytest.fixture(scope="module")
def worker(factory):
    return factory()


def job(rule, rate, seeds=(0,), hurdle=()):
    program = rule_sources.load_rule(rule) if "\n" not in rule else Program.parse(rule)
    return EvalJob(Genotype(program, rate), tuple(ProxyRun(0, seed) for seed in seeds), hurdle)


DECAY = "def f(w, g, m):\n    m = interp(g, m, 0.9)\n    return m * (1 - progress), m\n"
POLYAK = "def f(w, g):\n    return 10 * loss / (norm(g) ** 2 + 1.0) * g\n"
SQUARE = (
    "def f(w, g, a):\n    a = a + row_gram(g)\n"
    "    return matmul(inverse_root(a, 2.0, 1e-6), g) * (loss / (1 + progress)), a\n"
)


@pytest.mark.parametrize("rule", ["sgd", "adamw", "lion", "adopt", DECAY, POLYAK, SQUARE])
def test_a_run_is_native_training(worker, rule):
    """Also for rules that read the run's progress and loss, interpreted and compiled."""
    outcome = worker(job(rule, 1e-2, seeds=(3,)))
    task = registry.load_task("quadratic")
    program = rule_sources.load_rule(rule) if "\n" not in rule else Program.parse(rule)
    tx = program.as_optax(1e-2, num_steps=60)

    @jax.jit
    def native(task):
        key = jax.random.fold_in(jax.random.key(5), 3)
        state, _ = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=60)
        loss = unroll.evaluate(task, state.params, key, "valid")
        return loss, task.normalizer(loss)

    loss, normalized = (float(x) for x in native(task))
    assert outcome.status is Status.OK
    assert outcome.runs[0].loss == pytest.approx(loss, rel=1e-4)
    assert outcome.fitness == pytest.approx(math.log(normalized), rel=1e-4)
    assert outcome.runs[0].num_steps == 60 and len(outcome.runs[0].log_losses) == 3


@pytest.mark.parametrize("schedule", ["warmup_cosine", "warmup_linear"])
def test_a_run_under_a_schedule_is_a_hand_written_loop_with_optax_own(schedule):
    """5% of 60 steps warm up, and the rest decay to 0."""
    found = EvaluatorFactory(EvaluatorConfig((ProxyConfig("quadratic", 60, 3, schedule),), seed=5))
    run = found()(job("adamw", 3e-2, seeds=(3,))).runs[0]
    rates = {
        "warmup_cosine": optax.warmup_cosine_decay_schedule(1e-2, 3e-2, 3, 60),
        "warmup_linear": optax.join_schedules(
            [optax.linear_schedule(1e-2, 3e-2, 3), optax.linear_schedule(3e-2, 0.0, 57)], [3]
        ),
    }
    task = registry.load_task("quadratic")
    key = jax.random.fold_in(jax.random.key(5), 3)
    losses = {}
    for name, rate in (("schedule", rates[schedule]), ("constant", 3e-2)):
        tx = optax.adamw(rate)
        state, _ = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=60)
        losses[name] = float(unroll.evaluate(task, state.params, key, "valid"))
    assert run.loss == pytest.approx(losses["schedule"], rel=1e-4)
    assert run.loss != pytest.approx(losses["constant"], rel=1e-2)


def test_fitness_is_the_mean_over_runs_and_repeats_exactly(worker):
    outcome = worker(job("adamw", 1e-2, seeds=(0, 1, 2)))
    assert outcome.fitness == np.mean([run.log_losses[-1] for run in outcome.runs])
    again = worker(job("adamw", 1e-2, seeds=(0, 1, 2)))
    assert [run.log_losses for run in again.runs] == [run.log_losses for run in outcome.runs]
    assert len({run.log_losses for run in outcome.runs}) == 3


@pytest.mark.parametrize(
    ("rule", "rate"),
    [
        ("sgd", 1e6),
        ("def f(w, g):\n    return exp(1e3 * g * g)\n", 1.0),
        ("def f(w, g):\n    x = exp(1e3 + g)\n    return x - x\n", 1.0),
    ],
)
def test_divergence_is_a_status_and_never_a_nan(worker, rule, rate):
    outcome = worker(job(rule, rate, seeds=(0, 1)))
    assert outcome.status is Status.DIVERGED
    assert outcome.fitness is None
    assert len(outcome.runs) == 1  # the other seed is saved
    assert all(math.isfinite(loss) for loss in outcome.runs[0].log_losses)
    assert outcome.runs[0].loss is None or math.isfinite(outcome.runs[0].loss)


def test_the_hurdle_stops_a_run_where_it_stands(worker):
    losses = worker(job("adamw", 1e-2)).runs[0].log_losses
    passed = worker(job("adamw", 1e-2, hurdle=(tuple(loss + 1e-6 for loss in losses),)))
    assert passed.status is Status.OK
    hurdle = (losses[0] + 1e-6, losses[1] - 1e-6, losses[2] + 1e-6)
    stopped = worker(job("adamw", 1e-2, hurdle=(hurdle,)))
    assert stopped.status is Status.REJECTED and stopped.fitness is None
    assert stopped.runs[0].num_steps == 40
    assert stopped.runs[0].log_losses == losses[:2]


@pytest.fixture(scope="module")
def pair():
    """Workers of two tasks with different numbers of checks, by objective."""
    proxies = (PROXY, ProxyConfig("quadratic_noisy", 40, 2))
    objectives_ = ("held_out_loss", "lr_robustness")
    return {
        name: EvaluatorFactory(EvaluatorConfig(proxies, seed=5, objective=name))()
        for name in objectives_
    }


def both(rule, rate, mean=()):
    genotype = Genotype(rule_sources.load_rule(rule), rate)
    return EvalJob(genotype, (ProxyRun(0, 1), ProxyRun(1, 1)), mean=mean)


@pytest.mark.parametrize("objective", ["held_out_loss", "lr_robustness"])
def test_runs_made_together_are_those_made_in_turn(pair, objective):
    worker = pair[objective]
    in_turn = worker(both("adamw", 1e-2))
    rounds = 3 if objective == "held_out_loss" else 4
    together = worker(both("adamw", 1e-2, mean=(10.0,) * rounds))
    assert together.fitness == in_turn.fitness
    for ours, theirs in zip(together.runs, in_turn.runs, strict=True):
        assert replace(ours, wall_s=0.0) == replace(theirs, wall_s=0.0)


def test_a_hurdle_over_the_mean_is_applied_in_every_round(pair):
    worker = pair["held_out_loss"]
    curves = [run.log_losses for run in worker(both("adamw", 1e-2)).runs]
    at = [[curve[min(k, len(curve) - 1)] for curve in curves] for k in range(3)]
    means = [float(np.mean(losses)) for losses in at]
    for stopped in range(3):
        limits = tuple(x + (-1e-6 if k == stopped else 1e-6) for k, x in enumerate(means))
        found = worker(both("adamw", 1e-2, mean=limits))
        assert found.status is Status.REJECTED and found.fitness is None
        assert [run.status for run in found.runs] == [Status.REJECTED] * 2
        made = [min(stopped + 1, checks) for checks in (3, 2)]
        assert [len(run.log_losses) for run in found.runs] == made
        assert [run.num_steps for run in found.runs] == [20 * number for number in made]
    # One task may be far behind where the other makes up for it.
    assert worker(both("adamw", 1e-2, mean=tuple(x + 1e-6 for x in means))).status is Status.OK


def test_of_runs_made_together_the_one_that_fails_comes_last(pair):
    """What never began is not there, as where runs are made in turn."""
    worker = pair["held_out_loss"]
    found = worker(both("sgd", 1e6, mean=(100.0,) * 3))
    assert found.status is Status.DIVERGED and found.fitness is None
    assert [(run.status, run.run.proxy) for run in found.runs] == [(Status.DIVERGED, 0)]
    found = worker(both("sgd", 5.0, mean=(100.0,) * 3))
    assert [(run.status, run.run.proxy) for run in found.runs] == [
        (Status.REJECTED, 1),
        (Status.DIVERGED, 0),
    ]


def test_nothing_is_compiled_for_a_candidate(factory, worker):
    worker(job("adamw", 1e-2))
    loop = factory._loops[0]
    compiled = dict(loop._compiled)
    for rule in ("sgd", "yogi", "adan"):
        worker(job(rule, 1e-3))
    assert loop._compiled == compiled
    encodings = [
        encode.encode(rule_sources.load_rule(rule), num_steps=60, capacity=loop.capacity)
        for rule in ("sgd", "adamw", "lion", "dog", "sophia", "madgrad")
    ]
    shapes = {tuple(np.shape(part) for part in encoded) for encoded in encodings}
    assert len(shapes) == 1  # compiled functions take exactly one set of shapes


@pytest.fixture
def compilations():
    """What XLA compiles while the test runs, as JAX itself tells it."""
    seen = []

    def listen(event, duration_secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_after_warming_up_a_job_compiles_nothing_and_gives_the_same(compilations, worker):
    proxies = (PROXY, ProxyConfig("digits_mlp", 20, 2))
    warm, cold = (EvaluatorFactory(EvaluatorConfig(proxies, seed=5))() for _ in range(2))
    assert isinstance(warm, pool.WarmWorker)
    warm.warm_up()
    assert len(compilations) >= 2 * len(proxies)
    compilations.clear()
    warm.warm_up()
    jobs = [
        EvalJob(Genotype(rule_sources.load_rule(rule), 1e-2), (ProxyRun(0, 1), ProxyRun(1, 2)))
        for rule in ("adamw", "lion", "adopt")
    ]
    outcomes = [warm(job) for job in jobs]
    assert compilations == []
    for outcome, again in zip(outcomes, [cold(job) for job in jobs], strict=True):
        assert outcome.status is Status.OK
        assert [(run.loss, run.log_losses) for run in again.runs] == [
            (run.loss, run.log_losses) for run in outcome.runs
        ]
    assert compilations != []


PRODUCTS = """\
def products(w, g, m):
    m = 0.9 * m + matmul(matmul(g, transpose(g)), g) * column_mean(abs(g))
    return m + g, m
"""


@pytest.mark.parametrize(
    "what",
    [
        "other shapes",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("other ops", "too large")),
    ],
)
def test_what_the_interpreter_cannot_hold_is_compiled(what):
    """And trains as the native transform does; its loop is kept for the job's other runs."""
    many = "\n".join(f"    x{i} = sin(g * {i + 2}.5)\n    u = u + x{i}" for i in range(20))
    text = {
        "other shapes": PRODUCTS,
        "other ops": "def f(w, g):\n    return orthogonalize(g)\n",
        "too large": f"def f(w, g):\n    u = g\n{many}\n    return u\n",
    }[what]
    worker = EvaluatorFactory(EvaluatorConfig((PROXY,), seed=5))()
    program = Program.parse(text)
    outcome = worker(job(text, 1e-3, seeds=(0, 1)))
    assert outcome.status is Status.OK
    (loop,) = worker._loops
    assert list(loop._compiled) == [dataflow.lower(program, fold=True)]
    task = loop.task
    tx = optax_transform.on_vector(program.as_optax(1e-3), task.layout)

    @jax.jit
    def native(task):
        key = jax.random.fold_in(jax.random.key(5), 0)
        state, _ = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=60)
        return unroll.evaluate(task, state.params, key, "valid")

    assert outcome.runs[0].loss == pytest.approx(float(native(task)), rel=1e-4)


@pytest.mark.slow
def test_only_the_last_compiled_programs_are_kept():
    worker = EvaluatorFactory(EvaluatorConfig((ProxyConfig("quadratic", 2, 1),)))()
    for k in range(proxy_loop.MAX_COMPILED + 1):
        last = f"def f(w, g):\n    return row_mean(g) * {k}.5\n"
        worker(job(last, 1e-3))
    assert dataflow.lower(Program.parse(last), fold=True) in worker._loops[0]._compiled
    # One more is for the interpreter, which is never dropped.
    assert len(worker._loops[0]._compiled) == proxy_loop.MAX_COMPILED - 1


def test_workers_of_a_process_share_loops_and_a_copy_makes_its_own(factory):
    assert factory()._loops is factory()._loops
    copy = pickle.loads(pickle.dumps(factory))  # noqa: S301 - our own bytes
    assert copy.config == factory.config and copy._loops is None


@pytest.mark.parametrize(("steps", "chunks"), [(0, 1), (10, 0), (10, 3)])
def test_steps_must_be_a_multiple_of_chunks(steps, chunks):
    with pytest.raises(ValueError, match="positive multiple"):
        ProxyConfig("quadratic", steps, chunks)


def test_optax_itself_agrees_on_a_hand_written_loop(worker):
    """The same run with Optax's own AdamW, outside every loop of veldt's."""
    task = registry.load_task("quadratic")
    key = jax.random.fold_in(jax.random.key(5), 0)
    tx = optax.adamw(1e-2)
    state = unroll.init(task, tx, key)
    step = jax.jit(unroll.step_fn, static_argnums=1)
    for _ in range(60):
        state, _ = step(task, tx, state)
    loss = float(unroll.evaluate(task, state.params, key, "valid"))
    assert worker(job("adamw", 1e-2)).runs[0].loss == pytest.approx(loss, rel=1e-4)


HOLLOW = {
    "constant": "def rule(w, g):\n    update = 1e8\n    return update\n",
    "modest": "def rule(w, g):\n    update = 1e6 * (1.0 + 1e-6 * g)\n    return update\n",
    "clock": "def rule(w, g, m, *, b=0.5):\n    m = interp(step, m, b)\n    return m / 1e-8, m\n",
    "swamped": "def rule(w, g):\n    update = 1e9 + 1e-3 * sign(g)\n    return update\n",
    "pulled": "def rule(w, g):\n    update = 50.0 * (w - 1e9) + g\n    return update\n",
}


@pytest.fixture(scope="module")
def classifiers():
    proxies = (ProxyConfig("digits_mlp", 20, 2),)
    return {
        objective: EvaluatorFactory(EvaluatorConfig(proxies, objective=objective))()
        for objective in objectives.OBJECTIVES
    }


@pytest.mark.parametrize("objective", objectives.OBJECTIVES)
@pytest.mark.parametrize("rule", HOLLOW)
def test_a_loss_that_training_did_not_earn_is_hollow_and_no_fitness(classifiers, rule, objective):
    outcome = classifiers[objective](job(HOLLOW[rule], 1e-2))
    assert outcome.status is Status.HOLLOW and outcome.fitness is None
    assert outcome.message and outcome.runs[-1].message == outcome.message
    assert classifiers[objective](job("adamw", 1e-2)).status is Status.OK


def test_parameters_that_swing_out_and_back_earn_no_training_loss(classifiers):
    # Every other step all logits are equal at a size where their gaps round away, and the training
    # loss is nothing; when training ends the parameters are where they should be.
    swing = "2e5 * (2.0 * every(step, 2.0) - 1.0)"
    update = f"{swing} + where(every(step, 2.0), 0.0, g)"
    text = f"def rule(w, g):\n    update = {update}\n    return update\n"
    outcome = classifiers["train_loss"](job(text, 1.0))
    assert outcome.status is Status.HOLLOW
    assert "on the way" in outcome.message


class Unbounded(base.Task):
    """The normalizer of a task that forgets to cut off what is not finite."""

    name = "unbounded"

    def init(self, key):
        return {"w": jnp.ones(3)}

    def loss(self, params, key, batch):
        return jnp.sum(params["w"] ** 2), {}

    def train_batch(self, key):
        return ()

    def eval_batch(self, split):
        return ()

    def normalizer(self, loss):
        return jnp.log(loss - 2.9)


def test_a_normalizer_that_is_not_finite_is_a_divergence(monkeypatch):
    monkeypatch.setitem(registry.TASKS, "unbounded", Unbounded)
    worker = EvaluatorFactory(EvaluatorConfig((ProxyConfig("unbounded", 4, 2),)))()
    outcome = worker(job("sgd", 1e-1))
    assert outcome.status is Status.DIVERGED and outcome.fitness is None


class Half(Unbounded):
    """A task whose loss is float16 and whose parameters are larger than that can say."""

    name = "half"

    def init(self, key):
        return {"w": jnp.full(3, 1e5)}

    def loss(self, params, key, batch):
        return (jnp.mean(params["w"]) / 1e5).astype(jnp.float16), {}

    def normalizer(self, loss):
        return loss


def test_a_loss_of_half_precision_leaves_room_for_the_norms(monkeypatch):
    monkeypatch.setitem(registry.TASKS, "half", Half)
    worker = EvaluatorFactory(EvaluatorConfig((ProxyConfig("half", 4, 2),)))()
    assert worker(job("sgd", 1e-1)).status is Status.OK
