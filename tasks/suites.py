"""Suites: named lists of tasks that are scored together."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Suite:
    """Tasks scored together.

    Attributes:
      name: what commands and configs call it.
      tasks: shipped tasks' names.
      description: one line.
    """

    name: str
    tasks: tuple[str, ...]
    description: str


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "smoke",
            ("quadratic", "breast_cancer_logistic", "digits_mlp"),
            "three small tasks of different kinds, seconds each",
        ),
    )
}
