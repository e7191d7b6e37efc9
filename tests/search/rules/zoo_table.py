"""Print what each shipped rule was checked against, and how far off it was.

    PYTHONPATH=. python -m tests.search.rules.zoo_table

A deviation is the largest of any parameter at any of 100 steps in float64: relative, and for
parameters below 0.001 relative to that. Formulas are in `formulas/`.
"""

import jax
import numpy as np

from tests.search.rules import oracles
from tests.search.rules.cases import CASES
from veldt.search import rule_sources
from veldt.search.language.ops import OP_SETS
from veldt.search.language.statements import COPY, LOSS, PROGRESS

# What most rules use is left out.
_COMMON = {"add", "subtract", "multiply", "divide", "negative", "interp", "square", "sqrt", "power"}


def oracle_name(name: str) -> str:
    """Return what a rule equals, in words."""
    if name in CASES:
        return "formula in NumPy"
    if name not in oracles.ORACLES:
        return f"optax.{name}"
    place = oracles.ORACLES[name]
    place = getattr(place, "func", place)  # of a partial
    package = "optax.contrib" if ".contrib" in place.__module__ else "optax"
    return f"{package}.{place.__name__}"


def deviation(name: str) -> float:
    """Return the largest deviation of a rule."""
    if name in CASES:
        return CASES[name].result[0]
    with jax.enable_x64(True):
        rates = np.full(oracles.NUM_STEPS, 1.0 if name in oracles.OWN_RATE else 0.01)
        return oracles.deviation(*oracles.compared(name, rates))


def main() -> None:
    """Print the table."""
    known = {*set().union(*OP_SETS.values()), PROGRESS, LOSS} - _COMMON
    print("| rule | instructions | the rarer ones | slots | checked against | deviation |")
    print("|---|---|---|---|---|---|")
    for name in rule_sources.PUBLISHED:
        rule = rule_sources.load_rule(name)
        ops = [statement.op for statement in rule.statements if statement.op != COPY]
        read = {arg for statement in rule.statements for arg in statement.args}
        cells = [
            name,
            str(len(ops)),
            ", ".join(sorted(known & {*ops, *read})),
            str(len(rule.slots)),
            oracle_name(name),
            f"{deviation(name):.1e}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
