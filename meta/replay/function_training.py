"""A training of the user's own, made of three functions."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.replay import states
from veldt.meta.replay.task_training import Training
from veldt.tasks.common import types


@final
@dataclasses.dataclass(frozen=True)
class FunctionTraining(Training):
    """A training loop given as functions: `veldt.FunctionTraining`.

    Attributes:
      init_fn: `(meta_params, data) -> state`, static.
      step_fn: `(meta_params, state, index, data) -> state`, static; everything random follows from
        `index`, int32 [].
      outcome_fn: `(meta_params, state, data) -> float []`, static; less is better.
      num_steps: How many steps.
      data: A pytree of arrays that the functions are given; what they close over becomes a constant
        of the compiled programs.
    """

    init_fn: Callable[..., states.State] = dataclasses.field(metadata=pytree.STATIC)
    step_fn: Callable[..., states.State] = dataclasses.field(metadata=pytree.STATIC)
    outcome_fn: Callable[..., types.Scalar] = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int
    data: Any = ()

    def init(self, meta_params: MetaParams) -> states.State:
        return self.init_fn(meta_params, self.data)

    def step(
        self, meta_params: MetaParams, state: states.State, index: types.Scalar
    ) -> states.State:
        return self.step_fn(meta_params, state, index, self.data)

    def outcome(self, meta_params: MetaParams, state: states.State) -> types.Scalar:
        return self.outcome_fn(meta_params, state, self.data)
