"""Fields that belong to a changed field of a named config, and where such a run is kept.

`veldt search quickstart --tasks ...` is the quickstart on other tasks: its meta-validation tasks,
chosen for the quickstart's own, stay. That may be intended, so a note says it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from veldt import config as config_lib
from veldt import fields

LINKED: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "search": {
        "tasks": ("meta_validation", "finals.stages"),
        "initial_rule": ("learning_rate",),
    },
    "meta-train": {"architecture": ("fields", "start"), "tasks": ("meta_validation",)},
    "tune": {"task": ("num_steps", "tune"), "optimizer": ("tune", "fixed")},
}
"""Linked fields by command: a field, and those chosen for the value that it had in the config."""

SUBJECTS: Final[Mapping[str, str]] = {
    "search": "tasks",
    "meta-train": "architecture",
    "tune": "task",
}
"""The field with the subject of a run, by command."""

_MAX_NAMES: Final = 3  # In a directory's name.


def notes(command: str, settings: Any, source: str, overrides: Sequence[str]) -> list[str]:
    """Return notes for a command line that changes a field and leaves linked ones as they were.

    Args:
      command: Name of the command.
      settings: Config of the command, with overrides.
      source: Name or path of the config, as given.
      overrides: Overrides of the command line.
    """
    lines = []
    for field, other, value in _kept(command, settings, _given(overrides)):
        option = "--" + other.replace("_", "-")
        lines.append(
            f"note: --{field.replace('_', '-')} is changed; {other} stays as in {source}: "
            f"{fields.one_line(value)} ({option} changes it)"
        )
    return lines


def keyword_notes(
    command: str, settings: Any, source: str, keywords: Mapping[str, Any]
) -> list[str]:
    """Return the notes for a call from Python; see `notes`.

    Args:
      command: Name of the command that does the same.
      settings: Config of the call, with its keywords.
      source: Name or path of the config, as given.
      keywords: Fields that the call sets.
    """
    return [
        f"note: {field} is given; {other} stays as in {source}: {fields.one_line(value)} (the "
        f"keyword {other} changes it)"
        for field, other, value in _kept(command, settings, _names(keywords))
    ]


def _kept(command: str, settings: Any, given: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield each field that was changed, with a linked one that was not and its value."""
    for field, linked in LINKED.get(command, {}).items():
        if not any(_within(option, field) for option in given):
            continue
        for other in linked:
            value = _value(settings, other)
            if value not in (None, (), {}) and not any(_within(name, other) for name in given):
                yield field, other, value


def _names(keywords: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the fields that keywords set, with dots where nested."""
    names = []
    for name, value in keywords.items():
        inner = _names(value, f"{prefix}{name}.") if isinstance(value, Mapping) else []
        names += inner or [prefix + name]
    return names


def run_dir(command: str, settings: Any, source: str, overrides: Sequence[str]) -> Path:
    """Return where a run is kept by default: `runs/CONFIG`.

    Where the command line changes the subject of the run, the name contains it too, so that it is
    not that of the config's own run: `runs/quickstart_Spiral`.

    Args:
      command: Name of the command.
      settings: Config of the command, with overrides.
      source: Name or path of the config, as given.
      overrides: Overrides of the command line.
    """
    stem = Path(source).stem
    subject = SUBJECTS.get(command, "")
    # `--tasks`, `--tasks.0.task`; the number of steps, for example, leaves the name.
    if not any(
        re.fullmatch(rf"{subject}(\.[0-9]+\.task)?", option) for option in _given(overrides)
    ):
        return Path("runs") / stem
    value = _value(settings, subject)
    names = [value] if isinstance(value, str) else [proxy.task for proxy in value]
    words = [re.sub(r"\W+", "_", name.rpartition(":")[2]) for name in names]
    if len(words) > _MAX_NAMES:
        words = [words[0], f"and_{len(words) - 1}_more"]
    return Path("runs") / "_".join([stem, *words])


def _given(overrides: Sequence[str]) -> list[str]:
    """Return the fields that the command line sets, as the dataclasses spell them."""
    return [option.replace("-", "_") for option, _ in config_lib.parse_overrides(overrides)]


def _within(option: str, field: str) -> bool:
    return f"{option}.".startswith(f"{field}.")


def _value(settings: Any, field: str) -> Any:
    for name in field.split("."):
        settings = getattr(settings, name)
    return settings
