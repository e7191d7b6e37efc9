"""A worker that scores candidates by a formula, for testing everything above training."""

import hashlib
import time

import numpy as np

from veldt.search import config, dataflow, evaluator, fingerprint
from veldt.search.evaluator import EvalJob, Outcome, RunResult, Status


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
        digest = fingerprint.fingerprint(flow, payload.genotype.learning_rate).digest
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


def small_config(**changes: object) -> config.SearchConfig:
    """A small search; its tasks are names only, since `FakeWorker` trains nothing."""
    settings: dict[str, object] = {
        "tasks": (
            evaluator.ProxyConfig("digits_mlp", 10, 1),
            evaluator.ProxyConfig("digits_conv", 10, 1),
        ),
        "meta_validation": (evaluator.ProxyConfig("quadratic", 10, 1),),
        "max_evaluations": 60,
        "population_size": 15,
        "fresh_seeds": 4,
        "window": 4,
        "finals": config.FinalsConfig(num_rates=3, select_seeds=1, final_seeds=3),
    }
    return config.SearchConfig(**{**settings, **changes})  # type: ignore[arg-type]
