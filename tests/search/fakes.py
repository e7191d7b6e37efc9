"""A worker that scores candidates by a formula, for testing everything above training."""

import hashlib
import time

import numpy as np

from veldt.search.config import finals_config, proxy_config, search_config
from veldt.search.evaluation import fingerprint, probe
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.language import dataflow
from veldt.tasks.pool.base import PoolStats, WorkerStats


class FakeWorker:
    """Scores a job by its candidate's behaviour alone: deterministic, fast, with failures."""

    def __init__(self, delay_s: float = 0.0):
        self.delay_s = delay_s
        self.jobs: list[EvalJob] = []

    def __call__(self, payload: object) -> Outcome:
        assert isinstance(payload, EvalJob)
        self.jobs.append(payload)
        if self.delay_s:
            time.sleep(self.delay_s)
        flow = dataflow.lower(payload.genotype.program, fold=True)
        digest = fingerprint.fingerprint(probe.run(flow), payload.genotype.learning_rate).digest
        results = []
        for run in payload.runs:
            seed = hashlib.sha1(f"{digest}/{run.proxy}/{run.seed}".encode()).digest()
            rng = np.random.default_rng(list(seed))
            quality = int(digest[:6], 16) / 16**6
            log_loss = -1.0 - quality + 0.1 * float(rng.normal())
            # The initial rule (the only one in its jobs without a hurdle at seed 0) never fails.
            status = Status.OK
            if payload.hurdle and quality < 0.1:
                status = Status.DIVERGED
            elif payload.hurdle and quality < 0.2:
                status = Status.REJECTED
            loss = None if status is Status.DIVERGED else float(np.exp(log_loss))
            losses = () if status is Status.DIVERGED else (log_loss,)
            results.append(RunResult(run, status, loss, losses, 10, 0.001))
            if status is not Status.OK:
                return Outcome(status, None, tuple(results))
        fitness = float(np.mean([result.log_losses[-1] for result in results]))
        return Outcome(Status.OK, fitness, tuple(results))


class TroubledWorker:
    """Scores like `FakeWorker`, but for one job in six, which fails in one of several ways."""

    def __init__(self):
        self.worker = FakeWorker()

    def __call__(self, payload: object) -> Outcome:
        assert isinstance(payload, EvalJob)
        if payload.candidate == 0 and payload.purpose == "fitness":
            return self.worker(payload)
        text = f"{payload.genotype}/{payload.purpose}/{payload.runs[0]}"
        number = int(hashlib.sha1(text.encode()).hexdigest(), 16) % 18
        if number == 0:
            raise RuntimeError("out of memory\nwhile allocating")
        if number in (1, 2):  # As the pool would say it, which here kills and waits for no one.
            status = (Status.TIMEOUT, Status.KILLED)[number - 1]
            return Outcome(status, None, message=f"{status} on worker 7")
        return self.worker(payload)


def pool_stats(live: int = 2, **changes: object) -> PoolStats:
    """A pool's figures: worker `w<i>` did `10 * (i + 1)` jobs in 10 seconds."""
    workers = tuple(
        WorkerStats(f"w{i}", f"host-{i}, process {i}", 10 * (i + 1), 5.0, 10.0) for i in range(live)
    )
    settings: dict[str, object] = {
        "backend": "ray",
        "num_workers": live,
        "num_ready": live,
        "num_queued": 3,
        "num_running": 1,
        "num_done": 30,
        "num_retries": 4,
        "num_reissued": 5,
        "num_timeouts": 6,
        "num_killed": 7,
        "num_lost_workers": 8,
        "busy_s": 60.0,
        "wasted_s": 10.0,
        "starting_s": 9.5,
        "alive_s": 100.0,
        "workers": workers,
    }
    return PoolStats(**{**settings, **changes})  # type: ignore[arg-type]


class View:
    """A display that keeps what it was given."""

    def __init__(self):
        self.phases, self.notes, self.stats, self.events = [], [], [], []
        self.bests = 0
        self.evolution = None

    def doing(self, text):
        pass

    def phase(self, text, done=0, total=0):
        self.phases.append(text)

    def update(self, evolution):
        self.evolution = evolution

    def best(self, evolution):
        self.bests += 1

    def work(self, stats, events):
        self.stats.append(stats)
        self.events += events

    def note(self, text):
        self.notes.append(text)

    def close(self): ...


def small_config(**changes: object) -> search_config.SearchConfig:
    """A small search; its tasks are names only, since `FakeWorker` trains nothing."""
    settings: dict[str, object] = {
        "tasks": (
            proxy_config.ProxyConfig("digits_mlp", 10, 1),
            proxy_config.ProxyConfig("digits_conv", 10, 1),
        ),
        "meta_validation": (proxy_config.ProxyConfig("quadratic", 10, 1),),
        "max_evaluations": 60,
        "population_size": 15,
        "fresh_seeds": 4,
        "window": 4,
        "finals": finals_config.FinalsConfig(num_rates=3, select_seeds=1, final_seeds=3),
    }
    return search_config.SearchConfig(**{**settings, **changes})  # type: ignore[arg-type]
