"""A folder of finished sweeps and measurements, which a resumed evaluation does not repeat.

There is one file for each, with a name for people and the digest of all that decides its content:
`.npz` for the curves of a sweep, `.json` for the cost of a step. There are only arrays and text: a
file from a stranger is data and cannot run anything.
"""

import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, final

import numpy as np

from veldt.tasks.benchmark.protocol.candidates import Candidate
from veldt.tasks.benchmark.protocol.protocol import SweepPlan
from veldt.tasks.benchmark.runs.costs import Cost
from veldt.tasks.benchmark.runs.sweep import SPLITS, Sweep, check_steps
from veldt.tasks.common.disk import atomic_files, digest, npz
from veldt.tasks.common.disk.lock import DirectoryLock

_ARRAYS: Final = ("rates", "seeds", "steps", "losses", "compile_s", "run_s")
_HOLLOW: Final = "hollow"  # Files of older versions have none.


@final
class RunCache:
    """Finished sweeps in a folder.

    Args:
      folder: Folder, which is made when the first sweep is kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def take(self) -> DirectoryLock:
        """Take the folder for this process, until the lock that is returned is closed.

        The folder is made if it does not exist.

        Raises:
          FileError: Another process has it, or it cannot be written.
        """
        atomic_files.make_folder(self.folder)
        return DirectoryLock(self.folder)

    def path(self, plan: SweepPlan, fingerprint: str) -> Path:
        """Return the file of a plan's sweeps."""
        name = _file_name(plan.task, plan.candidate)
        return self.folder / f"{name}--{plan.digest(fingerprint)}.npz"

    def cost_path(self, task: str, candidate: Candidate, fingerprint: str) -> Path:
        """Return the file of a measured cost."""
        rate = candidate.rates[len(candidate.rates) // 2]
        text = json.dumps([task, fingerprint, candidate.identity, f"{rate:.6e}"])
        place = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.folder / f"{_file_name(task, candidate)}--{place}.json"

    def find(self, plan: SweepPlan, fingerprint: str) -> tuple[Sweep, ...] | None:
        """Return a plan's sweeps, one per schedule; None if they are missing or cannot be read."""
        try:
            sweeps = read_sweeps(self._known_as(self.path(plan, fingerprint)))
            return sweeps if _fits(sweeps, plan) else None
        except Exception:  # A damaged zip raises many kinds.
            return None  # A damaged file counts as missing: it is made again.

    def keep(self, plan: SweepPlan, fingerprint: str, sweeps: Sequence[Sweep]) -> None:
        """Write a plan's sweeps, whole or not at all.

        Raises:
          FileError: They cannot be written.
        """
        self.write_sweeps(self.path(plan, fingerprint), sweeps)

    def write_sweeps(self, path: Path, sweeps: Sequence[Sweep]) -> None:
        """Write sweeps to the file that `path` named before they were run.

        Raises:
          FileError: They cannot be written.
        """
        content = io.BytesIO()
        write_sweeps(content, sweeps)
        self._write(path, content.getvalue())

    def find_cost(self, task: str, candidate: Candidate, fingerprint: str) -> Cost | None:
        """Return a measured cost; None if it is missing or cannot be read."""
        try:
            path = self._known_as(self.cost_path(task, candidate, fingerprint))
            data = digest.check(json.loads(path.read_bytes()))
            cost = Cost(float(data["step_ratio"]), float(data["state_bytes"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cost if math.isfinite(cost.step_ratio) and cost.step_ratio > 0 else None

    def keep_cost(self, task: str, candidate: Candidate, fingerprint: str, cost: Cost) -> None:
        """Write a measured cost, whole or not at all.

        Raises:
          FileError: It cannot be written.
        """
        self.write_cost(self.cost_path(task, candidate, fingerprint), cost)

    def write_cost(self, path: Path, cost: Cost) -> None:
        """Write a cost to the file that `cost_path` named before it was measured.

        Raises:
          FileError: It cannot be written.
        """
        self._write(path, json.dumps(digest.signed(dataclasses.asdict(cost))).encode())

    def _known_as(self, path: Path) -> Path:
        """Return the file with this digest, with any name of the candidate."""
        place = path.name.rpartition("--")[2]
        return next(iter(self.folder.glob(f"*--{place}")), path)

    def _write(self, path: Path, content: bytes) -> None:
        atomic_files.make_folder(self.folder)
        atomic_files.write_bytes(path, content)


def _file_name(task: str, candidate: Candidate) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", f"{task}--{candidate.name}")[:100]


def write_sweeps(handle: BinaryIO, sweeps: Sequence[Sweep]) -> None:
    """Write sweeps as one `.npz` into an open binary file."""
    arrays = {
        f"{i}.{name}": np.asarray(getattr(sweep, name))
        for i, sweep in enumerate(sweeps)
        for name in (*_ARRAYS, *((_HOLLOW,) if sweep.hollow is not None else ()))
    }
    np.savez_compressed(handle, allow_pickle=False, **arrays)


def read_sweeps(path: Path) -> tuple[Sweep, ...]:
    """Return the sweeps that `write_sweeps` wrote.

    Raises:
      Exception: Of many kinds, if they cannot be read or are something else.
    """
    arrays = npz.read(path.read_bytes())
    count = len({key.partition(".")[0] for key in arrays})
    return tuple(
        Sweep(
            **{name: arrays[f"{i}.{name}"] for name in _ARRAYS[:4]},
            compile_s=float(arrays[f"{i}.compile_s"]),
            run_s=float(arrays[f"{i}.run_s"]),
            hollow=arrays.get(f"{i}.{_HOLLOW}"),
        )
        for i in range(count)
    )


def _fits(sweeps: Sequence[Sweep], plan: SweepPlan) -> bool:
    steps = check_steps(plan.num_steps, plan.num_checks)
    shape = (len(plan.candidate.rates), len(plan.seeds), len(steps), len(SPLITS))
    return len(sweeps) == len(plan.schedules) and all(
        sweep.losses.shape == shape
        and sweep.losses.dtype == np.float32
        and (
            sweep.hollow is None
            or (sweep.hollow.shape == shape[:2] and sweep.hollow.dtype == np.bool_)
        )
        and np.array_equal(sweep.steps, steps)
        and np.array_equal(sweep.seeds, plan.seeds)
        and np.allclose(sweep.rates, plan.candidate.rates, rtol=1e-6)
        for sweep in sweeps
    )
