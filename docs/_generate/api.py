"""Make the reference of the Python API: one entry for each name of `veldt.__all__`."""

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
        kind = "autoclass" if inspect.isclass(getattr(veldt, name)) else "autofunction"
        parts += [f"## {name}", f"```{{eval-rst}}\n.. {kind}:: veldt.{name}{_options(kind)}\n```"]
    return markdown.page("The Python API", *parts)


def _options(kind: str) -> str:
    return "\n   :members:" if kind == "autoclass" else ""
