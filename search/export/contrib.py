"""Programs as contributions to `optax.contrib`: the module, its test, and the rows of registries.

The module is the Optax export in Optax's own form: licence, indentation by two, its imports of
modules instead of `optax` itself, docstrings with arguments, an example and references, and no text
for veldt. Optax asks for evidence besides (a paper, citations, its common tests): one of the files,
`CONTRIBUTING.md`, says what is left to do. Lines may be longer than Optax's 80 columns: `pyink`
wraps them.
"""

import ast
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Final

from veldt.search.export import package
from veldt.search.export.optax_module import export_optax, function_name
from veldt.search.export.source_text import plain, wrap
from veldt.search.language.statements import LOSS, PROGRESS
from veldt.search.program import Program

_ARGUMENTS: Final = {"state_dtype": "Dtype of the state; `None` for that of the parameters."}
# Where Optax keeps what an export calls by its public name.
_HOMES: Final = {
    "GradientTransformationExtraArgs": "base",
    "GradientTransformation": "base",
    "ScalarOrSchedule": "base",
    "Updates": "base",
    "with_extra_args_support": "base",
    "chain": "combine",
    "scale_by_learning_rate": "transform",
    "safe_increment": "numerics",
}
_LICENCE: Final = """\
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
# ==============================================================================
"""


def export_contrib(
    program: Program,
    *,
    learning_rate: float | None = None,
    provenance: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write a program as the files of a contribution to Optax.

    Args:
      program: Rule.
      learning_rate: Learning rate that the rule was found with; None if no search found it.
      provenance: Lines on the rule's origin.

    Returns:
      The text of each file by its path.

    Raises:
      LoweringError: The program is not well formed.
    """
    rule = function_name(program)
    code = _code(program, rule, learning_rate, provenance or {})
    head = f'{_LICENCE}"""The update rule {rule}, written by veldt."""\n\n{_imports(code)}'
    return {
        f"_{rule}.py": f"{head}\n\n{code}\n",
        f"_{rule}_test.py": _LICENCE + _test(program, rule),
        "CONTRIBUTING.md": _rows(program, rule, learning_rate),
    }


def _code(
    program: Program, rule: str, learning_rate: float | None, provenance: Mapping[str, str]
) -> str:
    """Return functions and the state's class, in Optax's form."""
    text = export_optax(program, learning_rate=learning_rate)
    lines = text.splitlines()
    body = ast.parse(text).body
    nodes = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    parts = ["\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in nodes]
    code = _narrowed("\n\n\n".join(parts))
    for name, home in _HOMES.items():
        code = re.sub(rf"\boptax\.{name}\b", f"{home}.{name}", code)
    factory = nodes[-1]
    assert isinstance(factory, ast.FunctionDef)
    arguments = [arg.arg for arg in factory.args.args if arg.arg != "learning_rate"]
    brief = '  """Build the optimizer: the rule, times the negative learning rate."""'
    assert brief in code
    return code.replace(brief, _docstring(program, rule, arguments, provenance))


def _narrowed(code: str) -> str:
    """Return code that is indented by two."""
    lines = []
    for line in code.splitlines():
        bare = line.lstrip(" ")
        lines.append(" " * ((len(line) - len(bare)) // 2) + bare)
    return "\n".join(lines)


def _imports(code: str) -> str:
    homes = sorted(home for home in set(_HOMES.values()) if f"{home}." in code)
    plain_modules = [name for name in ("math", "re") if re.search(rf"\b{name}\.", code)]
    return "\n".join(
        [
            *(f"import {name}" for name in plain_modules),
            f"from typing import {'Any, ' if re.search(r'[:>] Any', code) else ''}NamedTuple",
            "",
            "import jax",
            "import jax.numpy as jnp",
            *(f"from optax._src import {home}" for home in homes),
            *(["import optax.tree"] if "optax.tree." in code else []),
            "",
        ]
    )


def _docstring(
    program: Program, rule: str, constants: Sequence[str], provenance: Mapping[str, str]
) -> str:
    given = "learning_rate=1e-2"
    if PROGRESS in program.lower().live_of_run:
        given += ", num_steps=100"
    loss = ", value=loss" if LOSS in program.lower().live_of_run else ""
    lines = [
        f"The update rule {rule}.",
        "",
        *(part for line in program.doc.splitlines() for part in wrap(plain(line), 74) or [""]),
        "",
        "Args:",
        "  learning_rate: A fixed global scaling factor or a schedule.",
        *(f"  {name}: {_ARGUMENTS.get(name, 'Constant of the rule.')}" for name in constants),
        "",
        "Returns:",
        "  The corresponding :class:`optax.GradientTransformationExtraArgs`.",
        "",
        "Examples:",
        "  >>> import optax",
        "  >>> import jax",
        "  >>> import jax.numpy as jnp",
        "  >>> objective = lambda x: jnp.sum(x ** 2)",
        f"  >>> solver = optax.contrib.{rule}({given})",
        "  >>> params = jnp.array([1., 2., 3.])",
        "  >>> opt_state = solver.init(params)",
        "  >>> loss, grad = jax.value_and_grad(objective)(params)",
        "  >>> updates, opt_state = solver.update(",
        f"  ...     grad, opt_state, params{loss})",
        "  >>> params = optax.apply_updates(params, updates)",
        "",
        "References:",
        *(
            [f"  {plain(key)}: {plain(value)}" for key, value in provenance.items()]
            or ["  See the description above."]
        ),
    ]
    body = "\n".join(f"  {line}".rstrip() for line in lines)
    return f'  r"""{body.lstrip()}\n  """'


def _test(program: Program, rule: str) -> str:
    """Return the package's test, in absltest."""
    first = dataclasses.asdict(package.first_updates(program))
    return _TEST.format(rule=rule, **first)


def _rows(program: Program, rule: str, learning_rate: float | None) -> str:
    """Return the rows that Optax's registries need, and what its maintainers ask for."""
    rate = "1e-2" if learning_rate is None else f"{learning_rate:.1g}"
    length = ", 'num_steps': 30_000" if PROGRESS in program.lower().live_of_run else ""
    note = ""
    if LOSS in program.lower().live_of_run:
        note = (
            "\nThe rule reads the loss: add its name where `_common_test.py` and "
            "`_complex_valued_test.py` list those that take `value=`, beside 'momo'.\n"
        )
    return _NOTES.format(rule=rule, rate=rate, length=length, note=note)


_NOTES: Final = """\
# {rule} for optax.contrib

Copy `_{rule}.py` and `_{rule}_test.py` into `optax/contrib/`, run `pyink` over both, and add
these rows.

`optax/contrib/__init__.py`:

```python
from optax.contrib._{rule} import {rule}
from optax.contrib._{rule} import scale_by_{rule}
```

`optax/contrib/_common_test.py`, in `_MAIN_OPTIMIZERS_UNDER_TEST`:

```python
    {{'opt_name': '{rule}', 'opt_kwargs': {{'learning_rate': {rate}{length}}}}},
```

`docs/api/contrib.rst`:

```rst
.. autofunction:: {rule}
.. autofunction:: scale_by_{rule}
```
{note}
Optax takes contributions with evidence: a paper or report, and runs against tuned baselines
(`veldt evaluate` writes them). It asks of all who send code that they have read and understood it.
"""
_TEST: Final = '''\
"""Tests for the update rule {rule}."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
from optax._src import update
from optax.contrib import _{rule}

EXPECTED = [
{rows}
]


class FirstUpdatesTest(absltest.TestCase):

  def test_first_updates(self):
    tx = _{rule}.{rule}({arguments})
    params = {{
        'kernel': jnp.linspace(-1.0, 1.0, 6, dtype=jnp.float32).reshape(2, 3),
        'bias': jnp.ones(3, jnp.float32),
    }}
    state = tx.init(params)
    for step in range({steps}):
      grads = jax.tree.map(lambda x, step=step: jnp.sin(3.0 * x + step), params)
      updates, state = tx.update(grads, state, params{loss})
      params = update.apply_updates(params, updates)
      found = np.concatenate([np.ravel(x) for x in jax.tree.leaves(updates)])
      np.testing.assert_allclose(found, EXPECTED[step], rtol=1e-4, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
'''
