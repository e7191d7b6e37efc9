"""The directory of a run: one process works there, on one run, of one kind.

`run.json` gives the kind of run, the config that it began with, and the versions. A run that an
older version began has no such file: it is recognised by its other files, and gets one when it is
resumed.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, final, get_args

import yaml

from veldt.tasks.common import errors, versions
from veldt.tasks.common.config import codec, older_config
from veldt.tasks.common.disk import atomic_files, digest
from veldt.tasks.common.disk.lock import DirectoryLock

Kind: TypeAlias = Literal["search", "meta-train", "tune", "evaluate"]
"""Command that makes the run."""

RUN_FILE: Final = "run.json"
CONFIG_FILE: Final = "config.yaml"
FORMAT: Final = 1

_NOUNS: Final[Mapping[Kind, str]] = {
    "search": "a search",
    "meta-train": "a meta-training",
    "tune": "a tuning",
    "evaluate": "an evaluation",
}
# Files by which runs of versions without `run.json` are recognised.
_SEARCH_FILE: Final = "store.sqlite"
_WEIGHTS_FILE: Final = "weights.npz"
_TRAINING_FILES: Final = ("metrics.jsonl", "checkpoints")
_RESULTS_FILE: Final = "results.json"


@final
@dataclass(frozen=True)
class Terms:
    """The runs of one command, and what may change when one is resumed.

    Attributes:
      kind: The command.
      config_class: Dataclass of the command's config.
      may_differ: Fields that may have other values in a resumed run, with dots where nested; `*`
        stands for any item of a list, which then has as many as before.
      may_grow: Fields that hold lists, to the end of which a resumed run may append.
      option: Command-line option that chooses the directory.
      has_config_file: Whether the config is written to `config.yaml` too, to be resumed with.
    """

    kind: Kind
    config_class: type
    may_differ: tuple[str, ...] = ()
    may_grow: tuple[str, ...] = ()
    option: str = "--run-dir"
    has_config_file: bool = True

    def lets_differ(self, key: str) -> bool:
        """Return whether a field, named with dots where nested, may differ in a resumed run."""
        parts = key.split(".")
        return any(_begins(parts, name.split(".")) for name in self.may_differ)

    def differences(
        self, old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
    ) -> Iterator[tuple[str, Any, Any]]:
        """Yield the names of the fields that differ, with dots where nested, and both values."""
        for key in {**new, **old}:
            name = f"{prefix}{key}"
            before, now = self._opened(name, old.get(key)), self._opened(name, new.get(key))
            if isinstance(before, Mapping) and isinstance(now, Mapping):
                yield from self.differences(before, now, f"{name}.")
            elif before != now or (key in old) != (key in new):
                yield name, old.get(key), new.get(key)

    def _opened(self, name: str, value: Any) -> Any:
        """Return a list by number where parts of its items may differ; else the value itself."""
        is_named = any(each.startswith(f"{name}.*.") for each in self.may_differ)
        if is_named and isinstance(value, list):
            return {str(number): item for number, item in enumerate(value)}
        return value


@final
@dataclass(frozen=True)
class RunRecord:
    """The content of a run's `run.json`.

    Attributes:
      kind: The command.
      config: Resolved config, as plain values.
      created: Time when the run was begun, UTC in ISO 8601; empty if an older version began it.
      versions: Versions of veldt and of its dependencies that began the run, by name.
      task_objects: Fingerprints of the tasks that were given as objects, by the names that the
        config has for them; None where all are named.
    """

    kind: Kind
    config: Mapping[str, Any]
    created: str = ""
    versions: Mapping[str, str] | None = None
    task_objects: Mapping[str, str] | None = None


@final
class RunDirectory:
    """A run's directory, which this process holds until it is closed.

    Readers are not kept out.
    """

    def __init__(
        self,
        path: Path,
        terms: Terms,
        config: object,
        task_objects: Mapping[str, str] | None = None,
    ):
        """Make and take a directory.

        Args:
          path: The directory.
          terms: Terms of the command.
          config: Config of the run, of class `terms.config_class`.
          task_objects: Fingerprints of the run's tasks that are objects, by name.

        Raises:
          FileError: It cannot be made, another process holds it, or a run of another kind is there.
        """
        self.path = path
        self._terms = terms
        self._task_objects = dict(task_objects or {}) or None
        self._config: dict[str, Any] = codec.to_plain(config)
        atomic_files.make_folder(path)
        self._lock = DirectoryLock(path)
        try:
            self._record = read_record(path)
            if self._record is not None and self._record.kind != terms.kind:
                raise errors.FileError(
                    f"{path} holds {_NOUNS[self._record.kind]}, not {_NOUNS[terms.kind]}: choose "
                    f"another {terms.option}"
                )
        except BaseException:
            self.close()
            raise

    @property
    def is_known(self) -> bool:
        """Whether `run.json` exists."""
        return self._record is not None

    def close(self) -> None:
        """Give the directory back."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, *, holds_run: bool, resume: bool) -> None:
        """Begin a run, or continue the one in the directory: check and write its config.

        Args:
          holds_run: Whether there are files of a run to continue.
          resume: Whether a run is to be continued.

        Raises:
          FileError: There is a run and it is not to be resumed, or it is another run, or the
            directory cannot be written.
        """
        if holds_run:
            if not resume:
                raise errors.FileError(
                    f"{self.path} already holds a run: continue it with --resume "
                    f"(resume=True in Python), or choose another {self._terms.option}"
                )
            self.check(read_config(self.path) if self._record is None else self._record.config)
        self.write(is_new=not holds_run)

    def check(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Check that a stored config is this run's, except for what may differ.

        Args:
          stored: Plain values, such as a run keeps beside its data.

        Returns:
          Stored config, with the fields that its version did not have.

        Raises:
          FileError: It is another run's; the message names the first field that differs.
        """
        terms = self._terms
        before = older_config.fill(terms.config_class, stored)
        for key, old, new in terms.differences(
            before, older_config.fill(terms.config_class, self._config)
        ):
            if terms.lets_differ(key):
                continue
            if key in terms.may_grow and isinstance(old, list) and new[: len(old)] == old:
                continue
            raise errors.FileError(
                f"{self.path} holds a run with {key} = {json.dumps(old)}, not {json.dumps(new)}"
                f"{self._remark()}. Choose another {terms.option}"
                + (f", or resume with {self.path / CONFIG_FILE}" if terms.has_config_file else "")
            )
        return before

    def write(self, *, is_new: bool) -> None:
        """Write `run.json`, and `config.yaml` if the command has it.

        Raises:
          FileError: They cannot be written.
        """
        if is_new:
            numpy = importlib.metadata.version("numpy")
            record = RunRecord(
                self._terms.kind,
                self._config,
                datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                {**versions.versions(), "numpy": numpy},
                self._task_objects,
            )
        else:
            old = self._record or RunRecord(self._terms.kind, {})
            record = dataclasses.replace(old, config=self._config)
        plain = codec.to_plain(record)
        if record.task_objects is None:
            del plain["task_objects"]  # An older version can read such a run.
        content = digest.signed({"format": FORMAT, **plain})
        atomic_files.write_text(self.path / RUN_FILE, json.dumps(content, indent=1) + "\n")
        if self._terms.has_config_file:
            text = yaml.safe_dump(self._config, sort_keys=False)
            atomic_files.write_text(self.path / CONFIG_FILE, text)
        self._record = record

    def _remark(self) -> str:
        terms = self._terms
        parts = [f"differ only in {', '.join(terms.may_differ)}"] if terms.may_differ else []
        if terms.may_grow:
            parts.append(f"have more {', '.join(terms.may_grow)} at the end")
        return f"; resumed, a run may {', and '.join(parts)}" if parts else ""


def kind_of(path: Path) -> Kind | None:
    """Return the kind of run in a directory, also one of an older version; None if none.

    Raises:
      FileError: The file with the kind is damaged, or of a newer version.
    """
    # `os.path`, because pathlib's own tests raise on names that the file system cannot have.
    if not os.path.isdir(path):
        return None
    if (record := read_record(path)) is not None:
        return record.kind
    if (path / _SEARCH_FILE).is_file():
        return "search"
    if (path / CONFIG_FILE).is_file() and any((path / name).exists() for name in _TRAINING_FILES):
        return "tune" if "tune" in read_config(path) else "meta-train"
    if (path / _WEIGHTS_FILE).is_file():
        return "meta-train"
    return "evaluate" if (path / _RESULTS_FILE).is_file() else None


def describe(path: Path) -> str:
    """Return in words what kind of run a directory holds: "it holds a tuning"."""
    kind = kind_of(path)
    return f"it holds {'no run' if kind is None else _NOUNS[kind]}"


def read_record(path: Path) -> RunRecord | None:
    """Return the content of a directory's `run.json`; None if there is none.

    Raises:
      FileError: It is damaged, or of a newer version.
    """
    file = path / RUN_FILE
    try:
        plain = digest.check(json.loads(file.read_text(encoding="utf-8")))
        if (written := plain.pop("format")) != FORMAT:
            raise errors.FileError(
                f"{file} was written by another version of veldt (format {written}, this one "
                f"reads {FORMAT}); use the veldt that wrote it, or begin a new run"
            )
        record = RunRecord(**plain)
        if record.kind not in get_args(Kind) or not isinstance(record.config, dict):
            raise ValueError("it says of no run what it is")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.FileError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.FileError(f"{file} is damaged ({error}); restore it from a copy") from None
    return record


def read_config(path: Path) -> Mapping[str, Any]:
    """Return the config of the run in a directory, as plain values.

    Raises:
      FileError: It cannot be read, or is not a config.
    """
    if (record := read_record(path)) is not None:
        return record.config
    file = path / CONFIG_FILE
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise errors.FileError(f"{file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise errors.FileError(f"{file} is no config of a run")
    return found


def _begins(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a field is what a name of `may_differ` stands for, or lies in it."""
    return len(parts) >= len(pattern) and all(
        wanted in ("*", part) for part, wanted in zip(parts, pattern, strict=False)
    )
