"""Early stopping of hopeless candidates, with a stated chance to lose a good one.

A candidate is trained on several tasks and seeds, one run after another, each with several checks
(`evaluator.py`). A *rung* is one check. Its statistic is the *running total*, the final log losses
of the runs that have ended plus the current check's: successive halving's ladder (Jamieson and
Talwalkar, arXiv 1502.07943; Li et al., arXiv 1810.05934), with steps, seeds and tasks as one
budget. Halving keeps a fixed share at each rung and promises nothing about which candidates it
keeps. Here the levels come from a control group and are split-conformal (Papadopoulos et al., ECML
2002; Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, sec. 4.2).

**Roles.** The seed and the number of a proposal draw its role, never a result. With probability
`control` it is in the *control group*, which is never dropped: a quarter of it *shapes* and three
quarters *calibrate*; all others are *raced*. Levels come from the last `memory` control candidates
that the proposal may know of.

**Lag.** The fittest of those that shape give a centre `c_r` and a scale `s_r > 0` for each rung
`r`. A candidate's lag is `T = max over r of (total_r - c_r) / s_r`, over all rungs but the last,
where nothing is left to save. (A fixed reference such as the initial rule's curve would cancel.)

**Level.** Let `m` candidates calibrate. A candidate is *good* if it ends with a fitness that is
among the best `k = ceil(top * (m + 1))` of theirs and its own, ties in favour of the smaller lag.
Of the `k - 1` fittest that calibrate let `n` have a fitness at all. The level is the
`ceil((1 - chance) * (n + 1))`-th smallest of their lags, infinite where there are not so many, that
is where `n < 1 / chance - 1`. A raced candidate is dropped at the first rung where its lag so far
is above the level.

**Theorem.** Given the shape, let the pairs (lag, fitness) that those that calibrate and a raced
candidate have, or would have if it were trained to the end, be exchangeable. Then

    P(the raced candidate is dropped at any rung | it is good) <= chance.

*Proof.* The good among all `m + 1` are a symmetric function of the pairs. Given that the raced one
is among them, the others are the `n` above, whatever it is itself: the best `k` of `m + 1` without
one of them are the best `k - 1` of the rest. By exchangeability its lag is equally likely to take
each place among these `n + 1` lags, so it exceeds the `j`-th smallest of the other `n` with
probability at most `(n + 1 - j) / (n + 1)`, which is at most `chance` for the `j` above. It is
dropped at some rung if and only if its whole lag, a maximum over rungs, is above the level. The
hurdle drops no good candidate: those that it drops have no fitness. []

**Assumptions and limits.**

- No distribution, no independence of rungs or tasks, no smoothness of curves is assumed; a bad
  shape costs savings, never the chance.
- Candidates of one search are exchangeable only nearly: their parents improve. `memory` keeps the
  control group recent. `benchmarks/racing.py` measures the rest.
- The chance is that of one good candidate, over the draw of the control group too. Candidates that
  share a level are dropped or kept together: the share dropped in one search scatters about it.
- The best in the end is a good candidate, and the chance holds for it as for any of them if rank
  among the good does not depend on lag, or if better ones lag less. Without such an assumption one
  search, which has one best, gives no level; a smaller `top` needs less of it and, for the same
  chance, a larger control group: `m` of at least `1 / (chance * top)`.
  the same chance, a larger control group: `m` of at least `1 / (chance * top)`.
"""

import collections
import enum
import functools
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from veldt.search.config.evolution_config import SHAPING, RacingConfig
from veldt.search.evaluation.jobs import Outcome, Status
from veldt.search.storage.store import Store

Curves: TypeAlias = tuple[tuple[float, ...], ...]
"""Log losses at the checks of each run of a candidate, in the job's order."""

# Fewest fitnesses for a centre and a scale.
MIN_SHAPING: Final = 5
# A difference of 0.1% in one loss: where those that shape agree more closely, they do by chance.
MIN_SCALE: Final = 1e-3


@final
class Role(enum.StrEnum):
    """The role of a trained candidate in the race."""

    RACED = "raced"
    CALIBRATES = "calibrates"
    SHAPES = "shapes"
    FOUNDER = "founder"  # Not drawn by the search: neither dropped nor compared with.

    @property
    def is_control(self) -> bool:
        """Whether it belongs to the control group."""
        return self in (Role.CALIBRATES, Role.SHAPES)


@final
@dataclass(frozen=True, slots=True)
class Control:
    """A candidate of the control group that has been recorded.

    Attributes:
      proposal: Number of the proposal.
      role: One of calibrates and shapes.
      fitness: Fitness; infinity where it has none.
      curves: Curves of all runs where it has a fitness.
    """

    proposal: int
    role: Role
    fitness: float
    curves: Curves


@final
@dataclass(frozen=True, slots=True)
class Calibration:
    """The levels that candidates are compared with at one moment.

    Attributes:
      num_checks: Number of checks of each run.
      centre: Centre of the running total at each rung but the last, float64 [R - 1].
      scale: Scale of the running total at each rung but the last, float64 [R - 1], above 0.
      level: Highest lag that is not dropped; infinite while there are too few good ones.
      bar: Fitness and lag that a good candidate stays below; None if all with a fitness are good.
    """

    num_checks: tuple[int, ...]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    level: float
    bar: tuple[float, float] | None

    def lag(self, curves: Curves) -> float:
        """Return how far behind a candidate was at its worst rung; its curves are complete."""
        return _lag(curves, self.centre, self.scale)

    def is_good(self, fitness: float, curves: Curves) -> bool:
        """Return whether the theorem covers a candidate that was trained to the end."""
        return math.isfinite(fitness) and (
            self.bar is None or (fitness, self.lag(curves)) < self.bar
        )

    def levels(self) -> Curves:
        """Return the running totals not to exceed at each run's checks; empty for no limits."""
        if math.isinf(self.level):
            return ()
        flat = iter((*(self.centre + self.level * self.scale).tolist(), math.inf))
        return tuple(tuple(itertools.islice(flat, length)) for length in self.num_checks)


@final
class Race:
    """The control group of a search. Memory holds the candidates that count, and one window."""

    def __init__(self, config: RacingConfig, window: int, controls: Iterable[Control] = ()):
        """Set up the race after some controls.

        Args:
          config: Config of the race.
          window: Window of the search.
          controls: Controls recorded so far, in order, at least the last `memory + window`.
        """
        self._config = config
        self._controls = collections.deque(controls, maxlen=config.memory + window)
        self._known = functools.lru_cache(maxsize=1)(self._calibrate)

    def add(self, control: Control) -> None:
        """Add the next candidate of the control group."""
        self._controls.append(control)

    def record(
        self, store: Store, index: int, role: Role, levels: Curves, outcome: Outcome
    ) -> None:
        """Store what became of a trained proposal, inside a transaction.

        Args:
          store: Store of the search.
          index: Number of the proposal.
          role: Role of the proposal.
          levels: Levels that it was raced by.
          outcome: Outcome of its training.
        """
        curves = tuple(run.log_losses for run in outcome.runs)
        rejected = outcome.status is Status.REJECTED
        insert(
            store,
            index,
            role,
            curves,
            dropped_at=where_dropped(levels, curves) if rejected else None,
        )
        if role.is_control:
            fitness = math.inf if outcome.fitness is None else outcome.fitness
            self.add(Control(index, role, fitness, curves))

    def calibration(self, newest: int) -> Calibration | None:
        """Return the levels for a candidate that may know of proposals up to `newest`.

        Returns:
          The calibration; None while too few of the control group shape or calibrate.
        """
        if not self._config.enabled:
            return None
        proposals = (one.proposal for one in reversed(self._controls) if one.proposal <= newest)
        last = next(proposals, None)
        return None if last is None else self._known(last)

    def levels(self, newest: int) -> Curves:
        """Return the levels in the form of `EvalJob.race`; empty where nothing can be dropped."""
        calibration = self.calibration(newest)
        return () if calibration is None else calibration.levels()

    def _calibrate(self, last: int) -> Calibration | None:
        # A function of `last` alone: later controls are left out, and those that count are kept.
        known = [one for one in self._controls if one.proposal <= last]
        return calibrate(self._config, known[-self._config.memory :])


def draw_role(config: RacingConfig, seed: int, proposal: int) -> Role:
    """Draw a proposal's role: a function of its number and the search's seed alone."""
    # The name separates this draw from the mutation's, which has the same two numbers.
    lot = np.random.default_rng((seed, proposal, *b"racing")).random()
    if lot >= config.control:
        return Role.RACED
    return Role.SHAPES if lot < SHAPING * config.control else Role.CALIBRATES


def calibrate(config: RacingConfig, controls: Sequence[Control]) -> Calibration | None:
    """Compute the level of the theorem in the module's docstring.

    Args:
      config: Config of the race.
      controls: Control group, including those without a fitness.

    Returns:
      The calibration; None where fewer than `MIN_SHAPING` that shape have a fitness, or none
      calibrates.
    """
    shaping = [one for one in controls if one.role is Role.SHAPES]
    calibrating = [one for one in controls if one.role is Role.CALIBRATES]
    fit = sorted((one for one in shaping if math.isfinite(one.fitness)), key=lambda x: x.fitness)
    if len(fit) < MIN_SHAPING or not calibrating:
        return None
    best = fit[: max(MIN_SHAPING, math.ceil(config.top * len(shaping)))]
    totals = np.array([running_totals(one.curves) for one in best])[:, :-1]
    centre = totals.mean(axis=0)
    scale = np.maximum(totals.std(axis=0, ddof=1), MIN_SCALE)
    ranked = sorted(
        (one.fitness, _lag(one.curves, centre, scale))
        for one in calibrating
        if math.isfinite(one.fitness)
    )
    num_good = math.ceil(config.top * (len(calibrating) + 1))  # k, the raced one included
    lags = sorted(lag for _, lag in ranked[: num_good - 1])
    # Places above the level among n + 1: ceil((1 - chance)(n + 1)) = n + 1 - num_above.
    num_above = math.floor(config.chance * (len(lags) + 1))
    return Calibration(
        num_checks=tuple(len(curve) for curve in best[0].curves),
        centre=centre,
        scale=scale,
        level=lags[len(lags) - num_above] if num_above else math.inf,
        bar=ranked[num_good - 1] if num_good <= len(ranked) else None,
    )


def running_totals(curves: Curves) -> NDArray[np.float64]:
    """Return the statistic of each rung, float64 [R]: final log losses plus the check's."""
    ended = itertools.accumulate((curve[-1] for curve in curves[:-1]), initial=0.0)
    totals = [total + loss for total, curve in zip(ended, curves, strict=True) for loss in curve]
    return np.array(totals, np.float64)


def where_dropped(levels: Curves, curves: Curves) -> int | None:
    """Return the rung at which a candidate is dropped.

    Args:
      levels: Levels of the job; empty for none.
      curves: Curves of the candidate, as far as it was trained.

    Returns:
      The number of the rung, counted from 0 over all runs, or None.
    """
    rung, ended = 0, 0.0
    for limits, curve in zip(levels, curves, strict=False):  # It may have been stopped before.
        for check, (limit, loss) in enumerate(zip(limits, curve, strict=False)):
            if loss > limit - ended:
                return rung + check
        rung += len(limits)
        ended += curve[-1] if curve else 0.0
    return None


def insert(
    store: Store, proposal: int, role: Role, curves: Curves, *, dropped_at: int | None
) -> None:
    """Store a trained candidate's part in the race, inside a transaction."""
    store.insert(
        "race",
        proposal=proposal,
        role=role.value,
        dropped_at=dropped_at,
        curves=json.dumps(curves),
    )


def read_controls(store: Store, most: int) -> list[Control]:
    """Return the last `most` candidates of the control group, in the order recorded."""
    query = (
        "SELECT r.proposal, r.role, r.curves, c.fitness FROM race r "
        "JOIN proposal p ON p.id = r.proposal JOIN candidate c ON c.id = p.candidate "
        "WHERE r.role IN (?, ?) ORDER BY r.proposal DESC LIMIT ?"
    )
    rows = store.rows(query, (Role.CALIBRATES.value, Role.SHAPES.value, most))
    return [
        Control(
            proposal=row["proposal"],
            role=Role(row["role"]),
            fitness=math.inf if row["fitness"] is None else row["fitness"],
            curves=tuple(map(tuple, json.loads(row["curves"]))),
        )
        for row in reversed(rows)
    ]


def _lag(curves: Curves, centre: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
    return float(((running_totals(curves)[:-1] - centre) / scale).max(initial=-math.inf))
