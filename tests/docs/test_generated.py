"""The generated pages, tables and numbers of the site say all that there is, and are all used."""

import dataclasses
import re
import sqlite3

import jax
import numpy as np
import pytest
from _generate import (
    commands,
    evidence,
    gallery,
    language,
    markdown,
    site,
    speed_results,
    store,
)

import veldt
from tests.docs import pages
from veldt import catalogue, cli
from veldt.search import rule_sources
from veldt.search.language import ops
from veldt.search.runtime.optax_transform import scale_by_dataflow
from veldt.search.storage import schema
from veldt.tasks.benchmark.protocol import baselines, candidates

PLACES = re.compile(r"\{\{ (\w+)\.(\w+) \}\}")
QUOTED = (
    "quickstart_less_adamw",
    "quickstart_less_muon",
    "quickstart_meta_less_adamw",
    "quickstart_meta_less_muon",
    "unseen_gain",
    "carom_speedup",
    "adamw_tuned",
    "muon",
    "celo2_speedup",
    "celo_speedup",
    "data_weights_recovered",
)
"""Numbers that the README says too."""


@pytest.fixture(scope="module")
def substitutions():
    return site.substitutions()


def plain(text):
    return " ".join(text.replace(markdown.NO_BREAK, " ").split())


def test_every_place_is_filled_and_every_table_has_one(substitutions):
    used = {found for page in pages.WRITTEN for found in PLACES.findall(pages.text(page))}
    known = {(kind, name) for kind, values in substitutions.items() for name in values}
    assert used <= known
    assert known - used == set()


def test_tables_say_what_they_rest_on(substitutions):
    for name, text in substitutions["tables"].items():
        if name in ("search_winner", "power_winner"):
            continue
        for word in ("Seeds: ", "Spread: ", "Budget: ", "Command: `"):
            assert word in text, name
        assert "nan" not in text.lower().replace("nanoseconds", ""), name
        lines = [line for line in text.splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(widths) == 1 and len(lines) > 2, name


def test_commands_of_tables_exist(substitutions):
    text = "\n".join(substitutions["tables"].values())
    for script in re.findall(r"benchmarks/\w+\.(?:py|json)|benchmarks/results/\w+\.json", text):
        assert (pages.ROOT / script).is_file(), script


def test_every_results_file_is_read(substitutions):
    text = "\n".join(substitutions["tables"].values())
    for path in evidence.RESULTS.glob("*.json"):
        assert path.name in text or path.stem in ("carom_parts", "kill_resume", "meta_kill_resume")


def test_the_readme_says_the_numbers_that_were_measured(substitutions):
    text = plain(pages.text(pages.README))
    for name in QUOTED:
        assert plain(substitutions["figures"][name]) in text, name
    assert f"{candidates.NUM_RATES} learning rates" in text
    assert f"{len(baselines.REFERENCE.rates)} learning rates" in text
    assert f"{len(rule_sources.PUBLISHED)} published rules" in text
    for name in rule_sources.DISCOVERED:
        assert f'veldt.load_rule("{name}")' in text


def test_every_field_is_on_the_page_of_its_command():
    for name in catalogue_commands():
        text = commands.config_fields(name)
        for row in catalogue.fields(name):
            assert f"`{row.option}`\n: " in text
            for key in row.keys:
                assert f"`{key.option}`\n: " in text
        assert f"reference/{commands.page_of(name)}" in site.PAGES


def catalogue_commands():
    return [name for name, command in cli.COMMANDS.items() if command.config_class is not None]


def test_every_command_is_on_the_page_of_the_command_line():
    text = commands.command_line()
    for name in cli.COMMANDS:
        assert f"## veldt {name}\n" in text
        assert f"usage: veldt {name}" in text
    assert "\x1b" not in text


def test_every_instruction_is_in_the_reference():
    text = language.instruction_set()
    for name, op in ops.OPS.items():
        (row,) = re.findall(rf"^\| `{name}` \| .*$", text, re.MULTILINE)
        assert row.endswith(f"| {markdown.cell(op.source)} |")
    for name in ops.OP_SETS:
        assert f"| `{name}` |" in text


def test_every_table_of_the_store_is_in_the_reference():
    text = store.tables()
    connection = sqlite3.connect(":memory:")
    schema.create(connection)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    assert names
    for (name,) in names:
        assert f"CREATE TABLE {name} (" in text


def test_every_rule_is_in_the_gallery_and_parses():
    listed, programs = gallery.index(), gallery.programs()
    for name in rule_sources.RULE_NAMES:
        assert f"[{name}](" in listed
        (code,) = re.findall(rf"## {name}\n.*?```python\n(.*?)```", programs, re.DOTALL)[:1]
        shown, shipped = veldt.Program.parse(code), veldt.load_rule(name)
        assert shown.lower().structural_hash == shipped.lower().structural_hash


def test_the_gallery_shows_each_rules_formula_state_cost_and_source():
    programs = gallery.programs()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", programs, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(rule_sources.RULE_NAMES)
    for name, text in sections.items():
        program = veldt.load_rule(name)
        assert markdown.math(program.latex()) in text
        assert "- Source: " in text and gallery.source(program), name
        # What a transform keeps for such a matrix, but for the step count.
        state = jax.eval_shape(
            scale_by_dataflow(program.lower(), num_steps=1).init,
            {"kernel": jax.ShapeDtypeStruct(gallery.SHAPE, np.float32)},
        )
        kept = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.slots))
        assert sum(gallery.slot_bytes(program).values()) == kept
        assert (f"{kept:,} bytes" if kept else "1,024: none") in text


def test_every_rule_is_measured():
    """After a new rule: `python benchmarks/zoo.py`."""
    assert set(evidence.load("zoo")["rules"]) == set(rule_sources.RULE_NAMES)


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("Zeiler 2012 (arXiv 1212.5701), whose", "[Zeiler 2012](https://arxiv.org/abs/1212.5701)"),
        ("Dozat 2016. Equals `optax.nadam`", "Dozat 2016"),
        (
            "Dozat 2016 with Loshchilov and Hutter 2019 (arXiv 1711.05101). Equals 2020",
            "Dozat 2016 with [Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101)",
        ),
        ("Jordan et al. 2024 (https://x.org/a/). v", "[Jordan et al. 2024](https://x.org/a/)"),
    ],
)
def test_sources_are_read_from_docstrings(line, source):
    doc = f"A rule.\n\n    update = g\n\n    {line}"
    program = dataclasses.replace(veldt.load_rule("sgd"), doc=doc)
    assert gallery.source(program) == source


def test_every_public_name_is_in_the_reference():
    text = site.PAGES["reference/api.md"]()
    for name in veldt.__all__:
        assert name.startswith("__") or f":: veldt.{name}" in text
    for name in veldt.wrappers.__all__:
        assert f":: veldt.wrappers.{name}\n" in text


def test_pages_are_written_once(tmp_path):
    site.write_pages(tmp_path)
    path = tmp_path / "reference" / "store.md"
    before = path.stat().st_mtime_ns
    site.write_pages(tmp_path)
    assert path.stat().st_mtime_ns == before
    assert {found.relative_to(tmp_path).as_posix() for found in tmp_path.rglob("*.md")} == set(
        site.PAGES
    )


@pytest.mark.parametrize("old", [True, False])
def test_the_table_of_faults_reads_results_of_one_command_and_of_all(old, monkeypatch):
    load = evidence.load
    faults = {"link cut": 2, "worker killed": 3}
    found = {"command": "python benchmarks/soak.py", "nodes": "three nodes", "minutes": 9.6}
    if old:
        found |= {"faults": faults, "searches": [{}, {}], "stores_that_differed": 0}
    else:
        commands = {
            "search": {"faults": faults, "runs_compared": 4},
            "tune": {"faults": {"driver killed": 1}, "runs_compared": 2},
        }
        found |= {"commands": commands, "differed": 0}
    monkeypatch.setattr(evidence, "load", lambda name: found if name == "soak" else load(name))
    table = plain(speed_results.faults())
    assert "5 faults (link cut: 2, worker killed: 3)" in table
    assert "10 minutes on three nodes" in table
    if old:
        assert "0 of 2 stores differed" in table
    else:
        assert "0 of 4 stores differed" in table
        assert "1 faults (driver killed: 1) | 0 of 2 learned numbers differed" in table
