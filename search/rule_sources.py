"""The shipped rules, and loading a rule from any source.

Each `<name>.py` in `rules/` is a program file (`language/parse.py`): text that is read and never
imported. Where Optax has the rule, it equals Optax's function, with its default constants, to
rounding, and else its paper's formula; each docstring names the source and any difference.
`tests/search/rules/test_rule_sources.py` and `test_paper_rules.py` check all of them.

`discovered/` holds rules that veldt's own searches found, each with a record of its origin and its
results (`<name>.json`, written by `benchmarks/discovered.py`).

Other names in Optax: momentum and nesterov are `optax.sgd`, polyak is `optax.polyak_sgd`, signsgd
is `optax.sign_sgd`; adopt, ademamix, dadapt_adamw, dog, madgrad, momo, momo_adam, muon, prodigy and
sophia are in `optax.contrib`, and `optax.contrib.galore` has another projection than galore. The
formulas of the rules that Optax lacks are in `tests/search/rules/formulas`.

Not shipped, because a program cannot state them; the first three need the trainer:

| rule | what it needs |
|---|---|
| lookahead, schedule_free | a second copy of the parameters, or gradients taken away from them |
| sam | a second gradient, at other parameters |
| sophia with its own Hessian | a second backward pass; it is shipped with squared gradients |
| rprop, rmsprop with momentum | the learning rate inside the state |
| noisy_sgd | random numbers |
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from veldt.search.errors import ProgramError, ProgramSyntaxError, UnknownRuleError
from veldt.search.export import embedded_program
from veldt.search.language.parse import MAX_TEXT_BYTES
from veldt.search.language.statements import COPY
from veldt.search.program import Program
from veldt.search.storage import best_rule, hall_of_fame
from veldt.search.storage.best_rule import Best
from veldt.tasks.common import spelling
from veldt.tasks.common.disk import digest, run_directory

# Rules of Optax or of a paper.
PUBLISHED: Final[tuple[str, ...]] = (
    "adabelief",
    "adabound",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adam_cm",
    "adamax",
    "adamaxw",
    "adamod",
    "adamp",
    "adamuon",
    "adamw",
    "adan",
    "adan_paper",
    "ademamix",
    "admeta",
    "adopt",
    "adopt_unclipped",
    "amsgrad",
    "apollo",
    "autoclip",
    "came",
    "cautious_adamw",
    "cautious_lion",
    "conda",
    "core",
    "dadapt_adamw",
    "diffgrad",
    "dog",
    "exadam",
    "frugal",
    "galore",
    "grams",
    "gravity",
    "grokfast",
    "innaprop",
    "lamb",
    "lars",
    "lion",
    "lion_k_huber",
    "lion_k_norm",
    "madgrad",
    "mars",
    "momentum",
    "momo",
    "momo_adam",
    "muon",
    "muon_linear",
    "nadam",
    "nadamw",
    "nesterov",
    "polargrad",
    "polyak",
    "prodigy",
    "psgd_kron",
    "radam",
    "rmsprop",
    "sania",
    "scale",
    "sgd",
    "sgd_sai",
    "shampoo",
    "signsgd",
    "signum",
    "sinkgd",
    "soap",
    "sophia",
    "spam",
    "stable_spam",
    "subset_norm",
    "swan",
    "yogi",
)
# Rules that a search of veldt's found.
# Published rules that find their own step, or have the rate among their constants.
AT_RATE_ONE: Final[frozenset[str]] = frozenset(
    (
        "adan_paper",
        "dadapt_adamw",
        "dog",
        "innaprop",
        "momo",
        "momo_adam",
        "polyak",
        "prodigy",
        "sania",
    )
)
DISCOVERED: Final[tuple[str, ...]] = ("carom",)
RULE_NAMES: Final[tuple[str, ...]] = tuple(sorted((*PUBLISHED, *DISCOVERED)))

# An export is longer than the program that it carries, for which the parser has a limit.
_MAX_EXPORT_BYTES: Final = 10 * MAX_TEXT_BYTES
_FOLDER: Final = Path(__file__).parent / "rules"
DISCOVERED_FOLDER: Final = _FOLDER / "discovered"


@final
@dataclass(frozen=True, slots=True)
class RuleRow:
    """One row of `veldt list rules`.

    Attributes:
      name: Name that `load_rule` takes.
      statements: Number of instructions.
      slots: Number of state slots, each at most as large as the parameters.
      constants: Tunable constants and their defaults.
      description: First line of the rule's docstring.
    """

    name: str
    statements: int
    slots: int
    constants: tuple[tuple[str, float], ...]
    description: str


def load_rule(source: str | Path) -> Program:
    """Load an update rule. The file is read as data and never run.

    Args:
      source: Shipped rule's name, the path of a `.py` rule file or of a file that `veldt export`
        wrote, a run directory (its best), or "RUN#ID", any entry of its hall of fame.

    Raises:
      UnknownRuleError: No such rule, file or directory, or the directory holds no best rule.
      ProgramError: The file is not a program; the message names file, line and column.
    """
    if source in RULE_NAMES:
        return _read(shipped_file(str(source)))
    path = Path(source)
    # `os.path`, because pathlib's own tests raise on names that the file system cannot have.
    if os.path.isdir(path):
        if not (path / best_rule.RULE_FILE).is_file():
            raise UnknownRuleError(
                f"{str(path)!r} is a directory without {best_rule.RULE_FILE}, which a search "
                f"writes when it has scored a program; {run_directory.describe(path)}"
            )
        _check_unchanged(path)
        return _read(path / best_rule.RULE_FILE)
    if os.path.isfile(path):
        return _read(path)
    if (place := hall_of_fame.split(path)) is not None:
        return hall_of_fame.read_entry(*place).program
    if path.suffix == ".py" or len(path.parts) > 1:
        raise UnknownRuleError(f"there is no rule file or run directory {str(path)!r}")
    close = spelling.nearest(str(source), RULE_NAMES, most=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"shipped: {', '.join(RULE_NAMES)}"
    raise UnknownRuleError(
        f"unknown rule {str(source)!r}: no shipped rule, rule file (.py) or run directory; {hint}"
    )


def shipped_file(name: str) -> Path:
    """Return the rule file of a name in `RULE_NAMES`."""
    return (DISCOVERED_FOLDER if name in DISCOVERED else _FOLDER) / f"{name}.py"


def read_found(source: str | Path) -> Best | None:
    """Read a rule that a search found, with its learning rate and its origin.

    Args:
      source: Source as for `load_rule`.

    Returns:
      The rule of a run directory, an entry of a hall of fame, an export of either or a name in
      `DISCOVERED`; None for any other source, `load_rule`'s own errors included.

    Raises:
      SearchError: The source cannot be read, or the hall of fame has no such entry.
    """
    if source in RULE_NAMES:
        return read_discovered(str(source)) if source in DISCOVERED else None
    path = Path(source)
    if os.path.isdir(path):
        return best_rule.read_best(path)
    if os.path.isfile(path):
        carried = embedded_program.read(_text(path))
        if carried is None or carried.learning_rate is None:
            return None
        return Best(_read(path), carried.learning_rate, carried.provenance)
    place = hall_of_fame.split(path)
    return None if place is None else hall_of_fame.read_entry(*place)


def read_discovered(name: str) -> Best:
    """Read a shipped rule that a search of veldt's found: one of `DISCOVERED`.

    Raises:
      SearchError: A file of the rule is damaged.
    """
    return best_rule.read_files(DISCOVERED_FOLDER, f"{name}.py", f"{name}.json")


def list_rules() -> tuple[RuleRow, ...]:
    """Return the shipped rules, by name."""
    return tuple(_row(load_rule(name)) for name in RULE_NAMES)


def _row(program: Program) -> RuleRow:
    return RuleRow(
        name=program.name,
        statements=sum(statement.op != COPY for statement in program.statements),
        slots=len(program.slots),
        constants=program.constants,
        description=program.doc.partition("\n")[0],
    )


def _check_unchanged(directory: Path) -> None:
    """Check that a run's best rule is unchanged, as far as the run has its digest."""
    try:
        content = (directory / best_rule.RULE_FILE).read_bytes()
        wanted = json.loads((directory / best_rule.PROVENANCE_FILE).read_text(encoding="utf-8"))[
            best_rule.RULE_DIGEST
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return  # The run is of an older version, or the digest is not needed to read the rule.
    if wanted != digest.of(content):
        raise ProgramError(
            f"{directory / best_rule.RULE_FILE} is damaged, or was changed after the search "
            "wrote it; a rule of your own is used by naming its file"
        )


def _read(path: Path) -> Program:
    """Parse one rule file, or the program in an export; the errors name the file."""
    text = _text(path)
    try:
        carried = embedded_program.read(text)
        if carried is None:
            return Program.parse(text)
    except ProgramError as error:
        raise _named(error, str(path), embedded_program.remedy(text, path.stem)) from None
    try:
        return Program.parse(carried.program)
    except ProgramError as error:
        raise _named(error, f"{path}: {embedded_program.PROGRAM}") from None


def _named(error: ProgramError, where: str, remedy: str = "") -> ProgramError:
    named = type(error)(f"{where}: {error}{remedy}")
    named.line, named.column = error.line, error.column
    return named


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            # One byte past the limit is enough for the parser to refuse the rest.
            return file.read(_MAX_EXPORT_BYTES + 1).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProgramSyntaxError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UnknownRuleError(f"cannot read {str(path)!r}: {error.strerror}") from None
