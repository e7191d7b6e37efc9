"""The logs of a meta-training: JSON objects, one a line, and TensorBoard's events.

`metrics.jsonl` in the run directory has a line for each update and one for each meta-
validation. A run that was killed and continues from its last checkpoint drops the lines
written after that checkpoint, so that each update has one line.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

from veldt.meta import errors
from veldt.tasks.common.disk import atomic_files

FILE_NAME = "metrics.jsonl"
EVENTS_FOLDER = "tensorboard"

Line = TypeVar("Line")


class Log(Protocol):
    """A log of a meta-training."""

    def write(self, kind: str, update: int, figures: Mapping[str, Any]) -> None:
        """Write the figures of one kind ("update", "check") after an update."""
        ...

    def flush(self) -> None:
        """Write everything so far to disk."""
        ...

    def close(self) -> None:
        """End the log."""
        ...


@final
class JsonLog:
    """A log of JSON lines; numbers that are not finite become null."""

    def __init__(self, run_dir: Path, last: Mapping[str, int]):
        """Continue a log; lines after the last checkpoint are dropped.

        Args:
          run_dir: Folder of the file.
          last: Last update that is kept, by kind.
        """
        self._path = run_dir / FILE_NAME
        kept = [line for line in read(run_dir) if line["update"] <= last.get(line["kind"], -1)]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        atomic_files.write_bytes(self._path, text.encode())
        self._handle = self._path.open("a", encoding="utf-8")

    def write(self, kind: str, update: int, figures: Mapping[str, Any]) -> None:
        line = {"kind": kind, "update": update, **figures}
        self._handle.write(json.dumps(finite(line)) + "\n")

    def flush(self) -> None:
        self._handle.flush()

    def close(self) -> None:
        self._handle.close()


@final
class TensorBoardLog:
    """A log of TensorBoard's event files; needs `tensorboardX`, the extra `veldt[tensorboard]`."""

    def __init__(self, run_dir: Path, update: int):
        """Continue after an update; TensorBoard drops what an earlier session wrote after it.

        Raises:
          MetaTrainError: The package is missing.
        """
        folder = str(run_dir / EVENTS_FOLDER)
        self._writer = summary_writer()(folder, purge_step=update + 1)

    def write(self, kind: str, update: int, figures: Mapping[str, Any]) -> None:
        for name, value in figures.items():
            if isinstance(value, Mapping):
                self.write(f"{kind}/{name}", update, value)
            elif isinstance(value, list | tuple):
                self.write(f"{kind}/{name}", update, {str(i): each for i, each in enumerate(value)})
            elif isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, update)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def summary_writer() -> Any:
    """Return TensorBoard's `SummaryWriter`.

    Raises:
      MetaTrainError: The package is missing.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise errors.MetaTrainError(
            "tensorboard: true needs the package tensorboardX: pip install 'veldt[tensorboard]'"
        ) from None
    return SummaryWriter


def read(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's `metrics.jsonl`; nothing if there is none.

    A last line that a killed process left half written is skipped.

    Raises:
      MetaTrainError: Another line is no JSON object with a kind and an update.
    """
    path = run_dir / FILE_NAME
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    complete, _, _ = text.rpartition("\n")
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            found = json.loads(line)
            if not (isinstance(found["update"], int) and isinstance(found["kind"], str)):
                raise TypeError
        except (ValueError, TypeError, KeyError):
            raise errors.MetaTrainError(f"{path}:{number}: not a line of this log") from None
        yield found


def parse(
    run_dir: Path, kinds: Mapping[str, Callable[[Mapping[str, Any]], Line]]
) -> dict[str, list[Line]]:
    """Return the lines of a run's log by kind, each as a value of its own class.

    Args:
      run_dir: Directory of the run.
      kinds: Functions that make a value of a line, by the line's kind; other kinds are left out.

    Raises:
      MetaTrainError: A line lacks a figure, or has one that is not a number; or as `read`.
    """
    found: dict[str, list[Line]] = {kind: [] for kind in kinds}
    for line in read(run_dir):
        if (make := kinds.get(line["kind"])) is None:
            continue
        try:
            found[line["kind"]].append(make(line))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise errors.MetaTrainError(
                f"{run_dir / FILE_NAME}: the {line['kind']} {line['update']} is not as this log "
                f"has it ({type(error).__name__}: {error})"
            ) from error
    return found


def number(value: Any) -> float:
    """Return a figure of a line; NaN where it is null, since it was not finite."""
    return math.nan if value is None else float(value)


def finite(value: Any) -> Any:
    """Return plain values with null for every number that is not finite: what JSON can hold."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
