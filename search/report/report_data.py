"""The data of a report, read from a run's store in one snapshot.

The store is opened for reading alone, so a report can be written while the search goes on. Every
value is checked to be of the right kind (`report_rows`): rows that no search wrote raise an error
here and never become text in a page.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from veldt.search.config import search_config
from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import StoreError
from veldt.search.program import Program
from veldt.search.report import llm_yields, mutation_yields, op_survival, report_rows
from veldt.search.report.llm_yields import ModelYields
from veldt.search.report.mutation_yields import Yield
from veldt.search.report.op_survival import Survival
from veldt.search.report.report_rows import Ancestor as Ancestor
from veldt.search.report.report_rows import FreshComparison as FreshComparison
from veldt.search.report.report_rows import Incumbent as Incumbent
from veldt.search.report.report_rows import Spent as Spent
from veldt.search.report.report_rows import Trained as Trained
from veldt.search.storage import hall_entries
from veldt.search.storage import usage as work
from veldt.search.storage.counts import Counts
from veldt.search.storage.hall_entries import Entry
from veldt.search.storage.store import Store
from veldt.search.storage.usage import Work
from veldt.tasks.common.config import codec
from veldt.tasks.common.errors import ConfigError

# Errors that rows raise which no search wrote; a `SearchError` is clearer and passes through.
_NOT_A_RUN: Final = (
    ConfigError,
    sqlite3.Error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@final
@dataclass(frozen=True, slots=True)
class SearchData:
    """The data of a run that its report shows.

    Attributes:
      config: Resolved config, as plain data.
      settings: Resolved config, checked.
      rate_range: Lowest and highest learning rate of the finals.
      entries: Table of the finals; empty before they were played.
      trained: Distinct programs trained, in order.
      incumbents: Incumbents, the initial rule first.
      subject: Candidate that the report is about: the winner, before the finals the incumbent.
      program: Program of that candidate.
      learning_rate: Learning rate of that candidate.
      initial_program: Program of the initial rule.
      initial_learning_rate: Learning rate of the initial rule.
      lineage: Proposals from the initial rule's child to the subject; empty if that is the rule.
      comparisons: Challenges of an incumbent by members of the lineage, by candidate.
      meta_runs: Log losses of incumbents on meta-validation, by candidate, then by task and seed.
      survival: Record of each op.
      yields: Record of each kind of mutation.
      models: Record of the language models; None where the search has none.
      counts: Numbers of proposals, candidates and challenges of the search.
      num_won: Number of challenges won.
      spent: Cost of each purpose of runs.
      search_s: Seconds of search.
      errors: Commonest messages of failed candidates, each with the number of times.
      seed_scores: Mean log losses on the final seeds, by candidate, then by seed.
      work: Record of the processes and workers, and of the cost.
      schema_version: Version of the store, as the file states it.
      versions: Versions of Python and the packages that the run was made with.
    """

    config: Mapping[str, Any]
    settings: SearchConfig
    rate_range: tuple[float, float]
    entries: tuple[Entry, ...]
    trained: tuple[Trained, ...]
    incumbents: tuple[Incumbent, ...]
    subject: int
    program: Program
    learning_rate: float
    initial_program: Program
    initial_learning_rate: float
    lineage: tuple[Ancestor, ...]
    comparisons: Mapping[int, FreshComparison]
    meta_runs: Mapping[int, Mapping[tuple[str, int], float]]
    survival: Survival
    yields: tuple[Yield, ...]
    models: ModelYields | None
    counts: Counts
    num_won: int
    spent: tuple[Spent, ...]
    search_s: float
    errors: tuple[tuple[str, int], ...]
    seed_scores: Mapping[int, Mapping[int, float]]
    work: Work
    schema_version: str
    versions: Mapping[str, str]

    @property
    def initial_rule(self) -> str:
        """The name of the rule that the search started from, as the config gives it."""
        return self.settings.initial_rule

    @property
    def finished(self) -> bool:
        """Whether the finals have been played."""
        return bool(self.entries)


def read_run(run_dir: Path) -> SearchData:
    """Read a run directory's store.

    Raises:
      StoreError: There is no run, it has scored nothing yet, or its store is damaged.
    """
    with Store.open(run_dir, read_only=True) as store:
        try:
            store.execute("BEGIN")  # One snapshot, though a search may be writing.
            return _read(store, run_dir)
        except _NOT_A_RUN as error:
            raise StoreError(
                f"{run_dir}: the store holds what no search writes ({error}); "
                "restore it from a copy"
            ) from error


def _read(store: Store, run_dir: Path) -> SearchData:
    meta = store.meta()
    if "hurdle" not in meta:
        raise StoreError(
            f"{run_dir} holds a search that has not scored its initial rule yet; there is nothing "
            "to report"
        )
    config = dict(json.loads(meta["config"]))
    # Fields of a newer version are shown, and not read.
    known = codec.hints(SearchConfig).keys() & config.keys()
    settings = search_config.read_stored({key: config[key] for key in known}, str(store.path))
    finals_ = settings.finals
    highest = finals_.lowest_rate * finals_.rate_factor ** (finals_.num_rates - 1)
    entries = tuple(_checked(entry) for entry in hall_entries.read_entries(store))
    trained = report_rows.trained(store)
    incumbents = report_rows.incumbents(store)
    winner = next((entry for entry in entries if entry.winner), None)
    if winner is not None and winner.learning_rate is not None:
        subject, program, rate = winner.candidate, winner.program, winner.learning_rate
    else:
        subject = incumbents[-1].candidate
        program, rate = report_rows.candidate(store, subject)
    initial_program, initial_rate = report_rows.candidate(store, 0)
    lineage = llm_yields.with_ideas(store, report_rows.lineage(store, subject))
    yields = mutation_yields.yields(store)
    return SearchData(
        config=config,
        settings=settings,
        rate_range=(finals_.lowest_rate, highest),
        entries=entries,
        trained=trained,
        incumbents=incumbents,
        subject=subject,
        program=program,
        learning_rate=rate,
        initial_program=initial_program,
        initial_learning_rate=initial_rate,
        lineage=lineage,
        comparisons=report_rows.comparisons(store, {one.candidate for one in lineage}),
        meta_runs=report_rows.meta_runs(store, incumbents),
        survival=op_survival.survival(
            store,
            settings.population_size * settings.drivers,
            (entry.program for entry in entries if entry.candidate >= 0),
        ),
        yields=yields,
        models=llm_yields.read(store, settings.llm, yields),
        counts=Counts.read(store),
        num_won=sum(1 for incumbent in incumbents if incumbent.proposal >= 0),
        spent=report_rows.spent(store),
        search_s=float(store.rows("SELECT COALESCE(MAX(told_s), 0) AS s FROM proposal")[0]["s"]),
        errors=report_rows.errors(store),
        seed_scores=report_rows.seed_scores(store, entries),
        work=work.read_work(store),
        schema_version=str(store.version),
        versions={str(k): str(v) for k, v in dict(json.loads(meta["versions"])).items()},
    )


def _checked(entry: Entry) -> Entry:
    return replace(
        entry,
        label=str(entry.label),
        candidate=int(entry.candidate),
        length=int(entry.length),
        learning_rate=report_rows.optional(entry.learning_rate),
        search_fitness=report_rows.optional(entry.search_fitness),
        select=report_rows.optional(entry.select),
        final=report_rows.optional(entry.final),
        final_error=report_rows.optional(entry.final_error),
        meta=report_rows.optional(entry.meta),
    )
