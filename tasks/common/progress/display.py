"""What a command shows of itself: the interface that engines give their figures to.

Displays only read: a run with another display, or none, is the same run. `plain.py` prints lines,
`live.py` redraws a view on a terminal, and `Silent` shows nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, final


@final
@dataclass(frozen=True, slots=True)
class Status:
    """How far a command is, in words and figures.

    Attributes:
      line: All that matters on one line of plain text.
      done: Finished units of work.
      total: Units of work in all; 0 where that is not known.
      rate: The speed; a live view shows it left of its bar.
      time: The time used and left; a live view shows it right of its bar.
      highlights: The lines of a live view that must be seen first.
      figures: Further figures by name.
      source: The source text of the best so far; empty for none.
      source_title: What the source text is.
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
    """What a command tells of itself while it works."""

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        """Tell how far a stage is, such as compiling or the finals; `total` 0 counts nothing."""
        ...

    def doing(self, text: str) -> None:
        """Tell what is waited for until something new comes; a clock shows if it takes long."""
        ...

    def update(self, status: Callable[[], Status]) -> None:
        """Tell that there is something new to draw. Called often; draws seldom."""
        ...

    def refresh(self) -> None:
        """Tell that figures of the last status have changed, while a stage goes on."""
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
    """Shows nothing."""

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
