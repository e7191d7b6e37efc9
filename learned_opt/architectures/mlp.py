"""The plain per-parameter perceptron: gradient, parameter and momenta in, a step out.

Metz et al. 2019, "Understanding and correcting pathologies in the training of learned optimizers"
(arXiv 1810.10180), also called LOLv2; `MLPLOpt` of google/learned_optimization, mlp_lopt.py.
"""

import dataclasses
from typing import final

import optax

from veldt.learned_opt import base
from veldt.learned_opt.blocks import accumulators, features, frame, perceptron, progress
from veldt.tasks.common import types

_BLOCKS: tuple[features.Block, ...] = (
    features.gradient,
    features.parameter,
    features.momentum,
)


@final
@dataclasses.dataclass(frozen=True)
class Mlp(base.LearnedOptimizer):
    """Step -step_size * direction * exp(exp_size * magnitude) of every parameter.

    The gradient is not clipped (nor is it in the original): a NaN stays in the averages.

    Attributes:
      hidden_size: Units of each hidden layer.
      hidden_layers: How many.
      decays: Decays of the momenta.
      step_size: Scale of the step.
      exp_size: Scale of the logarithm of the step.
    """

    hidden_size: int = 32
    hidden_layers: int = 2
    decays: tuple[float, ...] = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
    step_size: float = 1e-3
    exp_size: float = 1e-3

    def init(self, key: types.Key) -> base.MetaParams:
        num_inputs = 2 + len(self.decays) + progress.NUM_STEP_FEATURES
        return perceptron.init(key, (num_inputs, *(self.hidden_size,) * self.hidden_layers, 2))

    def as_optax(
        self, meta_params: base.MetaParams, num_steps: base.NumSteps = None
    ) -> optax.GradientTransformationExtraArgs:
        del num_steps  # It reads the step's number, not the run's length.
        return frame.timed_perceptron(
            "mlp",
            accumulators.fixed_decays(self.decays),
            _BLOCKS,
            meta_params,
            step_size=self.step_size,
            exp_size=self.exp_size,
        )
