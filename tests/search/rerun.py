"""Running a search again from its own results, without training.

`replay` gives a new search the stored config, and answers each of its jobs from the stored training
runs. Everything else is computed anew: children, cache queries, hurdles, fitness, challenges,
finals. Where the new store equals the old one, every decision of the old search follows from the
stored results in the stored order: none depended on when a result came, on which worker, or on how
often the search was killed and resumed; and no stored decision was altered afterwards. It does not
show whether a training run would give its result again.

Time-outs, deaths and errors are results like any other here. A search that was cut short is
replayed as far as it got.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from veldt.search.config import search_config
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import StoreError
from veldt.search.evaluation.constant_gradients import Gradient, GradientJob
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.evolution import founders, side_work
from veldt.search.evolution.engine import Evolution
from veldt.search.evolution.llm.stored_answers import StoredAnswers
from veldt.search.finals import final_runs
from veldt.search.finals.final_stages import Finals
from veldt.search.storage import schema, stored_runs
from veldt.search.storage.store import MACHINE_TABLES, Store
from veldt.tasks.common.config import codec, older_config
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.pool import base, driver, inline

_GIVEN: Final = frozenset({"config", "versions", founders.META_KEY, schema.CHALLENGES})
_WITHOUT_RUNS: Final = (Status.ERROR, Status.TIMEOUT, Status.KILLED)


class _NotStored(BaseException):
    """A job that has no stored result: in the finals, the old search was cut short here.

    It is not an `Exception`, which the pool would take for the job's result.
    """


@final
@dataclass(frozen=True)
class _Lack:
    """The result of a job of side work that has none stored: it was under way at the end."""

    text: str


@final
class _Recorded:
    """A worker that reads results from the old store."""

    def __init__(self, store: Store, config: SearchConfig, end: int):
        """Read the results of a search that ended, for the time being, after `end` proposals."""
        self._store = store
        self._end = end
        self._config = config
        self._proxies = config.proxies
        self._num_tasks = len(config.tasks)
        # The initial rule's losses along the way make the hurdle, and a race has those of all
        # candidates. Otherwise the last loss is enough.
        self._initial_curves = json.loads(store.meta()["initial_curves"])
        self._races = config.racing.enabled

    def __call__(self, payload: object) -> Outcome | Gradient | _Lack:
        if isinstance(payload, GradientJob):
            found = final_runs.stored_gradient(self._store, self._config, payload)
            if found is None:
                raise _NotStored(f"a gradient of candidate {payload.candidate}")
            return found
        job = payload
        assert isinstance(job, EvalJob)
        rate = job.genotype.learning_rate
        rows = stored_runs.read(self._store, job.candidate, job.purpose, rate, job.constants)
        undone = f"{side_work.UNDONE} at {self._end}, {job.purpose}"
        rows = stored_runs.read(self._store, job.candidate, undone, rate) | rows
        curves = self._curves(job)
        results: list[RunResult] = []
        for position, run in enumerate(job.runs):
            row = rows.get((self._proxies[run.proxy].task, run.seed))
            if row is None and job.candidate > 0 and job.purpose in ("fresh", "meta"):
                return _Lack(f"{job.purpose} of candidate {job.candidate}, seed {run.seed}")
            if row is None:
                raise _NotStored(f"{job.purpose} of candidate {job.candidate}, seed {run.seed}")
            status = Status(row["status"])
            if status in _WITHOUT_RUNS:
                return Outcome(status, None, message=row["message"])
            log_losses: tuple[float, ...] = (row["log_loss"],) if status is Status.OK else ()
            if job.candidate == 0 and job.purpose == "fitness":
                log_losses = tuple(self._initial_curves[run.seed * self._num_tasks + run.proxy])
            elif curves:
                log_losses = tuple(curves[position])
            results.append(
                RunResult(
                    run,
                    status,
                    row["loss"],
                    log_losses,
                    row["num_steps"],
                    row["wall_s"],
                    row["message"],
                )
            )
            if status is not Status.OK:
                break
        return Outcome.of(results)

    def _curves(self, job: EvalJob) -> list[list[float]]:
        """Return the log losses at all checks of each run made; empty if they are not stored."""
        if not self._races or job.purpose != "fitness" or job.candidate == 0:
            return []
        query = (
            "SELECT r.curves FROM race r JOIN proposal p ON p.id = r.proposal WHERE p.candidate = ?"
        )
        found: list[list[float]] = json.loads(self._store.first(query, (job.candidate,)) or "[]")
        return found


def replay(run_dir: Path, into: Path) -> list[str]:
    """Replay the run of one directory into another, and compare the stores.

    Args:
      run_dir: Directory of the run; only read.
      into: Empty directory, or one to be made, for the new store.

    Returns:
      The differences, in sentences, see `differences`; empty where all of the old search was found
      again.

    Raises:
      StoreError: There is no run, or it holds too little: nothing scored yet, or begun by a veldt
        of an older store version; or `into` cannot be used.
    """
    with Store.open(run_dir, read_only=True) as old:
        meta = old.meta()
        if "initial_curves" not in meta:
            raise StoreError(
                f"{run_dir} cannot be replayed: it has scored nothing yet, or was begun by an "
                "older veldt that did not store all that a replay needs"
            )
        config = search_config.read_stored(json.loads(meta["config"]), str(run_dir))
        atomic_files.make_folder(into)
        with Store.create(into) as new:
            with new.transaction():
                # The process and machine of the stored results, and how challenges are made.
                for key in meta.keys() & _GIVEN:
                    new.set_meta(key, meta[key])
            found = []
            try:
                _search(config, old, new)
            except _NotStored as lack:
                found.append(f"training runs are needed that the store does not have: {lack}")
            return found + differences(old, new)


def _search(config: SearchConfig, old: Store, new: Store) -> None:
    """Search until all proposals of the old store are made, with finals where it played them."""
    num_told = old.first("SELECT COUNT(*) FROM proposal")
    for finals in old.rows("SELECT told, config FROM finals ORDER BY id"):
        played = codec.from_plain(FinalsConfig, json.loads(finals["config"]), str(old.path))
        _leg(replace(config, finals=played), old, new, finals["told"], play=True)
    _leg(config, old, new, num_told, play=False)
    if not old.rows("SELECT 1 FROM hall_of_fame LIMIT 1"):  # Emptied when the budget grew.
        with new.transaction():
            new.execute("DELETE FROM hall_of_fame")


def _leg(config: SearchConfig, old: Store, new: Store, end: int, *, play: bool) -> None:
    """Continue to proposal `end`, and play finals if the old search did."""
    start = new.first("SELECT COUNT(*) FROM proposal")
    if start < end:
        with new.transaction():
            side_work.undo_last(new, config)
    # The number of proposals holds what ended the old search: budget, clock or Ctrl-C.
    endless = replace(config, max_evaluations=end + 1, time_limit_s=None)
    with inline.InlinePool(lambda: _Recorded(old, config, end)) as pool:
        engine = driver.OrderedDriver(pool, window=config.window, start=start)
        evolution = Evolution.start(endless, new, engine.run_now, source=_answers(config, old))

        def settle(work: int, results: Sequence[base.JobResult]) -> Sequence[driver.SideWork]:
            for result in results:
                if isinstance(result.value, _Lack):
                    raise _NotStored(result.value.text)
            return evolution.settle(work, results)

        try:
            engine.run(
                lambda i: evolution.ask(i) if i < end else driver.Stop(),
                evolution.tell,
                settle,
                evolution.begun,
                evolution.stretch,
            )
        except _NotStored:
            if engine.num_told < end:
                raise  # Otherwise the old search ended here, with side work under way.
        if play:
            # Finals that were cut short are played as far as they got.
            with contextlib.suppress(_NotStored):
                Finals(config, evolution.incumbent.candidate, new, engine.run_now).run()


def _answers(config: SearchConfig, old: Store) -> StoredAnswers | None:
    """Return the answers of language models that the old store has."""
    return None if config.llm is None else StoredAnswers(old.path.parent)


def differences(old: Store, new: Store) -> list[str]:
    """Compare what two stores hold of the search: all but times and machines.

    Returns:
      For each table that differs, a sentence with its first different row.
    """
    found = []
    for table in _tables(new):
        for ours, theirs in itertools.zip_longest(_rows(old, table), _rows(new, table)):
            if ours is None or theirs is None or not _same(table, ours, theirs):
                found.append(f"{table}: {ours} became {theirs}")
                break
    return found


def _same(table: str, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Return whether two rows are the same, the first perhaps of an older version."""
    if table == "evaluation" and not ours["constants"]:  # Older versions stored none.
        return ours == {**theirs, "constants": ""}
    return ours == theirs or (table == "finals" and _same_finals(ours, theirs))


def _same_finals(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Return whether two rows are the same finals; those of older versions have fewer settings."""
    first, second = (
        {**row, "config": older_config.fill(FinalsConfig, json.loads(row["config"]))}
        for row in (ours, theirs)
    )
    return first == second


def _tables(store: Store) -> list[str]:
    rows = store.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [row["name"] for row in rows if row["name"] not in MACHINE_TABLES]


def _rows(store: Store, table: str) -> Iterator[dict[str, Any]]:
    columns = store.rows("SELECT name FROM pragma_table_info(?)", (table,))
    names = ", ".join(row["name"] for row in columns if not row["name"].endswith("_s"))
    searched = "WHERE key <> 'schema_version' " if table == "meta" else ""
    return store.iterate(f"SELECT {names} FROM {table} {searched}ORDER BY {names}")
