"""The tools of the methods of `schedules.py`: a task's training as a program, and screening.

Runs that choose and runs that report have seeds of their own, and the two losses of a run are
kept separate: `valid` is for methods, `test` for their choices.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np
import schedule_tasks

from veldt.meta.baselines import grids
from veldt.meta.tune.training import optimizers
from veldt.tasks import base
from veldt.tasks.common import compiling, types
from veldt.tasks.inner_loop import unroll

# Shapes: N runs, T steps, C candidates.

CHUNK: Final = 16  # Runs of one call; one compiled program serves any number of runs.
RANGE: Final = 100.0  # Factor of the range of rates, which begins at `start`.
CHOOSING: Final = 500_000_000  # Seeds of runs that choose; metagradients' are of `problem`.
REPORTING: Final = 900_000_000  # Seeds of runs that report.

Losses: TypeAlias = Callable[[Any, jax.Array], np.ndarray]
"""Function `(settings of each run, leaves [N, ...]; keys [N]) -> losses [N]`."""


@final
@dataclasses.dataclass(frozen=True)
class Found:
    """The choice of a search.

    Attributes:
      test: Test losses of the choice, by the runs' keys.
      rates: Schedule, float [T]; None if the choice is no schedule.
      settings: Settings chosen, for the record.
      forward_runs: Cost in plain training runs; extra costs of a run are counted.
      states: Largest number of training states that one run holds at once.
    """

    test: Callable[[jax.Array], np.ndarray]
    rates: np.ndarray | None
    settings: Mapping[str, Any]
    forward_runs: float
    states: int


def seed_keys(first: int, count: int) -> jax.Array:
    """Return the keys of `count` runs, from seed `first` on."""
    return jax.vmap(jax.random.key)(jnp.arange(first, first + count))


@final
class Lab:
    """A task and the programs that train it.

    Attributes:
      name: Name of the task.
      entry: Task with its training settings.
      task: Task that is trained.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = schedule_tasks.TASKS[name]
        self.task = self.entry.factory()
        self.num_steps = self.entry.num_steps
        self._runs = compiling.jit(_schedule_runs)

    def valid(self, rates: jax.Array, keys: jax.Array) -> np.ndarray:
        """Train under rates [N, T] and return validation losses [N]."""
        return self._losses(rates, keys)[:, 0]

    def test(self, rates: jax.Array, keys: jax.Array) -> np.ndarray:
        """Train under rates [N, T] and return test losses [N]."""
        return self._losses(rates, keys)[:, 1]

    def found(
        self, rates: jax.Array, settings: Mapping[str, Any], forward_runs: float, states: int = 1
    ) -> Found:
        """Return a choice that is a schedule, rates [T]."""
        return Found(
            lambda keys: self.test(jnp.broadcast_to(rates, (len(keys), len(rates))), keys),
            np.asarray(rates),
            settings,
            forward_runs,
            states,
        )

    def _losses(self, rates: jax.Array, keys: jax.Array) -> np.ndarray:
        return in_chunks(functools.partial(self._runs, self.task), rates, keys)

    def range_of(self, count: int) -> list[float]:
        """Return `count` rates over the range."""
        start = self.entry.start
        return [float(x) for x in np.geomspace(start, RANGE * start, count)]


def in_chunks(runs: Callable[..., jax.Array], settings: Any, keys: jax.Array) -> np.ndarray:
    """Call a program for CHUNK runs as often as N runs need; losses [N, 2]."""
    count = len(keys)
    rows = np.arange(-(-count // CHUNK) * CHUNK) % count
    found = []
    for part in rows.reshape(-1, CHUNK):
        found.append(
            np.asarray(runs(jax.tree.map(lambda x, part=part: x[part], settings), keys[part]))
        )
    return np.concatenate(found)[:count]


def both_losses(task: base.Task, params: types.Params, key: types.Key) -> jax.Array:
    """Return validation and test loss, float [2]."""
    return jnp.stack([unroll.evaluate(task, params, key, split) for split in ("valid", "test")])


def _schedule_runs(task: base.Task, rates: jax.Array, keys: jax.Array) -> jax.Array:
    def run(xs: tuple[jax.Array, types.Key]) -> jax.Array:
        rates, key = xs
        tx = optimizers.adam(grids.as_schedule(rates))
        state, _ = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=rates.shape[0])
        return both_losses(task, state.params, key)

    return jax.lax.map(run, (rates, keys))


def screen(losses: Losses, candidates: Any, num_runs: int, first_seed: int) -> tuple[int, float]:
    """Return the number of the best candidate and its mean loss.

    Args:
      losses: Function that returns losses of runs.
      candidates: Candidates, leaves [C, ...].
      num_runs: Number of runs in all; half for all candidates, half for the best sixteenth, four
        at the least.
      first_seed: First seed of the runs; all candidates have the same seeds.
    """
    count = len(jax.tree.leaves(candidates)[0])
    each = max(num_runs // 2 // count, 1)
    first = _repeat(losses, candidates, np.arange(count), each, first_seed)  # [C, each]
    kept = np.argsort(_means(first))[: max(count // 16, 4)]
    more = max((num_runs - each * count) // len(kept), 1)
    second = _repeat(losses, candidates, kept, more, first_seed + each)
    means = _means(np.concatenate([first[kept], second], axis=1))
    best = int(np.argmin(means))
    return int(kept[best]), float(means[best])


def _repeat(
    losses: Losses, candidates: Any, rows: np.ndarray, each: int, first_seed: int
) -> np.ndarray:
    keys = seed_keys(first_seed, each)
    settings = jax.tree.map(lambda x: jnp.repeat(x[rows], each, axis=0), candidates)
    which = np.tile(np.arange(each), len(rows))
    return losses(settings, keys[which]).reshape(len(rows), each)


def _means(losses: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(losses), losses, np.inf).mean(axis=1)


def choosing_seed(search: int) -> int:
    """Return the first seed of a search's own runs."""
    return CHOOSING + 1_000_000 * search
