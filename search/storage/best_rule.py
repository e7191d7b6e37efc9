"""A run's best rule on disk: `best.py`, a rule file, and `best.json`, its provenance.

Literals that evolution left in the program become named constants, so that users of the rule can
tune them.
"""

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from veldt.search import simplify
from veldt.search.errors import ProgramError, SearchError, UnknownRuleError
from veldt.search.language import printing
from veldt.search.program import Program
from veldt.tasks.common.disk import atomic_files, digest

RULE_FILE: Final = "best.py"
PROVENANCE_FILE: Final = "best.json"
# The provenance's entry that holds a digest of the rule file.
RULE_DIGEST: Final = "rule_digest"
TASKS: Final = "tasks"
"""The provenance's entry that names the tasks of the search."""
# Numbers that are structure and not a choice: 1 - b, x / 2, squares.
_STRUCTURAL: Final = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)


@final
@dataclass(frozen=True, slots=True)
class Best:
    """A run's best rule.

    Attributes:
      program: Simplified rule with named constants.
      learning_rate: Learning rate that it was found with.
      provenance: Origin of the rule, by short descriptions: run, seeds, scores, versions.
    """

    program: Program
    learning_rate: float
    provenance: Mapping[str, str]

    @property
    def proxies(self) -> frozenset[str]:
        """Names of the tasks that it was selected on, as far as the provenance names them."""
        return frozenset(re.findall(r"(?:^|, )(\S+) \(\d+ steps\)", self.provenance.get(TASKS, "")))


def describe_tasks(tasks: Iterable[tuple[str, int]]) -> str:
    """Return names and numbers of steps of a search's tasks, as `Best.proxies` reads them."""
    return ", ".join(f"{name} ({num_steps} steps)" for name, num_steps in tasks)


def name_constants(program: Program) -> Program:
    """Turn literals into constants `c1, c2, ...`, equal ones into one, except structural ones."""
    taken = {
        *program.slots,
        *(name for name, _ in program.constants),
        *(s.target for s in program.statements),
    }
    names: dict[float, str] = {}
    statements = []
    for statement in program.statements:
        args = list(statement.args)
        for i, arg in enumerate(args):
            if isinstance(arg, str) or arg in _STRUCTURAL:
                continue
            if arg not in names:
                number = len(names) + 1
                while f"c{number}" in taken:
                    number += 1
                names[arg] = f"c{number}"
                taken.add(names[arg])
            args[i] = names[arg]
        statements.append(replace(statement, args=tuple(args)))
    constants = (*program.constants, *((name, value) for value, name in names.items()))
    return replace(program, constants=constants, statements=tuple(statements))


@functools.lru_cache(maxsize=32)
def shown(program: Program) -> str:
    """Return the text of a rule that was found, as it is shown everywhere and in `best.py`."""
    return printing.pretty(make_best(program, 1.0, "discovered", {}).program)


def write_best(directory: Path, best: Best) -> None:
    """Write both files, each of them whole.

    Raises:
      SearchError: One of them cannot be written.
    """
    lines = [f"{key}: {value}" for key, value in best.provenance.items()]
    doc = "\n".join(["Found by veldt.", "", *lines, f"learning rate: {best.learning_rate:g}"])
    text = printing.pretty(replace(best.program, doc=doc))
    atomic_files.write_text(directory / RULE_FILE, text)
    data = {
        "learning_rate": best.learning_rate,
        "provenance": dict(best.provenance),
        RULE_DIGEST: digest.of(text.encode()),
    }
    atomic_files.write_text(
        directory / PROVENANCE_FILE, json.dumps(digest.signed(data), indent=2) + "\n"
    )


def read_best(directory: Path) -> Best:
    """Read a run directory's best rule.

    Raises:
      UnknownRuleError: The directory holds none.
      SearchError: One of the files is damaged.
    """
    return read_files(directory, RULE_FILE, PROVENANCE_FILE)


def read_files(directory: Path, rule_file: str, provenance_file: str) -> Best:
    """Read a rule that was found, and its provenance, by the names of both files.

    Raises:
      UnknownRuleError: The directory holds none.
      SearchError: One of the files is damaged.
    """
    try:
        content = (directory / rule_file).read_bytes()
        text = content.decode("utf-8")
        data = digest.check(json.loads((directory / provenance_file).read_text(encoding="utf-8")))
        if data.get(RULE_DIGEST, digest.of(content)) != digest.of(content):
            raise ValueError(
                f"{rule_file} was changed after the search wrote it; a rule of your own is used by "
                "naming its file"
            )
        rate, provenance = float(data["learning_rate"]), dict(data["provenance"])
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"the learning rate is {rate}")
    except FileNotFoundError:
        raise UnknownRuleError(
            f"{directory} holds no best rule (no {rule_file} in it): has a search run there?"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise SearchError(
            f"{directory}: {rule_file} or {provenance_file} is damaged: {error}"
        ) from None
    try:
        program = replace(Program.parse(text), doc="")
    except ProgramError as error:
        raise SearchError(f"{directory / rule_file} is damaged: {error}") from None
    return Best(program, rate, {str(key): str(value) for key, value in provenance.items()})


def make_best(
    program: Program, learning_rate: float, name: str, provenance: Mapping[str, str]
) -> Best:
    """Return a found program as a rule with a name of its own."""
    program = simplify.prune(name_constants(simplify.simplify(program, fold=True)))
    return Best(replace(program, name=name, doc=""), learning_rate, provenance)
