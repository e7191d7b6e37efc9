"""Make the lists of what is shipped: tasks, suites, configs and weights."""

from _generate import markdown
from veldt import catalogue

TITLES = {
    "tasks": "Tasks",
    "suites": "Suites",
    "configs": "Configs",
    "weights": "Weights of learned optimizers",
}


def lists() -> str:
    """Return the page of all lists but that of the rules, which the gallery has."""
    parts = [
        "What `veldt list WHAT` prints. Nothing is downloaded: data sets come with veldt, are "
        "found on this machine, or are made by a procedure. Rules are in the "
        "[gallery](../gallery/index.md).",
    ]
    for what, title in TITLES.items():
        rows = [[f"`{row.name}`", row.description] for row in catalogue.LISTS[what]()]
        parts += [f"## {title}", markdown.table(["name", "description"], rows)]
    return markdown.page("What is shipped", *parts)
