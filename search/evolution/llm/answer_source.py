"""Where answers come from: an endpoint, files, or a store; each is asked and gives them later.

A source works beside the search and never touches the store: the search takes what has arrived when
it has a moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from veldt.search.storage.llm_calls import Answer


@final
@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to be answered.

    Attributes:
      call: Number of the call.
      round: 0, or 1 for the repair.
      model: Name of the model.
      system: System's part of the prompt.
      user: User's part of the prompt.
      digest: Digest of both parts.
    """

    call: int
    round: int
    model: str
    system: str
    user: str
    digest: str


class AnswerSource(Protocol):
    """Answers requests, in whatever order."""

    def ask(self, request: Request) -> None:
        """Take a request, without waiting for its answer."""
        ...

    def arrived(self) -> Sequence[Answer]:
        """Return the answers that have arrived since the last call, without waiting."""
        ...

    def need(self, request: Request) -> None:
        """Take notice that the search waits for an answer that has not arrived.

        Raises:
          SearchError: It will never come.
        """
        ...

    def awaits(self) -> str:
        """Return in words what is awaited from people; empty where nothing is."""
        ...

    def close(self) -> None:
        """Give up all that is under way, at once."""
        ...
