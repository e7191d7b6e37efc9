"""A folder of finished sweeps: what a resumed evaluation need not run again.

One `.npz` file per sweep, named for people and found by the plan's digest. Arrays only: a file from
a stranger is data and cannot run anything.
"""

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import numpy as np

from veldt.tasks import errors
from veldt.tasks.benchmark.protocol import SweepPlan
from veldt.tasks.benchmark.sweep import SPLITS, Sweep, check_steps

_ARRAYS: Final = ("rates", "seeds", "steps", "losses", "compile_s", "run_s")


@final
class Shelf:
    """Finished sweeps in a folder.

    Args:
      folder: made when the first sweep is kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, plan: SweepPlan, fingerprint: str) -> Path:
        """Where a plan's sweeps are kept."""
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", f"{plan.task}--{plan.candidate.name}")[:100]
        return self.folder / f"{name}--{plan.digest(fingerprint)}.npz"

    def find(self, plan: SweepPlan, fingerprint: str) -> tuple[Sweep, ...] | None:
        """A plan's sweeps, one per schedule; None if they are not here or cannot be read."""
        try:
            sweeps = read_sweeps(self.path(plan, fingerprint))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # A damaged file is as good as none: it is made again.
        return sweeps if _fits(sweeps, plan) else None

    def keep(self, plan: SweepPlan, fingerprint: str, sweeps: Sequence[Sweep]) -> None:
        """Writes a plan's sweeps, whole or not at all.

        Raises:
          TaskError: they cannot be written.
        """
        path = self.path(plan, fingerprint)
        draft = path.with_name(path.name + ".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as handle:
                write_sweeps(handle, sweeps)
                handle.flush()
                os.fsync(handle.fileno())
            draft.replace(path)
        except OSError as error:
            raise errors.TaskError(f"{path} cannot be written: {error.strerror}") from None


def write_sweeps(handle: object, sweeps: Sequence[Sweep]) -> None:
    """Writes sweeps as one `.npz` into an open binary file."""
    arrays = {
        f"{i}.{name}": np.asarray(getattr(sweep, name))
        for i, sweep in enumerate(sweeps)
        for name in _ARRAYS
    }
    np.savez_compressed(handle, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def read_sweeps(path: Path) -> tuple[Sweep, ...]:
    """Reads what `write_sweeps` wrote.

    Raises:
      OSError, ValueError, KeyError, zipfile.BadZipFile: it cannot be read, or is something else.
    """
    with np.load(path, allow_pickle=False) as arrays:
        count = len({key.partition(".")[0] for key in arrays.files})
        return tuple(
            Sweep(
                **{name: arrays[f"{i}.{name}"] for name in _ARRAYS[:4]},
                compile_s=float(arrays[f"{i}.compile_s"]),
                run_s=float(arrays[f"{i}.run_s"]),
            )
            for i in range(count)
        )


def _fits(sweeps: Sequence[Sweep], plan: SweepPlan) -> bool:
    steps = check_steps(plan.num_steps, plan.num_checks)
    shape = (len(plan.candidate.rates), len(plan.seeds), len(steps), len(SPLITS))
    return len(sweeps) == len(plan.schedules) and all(
        sweep.losses.shape == shape and tuple(sweep.steps) == steps for sweep in sweeps
    )
