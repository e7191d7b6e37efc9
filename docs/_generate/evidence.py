"""Read measured results, and say beside each table where its numbers come from."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from _generate import markdown

RESULTS: Final = Path(__file__).parents[2] / "benchmarks" / "results"


@functools.cache
def load(name: str) -> Any:
    """Return the content of `benchmarks/results/NAME.json`."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@final
@dataclass(frozen=True)
class Evidence:
    """What a table of measurements rests on.

    Attributes:
        command: The command that prints the numbers and writes the file.
        seeds: The repetitions.
        spread: The meaning of the brackets, or of "±".
        budget: The work behind one number.
        results: The name of the file in `benchmarks/results`; empty where it is another file.
        remark: Anything else that a reader has to know.
    """

    command: str
    seeds: str
    spread: str
    budget: str
    results: str = ""
    remark: str = ""

    def __str__(self) -> str:
        kept = f" (kept in `benchmarks/results/{self.results}.json`)" if self.results else ""
        parts = [
            f"Seeds: {self.seeds}.",
            f"Spread: {self.spread}.",
            f"Budget: {self.budget}.",
            f"Command: `{self.command}`{kept}.",
            self.remark,
        ]
        return "*" + " ".join(part for part in parts if part) + "*\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], evidence: Evidence) -> str:
    """Return a table with what it rests on below it."""
    return f"{markdown.table(header, rows)}\n{evidence}"
