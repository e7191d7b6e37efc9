"""Proposals of language models: the prompt of a call, and a suggested program as a child.

The parent of a call is drawn like any child's, from what was recorded by then, and its best
relatives of other lengths are shown with it. What a model suggests is a child of that parent: it
gets the parent's learning rate, or the one at which its steps are as long (`step_size.py`), and
takes its place among the proposals like the rule of a letter (`migration.py`).
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

import numpy as np

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import Individual
from veldt.search.evolution import founders, search_rows
from veldt.search.evolution.children import Proposed, Proposer
from veldt.search.evolution.founders import Founder
from veldt.search.evolution.llm import shown_rules
from veldt.search.evolution.llm.answer_source import AnswerSource
from veldt.search.evolution.llm.calls import Calls, Prepared
from veldt.search.evolution.llm.program_limits import ProgramLimits
from veldt.search.evolution.llm.stored_answers import StoredAnswers
from veldt.search.evolution.mutations import step_size
from veldt.search.evolution.selection.population import INITIAL, Member, Place
from veldt.search.llm_text import prompts
from veldt.search.llm_text.prompt_data import PromptData, Shown
from veldt.search.llm_text.prompts import Prompt
from veldt.search.storage import llm_figures
from veldt.search.storage.llm_calls import MUTATION
from veldt.search.storage.store import Store

NUM_BEST: Final = 3
SHOW_S: Final = 2.0  # Between readings of the figures.


@final
class Suggestions:
    """The proposals of models in one search.

    Attributes:
      calls: Calls of the search.
      figures: Figures for people, by the names under which they are shown.
    """

    def __init__(
        self,
        config: SearchConfig,
        store: Store,
        calls: Calls,
        limits: ProgramLimits,
        proposer: Proposer,
        initial: Individual,
    ):
        """Join the calls of a search to its population.

        Args:
          config: Config of the search, with language models.
          store: Store of the search.
          calls: Calls of the search.
          limits: Limits of programs.
          proposer: Maker of children, which draws parents.
          initial: Initial rule.
        """
        self.calls = calls
        self._config = config
        self._store = store
        self._limits = limits
        self._proposer = proposer
        self._initial = initial
        self.figures: dict[str, str] = {}
        self._last_read = -math.inf

    def child(self, index: int) -> Proposed | None:
        """Return a program of a model as a proposal; None where the proposal is none."""
        found = self.calls.suggestion(index)
        if found is None:
            return None
        call, parent, number = found.call, self._initial, None
        if call.parent != INITIAL:
            number = call.parent
            parent = Individual.of(search_rows.proposed(self._store, number))
        child = Individual.of(Genotype(found.suggested.program, parent.learning_rate))
        if self._config.mutation.match_steps:
            child = step_size.matched(parent, child)
        return Proposed(child, number, f"{MUTATION}{call.model}", 0)

    def tend(self) -> None:
        """Store what has come, and send what is asked; see `Calls.tend`."""
        self.calls.tend()
        if time.monotonic() - self._last_read >= SHOW_S:
            assert self._config.llm is not None
            self._last_read = time.monotonic()
            line = llm_figures.tokens_line(llm_figures.read_costs(self._store), self._config.llm)
            num_under_way = self.calls.num_under_way
            self.figures = {"language models": f"{line}; {num_under_way:,} under way"}

    def record(self, index: int, incumbent: Place) -> None:
        """Learn and begin calls, in the transaction that records a proposal.

        Args:
          index: Number of the proposal.
          incumbent: Best rule so far.
        """
        self.calls.tell(index)
        self.calls.begin(index, lambda rng: self._prepare(rng, index, incumbent))

    def _prepare(self, rng: np.random.Generator, index: int, incumbent: Place) -> Prepared:
        """Return the prompt of a call that begins with a proposal."""
        knowing = index + self._config.window - 1  # The proposal that may know all before `index`.
        parent = self._proposer.parent(rng, knowing)
        living = self._proposer.fittest(knowing)
        best: list[Place] = []
        for place in (incumbent, *living):
            shown = [parent, *best]
            is_new = all(place.member.candidate != each.member.candidate for each in shown)
            lengths = {each.member.individual.lowered.length for each in best}
            if is_new and place.member.individual.lowered.length not in lengths:
                best.append(place)
            if len(best) == NUM_BEST:
                break
        data = prompt_data(
            self._config,
            self._limits,
            self._shown(parent, knowing),
            tuple(self._shown(place, knowing) for place in best),
            shown_rules.failed(self._store),
        )
        return Prepared(build(self._config, data), parent.proposal)

    def _shown(self, place: Place, knowing: int) -> Shown:
        member: Member = place.member
        live = member.individual.live
        loss = self._proposer.rank(knowing)(member)
        return Shown(
            place.proposal,
            str(live.program),
            live.learning_rate,
            loss if math.isfinite(loss) else None,
            shown_rules.by_task(self._store, member.candidate),
        )


def prompt_data(
    config: SearchConfig,
    limits: ProgramLimits,
    parent: Shown,
    best: tuple[Shown, ...],
    failed: tuple[Shown, ...],
) -> PromptData:
    """Return what a prompt of a search shows."""
    assert config.llm is not None
    return PromptData(
        tasks=tuple((proxy.task, proxy.num_steps) for proxy in config.tasks),
        objective=config.objective,
        notes=config.llm.about,
        instructions=limits.instructions,
        reads=limits.reads,
        max_statements=limits.max_statements,
        num_slots=limits.num_slots,
        num_programs=limits.num_programs,
        parent=parent,
        best=best,
        failed=failed,
    )


def build(config: SearchConfig, data: PromptData) -> Prompt:
    """Return the prompt of a search, by the config's templates."""
    assert config.llm is not None
    folder = config.llm.templates
    return prompts.build(data, None if folder is None else Path(folder))


def join(
    config: SearchConfig,
    store: Store,
    source: AnswerSource | None,
    start: tuple[Founder, ...],
    proposer: Proposer,
    initial: Individual,
    elapsed_s: Callable[[], float],
) -> Suggestions | None:
    """Return the proposals of models in a search; None where it has none.

    Args:
      config: Config of the search.
      store: Store of the search.
      source: Source of answers; None for those in the store alone.
      start: Rules that the search starts from.
      proposer: Maker of children, which draws parents.
      initial: Initial rule.
      elapsed_s: Function that returns the seconds of search.
    """
    if config.llm is None:
        return None
    limits = limits_of(config, start)
    source = StoredAnswers(None) if source is None else source
    calls = Calls(config, store, source, limits, elapsed_s, first=len(start) - 1)
    return Suggestions(config, store, calls, limits, proposer, initial)


def limits_of(config: SearchConfig, start: tuple[Founder, ...]) -> ProgramLimits:
    """Return the limits of programs of a search that starts from these rules."""
    return ProgramLimits.of(config, [one.genotype.program for one in start])


def first_prompt(config: SearchConfig) -> Prompt:
    """Return the prompt of a search that has trained nothing yet."""
    start = founders.load(config)
    live = Individual.of(start[0].genotype).live
    parent = Shown(INITIAL, str(live.program), live.learning_rate, None, ())
    return build(config, prompt_data(config, limits_of(config, start), parent, (), ()))
