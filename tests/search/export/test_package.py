"""Packages of one rule: pip installs them offline, their test passes, text stays text."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from tests.search.export.modules import AWKWARD_NAMES, check_ruff, evil_text
from veldt import cli
from veldt.search import rule_sources
from veldt.search.export.optax_module import export_optax
from veldt.search.export.package import export_package
from veldt.search.program import Program


def write(files: dict[str, str], folder: Path) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["carom", "momo", "muon"])
def test_a_package_is_installed_and_passes_its_test(name: str, tmp_path: Path) -> None:
    found = rule_sources.read_found(name)
    origin = {} if found is None else {"provenance": found.provenance}
    folder = write(export_package(rule_sources.load_rule(name), **origin), tmp_path / "package")
    target = tmp_path / "installed"
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *offline]
    done = subprocess.run([*pip, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (target / f"{name}_optax.py").is_file()
    test = folder / "tests" / f"test_{name}_optax.py"
    code = f"import sys; sys.path.insert(0, {str(target)!r}); import pytest; sys.exit(pytest.main("
    code += f"['-q', '-p', 'no:cacheprovider', '--rootdir', {str(folder)!r}, {str(test)!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_its_files(tmp_path: Path) -> None:
    rule = rule_sources.load_rule("lion")
    files = export_package(rule, learning_rate=3e-4, provenance={"run": "r-17"})
    assert sorted(files) == [
        "README.md", "lion_optax.py", "pyproject.toml", "tests/test_lion_optax.py",
    ]  # fmt: skip
    assert files["lion_optax.py"] == export_optax(
        rule, learning_rate=3e-4, provenance={"run": "r-17"}
    )
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["name"] == "lion-optax"
    assert project["tool"]["setuptools"]["py-modules"] == ["lion_optax"]
    assert "    run: r-17" in files["README.md"] and "tx = lion()" in files["README.md"]
    check_ruff(files["lion_optax.py"], tmp_path)


def test_its_numbers_tell_rules_apart() -> None:
    """They are veldt's own, and another rule's first updates are others."""
    expected = []
    for name in ("lion", "signsgd", "adam"):
        text = export_package(rule_sources.load_rule(name))[f"tests/test_{name}_optax.py"]
        (rows,) = (n.value for n in ast.parse(text).body if isinstance(n, ast.Assign))
        expected.append(np.asarray(ast.literal_eval(rows)))
    assert {rows.shape for rows in expected} == {(3, 9)}
    for i, rows in enumerate(expected):
        assert not any(np.allclose(rows, other, 1e-4, 1e-6) for other in expected[:i])


@hypothesis.settings(max_examples=15)
@hypothesis.given(doc=evil_text, key=evil_text, value=evil_text)
def test_text_from_outside_stays_text(doc: str, key: str, value: str) -> None:
    rule = Program.parse("def rule(w, g):\n    return g")
    plain = export_package(rule, provenance={"k": "v"})
    files = export_package(Program("rule", (), (), (), ("g",), doc=doc), provenance={key: value})
    for name in ("pyproject.toml", "tests/test_rule_optax.py"):
        assert files[name] == plain[name]
    # Headings and fences are those of the template.
    marks = [
        [line for line in files["README.md"].splitlines() if line.startswith(("#", "`", "<", "["))]
        for files in (files, plain)
    ]
    assert marks[0] == marks[1]


@pytest.mark.parametrize("name", AWKWARD_NAMES[-4:])
def test_any_name_will_do(name: str) -> None:
    files = export_package(Program.parse(f"def {name}(w, g):\n    return g"))
    project = tomllib.loads(files["pyproject.toml"])
    (module,) = project["tool"]["setuptools"]["py-modules"]
    assert module.isidentifier() and f"{module}.py" in files
    assert all(path.isascii() for path in files)


def test_the_command_wants_a_new_folder(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "lion"
    words = ["export", "lion", "--package", str(folder)]
    assert cli.main(words) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "lion_optax.py", "pyproject.toml", "tests",
    ]  # fmt: skip
    capsys.readouterr()
    assert cli.main(words) == 1
    assert "is not an empty folder" in capsys.readouterr().err
