"""VeLO: an LSTM for every tensor writes the weights of the perceptron that updates its parameters.

Metz et al. 2022, "VeLO: training versatile learned optimizers by scaling up" (arXiv 2211.09760);
`HyperV2` of google/learned_optimization, research/general_lopt/hyper_v2.py. The paper and the code
differ in places; the code is followed.

Departures, apart from those of the parts: averages are float32 whatever the parameters are; tensors
without elements take no part.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import base
from veldt.learned_opt.blocks import (
    accumulators,
    features,
    frame,
    loss_history,
    perceptron,
    progress,
    recurrent,
    scheduler,
    tensor_statistics,
    tensors,
)
from veldt.tasks.common import types

_NUM_OUTPUTS = 3  # the third is never read; published files have its weights


@final
@dataclasses.dataclass(frozen=True)
class Velo(base.LearnedOptimizer):
    """Reads the loss (`value=`) and the length of the run (`num_steps`).

    The step is -step_size * lr * scale * direction * exp(exp_size * magnitude), with lr from the
    LSTM (of either sign) and scale the root mean square of the tensor's parameters. Gradients are
    clipped to +-1000, where a NaN counts as 0.

    Attributes:
      lstm_size: Units of the LSTM.
      bank_size: How many perceptrons are mixed into a tensor's own.
      bank_scale: What their mean is multiplied by; 1 for VeLO-S.
      hidden_size: Units of each hidden layer of the perceptron.
      hidden_layers: How many.
      momentum_decays: Decays of the momenta.
      rms_decays: Decay of the averaged square; one.
      factored_decays: Decays of the factored averages; as many as momenta.
      step_size: Scale of the step.
      exp_size: Scale of the logarithm of the step.
      loss_horizon: Longest horizon of the loss averages, steps; None for the length of the run. The
        original's default, 10, is a slip that some published weights depend on.
      statistics: See `tensor_statistics.statistics`; VeLO's weights want "published".
      recurrence: "held" never advances the LSTM's state, a slip that early weights depend on.
    """

    lstm_size: int = 512
    bank_size: int = 256
    bank_scale: float = 100.0
    hidden_size: int = 4
    hidden_layers: int = 2
    momentum_decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    rms_decays: tuple[float, ...] = (0.999,)
    factored_decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    step_size: float = 1e-3
    exp_size: float = 1e-3
    loss_horizon: float | None = None
    statistics: tensor_statistics.Form = "consistent"
    recurrence: Literal["carried", "held"] = "carried"

    def init(self, key: types.Key) -> base.MetaParams:
        key_bank, key_scheduler = jax.random.split(key)
        num_inputs = features.count(
            features.VELO, self.momentum_decays, self.rms_decays, self.factored_decays
        )
        sizes = (num_inputs, *(self.hidden_size,) * self.hidden_layers, _NUM_OUTPUTS)
        bank = jax.vmap(lambda k: perceptron.init(k, sizes))(
            jax.random.split(key_bank, self.bank_size)
        )
        num_statistics = (
            progress.NUM_FRACTION_FEATURES
            + loss_history.NUM_FEATURES
            + tensor_statistics.count(len(self.momentum_decays))
        )
        return {
            "bank": bank,
            "scheduler": scheduler.init(
                key_scheduler, num_statistics, self.lstm_size, self.bank_size
            ),
        }

    def as_optax(
        self, meta_params: base.MetaParams, num_steps: base.NumSteps = None
    ) -> optax.GradientTransformationExtraArgs:
        decays = accumulators.fixed_decays(
            self.momentum_decays, self.rms_decays, self.factored_decays
        )

        def step(tensor: features.Known, weights: perceptron.Weights, lr: jax.Array) -> jax.Array:
            scale = -self.step_size * lr * features.scale(tensor.param)
            return frame.steered_step(weights, tensor, scale, self.exp_size)

        def steer(
            shared: jax.Array,
            flat: tensors.Flat,
            moments: list[accumulators.Moments],
            lstm: recurrent.LstmState,
        ) -> tuple[recurrent.LstmState, frame.Step, list[Sequence[Any]]]:
            if not moments:
                return lstm, step, []
            rows = tensors.map_alike(
                lambda item: tensor_statistics.statistics(item[0], item[1], self.statistics),
                list(zip(flat.params, moments, strict=True)),
            )
            x = jnp.stack([jnp.concatenate([shared, row.astype(shared.dtype)]) for row in rows])
            controls, lrs, after = scheduler.apply(meta_params["scheduler"], x, lstm)
            weights = self._own_weights(meta_params["bank"], controls)
            own = [jax.tree.map(lambda w, i=i: w[i], weights) for i in range(len(moments))]
            return after if self.recurrence == "carried" else lstm, step, [own, list(lrs)]

        return frame.steered(
            "velo",
            num_steps,
            decays,
            meta_params,
            steer,
            per_tensor=True,
            loss_horizon=self.loss_horizon,
        )

    def _own_weights(self, bank: perceptron.Weights, controls: jax.Array) -> perceptron.Weights:
        """Return every tensor's perceptron, stacked over tensors: a scaled mean of the bank."""
        return jax.tree.map(
            lambda w: (
                jnp.tensordot(controls, w, 1, precision=jax.lax.Precision.HIGHEST)
                * (self.bank_scale / self.bank_size)
            ),
            bank,
        )
