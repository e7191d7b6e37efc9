"""Comparison of optimizers over a suite: `veldt evaluate` without the command line.

Each candidate is trained on every task at every one of its learning rates. Adam's curves, which
speed is measured by, and those of the other baselines come from the archive (`archive`), so that a
new candidate costs only its own runs. Where the archive has no curves of a task (a
suite of one's own, a task that has changed since), Adam is trained here first.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks import base, registry, suites
from veldt.tasks.benchmark import archive as archive_lib
from veldt.tasks.benchmark.protocol import baselines, protocol
from veldt.tasks.benchmark.protocol.candidates import Candidate
from veldt.tasks.benchmark.protocol.schedules import CONSTANT, SCHEDULES
from veldt.tasks.benchmark.runs import comparison_runs, provenance
from veldt.tasks.benchmark.runs import costs as costs_lib
from veldt.tasks.benchmark.runs.cache import RunCache
from veldt.tasks.benchmark.runs.costs import Cost
from veldt.tasks.benchmark.runs.sweep import Sweep
from veldt.tasks.benchmark.scores import scoring, speedup
from veldt.tasks.benchmark.scores.results import Effort, Results, TaskRecord
from veldt.tasks.common import errors, spelling
from veldt.tasks.common.disk.run_directory import RunDirectory, Terms
from veldt.tasks.common.progress.display import Silent
from veldt.tasks.pool import config as pool_config

RUN: Final = "run"
ARCHIVE: Final = "archive"
SWEEPS_FOLDER: Final = "sweeps"
"""Folder of finished runs within the evaluation's folder."""


@final
@dataclass(frozen=True)
class EvaluateConfig:
    """The settings of a comparison.

    Attributes:
      schedules: Schedules of the learning rate: constant, warmup_cosine, warmup_linear. Each makes
        a row, tuned by itself; one compiled program trains them all.
      seed: First of the three seeds of every run.
      rates: Learning rates of all candidates; null leaves each candidate's own.
      step_times: Whether to measure a training step's time against Adam's, task by task.
      baselines: Whether the archive's baselines are shown beside the candidates.
      pool: Pool that does the work.
    """

    schedules: tuple[str, ...] = (CONSTANT,)
    seed: int = 0
    rates: tuple[float, ...] | None = None
    step_times: bool = True
    baselines: bool = True
    pool: pool_config.PoolConfig = field(default_factory=pool_config.PoolConfig)

    def __post_init__(self) -> None:
        for name in self.schedules:
            if name not in SCHEDULES:
                raise ValueError(
                    f"there is no schedule {name!r}{spelling.did_you_mean(name, SCHEDULES)}; "
                    f"there are {', '.join(SCHEDULES)}"
                )
        if not self.schedules or len(set(self.schedules)) < len(self.schedules):
            raise ValueError("schedules: name at least one, each once")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0")
        if self.rates is not None:
            if not self.rates or not all(math.isfinite(r) and r > 0 for r in self.rates):
                raise ValueError("rates: give at least one, each above 0")
            if list(self.rates) != sorted(set(self.rates)):
                raise ValueError("rates: write them rising, each once")


@final
@dataclass(frozen=True)
class Evaluation:
    """An evaluation, as the record in its directory has it.

    Attributes:
      suite: Name of the suite.
      tasks: Tasks and lengths of training.
      candidates: Names of the candidates.
      settings: Settings of the comparison.
    """

    suite: str
    tasks: tuple[suites.SuiteTask, ...] = ()
    candidates: tuple[str, ...] = ()
    settings: EvaluateConfig = field(default_factory=EvaluateConfig)


# Finished runs are found by everything that decides them, so that they serve other evaluations too.
TERMS: Final = Terms(
    "evaluate",
    Evaluation,
    may_differ=("tasks", "candidates", "settings"),
    option="--out",
    has_config_file=False,
)


def evaluate(
    suite: suites.Suite,
    candidates: Sequence[Candidate],
    config: EvaluateConfig,
    folder: Path,
    watcher: comparison_runs.Watcher | None = None,
    archive: archive_lib.Archive | None = None,
) -> Results:
    """Compare candidates over a suite, and return the results.

    Args:
      suite: Tasks.
      candidates: Candidates, at least one, with different names.
      config: Settings of the comparison.
      folder: Folder of finished runs; an evaluation of the same suite continues there.
      watcher: Display of the progress; None for none.
      archive: Archive of the baselines; None for the shipped one.

    Raises:
      FileError: The folder cannot be used, or is another evaluation's.
      TaskError: A task cannot be loaded, a candidate makes no transform, two have one name, or
        all failed on every task. (One that fails on some counts as diverged there.)
    """
    began = time.perf_counter()
    _check(suite, candidates)
    archive = archive if archive is not None else archive_lib.shipped()
    if config.rates is not None:
        candidates = [candidate.with_rates(config.rates) for candidate in candidates]
    names = tuple(candidate.name for candidate in candidates)
    evaluation = Evaluation(suite.name, suite.tasks, names, config)
    with RunDirectory(folder, TERMS, evaluation) as directory:
        directory.begin(holds_run=directory.is_known, resume=True)
        trained = _train(suite, candidates, config, folder, watcher or Silent(), archive)
    tasks = {entry.task: registry.load_task(entry.task) for entry in suite.tasks}
    references = [
        scoring.Reference(e.task, e.num_steps, trained.adams[e.task], _normalizer(tasks[e.task]))
        for e in suite.tasks
    ]
    seeds = tuple(range(config.seed, config.seed + protocol.NUM_SEEDS))
    entries = _entries(candidates, config.schedules, trained)
    if config.baselines:
        entries += [
            entry
            for identity, entry in [
                _adam_entry(references, tasks, seeds, RUN if trained.run_here else ARCHIVE),
                *_archived_entries(suite, archive, trained.fingerprints),
            ]
            if not _is_run_again(identity, entry, candidates, config.schedules)
        ]
    sweeps = [sweep for group in trained.sweeps.values() for sweep in group]
    rows = scoring.compare(references, entries)
    return Results(
        suite=suite.name,
        seeds=seeds,
        rates_per_candidate=max(row.num_rates for row in rows),
        horizon=float(protocol.HORIZON),
        tasks=tuple(_record(reference, tasks[reference.task], trained) for reference in references),
        rows=rows,
        effort=Effort(
            num_runs=sum(sweep.losses.shape[0] * sweep.losses.shape[1] for sweep in sweeps),
            compile_s=sum(sweep.compile_s for sweep in sweeps),
            run_s=sum(sweep.run_s for sweep in sweeps),
            wall_s=time.perf_counter() - began,
        ),
        versions=provenance.versions(),
    )


@final
@dataclass(frozen=True, eq=False)
class _Trained:
    """Trained sweeps, new or from the archive.

    Attributes:
      fingerprints: Fingerprints of the tasks, by name.
      adams: Adam's reference sweeps, by task.
      run_here: Tasks whose reference the archive did not have.
      sweeps: Sweeps by candidate's name and task, one per schedule; failed ones are missing.
      costs: Costs by task and candidate's name.
    """

    fingerprints: Mapping[str, str]
    adams: Mapping[str, Sweep]
    run_here: frozenset[str]
    sweeps: Mapping[tuple[str, str], Sequence[Sweep]]
    costs: Mapping[tuple[str, str], Cost]


def _train(
    suite: suites.Suite,
    candidates: Sequence[Candidate],
    config: EvaluateConfig,
    folder: Path,
    watcher: comparison_runs.Watcher,
    archive: archive_lib.Archive,
) -> _Trained:
    """Run what neither the archive nor the folder has, and return all sweeps."""
    names = [entry.task for entry in suite.tasks]
    with comparison_runs.Runner(config.pool, RunCache(folder / SWEEPS_FOLDER), watcher) as runner:
        fingerprints = runner.fingerprints(names)
        archived = {e.task: archive.reference(e, fingerprints[e.task]) for e in suite.tasks}
        missing = [entry for entry in suite.tasks if archived[entry.task] is None]
        if missing:
            _note_missing(missing, archive, watcher)
        references = {entry.task: protocol.reference(entry) for entry in missing}
        contests = {
            (candidate.name, entry.task): protocol.contest(
                candidate, entry, config.seed, config.schedules
            )
            for candidate in candidates
            for entry in suite.tasks
        }
        found = runner.sweeps([*references.values(), *contests.values()], fingerprints)
        failed = [task for task, plan in references.items() if plan not in found]
        if failed:
            raise errors.TaskError(f"Adam cannot be trained on {', '.join(failed)}; see above")
        sweeps = {key: found[plan] for key, plan in contests.items() if plan in found}
        if not sweeps:
            raise errors.TaskError("every candidate failed on every task; see above")
        pairs = [(name, c) for name in names for c in candidates if (c.name, name) in sweeps]
        costs = runner.costs(pairs, fingerprints) if config.step_times else {}
    if runner.work:
        watcher.note(runner.work)
    adams = {task: sweep for task, sweep in archived.items() if sweep is not None}
    adams |= {task: found[plan][0] for task, plan in references.items()}
    return _Trained(fingerprints, adams, frozenset(references), sweeps, costs)


def _check(suite: suites.Suite, candidates: Sequence[Candidate]) -> None:
    for candidate in candidates:
        candidate.check()
        if candidate.selected_on >= {entry.task for entry in suite.tasks}:
            raise errors.TaskError(
                f"{candidate.name} was selected on every task of {suite.name!r}, so that nothing "
                "there shows how good it is; choose a suite with other tasks"
            )
    names = [candidate.name for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        what = f"two are called {twice[0]!r}" if twice else "there is none"
        raise errors.TaskError(f"give one or more candidates with different names: {what}")
    for entry in suite.tasks:
        registry.check_name(entry.task)
        if entry.num_steps % protocol.NUM_CHECKS:
            near = max(round(entry.num_steps / protocol.NUM_CHECKS), 1) * protocol.NUM_CHECKS
            raise errors.TaskError(
                f"suite {suite.name!r}: task {entry.task!r} has num_steps {entry.num_steps}; for "
                f"an evaluation write a multiple of {protocol.NUM_CHECKS}, such as {near}"
            )


def _note_missing(
    missing: Sequence[suites.SuiteTask],
    archive: archive_lib.Archive,
    watcher: comparison_runs.Watcher,
) -> None:
    stale = [entry.task for entry in missing if entry.task in archive.tasks]
    new = [entry.task for entry in missing if entry.task not in archive.tasks]
    if stale:
        watcher.note(f"the archive is of other versions of {', '.join(stale)}, or of other lengths")
    if new:
        watcher.note(f"there is no archive of {', '.join(new)}")
    plan = protocol.reference(missing[0])
    num_runs = len(plan.candidate.rates) * len(plan.seeds)
    watcher.note(
        f"so Adam is trained first: {num_runs} runs each, {protocol.HORIZON} times as long as a "
        "candidate's"
    )


def _normalizer(task: base.Task) -> scoring.Normalizer:
    vectorized = jax.jit(lambda task, losses: jnp.vectorize(task.normalizer)(losses))

    def normalize(losses: np.ndarray) -> np.ndarray:
        return np.asarray(vectorized(task, jnp.asarray(losses, jnp.float32)), np.float64)

    return normalize


def _entries(
    candidates: Sequence[Candidate], schedules: Sequence[str], trained: _Trained
) -> list[scoring.Entry]:
    """Return an entry for each candidate with each schedule."""
    return [
        scoring.Entry(
            candidate.name,
            schedule,
            RUN,
            {
                task: sweeps[i]
                for (name, task), sweeps in trained.sweeps.items()
                if name == candidate.name
            },
            {task: cost for (task, name), cost in trained.costs.items() if name == candidate.name},
            candidate.selected_on,
        )
        for candidate in candidates
        for i, schedule in enumerate(schedules)
    ]


def _adam_entry(
    references: Sequence[scoring.Reference],
    tasks: Mapping[str, base.Task],
    seeds: Sequence[int],
    source: str,
) -> tuple[str, scoring.Entry]:
    """Return the entry of Adam from its reference sweeps, with its identity."""
    adam = baselines.BASELINES[baselines.ADAM]
    sweeps = {r.task: _as_contestant(r, seeds) for r in references}
    costs = {name: Cost(1.0, costs_lib.state_bytes(task, adam)) for name, task in tasks.items()}
    return adam.identity, scoring.Entry(adam.name, CONSTANT, source, sweeps, costs)


def _archived_entries(
    suite: suites.Suite, archive: archive_lib.Archive, fingerprints: Mapping[str, str]
) -> list[tuple[str, scoring.Entry]]:
    """Return the archived runs that cover the whole suite, without Adam's, with identities."""
    groups: dict[tuple[str, str, str], dict[str, archive_lib.Record]] = {}
    for entry in suite.tasks:
        for record in archive.contests(entry, fingerprints[entry.task]):
            key = (record.identity, record.name, record.schedule)
            groups.setdefault(key, {})[entry.task] = record
    entries = []
    for (identity, name, schedule), records in groups.items():
        if len(records) == len(suite.tasks) and (name, schedule) != (baselines.ADAM, CONSTANT):
            sweeps = {task: record.sweep for task, record in records.items()}
            costs = {task: record.cost for task, record in records.items() if record.cost}
            entries.append((identity, scoring.Entry(name, schedule, ARCHIVE, sweeps, costs)))
    return entries


def _as_contestant(reference: scoring.Reference, seeds: Sequence[int]) -> Sweep:
    """Return Adam with a contestant's budget: its own rates, steps and seeds, or as many others."""
    sweep = scoring.contestant(reference.adam, reference.num_steps)
    known = sweep.seeds.tolist()
    where = [known.index(seed) for seed in seeds if seed in known]
    if len(where) < len(seeds):
        where = list(range(len(seeds)))
    return sweep.take(seeds=where)


def _is_run_again(
    identity: str, entry: scoring.Entry, candidates: Sequence[Candidate], schedules: Sequence[str]
) -> bool:
    """Return whether a candidate is an archived baseline, of which one row is enough."""
    rates = next(iter(entry.sweeps.values())).rates
    return entry.schedule in schedules and any(
        candidate.identity == identity
        and len(candidate.rates) == len(rates)
        and np.allclose(candidate.rates, rates, rtol=1e-6)
        for candidate in candidates
    )


def _record(reference: scoring.Reference, task: base.Task, trained: _Trained) -> TaskRecord:
    params = jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0)))
    envelope = speedup.envelope(reference.adam)
    shown = envelope.steps <= reference.num_steps
    return TaskRecord(
        task=reference.task,
        num_steps=reference.num_steps,
        num_params=sum(leaf.size for leaf in params),
        fingerprint=trained.fingerprints[reference.task],
        reference=RUN if reference.task in trained.run_here else ARCHIVE,
        steps=tuple(int(step) for step in envelope.steps[shown]),
        envelope=tuple(round(float(x), 6) for x in reference.normalizer(envelope.losses[shown])),
    )
