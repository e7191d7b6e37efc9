"""The seam of every way to estimate a meta-gradient: the abstract `GradientEstimator`.

| estimator           | unrolls    | expectation                        | variance                 |
|---------------------|------------|------------------------------------|--------------------------|
| `FullES`            | whole runs | gradient of the smoothed meta-loss | of one estimate a run    |
| `TruncatedES`       | windows    | ignores all before the window      | least                    |
| `PES`               | windows    | as full ES                         | grows with windows a run |
| `NRES`              | windows    | as full ES                         | about as full ES         |
| `TruncatedBackprop` | windows    | ignores all before the window      | of the data alone        |
| `FullBackprop`      | whole runs | exact gradient of the meta-loss    | explodes through chaos   |

Estimators are frozen dataclasses and pytrees: their inner problem's arrays, and numbers such as
sigma, are leaves, so a jitted function that takes one as an argument compiles once for all that
differ only there. All of them run `num_particles` inner problems side by side, and what is not
finite counts as zero and is counted.
"""

import abc
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.tasks.common import types

MetaGrad: TypeAlias = Any
"""Pytree shaped as the meta-parameters: an estimate of the gradient of the meta-loss."""

EstimatorState: TypeAlias = Any
"""Pytree that an estimator carries from window to window: its particles."""


@flax.struct.dataclass
class Metrics:
    """Figures of an estimate.

    Attributes:
      meta_loss: Mean over those particles where it was finite, float []; NaN if it was nowhere.
        For windows it is per step: see `veldt.meta.problems.meta_loss`.
      num_nonfinite: Differences (or gradients of particles) that count as zero, int32 [].
      num_completed: Runs that reached their length, int32 []; of a pair, one.
      num_steps: Inner steps done, of all runs, int32 []: what the estimate cost.
    """

    meta_loss: types.Scalar
    num_nonfinite: types.Scalar
    num_completed: types.Scalar
    num_steps: types.Scalar


class GradientEstimator(pytree.Pytree, abc.ABC):
    """An estimate of the gradient of the meta-loss of an inner problem. Subclasses are final."""

    @abc.abstractmethod
    def init(self, meta_params: MetaParams, key: types.Key) -> EstimatorState:
        """Begin with every particle; the key is consumed."""

    @abc.abstractmethod
    def estimate(
        self, meta_params: MetaParams, state: EstimatorState, key: types.Key
    ) -> tuple[MetaGrad, EstimatorState, Metrics]:
        """Estimate the gradient at `meta_params`; the key is consumed.

        Returns:
          The estimate, always finite unless it overflows; the state to go on from, at these or
          other meta-parameters; and the figures of the estimate.
        """


def finite_mean(values: jax.Array) -> types.Scalar:
    """Return the mean of the finite values, float []; NaN if there is none."""
    finite = jnp.isfinite(values)
    return jnp.sum(jnp.where(finite, values, 0.0)) / jnp.sum(finite)
