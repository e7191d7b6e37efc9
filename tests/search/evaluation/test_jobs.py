"""Limits of a job's checks: each run by itself, running totals, and both."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun
from veldt.search.program import Program

RULE = Genotype(Program.parse("def rule(w, g):\n    return g\n"), 0.1)
# In sixteenths, so that sums are exact.
numbers = st.integers(-160, 160).map(lambda number: number / 16)
curves = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=3).map(tuple)


def first_failure(job: EvalJob, losses: tuple[tuple[float, ...], ...]) -> tuple[int, int] | None:
    """Goes through the checks as the evaluator does."""
    ended = 0.0
    for position, curve in enumerate(losses):
        limits = job.limits(position, ended)
        for check, loss in enumerate(curve):
            if limits and loss > limits[check]:
                return position, check
        ended += curve[-1]
    return None


@given(hurdle=curves, race=curves, losses=curves)
def test_a_job_stops_at_the_first_limit_of_any_kind(hurdle, race, losses) -> None:
    runs = tuple(ProxyRun(proxy, 0) for proxy in range(3))
    found = first_failure(EvalJob(RULE, runs, hurdle, race=race), losses)
    finals = (0.0, *accumulate(curve[-1] for curve in losses))
    expected = None
    for position in reversed(range(3)):
        for check in reversed(range(2)):
            loss = losses[position][check]
            so_far = finals[position] + loss
            if loss > hurdle[position][check] or so_far > race[position][check]:
                expected = position, check
    assert found == expected
    assert first_failure(EvalJob(RULE, runs), losses) is None
