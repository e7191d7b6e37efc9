"""A tuning's jobs on a pool: runs in groups of seeds, awaited together, and their means.

What belongs together is awaited in the order of its groups and added up in that order, so that a
number has the same bits wherever, and in whatever order, its jobs were done.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, final

import jax.numpy as jnp
import numpy as np

from veldt.meta import errors
from veldt.meta.tune.tuning_worker import Arrays, TuningJob
from veldt.tasks.pool import base, driver


@final
class TuningJobs:
    """The jobs of one tuning on one pool."""

    def __init__(self, pool: base.Pool, doing: Callable[[str], None] = lambda text: None):
        """Hand out jobs to `pool`, which no one else may use meanwhile.

        Args:
          pool: Pool that runs the jobs.
          doing: Function that receives how far a wait is, in words.
        """
        self._jobs = driver.PoolJobs(pool, arrived=_refuse_failure)
        self._doing = doing

    def submit(self, label: str, payloads: Sequence[TuningJob]) -> list[int]:
        """Hand out jobs that belong together, and return their numbers.

        Args:
          label: Description of the jobs for people.
          payloads: The jobs.
        """
        many = len(payloads) > 1
        labels = [f"{label}, part {i + 1}" if many else label for i in range(len(payloads))]
        return [
            self._jobs.submit(driver.NamedJob(payload, each))
            for payload, each in zip(payloads, labels, strict=True)
        ]

    def take(self, numbers: Sequence[int], what: str = "") -> list[Any]:
        """Return the values of jobs in their order, once all are there.

        Args:
          numbers: Numbers of the jobs.
          what: Description of the jobs, shown with how many are done; empty to show nothing.

        Raises:
          MetaTrainError: A worker could not do its job.
        """
        values = []
        for done, number in enumerate(numbers):
            watch = functools.partial(self._tell, what, done, len(numbers))
            values.append(self._jobs.take(number, watch).value)
        return values

    def _tell(self, what: str, done: int, total: int) -> None:
        if what and total > 1:
            self._doing(f"compiling and running {what}: {done:,} of {total:,} jobs done")


def shares(groups: Sequence[Sequence[int]]) -> list[float]:
    """Return the share of each group of seeds in a mean over all seeds."""
    total = sum(map(len, groups))
    return [len(group) / total for group in groups]


def mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return a mean of numbers, from the first to the last; of one number that number.

    Args:
      values: The numbers.
      weights: Share of each; their sum is 1.
    """
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def mean_gradient(parts: Sequence[Arrays], weights: Sequence[float]) -> dict[str, Any]:
    """Return a mean of gradients, taken in float64 from the first to the last.

    Args:
      parts: Gradients by the same meta-parameters.
      weights: Share of each; their sum is 1.
    """
    found = {}
    for name, leaf in parts[0].items():
        scaled = [
            weight * np.asarray(part[name], np.float64)
            for weight, part in zip(weights, parts, strict=True)
        ]
        found[name] = jnp.asarray(functools.reduce(np.add, scaled).astype(leaf.dtype))
    return found


def _refuse_failure(result: base.JobResult) -> None:
    """Stop where a worker could not do its job."""
    if result.status is not base.JobStatus.OK:
        raise errors.MetaTrainError(f"{result.label}: {result.status}: {result.message}")
