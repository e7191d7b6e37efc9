"""Exported LaTeX files: a display with a caption of comments that nothing gets out of."""

import dataclasses
import re

from tests.search import latex_reader
from veldt import cli
from veldt.search import rule_sources
from veldt.search.export.latex import export_latex
from veldt.search.program import Program


def code(text: str) -> str:
    """What LaTeX reads: the lines that are no comments."""
    return "\n".join(line for line in re.split(r"[\n\r]", text) if not line.startswith("%"))


def test_a_rule_is_a_display_with_a_caption() -> None:
    rule = rule_sources.load_rule("adamw")
    text = export_latex(rule)
    first, *_, values = [line for line in text.splitlines() if line.startswith("%")]
    assert first == "% The update rule adamw, written by veldt."
    assert values == (
        r"% \beta_{1} = 0.9, \beta_{2} = 0.999, \varepsilon = 10^{-8}, \lambda = 0.0001"
    )
    assert code(text) == f"\\[\n{rule.latex()}\n\\]\n"
    assert "decoupled" not in text  # The docstring stays behind.


def test_a_found_rule_says_where_it_comes_from() -> None:
    found = rule_sources.read_discovered("carom")
    text = export_latex(
        found.program, learning_rate=found.learning_rate, provenance=found.provenance
    )
    for key, value in found.provenance.items():
        assert f"% {key}: {value}\n" in text
    assert re.search(r"% \\eta = 0\.006\d*, \\beta_\{1\} = 0\.579", text)


def test_nothing_gets_out_of_the_comments() -> None:
    rule = dataclasses.replace(rule_sources.load_rule("sgd"), name="x\n\\input{secret}\r\\bye\x0b")
    text = export_latex(rule, provenance={"run\n\\bye": "1\u2028\\bye", "seed": "0\r\n\\bye"})
    assert code(text) == f"\\[\n{rule.latex()}\n\\]\n"


def test_notebooks_show_the_formula() -> None:
    rule = rule_sources.load_rule("lion")
    shown = rule._repr_latex_()
    assert shown.startswith("$$\n\\begin{aligned}") and shown.endswith("\\end{aligned}\n$$")
    block = Program.parse("def half(w, g, *, k=0.5):\n    return g * k")._repr_latex_().strip("$\n")
    assert latex_reader.evaluate(block, {"k": 0.5, "g_{t}": 4.0}) == 2.0


def test_the_command_writes_the_file(tmp_path, capsys) -> None:
    path = tmp_path / "formulas" / "lion.tex"
    assert cli.main(["export", "lion", "--to", "latex", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert path.read_text() == export_latex(rule_sources.load_rule("lion"))


def test_a_rule_file_is_exported(tmp_path) -> None:
    source, path = tmp_path / "mine.py", tmp_path / "mine.tex"
    source.write_text("def mine(w, g, *, k=0.5):\n    return g * k\n")
    assert cli.main(["export", str(source), "--to", "latex", "-o", str(path)]) == 0
    block = Program.parse(source.read_text()).latex()
    assert block in path.read_text()
    assert latex_reader.evaluate(block, {"k": 0.5, "g_{t}": 4.0}) == 2.0
