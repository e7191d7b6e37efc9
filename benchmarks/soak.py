"""A search on a Ray cluster of several nodes, with everything going wrong at random moments.

    python benchmarks/soak.py [--faults 60] [--seed 0] [--pause 3.0]

A head and two worker nodes run on this machine as separate raylets, as they would on three. A
search runs on them in a process of its own. Meanwhile, again and again, after a random pause, one
of these happens:

    worker killed      SIGKILL to a worker's process, in the middle of its job
    worker crashed     a job reads a null pointer
    worker hung        SIGSTOP to a worker's process: alive, and silent
    out of memory      a job grows past the memory limit
    node killed        SIGKILL to a raylet and all its workers; a new node joins later
    driver killed      SIGKILL to the search; it is started again with resume
    head lost          the head dies, the search has to stop cleanly; a new cluster, and resume

Whenever the search has come to its end, its store is compared, row by row, with that of the same
search run undisturbed in one process, and another search begins, until the faults are used up.
Equal stores mean that every candidate was told exactly once, with the right result, in the right
order. Every other search selects by samples, with grafts, and a hurdle over the mean of all runs.
The store's integrity is checked after every death of the driver too. Work is a short sleep
and a score by formula: the subject is the fate of jobs, not their results.

Exit code 1, and no result file, if anything differs.
"""

import argparse
import collections
import contextlib
import ctypes
import hashlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from veldt.search.config import finals_config, proxy_config
from veldt.search.config import search_config as search_config_lib
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.language import dataflow
from veldt.search.run import run_search as run
from veldt.search.run import search_view
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks.common.progress import choose
from veldt.tasks.pool import config

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tests.search import rerun

RESULTS: Final = Path(__file__).parent / "results" / "soak.json"
MARK: Final = "VELDT_SOAK"  # In the environment of every process of this soak's clusters.
KINDS: Final = (
    "worker killed",
    "worker crashed",
    "worker hung",
    "out of memory",
    "node killed",
    "driver killed",
    "head lost",
)
WEIGHTS: Final = (6, 3, 3, 3, 3, 4, 1)
NODES: Final = 2


@final
@dataclass(frozen=True)
class Factory:
    """A factory of workers. A file in `orders` is a fault for the worker that takes it first."""

    orders: str
    sleep_s: float

    def __call__(self) -> "Factory":
        return self

    def work(self, job: EvalJob) -> Outcome:
        """Sleep, commit the fault that is ordered, else score by formula."""
        time.sleep(self.sleep_s * (0.5 + self._luck(job, "sleep")))
        for order in ("crash", "grow"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.orders}/{order}")  # One worker only can take it.
                commit(order)
        results = []
        for training in job.runs:
            quality = self._luck(job, "quality")
            log_loss = -1.0 - quality + 0.1 * self._luck(job, f"{training.proxy}/{training.seed}")
            has_hurdle = bool(job.hurdle or job.mean)
            status = Status.REJECTED if has_hurdle and quality < 0.2 else Status.OK
            loss = float(np.exp(log_loss))
            results.append(RunResult(training, status, loss, (log_loss,), 10, 0.001))
            if status is not Status.OK:
                return Outcome(status, None, tuple(results))
        fitness = float(np.mean([result.log_losses[-1] for result in results]))
        return Outcome(Status.OK, fitness, tuple(results))

    def _luck(self, job: EvalJob, what: str) -> float:
        """Return a number from 0 to 1 that follows from the candidate's behaviour."""
        flow = dataflow.lower(job.genotype.program, fold=True)
        text = f"{flow.structural_hash}/{job.genotype.learning_rate!r}/{what}"
        return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) / 16**8


@final
@dataclass(frozen=True)
class Make:
    """The pool's factory: a callable that returns a callable."""

    factory: Factory

    def __call__(self) -> Any:
        return self.factory.work


def commit(order: str) -> None:
    """Commit the ordered fault on this process."""
    if order == "crash":
        ctypes.string_at(0)
    held = []
    while True:
        held.append(b"x" * (32 << 20))
        time.sleep(0.01)


def search_config(seed: int, evaluations: int, pool: config.PoolConfig) -> Any:
    """Return a search whose tasks are names only; every other one selects by samples."""
    samples = 4 if seed % 2 else 1
    return search_config_lib.SearchConfig(
        tasks=(proxy_config.ProxyConfig("digits_mlp", 10, 1),),
        meta_validation=(proxy_config.ProxyConfig("quadratic", 10, 1),),
        seed=seed,
        max_evaluations=evaluations,
        population_size=30,
        hurdle_over="mean" if samples > 1 else "each_run",
        samples=samples,
        fresh_seeds=4,
        window=12,
        mutation=MutationConfig(graft=1.0, rewire=0.5, match_steps=True),
        finals=finals_config.FinalsConfig(
            num_rates=3, select_seeds=1, final_seeds=2, max_entries=3
        ),
        pool=pool,
    )


def drive(args: argparse.Namespace) -> None:
    """Run the search in this process."""
    pool = config.PoolConfig(
        backend="ray",
        num_workers=3,
        timeout_s=5.0,
        max_tries=8,  # One job may be hit several times here by chance, without being at fault.
        ray=config.RayConfig(address=args.drive, memory_limit_gib=1.0),
    )
    settings = search_config(args.seed, args.evaluations, pool)
    with open(args.run_dir / "progress.txt", "a", encoding="utf-8") as progress:
        factory = Make(Factory(str(args.orders), 0.06))
        view = search_view.SearchView(choose.make_display(progress))
        run.run_search(settings, args.run_dir, resume=True, view=view, factory=factory)


class Cluster:
    """A head and nodes, as separate raylets on this machine."""

    def __init__(self) -> None:
        from ray import cluster_utils

        self.cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.nodes = [self.cluster.add_node(num_cpus=2) for _ in range(NODES)]

    @property
    def address(self) -> str:
        """The address of the head."""
        return str(self.cluster.address)

    def replace_node(self, rng: random.Random) -> None:
        """Kill one node, as a power cut would; add another."""
        victim = self.nodes.pop(rng.randrange(len(self.nodes)))
        self.cluster.remove_node(victim, allow_graceful=False)
        time.sleep(rng.uniform(0.0, 3.0))
        self.nodes.append(self.cluster.add_node(num_cpus=2))

    def close(self, *, gracefully: bool = True) -> None:
        """End all nodes."""
        head = self.cluster.head_node
        if not gracefully and head is not None:
            head.kill_gcs_server(check_alive=False)
            return
        with contextlib.suppress(Exception):
            self.cluster.shutdown()


def workers(mark: str) -> list[int]:
    """Return the processes of veldt's workers on this soak's nodes."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            title = (process / "cmdline").read_bytes()
            if title.startswith((b"ray::Host", b"ray::worker-")):
                environment = (process / "environ").read_bytes()
                if f"{MARK}={mark}".encode() in environment:
                    found.append(int(process.name))
    return found


@contextlib.contextmanager
def started(command: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """Start a process that does not outlive the block."""
    with open(log, "a", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class Soak:
    """The faults, the searches that they hit, and the results."""

    def __init__(self, args: argparse.Namespace, folder: Path, kinds: list[str]):
        self.rng = random.Random(args.seed)
        self.args = args
        self.folder = folder
        self.mark = secrets.token_hex(8)
        os.environ[MARK] = self.mark
        self.todo = kinds
        self.done: collections.Counter[str] = collections.Counter()
        self.searches: list[dict[str, Any]] = []
        self.num_checks = 0
        self.cluster = Cluster()

    def run(self) -> None:
        """Run search after search, until the faults are used up."""
        while self.todo:
            self.search(len(self.searches))
        self.cluster.close()

    def search(self, number: int) -> None:
        """Run one search with faults until it ends, and compare it with an undisturbed one."""
        run_dir, orders = self.folder / f"run-{number}", self.folder / f"orders-{number}"
        run_dir.mkdir()
        orders.mkdir()
        seed = self.args.seed * 1000 + number
        struck = sum(self.done.values())
        while True:
            command = [
                *(sys.executable, __file__, "--drive", self.cluster.address),
                *("--run-dir", str(run_dir), "--orders", str(orders)),
                *("--seed", str(seed), "--evaluations", str(self.args.evaluations)),
            ]
            with started(command, run_dir / "driver.txt") as driver:
                ended = self.strike(driver, run_dir, orders)
            self.check(run_dir)
            if ended:
                break
        plain = self.folder / f"plain-{number}"
        inline = config.PoolConfig(backend="inline", num_workers=2)
        settings = search_config(seed, self.args.evaluations, inline)
        run.run_search(settings, plain, factory=Make(Factory(str(self.folder / "none"), 0.0)))
        self.compare(run_dir, plain)
        found = counts(run_dir)
        self.searches.append({"faults": sum(self.done.values()) - struck, **found})
        print(f"search {number}: same store as undisturbed; {json.dumps(found)}", flush=True)

    def strike(self, driver: subprocess.Popen, run_dir: Path, orders: Path) -> bool:
        """Commit faults until the driver is gone; return whether the search has ended."""
        while True:
            if self.rest(driver, self.rng.uniform(0.2, 2.0) * self.args.pause):
                if driver.returncode:
                    text = (run_dir / "driver.txt").read_text(encoding="utf-8")[-3000:]
                    raise SystemExit(f"the search failed with {driver.returncode}:\n{text}")
                return True
            if not self.todo:
                continue
            kind = self.todo[-1]
            if not self.commit(kind, driver, orders):
                continue  # There was nothing to hit; again after the pause.
            self.todo.pop()
            self.done[kind] += 1
            print(f"{sum(self.done.values()):4d} {kind}", flush=True)
            if kind in ("driver killed", "head lost"):
                return False

    def rest(self, driver: subprocess.Popen, seconds: float) -> bool:
        """Wait; return whether the driver has ended."""
        try:
            driver.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def commit(self, kind: str, driver: subprocess.Popen, orders: Path) -> bool:
        """Commit one fault; return whether it hit."""
        # Most hit a search at work, some while it starts.
        if not workers(self.mark) and self.rng.random() < 0.8:
            return False
        if kind in ("worker killed", "worker hung"):
            pids = workers(self.mark)
            if not pids:
                return False
            what = signal.SIGKILL if kind == "worker killed" else signal.SIGSTOP
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.rng.choice(pids), what)
                return True
            return False
        if kind in ("worker crashed", "out of memory"):
            order = orders / ("crash" if kind == "worker crashed" else "grow")
            order.touch()
            for _ in range(100):  # Until a worker has taken it.
                if not order.exists():
                    return True
                if self.rest(driver, 0.1):
                    break
            with contextlib.suppress(FileNotFoundError):
                order.unlink()
                return False
            return True
        if kind == "node killed":
            self.cluster.replace_node(self.rng)
        elif kind == "driver killed":
            driver.kill()
            driver.wait()
        elif kind == "head lost":
            self.cluster.close(gracefully=False)
            code = driver.wait(timeout=120)
            self.cluster.close()
            if code not in (0, 1):  # It ended or stopped with a message; not by Ray.
                raise SystemExit(f"without its head, the search ended with {code}")
            self.cluster = Cluster()
        return True

    def check(self, run_dir: Path) -> None:
        """Check the store, as it was left."""
        if (run_dir / "store.sqlite").exists():
            with Store.open(run_dir, read_only=True) as store:
                integrity.check(store)
            self.num_checks += 1

    def compare(self, run_dir: Path, plain: Path) -> None:
        """Compare every row except for times and machines."""
        with (
            Store.open(run_dir, read_only=True) as struck,
            Store.open(plain, read_only=True) as left_alone,
        ):
            found = rerun.differences(struck, left_alone)
            metas = [meta(store) for store in (struck, left_alone)]
        found = [text for text in found if not text.startswith("meta:")]
        if metas[0] != metas[1]:
            found.append(f"meta: {metas[0]} became {metas[1]}")
        if found:
            raise SystemExit("the store differs from the undisturbed one:\n" + "\n".join(found))


def meta(store: Store) -> dict[str, Any]:
    """Return the named texts of a run, except for where the work was done."""
    found: dict[str, Any] = dict(store.meta())
    found["config"] = {**json.loads(found["config"]), "pool": None}
    return found


def counts(run_dir: Path) -> dict[str, Any]:
    """Return the sums of the run's sessions."""
    with Store.open(run_dir, read_only=True) as store:
        told = store.rows("SELECT COUNT(*) AS n FROM proposal")[0]["n"]
        sums = store.rows(
            "SELECT COUNT(*) AS sessions, SUM(retries) AS retries, SUM(killed) AS quarantined, "
            "SUM(lost_workers) AS lost_workers, ROUND(SUM(busy_s), 1) AS busy_s, "
            "ROUND(SUM(wasted_s), 1) AS wasted_s FROM session"
        )[0]
    return {"told": told, **sums}


def main() -> None:
    """Soak, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--faults", type=int, default=60, help="number of faults, of all kinds")
    parser.add_argument("--each", action="store_true", help="one of each kind instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=3.0, help="mean seconds between faults")
    parser.add_argument("--evaluations", type=int, default=1500, help="evaluations of one search")
    parser.add_argument("--drive", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--run-dir", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--orders", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    # As veldt's own Ray: nobody else on this machine's network can reach the soak's clusters.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    if args.drive:
        drive(args)
        return
    rng = random.Random(args.seed)
    kinds = list(KINDS) if args.each else rng.choices(KINDS, WEIGHTS, k=args.faults)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(args, Path(folder), kinds)
        try:
            soak.run()
        finally:
            soak.cluster.close()
    result = {
        "command": f"python benchmarks/soak.py --faults {args.faults} --seed {args.seed}",
        "nodes": f"a head and {NODES} worker nodes, as raylets on one machine; 3 workers",
        "faults": dict(sorted(soak.done.items())),
        "num_faults": sum(soak.done.values()),
        "searches": soak.searches,
        "integrity_checks": soak.num_checks,
        "stores_that_differed": 0,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(result, indent=2))
    if not args.each:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
