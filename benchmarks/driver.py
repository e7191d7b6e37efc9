"""The cost of the search's driver: proposals per second that one process can ask and tell.

    python benchmarks/driver.py [--proposals 3000] [--repeats 5] [--proposers 0 1] [--growth 10]

The real engine (`search.evolution`), mutations and store, on disk, with the settings of
`two_digits.yaml`; only training is left out. A worker that answers at once stands in for it: its
scores are a function of the program's text, and as many candidates are kept, rejected or diverge as
in `two_digits.yaml`. It rejects short programs, so that lengths too stay as they are in real
searches (`mean_statements`). Each repeat is a search with a seed of its own. All results are there
when the driver looks for them, as on a cluster that is larger than its driver can feed.

All times are processor time, which a busy machine affects less than the clock, though it does: when
caches and cores are shared, the same instructions take longer. The stand-in's time is taken off.
`proposals_per_s` is what the driver, and each helper (`proposers`), does in a second of its
own core; a search with helpers is as fast as the slower of the driver and all helpers together,
`proposals_per_s.together`, if each has a core. The parts are timed by wrapping the functions named
in `install`; what runs inside a part counts to it. `pickle` is no part of that: it is what a back
end with other processes adds for each job and its outcome, at the least. `us_per_ask` is the time
of proposing a child, but not of storing the result.

With `--growth`, one search goes on for so many times more proposals; its resident memory after
each tenth is written down.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import pickle
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

from veldt import config
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation import fingerprint, probe
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.evolution import mutation
from veldt.search.evolution.engine import Evolution
from veldt.search.language import dataflow, pruning
from veldt.search.run.proposing import helpers
from veldt.search.storage.store import Store
from veldt.tasks.pool import base, driver

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


class AtOnce(base.Pool):
    """A pool whose jobs are done when they are submitted."""

    num_workers = capacity = 1000

    def __init__(self, worker: base.Worker) -> None:
        self._worker = worker
        self._done: list[base.JobResult] = []

    @property
    def in_flight(self) -> int:
        return len(self._done)

    def submit(self, job: base.Job) -> None:
        self._done.append(base.run_job(self._worker, job, timeout_s=None, name="at-once"))

    def next_result(self, timeout_s: float | None = None) -> base.JobResult:
        return self._done.pop(0)

    def stats(self) -> base.PoolStats:
        return base.PoolStats("inline", 1, 1, 0, 0)

    def take_events(self) -> list[base.PoolEvent]:
        return []

    def close(self) -> None: ...


class Stopwatch:
    """Seconds of processor time by part; only the outermost of nested parts is running."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.running = False

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.running = True
        began = time.process_time()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began
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
        ("lower and hash", dataflow, "folded"),
        ("fingerprint", probe, "run"),
        ("fingerprint", fingerprint, "fingerprint"),
        ("simplify", pruning, "to_program"),
        ("store", Store, "rows"),
        ("store", Store, "first"),
        ("store", Store, "insert"),
        ("helpers", helpers.Proposers, "told"),
        ("helpers", helpers.Proposers, "child"),
        ("stand-in", Worker, "__call__"),
    ):
        wrapped = watch.timed(name, getattr(owner, function))
        undo.enter_context(mock.patch.object(owner, function, wrapped))
    for name in ("live", "structural_hash"):
        kept = functools.cached_property(
            watch.timed("lower and hash", vars(dataflow.Dataflow)[name].func)
        )
        kept.__set_name__(dataflow.Dataflow, name)
        undo.enter_context(mock.patch.object(dataflow.Dataflow, name, kept))

    def timed(make: Callable[[Store], Any]) -> Callable[[Store], Any]:
        @contextlib.contextmanager
        def timed_context(self: Store) -> Iterator[None]:
            made = make(self)
            watch.timed("store", made.__enter__)()
            yield
            watch.timed("store", made.__exit__)(None, None, None)

        return timed_context

    for function in ("transaction", "stretch"):
        patched = timed(getattr(Store, function))
        undo.enter_context(mock.patch.object(Store, function, patched))


def measure(
    num_proposals: int, seed: int, *, proposers: int, parts: bool, growth: int = 1
) -> dict[str, Any]:
    """Time one search of `num_proposals` proposals; with `parts`, where the time went.

    With `growth`, it goes on for so many times as many, and only its memory is of interest.
    """
    settings = dataclasses.replace(
        config.load_config(SearchConfig, SETTING),
        seed=seed,
        time_limit_s=None,
        max_evaluations=num_proposals * growth,
    )
    watch = Stopwatch()
    worker = Worker()
    with contextlib.ExitStack() as undo:
        folder = undo.enter_context(tempfile.TemporaryDirectory())
        store = undo.enter_context(Store.create(Path(folder)))
        pool = undo.enter_context(AtOnce(worker))
        # The stand-in is always timed, to be subtracted; the rest only when needed.
        if parts:
            install(watch, undo)
        else:
            wrapped = watch.timed("stand-in", Worker.__call__)
            undo.enter_context(mock.patch.object(Worker, "__call__", wrapped))
        lag = helpers.lag(proposers, settings.window)
        engine = driver.OrderedDriver(pool, window=settings.window, lag=lag)
        evolution = Evolution.start(settings, store, engine.run_now)
        beside = undo.enter_context(helpers.Proposers(proposers, evolution.proposer, print))
        beside.wait()
        evolution.helpers = beside
        watch.seconds.clear()
        helpers_began = sum(map(cpu_s, beside.pids))
        asking, memory = 0.0, [resident_mib()]

        def ask(index: int) -> driver.Proposal:
            nonlocal asking
            if index >= num_proposals * growth:
                return driver.Stop()
            if index and index % num_proposals == 0:
                memory.append(resident_mib())
            ask_began = time.process_time()
            proposal = evolution.ask(index)
            asking += time.process_time() - ask_began
            return proposal

        began = time.process_time()
        engine.run(ask, evolution.tell, evolution.settle, evolution.begun, evolution.stretch)
        total_s = time.process_time() - began
        helpers_s = sum(map(cpu_s, beside.pids)) - helpers_began
        memory.append(resident_mib())
        stand_in_s = watch.seconds.pop("stand-in")
        driver_s = total_s - stand_in_s
        lengths = store.rows("SELECT AVG(statements) AS genotype, AVG(live) AS live FROM proposal")
        trained = evolution.counts.num_trained
    num_proposals *= growth
    alone = num_proposals / driver_s
    each = num_proposals / helpers_s if helpers_s else None
    result = {
        "seed": seed,
        "proposers": proposers,
        "proposals_per_s": {
            "driver": alone,
            "helper": each,
            "together": min(alone, each * proposers) if each else alone,
        },
        "us_per_proposal": driver_s / num_proposals * 1e6,
        "us_per_ask": asking / num_proposals * 1e6,
        "us_per_trained": driver_s / trained * 1e6,
        "trained_share": trained / num_proposals,
        "ok_share": evolution.counts.statuses["ok"] / trained,
        "mean_statements": lengths[0],
        "resident_mib": memory,
    }
    if parts:
        seconds = {**watch.seconds, "rest": driver_s - sum(watch.seconds.values())}
        result["parts_us_per_proposal"] = {
            name: seconds[name] / num_proposals * 1e6 for name in sorted(seconds)
        }
    else:
        result["pickle"] = pickled(worker.done)
    return result


def cpu_s(pid: int) -> float:
    """Return the processor time of another process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib() -> float:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def pickled(done: list[tuple[EvalJob, Outcome]]) -> dict[str, float]:
    """Time pickling a job and unpickling its outcome, as a back end with other processes must."""
    sent = [pickle.dumps(outcome) for _, outcome in done]
    began = time.process_time()
    jobs = [pickle.dumps(job) for job, _ in done]
    for outcome in sent:
        pickle.loads(outcome)  # noqa: S301, our own bytes
    return {
        "us_per_trained": (time.process_time() - began) / len(done) * 1e6,
        "job_bytes": statistics.mean(map(len, jobs)),
    }


def main() -> None:
    """Measure, print and write `results/driver.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--proposals", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--proposers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--growth", type=int, default=10)
    parser.add_argument("--beside", default="", help="what else the machine was doing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    before = json.loads(args.results.read_text()) if args.results.exists() else {}
    measure(200, args.repeats, proposers=0, parts=False)  # Imports and first calls.
    result: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "beside": args.beside,
        },
        "config": SETTING.stem,
        "proposals": args.proposals,
        "repeats": args.repeats,
        "by_proposers": {},
    }
    for proposers in args.proposers:
        runs, split = [], []
        for seed in range(args.repeats):
            runs.append(measure(args.proposals, seed, proposers=proposers, parts=False))
            split.append(measure(args.proposals, seed, proposers=proposers, parts=True))
            print(proposers, seed, runs[-1]["proposals_per_s"], file=sys.stderr)
        result["by_proposers"][str(proposers)] = summary(runs, split)
    if args.growth > 1:
        grown = measure(args.proposals, 0, proposers=0, parts=False, growth=args.growth)
        result["resident_mib"] = grown["resident_mib"]
    result["before"] = before.get("before", {})
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def summary(runs: list[dict[str, Any]], split: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what searches with one number of helpers have in common."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    rates = {
        name: spread([run["proposals_per_s"][name] for run in runs])
        for name in ("driver", "helper", "together")
        if runs[0]["proposals_per_s"][name] is not None
    }
    parts = {name for run in split for name in run["parts_us_per_proposal"]}
    return {
        "proposals_per_s": rates,
        "us_per_proposal": spread([run["us_per_proposal"] for run in runs]),
        "us_per_trained": spread([run["us_per_trained"] for run in runs]),
        "pickle_us_per_trained": spread([run["pickle"]["us_per_trained"] for run in runs]),
        "parts_us_per_proposal": {
            part: spread([run["parts_us_per_proposal"].get(part, 0.0) for run in split])
            for part in sorted(parts)
        },
        "runs": runs,
    }


if __name__ == "__main__":
    main()
