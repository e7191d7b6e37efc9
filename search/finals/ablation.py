"""Ablation: removing instructions that a rule computes with but does not need.

Lion's authors dropped the statements whose removal changed little (Chen et al. 2023, arXiv
2302.06675, section 2.3: clip and arcsin in the program they found); here a score decides. Each
instruction is replaced by one of its arguments, by 0 or by 1; the results are simplified and
scored, shortest first. The first that loses nothing is kept, and its instructions are tried next.

This changes what a rule does. It is only as good as its score: compare on the same seeds (each
candidate is compared with the program given), and confirm the result on seeds not used here.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from veldt.search.errors import LoweringError
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, Outcome, ProxyRun
from veldt.search.language import dataflow, pruning
from veldt.search.language.dataflow import Constant, Dataflow, Input, Node, Value
from veldt.search.program import Program
from veldt.search.simplify import simplifier

Score: TypeAlias = Callable[[Program], float]
"""Function that scores a program, lower is better; not finite where it failed."""

_NEUTRAL: Final = (0.0, 1.0)


@final
@dataclass(frozen=True, slots=True)
class Ablation:
    """The result of an ablation.

    Attributes:
      program: Shortest program found that loses no more than was allowed.
      score: Score of that program.
      start_score: Score of the program given.
      num_evaluations: Number of programs scored, the one given included.
      complete: Whether every single instruction left was tried; False where the budget ran out.
    """

    program: Program
    score: float
    start_score: float
    num_evaluations: int
    complete: bool


def training_score(
    evaluate: Callable[[EvalJob], Outcome], learning_rate: float, runs: Sequence[ProxyRun]
) -> Score:
    """Return the score by training on the proxies: mean log loss, on the same runs always.

    Args:
      evaluate: Function that makes the runs, as an `Evaluator` does.
      learning_rate: Learning rate that all programs are trained at.
      runs: Proxies and seeds.
    """

    def score(program: Program) -> float:
        outcome = evaluate(EvalJob(Genotype(program, learning_rate), tuple(runs)))
        return math.inf if outcome.fitness is None else outcome.fitness

    return score


def ablate(
    program: Program, score: Score, *, tolerance: float = 0.0, max_evaluations: int = 200
) -> Ablation:
    """Remove the instructions that a score does not need.

    Args:
      program: Rule to shorten.
      score: Score of a program; must be the same for the same program.
      tolerance: Largest allowed loss against the program given, in units of the score.
      max_evaluations: Largest number of programs to score, the one given included.

    Raises:
      ValueError: The tolerance is negative, the budget is below 1, or the score of the program
        given is not finite.
    """
    if not tolerance >= 0.0:
        raise ValueError(f"tolerance is {tolerance}; it is at least 0")
    if max_evaluations < 1:
        raise ValueError(f"max_evaluations is {max_evaluations}; the program given is one")
    program = simplifier.simplify(program)
    start = best = score(program)
    if not math.isfinite(start):
        raise ValueError(f"the program given scores {start}: there is nothing to compare with")
    seen = {_key(program)}
    while True:
        found = None
        for variant in variants(program):
            candidate = simplifier.simplify(variant)
            if _key(candidate) in seen:
                continue
            if len(seen) == max_evaluations:
                return Ablation(program, best, start, len(seen), complete=False)
            seen.add(_key(candidate))
            value = score(candidate)
            if math.isfinite(value) and value <= start + tolerance:
                found, best = candidate, value
                break
        if found is None:
            return Ablation(program, best, start, len(seen), complete=True)
        program = found


def variants(program: Program) -> list[Program]:
    """Return the programs without one instruction, shortest first, all shorter than `program`."""
    found: dict[str, Program] = {}
    length = len(program.statements)
    flow = dataflow.lower(program)
    for index in flow.live_nodes:
        for bypassed in _bypassed(flow, index):
            try:
                variant = pruning.prune(pruning.to_program(bypassed, program))
            except LoweringError:  # a number where a tensor is wanted
                continue
            if len(variant.statements) < length:
                found.setdefault(_key(variant), variant)
    return sorted(found.values(), key=lambda variant: len(variant.statements))


def _bypassed(flow: Dataflow, index: int) -> Iterator[Dataflow]:
    """Yield the graphs in which users of an instruction read something else in its place."""
    for substitute in dict.fromkeys(flow.node(index).args):
        if not isinstance(flow.values[substitute], Constant):
            yield _replaced(flow, {index: substitute}, ())
    end = len(flow.values)
    for number in _NEUTRAL:
        yield _replaced(flow, {index: end}, (Constant(number),))


def _replaced(flow: Dataflow, instead: dict[int, int], added: tuple[Value, ...]) -> Dataflow:
    """Return the graph with some values replaced by others; the added ones come early enough."""
    head = sum(isinstance(value, Input) for value in flow.values)
    at = {len(flow.values) + i: head + i for i in range(len(added))}
    at |= {i: i if i < head else i + len(added) for i in range(len(flow.values))}

    def new(index: int) -> int:
        return at[instead.get(index, index)]

    values: list[Value] = []
    for value in flow.values:
        if isinstance(value, Node):
            value = value._replace(args=tuple(new(arg) for arg in value.args))
        values.append(value)
    values[head:head] = added
    return Dataflow(
        tuple(values), flow.slots, new(flow.update), tuple(new(i) for i in flow.new_slots)
    )


def _key(program: Program) -> str:
    return dataflow.lower(program, fold=True).structural_hash
