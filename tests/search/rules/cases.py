"""The rules that Optax lacks: each with its paper's formula and what the two are compared at."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.search.rules import papers
from tests.search.rules.formulas import averages, matrices, variants
from tests.search.rules.papers import Formula, State, Whole

_FLAT = {name: shape for name, shape in papers.SHAPES.items() if name != "conv"}


@dataclass(frozen=True)
class Case:
    """A rule's formula and settings.

    Attributes:
      name: Rule.
      formula: Paper's formula.
      constants: Constants other than the defaults, so that each part of the rule has a part in 100
        steps: a weight decay, short periods.
      rate: Learning rate; 1 where the formula has one of its own.
      shapes: Shapes of the parameters.
    """

    name: str
    formula: Formula | Whole
    constants: Mapping[str, float] = field(default_factory=dict)
    rate: float = papers.RATE
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: papers.SHAPES)

    @functools.cached_property
    def result(self) -> tuple[float, dict[str, State]]:
        """The largest deviation over 100 steps, and the formula's states after them."""
        return papers.deviation(
            self.name, self.formula, self.constants, self.shapes, papers.NUM_STEPS, self.rate
        )


_CONSTANTS: dict[str, dict[str, float]] = {
    "apollo": {"interval": 30.0, "scale": 2.0},
    "frugal": {"interval": 30.0, "scale": 0.5},
    "galore": {"interval": 30.0},
    "lion_k_huber": {"delta": 0.05},
    "psgd_kron": {"damping": 0.1},
    "spam": {"threshold": 20.0, "interval": 30.0, "warmup": 10.0, "wait": 5.0},
    "stable_spam": {"interval": 30.0},
}
_OWN_RATE = ("adan_paper", "innaprop", "sania")


def _case(name: str, formula: Formula | Whole) -> Case:
    decay = {"wd": 0.1} if "wd" in papers.defaults_of(formula) else {}
    rate = 1.0 if name in _OWN_RATE else papers.RATE
    return Case(name, formula, decay | _CONSTANTS.get(name, {}), rate)


CASES: dict[str, Case] = {
    **{name: Case(name, of, {"wd": 0.1}, shapes=_FLAT) for name, of in variants.FORMULAS.items()},
    **{name: _case(name, formula) for name, formula in averages.FORMULAS.items()},
    **{name: _case(name, formula) for name, formula in matrices.FORMULAS.items()},
}
