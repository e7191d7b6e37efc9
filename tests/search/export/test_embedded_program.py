"""An export is a rule file too: it carries exactly the program that it was written from."""

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.search.export.test_optax_module import check_ruff
from tests.search.strategies import programs
from veldt import evaluation
from veldt.search import rule_sources
from veldt.search.errors import ProgramError, UnknownRuleError
from veldt.search.export import embedded_program
from veldt.search.export.optax_module import export_optax
from veldt.search.program import Program
from veldt.search.storage import best_rule, hall_entries


@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_a_shipped_rules_export_loads_as_the_rule(name, tmp_path):
    rule = rule_sources.load_rule(name)
    path = tmp_path / "my_rule_optax.py"
    path.write_text(export_optax(rule))
    assert rule_sources.load_rule(path) == rule
    assert rule_sources.read_found(path) is None  # No search's learning rate comes with it.
    assert evaluation.load_candidate(path).program == rule


@hypothesis.given(programs())
def test_any_programs_export_carries_it(program):
    carried = embedded_program.read(export_optax(program))
    assert Program.parse(carried.program) == program


def test_what_a_search_found_keeps_its_rate_and_the_tasks_that_it_has_seen(tmp_path):
    found = best_rule.Best(
        rule_sources.load_rule("lion"),
        0.0123,
        {best_rule.TASKS: "digits_mlp (200 steps)", "run": 'a"\\\n\x07é日'},
    )
    path = tmp_path / "mine.py"
    text = export_optax(
        found.program, learning_rate=found.learning_rate, provenance=found.provenance
    )
    path.write_text(text, encoding="utf-8")
    check_ruff(text, tmp_path)
    assert rule_sources.read_found(path) == found
    candidate = evaluation.load_candidate(path)
    assert candidate.proxies == {"digits_mlp"} and 0.0123 in candidate.rates


@pytest.mark.parametrize(
    "doc", ['"""', "'''", "ends in \\", 'a "quoted" word', "日本語 " * 40, "\x00"]
)
def test_any_description_comes_back_and_breaks_nothing(doc, tmp_path):
    rule = dataclasses.replace(rule_sources.load_rule("sgd"), doc=doc)
    text = export_optax(rule)
    check_ruff(text, tmp_path)
    back = Program.parse(embedded_program.read(text).program)
    assert (back, back.doc) == (Program.parse(str(rule)), Program.parse(str(rule)).doc)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import optax\n\ndef make(rate):\n    return optax.sgd(rate)\n",
            "veldt evaluate mine:FUNC",
        ),
        (
            "from jax import numpy as jnp\nx = jnp.ones(3)\n",
            "is not run: a rule file holds a program",
        ),
        ("import os\n", "line 1, column 1: a rule file holds one function and nothing else"),
        (
            "VELDT_PROGRAM = 'def f(w, g):\\n    import os\\n    return g\\n'\n",
            "VELDT_PROGRAM: line 2",
        ),
        ("VELDT_PROGRAM = open('x').read()\n", "a rule file holds one function"),
        ("VELDT_PROGRAM = 'x'\nVELDT_ORIGIN = '{'\n", "VELDT_ORIGIN is damaged"),
        ("VELDT_PROGRAM = 'x'\nVELDT_ORIGIN = '[]'\n", "VELDT_ORIGIN is damaged"),
        (
            'VELDT_PROGRAM = "x"\nVELDT_ORIGIN = \'{"learning_rate": -1, "provenance": {}}\'\n',
            "the learning rate is -1.0",
        ),
    ],
)
def test_code_is_refused_with_the_remedy_and_never_run(text, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ProgramError) as caught:
        rule_sources.load_rule(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_an_export_that_lost_its_program_says_where_else_to_look(tmp_path):
    path = tmp_path / "lion.py"
    path.write_text(export_optax(rule_sources.load_rule("lion")).partition("# What veldt reads")[0])
    with pytest.raises(ProgramError, match="name the rule or run that it was exported from"):
        rule_sources.load_rule(path)


def test_any_entry_of_a_hall_of_fame_is_named_by_its_id(finished_run):
    from veldt.search.storage.store import Store

    with Store.open(finished_run, read_only=True) as store:
        entries = [entry for entry in hall_entries.read_entries(store) if entry.candidate >= 0]
    assert len(entries) > 1
    for entry in entries:
        source = f"{finished_run}#{entry.candidate}"
        found = rule_sources.read_found(source)
        assert found.learning_rate == entry.learning_rate
        assert found.proxies == {"digits_mlp"}
        assert rule_sources.load_rule(source) == found.program
        assert evaluation.load_candidate(source).program == found.program
    winner = next(entry for entry in entries if entry.winner)
    whole = rule_sources.read_found(f"{finished_run}#{winner.candidate}").program
    theirs = rule_sources.load_rule(finished_run)
    assert whole.lower().structural_hash == theirs.lower().structural_hash


@pytest.mark.parametrize("number", ["99999", "x", "", "-1", "1.5"])
def test_an_id_that_is_not_there_is_met_with_those_that_are(number, finished_run):
    with pytest.raises(UnknownRuleError) as caught:
        rule_sources.load_rule(f"{finished_run}#{number}")
    best_id = best_rule.read_best(finished_run).provenance["candidate"]
    assert "There are: " in str(caught.value) and f"#{best_id} (the winner)" in str(caught.value)


def test_a_mark_in_a_paths_name_is_a_part_of_it(finished_run, tmp_path):
    (tmp_path / "a#1.py").write_text("def f(w, g):\n    return g\n")
    assert rule_sources.load_rule(tmp_path / "a#1.py").name == "f"
    with pytest.raises(UnknownRuleError, match=r"there is no run directory '.*nowhere' whose"):
        rule_sources.load_rule(tmp_path / "nowhere#3")
    with pytest.raises(UnknownRuleError, match=r"no search's run directory \(no store.sqlite\)"):
        rule_sources.load_rule(f"{tmp_path}#3")


@hypothesis.settings(max_examples=20)
@hypothesis.given(
    text=st.text(st.characters() | st.sampled_from("\"'\\\n\r {}日"), max_size=400),
    length=st.integers(60, 200),
)
def test_any_text_is_written_as_a_formatter_leaves_it_and_read_back(text, length, folder):
    for program in (text, "x" * length, "y" * length + "\n" + text):
        source = f'"""A module."""\n\n{embedded_program.constants(program, 0.1, {text: text})}\n'
        check_ruff(source, folder)
        carried = embedded_program.read(source)
        assert (carried.program, carried.provenance) == (program, {text: text})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")
