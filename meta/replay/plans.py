"""Plans: which states of a run to keep, and what to run again, so that it can be walked backwards.

A run of T steps goes through states 0..T. To walk back, the state before each step is needed, last
first. A plan cuts the run into n *leaves* of L steps (the last may be shorter). A leaf is reversed
in one go: its steps are run once more, with all their states in a buffer of L, and the adjoint goes
back through them. What plans differ in is how they come to the start of each leaf:

| plan        | L       | states stored        | forward runs in all    |
|-------------|---------|----------------------|------------------------|
| store-all   | T       | 0                    | 1                      |
| square root | sqrt(T) | sqrt(T)              | 2                      |
| binomial    | any     | any c                | least for n and c      |
| k-ary       | k       | (k - 1) log_k(T / k) | 2 + log_k(T / k) or so |

Binomial is Griewank & Walther 2000, "Algorithm 799: revolve", which splits n leaves with c stored
states where the closed form says; the first two are its ends. K-ary is the lazy tree of REPLAY
(arXiv 2503.13751): training is run to its end, then each segment is cut into k, down to leaves of
k. (Below the first cut, the last part is reversed as soon as its start is reached, where a
literal reading runs to the segment's end first.)

Nothing here knows JAX. A plan is a lazy stream of actions: 100,000 steps are planned as they run.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import ClassVar, Final, TypeAlias, final

from veldt.meta.replay import revolve

WORKING_STATES: Final = 6
"""States beside the stored ones and the leaf's: one at hand, the adjoint before and after, and what
XLA copies on the way (measured on the CPU: 4 in the forward program, 6 in the reverse)."""

_CALL_COST: Final = 4.0
"""What a leaf costs beside its steps, in steps: a few calls of compiled programs, about a
millisecond on the CPU. Of a step of 30 microseconds that is more, and of a large one nothing: then
longer leaves re-run a little more than need be."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Advance:
    """Run from the present state, `first`, to state `last`."""

    first: int
    last: int


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """Keep the present state, `step`."""

    step: int


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """Fetch state `step`, which is stored and stays so."""

    step: int


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Free:
    """Forget the stored state `step`."""

    step: int


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Reverse:
    """Take the adjoint from `last` back to `first`, which is the present state."""

    first: int
    last: int


Action: TypeAlias = Advance | Store | Load | Free | Reverse


@final
@dataclasses.dataclass(frozen=True, slots=True)
class _Segment:
    """Leaves `first` to `last`, to be reversed with `slots` stored states, with the first one."""

    first: int
    last: int
    slots: int = 0

    @property
    def size(self) -> int:
        return self.last - self.first


class Plan(abc.ABC):
    """How a run of `num_steps` is walked backwards. Subclasses are final, frozen dataclasses.

    Attributes:
      num_steps: Number of steps of the run, T.
      leaf_steps: Number of steps of a leaf, L, the size of the buffer.
    """

    num_steps: int
    leaf_steps: int
    _sweeps: ClassVar[bool] = False  # Whether training is run to its end before anything else.

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name in tables."""

    @property
    @abc.abstractmethod
    def peak_states(self) -> int:
        """The largest number of states stored at once, the leaf's buffer not included."""

    @property
    @abc.abstractmethod
    def _advanced_leaves(self) -> int:
        """How many leaves are run over by `Advance`, counted as often as they are.

        Without those that are run over only to reach the end.
        """

    @abc.abstractmethod
    def _split(self, segment: _Segment) -> list[_Segment]:
        """Part a segment of two leaves or more; the parts are in order."""

    @property
    def num_leaves(self) -> int:
        """The number of leaves, n."""
        return -(-self.num_steps // self.leaf_steps)

    @property
    def forward_steps(self) -> int:
        """How many steps are run forward in all, the first time included."""
        # The last leaf, the only one that may be short, is run over once at most, to the end.
        # Leaves are run up to the state before their last step, or to the end, for the outcome.
        in_leaves = self.num_steps - self.num_leaves
        if not self._sweeps or self.num_leaves == 1:
            return self._advanced_leaves * self.leaf_steps + in_leaves + 1
        last = self._split(self._root())[-1]
        swept = self.num_steps - self._step(last.first)
        return self._advanced_leaves * self.leaf_steps + in_leaves + swept

    @property
    def rerun_steps(self) -> int:
        """How many steps are run again."""
        return self.forward_steps - self.num_steps

    @property
    def memory_states(self) -> int:
        """The largest number of states held at once: stored, and in the leaf's buffer."""
        return self.peak_states + self.leaf_steps

    def describe(self, state_bytes: int | None = None) -> str:
        """Return one line that says what the plan does and costs.

        Args:
          state_bytes: Size of one state; where given, the line says the memory too.
        """
        memory = (
            "" if state_bytes is None else f" ({self.memory_states * state_bytes / 2**20:,.1f} MiB)"
        )
        return (
            f"{self.name} plan for {self.num_steps:,} steps: {self.num_leaves:,} "
            f"{'leaf' if self.num_leaves == 1 else 'leaves'} of {self.leaf_steps:,}, at most "
            f"{self.memory_states:,} states at once{memory}, "
            f"{self.forward_steps / self.num_steps:.2f} forward runs"
        )

    def actions(self) -> Iterator[Action]:
        """Yield what to do, from state 0 until every step is reversed."""
        stack = [self._root()]
        at_hand: int | None = 0
        stored: set[int] = set()
        while stack:
            segment = stack.pop()
            first = self._step(segment.first)
            if at_hand != first:
                yield Load(first)
            if segment.size == 1:
                yield Reverse(first, self._step(segment.last))
                at_hand = None
                if first in stored:
                    yield Free(first)
                    stored.remove(first)
                continue
            if first not in stored:
                yield Store(first)
                stored.add(first)
            parts = self._split(segment)
            at_hand = first
            to_end = self._sweeps and segment.size == self.num_leaves
            for part in parts[1:]:
                start = self._step(part.first)
                yield Advance(at_hand, start)
                at_hand = start
                if part is not parts[-1] or to_end:  # Else the last part follows at once.
                    yield Store(start)
                    stored.add(start)
            if to_end:
                yield Advance(at_hand, self.num_steps)
                at_hand = self.num_steps
            stack.extend(parts)

    def _root(self) -> _Segment:
        return _Segment(0, self.num_leaves)

    def _step(self, leaf: int) -> int:
        return min(leaf * self.leaf_steps, self.num_steps)


@final
@dataclasses.dataclass(frozen=True)
class Binomial(Plan):
    """The least re-running that `slots` stored states allow.

    Attributes:
      num_steps: Number of steps of the run, T.
      leaf_steps: Number of steps of a leaf, L.
      slots: Number of states that may be stored at once, c, state 0 included.
      label: Name in tables.
    """

    num_steps: int
    leaf_steps: int
    slots: int
    label: str = "binomial"

    @property
    def name(self) -> str:
        return self.label

    @property
    def peak_states(self) -> int:
        return min(self.slots, self.num_leaves - 1)

    @property
    def _advanced_leaves(self) -> int:
        return revolve.num_advances(self.num_leaves, self.slots)

    def _root(self) -> _Segment:
        return _Segment(0, self.num_leaves, self.slots)

    def _split(self, segment: _Segment) -> list[_Segment]:
        middle = segment.first + revolve.split(segment.size, segment.slots)
        return [
            _Segment(segment.first, middle, segment.slots),
            _Segment(middle, segment.last, segment.slots - 1),
        ]


@final
@dataclasses.dataclass(frozen=True)
class Kary(Plan):
    """REPLAY's lazy tree: each segment is cut into k equal parts, down to leaves of k steps.

    Attributes:
      num_steps: Number of steps of the run, T.
      arity: Number of parts of a segment, k.
    """

    num_steps: int
    arity: int
    _sweeps: ClassVar[bool] = True

    @property
    def leaf_steps(self) -> int:  # type: ignore[override]
        return self.arity

    @property
    def name(self) -> str:
        return f"{self.arity}-ary"

    @property
    def peak_states(self) -> int:
        def combine(sizes: list[int], inner: list[int]) -> int:
            # To the left of part i all starts are stored; its own is too, unless it is at hand.
            at_hand = sum(sizes) < self.num_leaves
            return max(
                i + max(inner[i], int(not (at_hand and i == len(sizes) - 1)))
                for i in range(len(sizes))
            )

        return self._tally(combine)

    @property
    def _advanced_leaves(self) -> int:
        return self._tally(lambda sizes, inner: sum(sizes[:-1]) + sum(inner))

    def _split(self, segment: _Segment) -> list[_Segment]:
        ends = [segment.first + end for end in self._ends(segment.size)]
        return [_Segment(a, b) for a, b in zip([segment.first, *ends[:-1]], ends, strict=True)]

    def _ends(self, size: int) -> list[int]:
        num_parts = min(self.arity, size)
        return [(i + 1) * size // num_parts for i in range(num_parts)]

    def _tally(self, combine: Callable[[list[int], list[int]], int]) -> int:
        """Fold the tree; segments of one size, of which there are two on a level, count alike."""

        @functools.cache
        def of(size: int) -> int:
            if size == 1:
                return 0
            ends = self._ends(size)
            sizes = [b - a for a, b in zip([0, *ends[:-1]], ends, strict=True)]
            return combine(sizes, [of(part) for part in sizes])

        return of(self.num_leaves)


def store_all(num_steps: int) -> Binomial:
    """Return the plan that keeps every state: one leaf, nothing run again."""
    return binomial(num_steps, num_steps, 0, label="store-all")


def square_root(num_steps: int) -> Binomial:
    """Return the two-level plan: about sqrt(T) leaves of sqrt(T) steps, each run twice."""
    leaf_steps = math.isqrt(max(num_steps - 1, 0)) + 1
    return binomial(num_steps, leaf_steps, -(-num_steps // leaf_steps), label="square root")


def binomial(num_steps: int, leaf_steps: int, slots: int, *, label: str = "binomial") -> Binomial:
    """Return the plan that re-runs least with leaves of `leaf_steps` and `slots` stored states.

    Raises:
      ValueError: There are no steps, or more than one leaf and nowhere to store a state.
    """
    if num_steps < 1 or leaf_steps < 1:
        raise ValueError(f"num_steps={num_steps} and leaf_steps={leaf_steps} must be at least 1")
    if slots < 1 and num_steps > leaf_steps:
        raise ValueError(f"slots={slots} must be at least 1 for more than one leaf")
    return Binomial(num_steps, min(leaf_steps, num_steps), slots, label)


def kary(num_steps: int, arity: int) -> Kary:
    """Return REPLAY's plan with k = `arity`.

    Raises:
      ValueError: There are no steps, or k is below 2.
    """
    if num_steps < 1 or arity < 2:
        raise ValueError(f"num_steps={num_steps} must be at least 1, arity={arity} at least 2")
    return Kary(num_steps, arity)


def within(num_steps: int, memory_states: int) -> Binomial:
    """Return the plan with the least work among those that hold at most `memory_states` states.

    A leaf counts four steps beside its own, for the calls that it takes.

    Raises:
      ValueError: `memory_states` is below 2 and there is more than one step.
    """
    if num_steps <= memory_states:
        return store_all(num_steps)
    if memory_states < 2:
        raise ValueError(f"memory_states={memory_states} must be at least 2: one stored, one run")
    plans = [
        binomial(num_steps, leaf_steps, memory_states - leaf_steps)
        for leaf_steps in _candidates(memory_states - 1)
    ]
    return min(plans, key=lambda plan: plan.forward_steps + _CALL_COST * plan.num_leaves)


def choose(num_steps: int, state_bytes: int, memory_bytes: int | None = None) -> Plan:
    """Return the plan for a budget of memory.

    Args:
      num_steps: Number of steps of the run, T.
      state_bytes: Size of one state.
      memory_bytes: Bytes for all states held at once: stored, in the leaf's buffer, and at work.
        The activations of a step come on top. None: the square root plan.

    Raises:
      ValueError: Not even the smallest plan fits; says how much it needs.
    """
    if memory_bytes is None:
        return square_root(num_steps)
    memory_states = memory_bytes // max(state_bytes, 1) - WORKING_STATES
    if memory_states < min(2, num_steps):
        least = (min(2, num_steps) + WORKING_STATES) * state_bytes
        raise ValueError(
            f"memory_bytes={memory_bytes:,} is too little: a state has {state_bytes:,} bytes, and "
            f"the least that a metagradient of {num_steps:,} steps needs is {least:,}"
        )
    return within(num_steps, memory_states)


def _candidates(largest: int) -> list[int]:
    """Return leaf sizes from 1 to `largest`, all of them up to 256 and thinner from there on."""
    sizes = set(range(1, min(largest, 256) + 1))
    size = 256.0
    while size < largest:
        sizes.add(int(size))
        size *= 1.02
    return sorted(sizes | {largest})
