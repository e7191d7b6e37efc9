"""`FoundRule`: a rule of a search's hall of fame, or a baseline beside it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, final

import optax

from veldt.search.export import formats
from veldt.search.program import Program
from veldt.search.storage import best_rule
from veldt.search.storage.hall_entries import Entry
from veldt.tasks.common import errors, formatting
from veldt.tasks.common.html.markup import tag


@final
@dataclasses.dataclass(frozen=True)
class FoundRule:
    """A rule that a search found, or a baseline that it was compared with.

    Scores are log losses, or the search's own objective; lower is better. One that is None was not
    measured, or a run failed.

    Attributes:
      name: Name in the table: "#64", or a baseline's name.
      program: Rule, with named constants.
      learning_rate: Learning rate that it was found with, or was best with in the finals.
      provenance: Origin of the rule, in words.
      search_fitness: Fitness in the search.
      proxies: Mean score on the search's tasks, on seeds that nothing was selected on.
      proxies_error: Standard error of that mean over seeds.
      meta_validation: Mean score on the meta-validation tasks.
      stages: Number of stages of the finals that it passed.
      is_baseline: Whether it is a baseline.
      is_best: Whether it is the rule that the search returns.
    """

    name: str
    program: Program
    learning_rate: float | None
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)
    search_fitness: float | None = None
    proxies: float | None = None
    proxies_error: float | None = None
    meta_validation: float | None = None
    stages: int = 0
    is_baseline: bool = False
    is_best: bool = False

    @classmethod
    def of(cls, entry: Entry, provenance: Mapping[str, str]) -> Self:
        """Return the rule of an entry of the hall of fame."""
        is_baseline = entry.candidate < 0
        program = entry.program
        if not is_baseline:
            name = f"discovered_{entry.candidate}"
            program = best_rule.make_best(program, 1.0, name, {}).program
        return cls(
            name=entry.label,
            program=program,
            learning_rate=entry.learning_rate,
            provenance=provenance,
            search_fitness=entry.search_fitness,
            proxies=entry.final,
            proxies_error=entry.final_error,
            meta_validation=entry.meta,
            stages=entry.stages,
            is_baseline=is_baseline,
            is_best=entry.winner,
        )

    def as_optax(
        self, learning_rate: optax.ScalarOrSchedule | None = None, **constants: float
    ) -> optax.GradientTransformationExtraArgs:
        """Return the rule as an Optax transform.

        Args:
          learning_rate: Learning rate, or a schedule of it; None takes the rule's own.
          **constants: Constants of the program, and other keywords of `Program.as_optax`.

        Raises:
          VeldtError: No learning rate is given, and the rule could be trained at none.
        """
        rate = self.learning_rate if learning_rate is None else learning_rate
        if rate is None:
            raise errors.VeldtError(
                f"{self.name} could be trained at no learning rate of the finals; give one"
            )
        return self.program.as_optax(rate, **constants)

    def export(self, path: str | Path, to: str = "optax") -> Path:
        """Write the rule as a stand-alone source file, as `veldt export` does.

        Args:
          path: File to write, or the folder of a format that is several files; parent folders are
            made.
          to: Format, as `veldt export --to` has it.

        Returns:
          File or folder that was written.

        Raises:
          UnknownNameError: There is no such format.
          FileError: The file cannot be written.
        """
        text = formats.writer(to)(
            self.program, learning_rate=self.learning_rate, provenance=self.provenance
        )
        formats.write(text, Path(path))
        return Path(path)

    def record(self) -> dict[str, Any]:
        """Return the rule as a row of a table."""
        return {
            "rule": self.name,
            "best": self.is_best,
            "baseline": self.is_baseline,
            "statements": len(self.program.statements),
            "slots": len(self.program.slots),
            "learning_rate": self.learning_rate,
            "search_fitness": self.search_fitness,
            "proxies": self.proxies,
            "proxies_error": self.proxies_error,
            "meta_validation": self.meta_validation,
            "stages": self.stages,
            "program": self.text,
        }

    @property
    def text(self) -> str:
        """The program as a person would write it."""
        return self.program.pretty().rstrip()

    @property
    def scores(self) -> str:
        """The scores in words; empty where there are none."""
        error = formatting.plus_minus(self.proxies_error)
        parts = {
            "proxies": None if self.proxies is None else formatting.signed(self.proxies) + error,
            "meta-validation": self.meta_validation and formatting.signed(self.meta_validation),
        }
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value)

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.text}"

    def _repr_html_(self) -> str:
        return tag("div", tag("b", self._title()), tag("pre", self.text))

    def _title(self) -> str:
        rate = "" if self.learning_rate is None else f"learning rate {self.learning_rate:.3g}"
        return f"{self.name}: {', '.join(filter(None, (rate, self.scores)))}".rstrip(": ")
