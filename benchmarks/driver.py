"""The cost of the search's driver: results per second that one process can ask and tell.

    python benchmarks/driver.py [--proposals 3000] [--repeats 5]

One run, one machine, one process. The real engine (`search.evolution`), mutations and store, on
disk, with the settings of `two_digits.yaml`; only training is left out. A worker that answers at
once stands in for it: its scores are a function of the program's text, and as many candidates are
kept, rejected or diverge as in `two_digits.yaml`. It rejects short programs, so that lengths too
stay as they are in real searches (`mean_statements`). Each repeat is a search with a seed of its
own.

A search with hundreds of workers goes no faster than its driver. Results per second are proposals
told per second, the stand-in's time taken off; most proposals need no worker, so workers get one
job per `us_per_trained`. The parts are timed by wrapping the functions named in `install`; what
runs inside a part counts to it. `pickle` is no part of that: it is what a back end with other
processes adds for each job and its outcome, at the least. `us_per_ask` is the time of proposing
a child: mutating, lowering, probing, searching the caches and pruning, but not storing the
result; and `cpu_us_per_ask` is the same in processor time, which a busy machine affects less.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import pickle
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

from veldt import config
from veldt.search import simplify
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation import fingerprint, probe
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.evolution import mutation
from veldt.search.evolution.engine import Evolution
from veldt.search.language import dataflow
from veldt.search.runtime import encode
from veldt.search.storage.store import Store
from veldt.tasks.pool import driver
from veldt.tasks.pool.inline import InlinePool

RESULTS = Path(__file__).parent / "results" / "driver.json"
SETTING: Final = Path(__file__).parent / "two_digits.yaml"
# In four searches a quarter of the candidates are
# trained to the end, and proposals have 24 statements of which 12.5 live.
DIVERGED, REJECTED = 0.05, 0.45
MIN_STATEMENTS = 12


class Worker:
    """A worker that scores by a hash of the text; keeps recent jobs and outcomes for `pickle`."""

    def __init__(self) -> None:
        self.done: list[tuple[EvalJob, Outcome]] = []

    def __call__(self, payload: object) -> Outcome:
        assert isinstance(payload, EvalJob)
        outcome = self.score(payload)
        self.done = [*self.done[-99:], (payload, outcome)]
        return outcome

    def score(self, job: EvalJob) -> Outcome:
        text = f"{job.genotype.program}{job.genotype.learning_rate!r}"
        luck = int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) / 16**8
        too_short = len(job.genotype.program.statements) < MIN_STATEMENTS
        status = Status.OK
        # Without a hurdle it is the initial rule, or a challenge on fresh seeds.
        if job.hurdle and (luck < DIVERGED + REJECTED or too_short):
            status = Status.DIVERGED if luck < DIVERGED else Status.REJECTED
        loss = None if status is Status.DIVERGED else 1.0 - 0.1 * luck
        losses: tuple[float, ...] = () if loss is None else (math.log(loss),)
        runs = job.runs if status is Status.OK else job.runs[:1]
        results = tuple(RunResult(run, status, loss, losses, 200, 0.1) for run in runs)
        return Outcome(status, losses[0] if status is Status.OK else None, results)


class Stopwatch:
    """Seconds by part; only the outermost of nested parts is running."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.running = False

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.running = True
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            self.running = False

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.running:
                return function(*args, **kwargs)
            with self.part(name):
                return function(*args, **kwargs)

        return wrapper


def install(watch: Stopwatch, undo: contextlib.ExitStack) -> None:
    """Wrap the driver's parts for as long as `undo` is open."""
    for name, owner, function in (
        ("mutate", mutation, "mutate"),
        ("lower and hash", dataflow, "lower"),
        ("fingerprint", probe, "run"),
        ("fingerprint", fingerprint, "fingerprint"),
        ("simplify", simplify, "prune"),
        ("encode", encode, "encode"),
        ("store", Store, "rows"),
        ("store", Store, "first"),
        ("stand-in", Worker, "__call__"),
    ):
        wrapped = watch.timed(name, getattr(owner, function))
        undo.enter_context(mock.patch.object(owner, function, wrapped))
    for name in ("live", "structural_hash"):
        timed = functools.cached_property(
            watch.timed("lower and hash", vars(dataflow.Dataflow)[name].func)
        )
        timed.__set_name__(dataflow.Dataflow, name)
        undo.enter_context(mock.patch.object(dataflow.Dataflow, name, timed))
    transaction = Store.transaction

    @contextlib.contextmanager
    def timed_transaction(self: Store) -> Iterator[None]:
        with watch.part("store"), transaction(self):
            yield

    undo.enter_context(mock.patch.object(Store, "transaction", timed_transaction))


def measure(num_proposals: int, seed: int, *, parts: bool) -> dict[str, Any]:
    """Time one search of `num_proposals` proposals; with `parts`, where the time went."""
    settings = dataclasses.replace(
        config.load_config(SearchConfig, SETTING),
        seed=seed,
        time_limit_s=None,
        max_evaluations=num_proposals,
    )
    watch = Stopwatch()
    worker = Worker()
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory())
        store = undo.enter_context(Store.create(Path(folder)))
        pool = undo.enter_context(InlinePool(lambda: worker))
        # The stand-in is always timed, to be subtracted; the rest only when needed.
        if parts:
            install(watch, undo)
        else:
            wrapped = watch.timed("stand-in", Worker.__call__)
            undo.enter_context(mock.patch.object(Worker, "__call__", wrapped))
        engine = driver.OrderedDriver(pool, window=settings.window)
        evolution = Evolution.start(settings, store, engine.run_now)
        watch.seconds.clear()

        asking = [0.0, 0.0]  # Seconds by the clock and of processor time.

        def ask(index: int) -> driver.Proposal:
            if index >= num_proposals:
                return driver.Stop()
            ask_began, ask_cpu_began = time.perf_counter(), time.process_time()
            proposal = evolution.ask(index)
            asking[0] += time.perf_counter() - ask_began
            asking[1] += time.process_time() - ask_cpu_began
            return proposal

        cpu_began = time.process_time()
        began = time.perf_counter()
        engine.run(ask, evolution.tell, evolution.settle, evolution.begun)
        total_s = time.perf_counter() - began
        cpu_s = time.process_time() - cpu_began
        stand_in_s = watch.seconds.pop("stand-in")
        driver_s = total_s - stand_in_s
        lengths = store.rows("SELECT AVG(statements) AS genotype, AVG(live) AS live FROM proposal")
        trained = evolution.counts.num_trained
    result = {
        "seed": seed,
        "results_per_s": num_proposals / driver_s,
        "us_per_proposal": driver_s / num_proposals * 1e6,
        # The stand-in's time, a hundredth of it, is in this one.
        "cpu_us_per_proposal": cpu_s / num_proposals * 1e6,
        "us_per_ask": asking[0] / num_proposals * 1e6,
        "cpu_us_per_ask": asking[1] / num_proposals * 1e6,
        "us_per_trained": driver_s / trained * 1e6,
        "trained_share": trained / num_proposals,
        "ok_share": evolution.counts.statuses["ok"] / trained,
        "mean_statements": lengths[0],
    }
    if parts:
        seconds = {**watch.seconds, "rest": driver_s - sum(watch.seconds.values())}
        result["parts_us_per_proposal"] = {
            name: seconds[name] / num_proposals * 1e6 for name in sorted(seconds)
        }
    else:
        result["pickle"] = pickled(worker.done)
    return result


def pickled(done: list[tuple[EvalJob, Outcome]]) -> dict[str, float]:
    """Time pickling a job and unpickling its outcome, as a back end with other processes must."""
    sent = [pickle.dumps(outcome) for _, outcome in done]
    began = time.perf_counter()
    jobs = [pickle.dumps(job) for job, _ in done]
    for outcome in sent:
        pickle.loads(outcome)  # noqa: S301, our own bytes
    return {
        "us_per_trained": (time.perf_counter() - began) / len(done) * 1e6,
        "job_bytes": statistics.mean(map(len, jobs)),
    }


def main() -> None:
    """Measure, print and write `results/driver.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proposals", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    measure(200, args.repeats, parts=False)  # Imports and first calls.
    runs, split = [], []
    for seed in range(args.repeats):
        runs.append(measure(args.proposals, seed, parts=False))
        split.append(measure(args.proposals, seed, parts=True))

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
        },
        "config": "two_digits",
        "proposals": args.proposals,
        "repeats": args.repeats,
        "results_per_s": spread([run["results_per_s"] for run in runs]),
        "us_per_proposal": spread([run["us_per_proposal"] for run in runs]),
        "us_per_trained": spread([run["us_per_trained"] for run in runs]),
        "pickle_us_per_trained": spread([run["pickle"]["us_per_trained"] for run in runs]),
        "parts_us_per_proposal": {
            part: spread([run["parts_us_per_proposal"][part] for run in split])
            for part in split[0]["parts_us_per_proposal"]
        },
        "runs": runs,
    }
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
