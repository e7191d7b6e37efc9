"""The shortlist: the candidates that the finals take, scored again on seeds of their own.

A search's own scores favour luck, most of all the best of them: the lowest of thousands of noisy
scores is low by its noise. So the finalists are not chosen by them alone. The best by the search's
account are trained again on seeds that nothing was selected on, all on a few, the better half on
as many again. The Pareto front over the new score, length and state slots goes into the finals.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.jobs import ProxyRun
from veldt.search.evolution import job_records, search_rows
from veldt.search.evolution.selection import samples
from veldt.search.finals import final_runs
from veldt.search.finals.final_runs import Contender, Runs, Wanted
from veldt.search.storage.store import Store

PURPOSE: Final = "shortlist"


class Finalist(NamedTuple):
    """A candidate, in the order of its score."""

    score: float
    length: int
    num_slots: int
    candidate: int


def choose(
    store: Store,
    config: SearchConfig,
    incumbent: int,
    runs: Runs,
    report: Callable[[str, int, int], None],
) -> list[int]:
    """Choose finalists; return their ids, shortest first.

    Args:
      store: Store of the search.
      config: Config of the search, with a shortlist.
      incumbent: Best candidate at the end of the search, which is always taken.
      runs: Runs of the finals.
      report: Function called with the step, the runs done and the runs in all.
    """
    found = {one.candidate: one for one in ranked(store, config, incumbent)}
    named = list(found)[: config.finals.shortlist]
    if incumbent not in named:
        named.append(incumbent)
    tasks, number = range(len(config.tasks)), config.finals.select_seeds
    few = final_runs.each_seed(tasks, job_records.SHORTLIST_SEEDS, number)
    more = final_runs.each_seed(tasks, job_records.SHORTLIST_SEEDS + number, number)
    wanted = [_wanted(store, candidate, few) for candidate in named]
    runs.complete(wanted, lambda done, total: report("shortlist", done, total))
    better = sorted(wanted, key=lambda one: _score(runs, one))[: math.ceil(len(wanted) / 2)]
    again = [
        replace(each, runs=(*few, *more))
        for each in wanted
        if each in better or each.contender.candidate == incumbent
    ]
    runs.complete(again, lambda done, total: report("better half", done, total))
    scored = [found[each.contender.candidate]._replace(score=_score(runs, each)) for each in again]
    return front(scored, incumbent, config.finals.max_entries)


def _wanted(store: Store, candidate: int, runs: tuple[ProxyRun, ...]) -> Wanted:
    genotype = search_rows.candidate_genotype(store, candidate)
    contender = Contender(candidate, f"#{candidate}", genotype.program)
    return Wanted(contender, genotype.learning_rate, PURPOSE, runs)


def _score(runs: Runs, wanted: Wanted) -> float:
    score = runs.score(wanted).mean
    return math.inf if score is None else score


def front(found: Sequence[Finalist], incumbent: int, most: int) -> list[int]:
    """Return the ids on the Pareto front and the incumbent's, shortest first.

    A rule is on the front if every other that is as short, and keeps as little state, is less fit.

    Args:
      found: Candidates with their scores; infinite ones are left out.
      incumbent: Candidate that is always on it.
      most: Largest number of candidates, of which the fittest are kept.
    """
    best: list[Finalist] = []
    for one in sorted(found):
        # Fittest first, so every rule already on the front is at least as fit.
        if math.isfinite(one.score) and not any(
            one.length >= other.length and one.num_slots >= other.num_slots for other in best
        ):
            best.append(one)
    kept = sorted(best[:most], key=lambda one: (one.length, one.num_slots))
    chosen = [one.candidate for one in kept]
    if incumbent not in chosen:
        if len(chosen) == most:
            chosen.remove(max(kept).candidate)
        chosen.append(incumbent)
    return chosen


def ranked(store: Store, config: SearchConfig, incumbent: int) -> list[Finalist]:
    """Return the candidates that could be trained, the best by the search's own account first.

    With samples that is the upper bound of the mean over them, else the fitness. Of a behaviour
    that several drivers found, the better candidate stands for all, or the incumbent.
    """
    rows = store.rows(
        "SELECT id, behaviour, length, COALESCE(slots, 0) AS num_slots, fitness FROM candidate "
        "WHERE id >= 0 AND status = 'ok'"
    )
    known = samples.Samples(config.window + 2)
    if config.samples > 1:
        num_told = store.first("SELECT COUNT(*) FROM proposal")
        search_rows.read_samples(store, config, known, num_told)

    def score(candidate: int, fitness: float) -> float:
        if config.samples == 1:
            return fitness
        return known.estimate(candidate).bound(known.last_noise, 1.0)

    ranked = sorted(
        (
            Finalist(score(row["id"], row["fitness"]), row["length"], row["num_slots"], row["id"]),
            row["behaviour"].partition(",")[0],
        )
        for row in rows
    )
    best: dict[str, Finalist] = {}
    for one, behaviour in ranked:
        if behaviour not in best or one.candidate == incumbent:
            best[behaviour] = one
    return sorted(best.values())
