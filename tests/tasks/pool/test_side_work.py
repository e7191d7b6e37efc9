"""Side work of the ordered driver: settled at its number, whatever the workers do, also resumed."""

import contextlib
import random
import threading
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from veldt.tasks.pool import driver as driver_lib
from veldt.tasks.pool import inline


class Dawdler:
    """Takes as long as the payload says, so that results come out of order."""

    def __call__(self, payload):
        value, sleep_s = payload
        time.sleep(sleep_s)
        if value % 11 == 3:
            raise ValueError(f"bad {value}")
        return value * 10


class Death(BaseException):
    """Ends a run, as a kill would."""


class Engine:
    """Begins side work at a third of the calls; every call changes what later ones do.

    `rows` is all that it keeps, as a store would: an engine made from them goes on. `log` has the
    calls, but for asks: those of a resumed run are made again.
    """

    def __init__(self, window, seed, num_proposals, rows=()):
        self.window, self.seed, self.num_proposals = window, seed, num_proposals
        self.rows = list(rows)
        self.life = 10**9

    @property
    def num_told(self):
        return sum(kind == "tell" for kind, *_ in self.rows)

    def state(self, newest=None):
        """A number that depends on all that was told by then, side work before it included."""
        known, told = [], 0
        for kind, *values in self.rows:
            if newest is not None and told > newest:
                break
            known.append((kind, *values[:2]))
            told += kind == "tell"
        return random.Random(f"{self.seed} {known}").randrange(10**6)

    def works(self):
        """What the rows say is under way."""
        settled = {values[0] for kind, *values in self.rows if kind == "settle"}
        begun = [work for *_, works in self.rows for work in works]
        return [work for work in begun if work.id not in settled]

    def begin(self, at):
        rng = random.Random(self.state() + at)
        number = sum(len(works) for *_, works in self.rows)
        return tuple(
            driver_lib.SideWork(
                number + position,
                tuple(
                    driver_lib.NamedJob((rng.randrange(500), rng.random() * 3e-3))
                    for _ in range(rng.randrange(4))
                ),
                at + rng.randrange(1, 2 * self.window + 1),
            )
            for position in range(rng.choice((0, 0, 1, 2)))
        )

    def ask(self, index):
        if index >= self.num_proposals:
            return driver_lib.Stop()
        state = self.state(index - self.window)
        if state % 4 == 0:
            return driver_lib.Ready(state)
        return driver_lib.NamedJob((state % 1000, state % 7 * 3e-4))

    def tell(self, index, outcome):
        self._die()
        value = outcome.value
        self.rows.append(("tell", index, value, ()))
        begun = self.begin(index + 1)
        self.rows[-1] = ("tell", index, value, begun)
        return begun

    def settle(self, work, results):
        self._die()
        values = tuple(result.value for result in results)
        due = next(one.due for one in self.works() if one.id == work)
        self.rows.append(("settle", work, values, ()))
        # What settles after the last proposal begins nothing that lasts for ever.
        begun = self.begin(due) if due <= self.num_proposals else ()
        self.rows[-1] = ("settle", work, values, begun)
        return begun

    def _die(self):
        self.life -= 1
        if self.life < 0:
            raise Death


def run(engine, num_workers):
    with inline.InlinePool(Dawdler, num_workers) as pool:
        driver = driver_lib.OrderedDriver(pool, window=engine.window, start=engine.num_told)
        driver.run(engine.ask, engine.tell, engine.settle, engine.works())
        assert pool.in_flight == 0
    return engine.rows


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    st.integers(1, 7), st.integers(0, 10_000), st.integers(0, 25), st.lists(st.integers(0, 15))
)
def test_workers_timing_and_deaths_change_nothing(window, seed, num_proposals, lives):
    alone = run(Engine(window, seed, num_proposals), 1)
    assert run(Engine(window, seed, num_proposals), 4) == alone
    rows = []
    for number, life in enumerate(lives):
        engine = Engine(window, seed, num_proposals, rows)
        engine.life = life
        with contextlib.suppress(Death):
            run(engine, 1 + number % 3)
        rows = engine.rows
    assert run(Engine(window, seed, num_proposals, rows), 2) == alone


@pytest.mark.parametrize("seed", range(5))
def test_each_is_settled_right_before_the_proposal_that_it_is_due_before(seed):
    rows = run(Engine(3, seed, 30), 3)
    works = {work.id: work for *_, begun in rows for work in begun}
    assert len(works) > 8
    told, order = 0, []
    for kind, number, values, _ in rows:
        if kind == "tell":
            assert number == told
            told += 1
            continue
        work = works[number]
        order.append((work.due, number))
        assert len(values) == len(work.jobs)
        expected = [job.payload[0] for job in work.jobs]
        assert values == tuple(None if e % 11 == 3 else 10 * e for e in expected)
        assert work.due == told or (work.due > told == 30)
    assert order == sorted(order) and len(order) == len(works)


def test_the_interleaving_is_the_documented_one():
    log = []

    def ask(index):
        log.append(f"ask {index}")
        return driver_lib.NamedJob((index, 0.0)) if index < 4 else driver_lib.Stop()

    def tell(index, outcome):
        log.append(f"tell {index}")
        if index == 0:
            return [driver_lib.SideWork(5, (driver_lib.NamedJob((7, 0.01)),), 2)]
        return None

    def settle(work, results):
        log.append(f"settle {work} {results[0].value}")

    with inline.InlinePool(Dawdler, 2) as pool:
        driver_lib.OrderedDriver(pool, window=3).run(ask, tell, settle)
    assert log == [
        *("ask 0", "ask 1", "ask 2", "tell 0", "ask 3", "tell 1", "ask 4", "settle 5 70"),
        *("tell 2", "tell 3"),
    ]


def test_asking_and_telling_go_on_while_it_runs():
    """Its job ends only once all proposals before its number are told."""

    told, release = [], threading.Event()

    def worker(payload):
        if payload == "slow":
            assert release.wait(timeout=30)
        return payload

    def tell(index, outcome):
        told.append(index)
        if index == 9:
            release.set()
        if index == 0:
            return [driver_lib.SideWork(0, (driver_lib.NamedJob("slow"),), 10)]
        return None

    with inline.InlinePool(lambda: worker, 2) as pool:
        driver_lib.OrderedDriver(pool, window=2).run(
            lambda i: driver_lib.NamedJob(i) if i < 15 else driver_lib.Stop(),
            tell,
            lambda work, results: told.append(results[0].value),
        )
    assert told == [*range(10), "slow", *range(10, 15)]


def test_what_cannot_be_is_refused():
    job = (driver_lib.NamedJob((1, 0.0)),)

    def go(works, settle):
        with inline.InlinePool(Dawdler) as pool:
            driver_lib.OrderedDriver(pool, window=1, start=5).run(
                lambda index: driver_lib.Stop(), lambda index, outcome: None, settle, works
            )

    def settle(work, results):
        return None

    with pytest.raises(ValueError, match="side work 3 is due before proposal 4"):
        go([driver_lib.SideWork(3, job, 4)], settle)
    with pytest.raises(ValueError, match="under way"):
        go([driver_lib.SideWork(3, job, 6), driver_lib.SideWork(3, job, 7)], settle)
    with pytest.raises(TypeError, match="no function that settles"):
        go([driver_lib.SideWork(3, job, 6)], None)
