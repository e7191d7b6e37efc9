"""Checkpoints of a meta-training, by Orbax: complete or absent, whenever the process is killed.

Orbax writes a step beside its place and moves it there when all of it is on disk. A checkpoint is
a tree of arrays and text; the last two are kept, so that a damaged disk block costs a minute.
A digest of all of it is kept beside it, so that a run never continues from a damaged checkpoint.
Checkpoints of older versions have none, and only Orbax checks them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import jax
import numpy as np

from veldt.meta import errors

FOLDER = "checkpoints"
_KEPT = 2
# Forms of the arrays: 3 as a tree; 2 by names with dots, `stream.3.1.0`; 1, which
# checkpoints without a form have, as 2, and states of learned optimizers as trees of
# `accumulators.Moments` and not as `Moments` of trees.
FORM = 3
_GROUPED = ("stream", "version")  # Their names in form 1 and 2 have more parts than two.


@final
@dataclasses.dataclass(frozen=True)
class Stored:
    """The content of a checkpoint.

    Attributes:
      arrays: Tree of mappings and lists.
      facts: Plain JSON values, by name.
      form: Form of the states in the arrays; `FORM` unless an older version wrote them.
      config: Config of the run, as JSON has it; None in checkpoints of older versions.
    """

    arrays: Mapping[str, Any]
    facts: Mapping[str, Any]
    form: int = FORM
    config: Mapping[str, Any] | None = None


@final
class Checkpoints:
    """The checkpoints of a run directory; a context manager."""

    def __init__(self, run_dir: Path):
        # Orbax takes half a second to import, and reports on its logger what it does.
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
        """Keep the state after an update, unless one of this update is kept already."""
        if update == self.latest:
            return
        args = self._ocp.args
        # Orbax takes no array without elements: another of its type stands in its place.
        empty = {
            name: [array.dtype.name, list(array.shape)]
            for name, array in _by_name(stored.arrays).items()
            if not array.size
        }
        full = jax.tree.map(
            lambda array: array if array.size else np.zeros(1, array.dtype), dict(stored.arrays)
        )
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
            arrays: dict[str, Any] = jax.tree.map(np.asarray, found["arrays"])
            wanted = plain.pop("digest", None)
            if wanted is not None and wanted != _digest(arrays, plain):
                raise ValueError("its content is not what was written (its digest is wrong)")
            form, config = int(plain.get("form", 1)), plain.get("config")
            if form > FORM:
                raise ValueError(f"a newer veldt wrote it (form {form}; this one reads {FORM})")
            empty = {
                name: np.zeros(shape, dtype) for name, (dtype, shape) in plain["empty"].items()
            }
            if form < FORM:
                arrays = _as_tree({**arrays, **empty})
            else:
                arrays = jax.tree_util.tree_map_with_path(
                    lambda path, array: empty.get(_name(path), array), arrays
                )
            return Stored(arrays, dict(plain["facts"]), form, config)
        except Exception as error:
            raise errors.MetaTrainError(
                f"the checkpoint {self._folder / str(step)} cannot be read: "
                f"{type(error).__name__}: {error}; without its folder the one before is used"
            ) from error


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_name(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a tree's arrays by their places: `stream/3/1/0`."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(arrays))
    return {_name(path): array for path, array in leaves}


def _as_tree(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the tree of arrays that a checkpoint of form 1 or 2 has by names with dots."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        group, _, rest = name.partition(".")
        keys = rest.split(".") if group in _GROUPED else [rest]
        node = tree.setdefault(group, {})
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = array
    return {group: _with_lists(node) for group, node in tree.items()}


def _with_lists(node: Any) -> Any:
    """Return a tree with lists for the mappings whose keys number arrays."""
    if not isinstance(node, dict):
        return node
    if any(isinstance(child, dict) for child in node.values()):
        return {key: _with_lists(child) for key, child in node.items()}
    if set(node) == {str(i) for i in range(len(node))}:
        return [node[str(i)] for i in range(len(node))]
    return node


def _digest(arrays: Mapping[str, Any], beside: Mapping[str, Any]) -> str:
    """Return a digest of a checkpoint's content."""
    found = hashlib.blake2b(json.dumps(beside, sort_keys=True).encode(), digest_size=16)
    named = _by_name(arrays)
    for name in sorted(named):
        array = np.ascontiguousarray(named[name])
        found.update(f"{name} {array.dtype.name} {named[name].shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
