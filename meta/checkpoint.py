"""Checkpoints of a meta-training, by Orbax: whole or not there, whenever the process is killed.

Orbax writes a step beside its place and moves it there when all of it is on disk. A checkpoint is
a tree of plain arrays and text; the last two are kept, so that a damaged disk block costs a minute.
A digest of all of it is kept beside it: what was not written is never gone on from. Checkpoints of
older versions have none, and are checked by what Orbax checks alone.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import numpy as np

from veldt.meta import errors

FOLDER = "checkpoints"
_KEPT = 2
# How the states of learned optimizers lie in the arrays: 2 as `accumulators.Moments` of trees, 1 as
# trees of `Moments`, which checkpoints without a form have.
FORM = 2


@final
@dataclasses.dataclass(frozen=True)
class Stored:
    """What a checkpoint holds.

    Attributes:
      arrays: By name.
      facts: Plain JSON values, by name.
      form: How states lie in the arrays; `FORM` unless an older version wrote them.
      config: The run's, as JSON has it; None where an older version wrote the checkpoint.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    form: int = FORM
    config: Mapping[str, Any] | None = None


@final
class Checkpoints:
    """The checkpoints of a run directory; a context manager."""

    def __init__(self, run_dir: Path):
        # Orbax takes half a second to import, and says on its logger what it does.
        import orbax.checkpoint as ocp

        self._ocp: Any = ocp
        self._folder = run_dir.resolve() / FOLDER
        options = ocp.CheckpointManagerOptions(
            max_to_keep=_KEPT,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The last update that a checkpoint was taken after; None if there is none."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, update: int, stored: Stored) -> None:
        """Keep the state after an update; what is kept of the same update stays as it is."""
        if update == self.latest:
            return
        args = self._ocp.args
        full = {name: array for name, array in stored.arrays.items() if array.size}
        # Orbax takes no array without elements.
        empty = {
            name: [array.dtype.name, list(array.shape)]
            for name, array in stored.arrays.items()
            if not array.size
        }
        beside = {
            "facts": dict(stored.facts),
            "empty": empty,
            "form": FORM,
            "config": stored.config and dict(stored.config),
        }
        beside["digest"] = _digest(full, beside)
        self._manager.save(
            update,
            args=args.Composite(arrays=args.StandardSave(full), facts=args.JsonSave(beside)),
        )
        self._manager.wait_until_finished()

    def restore(self) -> Stored:
        """Return the last checkpoint.

        Raises:
          MetaTrainError: It cannot be read.
        """
        args, step = self._ocp.args, self.latest
        try:
            found = self._manager.restore(
                step, args=args.Composite(arrays=args.StandardRestore(), facts=args.JsonRestore())
            )
            plain = json.loads(json.dumps(found["facts"]))
            arrays = {name: np.asarray(array) for name, array in found["arrays"].items()}
            wanted = plain.pop("digest", None)
            if wanted is not None and wanted != _digest(arrays, plain):
                raise ValueError("what it holds is not what was written (its digest is wrong)")
            for name, (dtype, shape) in plain["empty"].items():
                arrays[name] = np.zeros(shape, dtype)
            form, config = int(plain.get("form", 1)), plain.get("config")
            return Stored(arrays, dict(plain["facts"]), form, config)
        except Exception as error:
            raise errors.MetaTrainError(
                f"the checkpoint {self._folder / str(step)} cannot be read: "
                f"{type(error).__name__}: {error}; without its folder the one before is used"
            ) from error


def _digest(arrays: Mapping[str, np.ndarray], beside: Mapping[str, Any]) -> str:
    """Return a digest of what a checkpoint holds."""
    found = hashlib.blake2b(json.dumps(beside, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.name} {arrays[name].shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
