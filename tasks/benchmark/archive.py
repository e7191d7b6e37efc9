"""The shipped archive: baselines' runs on a suite, so that no user has to repeat them.

One `.npz` file per suite, made by `benchmarks/archive.py`: a header in JSON (task, fingerprint,
optimizer, schedule, versions) and the losses of every run. There are only arrays and text, which
cannot run anything. A task's runs count only if its fingerprint is still
the same (`fingerprint.matches`): runs of a task that has changed are not used.
"""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from veldt.tasks import suites
from veldt.tasks import task_fingerprint as fingerprint
from veldt.tasks.benchmark.protocol import protocol
from veldt.tasks.benchmark.protocol.candidates import Candidate
from veldt.tasks.benchmark.protocol.schedules import SCHEDULES
from veldt.tasks.benchmark.runs import comparison_runs as runs
from veldt.tasks.benchmark.runs import provenance
from veldt.tasks.benchmark.runs.cache import RunCache
from veldt.tasks.benchmark.runs.costs import Cost
from veldt.tasks.benchmark.runs.sweep import SPLITS, Sweep
from veldt.tasks.common import errors
from veldt.tasks.common.disk import atomic_files, npz
from veldt.tasks.pool import config

FOLDER: Final = Path(__file__).parent / "archives"
FORMAT: Final = 1
REFERENCE: Final = "reference"
CONTEST: Final = "contest"


@final
@dataclass(frozen=True, eq=False)
class Record:
    """The archived runs of one optimizer on one task with one schedule.

    Attributes:
      role: Role, "reference" (Adam's long, fine sweep) or "contest" (a candidate's budget).
      task: Name of the task.
      fingerprint: Fingerprint of the task when it was run.
      num_steps: Length of each run.
      name: Name of the optimizer.
      identity: `Candidate.identity` when it was run.
      schedule: Schedule of the learning rate.
      sweep: Runs.
      cost: Cost of a step, on the machine that made the archive.
    """

    role: str
    task: str
    fingerprint: str
    num_steps: int
    name: str
    identity: str
    schedule: str
    sweep: Sweep
    cost: Cost | None


@final
@dataclass(frozen=True, eq=False)
class Archive:
    """Archived runs.

    Attributes:
      made: Versions, machine and date.
      records: Runs.
    """

    made: Mapping[str, str]
    records: tuple[Record, ...]

    @property
    def tasks(self) -> frozenset[str]:
        """Names of the tasks with runs."""
        return frozenset(record.task for record in self.records)

    def reference(self, entry: suites.SuiteTask, task_fingerprint: str) -> Sweep | None:
        """Return Adam's long sweep on a task of a suite; None if there is none of the present task.

        Args:
          entry: Task and a candidate's number of steps.
          task_fingerprint: Present fingerprint of the task.
        """
        num_steps = protocol.reference(entry).num_steps
        found = self._of(REFERENCE, entry.task, num_steps, task_fingerprint)
        return found[0].sweep if found else None

    def contests(self, entry: suites.SuiteTask, task_fingerprint: str) -> list[Record]:
        """Return the baselines' runs on a task of a suite, as contestants."""
        return self._of(CONTEST, entry.task, entry.num_steps, task_fingerprint)

    def runs(
        self, role: str, plan: protocol.SweepPlan, task_fingerprint: str
    ) -> list[Record] | None:
        """Return a plan's records, one per schedule; None unless all are here."""
        found = {
            record.schedule: record
            for record in self._of(role, plan.task, plan.num_steps, task_fingerprint)
            if record.identity == plan.candidate.identity
            and np.array_equal(record.sweep.seeds, plan.seeds)
            and len(record.sweep.steps) == plan.num_checks + 1
            and len(record.sweep.rates) == len(plan.candidate.rates)
            and np.allclose(record.sweep.rates, plan.candidate.rates, rtol=1e-6)
        }
        if not set(plan.schedules) <= set(found):
            return None
        return [found[schedule] for schedule in plan.schedules]

    def _of(self, role: str, task: str, num_steps: int, task_fingerprint: str) -> list[Record]:
        return [
            record
            for record in self.records
            if (record.role, record.task, record.num_steps) == (role, task, num_steps)
            and fingerprint.matches(record.fingerprint, task_fingerprint)
        ]


NOTHING: Final = Archive({}, ())


def shipped(folder: Path = FOLDER) -> Archive:
    """Return all shipped archives as one: a suite of one's own may have tasks of several.

    Raises:
      TaskError: A file is damaged.
    """
    archives = [read_archive(path) for path in sorted(folder.glob("*.npz"))]
    return Archive({}, tuple(record for archive in archives for record in archive.records))


def read_archive(path: Path) -> Archive:
    """Return the archive in a file.

    Raises:
      TaskError: It cannot be read, or is not an archive.
    """
    try:
        arrays = npz.read(path.read_bytes())
        header = json.loads(bytes(arrays["header"]).decode())
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']}, not {FORMAT}")
        fingerprints = header["fingerprints"]
        records = tuple(_read_record(row, fingerprints, arrays) for row in header["records"])
        made = {str(key): str(value) for key, value in header["made"].items()}
    except Exception as error:  # A damaged zip or header raises many kinds.
        raise errors.TaskError(f"{path} is no archive of runs, or damaged: {error}") from error
    return Archive(made, records)


def write_archive(path: Path, archive: Archive) -> None:
    """Write an archive, whole or not at all.

    Raises:
      TaskError: It cannot be written.
    """
    rows: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for i, record in enumerate(archive.records):
        sweep = record.sweep
        rows.append(
            {
                "role": record.role,
                "task": record.task,
                "num_steps": record.num_steps,
                "name": record.name,
                "identity": record.identity,
                "schedule": record.schedule,
                "rates": sweep.rates.tolist(),
                "seeds": sweep.seeds.tolist(),
                "num_checks": len(sweep.steps) - 1,
                "compile_s": round(sweep.compile_s, 2),
                "run_s": round(sweep.run_s, 2),
                "cost": dataclasses.asdict(record.cost) if record.cost else None,
                "losses": f"losses{i}",
            }
        )
        arrays[f"losses{i}"] = sweep.losses
    header = {
        "format": FORMAT,
        "fingerprints": {record.task: record.fingerprint for record in archive.records},
        "made": dict(archive.made),
        "records": rows,
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, header=text, **arrays)
    atomic_files.write_bytes(path, content.getvalue())


def run_baselines(
    suite: suites.Suite,
    candidates: Sequence[Candidate],
    pool: config.PoolConfig,
    cache: RunCache,
    watcher: runs.Watcher,
    known: Archive = NOTHING,
) -> Archive:
    """Run Adam's reference and candidates on a suite with every schedule; return the archive.

    Args:
      suite: Tasks.
      candidates: Baselines.
      pool: Config of the pool that does the work.
      cache: Finished runs; called again with the same cache, this continues.
      watcher: Display of the progress.
      known: Archive of runs that need not be repeated.
    """
    names = [entry.task for entry in suite.tasks]
    with runs.Runner(pool, cache, watcher) as runner:
        fingerprints = runner.fingerprints(names)
        _unpack(known, suite, candidates, cache, fingerprints)
        # One optimizer after the other: each that is complete can be compared with.
        runner.sweeps([protocol.reference(entry) for entry in suite.tasks], fingerprints)
        for candidate in candidates:
            runner.sweeps([_contest(candidate, entry) for entry in suite.tasks], fingerprints)
        runner.costs([(name, c) for name in names for c in candidates], fingerprints)
    return gather(suite, candidates, cache, fingerprints)


def gather(
    suite: suites.Suite,
    candidates: Sequence[Candidate],
    cache: RunCache,
    fingerprints: Mapping[str, str],
) -> Archive:
    """Return the runs of a suite that a cache has, finished or not.

    Args:
      suite: Tasks.
      candidates: Baselines.
      cache: Finished runs.
      fingerprints: Fingerprints of the tasks.
    """
    records: list[Record] = []
    for role, plan in _plans(suite, candidates):
        known_as = fingerprints[plan.task]
        sweeps = cache.find(plan, known_as)
        if sweeps is not None:
            is_contest = role == CONTEST
            cost = cache.find_cost(plan.task, plan.candidate, known_as) if is_contest else None
            records += _records(role, plan, known_as, sweeps, cost)
    return Archive(provenance.versions(), tuple(records))


def _unpack(
    archive: Archive,
    suite: suites.Suite,
    candidates: Sequence[Candidate],
    cache: RunCache,
    fingerprints: Mapping[str, str],
) -> None:
    """Copy into the cache what it lacks and an archive has: the reverse of `gather`."""
    for role, plan in _plans(suite, candidates):
        known_as = fingerprints[plan.task]
        records = archive.runs(role, plan, known_as)
        if records is None:
            continue
        if cache.find(plan, known_as) is None:
            cache.keep(plan, known_as, [record.sweep for record in records])
        cost = records[0].cost
        if cost is not None and cache.find_cost(plan.task, plan.candidate, known_as) is None:
            cache.keep_cost(plan.task, plan.candidate, known_as, cost)


def _plans(
    suite: suites.Suite, candidates: Sequence[Candidate]
) -> list[tuple[str, protocol.SweepPlan]]:
    """Return all plans of an archive, each with its role."""
    references = [(REFERENCE, protocol.reference(entry)) for entry in suite.tasks]
    contests = [
        (CONTEST, _contest(candidate, entry)) for candidate in candidates for entry in suite.tasks
    ]
    return [*references, *contests]


def _contest(candidate: Candidate, entry: suites.SuiteTask) -> protocol.SweepPlan:
    return protocol.contest(candidate, entry, 0, tuple(SCHEDULES))


def _records(
    role: str,
    plan: protocol.SweepPlan,
    task_fingerprint: str,
    sweeps: Sequence[Sweep],
    cost: Cost | None,
) -> list[Record]:
    """Return a plan's sweeps as records."""
    name, identity = plan.candidate.name, plan.candidate.identity
    return [
        Record(
            role, plan.task, task_fingerprint, plan.num_steps, name, identity, schedule, sweep, cost
        )
        for schedule, sweep in zip(plan.schedules, sweeps, strict=True)
    ]


def _read_record(
    row: Mapping[str, Any], fingerprints: Mapping[str, str], arrays: Mapping[str, np.ndarray]
) -> Record:
    losses = np.asarray(arrays[row["losses"]], np.float32)
    rates, seeds = np.asarray(row["rates"], np.float64), np.asarray(row["seeds"], np.int64)
    num_steps, num_checks = int(row["num_steps"]), int(row["num_checks"])
    if losses.shape != (len(rates), len(seeds), num_checks + 1, len(SPLITS)):
        raise ValueError(f"{row['name']} on {row['task']} has losses of shape {losses.shape}")
    steps = np.linspace(0, num_steps, num_checks + 1).astype(np.int64)
    return Record(
        role=str(row["role"]),
        task=str(row["task"]),
        fingerprint=str(fingerprints[row["task"]]),
        num_steps=num_steps,
        name=str(row["name"]),
        identity=str(row["identity"]),
        schedule=str(row["schedule"]),
        sweep=Sweep(rates, seeds, steps, losses, float(row["compile_s"]), float(row["run_s"])),
        cost=Cost(**row["cost"]) if row["cost"] else None,
    )
