"""The protocol of a comparison: seeds, checks, lengths; the same for every candidate.

A candidate is trained for a task's own number of steps at each of its learning rates, with each
seed, under each schedule asked for. The reference, Adam over a finer grid and with more seeds, is
trained `HORIZON` times as long, so that a speed-up up to that factor can be seen.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.tasks import suites
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.protocol.candidates import Candidate
from veldt.tasks.benchmark.protocol.schedules import CONSTANT

NUM_CHECKS: Final = 25
"""Number of times that a candidate's training loss is taken, the start not counted. Held-out losses
are taken after every so many checks: at the end, and in the reference at each multiple of that."""

NUM_SEEDS: Final = 3
NUM_REFERENCE_SEEDS: Final = 5
HORIZON: Final = 3


@final
@dataclass(frozen=True, slots=True)
class SweepPlan:
    """One sweep: everything that decides its losses.

    Attributes:
      candidate: Optimizer.
      task: Name of a task or "module:factory".
      num_steps: Length of each run.
      num_checks: Number of times that losses are taken.
      seeds: Seeds of the runs.
      schedules: Names in `schedules.SCHEDULES`.
    """

    candidate: Candidate
    task: str
    num_steps: int
    num_checks: int
    seeds: tuple[int, ...]
    schedules: tuple[str, ...]

    @property
    def held_out_every(self) -> int:
        """The number of checks between two with held-out losses: a candidate's whole run."""
        return NUM_CHECKS if self.num_checks % NUM_CHECKS == 0 else self.num_checks

    @property
    def label(self) -> str:
        """A description for people."""
        return f"{self.candidate.name} on {self.task}"

    def digest(self, fingerprint: str) -> str:
        """Return a hash that stored losses are found by.

        Args:
          fingerprint: Fingerprint of the task on this machine.
        """
        parts = [
            self.candidate.identity,
            *(f"{rate:.6e}" for rate in self.candidate.rates),
            self.task,
            fingerprint,
            self.num_steps,
            self.num_checks,
            self.seeds,
            self.schedules,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def contest(
    candidate: Candidate, entry: suites.SuiteTask, seed: int, schedules: Sequence[str]
) -> SweepPlan:
    """Return a candidate's sweep on a task of a suite.

    Args:
      candidate: Optimizer.
      entry: Task and its number of steps.
      seed: First of the `NUM_SEEDS` seeds.
      schedules: Schedules of the learning rate.
    """
    seeds = tuple(range(seed, seed + NUM_SEEDS))
    return SweepPlan(candidate, entry.task, entry.num_steps, NUM_CHECKS, seeds, tuple(schedules))


def reference(entry: suites.SuiteTask) -> SweepPlan:
    """Return Adam's sweep on a task of a suite, for the envelope."""
    return SweepPlan(
        baselines.REFERENCE,
        entry.task,
        HORIZON * entry.num_steps,
        HORIZON * NUM_CHECKS,
        tuple(range(NUM_REFERENCE_SEEDS)),
        (CONSTANT,),
    )
