"""Going on with a metagradient whose process died, from a directory, to the same bits.

The directory holds the stored states, a file each, and one file that says where the walk is: the
number of actions done, the adjoint, the gradient so far, the hashes. That file is replaced as a
whole, and a state that it still needs is only removed after it was replaced; states are named by
their number, and to write one again gives the same bytes. So the process may be killed anywhere.
"""

import hashlib
import time
from pathlib import Path
from typing import Any, Final, Self, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.learned_opt.base import MetaParams
from veldt.meta import errors
from veldt.meta.replay import backward, plans, programs, state_hashing, states, storage
from veldt.meta.replay.task_training import Training
from veldt.tasks.common import compiling, types
from veldt.tasks.common.disk import atomic_files, lock

_PROGRESS: Final = "progress.arrays"


@final
class DirectoryJournal(backward.Journal):
    """A directory that one walk at a time is written down in; a context manager."""

    def __init__(
        self,
        directory: Path,
        training: Training,
        meta_params: MetaParams,
        plan: plans.Plan,
        *,
        save_every_s: float = 10.0,
    ) -> None:
        """Take a directory.

        Args:
          directory: Made if it is not there.
          training: What is walked.
          meta_params: Where.
          plan: How.
          save_every_s: The least time between two records: what a kill may cost. 0: each leaf.

        Raises:
          ReplayError: The directory is another walk's, or damaged.
          FileError: Another process works in it.
        """
        self._spec = programs.spec_of(training, meta_params)
        self._like = self._spec.abstract.moving, meta_params
        self._path = directory / _PROGRESS
        self._save_every_s = save_every_s
        self._saved_at = -float("inf")
        atomic_files.make_folder(directory)
        self._lock = lock.DirectoryLock(directory)
        try:
            self.storage = storage.DiskStorage(directory, self._spec)
            self._facts = {"training": _fingerprint(self._spec, training, meta_params, plan)}
            self._facts["plan"] = repr(plan)
            self._check_owner()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def restored(self) -> backward.Snapshot | None:
        if not self._path.exists():
            return None
        arrays, facts = storage.read_arrays(self._path)
        steps, hashes, outcome, *leaves = arrays
        num_adjoint = len(self._like[0]) if facts["at_end"] else 0
        adjoint = tuple(map(jnp.asarray, leaves[:num_adjoint]))
        grads = [jnp.asarray(leaf) for leaf in leaves[num_adjoint:]]
        return backward.Snapshot(
            num_actions=facts["num_actions"],
            outcome=jnp.asarray(outcome) if facts["at_end"] else None,
            adjoint=adjoint if facts["at_end"] else None,
            meta_grad=jax.tree.unflatten(jax.tree.structure(self._like[1]), grads),
            hashes=dict(zip(map(int, steps), hashes, strict=True)),
        )

    def record(self, snapshot: backward.Snapshot) -> bool:
        if time.monotonic() - self._saved_at < self._save_every_s:
            return False
        self._write(snapshot, done=False)
        self._saved_at = time.monotonic()
        return True

    def finished(self) -> tuple[types.Scalar, MetaParams] | None:
        """Return the outcome and the gradient of a walk that came to its end; None if not yet."""
        snapshot = self.restored()
        if snapshot is None or not storage.read_arrays(self._path)[1]["done"]:
            return None
        assert snapshot.outcome is not None
        return snapshot.outcome, snapshot.meta_grad

    def finish(self, walked: backward.Walked) -> None:
        """Keep the result of the walk, and remove the stored states."""
        snapshot = backward.Snapshot(0, walked.outcome, None, walked.meta_grad, {})
        self._write(snapshot, done=True)
        for step in self.storage.steps:
            self.storage.free(step)

    def _write(self, snapshot: backward.Snapshot, *, done: bool) -> None:
        adjoint = snapshot.adjoint
        if adjoint is None:  # So that what is done reads as what is at its end.
            zeros = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in self._like[0]]
            adjoint = tuple(zeros) if done else ()
        outcome = 0.0 if snapshot.outcome is None else snapshot.outcome
        num_leaves = len(self._spec.paths)
        hashes = np.array(list(snapshot.hashes.values()), np.uint32).reshape(-1, num_leaves)
        steps = np.array(list(snapshot.hashes), np.int64)
        arrays = [steps, hashes, outcome, *adjoint, *jax.tree.leaves(snapshot.meta_grad)]
        facts = {
            **self._facts,
            "num_actions": snapshot.num_actions,
            "at_end": snapshot.outcome is not None,
            "done": done,
        }
        storage.write_arrays(self._path, [np.asarray(array) for array in arrays], facts)

    def _check_owner(self) -> None:
        if not self._path.exists():
            return
        _, facts = storage.read_arrays(self._path)
        for what, ours in self._facts.items():
            if facts.get(what) != ours:
                raise errors.ReplayError(
                    f"{self._path.parent} holds another metagradient: its {what} differs (it is "
                    f"{facts.get(what)}, not {ours}). Its own training, meta-parameters, plan, "
                    "machine and versions go on with it; for this one use another directory."
                )


def _fingerprint(
    spec: states.StateSpec, training: Training, meta_params: MetaParams, plan: plans.Plan
) -> str:
    """Return a text that changes with what is trained: arrays, start, first step, outcome."""
    buffer = programs.empty_buffer(spec, plan.leaf_steps, training)
    state = programs.start(spec, training, meta_params)
    marks = np.full(programs.NUM_MARKS, -1, np.int32)
    _, after, before, _ = programs.forward(
        spec, training, meta_params, buffer, state, np.int32(0), np.int32(1), marks
    )
    finished = programs.finish(spec, training, meta_params, after)
    digest = hashlib.blake2b(digest_size=12)
    digest.update(
        repr((type(training).__qualname__, spec.paths, spec.shapes, spec.dtypes)).encode()
    )
    for tree in (jax.tree.leaves(training), jax.tree.leaves(meta_params), after, finished):
        digest.update(np.asarray(_hash(jax.tree.map(jnp.asarray, tree))).tobytes())
    digest.update(np.asarray(before).tobytes())
    return digest.hexdigest()


def _hash_leaves(tree: Any) -> jax.Array:
    return state_hashing.hash_leaves(tree)


_hash = compiling.jit(_hash_leaves)
