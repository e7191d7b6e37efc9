"""Make the gallery of rules, from the shipped rules themselves and from their measured cost."""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from _generate import evidence, markdown
from _generate.evidence import Evidence
from veldt.search import rule_sources
from veldt.search.program import Program
from veldt.search.runtime import execute

SHAPE: Final = (256, 1024)
"""The shape of the matrix whose state is counted, in float32."""

_YEAR: Final = r"\b(?:19|20)\d\d\b"
_PLACE: Final = r"(?: \([^()]*\))?"
# Authors, year and place, of one paper or two.
_SOURCE: Final = re.compile(rf"[A-Z].*?{_YEAR}{_PLACE}(?: (?:and|with) [A-Z].*?{_YEAR}{_PLACE})?")
# Authors, year and where one can read it.
_LINKED: Final = re.compile(
    rf"([A-Z][\w.'-]*(?: (?:and|et) [\w.'-]+)* {_YEAR}) "
    r"\((?:arXiv (\d{4}\.\d{4,5})|(https?:[^(),]*))(?:, ([^()]*))?\)"
)


@functools.cache
def _measured() -> Mapping[str, Any]:
    return evidence.load("zoo")["rules"]


def source(program: Program) -> str:
    """Return where a rule comes from: the authors and the paper that its docstring names."""
    if program.name in rule_sources.DISCOVERED:
        return f"[found by a search]({program.name}.md)"
    paragraphs = [" ".join(part.split()) for part in program.doc.split("\n\n")]
    found = next((m for m in map(_SOURCE.match, reversed(paragraphs)) if m is not None), None)
    if found is None:
        return ""
    return _LINKED.sub(_link, found[0])


def _link(match: re.Match[str]) -> str:
    authors, arxiv, address, rest = match.groups()
    link = f"[{authors}]({address or f'https://arxiv.org/abs/{arxiv}'})"
    return f"{link}, {rest}" if rest else link


def slot_bytes(program: Program) -> dict[str, int]:
    """Return the bytes of each slot that a matrix of `SHAPE` keeps."""
    shapes = execute.slot_shapes(program.lower(), [SHAPE])
    return {name: 4 * math.prod(shape) for name, (shape,) in shapes.items()}


def bytes_per_parameter(program: Program) -> float:
    """Return the bytes of state for each parameter of a matrix of `SHAPE`."""
    return sum(slot_bytes(program).values()) / math.prod(SHAPE)


def index() -> str:
    """Return the table of all rules."""
    rows = []
    for row in rule_sources.list_rules():
        program = rule_sources.load_rule(row.name)
        cost = _measured().get(row.name)
        rows.append(
            [
                f"[{row.name}](rules.md#{row.name})",
                markdown.number(bytes_per_parameter(program)),
                markdown.quartiles(cost["ratio_to_optax_adam"], 2) if cost else "",
                source(program),
                row.description,
            ]
        )
    measured = evidence.load("zoo")
    return evidence.table(
        ["rule", "state, bytes per parameter", "step time over Adam's", "source", "what it is"],
        rows,
        Evidence(
            "python benchmarks/zoo.py",
            f"{measured['num_rounds']} rounds in turns with Adam",
            "median and quartiles of the ratio to `optax.adam`",
            f"the update alone, of {measured['num_params']:,} parameters on a CPU",
            "zoo",
            "The gradient comes on top, so that a training step differs by less. The state is that "
            f"of a matrix of {SHAPE[0]:,} by {SHAPE[1]:,} in float32.",
        ),
    )


def programs() -> str:
    """Return the page with each rule's formula, program and cost."""
    parts = [
        "Each rule as a formula, and as the program that `veldt.load_rule(NAME)` parses. In the "
        "formulas, the step $t$ counts from 1, $w_t$ is the parameter, $g_t$ its gradient, $\\eta$ "
        "the learning rate, and slots have the step as their index. Fractions, powers, roots, "
        "functions and $\\odot$ go element by element; $x / 0$ counts as 0; $\\mathbf{1}[\\cdot]$ "
        "is 1 where the condition holds, else 0. Functions with names are in "
        "[the instruction set](../reference/instructions.md). "
        "`veldt export NAME --to latex -o FILE` writes a formula to a file.",
        "In the programs, `w` is the parameter, `g` its gradient, then come the state slots; the "
        "keyword arguments are the tunable constants.",
    ]
    for name in rule_sources.RULE_NAMES:
        program = rule_sources.load_rule(name)
        parts += [
            f"## {name}",
            program.doc.partition("\n")[0],
            _facts(program),
            markdown.math(program.latex()),
            markdown.code(rule_sources.shipped_file(name).read_text(encoding="utf-8")),
        ]
    return markdown.page("All rules", *parts)


def _facts(program: Program) -> str:
    sizes = slot_bytes(program)
    state = "none"
    if sizes:
        names = ", ".join(f"`{name}`" for name in sizes)
        share = markdown.number(bytes_per_parameter(program))
        state = f"{names}: {sum(sizes.values()):,} bytes, {share} per parameter"
    lines = [
        f"- Source: {source(program)}",
        f"- State of a matrix of {SHAPE[0]:,} by {SHAPE[1]:,}: {state}",
    ]
    if cost := _measured().get(program.name):
        ratio = markdown.quartiles(cost["ratio_to_optax_adam"], 2)
        lines.append(f"- Step time over Adam's: {ratio}")
    return "\n".join(lines)
