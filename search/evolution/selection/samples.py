"""Samples: what is known of each behaviour, as a mean over evaluations with seeds of their own.

One evaluation trains a program once on each task; its noise is as large as the effects that a
search seeks. On common seeds the population would learn these seeds. So each evaluation, a
*sample*, has seeds that no other has (Jin and Branke 2005, "Evolutionary optimization in uncertain
environments", section II: explicit averaging). A proposal whose behaviour is known is a further
sample of it where it might be better than all members, and some proposals are copies of the member
that might be the best, which makes them samples too. What ranks members is the mean over their
samples. The incumbent is the candidate with the lowest upper bound, the mean plus the standard
error, so that luck wears off instead of being challenged.

The noise of a sample is pooled over all candidates with several. All values are those of a moment:
after the proposals up to a number, so that a proposal depends on what was recorded in time.
"""

import collections
import math
from collections.abc import Sequence
from typing import Final, NamedTuple, final

from veldt.search.evaluation.jobs import ProxyRun

SAMPLE_SEEDS: Final = 8_000_000
# Samples that a candidate needs before it can be the incumbent.
LEAST: Final = 2
# Standard errors by which a candidate that might be the best may be behind.
DOUBT: Final = 2.0


class Estimate(NamedTuple):
    """The mean of a candidate's samples, infinite if one failed, and their number."""

    mean: float
    num_samples: int

    def bound(self, noise: float, errors: float) -> float:
        """Return the mean, moved by so many standard errors."""
        return self.mean + errors * noise / math.sqrt(max(self.num_samples, 1))


@final
class Samples:
    """The samples of a search, in the order recorded."""

    def __init__(self, num_kept: int) -> None:
        """Begin without any.

        Args:
          num_kept: Number of the last proposals whose noise can be asked for.
        """
        self._num_kept = num_kept
        self._scores: dict[int, list[tuple[int, float]]] = {}
        self._asked: collections.Counter[int] = collections.Counter()
        self._means: dict[int, Estimate] = {}
        self._squares = 0.0
        self._freedom = 0
        self._noise: dict[int, float] = {}
        self._last_noise = 0.0

    def ask(self, candidate: int) -> None:
        """Count a sample that is asked and not yet recorded."""
        self._asked[candidate] += 1

    def num_asked(self, candidate: int) -> int:
        """Return the number of samples asked, recorded ones included."""
        return self._asked[candidate]

    def add(self, candidate: int, proposal: int, score: float) -> None:
        """Record a sample; `ask` counted it before.

        Args:
          candidate: Candidate that was sampled.
          proposal: Proposal that was the sample; -1 for those of the initial rule.
          score: Mean log loss; infinite where the training failed.
        """
        scores = self._scores.setdefault(candidate, [])
        scores.append((proposal, score))
        before = self._means.get(candidate, Estimate(0.0, 0))
        count = before.num_samples + 1
        if not (math.isfinite(score) and math.isfinite(before.mean)):
            self._means[candidate] = Estimate(math.inf, count)
            return
        mean = before.mean + (score - before.mean) / count
        if before.num_samples:
            self._squares += (score - before.mean) * (score - mean)
            self._freedom += 1
            self._last_noise = math.sqrt(self._squares / self._freedom)
        self._means[candidate] = Estimate(mean, count)

    def end(self, proposal: int) -> None:
        """Note that a proposal is recorded, with a sample or without; -1 is the initial rule."""
        self._noise[proposal] = self._last_noise
        self._noise.pop(proposal - self._num_kept, None)

    @property
    def last_noise(self) -> float:
        """The standard deviation of a sample, as known now."""
        return self._last_noise

    def noise(self, proposal: int) -> float:
        """Return the standard deviation of a sample, as known after a proposal."""
        return self._noise[max(proposal, -1)]

    def estimate(self, candidate: int, proposal: int | None = None) -> Estimate:
        """Return what is known of a candidate: after a proposal, or now."""
        if proposal is None:
            return self._means.get(candidate, Estimate(math.inf, 0))
        scores = [score for at, score in self._scores.get(candidate, ()) if at <= proposal]
        return Estimate(sum(scores) / len(scores) if scores else math.inf, len(scores))

    def promising(self, candidates: Sequence[int], proposal: int, most: int) -> int | None:
        """Return the position of the candidate that might be the best, as known after a proposal.

        It has the lowest of the lower bounds.

        Args:
          candidates: Candidates to choose from.
          proposal: Last proposal that is known.
          most: Number of samples from which on a candidate is left out.

        Returns:
          The position; None where all have their samples or failed.
        """
        noise = self.noise(proposal)
        found: tuple[float, int] | None = None
        for position, candidate in enumerate(candidates):
            if self.num_asked(candidate) < most:
                bound = self.estimate(candidate, proposal).bound(noise, -1.0)
                if math.isfinite(bound) and (found is None or bound < found[0]):
                    found = bound, position
        return None if found is None else found[1]

    def may_lead(self, candidate: int, others: Sequence[int], proposal: int) -> bool:
        """Return whether a candidate might be better than all others, as known after a proposal.

        Its mean is at most two standard errors above the lowest of theirs.
        """
        bound = self.estimate(candidate, proposal).bound(self.noise(proposal), -DOUBT)
        return all(bound <= self.estimate(other, proposal).mean for other in set(others))

    def beats(self, candidate: int, incumbent: int) -> bool:
        """Return whether a candidate with enough samples has a lower upper bound than another."""
        ours, theirs = self.estimate(candidate), self.estimate(incumbent)
        if candidate == incumbent or ours.num_samples < LEAST:
            return False
        return ours.bound(self._last_noise, 1.0) < theirs.bound(self._last_noise, 1.0)

    def difference(self, candidate: int, incumbent: int) -> tuple[float, float]:
        """Return the difference of two means, and its standard error."""
        ours, theirs = self.estimate(candidate), self.estimate(incumbent)
        error = self._last_noise * math.sqrt(1 / ours.num_samples + 1 / theirs.num_samples)
        return ours.mean - theirs.mean, error


def runs(num_tasks: int, num_seeds: int, proposal: int) -> tuple[ProxyRun, ...]:
    """Return the training runs of a sample: each task on seeds that nothing else has.

    Args:
      num_tasks: Number of proxy tasks.
      num_seeds: Number of seeds of each task.
      proposal: Proposal that is the sample; below 0 for samples of the initial rule.
    """
    first = SAMPLE_SEEDS + proposal * num_seeds
    return tuple(
        ProxyRun(proxy, seed)
        for seed in range(first, first + num_seeds)
        for proxy in range(num_tasks)
    )


def proposal_of(seed: int, num_seeds: int) -> int:
    """Return the proposal that was the sample with a seed."""
    return (seed - SAMPLE_SEEDS) // num_seeds
