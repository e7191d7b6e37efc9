"""Tune any training's meta-parameters by metagradients from Python: `veldt.tune`."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta.replay import api
from veldt.meta.replay.task_training import Training
from veldt.meta.tune import config, loop
from veldt.tasks.common import formatting
from veldt.tasks.common.html.markup import tag


@final
@dataclasses.dataclass(frozen=True)
class Tuned:
    """The result of `veldt.tune`.

    Attributes:
      meta_params: Meta-parameters with the lowest finite outcome; those at the start if no outcome
        is finite.
      outcome: The lowest finite outcome; NaN if there is none.
      outcomes: Outcome of each update, before the update.
    """

    meta_params: MetaParams
    outcome: float
    outcomes: tuple[float, ...]

    def to_records(self) -> list[dict[str, Any]]:
        """Return the updates as dictionaries."""
        return [{"update": i, "outcome": outcome} for i, outcome in enumerate(self.outcomes)]

    def to_pandas(self) -> Any:
        """Return the updates as a pandas DataFrame.

        Raises:
          VeldtError: pandas is not installed.
        """
        return formatting.data_frame(self.to_records())

    def __repr__(self) -> str:
        return f"{self._summary()}\n{self.meta_params!r}"

    def _repr_html_(self) -> str:
        return tag("div", tag("b", self._summary()), tag("pre", repr(self.meta_params)))

    def _summary(self) -> str:
        first = f"{self.outcomes[0]:.5g} at the start, " if self.outcomes else ""
        return f"Tuned: outcome {self.outcome:.5g}, {first}{len(self.outcomes):,} updates"


def tune(
    training: Training | Callable[[int], Training],
    meta_params: MetaParams,
    *,
    num_updates: int = 30,
    learning_rate: float = 0.1,
    outer: config.OuterConfig | None = None,
    memory_bytes: int | None = None,
    check: api.Check = "none",
    seed: int = 0,
    report: Callable[[int, float, MetaParams], None] | None = None,
) -> Tuned:
    """Improve the meta-parameters of a training by metagradients.

    Args:
      training: What is run; or a function of the update's number that returns it, to have other
        batches each time (outcomes then compare only as far as those are alike).
      meta_params: A pytree of floats, on scales where steps of the outer learning rate make sense:
        logarithms of what is positive.
      num_updates: Number of metagradients.
      learning_rate: How far Adam moves a meta-parameter at first, with a cosine decay.
      outer: Settings of another optimizer of the meta-parameters, in place of `learning_rate`.
      memory_bytes: Memory for stored states; see `veldt.metagradient`.
      check: How metagradients are examined; one that fails is replaced by an estimate.
      seed: Seed of the examinations.
      report: Function that is called with the update's number, the outcome and the meta-parameters
        before the update.

    Raises:
      ReplayError: A metagradient cannot be computed.
    """
    if outer is None:
        outer = config.OuterConfig(learning_rate=learning_rate, max_change=None)
    outcomes: list[float] = []

    def gradient(progress: loop.TuningProgress) -> loop.Step:
        meta_params = jax.tree.map(jnp.asarray, progress.meta_params)
        found = api.metagradient(
            training if isinstance(training, Training) else training(progress.update),
            meta_params,
            key=jax.random.fold_in(jax.random.key(seed), progress.update),
            memory_bytes=memory_bytes,
            check=check,
        )
        if report is not None:
            report(progress.update, found.outcome, meta_params)
        outcomes.append(found.outcome)
        return loop.Step(found.outcome, found.gradient)

    start = jax.tree.map(jnp.asarray, meta_params)
    ended = loop.run(loop.Descent(num_updates, outer, gradient), loop.TuningProgress(0, start))
    best = jax.tree.map(jnp.asarray, start if ended.best is None else ended.best)
    outcome = ended.best_outcome if math.isfinite(ended.best_outcome) else math.nan
    return Tuned(best, outcome, tuple(outcomes))
