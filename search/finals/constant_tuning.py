"""Tuning a program's constants and learning rate with a budget, once its structure is found.

Evolution finds constants by scaling one at a time, which is slow and, on the seeds that thousands
of candidates share, subject to luck. And a rule that seems better than AdamW may only have better
constants: structure has to beat AdamW with *all its constants* tuned on the same tasks, with the
same budget. So all rules that are compared are tuned in the same way, in coordinates in which a
step of 1 has a like meaning for every number (`coordinates`), by one of three methods:

- `cma_es`: CMA-ES (Hansen 2016, arXiv 1604.00772; evosax's).
- `metagradient`: steps along metagradients (`constant_gradients`), divided by their root mean
  square so far: each number moves by about the step's length, except those that hardly matter.
  Several lengths are scored and the best is taken, so no step has to be trusted; the next lengths
  tried are around it.
- `both`: half of the budget for CMA-ES, and metagradients from the best of it.

Where a metagradient is not trusted, and where no step along one is an improvement, CMA-ES takes the
rest of the budget, from the best so far. So rules without a derivative, such as Lion with its sign,
are tuned with the same budget as rules that have one.

Literals are named first (`best_rule.name_constants`), so they are tuned too, except those that are
structure (1, 2, 1/2). A score that is infinite is a failure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from veldt.meta.baselines import black_box
from veldt.search.config.finals_config import PRICE, STEP_FACTORS, TuningConfig
from veldt.search.evaluation import coordinates
from veldt.search.evaluation.genotype import Genotype
from veldt.search.program import Program
from veldt.search.storage import best_rule

Score: TypeAlias = Callable[[Sequence[Genotype]], Sequence[float]]
"""Function that scores a generation, lower is better; infinity where a candidate failed."""

Differentiate: TypeAlias = Callable[[Program, Genotype], Sequence[float] | None]
"""Function that takes the gradient of the score by the coordinates of a rule's numbers, from the
program that tuning began with and the rule; None where no gradient is to be trusted."""


_SHRINK: Final = STEP_FACTORS[0] / STEP_FACTORS[-1] / 2  # To the lengths below those tried.
_SHORTEST: Final = 1e-3  # A shorter step in coordinates changes nothing that matters.
_DECAY: Final = 0.9  # Decay of the mean of squared gradients; steps are few.
_FLOOR: Final = 0.01  # Numbers whose gradient is a smaller share of the largest move by less.
_FROM_THE_BEST: Final = 1 << 31  # Folded into the key for CMA-ES after gradients.


@final
@dataclass(frozen=True, slots=True)
class Tuned:
    """The result of tuning.

    Attributes:
      genotype: Best rule that was scored.
      score: Score of that rule; infinite if every candidate failed.
      start_score: Score of the rule that tuning began with.
      num_evaluations: Number of evaluations, the start's included, metagradients at their price.
      num_gradients: Number of metagradients taken.
    """

    genotype: Genotype
    score: float
    start_score: float
    num_evaluations: int
    num_gradients: int = 0


def tune(
    genotype: Genotype,
    score: Score,
    config: TuningConfig,
    seed: int,
    report: Callable[[int, int], None] = lambda *_: None,
    differentiate: Differentiate | None = None,
) -> Tuned:
    """Tune a rule's numbers.

    The result is the best candidate by its score, and the start is one of the candidates. So it is
    never worse on what it was scored on, and has to be judged on something else.

    Args:
      genotype: Rule to begin with.
      score: Function that scores a generation; see `Score`.
      config: Method and budget; the rest of the budget is not used where neither a whole generation
        nor a step fits into it.
      seed: Seed of the random draws.
      report: Function called with the number of evaluations done, and the number in all.
      differentiate: Function that takes metagradients, for the methods that need it; see
        `Differentiate`.

    Raises:
      ValueError: The method takes metagradients, and no function for them is given.
    """
    start = Genotype(best_rule.name_constants(genotype.program), genotype.learning_rate)
    key = jax.random.key(seed)
    work = _Work(start, score, config, report)
    if config.method == "cma_es":
        work.search(key, config.budget)
    elif differentiate is None:
        raise ValueError(f"method {config.method} needs a function that takes metagradients")
    else:
        if config.method == "both":
            work.search(key, max(config.budget // 2, 1 + config.generation))
        work.descend(differentiate)
        work.search(jax.random.fold_in(key, _FROM_THE_BEST), config.budget)
    return work.tuned


@final
class _Work:
    """The tuning of one rule: the budget spent, and the best found so far."""

    def __init__(
        self,
        start: Genotype,
        score: Score,
        config: TuningConfig,
        report: Callable[[int, int], None],
    ) -> None:
        self._start, self._score, self._config, self._report = start, score, config, report
        self._total = config.budget
        if config.method == "cma_es":
            self._total = 1 + (config.budget - 1) // config.generation * config.generation
        self._spent = self._num_gradients = 0
        self._point = coordinates.encode(start.program, start)
        self._best, self._best_score = start, math.inf
        self._start_score = self._try([self._point], [start])[0]

    @property
    def tuned(self) -> Tuned:
        """The result so far."""
        return Tuned(
            self._best, self._best_score, self._start_score, self._spent, self._num_gradients
        )

    def search(self, key: jax.Array, until: int) -> None:
        """Run CMA-ES from the best, for as long as a generation fits within `until` evaluations."""
        size = self._config.generation
        num_generations = (until - self._spent) // size
        if num_generations < 1:
            return
        cma_es = black_box.CmaEs(size, init_std=self._config.spread)
        centre = jnp.asarray(self._point, jnp.float32)
        state = cma_es.init(centre, jax.random.fold_in(key, 0))
        for number in range(num_generations):
            keys = jax.random.split(jax.random.fold_in(key, 1 + number))
            points, state = cma_es.ask(state, keys[0])
            scores = self._try(list(np.asarray(points, np.float64)))
            state = cma_es.tell(state, points, jnp.asarray(scores, jnp.float32), keys[1])

    def descend(self, differentiate: Differentiate) -> None:
        """Take steps along metagradients, until none improves the score or the budget ends."""
        length = self._config.spread
        descent = _Descent()
        while length and self._has(PRICE + len(STEP_FACTORS)) and math.isfinite(self._best_score):
            gradient = differentiate(self._start.program, self._best)
            self._num_gradients += 1
            self._spend(PRICE)
            if gradient is None or not np.any(gradient):
                return
            length = self._step(descent.direction(np.asarray(gradient, np.float64)), length)

    def _step(self, direction: NDArray[np.float64], length: float) -> float:
        """Move along a direction, at shorter lengths until one improves.

        Returns:
          The length moved; 0 where none that could be afforded was an improvement.
        """
        before, origin = self._best_score, self._point
        while self._has(len(STEP_FACTORS)) and STEP_FACTORS[-1] * length >= _SHORTEST:
            lengths = [factor * length for factor in STEP_FACTORS]
            scores = self._try([origin + x * direction for x in lengths])
            if min(scores) < before:
                return lengths[scores.index(min(scores))]
            length *= _SHRINK
        return 0.0

    def _try(
        self, points: Sequence[NDArray[np.float64]], rules: Sequence[Genotype] | None = None
    ) -> list[float]:
        """Score points, infinite where one is NaN, and keep the best."""
        if rules is None:
            rules = [coordinates.decode(self._start.program, point) for point in points]
        scores = [value if math.isfinite(value) else math.inf for value in self._score(rules)]
        first = min(range(len(scores)), key=scores.__getitem__)
        if scores[first] < self._best_score:
            self._point = points[first]
            self._best, self._best_score = rules[first], scores[first]
        self._spend(len(points))
        return scores

    def _has(self, evaluations: int) -> bool:
        return self._spent + evaluations <= self._config.budget

    def _spend(self, evaluations: int) -> None:
        self._spent += evaluations
        self._report(self._spent, self._total)


@final
class _Descent:
    """Directions downhill: Adam's without momentum (Kingma and Ba 2015, arXiv 1412.6980).

    Momentum is left out because with it a direction may lead uphill: where no step is an
    improvement, the gradient must be the reason.
    """

    def __init__(self) -> None:
        self._square: NDArray[np.float64] | float = 0.0
        self._count = 0

    def direction(self, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the direction of a step, float [N], from a gradient [N] that is not all zero."""
        self._count += 1
        self._square = _DECAY * self._square + (1 - _DECAY) * gradient**2
        size = np.sqrt(self._square / (1 - _DECAY**self._count))
        return -gradient / (size + _FLOOR * size.max())
