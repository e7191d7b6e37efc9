"""How often children compute with each op, and how many of them evolution kept.

Evolution draws all ops equally often and keeps few. So for each op this counts the children that
use it, those that became parents, those that were better than their parent, the last population,
and the hall of fame. A share that rises from the first to the last is selection at work; one that
falls is an op that mutation brings and selection removes. Most uses are inherited, so introductions
are counted separately: children with an op that their parent lacks, and how many of them have
descendants at the end.

Only live instructions count. A child stands for its candidate, the first program that behaved so.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from veldt.search.language.ops import OPS
from veldt.search.language.statements import COPY
from veldt.search.program import Program
from veldt.search.storage.store import Store

NUM_PARTS: Final = 24
_CHUNK: Final = 1 << 16
# A statement as the store writes it, one per line: `t = op(a, b)` or `t = a + b`.
_STATEMENT: Final = re.compile(r"^    \w+ = (?:(\w+)\(|\S+ (\S+) \S)", re.MULTILINE)


@final
@dataclass(frozen=True, slots=True)
class OpRecord:
    """How one op fared in a search; shares are from 0 to 1.

    Attributes:
      op: Name of the op.
      initial: Whether the initial rule computes with it.
      children: Share of all children that compute with it.
      parents: Share of the parents that do; a parent counts once for each child.
      accepted: Share of the children better than their parent; 0 where there are none.
      population: Share of the last population.
      finalists: Number of finalists that compute with it.
      introduced: Number of children that have it and a parent without it, before the last
        population.
      alive: Number of introduced children with descendants in the last population.
      over_time: Share of the children of each part of the search.
    """

    op: str
    initial: bool
    children: float
    parents: float
    accepted: float
    population: float
    finalists: int
    introduced: int
    alive: int
    over_time: tuple[float, ...]


@final
@dataclass(frozen=True, slots=True)
class Survival:
    """All ops that any child used, ordered by their share of the last population, largest first.

    Attributes:
      ops: Record of each op.
      num_children: Number of children.
      num_accepted: Number of children better than their parent.
      num_population: Number of members of the last population.
      num_finalists: Number of finalists; 0 before the finals were played.
      num_before: Number of children before the last population.
      num_alive: Number of children before it with descendants in it, to compare introductions with.
    """

    ops: tuple[OpRecord, ...]
    num_children: int
    num_accepted: int
    num_population: int
    num_finalists: int
    num_before: int
    num_alive: int


def survival(store: Store, population_size: int, finalists: Iterable[Program]) -> Survival:
    """Count the ops of a run.

    Args:
      store: Store of the run.
      population_size: Population size of the evolution.
      finalists: Programs of the finals, without baselines.

    Raises:
      ValueError: A program is not as the store writes it.
    """
    names = list(OPS)
    columns = {name: i for i, name in enumerate(names)}
    uses, fitness = _candidates(store, columns)
    rows = store.rows("SELECT candidate, parent FROM proposal ORDER BY id")
    children = np.array([row["candidate"] for row in rows], np.int64)
    parents = np.array([-1 if r["parent"] is None else r["parent"] for r in rows], np.int64)
    # By child: the candidate of its parent; 0 for the initial rule.
    of_parent = np.where(parents < 0, 0, children[np.maximum(parents, 0)]) if rows else children
    better = fitness[children] < fitness[of_parent]
    first = max(len(rows) - population_size, 0)
    alive = _with_descendants(parents, first)
    introduced, kept = _introductions(uses, children[:first], of_parent[:first], alive[:first])
    parts = np.array_split(children, min(NUM_PARTS, max(len(rows), 1)))
    over_time = np.array([_shares(uses, part) for part in parts])
    finalists = list(finalists)
    found = np.zeros(len(names), np.int64)
    for program in finalists:
        found[[columns[s.op] for s in program.statements if s.op != COPY]] += 1
    of_children, of_parents, of_better, of_last = (
        _shares(uses, of) for of in (children, of_parent, children[better], children[first:])
    )
    records = [
        OpRecord(
            op=name,
            initial=bool(uses[0, i]),
            children=float(of_children[i]),
            parents=float(of_parents[i]),
            accepted=float(of_better[i]),
            population=float(of_last[i]),
            finalists=int(found[i]),
            introduced=int(introduced[i]),
            alive=int(kept[i]),
            over_time=tuple(map(float, over_time[:, i])),
        )
        for i, name in enumerate(names)
        if uses[:, i].any()
    ]
    records.sort(key=lambda one: (-one.population, -one.children, one.op))
    return Survival(
        ops=tuple(records),
        num_children=len(rows),
        num_accepted=int(better.sum()),
        num_population=len(rows) - first,
        num_finalists=len(finalists),
        num_before=first,
        num_alive=int(alive[:first].sum()),
    )


def ops_of(text: str) -> frozenset[str]:
    """Return the ops of a program as the store writes it: `str(program)`, one statement a line.

    Parsing would take a millisecond, and a store has a program for each of its candidates.

    Raises:
      ValueError: An instruction is not in the instruction set.
    """
    symbols = _symbols()
    names = [call or symbols.get(symbol, symbol) for call, symbol in _STATEMENT.findall(text)]
    for name in names:
        if name not in OPS:
            raise ValueError(f"a stored program computes with {name!r}, which is no op")
    return frozenset(names)


@functools.cache
def _symbols() -> dict[str, str]:
    return {op.symbol: name for name, op in OPS.items() if op.symbol is not None}


def _candidates(store: Store, columns: dict[str, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return, by candidate, the ops that it uses, bool [candidates, ops], and its fitness."""
    rows = store.rows("SELECT id, program, fitness FROM candidate WHERE id >= 0 ORDER BY id")
    if [row["id"] for row in rows] != list(range(len(rows))):
        raise ValueError("candidates are not numbered from 0")
    uses = np.zeros((len(rows), len(columns)), bool)
    fitness = np.full(len(rows), np.inf)
    for row in rows:
        uses[row["id"], [columns[op] for op in ops_of(row["program"])]] = True
        if row["fitness"] is not None:
            fitness[row["id"]] = float(row["fitness"])
    return uses, fitness


def _shares(uses: NDArray[Any], candidates: NDArray[Any]) -> NDArray[Any]:
    """Return, by op, the share of the listed candidates that use it, repeats counted."""
    counts = np.bincount(candidates, minlength=len(uses))
    return np.asarray(counts @ uses / max(len(candidates), 1))


def _with_descendants(parents: NDArray[Any], first: int) -> NDArray[Any]:
    """Return, by child, whether it or a descendant is among the children from `first` on."""
    alive = np.zeros(len(parents), bool)
    alive[first:] = True
    for child in range(len(parents) - 1, -1, -1):
        if alive[child] and parents[child] >= 0:
            alive[parents[child]] = True
    return alive


def _introductions(
    uses: NDArray[Any], children: NDArray[Any], of_parent: NDArray[Any], alive: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return, by op, how many children have it that their parent lacks, and how many live on."""
    introduced = np.zeros(uses.shape[1], np.int64)
    kept = np.zeros(uses.shape[1], np.int64)
    for start in range(0, len(children), _CHUNK):
        part = slice(start, start + _CHUNK)
        new = uses[children[part]] & ~uses[of_parent[part]]
        introduced += new.sum(axis=0)
        kept += new[alive[part]].sum(axis=0)
    return introduced, kept
