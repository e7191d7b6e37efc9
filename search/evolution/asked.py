"""A proposal between ask and tell: a child, and what is known of it without training."""

from dataclasses import dataclass
from typing import final

from veldt.search.evaluation.jobs import EvalJob, Outcome
from veldt.search.evolution.children import Proposed
from veldt.search.evolution.racing import Role


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """A proposal between ask and tell.

    Attributes:
      child: Child that is proposed.
      source: Source of the score, as the store names it.
      candidate: Id of the candidate.
      behaviour: Fingerprint of the child; empty where a cache had the candidate.
      failed: Reason of the probe to reject it; then it is not trained.
      job: Job that trains it; made once, since the race's levels change.
      role: Role in the race.
    """

    child: Proposed
    source: str
    candidate: int
    behaviour: str = ""
    failed: Outcome | None = None
    job: EvalJob | None = None
    role: Role = Role.RACED
