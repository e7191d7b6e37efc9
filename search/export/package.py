"""Programs as packages that pip installs: one rule, its test, and its record.

The module is the Optax export. The test holds the first updates that `Program.as_optax` made when
the package was written, so that it checks the module without veldt. Text from outside goes into the
README as indented blocks alone, and into no other file than the module.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.search.export.optax_module import export_optax, function_name
from veldt.search.export.source_text import number_text, plain
from veldt.search.language.statements import LOSS, PROGRESS
from veldt.search.program import Program

_RATE: Final = 0.01
_STEPS: Final = 3
_LENGTH: Final = 100


def export_package(
    program: Program,
    *,
    learning_rate: float | None = None,
    provenance: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write a program as the files of a package.

    Args:
      program: Rule.
      learning_rate: Learning rate that the rule was found with; None if no search found it.
      provenance: Lines on the rule's origin.

    Returns:
      The text of each file by its path in the package's folder.

    Raises:
      LoweringError: The program is not well formed.
    """
    rule = function_name(program)
    module = f"{rule}_optax"
    code = export_optax(program, learning_rate=learning_rate, provenance=provenance)
    return {
        "pyproject.toml": _PROJECT.format(name=module.replace("_", "-").lower(), module=module),
        f"{module}.py": code,
        f"tests/test_{module}.py": _TEST.format(
            module=module, rule=rule, **dataclasses.asdict(first_updates(program))
        ),
        "README.md": _readme(program, rule, module, learning_rate, provenance or {}),
    }


@final
@dataclass(frozen=True, slots=True)
class FirstUpdates:
    """Source of a test's expected numbers.

    Attributes:
      arguments: Arguments of the rule's function.
      loss: Keyword arguments of `update`.
      rows: Updates of all parameters, a line for each step.
      steps: Number of steps.
    """

    arguments: str
    loss: str
    rows: str
    steps: int


def first_updates(program: Program) -> FirstUpdates:
    """Return the first updates of a rule as source, from `Program.as_optax`."""
    flow = program.lower()
    length = f", num_steps={_LENGTH}" if PROGRESS in flow.live_of_run else ""
    loss = ", value=jnp.asarray(1.5)" if LOSS in flow.live_of_run else ""
    rows = [
        f"    [{', '.join(number_text(float(f'{x:.6g}')) for x in row)}]," for row in _rows(program)
    ]
    return FirstUpdates(f"{_RATE}{length}", loss, "\n".join(rows), _STEPS)


def _rows(program: Program) -> np.ndarray:
    """Return the update of every parameter in the test at each step, [steps, parameters]."""
    flow = program.lower()
    length: dict[str, Any] = {"num_steps": _LENGTH} if PROGRESS in flow.live_of_run else {}
    tx = program.as_optax(_RATE, **length)
    # As the test does, in its own words.
    params = {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "bias": jnp.ones(3)}
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    state = tx.init(params)
    rows = []
    for step in range(_STEPS):
        grads = jax.tree.map(lambda x, step=step: jnp.sin(3.0 * x + step), params)
        updates, state = tx.update(grads, state, params, value=jnp.asarray(1.5))
        params = optax.apply_updates(params, updates)
        rows.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(updates)]))
    return np.stack(rows).astype(float)


def _readme(
    program: Program,
    rule: str,
    module: str,
    learning_rate: float | None,
    provenance: Mapping[str, str],
) -> str:
    given = "" if learning_rate is not None else "1e-3"
    if PROGRESS in program.lower().live_of_run:
        given = f"{given}, num_steps=1000".lstrip(", ")
    lines = [
        f"# {module}",
        "",
        f"The update rule `{rule}` as an [Optax](https://optax.readthedocs.io) transform, written "
        "by veldt. It needs JAX and Optax, and nothing of veldt.",
        "",
        "```python",
        f"from {module} import {rule}",
        "",
        f"tx = {rule}({given})",
        "```",
        "",
        "## The rule",
        "",
        *_block(replace(program, doc="").pretty()),
    ]
    if program.doc:
        lines += ["", "Description:", "", *_block(program.doc)]
    lines += ["", "## Where it comes from", ""]
    if provenance:
        lines += _block("\n".join(f"{key}: {value}" for key, value in provenance.items()))
    else:
        lines += ["No search's record came with it: it was exported by name or from a rule file."]
    lines += [
        "",
        "## Licence",
        "",
        "Apache 2.0, veldt's own, for all that veldt wrote here.",
        "",
    ]
    return "\n".join(lines)


def _block(text: str) -> list[str]:
    """Return text as an indented block, which nothing in it can end."""
    return [f"    {plain(line)}".rstrip() for line in text.splitlines()]


_PROJECT: Final = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "An update rule as an Optax transform, written by veldt"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["jax>=0.8", "optax>=0.2.6"]

[tool.setuptools]
py-modules = ["{module}"]
"""
_TEST: Final = '''\
"""The first updates of the rule are those that veldt computed when it wrote the package."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from {module} import {rule}

EXPECTED = [
{rows}
]


def run(update, tx):
    params = {{"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "bias": jnp.ones(3)}}
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    state = tx.init(params)
    rows = []
    for step in range({steps}):
        grads = jax.tree.map(lambda x, step=step: jnp.sin(3.0 * x + step), params)
        updates, state = update(grads, state, params{loss})
        params = optax.apply_updates(params, updates)
        rows.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(updates)]))
    return np.stack(rows)


def test_first_updates():
    tx = {rule}({arguments})
    np.testing.assert_allclose(run(tx.update, tx), EXPECTED, rtol=1e-4, atol=1e-6)


def test_compiled_updates():
    tx = {rule}({arguments})
    np.testing.assert_allclose(run(jax.jit(tx.update), tx), EXPECTED, rtol=1e-4, atol=1e-6)
'''
