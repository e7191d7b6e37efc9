"""Present names of veldt's modules that configs of older versions name elsewhere.

A config names a task, an expert or an objective of veldt's own as `module:name`. Configs that users
wrote, and the runs that they stored, stay valid when such a module moves.
"""

from collections.abc import Mapping
from typing import Final

_SHIPPED: Final = (
    "control",
    "es_gradient",
    "generative",
    "images",
    "language",
    "optimizer_training",
    "quadratic",
    "tabular",
)

MOVED: Final[Mapping[str, str]] = {
    "veldt.meta.experts": "veldt.meta.problems.experts",
    **{f"veldt.tasks.{name}": f"veldt.tasks.shipped.{name}" for name in _SHIPPED},
}
"""Present names by older names of modules."""


def present(name: str) -> str:
    """Return `module:name` with the module's present name; any other text as it is."""
    module, colon, rest = name.partition(":")
    return f"{MOVED.get(module, module)}{colon}{rest}"
