"""Walking a training backwards by a plan: the driver of the compiled programs.

The forward pass records the hash of the state at each end of each leaf; whatever comes to one of
these states again, from storage or by running again, is held to it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.learned_opt.base import MetaParams
from veldt.meta.replay import plans, programs, state_hashing, states, storage
from veldt.meta.replay.task_training import Training
from veldt.tasks.common import types


@final
@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A walk between two actions of its plan.

    Attributes:
      num_actions: Number of actions that are done.
      outcome: Outcome of the run, float []; None before the end is reached.
      adjoint: Adjoint at the state that is to be reversed from; None before the end is reached.
      meta_grad: Gradient that has been gathered so far.
      hashes: Hashes of states, uint32 [number of leaves], by the number of the state.
    """

    num_actions: int
    outcome: types.Scalar | None
    adjoint: tuple[Any, ...] | None
    meta_grad: MetaParams
    hashes: dict[int, np.ndarray]


class Journal(Protocol):
    """A record of a walk, from which it can be resumed (`veldt.meta.replay.resume`)."""

    def restored(self) -> Snapshot | None:
        """Return where an earlier walk got to; None if there was none."""
        ...

    def record(self, snapshot: Snapshot) -> bool:
        """Write down where the walk is, or decide not to; returns whether it did."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a metagradient.

    Attributes:
      forward_steps: Number of steps run forward by this process, also those run again.
      reverse_steps: Number of steps reversed by this process.
      peak_stored_bytes: The most bytes that the storage held.
      buffer_bytes: Bytes of the leaf's buffer.
    """

    forward_steps: int
    reverse_steps: int
    peak_stored_bytes: int
    buffer_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most that states took at once, the few at work not counted."""
        return self.peak_stored_bytes + self.buffer_bytes


@final
@dataclasses.dataclass(frozen=True)
class Walked:
    """The result of a walk.

    Attributes:
      outcome: Float [].
      meta_grad: Shaped as the meta-parameters.
      cost: Cost of the walk.
    """

    outcome: types.Scalar
    meta_grad: MetaParams
    cost: Cost


def backward(
    training: Training,
    meta_params: MetaParams,
    plan: plans.Plan,
    store: storage.Storage,
    *,
    journal: Journal | None = None,
) -> Walked:
    """Run a training and walk it back.

    Args:
      training: Training that is run.
      meta_params: Meta-parameters that the training is run under, inexact arrays.
      plan: Plan for as many steps as the training has.
      store: Storage of the states.
      journal: Record of the walk; `store` must then outlive the process too.

    Raises:
      ReplayError: What was run again is not what was run before.
      ValueError: The plan is for another number of steps.
    """
    if plan.num_steps != int(training.num_steps):
        raise ValueError(f"the plan is for {plan.num_steps} steps, not {int(training.num_steps)}")
    return _Walk(training, meta_params, plan, store, journal).run()


@final
class _Walk:
    """The state of a walk: the present state of training, and what has been gathered."""

    def __init__(
        self,
        training: Training,
        meta_params: MetaParams,
        plan: plans.Plan,
        store: storage.Storage,
        journal: Journal | None,
    ) -> None:
        self._training, self._meta_params = training, meta_params
        self._plan, self._store, self._journal = plan, store, journal
        self._spec = programs.spec_of(training, meta_params)
        self._buffer = programs.empty_buffer(self._spec, plan.leaf_steps, training)
        self._buffer_bytes = states.num_bytes(self._buffer)
        self._state: states.Packed | None = None
        self._hashes: dict[int, np.ndarray] = {}
        # Hashes that have not been compared: for each call, states and their hashes.
        self._unchecked: list[tuple[list[int], tuple[jax.Array, jax.Array]]] = []
        self._outcome: types.Scalar | None = None
        self._adjoint: tuple[Any, ...] | None = None
        self._meta_grad = jax.tree.map(jnp.zeros_like, meta_params)
        self._unfreed: set[int] = set()  # States that the last snapshot still needs.
        self._forward_steps = self._reverse_steps = 0

    def run(self) -> Walked:
        num_done, actions = self._begin()
        for number, action in enumerate(actions, num_done + 1):
            self._do(action)
            in_forward = isinstance(action, plans.Store) and self._adjoint is None
            if in_forward or isinstance(action, plans.Reverse):
                self._record(number)
        assert self._adjoint is not None and self._outcome is not None
        self._check()
        meta_grad = programs.through_start(
            self._spec, self._training, self._meta_params, self._adjoint, self._meta_grad
        )
        cost = Cost(
            self._forward_steps, self._reverse_steps, self._store.peak_bytes, self._buffer_bytes
        )
        return Walked(self._outcome, jax.block_until_ready(meta_grad), cost)

    def _begin(self) -> tuple[int, Iterator[plans.Action]]:
        """Return how many actions an earlier walk has done, and the rest."""
        snapshot = None if self._journal is None else self._journal.restored()
        actions = self._plan.actions()
        if snapshot is None:
            self._state = programs.start(self._spec, self._training, self._meta_params)
            return 0, actions
        self._outcome, self._adjoint = snapshot.outcome, snapshot.adjoint
        self._meta_grad, self._hashes = snapshot.meta_grad, dict(snapshot.hashes)
        kept, done = set(), None
        for _ in range(snapshot.num_actions):
            done = next(actions)
            if isinstance(done, plans.Store):
                kept.add(done.step)
            elif isinstance(done, plans.Free):
                kept.discard(done.step)
        for step in set(self._store.steps) - kept:
            self._store.free(step)
        if isinstance(done, plans.Store):  # The stored state is the present one.
            self._state = self._store.get(done.step)
        return snapshot.num_actions, actions

    def _do(self, action: plans.Action) -> None:
        match action:
            case plans.Advance(first, last):
                self._advance(first, last)
                if last == self._plan.num_steps:
                    self._finish()
            case plans.Store(step):
                assert self._state is not None
                self._store.put(step, self._state)
                self._unfreed.discard(step)
            case plans.Load(step):
                self._state = self._store.get(step)
            case plans.Free(step):
                if self._journal is None:
                    self._store.free(step)
                else:
                    self._unfreed.add(step)
            case plans.Reverse(first, last):
                self._reverse(first, last)

    def _advance(self, first: int, last: int) -> None:
        """Run the state at hand on, in calls of so many leaves as one can hash the ends of."""
        size = self._plan.leaf_steps
        stride = size * (programs.NUM_MARKS // 2 - 1)
        while first < last:
            until = min(last, first + stride)
            self._call_forward(first, until)
            first = until

    def _call_forward(self, first: int, last: int) -> None:
        marks = self._marks(first, last)
        padded = np.full(programs.NUM_MARKS, -1, np.int32)
        padded[: len(marks)] = marks
        self._buffer, self._state, before, hashes = programs.forward(
            self._spec,
            self._training,
            self._meta_params,
            self._buffer,
            self._state,
            np.int32(first),
            np.int32(last),
            padded,
        )
        self._unchecked.append(([first, *marks], (before, hashes)))
        self._check(lag=1)
        self._forward_steps += last - first

    def _marks(self, first: int, last: int) -> list[int]:
        """Return the states from `first` (not counted) to `last` that end a leaf's run."""
        size, num_steps = self._plan.leaf_steps, self._plan.num_steps
        ends = range((first // size + 1) * size, last + size + 1, size)
        marks = {min(end, num_steps) - i for end in ends for i in (0, 1)}
        return sorted(mark for mark in marks | {last} if first < mark <= last)

    def _check(self, *, lag: int = 0) -> None:
        """Compare what calls have hashed, but for the last `lag` calls, which may still run."""
        while len(self._unchecked) > lag:
            steps, arrays = self._unchecked.pop(0)
            before, hashes = jax.device_get(arrays)
            for step, found in zip(steps, [before, *hashes], strict=False):
                expected = self._hashes.setdefault(step, np.array(found))
                state_hashing.check(step, expected, found, self._spec.packed_paths)

    def _finish(self) -> None:
        self._outcome, self._adjoint, self._meta_grad = programs.finish(
            self._spec, self._training, self._meta_params, self._state
        )

    def _reverse(self, first: int, last: int) -> None:
        # Nothing is run where a leaf has one step, but what was loaded is hashed even then.
        self._call_forward(first, last - 1)
        before_last = self._state
        if self._adjoint is None:
            self._call_forward(last - 1, last)
            self._finish()
        self._state = None
        self._buffer, self._adjoint, self._meta_grad = programs.reverse(
            self._spec,
            self._training,
            self._meta_params,
            self._buffer,
            before_last,
            self._adjoint,
            self._meta_grad,
            np.int32(first),
            np.int32(last),
        )
        self._reverse_steps += last - first

    def _record(self, num_actions: int) -> None:
        """Record the walk; only then may earlier states be freed."""
        if self._journal is None:
            return
        self._check()  # Nothing is written down that has not been compared.
        snapshot = Snapshot(
            num_actions, self._outcome, self._adjoint, self._meta_grad, self._hashes
        )
        if self._journal.record(snapshot):
            while self._unfreed:
                self._store.free(self._unfreed.pop())
