"""What a run is worth: the mean of its losses, its final loss, or how far the loss came down.

Each meta-loss is the mean over a run's T steps of a contribution c_t of each step, so that windows
of K steps, averaged over where in a run they lie, have the run's meta-loss as their expectation:

| meta-loss  | c_t                                                        | mean over a run |
|------------|------------------------------------------------------------|-----------------|
| mean       | the step's own loss                                        | mean loss       |
| final      | T times the final loss at the last step, 0 before          | L_T             |
| log final  | T times log(final loss + floor) at the last step, 0 before | log(L_T + f)    |
| telescoped | adding up over a window to T (L at its end - L at its start) | L_T - L_0     |

L is the problem's `final_loss`, recomputed on fresh data. The telescoped meta-loss (Vicol 2023,
arXiv 2304.11153) has the gradient of the final one, if L_0 does not depend on the meta-parameters,
and says something in every window; the start and the end of a window are judged on the same data.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import TypeAlias, final

import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.problems import inner_problem
from veldt.tasks.common import types

FinalLossOf: TypeAlias = Callable[[inner_problem.State], types.Scalar]
"""The problem's `final_loss` of a state of a segment's run, float []."""


class MetaLoss(pytree.Pytree, abc.ABC):
    """How the steps of a run count."""

    def total(
        self,
        problem: inner_problem.InnerProblem,
        meta_params: MetaParams,
        segment: inner_problem.Segment,
        key: types.Key,
    ) -> types.Scalar:
        """Return the sum of the contributions of a segment's steps, float []; 0 if it is empty.

        Args:
          problem: What ran.
          meta_params: Meta-parameters of the run.
          segment: The steps.
          key: Key for fresh data; it is consumed.
        """

        def final_loss(state: inner_problem.State) -> types.Scalar:
            instance = problem.instance(segment.config)
            return problem.final_loss(meta_params, instance, state, key)

        return self._total(segment, final_loss)

    @abc.abstractmethod
    def _total(self, segment: inner_problem.Segment, final_loss: FinalLossOf) -> types.Scalar:
        """Return what `total` does."""


@final
@dataclasses.dataclass(frozen=True)
class MeanLoss(MetaLoss):
    """The mean of the losses of a run's steps."""

    def _total(self, segment: inner_problem.Segment, final_loss: FinalLossOf) -> types.Scalar:
        del final_loss
        return segment.loss_sum


@final
@dataclasses.dataclass(frozen=True)
class FinalLoss(MetaLoss):
    """The loss after a run's last step, recomputed on fresh data; other windows count nothing.

    Attributes:
      floor: Where given, the logarithm of the loss plus this counts: what is easy and what is hard
        weigh the same, down to losses of about the floor.
    """

    floor: float | None = dataclasses.field(default=None, metadata=pytree.STATIC)

    def _total(self, segment: inner_problem.Segment, final_loss: FinalLossOf) -> types.Scalar:
        loss = final_loss(segment.last)
        if self.floor is not None:
            loss = jnp.log(loss + self.floor)
        return jnp.where(segment.completes, segment.limit * loss, 0.0)


@final
@dataclasses.dataclass(frozen=True)
class TelescopedLoss(MetaLoss):
    """How much the recomputed loss rose over a window."""

    def _total(self, segment: inner_problem.Segment, final_loss: FinalLossOf) -> types.Scalar:
        first = final_loss(segment.first)
        last = final_loss(segment.last)
        return jnp.where(segment.num_steps > 0, segment.limit * (last - first), 0.0)
