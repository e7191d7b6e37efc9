"""The interface of displays, to which engines give their figures.

Displays only read: a run with another display, or none, is the same run. `plain.py` prints lines,
`live.py` redraws a view on a terminal, and `Silent` shows nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, final


@final
@dataclass(frozen=True, slots=True)
class Status:
    """The progress of a command, in words and figures.

    Attributes:
      line: Text with all that matters, on one line.
      done: Number of finished units of work.
      total: Number of units of work in all; 0 if it is not known.
      rate: Speed; a live view shows it left of its bar.
      time: Time used and left; a live view shows it right of its bar.
      highlights: Lines of a live view that must be seen first.
      figures: Further figures by name.
      source: Source text of the best so far; empty for none.
      source_title: Title of the source text.
    """

    line: str
    done: int = 0
    total: int = 0
    rate: str = ""
    time: str = ""
    highlights: tuple[str, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    source_title: str = ""


class Display(Protocol):
    """A display of a command's progress."""

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        """Show how far a stage is, such as compiling or the finals; `total` 0 counts nothing."""
        ...

    def doing(self, text: str) -> None:
        """Show what is waited for until something new comes; a clock shows if it takes long."""
        ...

    def update(self, status: Callable[[], Status]) -> None:
        """Show the new status. Called often; draws seldom."""
        ...

    def refresh(self) -> None:
        """Show changed figures of the last status, while a stage goes on."""
        ...

    def log(self, text: str) -> None:
        """Add a line to a text; a live view, whose figures say the same, leaves it out."""
        ...

    def note(self, text: str) -> None:
        """Show a line that must be seen."""
        ...

    def close(self) -> None:
        """Show nothing more. May be called twice."""
        ...


@final
class Silent:
    """A display that shows nothing."""

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        pass

    def doing(self, text: str) -> None:
        pass

    def update(self, status: Callable[[], Status]) -> None:
        pass

    def refresh(self) -> None:
        pass

    def log(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass
