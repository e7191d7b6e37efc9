"""The command lines, options and configs that the README and the site show are taken by veldt."""

import re
import shlex

import pytest
import yaml

from tests.docs import pages
from veldt import catalogue, cli, config, evaluation, words
from veldt.meta.train.config import MetaTrainConfig
from veldt.meta.tune.config import TuneConfig
from veldt.search.config.search_config import SearchConfig
from veldt.tasks.benchmark.protocol import protocol

SHOWN = [(pages.name(page), line) for page in pages.ALL for line in pages.commands(page)]
OF_OTHERS = {"--generate", "--pool", "--submission-id"}
"""Options of Ray's command line, and a whole group of options."""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The config that a tutorial shows, where the reader would have put it."""
    (text,) = pages.blocks(pages.DOCS / "tutorials" / "meta_train.md", "yaml")
    (tmp_path / "my_meta.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_command_lines_are_taken(page, line):
    given = shlex.split(line, comments=True)[1:]
    command = cli.COMMANDS[given[0]]
    own, overrides = given, []
    if command.config_class is not None:
        own, overrides = words.split_overrides(given, command.own_options)
    parser = words.Parser(prog="veldt", allow_abbrev=False)
    command.add_arguments(parser)
    args = parser.parse_args(own[1:])
    if given[0] == "list":
        assert args.what in (*catalogue.LISTS, "grammar")
        assert args.config is None or config.find_config(args.config)
    if given[0] == "evaluate":
        assert command.config_class is not None
        config.make_config(command.config_class(), overrides)
        if not args.suite.endswith(".yaml"):
            assert evaluation.load_suite(args.suite).tasks
    elif command.config_class is not None:
        config.load_config(command.config_class(), args.config, overrides)


def options() -> set[str]:
    known = set(OF_OTHERS)
    for name, command in cli.COMMANDS.items():
        known |= set(command.own_options)
        if command.config_class is not None:
            known |= {row.option for row in catalogue.fields(name)}
            # Of a nested config that may be null, each key is an option too.
            known |= {
                f"{row.option}.{key.option.replace('_', '-')}"
                for row in catalogue.fields(name)
                if row.kind == "a mapping or null"
                for key in row.keys
            }
    return known


@pytest.mark.parametrize("page", pages.ALL, ids=pages.name)
def test_options_named_in_the_text_exist(page):
    named = re.findall(r"(?<=`)--[a-z][a-z.-]*[a-z]", pages.prose(page))
    known = options()
    assert [option for option in named if option not in known] == []


def test_shown_configs_are_taken(tmp_path):
    tune = pages.DOCS / "tutorials" / "learn_a_schedule.md"
    (text,) = pages.blocks(tune, "yaml")
    (tmp_path / "tune.yaml").write_text(text)
    found = config.load_config(TuneConfig, tmp_path / "tune.yaml")
    assert found == config.load_config(TuneConfig, "tune_digits")

    (text,) = pages.blocks(pages.DOCS / "tutorials" / "meta_train.md", "yaml")
    (tmp_path / "meta.yaml").write_text(text)
    assert config.load_config(MetaTrainConfig, tmp_path / "meta.yaml").phases

    for text in pages.blocks(pages.DOCS / "how-to" / "search_settings.md", "yaml"):
        finals = yaml.safe_load(text)["finals"]
        shown = [
            f"--finals.{key.replace('_', '-')}={yaml.safe_dump(finals[key])}" for key in finals
        ]
        assert config.load_config(SearchConfig, "quickstart", shown)


def test_the_suite_shown_is_a_suite_whose_lengths_fit(tmp_path):
    (text,) = pages.blocks(pages.DOCS / "how-to" / "compare.md", "yaml")
    (tmp_path / "my_suite.yaml").write_text(text)
    suite = evaluation.load_suite(tmp_path / "my_suite.yaml")
    assert [entry.num_steps % protocol.NUM_CHECKS for entry in suite.tasks] == [0, 0]


def test_a_program_and_an_export_have_different_names():
    text = "\n".join(line for _, line in SHOWN)
    exports = set(re.findall(r" -o (\S+)", text))
    programs = set(re.findall(r"(?:initial-rule|rule:) (\w+\.py)", text))
    assert exports and programs and exports.isdisjoint(programs)
