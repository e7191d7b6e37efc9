"""Make the reference of the Python API: one entry for each name of `veldt.__all__`.

A name that is a module has entries of its own for what that lists.
"""

import inspect

import veldt
from _generate import markdown


def names() -> str:
    """Return the page of all public names, which autodoc fills from the docstrings."""
    parts = [
        "These are the public names of `veldt`. They are loaded when first used, so that "
        "`import veldt` is light.",
    ]
    for name in veldt.__all__:
        if name.startswith("__"):
            continue
        value = getattr(veldt, name)
        parts += [f"## {name}", _entry(_kind(value), name)]
        if inspect.ismodule(value):
            for inside in value.__all__:
                parts += [f"### {name}.{inside}", _entry("autofunction", f"{name}.{inside}")]
    return markdown.page("The Python API", *parts)


def _kind(value: object) -> str:
    if inspect.ismodule(value):
        return "automodule"
    return "autoclass" if inspect.isclass(value) else "autofunction"


def _entry(kind: str, name: str) -> str:
    return f"```{{eval-rst}}\n.. {kind}:: veldt.{name}{_options(kind)}\n```"


def _options(kind: str) -> str:
    return "\n   :members:" if kind == "autoclass" else ""
