"""Evolution strategies in the place of a metagradient that cannot be trusted.

Where the outcome is rough, the gradient of its mean over a small neighbourhood still says where to
go. `full_es` estimates it from pairs of whole runs. The noise is relative to each leaf's
own size, and the estimate is noisy: its error grows with the number of meta-parameters. With more
than `MOST_NUMBERS` of them a gradient that failed its check is kept, if it is finite: descent by
estimates stands still there, while steps along a rough gradient, of bounded size and compared by
their outcomes, may still go down.
"""

import dataclasses
from typing import Final, final

import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import antithetic, full_es
from veldt.meta.problems import inner_problem, meta_loss
from veldt.meta.replay import programs, states, trust
from veldt.meta.replay.task_training import Training
from veldt.tasks.common import compiling, types

NUM_PAIRS: Final = 8
NUM_RUNS: Final = 2 * NUM_PAIRS
SIGMA: Final = 0.02
MOST_NUMBERS: Final = 8 * NUM_PAIRS
"""Numbers up to which an estimate is worth more than a gradient that failed its check. Of D numbers
n pairs give a cosine to the smoothed gradient of about sqrt(n / (n + D)): a third here."""
_WINDOW: Final = 64


@final
@dataclasses.dataclass(frozen=True)
class TrainingProblem(inner_problem.InnerProblem):
    """A training as an inner problem, under meta-parameters z = centre + scale * u.

    Attributes:
      training: Training that is run, the same each time; the steps have no losses, only an outcome.
      centre: Meta-parameters at u = 0.
      scale: One number for each leaf.
      spec: Spec of the training's states, static.
      length: Number of steps of the training, static.
    """

    training: Training
    centre: MetaParams
    scale: MetaParams
    spec: states.StateSpec = dataclasses.field(metadata=pytree.STATIC)
    length: int = dataclasses.field(metadata=pytree.STATIC)

    @property
    def lengths(self) -> tuple[int, int]:  # type: ignore[override]
        return self.length, self.length

    def draw_config(self, key: types.Key) -> inner_problem.Config:
        del key
        return ()

    def instance(self, config: inner_problem.Config) -> inner_problem.Instance:
        return config

    def init(
        self,
        meta_params: MetaParams,
        instance: inner_problem.Instance,
        key: types.Key,
        length: types.Scalar,
    ) -> inner_problem.State:
        del instance, key, length
        packed = self.spec.pack(self.training.init(self._absolute(meta_params)))
        return jnp.zeros((), jnp.int32), packed

    def step(
        self,
        meta_params: MetaParams,
        instance: inner_problem.Instance,
        state: inner_problem.State,
        length: types.Scalar,
    ) -> tuple[inner_problem.State, types.Scalar]:
        del instance, length
        index, packed = state
        after = self.training.step(self._absolute(meta_params), self.spec.unpack(packed), index)
        return (index + 1, self.spec.pack(after)), jnp.zeros(())

    def final_loss(
        self,
        meta_params: MetaParams,
        instance: inner_problem.Instance,
        state: inner_problem.State,
        key: types.Key,
    ) -> types.Scalar:
        del instance, key
        return self.training.outcome(self._absolute(meta_params), self.spec.unpack(state[1]))

    def _absolute(self, relative: MetaParams) -> MetaParams:
        return jax.tree.map(lambda z, s, u: z + s * u, self.centre, self.scale, relative)


def estimate(
    training: Training,
    meta_params: MetaParams,
    key: types.Key,
    *,
    num_pairs: int = NUM_PAIRS,
    sigma: float = SIGMA,
) -> MetaParams:
    """Estimate the gradient of the outcome, smoothed, from 2 `num_pairs` runs side by side.

    Args:
      training: Training that is run.
      meta_params: Meta-parameters that the gradient is taken at.
      key: Key of the noise; it is consumed.
      num_pairs: Number of pairs of runs.
      sigma: Standard deviation of the noise, relative to each leaf's root mean square.
    """
    length = int(training.num_steps)
    scale = trust.scales(meta_params)
    problem = TrainingProblem(
        training, meta_params, scale, programs.spec_of(training, meta_params), length
    )
    estimator = full_es.FullES(
        problem,
        num_pairs,
        min(length, _WINDOW),
        meta_loss.FinalLoss(),
        antithetic.Antithetic(sigma),
    )
    relative = _estimate(estimator, jax.tree.map(jnp.zeros_like, meta_params), key)
    return jax.tree.map(jnp.divide, relative, scale)


def kept(found: trust.Trust) -> trust.Trust:
    """Return a conclusion that says also that the gradient is kept all the same."""
    message = (
        f"{found.message}. The gradient is kept: an estimate of more than {MOST_NUMBERS} numbers "
        f"by {NUM_PAIRS} pairs of runs says less."
    )
    return dataclasses.replace(found, message=message)


def noted(found: trust.Trust) -> trust.Trust:
    """Return a conclusion that says also that an estimate takes the gradient's place."""
    message = (
        f"{found.message}. The gradient given is an estimate by {NUM_PAIRS} pairs of runs (full "
        "ES)."
    )
    return dataclasses.replace(found, message=message)


def _run(estimator: full_es.FullES, meta_params: MetaParams, key: types.Key) -> MetaParams:
    return estimator.estimate(meta_params, (), key)[0]


_estimate = compiling.jit(_run)
