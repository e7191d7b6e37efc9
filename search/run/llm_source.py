"""Where a run's answers of language models come from, by its config: one place that chooses."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution import suggestions
from veldt.search.evolution.founders import Founder
from veldt.search.evolution.llm import endpoint_keys
from veldt.search.evolution.llm.answer_source import AnswerSource
from veldt.search.evolution.llm.endpoints import Endpoints
from veldt.search.evolution.llm.manual_files import ManualFiles
from veldt.search.evolution.llm.stored_answers import StoredAnswers
from veldt.search.llm_text import prompts


@contextlib.contextmanager
def opened(config: SearchConfig, start: tuple[Founder, ...]) -> Iterator[AnswerSource | None]:
    """Open the source of a run's answers; None where the run has no language models.

    While endpoints may be asked, their keys are out of the environment, so enter it before anything
    that starts processes.

    Args:
      config: Config of the search.
      start: Rules that the search starts from.

    Raises:
      SearchError: A key is missing, a template cannot be used, or there is no run to replay.
      FileError: The folder for answers by hand cannot be made.
    """
    llm = config.llm
    if llm is None:
        yield None
        return
    if llm.templates is not None:
        prompts.check_templates(Path(llm.templates))
    with contextlib.ExitStack() as stack:
        source: AnswerSource
        if llm.is_offline:
            source = StoredAnswers(None if llm.replay is None else Path(llm.replay))
        elif llm.manual is not None:
            source = ManualFiles(Path(llm.manual))
        else:
            keys = stack.enter_context(endpoint_keys.taken(llm))
            grammar = suggestions.limits_of(config, start).grammar
            grammars = {m.name: grammar() for m in llm.models if m.grammar != "none"}
            source = Endpoints(llm, keys, config.seed, grammars)
        stack.callback(source.close)
        yield source
