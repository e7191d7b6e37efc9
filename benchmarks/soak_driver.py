"""A veldt command as a soak's driver runs it: the command line's own, with workers that are struck.

    python benchmarks/soak_driver.py ORDERS COMMAND ...

A file in the folder `ORDERS` is a fault for the worker that takes it first, at the start of its
next job. A search's workers are simulated: a short sleep, and a score by formula, since its subject
is the fate of jobs and not their results. Those of the other commands are the real ones. What a
pool has done is added to `work.jsonl` in the folder when it is closed.
"""

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from veldt import cli
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.language import dataflow
from veldt.tasks.pool import base, config, pools, ray_pool

CRASH, GROW = "crash", "grow"
WORK: Final = "work.jsonl"
SLEEP_S: Final = 0.06  # The mean duration of a simulated job on Ray.
STUCK_S: Final = 20.0  # A soak does not wait as long as others do for a worker that hangs.
FIGURES: Final = ("num_done", "num_retries", "num_reissued", "num_lost_workers", "num_killed")


@final
@dataclass(frozen=True)
class Struck:
    """A factory of workers that commit what is ordered, and else do the work of another factory's.

    Attributes:
      orders: Folder of the orders.
      factory: Other factory; None for simulated workers of a search.
      sleep_s: Mean duration of a simulated job.
    """

    orders: str
    factory: base.WorkerFactory | None
    sleep_s: float

    def __call__(self) -> Callable[[Any], object]:
        worker = self._score if self.factory is None else self.factory()

        def work(payload: Any) -> object:
            for order in (CRASH, GROW):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.orders}/{order}")  # One worker only can take it.
                    commit(order)
            return worker(payload)

        return work

    def _score(self, job: EvalJob) -> Outcome:
        """Sleep, and score by formula."""
        time.sleep(self.sleep_s * (0.5 + _luck(job, "sleep")))
        results = []
        for training in job.runs:
            quality = _luck(job, "quality")
            log_loss = -1.0 - quality + 0.1 * _luck(job, f"{training.proxy}/{training.seed}")
            has_hurdle = bool(job.hurdle or job.mean)
            status = Status.REJECTED if has_hurdle and quality < 0.2 else Status.OK
            loss = float(np.exp(log_loss))
            results.append(RunResult(training, status, loss, (log_loss,), 10, 0.001))
            if status is not Status.OK:
                return Outcome(status, None, tuple(results))
        fitness = float(np.mean([result.log_losses[-1] for result in results]))
        return Outcome(Status.OK, fitness, tuple(results))


def _luck(job: EvalJob, what: str) -> float:
    """Return a number from 0 to 1 that follows from the candidate's behaviour."""
    flow = dataflow.lower(job.genotype.program, fold=True)
    text = f"{flow.structural_hash}/{job.genotype.learning_rate!r}/{what}"
    return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) / 16**8


def commit(order: str) -> None:
    """Commit the ordered fault on this process."""
    if order == CRASH:
        ctypes.string_at(0)  # A null pointer, read.
    held = []
    while True:
        held.append(b"x" * (32 << 20))
        time.sleep(0.01)


def make_pool(
    make: Callable[[config.PoolConfig, base.WorkerFactory], base.Pool],
    orders: Path,
    simulated: bool,
    settings: config.PoolConfig,
    factory: base.WorkerFactory,
) -> base.Pool:
    """Make the pool that a config names, of struck workers."""
    sleep_s = SLEEP_S if config.choose_backend(settings) == "ray" else 0.0
    pool = make(settings, Struck(str(orders), None if simulated else factory, sleep_s))
    close = pool.close

    def close_and_write() -> None:
        del pool.close  # Closed again, it does nothing, and writes nothing.
        close()
        stats = pool.stats()
        figures = {name: getattr(stats, name) for name in FIGURES}
        seconds = {n: round(getattr(stats, n), 2) for n in ("busy_s", "wasted_s", "alive_s")}
        with open(orders / WORK, "a", encoding="utf-8") as file:
            file.write(json.dumps({"backend": stats.backend, **figures, **seconds}) + "\n")

    pool.close = close_and_write  # type: ignore[method-assign]
    return pool


def main() -> None:
    """Run the command."""
    orders, *words = sys.argv[1:]
    simulated = words[0] == "search"
    ray_pool.STUCK_S, ray_pool.ASK_S = STUCK_S, STUCK_S / 4  # type: ignore[misc]
    pools.make_pool = functools.partial(make_pool, pools.make_pool, Path(orders), simulated)
    sys.argv = ["veldt", *words]
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
