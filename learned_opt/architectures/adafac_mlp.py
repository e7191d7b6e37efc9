"""The per-parameter perceptron with Adafactor's features, `small_fc_lopt`.

Metz et al. 2022, "Practical tradeoffs between memory, compute, and performance in learned
optimizers" (arXiv 2203.11860); `AdafacMLPLOpt` of google/learned_optimization, adafac_mlp_lopt.py.
PyLO, muLO and ELO ship it with 32 hidden units.
"""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import base
from veldt.learned_opt.blocks import accumulators, features, frame, perceptron, progress
from veldt.tasks.common import types

_DECAY_RATE = 10.0  # how fast a decay moves with its meta-parameter


@final
@dataclasses.dataclass(frozen=True)
class AdafacMlp(base.LearnedOptimizer):
    """Step -step_size * direction * exp(exp_size * magnitude) of every parameter.

    The decays are learned: 1 - (1 - d) exp(10 x) for a start d and a meta-parameter x. The gradient
    is not clipped (nor is it in the original): a NaN stays in the averages.

    Attributes:
      hidden_size: Units of each hidden layer.
      hidden_layers: How many.
      momentum_decays: Where the momenta's decays start.
      rms_decays: Where the averaged square's starts; one.
      factored_decays: Where the factored averages' start; as many as momenta.
      step_size: Scale of the step.
      exp_size: Scale of the logarithm of the step.
    """

    hidden_size: int = 4
    hidden_layers: int = 2
    momentum_decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    rms_decays: tuple[float, ...] = (0.999,)
    factored_decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    step_size: float = 1e-3
    exp_size: float = 1e-3

    def init(self, key: types.Key) -> base.MetaParams:
        num_inputs = features.count(
            features.ADAFAC, self.momentum_decays, self.rms_decays, self.factored_decays
        )
        sizes = (num_inputs + progress.NUM_STEP_FEATURES, *(self.hidden_size,) * self.hidden_layers)
        return {
            "mlp": perceptron.init(key, (*sizes, 2)),
            "momentum_decays": jnp.zeros((len(self.momentum_decays),), jnp.float32),
            "rms_decays": jnp.zeros((len(self.rms_decays),), jnp.float32),
            "factored_decays": jnp.zeros((len(self.factored_decays),), jnp.float32),
        }

    def as_optax(
        self, meta_params: base.MetaParams, num_steps: base.NumSteps = None
    ) -> optax.GradientTransformationExtraArgs:
        del num_steps  # It reads the step's number, not the run's length.
        decays = accumulators.Decays(
            _moved(self.momentum_decays, meta_params["momentum_decays"]),
            _moved(self.rms_decays, meta_params["rms_decays"]),
            _moved(self.factored_decays, meta_params["factored_decays"]),
        )
        return frame.timed_perceptron(
            "adafac_mlp",
            decays,
            features.ADAFAC,
            meta_params["mlp"],
            step_size=self.step_size,
            exp_size=self.exp_size,
        )


def _moved(starts: tuple[float, ...], moves: jax.Array) -> jax.Array:
    return 1 - (1 - jnp.asarray(starts, jnp.float32)) * jnp.exp(_DECAY_RATE * moves)
