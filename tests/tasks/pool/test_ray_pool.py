"""The Ray back end, on a real local Ray: the pool's contract, and every fault a worker can have."""

import ctypes
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from veldt.search.config import proxy_config
from veldt.tasks.common import private_folder
from veldt.tasks.pool import base, pools, ray_cluster, ray_metrics, ray_pool
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool.base import EventKind, Job, JobStatus

pytestmark = pytest.mark.ray


class Mischief:
    """Squares numbers; other payloads do what workers do when things go wrong."""

    def __init__(self):
        self.warm = False

    def warm_up(self):
        self.warm = True

    def __call__(self, payload):
        assert self.warm
        match payload:
            case "raise":
                raise ValueError("three is a crowd")
            case "exit":
                raise SystemExit(3)
            case "die":
                os._exit(3)
            case "crash":
                ctypes.string_at(0)  # A null pointer, read.
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(60)  # The stop reaches this thread a moment later.
            case "loop":
                while True:
                    time.sleep(0.01)
            case "lock":  # Endless, and without ever giving Python's lock back.
                re.match(r"(a+)+$", "a" * 60 + "b")
            case "grow":
                held = []
                while True:
                    held.append(bytearray(16 << 20))
                    time.sleep(0.005)
            case "where":
                return os.getpid()
            case "cache":
                import jax

                return jax.config.jax_compilation_cache_dir
            case "unpicklable":
                return socket.socket()
            case ("sleep", seconds):
                time.sleep(seconds)
                return seconds
            case number:
                return number * number


@pytest.fixture(scope="module")
def cluster():
    """One Ray for all tests here; pools use the connection that is there."""
    config = pool_config.PoolConfig(backend="ray", num_workers=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JAX_COMPILATION_CACHE_DIR")  # The tests' own; workers have one of theirs.
        connection = ray_cluster.connect(config)
    import ray

    # Workers cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield connection
    connection.close()


@pytest.fixture
def make(cluster, monkeypatch):
    monkeypatch.setattr(ray_pool, "PROBE_S", 0.5)

    def make(num_workers=2, factory=Mischief, **changes):
        own = ("memory_limit_gib", "max_jobs", "max_growth_gib")
        ray_config = pool_config.RayConfig(**{k: changes.pop(k) for k in own if k in changes})
        config = pool_config.PoolConfig("ray", num_workers, ray=ray_config, **changes)
        return pools.make_pool(config, factory)

    return make


def run(pool, *payloads):
    for i, payload in enumerate(payloads):
        pool.submit(Job(i, payload, f"candidate {i}"))
    results = list(pool.results())
    assert sorted(r.id for r in results) == list(range(len(payloads)))
    return sorted(results, key=lambda r: r.id)


def test_every_job_yields_one_result_and_errors_are_data(make):
    with make() as pool:
        results = run(pool, *range(20), "raise", "exit", "unpicklable")
        stats = pool.stats()
        assert pool.num_workers == 2
    assert [r.value for r in results[:20]] == [i * i for i in range(20)]
    assert [r.status for r in results] == [JobStatus.OK] * 20 + [JobStatus.ERROR] * 3
    assert results[20].message.startswith("ValueError: three is a crowd")
    assert "in __call__" in results[20].message
    assert "pickle" in results[22].message
    assert {r.label for r in results} == {f"candidate {i}" for i in range(23)}
    assert stats.num_done == 23
    assert (stats.num_lost_workers, stats.num_retries) == (0, 0)
    assert 1 <= stats.num_ready <= 2
    assert sum(worker.num_jobs for worker in stats.workers) >= 22


def test_workers_are_kept_and_live_in_other_processes(make):
    with make() as pool:
        pids = {r.value for r in run(pool, *["where"] * 12)}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2


@pytest.mark.parametrize("poison", ["die", "crash"])
def test_a_job_that_kills_its_workers_is_quarantined_and_the_others_are_done(make, poison):
    with make(max_tries=2) as pool:
        results = run(pool, *range(6), poison, *range(6))
        events = pool.take_events()
        stats = pool.stats()
    assert [r.status for r in results].count(JobStatus.OK) == 12
    assert results[6].status is JobStatus.KILLED
    assert results[6].message.startswith("given up: its worker was lost 2 times; the last died: ")
    assert stats.num_killed == 1
    assert stats.num_lost_workers >= 2
    last = [event for event in events if event.kind is EventKind.QUARANTINE]
    assert [event.job for event in last] == ["candidate 6"]


def test_a_time_limit_is_enforced_on_the_guilty_job_alone(make):
    began = time.monotonic()
    with make(timeout_s=1.0) as pool:
        results = run(pool, *range(5), "loop", *range(5))
        assert pool.stats().num_timeouts == 1
    assert results[5].status is JobStatus.TIMEOUT
    assert re.fullmatch(r"took \d+\.\d s; the limit is 1 s", results[5].message)
    assert [r.status for r in results].count(JobStatus.OK) == 10
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("poison", ["stop", "lock"])
def test_a_worker_that_is_stuck_as_a_whole_is_replaced(make, poison):
    with make(timeout_s=1.0, max_tries=1, straggler_factor=None) as pool:
        results = run(pool, 1, poison, 2)
    assert results[1].status is JobStatus.KILLED
    assert "does not answer" in results[1].message
    assert [results[0].value, results[2].value] == [1, 4]


@pytest.mark.slow
def test_a_worker_that_is_stuck_is_replaced_though_jobs_have_no_limit(make, monkeypatch):
    monkeypatch.setattr(ray_pool, "ASK_S", 0.2)
    monkeypatch.setattr(ray_pool, "STUCK_S", 2.0)
    with make(max_tries=1, straggler_factor=None) as pool:
        results = run(pool, 1, "stop", 2, ("sleep", 3.0))
        stats = pool.stats()
    # One that works for longer than that, and answers, is left alone.
    assert [r.status for r in results] == ["ok", "killed", "ok", "ok"]
    assert results[1].message.endswith("does not answer: for 2 s")
    assert stats.num_lost_workers == 1


class StopsOnce:
    """A factory whose first worker stops as a whole while it is made."""

    def __init__(self, mark):
        self.mark = mark

    def __call__(self):
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)
        return Mischief()


@pytest.mark.slow
def test_a_worker_that_is_stuck_while_it_is_made_is_replaced(make, monkeypatch, tmp_path):
    monkeypatch.setattr(ray_pool, "ASK_S", 0.2)
    monkeypatch.setattr(ray_pool, "STUCK_S", 2.0)
    with make(num_workers=1, factory=StopsOnce(tmp_path / "stopped")) as pool:
        (result,) = run(pool, 3)
        events = pool.take_events()
    assert result.value == 9
    lost = [event.message for event in events if event.kind is EventKind.WORKER_LOST]
    assert lost == ["while it was made: TimeoutError: no answer for 2 s"]


def test_a_worker_that_grows_past_its_memory_limit_is_ended_with_that_message(make):
    with make(max_tries=1, memory_limit_gib=1.0) as pool:
        results = run(pool, 1, "grow", 2)
    assert results[1].status is JobStatus.KILLED
    said = r"it held 1\.\d\d GiB; pool\.ray\.memory_limit_gib is 1\.00"
    assert re.search(said, results[1].message)
    assert [results[0].value, results[2].value] == [1, 4]


def test_a_memory_limit_that_no_worker_can_start_under_is_an_error(make):
    """Not workers for ever."""
    with (
        make(num_workers=1, memory_limit_gib=0.02) as pool,
        # Its last words, if they came through in time; else what may be the cause.
        pytest.raises(base.PoolError, match=r"no worker can be made: .*memory_limit_gib is 0\.02"),
    ):
        run(pool, 1)
    assert pool.stats().num_lost_workers <= ray_pool.MAX_FAILED_STARTS


def test_workers_that_die_before_their_first_job_are_an_error(make):
    class Idler:
        def __call__(self, payload):
            time.sleep(60)

    with make(num_workers=1, factory=Idler) as pool, pytest.raises(base.PoolError) as caught:
        for _ in range(1000):
            for worker in pool.stats().workers:
                os.kill(int(worker.place.rpartition(" ")[2]), signal.SIGKILL)
            pool._hear(0.1)
    assert "no worker can be made" in str(caught.value)


def test_a_worker_lost_while_a_call_is_measured_is_no_error_of_the_pool(monkeypatch):
    """A link that is cut as the first worker begins; its loss is seen as that of any other."""
    import ray

    class Run:
        def remote(self, *arguments):
            return arguments

    class Actor:
        run = Run()

    answers = [None, None, ray.exceptions.GetTimeoutError("cut"), None]

    def get(ref, timeout):
        assert timeout == ray_pool.PING_S
        if (answer := answers.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(ray, "get", get)
    assert 0 < ray_pool._round_trip_s(Actor()) < 1
    assert answers == [None]  # After an error there is no further call.
    answers[:] = [ray.exceptions.ActorDiedError()]
    assert ray_pool._round_trip_s(Actor()) == 0.0


def test_the_head_is_known_by_its_greeting(cluster):
    ray_cluster._check_reachable(cluster.address)


def test_workers_killed_from_outside_cost_tries_of_nobody_else(make):
    """Each of several kills takes a worker in mid-job; every job still has its one result."""
    with make(max_tries=10) as pool:
        for i in range(24):
            pool.submit(Job(i, ("sleep", 0.1)))
        results, killed = [], set()
        while pool.in_flight:
            results.append(pool.next_result())
            for worker in pool.stats().workers:
                pid = int(worker.place.rpartition(" ")[2])
                if len(killed) < 3 and worker.num_jobs >= 2 and pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
                    break
        stats = pool.stats()
    assert sorted(r.id for r in results) == list(range(24))
    assert {r.status for r in results} == {JobStatus.OK}
    assert len(killed) == 3
    assert stats.num_lost_workers >= 3


def test_a_worker_that_dies_idle_is_seen_and_blamed_on_no_job(make):
    with make(num_workers=2, max_tries=1) as pool:
        run(pool, *["where"] * 8)
        pool.submit(Job(100, ("sleep", 3.0)))  # One is busy, the other has nothing.
        while pool.stats().num_ready < 2:
            with pytest.raises(TimeoutError):
                pool.next_result(timeout_s=0.1)
        pids = {int(worker.place.rpartition(" ")[2]) for worker in pool.stats().workers}
        idle = next(pid for pid in pids if not is_busy(pool, pid))
        os.kill(idle, signal.SIGKILL)
        assert pool.next_result().status is JobStatus.OK
        assert pool.stats().num_lost_workers == 1
        assert [r.status for r in run(pool, *range(4))] == [JobStatus.OK] * 4


def is_busy(pool, pid):
    names = [w.name for w in pool.stats().workers if w.place.endswith(f" {pid}")]
    return pool._dispatcher.running(names[0]) is not None


def test_a_factory_that_raises_is_an_error_of_the_pool_not_an_endless_loop(make, monkeypatch):
    monkeypatch.setattr(ray_pool, "MAX_BACKOFF_S", 0.01)

    def factory():
        raise OSError("no data here")

    with make(factory=factory) as pool:
        pool.submit(Job(0, 1))
        with pytest.raises(base.PoolError, match=r"no worker can be made: .*no data here"):
            pool.next_result()


def test_a_payload_that_cannot_be_pickled_is_an_error_of_its_job(make):
    with make() as pool, socket.socket() as unpicklable:
        results = run(pool, 3, unpicklable)
    assert results[0].value == 9
    assert results[1].status is JobStatus.ERROR
    assert "serialize the argument" in results[1].message


def test_waiting_has_a_limit_and_a_closed_pool_reports_it(make):
    with make(num_workers=1) as pool:
        run(pool, 1)
        pool.submit(Job(0, ("sleep", 5.0)))
        with pytest.raises(TimeoutError, match="no job completed"):
            pool.next_result(timeout_s=0.2)
        with pytest.raises(base.PoolError, match="id 0 is already in flight"):
            pool.submit(Job(0, 1))
        began = time.monotonic()
    assert time.monotonic() - began < 4.0  # What runs is ended, not waited for.
    pool.close()
    with pytest.raises(base.PoolError, match="closed"):
        pool.submit(Job(1, 1))
    with pytest.raises(base.PoolError, match="closed"):
        pool.next_result()
    assert pool.stats().wasted_s > 0


def test_more_than_the_cluster_has_room_for_is_refused_in_words(cluster):
    ray_config = pool_config.RayConfig(resources={"TPU": 4})
    config = pool_config.PoolConfig("ray", ray=ray_config)
    with pytest.raises(base.PoolError, match=r"no node with room .* wants CPU 1, TPU 4; it has"):
        pools.make_pool(config, Mischief)


def test_fractions_share_a_machine(cluster):
    for share, fitting in [(1.0, 1), (0.5, 2), (0.1, 10), (1 / 3, 3)]:
        config = pool_config.PoolConfig("ray", ray=pool_config.RayConfig(num_cpus=share))
        cluster_now = ray_cluster.Cluster(config, owned=False, local=False)
        import ray

        assert cluster_now.max_workers() == fitting * int(ray.cluster_resources()["CPU"])


def test_a_ray_started_here_listens_on_loopback_only_behind_a_token():
    """In a process of its own: another test may have imported Ray before veldt could set it up."""
    code = (
        "import os\n"
        "from veldt.tasks.pool import config, ray_cluster\n"
        "cluster = ray_cluster.connect(config.PoolConfig('ray', 1))\n"
        "import ray\n"
        "print(ray.util.get_node_ip_address(), cluster.address.rpartition(':')[0])\n"
        "print(os.environ['RAY_AUTH_MODE'], len(os.environ['RAY_AUTH_TOKEN']))\n"
        "cluster.close()\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, text=True, capture_output=True, env=env, timeout=120)
    assert done.stdout == "127.0.0.1 127.0.0.1\ntoken 64\n", done.stderr


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_unreachable_cluster_is_an_error_in_words(scheme):
    with socket.socket() as nobody:  # Bound, but nobody listens.
        nobody.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(base.PoolError, match=f"cannot connect to .* at {address}: .*refused"):
            ray_cluster._check_reachable(address)


def test_a_head_that_is_away_is_news_and_for_long_an_error(cluster, monkeypatch):
    config = pool_config.PoolConfig("ray")
    watch = ray_cluster.Cluster(config, owned=False, local=False)
    monkeypatch.setattr(ray_cluster, "HEAD_CHECK_S", 0.0)
    assert watch.check_head() == ""
    with socket.socket() as listener:  # A head's address at which nobody answers yet.
        listener.bind(("127.0.0.1", 0))
        watch._head = listener.getsockname()
        assert "does not answer" in watch.check_head()
        assert watch.head_is_away
        assert watch.check_head() == ""
        listener.listen()
        assert "answers again" in watch.check_head()
    assert not watch.head_is_away
    monkeypatch.setattr(ray_cluster, "HEAD_TIMEOUT_S", 0.0)
    watch.check_head()
    time.sleep(0.01)
    with pytest.raises(base.PoolError, match="continue with --resume"):
        watch.check_head()


def test_a_missing_wheel_or_folder_is_named(tmp_path):
    for field, text in [("wheel", "is no wheel"), ("working_dir", "is no folder")]:
        settings = pool_config.RayConfig(**{field: "nowhere/at_all"})
        with pytest.raises(base.PoolError, match=f"pool.ray.{field}: nowhere/at_all {text}"):
            ray_cluster._runtime_env(settings, tmp_path)


def test_workers_share_what_they_compile_in_a_folder_of_this_user_alone(make, cluster, monkeypatch):
    config = pool_config.PoolConfig("ray", 1)
    known = ray_cluster.Cluster(
        config, owned=False, local=False, session_dir=f"x/{cluster.session}"
    )
    monkeypatch.setattr(ray_cluster, "connect", lambda config: known)
    with make(num_workers=1) as pool:
        (result,) = run(pool, "cache")
    assert cluster.session.startswith("session_")
    folder = private_folder.temporary() / "compiled" / cluster.session
    assert result.value == str(folder)
    for path in (folder, private_folder.temporary()):
        assert path.stat().st_mode & 0o777 == 0o700 and path.stat().st_uid == os.getuid()
    # Sockets, logs and what Ray unpacks lie there too.
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert private_folder.temporary() in session.parents


def test_metrics_count_up_and_forget_lost_workers(cluster, monkeypatch):
    sent = []

    class Recorder:
        def __init__(self, name, description, tag_keys=()):
            self.name = name

        def set(self, value, tags=None):
            sent.append((self.name, value, tags))

        def inc(self, value):
            sent.append((self.name, value, "inc"))

    from ray.util import metrics

    monkeypatch.setattr(metrics, "Gauge", Recorder)
    monkeypatch.setattr(metrics, "Counter", Recorder)
    exported = ray_metrics.Metrics()
    worker = base.WorkerStats("worker-0", "here", 6, 2.0, 3.0)
    first = base.PoolStats("ray", 2, 1, 5, 1, num_done=6, busy_s=2.0, workers=(worker,))
    exported.update(first)
    exported.update(base.PoolStats("ray", 2, 0, 6, 0, num_done=8, busy_s=2.0))
    done = [value for name, value, _ in sent if name == "veldt_pool_num_done"]
    assert done == [6.0, 2.0]
    assert [value for name, value, _ in sent if name == "veldt_pool_busy_s"] == [2.0]
    assert [value for name, value, _ in sent if name == "veldt_pool_num_queued"] == [5, 6]
    rates = [(value, tags) for name, value, tags in sent if name == "veldt_pool_worker_jobs_per_s"]
    assert rates == [(2.0, {"worker": "worker-0"}), (0.0, {"worker": "worker-0"})]


def test_a_forgotten_batch_is_not_begun(cluster):
    from veldt.tasks.pool import ray_host

    host = ray_host.Host("worker-9", ray_host.Conditions({"CPU": 1.0}, session="session"))
    host.start(Mischief)
    host.forget(4)
    assert host.run(4, [Job(0, 3)]).results == []
    assert [r.value for r in host.run(5, [Job(0, 3)]).results] == [9]
    assert host.doing() == (None, 0.0)
    for batch in range(3 * ray_host.MAX_FORGOTTEN):
        host.forget(batch + 10)
    assert len(host._forgotten) == ray_host.MAX_FORGOTTEN


def test_a_spent_worker_is_replaced_between_jobs_and_no_job_is_lost(make):
    """Batches of many jobs, of which a worker may have one waiting: what it refuses is redone."""
    with make(num_workers=2, max_jobs=10, max_tries=1, straggler_factor=None) as pool:
        results = run(pool, *range(60), *["where"] * 20)
        events, stats = pool.take_events(), pool.stats()
    assert [r.value for r in results[:60]] == [i * i for i in range(60)]
    assert {r.status for r in results} == {JobStatus.OK}
    assert len({r.value for r in results[60:]}) >= 2
    retired = [event.message for event in events if event.kind is EventKind.WORKER_RETIRED]
    # 80 jobs, at most 10 each; the last two workers are there still.
    assert len(retired) >= 6
    assert all(8 <= int(re.fullmatch(r"after (\d+) jobs", text)[1]) <= 10 for text in retired)
    # On a busy machine the pool may also report that it waits for a worker to start.
    innocent = {EventKind.WORKER_RETIRED, EventKind.WORKER_READY, EventKind.POOL}
    assert {event.kind for event in events} <= innocent
    assert (stats.num_lost_workers, stats.num_retries, stats.num_killed) == (0, 0, 0)
    assert stats.wasted_s == 0


class Keeper:
    """Keeps 64 MiB of each job, as a worker with a leak."""

    def __init__(self):
        self.held = []

    def __call__(self, payload):
        self.held.append(b"x" * (64 << 20))
        return payload


def test_a_worker_that_grows_between_jobs_gives_its_memory_back(make):
    with make(num_workers=1, factory=Keeper, max_growth_gib=0.25) as pool:
        results = run(pool, *range(9))
        events, stats = pool.take_events(), pool.stats()
    assert [r.value for r in results] == list(range(9))
    retired = [event.message for event in events if event.kind is EventKind.WORKER_RETIRED]
    assert len(retired) == 2
    said = r"its memory grew by 0\.2\d GiB in 4 jobs"
    assert all(re.fullmatch(said, text) for text in retired)
    assert stats.num_lost_workers == 0


def test_workers_that_start_together_are_spent_one_after_another():
    config = pool_config.PoolConfig(ray=pool_config.RayConfig(max_jobs=1000))
    limits = [ray_pool._staggered(config, number) for number in range(64)]
    assert max(limits) == 1000 and min(limits) > 750
    assert len({limit // 10 for limit in limits}) > 20
    assert ray_pool._staggered(pool_config.PoolConfig(), 3) is None


def test_a_factory_travels_by_pickle():
    from veldt.search.evaluation import evaluator

    factory = evaluator.EvaluatorFactory(
        proxy_config.EvaluatorConfig((proxy_config.ProxyConfig("quadratic", 10, 1),))
    )
    assert pickle.loads(pickle.dumps(factory)).config == factory.config  # noqa: S301
