"""The Ray back end where links fail: whatever is cut, healed or dies, each job has one result."""

import contextlib
import itertools
import time

import hypothesis
import pytest
from hypothesis import stateful, strategies

from tests.tasks.pool import fake_ray
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool import ray_pool
from veldt.tasks.pool.base import EventKind, Job, JobStatus


def square(payload):
    return payload * payload


def make_pool(num_workers, **changes):
    changes = {"straggler_factor": None, **changes}
    config = pool_config.PoolConfig("ray", num_workers, **changes)
    return ray_pool.RayPool(lambda: square, config)


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(ray_pool, "TEND_S", 0.0)
    monkeypatch.setattr(ray_pool, "ASK_S", 0.0)
    monkeypatch.setattr(ray_pool, "STUCK_S", 0.02)
    with fake_ray.in_force(monkeypatch) as world:
        yield world


def test_a_worker_behind_a_cut_link_is_replaced_and_its_late_result_counts_for_nothing(world):
    with make_pool(2) as pool:
        pool.submit(Job(0, 2))
        assert pool.next_result(5).value == 4
        for actor in world.actors:
            actor.cut()
        for number in (1, 2, 3):
            pool.submit(Job(number, number))
        with pytest.raises(TimeoutError):
            pool.next_result(0.005)
        results = [pool.next_result(5) for _ in range(3)]
        first, second = world.actors[:2]
        assert first.is_dead and second.is_dead  # They were told to end, as far as they heard.
        assert sorted(result.value for result in results) == [1, 4, 9]
        lost = [e.message for e in pool.take_events() if e.kind is EventKind.WORKER_LOST]
        assert lost == ["does not answer: for 0 s"] * 2
        assert pool.in_flight == 0
        with pytest.raises(Exception, match="no job is in flight"):
            pool.next_result(0.01)


def test_a_short_cut_costs_nobody_anything(world, monkeypatch):
    monkeypatch.setattr(ray_pool, "STUCK_S", 60.0)
    with make_pool(1) as pool:
        pool.submit(Job(0, 2))
        assert pool.next_result(5).value == 4
        world.actors[0].cut()
        pool.submit(Job(1, 3))
        with pytest.raises(TimeoutError):
            pool.next_result(0.01)
        world.actors[0].heal()
        assert pool.next_result(5).value == 9
        stats = pool.stats()
    assert (len(world.actors), stats.num_lost_workers, stats.num_retries) == (1, 0, 0)


def test_a_connection_that_is_reset_blames_no_job(world):
    with make_pool(1, max_tries=1) as pool:
        pool.submit(Job(0, 2))
        assert pool.next_result(5).value == 4
        world.actors[0].cut()
        pool.submit(Job(1, 3))
        world.actors[0].break_off()
        result = pool.next_result(5)
    assert (result.status, result.value) == (JobStatus.OK, 9)
    assert len(world.actors) == 2


def test_a_link_that_is_cut_as_the_first_worker_begins_is_no_error(world):
    with make_pool(1) as pool:
        (actor,) = world.actors
        start = actor._start

        def start_and_be_cut(factory):
            took_s = start(factory)
            actor.cut()
            return took_s

        actor._start = start_and_be_cut
        pool.submit(Job(0, 2))
        assert pool.next_result(5).value == 4
        assert len(world.actors) == 2


@hypothesis.settings(max_examples=30, stateful_step_count=25)
class Links(stateful.RuleBasedStateMachine):
    """Three workers whose links are cut, healed and reset, and who die, between any two steps."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        constants = {"TEND_S": 0.0, "ASK_S": 0.0, "STUCK_S": 0.002, "MAX_BACKOFF_S": 0.0}
        for name, value in {**constants, "MAX_FAILED_STARTS": 10**6}.items():
            self.patch.setattr(ray_pool, name, value)
        self.context = fake_ray.in_force(self.patch)
        self.world = self.context.__enter__()
        self.pool = make_pool(3, max_tries=100)
        self.numbers = itertools.count()
        self.results = []

    def one(self, number):
        return self.world.alive[number % len(self.world.alive)] if self.world.alive else None

    def take(self, timeout_s):
        if self.pool.in_flight:
            with contextlib.suppress(TimeoutError):
                self.results.append(self.pool.next_result(timeout_s))

    @stateful.rule(count=strategies.integers(1, 5))
    def submit(self, count):
        for number in itertools.islice(self.numbers, count):
            self.pool.submit(Job(number, number))

    @stateful.rule(
        number=strategies.integers(0, 5),
        what=strategies.sampled_from(("cut", "heal", "die", "break_off")),
    )
    def strike(self, number, what):
        if (actor := self.one(number)) is not None:
            getattr(actor, what)()

    @stateful.rule()
    def hear(self):
        self.take(0.0)

    @stateful.rule()
    def wait(self):
        time.sleep(0.003)
        self.take(0.0)

    def teardown(self):
        end = time.monotonic() + 30
        while self.pool.in_flight and time.monotonic() < end:
            for actor in self.world.alive:
                if actor.is_cut:
                    actor.heal()
            self.take(0.01)
        submitted = next(self.numbers)
        assert sorted(result.id for result in self.results) == list(range(submitted))
        assert all(result.value == result.id**2 for result in self.results)
        self.pool.close()
        self.context.__exit__(None, None, None)
        self.patch.undo()


TestLinks = Links.TestCase
