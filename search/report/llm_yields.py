"""What each language model cost and what it yielded, and the ideas behind what it proposed.

Calls and tokens are those of the store's tables; what became of the programs is a kind of mutation
like any other (`mutation_yields.py`). An idea is in the docstring of a program in an answer, which
the search drops; it is found again by the program's structure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, final

from veldt.search.config.llm_config import LlmConfig
from veldt.search.llm_text import answers
from veldt.search.report.mutation_yields import Yield
from veldt.search.report.report_rows import Ancestor
from veldt.search.storage import llm_calls, llm_figures
from veldt.search.storage.llm_figures import ArmFigures
from veldt.search.storage.store import Store

STATUSES: Final = ("ok", "cut off", "empty", "unreadable", "failed", "under way")
"""The statuses of calls, in the order of the report; `failed` has reasons in the store."""


@final
@dataclass(frozen=True, slots=True)
class ModelYield:
    """What one language model cost and yielded.

    Attributes:
      figures: Calls, tokens and counts of proposals.
      statuses: Number of calls by status, for each of `STATUSES`.
      failures: Reasons of failed calls, each with the number of times, the commonest first.
      programs: Number of programs read from answers.
      children: What became of the proposals; None where there is none yet.
      price: Price of all tokens; None where it is not known.
    """

    figures: ArmFigures
    statuses: Mapping[str, int]
    failures: tuple[tuple[str, int], ...]
    programs: int
    children: Yield | None
    price: float | None


@final
@dataclass(frozen=True, slots=True)
class ModelYields:
    """What all language models of a search cost and yielded.

    Attributes:
      models: Models, by name.
      refused: Number of calls that were not made because they were beyond the budget.
      not_chosen: Number of calls that were not made because blind mutation was chosen, or because
        the last calls of the model had failed.
    """

    models: tuple[ModelYield, ...]
    refused: int
    not_chosen: int


def read(store: Store, config: LlmConfig | None, kinds: Iterable[Yield]) -> ModelYields | None:
    """Return what the models of a run cost and yielded; None where it has none.

    Args:
      store: Store of the run.
      config: Config of its language models.
      kinds: What each kind of mutation yielded.
    """
    if config is None:
        return None
    children = {one.kind: one for one in kinds}
    counts = dict.fromkeys(llm_calls.NOT_MADE, 0)
    statuses: dict[str, dict[str, int]] = {}
    failures: dict[str, list[tuple[str, int]]] = {}
    programs: dict[str, int] = {}
    query = (
        "SELECT model, status, COUNT(*) AS num, SUM(programs) AS programs FROM llm_call "
        "GROUP BY model, status ORDER BY num DESC, status"
    )
    for row in store.rows(query):
        model, status, num = str(row["model"]), str(row["status"]), int(row["num"])
        if status in counts:
            counts[status] += num
            continue
        programs[model] = programs.get(model, 0) + int(row["programs"])
        if status.startswith(llm_calls.FAILED):
            failures.setdefault(model, []).append((status.removeprefix(llm_calls.FAILED), num))
            status = "failed"
        known = statuses.setdefault(model, dict.fromkeys(STATUSES, 0))
        known[status] += num
    priced = {model.name: model for model in config.asked if model.has_prices}
    return ModelYields(
        tuple(
            ModelYield(
                arm,
                statuses[arm.name],
                tuple(failures.get(arm.name, ())),
                programs[arm.name],
                children.get(llm_calls.MUTATION + arm.name),
                priced[arm.name].cost(arm.prompt_tokens, arm.completion_tokens)
                if arm.name in priced
                else None,
            )
            for arm in llm_figures.read(store)
            if arm.name in statuses
        ),
        counts[llm_calls.REFUSED],
        counts[llm_calls.NOT_CHOSEN],
    )


def with_ideas(store: Store, lineage: Iterable[Ancestor]) -> tuple[Ancestor, ...]:
    """Return a lineage with the ideas of the models that proposed its members.

    Args:
      store: Store of the run.
      lineage: Proposals.
    """
    return tuple(
        replace(one, idea=_idea(store, one)) if one.mutation.startswith(llm_calls.MUTATION) else one
        for one in lineage
    )


def _idea(store: Store, one: Ancestor) -> str:
    query = (
        "SELECT answer, repair_answer FROM llm_call "
        "WHERE due <= ? AND ? < due + programs ORDER BY id DESC LIMIT 1"
    )
    rows = store.rows(query, (one.proposal, one.proposal))
    texts = (str(text) for row in rows for text in (row["repair_answer"], row["answer"]))
    return next(filter(None, (answers.idea_of(text, one.program) for text in texts)), "")
