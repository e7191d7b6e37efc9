"""The dispatcher: exactly one result per job, exact blame, honest accounts, whatever happens."""

import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from veldt.tasks.pool import dispatch, simulated
from veldt.tasks.pool.base import EventKind, Job, JobResult, JobStatus, PoolError
from veldt.tasks.pool.simulated import End


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make(num_workers=1, **policy):
    clock = Clock()
    dispatcher = dispatch.Dispatcher(dispatch.Policy(**policy), clock)
    for i in range(num_workers):
        dispatcher.add_worker(f"w{i}", "here")
    return dispatcher, clock


def done(job, worker, wall_s=0.01):
    return JobResult(job.id, JobStatus.OK, job.payload, "", wall_s, worker, job.label)


def give_back(dispatcher, batch, wall_s=0.01):
    dispatcher.returned(batch.id, [done(job, batch.worker, wall_s) for job in batch.jobs])


def taken(dispatcher):
    results = []
    while (result := dispatcher.pop_result()) is not None:
        results.append(result)
    return results


def kinds(dispatcher):
    return [event.kind for event in dispatcher.ledger.take_events()]


def teach_durations(dispatcher, clock, wall_s, count=30):
    """Run jobs of one duration, so that the dispatcher knows what is usual."""
    for i in range(count):
        dispatcher.submit(Job(-1 - i, None))
        for batch in dispatcher.assign():
            give_back(dispatcher, batch, wall_s)
    assert len(taken(dispatcher)) == count
    dispatcher.ledger.take_events()


# ------------------------------------------------------------------ a machine against a model


class Machine(stateful.RuleBasedStateMachine):
    """Anything may happen in any order; in the end every job has had exactly one result."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        policy = dispatch.Policy(timeout_s=5.0, max_tries=3, straggler_factor=2.0)
        self.dispatcher = dispatch.Dispatcher(policy, self.clock)
        self.dispatcher.overhead_s = 1e-3
        self.submitted = set()
        self.results = collections.Counter()
        self.alive = {}  # worker -> batches sent to it, in order
        self.gone = []  # batches whose worker was given up, or that were taken back
        self.num_workers = 0
        self.spent_s = 0.0  # what workers say they spent

    def send(self):
        for batch in self.dispatcher.assign():
            assert batch.jobs
            self.alive[batch.worker].append(batch)

    @stateful.rule(count=st.integers(1, 6))
    def submit(self, count):
        for _ in range(count):
            job = Job(len(self.submitted), f"payload {len(self.submitted)}")
            self.submitted.add(job.id)
            self.dispatcher.submit(job)
        self.send()

    @stateful.rule()
    def add_worker(self):
        name = f"w{self.num_workers}"
        self.num_workers += 1
        self.alive[name] = []
        self.dispatcher.add_worker(name, "here")
        self.send()

    @stateful.rule(seconds=st.floats(0.0, 4.0))
    def wait(self, seconds):
        self.clock.now += seconds

    def pick(self, data, busy):
        names = sorted(name for name, held in self.alive.items() if held or not busy)
        return data.draw(st.sampled_from(names)) if names else None

    @stateful.rule(data=st.data(), wall_s=st.floats(0.001, 1.0), some=st.integers(0, 5))
    def give_back(self, data, wall_s, some):
        name = self.pick(data, busy=True)
        if name is None:
            return
        batch = self.alive[name].pop(0)
        results = [done(job, name, wall_s) for job in batch.jobs]
        if some == 0:  # The worker forgot it: not one was begun.
            results = []
        self.spent_s += wall_s * len(results)
        self.dispatcher.returned(batch.id, results)
        self.send()

    @stateful.rule(data=st.data())
    def a_late_batch_comes_back(self, data):
        if self.gone:
            batch = self.gone.pop(data.draw(st.integers(0, len(self.gone) - 1)))
            self.spent_s += 0.5 * len(batch.jobs)
            give_back(self.dispatcher, batch, 0.5)
            self.send()

    @stateful.rule(data=st.data())
    def fail(self, data):
        if (name := self.pick(data, busy=True)) is not None:
            self.dispatcher.failed(self.alive[name].pop(0).id, "cannot be pickled")
            self.send()

    @stateful.rule(data=st.data(), cause=st.sampled_from(list(dispatch.Cause)))
    def lose(self, data, cause):
        name = self.pick(data, busy=False)
        if name is None:
            return
        batches = self.alive.pop(name)
        guilty = None
        if cause is dispatch.Cause.TIMEOUT and batches:
            guilty = data.draw(st.sampled_from([job.id for job in batches[0].jobs]))
        self.dispatcher.lost(name, cause, guilty=guilty)
        self.gone.extend(batches)
        self.send()

    @stateful.rule(data=st.data(), wall_s=st.floats(0.001, 1.0))
    def retire(self, data, wall_s):
        """The first batch is back, in part perhaps; what waits there has not begun."""
        name = self.pick(data, busy=True)
        if name is None:
            return
        batch = self.alive.pop(name)[0]
        number = data.draw(st.integers(0, len(batch.jobs)))
        self.spent_s += wall_s * number
        lost = self.dispatcher.stats("test", 1).num_lost_workers
        self.dispatcher.returned(batch.id, [done(job, name, wall_s) for job in batch.jobs[:number]])
        self.dispatcher.retired(name, "spent")
        self.send()
        assert self.dispatcher.stats("test", 1).num_lost_workers == lost
        assert self.dispatcher.running(name) is None

    @stateful.rule()
    def tend(self):
        assert set(self.dispatcher.overdue()) <= self.alive.keys()
        for batch in self.dispatcher.rebalance():
            # It may have begun before it heard: then it is back late.
            self.alive[batch.worker].remove(batch)
            self.gone.append(batch)
        self.send()

    @stateful.rule()
    def take(self):
        for result in taken(self.dispatcher):
            self.results[result.id] += 1

    @stateful.invariant()
    def no_result_comes_twice(self):
        assert all(count == 1 for count in self.results.values())
        assert self.results.keys() <= self.submitted
        assert self.dispatcher.in_flight == len(self.submitted) - len(self.results)

    @stateful.invariant()
    def queued_and_running_add_up(self):
        d = self.dispatcher
        untaken = d.in_flight - d.num_queued - d.num_running
        assert 0 <= untaken <= d.in_flight

    @stateful.invariant()
    def no_worker_idles_beside_a_queue(self):
        """But for a queue whose oldest job waits to be alone."""
        idle = [name for name, held in self.alive.items() if not held]
        assert not (idle and self.dispatcher.num_queued)

    def teardown(self):
        """Healthy workers finish what is left; then all is accounted for."""
        self.add_worker()
        for _ in range(10 * len(self.submitted) + 10):
            for name, held in self.alive.items():
                if held:
                    self.spent_s += 0.01 * len(held[0].jobs)
                    give_back(self.dispatcher, held.pop(0), 0.01)
                    assert name
            self.send()
        self.take()
        assert self.results.keys() == self.submitted
        self.no_result_comes_twice()
        stats = self.dispatcher.ledger.stats("test", 1, 0, 0)
        assert stats.num_done == len(self.submitted)
        # What workers spent is either used or wasted; lost work adds to the wasted.
        assert stats.busy_s <= self.spent_s + 1e-9
        assert stats.busy_s + stats.wasted_s >= self.spent_s - 1e-9
        super().teardown()


TestMachine = Machine.TestCase
TestMachine.settings = hypothesis.settings(max_examples=60, stateful_step_count=40, deadline=None)


# ------------------------------------------------------------------ blame


def test_a_job_that_takes_its_worker_down_is_quarantined_after_max_tries():
    dispatcher, _ = make(0, max_tries=3)
    dispatcher.submit(Job(0, "poison", "candidate 7: digits"))
    for i in range(3):
        dispatcher.add_worker(f"v{i}", "here")
        (batch,) = dispatcher.assign()
        dispatcher.lost(batch.worker, dispatch.Cause.DIED, "it held 9 GiB")
    (result,) = taken(dispatcher)
    assert result.status is JobStatus.KILLED
    assert result.message == "given up: its worker was lost 3 times; the last died: it held 9 GiB"
    assert dispatcher.in_flight == 0
    events = dispatcher.ledger.take_events()
    assert [e.kind for e in events].count(EventKind.RETRY) == 2
    assert events[-1].kind is EventKind.QUARANTINE
    assert {e.job for e in events if e.kind is not EventKind.WORKER_READY} == {
        "candidate 7: digits"
    }


def test_a_lost_machine_blames_nobody_but_a_job_cannot_lose_machines_for_ever():
    dispatcher, _ = make(0, max_tries=1)
    dispatcher.submit(Job(0, None))
    for i in range(dispatch.MAX_LOSSES):
        assert taken(dispatcher) == []
        dispatcher.add_worker(f"v{i}", "here")
        (batch,) = dispatcher.assign()
        dispatcher.lost(batch.worker, dispatch.Cause.PLACE)
    (result,) = taken(dispatcher)
    assert result.status is JobStatus.KILLED


def batch_of(dispatcher, clock, size):
    """Make the dispatcher send `size` jobs in one batch."""
    teach_durations(dispatcher, clock, 0.001)
    dispatcher.overhead_s = 0.001  # 50 jobs per batch, by the 2%.
    for i in range(20 * size):
        dispatcher.submit(Job(i, i))
    batch = max(dispatcher.assign(), key=lambda batch: len(batch.jobs))
    assert len(batch.jobs) >= size
    return batch


def test_a_batch_blames_no_job_its_jobs_run_alone_and_only_the_guilty_one_ends():
    dispatcher, clock = make(1, max_tries=2)
    batch = batch_of(dispatcher, clock, 5)
    guilty = batch.jobs[2].id
    dispatcher.lost(batch.worker, dispatch.Cause.DIED)
    name, results = 0, []
    for _ in range(1000):
        if not dispatcher.in_flight:
            break
        if not dispatcher.num_workers:
            dispatcher.add_worker(f"v{name}", "here")
            name += 1
        for sent in dispatcher.assign():
            if guilty in [job.id for job in sent.jobs]:
                assert len(sent.jobs) == 1
                dispatcher.lost(sent.worker, dispatch.Cause.DIED)
                break
            give_back(dispatcher, sent)
        results += taken(dispatcher)
    assert {r.id: r.status for r in results if r.status is not JobStatus.OK} == {guilty: "killed"}
    assert len(results) == len({r.id for r in results})


def test_a_time_out_ends_the_guilty_job_only_and_is_not_tried_again():
    dispatcher, clock = make(2, timeout_s=2.0)
    batch = batch_of(dispatcher, clock, 3)
    clock.now += 3.0
    assert batch.worker in dispatcher.overdue()
    guilty = batch.jobs[1]
    dispatcher.lost(batch.worker, dispatch.Cause.TIMEOUT, guilty=guilty.id)
    (result,) = taken(dispatcher)
    assert (result.id, result.status) == (guilty.id, JobStatus.TIMEOUT)
    assert result.message == "took 3.0 s; the limit is 2 s"
    stats = dispatcher.ledger.stats("test", 2, 0, 0)
    assert (stats.num_timeouts, stats.num_lost_workers) == (1, 1)
    assert stats.wasted_s == pytest.approx(3.0)


def test_an_excused_worker_is_not_overdue_until_its_time_is_up():
    dispatcher, clock = make(1, timeout_s=2.0)
    dispatcher.submit(Job(0, None))
    dispatcher.assign()
    clock.now += 2.5
    assert dispatcher.overdue() == ["w0"]
    dispatcher.excuse("w0", 1.0)
    assert dispatcher.overdue() == []
    clock.now += 1.1
    assert dispatcher.overdue() == ["w0"]


def test_what_cannot_be_pickled_is_an_error_of_its_job_alone():
    dispatcher, clock = make(1)
    batch = batch_of(dispatcher, clock, 4)
    dispatcher.failed(batch.id, "cannot pickle")
    assert taken(dispatcher) == []  # One of them; each is tried alone, so on an idle worker.
    assert dispatcher.assign() == []
    dispatcher.lost(batch.worker, dispatch.Cause.PLACE)
    dispatcher.add_worker("v", "here")
    (alone,) = dispatcher.assign()
    assert [job.id for job in alone.jobs] == [batch.jobs[0].id]
    dispatcher.failed(alone.id, "cannot pickle")
    (result,) = taken(dispatcher)
    assert (result.status, result.message) == (JobStatus.ERROR, "cannot pickle")


# ------------------------------------------------------------------ batches, order, stragglers


def test_batches_hold_as_many_jobs_as_the_overhead_asks_for_and_no_more_than_a_fair_share():
    dispatcher, clock = make(2)
    teach_durations(dispatcher, clock, 0.010)
    dispatcher.overhead_s = 0.001  # 0.001 / (2% of 0.010) = 5 jobs.
    for i in range(400):
        dispatcher.submit(Job(i, i))
    assert {len(batch.jobs) for batch in dispatcher.assign()} == {5}
    for i in range(400, 404):
        dispatcher.submit(Job(i, i))
    few, clock = make(2)
    teach_durations(few, clock, 0.010)
    few.overhead_s = 0.001
    for i in range(8):
        few.submit(Job(i, i))
    sizes = [len(batch.jobs) for batch in few.assign()]
    assert len(sizes) == 4  # Two each: nothing is left for later, and nobody has it all.
    assert max(sizes) == 2


def test_long_jobs_are_neither_batched_nor_queued_behind_each_other():
    dispatcher, clock = make(2)
    teach_durations(dispatcher, clock, 30.0)
    dispatcher.overhead_s = 0.002
    for i in range(10):
        dispatcher.submit(Job(i, i))
    batches = dispatcher.assign()
    assert sorted(batch.worker for batch in batches) == ["w0", "w1"]
    assert all(len(batch.jobs) == 1 for batch in batches)
    assert dispatcher.num_queued == 8


def test_lost_work_goes_first():
    dispatcher, _ = make(1)
    for i in range(3):
        dispatcher.submit(Job(i, i))
    (first,) = dispatcher.assign()
    dispatcher.lost("w0", dispatch.Cause.PLACE)
    dispatcher.add_worker("v", "here")
    assert dispatcher.assign()[0].jobs == first.jobs


def test_a_straggler_is_given_to_an_idle_worker_and_the_first_result_counts():
    dispatcher, clock = make(2, straggler_factor=4.0)
    teach_durations(dispatcher, clock, 1.0)
    dispatcher.submit(Job(0, "slow"))
    (first,) = dispatcher.assign()
    clock.now += 3.9
    assert dispatcher.rebalance() == []
    assert dispatcher.assign() == []
    clock.now += 0.2
    dispatcher.rebalance()
    (second,) = dispatcher.assign()
    assert second.worker != first.worker
    dispatcher.rebalance()
    assert dispatcher.assign() == []  # Twice, not three times.
    give_back(dispatcher, second, 1.0)
    assert [r.worker for r in taken(dispatcher)] == [second.worker]
    give_back(dispatcher, first, 5.5)
    assert taken(dispatcher) == []
    stats = dispatcher.ledger.stats("test", 2, 0, 0)
    assert stats.num_reissued == 1
    assert stats.wasted_s == pytest.approx(5.5)


def test_a_straggler_that_never_ends_gives_its_worker_back():
    dispatcher, clock = make(2, straggler_factor=4.0)
    teach_durations(dispatcher, clock, 1.0)
    dispatcher.submit(Job(0, "stuck"))
    (first,) = dispatcher.assign()
    clock.now += 5.0
    dispatcher.rebalance()
    (second,) = dispatcher.assign()
    give_back(dispatcher, second, 1.0)
    assert dispatcher.overdue() == []
    clock.now += 5.0
    assert dispatcher.overdue() == [first.worker]


def test_an_id_used_again_does_not_get_an_old_jobs_result():
    dispatcher, clock = make(2, straggler_factor=2.0)
    teach_durations(dispatcher, clock, 1.0)
    dispatcher.submit(Job(0, "old"))
    (first,) = dispatcher.assign()
    clock.now += 5.0
    dispatcher.rebalance()
    (second,) = dispatcher.assign()
    give_back(dispatcher, second)
    assert [r.value for r in taken(dispatcher)] == ["old"]
    dispatcher.submit(Job(0, "new"))
    give_back(dispatcher, first)
    assert taken(dispatcher) == []
    assert dispatcher.in_flight == 1


def test_what_waits_behind_a_long_job_is_taken_back_for_an_idle_worker():
    dispatcher, clock = make(2)
    teach_durations(dispatcher, clock, 0.05)
    for i in range(4):
        dispatcher.submit(Job(i, i))
    batches = dispatcher.assign()
    held = {name: [b for b in batches if b.worker == name] for name in ("w0", "w1")}
    assert [len(held["w0"]), len(held["w1"])] == [2, 2]
    for batch in held["w1"]:
        give_back(dispatcher, batch)
    clock.now += 0.5
    assert dispatcher.rebalance() == [held["w0"][1]]
    (moved,) = dispatcher.assign()
    assert (moved.worker, moved.jobs) == ("w1", held["w0"][1].jobs)


def test_a_job_id_in_flight_is_refused():
    dispatcher, _ = make(1)
    dispatcher.submit(Job(3, None))
    with pytest.raises(PoolError, match="job with id 3 is already in flight"):
        dispatcher.submit(Job(3, None))


def test_closing_counts_what_was_under_way_as_wasted():
    dispatcher, clock = make(2)
    dispatcher.submit(Job(0, None))
    dispatcher.assign()
    clock.now += 7.0
    dispatcher.close()
    stats = dispatcher.ledger.stats("test", 2, 0, 0)
    assert (stats.wasted_s, stats.alive_s, stats.num_ready) == (7.0, 14.0, 0)


# ------------------------------------------------------------------ in a simulated cluster


def simulate(num_jobs, num_workers, fate, *, seed=0, life_s=np.inf, **policy):
    pool = simulated.SimulatedPool(
        lambda payload: payload * payload,
        simulated.Cluster(num_workers, start_s=1.0, life_s=life_s),
        fate,
        policy=dispatch.Policy(**policy),
        seed=seed,
        driver_time=False,
    )
    results = []
    with pool:
        for i in range(num_jobs):
            pool.submit(Job(i, i))
            if pool.in_flight >= pool.capacity:
                results.append(pool.next_result())
        results += pool.results()
        return results, pool.stats(), pool.now


def chaos(job, rng):
    """One job in twenty is poison, one hangs, one takes its worker's voice; and there is luck."""
    if job.id % 20 in (3, 4, 5):
        return 0.3, (End.DIES, End.HANGS, End.STUCK)[job.id % 20 - 3]
    if rng.random() < 0.02:
        return 0.1, End.DIES
    return float(rng.lognormal(-1.0, 1.0)), End.RETURNS


@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@hypothesis.settings(max_examples=15, deadline=None)
def test_a_cluster_of_dying_workers_gives_every_job_its_one_result(seed, num_workers):
    results, stats, _ = simulate(
        100, num_workers, chaos, seed=seed, life_s=60.0, timeout_s=30.0, max_tries=4
    )
    assert sorted(r.id for r in results) == list(range(100))
    status = {r.id: r.status for r in results}
    # Bad luck may strike a job four times in a row; poison always does.
    for i in range(100):
        kind = {3: "killed", 4: "timeout", 5: "killed"}.get(i % 20)
        if kind is not None:
            # A job that hangs may also be unlucky.
            assert status[i] in (kind, "killed" if i % 20 == 4 else kind)
    assert all(r.value == r.id**2 for r in results if r.status is JobStatus.OK)
    assert stats.num_done == 100
    assert stats.busy_s + stats.wasted_s <= stats.alive_s * (1 + 1e-9)


def test_with_equal_jobs_a_simulated_cluster_is_busy_nearly_always():
    results, stats, now = simulate(3000, 10, lambda job, rng: (0.05, End.RETURNS))
    assert len(results) == 3000
    assert stats.busy_s == pytest.approx(150.0)
    assert stats.busy_s / stats.alive_s > 0.95
    assert now == pytest.approx(1.0 + 15.0, rel=0.05)


def test_stragglers_cost_a_generation_little():
    """One job in fifty takes a hundred times as long at its first worker: a bad machine, say."""

    def fate(job, rng):
        return (100.0 if rng.random() < 0.02 else 1.0), End.RETURNS

    _, with_help, short = simulate(200, 20, fate, straggler_factor=4.0, seed=1)
    _, without, long = simulate(200, 20, fate, straggler_factor=None, seed=1)
    assert with_help.num_reissued > 0
    assert without.num_reissued == 0
    assert short < 0.5 * long
