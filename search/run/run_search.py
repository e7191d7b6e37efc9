"""Running a search with all its parts: the run directory, the pool, the engine and the finals.

A run directory holds all of a run: `run.json`, `config.yaml`, `store.sqlite`, `best.py` with
`best.json` (from the first new best on, at the end the winner), and files that the user has made
from it (reports, exports). With several drivers, each has a folder with a store of its own, from
which `store.sqlite` is made when all have ended (`several_drivers.py`). A killed run continues with
`resume=True`.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from veldt.search import rule_sources
from veldt.search.config import objectives
from veldt.search.config.llm_config import LIMITS, PLACES
from veldt.search.config.proxy_config import EvaluatorConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import SearchError
from veldt.search.evaluation.evaluator import EvaluatorFactory
from veldt.search.evaluation.individual import IGNORES_GRADIENT
from veldt.search.evaluation.jobs import Outcome
from veldt.search.evolution import founders, job_records, search_rows, side_work
from veldt.search.evolution.challenge import Incumbent
from veldt.search.evolution.engine import Evolution
from veldt.search.evolution.founders import Founder
from veldt.search.evolution.llm.answer_source import AnswerSource
from veldt.search.finals import final_stages
from veldt.search.language.statements import COPY
from veldt.search.run import lane_width, llm_source, several_drivers
from veldt.search.run.drivers.driver_progress import Best
from veldt.search.run.proposing import helpers
from veldt.search.run.search_view import SearchView
from veldt.search.storage import best_rule as best
from veldt.search.storage import integrity, llm_figures, usage
from veldt.search.storage.hall_entries import Entry
from veldt.search.storage.session import Session
from veldt.search.storage.store import FILE_NAME, Store, drivers_with_store
from veldt.tasks import task_objects
from veldt.tasks.common import formatting, versions
from veldt.tasks.common.config import codec
from veldt.tasks.common.disk.run_directory import RunDirectory, Terms
from veldt.tasks.inner_loop import hollow
from veldt.tasks.pool import base, driver, pools
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool.base import JobResult
from veldt.tasks.task_objects import TaskObjects

_DETECTS_HOLLOW: Final = (0, 2)  # The first version of veldt that detects hollow runs.
# Settings that may differ when a run is resumed: how long it goes on and where it runs.
TERMS: Final = Terms(
    "search",
    SearchConfig,
    may_differ=(
        "max_evaluations",
        "max_steps",
        "time_limit_s",
        "lane_memory_gib",
        "proposers",
        "pool",
        "finals",
        *(f"llm.{name}" for name in LIMITS),
        *(f"llm.models.*.{name}" for name in PLACES),
    ),
)
# What a driver proposes depends on where others ended, so their search does not go on after that.
TERMS_OF_DRIVERS: Final = dataclasses.replace(
    TERMS, may_differ=("lane_memory_gib", "proposers", "pool", "finals")
)
# If one of these differs, a search that has ended may go on.
_ENDS: Final = ("max_evaluations", "max_steps", "time_limit_s")
# If one of these differs, finals that were played do not count for this run.
_FINALS_OF: Final = (*_ENDS, "finals")


@final
@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search.

    Attributes:
      entries: Hall of fame and baselines.
      best: Winner.
    """

    entries: tuple[Entry, ...]
    best: best.Best


def run_search(
    config: SearchConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    view: SearchView | None = None,
    factory: base.WorkerFactory | None = None,
    tasks: TaskObjects = task_objects.NONE,
) -> SearchResult:
    """Run a search to its end.

    Args:
      config: Config of the search.
      run_dir: Directory of the run; made if it does not exist.
      resume: Whether to continue the run that is there; `config` must then be the same but for the
        settings that `TERMS` lets change.
      view: Display of the search; None shows nothing.
      factory: Maker of the pool's workers, `EvalJob -> Outcome`; None trains the config's proxies.
      tasks: Tasks that are objects, which the config has names for.

    Raises:
      FileError: The run directory cannot be used.
      SearchError: The store cannot be used, or the initial rule cannot be trained.
      TaskError: A task cannot be used.
      KeyboardInterrupt: Ctrl-C; all recorded results are stored, and `resume` continues the run.
    """
    # Tasks and rules are loaded before anything is written: a misspelt name leaves no run
    # directory behind.
    view = view if view is not None else SearchView()
    names = dict.fromkeys(proxy.task for proxy in (*config.tasks, *config.meta_validation))
    view.doing(f"loading {', '.join(names)}")
    wanted, config = config.lanes, lane_width.settle(config, run_dir, resume=resume, tasks=tasks)
    if wanted is None:
        view.note(f"lanes: {config.lanes}")
    start = _start(config, run_dir, resume=resume)
    if factory is None:
        factory = EvaluatorFactory(_evaluator(config, start), tasks)
        factory()
    for name in config.finals.baselines:
        rule_sources.load_rule(name)
    if pool_config.choose_backend(config.workers) == "ray":
        tasks.check_sendable()
    if resume:
        tasks.check_stored(run_dir)
    several = config.drivers > 1
    terms = TERMS_OF_DRIVERS if several else TERMS
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(llm_source.opened(config, start))
        directory = stack.enter_context(RunDirectory(run_dir, terms, config, tasks.fingerprints()))
        if several:

            def write_best(found: Best) -> None:
                _write_incumbent(run_dir, config, found)

            several_drivers.search(
                config, directory, start, factory, view, write_best, resume=resume
            )
        elif drivers_with_store(run_dir):
            directory.begin(holds_run=True, resume=resume)  # It is another run's.
        store = stack.enter_context(_open_store(config, directory, start, resume=resume or several))
        with (
            pools.make_pool(config.workers, factory) as workers,
            Session(store, workers, view.work) as session,
        ):
            entries = _search(config, run_dir, store, workers, session, view, source)
        view.note(usage.cost_line(usage.read_work(store)))
        if config.llm is not None:
            for line in llm_figures.closing_lines(store, config.llm):
                view.note(line)
        winner = next((entry for entry in entries if entry.winner), None)
        if winner is None or winner.learning_rate is None:
            raise SearchError("no finalist could be trained at any learning rate of the finals")
        found = best.make_best(
            winner.program, winner.learning_rate, "discovered", _provenance(run_dir, config, winner)
        )
        best.write_best(run_dir, found)
        return SearchResult(tuple(entries), found)


def _start(config: SearchConfig, run_dir: Path, *, resume: bool) -> tuple[Founder, ...]:
    """Return the rules that the run starts from, or started from if it is resumed."""
    folder = several_drivers.start_folder(run_dir) if resume else None
    if folder is None:
        return founders.load(config)
    with Store.open(folder, read_only=True) as store:
        return founders.read(store.meta(), config)


def _evaluator(config: SearchConfig, start: Sequence[Founder]) -> EvaluatorConfig:
    """Return the settings of workers, with the founders' instructions in the interpreter.

    Mutation need not insert them, but children inherit them: each would be compiled by itself.
    """
    ops = [s.op for one in start for s in one.genotype.program.statements if s.op != COPY]
    evaluator = config.evaluator
    return dataclasses.replace(evaluator, capacity=evaluator.capacity.with_ops(ops))


def _search(
    config: SearchConfig,
    run_dir: Path,
    store: Store,
    workers: base.Pool,
    session: Session,
    view: SearchView,
    source: AnswerSource | None,
) -> list[Entry]:
    """Run the search and its finals, on workers that are there."""
    if config.window < workers.num_workers:
        view.note(
            f"the window is {config.window}, so no more than {config.window} of the "
            f"{workers.num_workers} workers can be busy; a larger window is another experiment"
        )
    num_told = store.first("SELECT COUNT(*) FROM proposal")
    num_helpers = config.proposers
    engines: list[Evolution] = []  # Empty unless the search is on.
    shown = ""

    def watch() -> None:
        nonlocal shown
        session.watch()
        for each in engines:
            each.tend()
            awaited = "" if each.suggestions is None else each.suggestions.calls.awaited
            if awaited and awaited != shown:
                view.doing(f"waiting for {awaited}")
            shown = awaited

    engine = driver.OrderedDriver(
        workers,
        window=config.window,
        start=num_told,
        watch=watch,
        lag=helpers.lag(num_helpers, config.window),
    )

    def report(text: str, done: int, total: int) -> None:
        view.phase(text, done, total)
        session.watch()

    if config.drivers > 1:  # They have searched, and this is their merged store.
        _note_limits(view, config, store)
        _, incumbent = search_rows.best_of_drivers(store)
        return final_stages.Finals(config, incumbent, store, engine.run_now).run(report)
    starting = _Starting(config, engine.run_now, view)
    view.phase("compiling the training loops")
    evolution = Evolution.start(config, store, starting, source=source)
    engines.append(evolution)
    starting.done = True
    _note_limits(view, config, store)
    written = _write_incumbent(run_dir, config, evolution.incumbent)

    def show(before: Incumbent) -> None:
        nonlocal written
        now = evolution.incumbent
        if now.candidate != before.candidate:
            written = _write_incumbent(run_dir, config, now)
            view.best(evolution)
        elif now.meta_pending != before.meta_pending:
            written = _write_incumbent(run_dir, config, now, written)
        view.update(evolution)
        if evolution.suggestions is not None:
            for text in evolution.suggestions.calls.take_notes():
                view.note(text)
        session.watch()

    def tell(index: int, result: JobResult | driver.Ready) -> Sequence[driver.SideWork]:
        before = evolution.incumbent
        begun = evolution.tell(index, result)
        if index < len(evolution.founders) - 1:
            _note_trouble(view, evolution.founders[index + 1], result)
        show(before)
        return begun

    def settle(work: int, results: Sequence[JobResult]) -> Sequence[driver.SideWork]:
        before = evolution.incumbent
        begun = evolution.settle(work, results)
        show(before)
        return begun

    with helpers.Proposers(num_helpers, evolution.proposer, view.note) as evolution.helpers:
        engine.run(evolution.ask, tell, settle, evolution.begun, evolution.stretch)
    engines.clear()
    if source is not None:
        source.close()  # What is under way is needed no more.
    incumbent = evolution.incumbent.candidate
    return final_stages.Finals(config, incumbent, store, engine.run_now).run(report)


@final
class _Starting:
    """`run_now`, which reports what a search waits for while it starts."""

    def __init__(self, config: SearchConfig, run_now: job_records.RunNow, view: SearchView):
        self.done = False
        self._tasks = [proxy.task for proxy in config.tasks]
        self._run_now = run_now
        self._view = view

    def __call__(self, runs: Sequence[driver.NamedJob]) -> Iterator[JobResult]:
        results = iter(self._run_now(runs))
        if self.done:
            return results
        return self._told(runs, results)

    def _told(
        self, runs: Sequence[driver.NamedJob], results: Iterator[JobResult]
    ) -> Iterator[JobResult]:
        for number in range(len(runs)):
            # One job for each proxy; or those of meta-validation.
            what = self._tasks[number] if len(runs) == len(self._tasks) else "meta-validation"
            text = f"compiling the training loops and scoring the initial rule: {what}"
            self._view.phase(text, number, len(runs))
            yield next(results)


def _note_trouble(view: SearchView, founder: Founder, result: JobResult | driver.Ready) -> None:
    """Report a founder that has no descendants."""
    outcome = result.value if isinstance(result, driver.Ready) else job_records.outcome_of(result)
    if isinstance(outcome, Outcome) and outcome.fitness is None:
        blind = outcome.message == IGNORES_GRADIENT
        view.note(
            f"founder {founder.name} at learning rate {founder.genotype.learning_rate:.3g}: "
            f"{outcome.status}{f' ({outcome.message})' if outcome.message else ''}, so it will "
            f"have no descendants{'' if blind else '; another learning rate may do'}"
        )


def _note_limits(view: SearchView, config: SearchConfig, store: Store) -> None:
    """Report tasks where nothing can be found, since the initial rule is at a limit of the scale.

    Report also a run that was begun before hollow runs were detected: its results are kept.
    """
    meta = store.meta()
    if config.objective in objectives.OBJECTIVES:
        curves = json.loads(meta["initial_curves"]) if "initial_curves" in meta else []
        for proxy, task in enumerate(config.tasks):
            ends = [curve[-1] for curve in curves[proxy :: len(config.tasks)]]
            if ends and all(hollow.at_floor(end) for end in ends):
                view.note(
                    f"{task.task}: the initial rule is at the floor already, below which losses "
                    "cannot be distinguished, so nothing better can be found there; take a harder "
                    "task, fewer steps, or a normalizer with a lower bound"
                )
            elif ends and all(end >= objectives.NOTHING_LEARNT for end in ends):
                view.note(
                    f"{task.task}: the initial rule has learnt nothing there at learning rate "
                    f"{config.learning_rate:g}; another rate may do, or more steps"
                )
    begun_by = json.loads(meta.get("versions", "{}")).get("veldt", "0")
    if tuple(int(part) for part in re.findall(r"\d+", begun_by)[:2]) < _DETECTS_HOLLOW:
        view.note(
            f"this run was begun by veldt {begun_by}, which did not detect hollow runs (a low loss "
            "that training did not earn): its trained programs keep their scores. The finals are "
            "checked; if its best rule turns out hollow, begin a new run"
        )


def _open_store(
    config: SearchConfig, directory: RunDirectory, start: tuple[Founder, ...], *, resume: bool
) -> Store:
    """Open or make the store of the run in a directory, and write the run's config."""
    if resume and (directory.path / FILE_NAME).exists():
        store = Store.open(directory.path, locked=True)
    else:
        store = Store.create(directory.path, locked=True)
    described = codec.to_plain(config)
    before: dict[str, Any] = {}
    try:
        if config_text := store.meta().get("config"):
            before = directory.check(json.loads(config_text))
            integrity.check(store)
        with store.transaction():
            store.set_meta("config", json.dumps(described))
            if "versions" not in store.meta():
                store.set_meta("versions", json.dumps(versions.versions()))
            if not before:
                store.set_meta(founders.META_KEY, founders.dump(start))
            if any(described[key] != before.get(key) for key in _FINALS_OF):
                store.execute("DELETE FROM hall_of_fame")
            if any(described[key] != before.get(key) for key in _ENDS):
                side_work.undo_last(store, config)
        directory.write(is_new=not before)
    except BaseException:
        store.close()
        raise
    return store


def _write_incumbent(
    run_dir: Path,
    config: SearchConfig,
    incumbent: Incumbent | Best,
    written: best.Best | None = None,
) -> best.Best:
    """Write the best so far; `written` is what was written of the same before."""
    provenance = {
        **_origin(run_dir, config),
        "fitness": f"{incumbent.fitness:.4f} on the search's seeds ({_scale(config)})",
        "fresh seeds": "not challenged yet"
        if incumbent.fresh is None
        else f"{incumbent.fresh:.4f}",
        "meta-validation": _meta(incumbent),
        "state": "incumbent of a search that has not ended",
    }
    if written is None:
        program, rate = incumbent.genotype.program, incumbent.genotype.learning_rate
        found = best.make_best(program, rate, "discovered", provenance)
    else:
        found = dataclasses.replace(written, provenance=provenance)
    best.write_best(run_dir, found)
    return found


def _meta(incumbent: Incumbent | Best) -> str:
    if incumbent.meta_pending:
        return "not yet"
    return "none" if incumbent.meta is None else f"{incumbent.meta:.4f}"


def _scale(config: SearchConfig) -> str:
    return f"{objectives.describe(config.objective)}, lower is better"


def _provenance(run_dir: Path, config: SearchConfig, winner: Entry) -> dict[str, str]:
    error = formatting.plus_minus(winner.final_error, 4, "+-")
    return {
        **_origin(run_dir, config),
        "proxies": f"{winner.final:.4f}{error} over {config.finals.final_seeds} seeds that nothing "
        f"was selected on ({_scale(config)})"
        if winner.final is not None
        else "failed on the final seeds",
        "meta-validation": "none" if winner.meta is None else f"{winner.meta:.4f}",
        "candidate": str(winner.candidate),
    }


def _origin(run_dir: Path, config: SearchConfig) -> dict[str, str]:
    return {
        "run": run_dir.resolve().name,
        "search": f"from {config.initial_rule}, seed {config.seed}, {config.max_evaluations} "
        "distinct programs"
        + (f", {config.drivers} drivers" if config.drivers > 1 else "")
        + (f", at most {config.max_steps:,} training steps" if config.max_steps else ""),
        best.TASKS: best.describe_tasks((proxy.task, proxy.num_steps) for proxy in config.tasks),
        **versions.versions(),
    }
