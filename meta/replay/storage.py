"""Where states are kept between the forward and the backward pass: device, host, disk, or tiers.

A plan stores states like a stack: the later a state is in the run, the sooner it is needed. So a
tiered storage keeps the latest nearest: when the device's share is full, its earliest state moves
down to the host, and the host's to the disk.

On disk a state is one file of raw arrays behind a checksum, written whole or not at all. Nothing in
it is executed when it is read.
"""

import abc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, final

import jax
import numpy as np

from veldt.meta import errors
from veldt.meta.replay import states
from veldt.tasks.common.disk import atomic_files

_MAGIC: Final = b"veldt arrays 1\n"
_DIGEST_SIZE: Final = 32


class Storage(abc.ABC):
    """A storage of states by number. Subclasses are final.

    Attributes:
      peak_bytes: The most that was kept at once.
    """

    peak_bytes: int = 0

    @abc.abstractmethod
    def put(self, step: int, state: states.Packed) -> None:
        """Keep a state; one of that number that is kept already is replaced."""

    @abc.abstractmethod
    def get(self, step: int) -> states.Packed:
        """Return a kept state, its arrays on the device; it stays.

        Raises:
          KeyError: It is not kept.
          ReplayError: It is damaged.
        """

    @abc.abstractmethod
    def free(self, step: int) -> None:
        """Forget a state that is kept."""

    @property
    @abc.abstractmethod
    def steps(self) -> tuple[int, ...]:
        """The numbers of what is kept, in order."""

    @property
    @abc.abstractmethod
    def num_bytes(self) -> int:
        """Bytes of what is kept."""


class _MemoryStorage(Storage):
    """A storage in a dictionary; subclasses say on which side."""

    def __init__(self) -> None:
        self._states: dict[int, states.Packed] = {}

    def put(self, step: int, state: states.Packed) -> None:
        self._states[step] = self._kept(state)
        self.peak_bytes = max(self.peak_bytes, self.num_bytes)

    def get(self, step: int) -> states.Packed:
        return self._given(self._states[step])

    def free(self, step: int) -> None:
        del self._states[step]

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted(self._states))

    @property
    def num_bytes(self) -> int:
        return sum(map(states.num_bytes, self._states.values()))

    @abc.abstractmethod
    def _kept(self, state: states.Packed) -> states.Packed:
        """Return a state as it is kept."""

    @abc.abstractmethod
    def _given(self, state: states.Packed) -> states.Packed:
        """Return what is kept as it is used."""


@final
class DeviceStorage(_MemoryStorage):
    """A storage in the memory of the device, where states are already."""

    def _kept(self, state: states.Packed) -> states.Packed:
        return state

    def _given(self, state: states.Packed) -> states.Packed:
        return state


@final
class HostStorage(_MemoryStorage):
    """A storage in the memory of the host."""

    def _kept(self, state: states.Packed) -> states.Packed:
        # A copy: on the CPU the device's arrays are the host's.
        return jax.tree.map(lambda x: np.array(x, copy=True), state)

    def _given(self, state: states.Packed) -> states.Packed:
        return jax.device_put(state)


@final
class DiskStorage(Storage):
    """A storage in a directory, one file per state; files that are there already count as kept."""

    def __init__(self, directory: Path, spec: states.StateSpec) -> None:
        self._directory = directory
        self._spec = spec
        atomic_files.make_folder(directory)

    def put(self, step: int, state: states.Packed) -> None:
        write_arrays(self._path(step), jax.device_get(jax.tree.leaves(state)), {"step": step})
        self.peak_bytes = max(self.peak_bytes, self.num_bytes)

    def get(self, step: int) -> states.Packed:
        path = self._path(step)
        if not path.exists():
            raise KeyError(step)
        arrays, _ = read_arrays(path)
        expected, treedef = jax.tree.flatten(self._spec.abstract)
        if [(a.shape, a.dtype) for a in arrays] != [(e.shape, e.dtype) for e in expected]:
            raise errors.ReplayError(f"{path} is no state of this training; use another directory")
        return jax.device_put(jax.tree.unflatten(treedef, arrays))

    def free(self, step: int) -> None:
        self._path(step).unlink()

    @property
    def steps(self) -> tuple[int, ...]:
        found = self._directory.glob("state-*.arrays")
        return tuple(sorted(int(path.stem.removeprefix("state-")) for path in found))

    @property
    def num_bytes(self) -> int:
        return len(self.steps) * self._spec.num_bytes

    def _path(self, step: int) -> Path:
        return self._directory / f"state-{step}.arrays"


@final
class TieredStorage(Storage):
    """A storage with the latest states in the first tier, and earlier ones in the tiers below."""

    def __init__(self, tiers: Sequence[Storage], capacities: Sequence[int]) -> None:
        """Make a storage of tiers.

        Args:
          tiers: The nearest first.
          capacities: How many states each may keep, but for the last, which takes the rest.

        Raises:
          ValueError: There is not one capacity less than tiers, or one is negative.
        """
        if len(capacities) != len(tiers) - 1 or min(capacities, default=0) < 0:
            raise ValueError(
                f"{len(tiers)} tiers need {len(tiers) - 1} capacities of 0 or more, not "
                f"{list(capacities)}"
            )
        self._tiers = tuple(tiers)
        self._capacities = tuple(capacities)

    def put(self, step: int, state: states.Packed) -> None:
        for tier in self._tiers:
            if step in tier.steps:
                tier.free(step)
        for i, tier in enumerate(self._tiers):
            if i == len(self._capacities) or len(tier.steps) < self._capacities[i]:
                tier.put(step, state)
                break
            lowest = min(tier.steps, default=step)
            if lowest < step:
                moved = tier.get(lowest)
                tier.free(lowest)
                tier.put(step, state)
                step, state = lowest, moved
        self.peak_bytes = max(self.peak_bytes, self.num_bytes)

    def get(self, step: int) -> states.Packed:
        return self._tier_of(step).get(step)

    def free(self, step: int) -> None:
        self._tier_of(step).free(step)

    def _tier_of(self, step: int) -> Storage:
        for tier in self._tiers:
            if step in tier.steps:
                return tier
        raise KeyError(step)

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted(step for tier in self._tiers for step in tier.steps))

    @property
    def num_bytes(self) -> int:
        return sum(tier.num_bytes for tier in self._tiers)


def write_arrays(path: Path, arrays: Sequence[np.ndarray], facts: dict[str, Any]) -> None:
    """Write arrays of any of JAX's dtypes to a file, whole or not at all.

    Args:
      path: The file.
      arrays: What is written, in this order.
      facts: Plain JSON values beside them.
    """
    arrays = [np.ascontiguousarray(array).reshape(np.shape(array)) for array in arrays]
    described = [{"dtype": a.dtype.name, "shape": list(a.shape)} for a in arrays]
    header = json.dumps({"arrays": described, "facts": facts}).encode() + b"\n"
    body = header + b"".join(array.tobytes() for array in arrays)
    digest = hashlib.blake2b(body, digest_size=_DIGEST_SIZE).digest()
    atomic_files.write_bytes(path, _MAGIC + digest + body)


def read_arrays(path: Path) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Read what `write_arrays` wrote.

    Raises:
      ReplayError: The file is not whole.
    """
    content = path.read_bytes()
    body_at = len(_MAGIC) + _DIGEST_SIZE
    body = memoryview(content)[body_at:]
    digest = hashlib.blake2b(body, digest_size=_DIGEST_SIZE).digest()
    if content[:body_at] != _MAGIC + digest:
        raise errors.ReplayError(
            f"{path} is damaged: its checksum is wrong. Remove the directory and begin again."
        )
    header_end = content.index(b"\n", body_at) + 1
    header = json.loads(content[body_at:header_end])
    arrays, offset = [], header_end
    for described in header["arrays"]:
        dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(content, dtype, count, offset).reshape(shape))
        offset += count * dtype.itemsize
    return arrays, header["facts"]
