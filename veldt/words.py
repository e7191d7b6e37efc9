"""The words of a command line: the command's own and its config's; usage errors; help."""

import argparse
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, final

from veldt import catalogue, errors, fields
from veldt.tasks.common import spelling


def split_overrides(
    words: Sequence[str], own_options: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """Separate a command's own words from its config's overrides, in any order.

    Args:
      words: Words from the command's name on.
      own_options: Options of the command, each with the number of words that follow.

    Returns:
      Own words of the command, and the overrides.
    """
    own: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        is_override = word.startswith("--") and name not in own_options
        num_values = 0
        if word.startswith("--") and not equals:
            num_values = own_options.get(name, 1)
        (overrides if is_override else own).extend([word, *rest[:num_values]])
        del rest[:num_values]
    return own, overrides


def check_overrides(
    config_class: type, overrides: Iterable[str], own_options: Mapping[str, int]
) -> None:
    """Raise an error for a misspelt option of the command that is no field of the config.

    Raises:
      UsageError: There is one; the message names the option that was meant.
    """
    known_fields = {field.name for field in dataclasses.fields(config_class)}
    for word in overrides:
        name = word.partition("=")[0]
        field = name.removeprefix("--").partition(".")[0].replace("-", "_")
        known = [*own_options, *("--" + field.replace("_", "-") for field in sorted(known_fields))]
        hint = spelling.question(name, own_options)
        # Where a field is nearer, the config's own error names it.
        nearest = hint and hint == spelling.question(name, known)
        if name.startswith("--") and field not in known_fields and nearest:
            raise errors.UsageError(f"unknown option {name}.{hint}")


@final
class Parser(argparse.ArgumentParser):
    """A parser that raises what argparse would print, so that all errors end in one place."""

    def error(self, message: str) -> NoReturn:
        """Raise a usage error that shows how the command is used."""
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise errors.UsageError(f"{message}\nusage: {usage}")


@final
class HelpWithFields(argparse.Action):
    """`--help` of a command with a config: argparse's text, then the config's fields."""

    def __init__(self, *, command: str, **kwargs: Any):
        super().__init__(nargs=0, **kwargs)
        self._command = command

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> None:
        parser.print_help()
        print("\nfields of CONFIG:")
        print("\n".join(fields.describe(catalogue.fields(self._command))))
        parser.exit()
