"""Make the reference of the command line and of the fields of configs."""

import argparse
import functools
import re
from collections.abc import Iterator, Mapping, Sequence

from _generate import markdown
from veldt import catalogue, cli
from veldt.fields import FieldInfo

WIDTH = 88
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def command_line() -> str:
    """Return the page of all commands, with the text of their `--help`."""
    parts = [
        "`veldt COMMAND ...`, or `python -m veldt COMMAND ...`. CONFIG is the path of a YAML file, "
        "or the name of a shipped one (`veldt list configs`). Every field of a config can be set "
        "on the command line, `--field value`; a nested field has a dot (`--pool.num-workers 4`), "
        "a list or mapping is written as YAML. The environment variable `VELDT_DEBUG=1` shows the "
        "traceback of an expected error.",
        markdown.table(
            ["exit code", "meaning"],
            [
                ["0", "success"],
                ["1", "failure"],
                ["2", "a command line or a config that cannot be used"],
                ["130", "stopped by Ctrl-C"],
                ["143", "stopped by SIGTERM"],
            ],
        ),
    ]
    for name, command in cli.COMMANDS.items():
        fields = (
            f"Further options are the [fields of its config]({page_of(name)})."
            if command.config_class is not None
            else ""
        )
        summary = command.summary[0].upper() + command.summary[1:] + "."
        parts += [f"## veldt {name}", summary, markdown.code(_help(name), "text"), fields]
    return markdown.page("The command line", *(part for part in parts if part))


def _help(name: str) -> str:
    parser = argparse.ArgumentParser(
        prog=f"veldt {name}",
        add_help=False,
        formatter_class=functools.partial(argparse.HelpFormatter, width=WIDTH),
    )
    cli.COMMANDS[name].add_arguments(parser)
    return _ANSI.sub("", parser.format_help())


def page_of(command: str) -> str:
    """Return the file of a command's fields, beside the page of the command line."""
    return f"config_{command.replace('-', '_')}.md"


def config_fields(command: str) -> str:
    """Return the page of all fields of a command's config."""
    rows = catalogue.fields(command)
    parts = [
        f"Each field is an option of `veldt {command}`."
        if command == "evaluate"
        else f"Each field is a key of the YAML file and an option of `veldt {command}`. A file "
        f"names only what differs from the defaults. {_nesting(rows)}"
    ]
    for nest, group in _nests(rows).items():
        parts += [f"## {nest}"] if nest else []
        parts.append(_definitions(group))
    for title, keys in _keys(rows):
        parts += [f"## Keys of {title}", _definitions(keys)]
    return markdown.page(f"Config fields of veldt {command}", *parts)


def _nesting(rows: Sequence[FieldInfo]) -> str:
    """Say how a nested field is written in a file, by the first one that there is."""
    option = next(row.option for row in rows if "." in row.option)
    nest, _, leaf = option.removeprefix("--").replace("-", "_").rpartition(".")
    return (
        "In a file an option's dots are nested mappings and its dashes are underscores: "
        f"`{option} VALUE` is `{nest}: {{{leaf}: VALUE}}`."
    )


def _nests(rows: Sequence[FieldInfo]) -> Mapping[str, Sequence[FieldInfo]]:
    """Return the fields by the mapping that they are nested in; "" is the config itself."""
    found: dict[str, list[FieldInfo]] = {"": []}
    for row in rows:
        nest = row.option.removeprefix("--").rpartition(".")[0]
        found.setdefault(nest, []).append(row)
    return found


def _definitions(rows: Sequence[FieldInfo]) -> str:
    return "\n\n".join(f"`{row.option}`\n: {_meaning(row)}" for row in rows)


def _meaning(row: FieldInfo) -> str:
    default = row.default if row.default in ("", "required") else f"`{row.default}` by default"
    taken = f"*{'; '.join(part for part in (row.kind, default) if part)}*"
    keys = "Its keys are below." if row.keys else ""
    text = " ".join(part for part in (row.description, keys) if part)
    return f"{taken}: {text}" if text else taken


def _keys(rows: Sequence[FieldInfo]) -> Iterator[tuple[str, Sequence[FieldInfo]]]:
    """Yield each different set of keys once, with the options that take it."""
    titles: dict[tuple[FieldInfo, ...], list[str]] = {}
    waiting = list(rows)
    while waiting:
        row = waiting.pop(0)
        if row.keys:
            titles.setdefault(row.keys, []).append(row.option.removeprefix("--"))
            waiting += row.keys
    for keys, names in titles.items():
        yield " and ".join(dict.fromkeys(names)), keys
