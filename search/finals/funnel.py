"""The funnel: larger tasks, stage by stage, each passed only by rules that beat every baseline.

Lion (arXiv 2302.06675), section 2.3: the programs that are best on the proxies go on to tasks of
about 10 and then 100 times the cost, and only those that beat the tuned baseline. A rule has the
best of a few learning rates around the one it came with; so have the baselines.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from veldt.search.config.finals_config import StageConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution import job_records
from veldt.search.finals import final_runs
from veldt.search.finals.final_runs import Contender, Runs, Wanted

Report = Callable[[str, int, int], None]


def play(
    config: SearchConfig, contenders: Sequence[Contender], runs: Runs, report: Report
) -> list[Contender]:
    """Play all stages that a finalist reaches.

    Args:
      config: Config of the search.
      contenders: Finalists, and baselines (with ids below 0), which are at every stage.
      runs: Runs of the finals.
      report: Function called with the present step, the runs done and the runs in all.

    Returns:
      The contenders with the stages that they passed, in the same order.
    """
    first = len(config.tasks) + len(config.meta_validation)
    for number, stage in enumerate(config.finals.stages, 1):
        proxies = range(first, first + len(stage.tasks))
        first += len(stage.tasks)
        there = [each for each in contenders if each.candidate < 0 or each.stages == number - 1]
        if all(each.candidate < 0 for each in there):
            break
        passed = _pass(stage, proxies, there, runs, report)
        contenders = [
            replace(each, stages=number) if each.candidate in passed else each
            for each in contenders
        ]
    return list(contenders)


def _pass(
    stage: StageConfig,
    proxies: range,
    there: Sequence[Contender],
    runs: Runs,
    report: Report,
) -> set[int]:
    """Return the finalists that beat every baseline at a stage."""
    wanted = final_runs.each_seed(proxies, job_records.STAGE_SEEDS, stage.seeds)
    tried = {
        each.candidate: [
            Wanted(each, each.learning_rate * factor, stage.purpose, wanted)
            for factor in stage.rate_factors
        ]
        for each in there
        if each.learning_rate is not None
    }

    def show(done: int, total: int) -> None:
        report(f"stage {stage.name} of the funnel", done, total)

    runs.complete(itertools.chain.from_iterable(tried.values()), show)
    scores = {candidate: runs.best_rate(of_each)[1] for candidate, of_each in tried.items()}
    known = {candidate: score for candidate, score in scores.items() if score is not None}
    bar = min((score for c, score in known.items() if c < 0), default=math.inf)
    return {c for c, score in known.items() if c >= 0 and score < bar}
