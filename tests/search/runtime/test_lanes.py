"""Lanes: threads share calls; a run is what it is by itself; a search repeats."""

import dataclasses
import functools
import itertools
import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from veldt.search.config import search_config
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.proxy_config import EvaluatorConfig, ProxyConfig
from veldt.search.config.search_config import MutationConfig, SearchConfig
from veldt.search.evaluation.evaluator import EvaluatorFactory
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun, Status
from veldt.search.language import dataflow
from veldt.search.language.ops import INTERPRETED, OPS
from veldt.search.language.roles import Roles
from veldt.search.language.statements import ROLES
from veldt.search.program import Program
from veldt.search.run import run_search
from veldt.search.runtime import encode, lane_interpreter, lanes
from veldt.search.runtime.encode import Capacity
from veldt.search.runtime.execute import execute
from veldt.search.runtime.lanes import Coalescer
from veldt.search.storage.store import FILE_NAME
from veldt.tasks.inner_loop.flat import Layout
from veldt.tasks.pool.config import PoolConfig, RayConfig

LANES = 4
WAIT_S = 20.0  # For what takes milliseconds: only a deadlock takes so long.
PROXY = ProxyConfig("quadratic", 60, 3)
# Of each scope one or a few: compiling takes longer with each.
FEW = Capacity(
    statements=16,
    registers=16,
    schedules=4,
    ops=("add", "subtract", "multiply", "divide", "sqrt", "exp", "sign", "norm", "row_mean"),
)
ADAM = """\
def adam(w, g, m, v):
    m = 0.1 * g + 0.9 * m
    v = 0.001 * (g * g) + 0.999 * v
    return m / (1 - 0.9**step) / (sqrt(v / (1 - 0.999**step)) + 1e-8), m, v
"""
SIGN = "def f(w, g, m):\n    m = 0.1 * g + 0.9 * m\n    return sign(m) + 0.01 * w, m\n"
NORMED = "def f(w, g):\n    return g / (norm(g) + 0.1) + 0.1 * row_mean(g)\n"
PLAIN = "def f(w, g):\n    return g\n"
SWAPPED = "def f(w, g, m, v):\n    return w * 0.01 + m, v + g, m\n"


class Recorder:
    """Squares calls, and keeps what it was given."""

    def __init__(self):
        self.batches = []

    def __call__(self, calls):
        self.batches.append(list(calls))
        return [call * call for call in calls]


def in_threads(function, arguments):
    """What the function gives in one thread for each argument; an exception is given back."""
    results = [None] * len(arguments)

    def go(index):
        try:
            results[index] = function(arguments[index])
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=go, args=(i,), daemon=True) for i in range(len(arguments))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a caller waits for ever"
    return results


def test_each_caller_gets_its_own_answer_from_full_batches():
    # None that is not full would be answered in the test's time.
    recorder = Recorder()
    shared = Coalescer(recorder, LANES, patience_s=10 * WAIT_S)
    assert in_threads(shared, range(3 * LANES)) == [i * i for i in range(3 * LANES)]
    assert [len(batch) for batch in recorder.batches] == [LANES] * 3
    assert sorted(itertools.chain(*recorder.batches)) == list(range(3 * LANES))


def test_where_few_come_the_first_one_fills_the_lanes():
    recorder = Recorder()
    assert Coalescer(recorder, LANES)(7) == 49
    assert recorder.batches == [[7] * LANES]


def test_callers_that_leave_hold_nobody_up():
    recorder = Recorder()
    shared = Coalescer(recorder, LANES, patience_s=0.001)

    def work(number):  # Each leaves after another number of calls.
        return [shared(100 * number + i) for i in range(number)]

    found = in_threads(work, range(9))
    assert found == [[(100 * n + i) ** 2 for i in range(n)] for n in range(9)]
    assert {len(batch) for batch in recorder.batches} == {LANES}


def test_who_comes_while_a_batch_is_computed_waits_for_it_to_end():
    began, go_on, batches = threading.Event(), threading.Event(), []

    def slowly(calls):
        batches.append(sorted(set(calls)))
        began.set()
        assert go_on.wait(WAIT_S)
        return calls

    shared = Coalescer(slowly, LANES, patience_s=0.01)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(shared, 1)
        assert began.wait(WAIT_S)
        others = [threads.submit(shared, 2)]
        # Far longer than its patience, and the other one finds it still waiting.
        with pytest.raises(TimeoutError):
            others[0].result(0.1)
        others.append(threads.submit(shared, 3))
        with pytest.raises(TimeoutError):
            others[1].result(0.1)
        go_on.set()
        assert [future.result(WAIT_S) for future in (first, *others)] == [1, 2, 3]
    assert batches == [[1], [2, 3]]


def test_an_error_reaches_all_callers_of_the_batch_and_no_other():
    def function(calls):
        if 3 in calls:
            raise ArithmeticError("three")
        return calls

    shared = Coalescer(function, LANES, patience_s=10 * WAIT_S)
    found = in_threads(shared, range(LANES))
    assert [str(error) for error in found] == ["three"] * LANES
    assert all(isinstance(error, ArithmeticError) for error in found)
    assert in_threads(shared, range(4, 4 + LANES)) == [4, 5, 6, 7]


def test_there_is_at_least_one_lane():
    with pytest.raises(ValueError, match="lanes is 0"):
        Coalescer(list, 0)


def test_runs_go_on_from_where_they_stand():
    def stack(first):
        numbers = np.arange(first, first + LANES)
        state = {
            "registers": numbers[:, None] * np.ones(2),
            "key": jax.vmap(jax.random.key)(numbers),
        }
        return jax.device_put(lanes._Runs({"code": numbers}, 0.5 * numbers, state))

    def at(*numbers):
        return lanes._gather([lanes._Lane(stacks[n // 10], n % 10) for n in numbers])

    stacks = [stack(0), stack(10), stack(20)]
    for numbers in ((21, 3, 13, 3), (11, 0, 10, 3)):
        found, places = at(*numbers)
        assert list(places) == list(range(LANES))
        np.testing.assert_array_equal(found.encoded["code"], numbers)
        np.testing.assert_array_equal(found.rate, 0.5 * np.array(numbers))
        np.testing.assert_array_equal(found.state["registers"][:, 1], numbers)
        keys = jax.random.key_data(found.state["key"])
        np.testing.assert_array_equal(keys[:, 1], numbers)
    # The same company, or what is left of it: nothing is copied.
    assert at(10, 13, 11, 10) == (stacks[1], [0, 3, 1, 0])


@pytest.mark.slow
def test_every_op_in_a_lane_computes_what_numpy_does():
    """One step of one program for each op, all at once, some longer than others."""
    shapes = ((), (3,), (2, 4))
    layout = Layout.of([jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes])
    capacity = Capacity(statements=12, registers=16, schedules=2, ops=INTERPRETED)
    texts = (PLAIN, SWAPPED, "def f(w, g):\n    return g * fan_in + is_last\n")
    flows = [dataflow.lower(Program.parse(text), fold=True) for text in texts]
    for index, op in enumerate(OPS[name] for name in INTERPRETED):
        scalars = ["norm(w)", "0.5", "step"]
        args = ", ".join(
            scalars[index % 3] if kind == "scalar" else name
            for name, kind in zip("gwm", op.kinds, strict=False)
        )
        name = f"x = {op.name}({args})" if op.symbol is None else f"x = g {op.symbol} w"
        more = "    x = x + m\n" * (index % 3)
        text = f"def f(w, g, m):\n    m = m + g\n    {name}\n{more}    return x + w, m\n"
        flows.append(dataflow.lower(Program.parse(text), fold=True))
    encoded = [encode.encode_dataflow(f, num_steps=3, capacity=capacity) for f in flows]

    @jax.jit
    def steps(encoded, w, g):
        of_all = lane_interpreter.together(encoded, capacity)

        def one(encoded):
            tx = lane_interpreter.interpret(encoded, of_all, layout, capacity=capacity)
            first, state = tx.update(g, tx.init(w), w)
            return first, tx.update(g, state, w)[0]

        return jax.vmap(one)(encoded)

    rng = np.random.default_rng(0)
    w, g = rng.uniform(0.1, 0.9, (2, layout.num_params)).astype(np.float32)
    updates = steps(jax.tree.map(lambda *x: np.stack(x), *encoded), w, g)

    def split(vector):
        ends = zip(layout.offsets, layout.sizes, shapes, strict=True)
        return [vector[i : i + size].reshape(shape) for i, size, shape in ends]

    by_tensor = Roles().of([np.zeros(shape) for shape in shapes])
    roles = {name: [of[name] for of in by_tensor] for name in ROLES}
    for lane, flow in enumerate(flows):
        slots = {name: split(np.zeros_like(w)) for name in flow.live_slots}
        for step, update in enumerate(updates, 1):
            inputs = {"w": split(w), "g": split(g), **slots, **roles}
            expected, new = execute(flow, np, inputs, [np.float64(step)] * len(shapes), {})
            slots = dict(zip(flow.live_slots, new, strict=True))
            flat = np.concatenate([x.ravel() for x in expected])
            np.testing.assert_allclose(update[lane], flat, rtol=2e-5, atol=1e-6, err_msg=str(flow))


@functools.cache
def worker(num_lanes):
    config = EvaluatorConfig((PROXY,), seed=5, capacity=FEW, lanes=num_lanes)
    return EvaluatorFactory(config)()


def outcomes(num_lanes, jobs):
    with ThreadPoolExecutor(num_lanes) as threads:
        return list(threads.map(worker(num_lanes), jobs, timeout=100))


def key(outcome):
    """All of an outcome but its times."""
    return [(r.run, r.status, r.loss, r.log_losses, r.num_steps) for r in outcome.runs]


def test_outcomes_are_those_of_single_runs():
    def job(text, rate, seeds=(0, 1), hurdle=()):
        runs = tuple(ProxyRun(0, seed) for seed in seeds)
        return EvalJob(Genotype(Program.parse(text), rate), runs, hurdle)

    too_low = ((9.0, -9.0, 9.0),)
    jobs = [
        job(ADAM, 1e-2),
        job(PLAIN, 1e6),
        job(SIGN, 1e-2),
        job(ADAM, 1e-3, (2,), too_low),
        job(NORMED, 3e-2, (0, 1, 2)),
        job("def f(w, g):\n    x = exp(1000 + g)\n    return x - x\n", 1.0),
        job("def f(w, g):\n    return row_mean(g) + w\n", 1e-2),
        # Slots that change places and an update that is an input's row.
        job(SWAPPED, 1e-2, (3,)),
        job("def f(w, g):\n    return w\n", 1e-2, (3,)),
        job("def f(w, g):\n    return 1e12 + g\n", 1e-2),
        # What the run knows: the length is the task's, the loss the lane's own.
        job("def f(w, g):\n    return g * (1 - progress)\n", 1e-2),
        job("def f(w, g):\n    return loss / (norm(g) + 1) * g + loss\n", 1e-4),
    ]
    alone, together = outcomes(1, jobs), outcomes(LANES, jobs)
    assert {one.status for one in alone} == {
        Status.OK,
        Status.DIVERGED,
        Status.REJECTED,
        Status.HOLLOW,
    }
    for one, other in zip(alone, together, strict=True):
        assert (one.status, one.fitness is None) == (other.status, other.fitness is None)
        for left, right in zip(one.runs, other.runs, strict=True):
            assert (left.run, left.num_steps) == (right.run, right.num_steps)
            assert left.log_losses == pytest.approx(right.log_losses, rel=1e-4, abs=1e-6)
    # In other company, and in other lanes, a run is the same to the last bit.
    again = [*outcomes(LANES, jobs[::-1])][::-1]
    assert [key(one) for one in again] == [key(one) for one in together]
    assert [key(worker(LANES)(one)) for one in jobs] == [key(one) for one in together]


@pytest.mark.slow
def test_what_is_compiled_by_itself_stands_beside_lanes():
    text = "def f(w, g):\n    return arctan(g)\n"
    job = EvalJob(Genotype(Program.parse(text), 1e-2), (ProxyRun(0, 0),))
    assert key(worker(LANES)(job)) == key(worker(1)(job))


def settings(**changes):
    return SearchConfig(
        tasks=(PROXY,),
        meta_validation=(),
        seed=1,
        initial_rule="sgd",
        learning_rate=1e-2,
        max_evaluations=12,
        population_size=6,
        fresh_seeds=2,
        window=LANES,
        lanes=LANES,
        mutation=MutationConfig(ops=FEW.ops),
        finals=FinalsConfig(
            baselines=("sgd",), max_entries=2, num_rates=2, select_seeds=1, final_seeds=2
        ),
        **changes,
    )


def searched(directory):
    """What a search put into its store, without the columns that hold times."""
    config = settings()
    assert config.workers == PoolConfig(backend="inline", num_workers=LANES)
    run_search.run_search(config, directory, factory=lambda: worker(LANES))
    found = {}
    with sqlite3.connect(directory / FILE_NAME) as connection:
        for table in ("proposal", "candidate", "evaluation", "challenge", "hall_of_fame"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            names = ", ".join(name for name in columns if not name.endswith("_s"))
            found[table] = list(connection.execute(f"SELECT {names} FROM {table} ORDER BY {names}"))
    connection.close()
    return found


def test_a_search_in_lanes_gives_the_same_store_again(tmp_path):
    first = searched(tmp_path / "a")
    assert len(first["candidate"]) > 10 and first["hall_of_fame"]
    assert searched(tmp_path / "b") == first


def test_lanes_reach_the_workers_and_older_stores_have_one():
    config = settings()
    assert config.evaluator.lanes == LANES
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert search_config.read_stored(stored, "store") == config
    del stored["lanes"]
    older = search_config.read_stored(stored, "store")
    assert older.lanes == older.evaluator.lanes == 1 and older.workers is older.pool


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": PoolConfig(num_workers=2)}, "pool.num_workers is 2; with 4 lanes"),
        ({"pool": PoolConfig(backend="ray")}, "the pool is Ray's.*backend: inline"),
        ({"pool": PoolConfig(ray=RayConfig(address="auto"))}, "the pool is Ray's"),
    ],
)
def test_a_pool_that_cannot_fill_lanes_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_a_window_that_cannot_fill_lanes_is_refused():
    with pytest.raises(ValueError, match="window is 2; with 3 lanes"):
        SearchConfig(tasks=(PROXY,), meta_validation=(), window=2, lanes=3)
