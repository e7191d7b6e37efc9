"""What `veldt list` and `--help` print: true, whole, and printed without what takes seconds."""

import re
import subprocess
import sys

import pytest

from veldt import catalogue, cli, fields
from veldt import config as config_lib
from veldt.learned_opt import shipped
from veldt.search import rule_sources
from veldt.tasks import registry

HEAVY = {"jax", "optax", "ray", "flax", "numpy", "evosax", "orbax", "matplotlib", "rich", "sklearn"}
WITH_CONFIG = [name for name, command in cli.COMMANDS.items() if command.config_class]


def test_the_catalogue_is_up_to_date():
    now = catalogue.make(cli.config_classes())
    written = {what: catalogue.LISTS[what]() for what in ("rules", "tasks", "weights")}
    for what, rows in written.items():
        assert [row.__dict__ for row in rows] == now[what], f"{what}: run `make catalogue`"
    assert catalogue._read() == now, "run `make catalogue`"


def test_every_list_has_what_there_is():
    def names(what):
        return [row.name for row in catalogue.LISTS[what]()]

    assert names("rules") == list(rule_sources.RULE_NAMES)
    assert names("tasks") == list(registry.TASKS)
    assert names("weights") == shipped.names()
    assert names("configs") == [info.name for info in config_lib.list_configs()]
    assert all(row.description for what in catalogue.LISTS for row in catalogue.LISTS[what]())


LIGHT = [["list", what] for what in catalogue.LISTS] + [["--help"], ["--version"], ["list", "x"]]
LIGHT += [[name, "--help"] for name in cli.COMMANDS]


def test_lists_and_help_load_nothing_that_takes_long():
    code = (
        "import sys\n"
        "from veldt import cli\n"
        f"for words in {LIGHT!r}:\n"
        "    cli.main(words)\n"
        f"    found = {HEAVY!r} & set(sys.modules)\n"
        "    if found: sys.exit(f'{words}: {found}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


def all_keys(rows):
    for row in rows:
        yield row
        yield from all_keys(row.keys)


@pytest.mark.parametrize("command", WITH_CONFIG)
def test_help_shows_every_key_with_its_type_and_what_it_is(command, capsys):
    """Those of lists and mappings of mappings too: a user can write each from what is shown."""
    listed = fields.list_fields(cli.COMMANDS[command].config_class())
    assert cli.main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    for row in all_keys(listed):
        assert f"{row.option} ({row.kind}" in printed
        assert row.description and row.description in printed, row.option
        if "each a mapping" in row.kind:
            assert row.keys, row.option


@pytest.mark.parametrize(
    ("command", "option", "keys"),
    [
        ("search", "--tasks", {"task", "num_steps", "num_chunks"}),
        ("search", "--founders", {"rule", "learning_rate"}),
        ("search", "--finals.stages", {"name", "tasks", "seeds", "rate_factors"}),
        ("meta-train", "--phases", {"name", "num_updates", "estimator", "outer"}),
        ("tune", "--tune", {"start", "scale", "knots"}),
    ],
)
def test_lists_of_mappings_show_their_keys(command, option, keys):
    text = "\n".join(fields.describe(catalogue.fields(command)))
    block = re.search(rf"^  {option} .*\n(?:   .*\n)*", text, re.MULTILINE)[0]
    assert "keys of each:" in block
    assert keys <= set(re.findall(r"^        (\w+) \(", block, re.MULTILINE))


def test_keys_shown_before_are_named_and_not_shown_again():
    text = "\n".join(fields.describe(catalogue.fields("search")))
    assert "keys of each: those of --tasks" in text
    assert text.count("training steps of one run.") == 1
