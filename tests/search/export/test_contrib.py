"""Contributions to Optax: their test runs against the installed Optax, as if they were in it."""

import ast
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.search.export.modules import evil_text
from tests.search.export.test_package import write
from veldt.search import rule_sources
from veldt.search.export.contrib import export_contrib
from veldt.search.program import Program

RUN = """
import sys
import absl.testing.absltest, optax.contrib
optax.contrib.__path__.insert(0, sys.argv[1])
name = sys.argv[2]
sys.modules.pop(f"optax.contrib._{name}", None)  # Optax has some of them itself.
import doctest, importlib
module = importlib.import_module(f"optax.contrib._{name}")
setattr(optax.contrib, name, getattr(module, name))
failed, tried = doctest.testmod(module)
assert tried and not failed
test = importlib.import_module(f"optax.contrib._{name}_test")
absl.testing.absltest.main(module=test, argv=["test"])
"""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "carom" else [pytest.mark.slow])
        for name in ("carom", "lion", "momo", "muon", "muon_linear", "soap", "autoclip", "scale")
    ],
)
def test_its_test_and_its_example_pass_within_optax(name: str, tmp_path: Path) -> None:
    found = rule_sources.read_found(name)
    origin = {} if found is None else {"provenance": found.provenance}
    files = export_contrib(rule_sources.load_rule(name), **origin)
    assert sorted(files) == ["CONTRIBUTING.md", f"_{name}.py", f"_{name}_test.py"]
    write(files, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Ran 1 test" in done.stderr, done.stdout + done.stderr


def test_it_is_in_optaxs_form() -> None:
    files = export_contrib(rule_sources.load_rule("adamw"))
    text = files["_adamw.py"]
    assert text.startswith("# Licensed under the Apache License")
    assert "VELDT" not in text and "\n  return _skip_untrainable(tx)\n" in text
    assert "import optax\n" not in text.replace(">>> import optax\n", "")
    functions = {n.name: n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}
    doc = ast.get_docstring(functions["adamw"])
    for section in ("Args:", "Returns:", "Examples:", "References:"):
        assert f"\n{section}\n" in doc
    for argument in functions["adamw"].args.args:
        assert f"\n  {argument.arg}: " in doc
    assert "from optax.contrib._adamw import adamw" in files["CONTRIBUTING.md"]


@hypothesis.settings(max_examples=15)
@hypothesis.given(doc=evil_text, key=evil_text, value=evil_text)
def test_text_from_outside_stays_in_the_docstring(doc: str, key: str, value: str) -> None:
    def shape(files: dict[str, str]) -> str:
        tree = ast.parse(files["_rule.py"])
        (factory,) = (n for n in tree.body if getattr(n, "name", "") == "rule")
        assert isinstance(factory.body.pop(0).value.value, str)
        return ast.dump(tree)

    plain = export_contrib(Program("rule", (), (), (), ("g",)))
    files = export_contrib(Program("rule", (), (), (), ("g",), doc=doc), provenance={key: value})
    assert shape(files) == shape(plain)
    assert files["_rule_test.py"] == plain["_rule_test.py"]
