"""Make the gallery of rules, from the shipped rules themselves."""

from _generate import markdown
from veldt.search import rule_sources


def _rows(names: tuple[str, ...]) -> str:
    listed = {row.name: row for row in rule_sources.list_rules()}
    return markdown.table(
        ["rule", "instructions", "state", "what it is"],
        [
            [
                f"[{name}](rules.md#{name})",
                str(listed[name].statements),
                str(listed[name].slots),
                listed[name].description,
            ]
            for name in names
        ],
    )


def index() -> str:
    """Return the tables of published and discovered rules."""
    return (
        f"## Discovered by veldt\n\n{_rows(rule_sources.DISCOVERED)}\n"
        f"## Published\n\n{_rows(rule_sources.PUBLISHED)}"
    )


def programs() -> str:
    """Return the page with the text of each rule."""
    parts = [
        "The text below is what `veldt.load_rule(NAME)` parses. `w` is the parameter, `g` its "
        "gradient, then come the state slots; the keyword arguments are the tunable constants. "
        "Each docstring has the rule as a formula and its source."
    ]
    for name in rule_sources.RULE_NAMES:
        parts += [f"## {name}", markdown.code(rule_sources.load_rule(name).pretty())]
    return markdown.page("All rules", *parts)
