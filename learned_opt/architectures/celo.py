"""Celo: one learned perceptron for all parameters, and a learned schedule for its steps.

Moudgil et al. 2025, "Celo: training versatile learned optimizers on a compute diet" (TMLR);
amoudgl/celo, celo/optimizers/celo.py. VeLO cut down: the bank has one perceptron, and the LSTM
reads only progress and loss, so that one row serves all tensors.

The original reaches this through VeLO's code: a softmax over one control, and the LSTM run on equal
rows. Both are left out, their weights (`scheduler.controls`, `scheduler.unused`) kept: 37,089
meta-parameters, as published.
"""

import dataclasses
import math
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
    tensors,
)
from veldt.tasks.common import types

_FIRST_MOMENTUM = 3  # row of its feature
_ADAM_STEP = 0.01  # relative to the parameters' size, at a rate of 1
_ADAM_PEAK = 0.04  # where an untrained schedule begins
_RATE = 0.1  # of a schedule whose logarithm is 0
_NUM_OUTPUTS = 3  # the third is never read; published files have its weights


@final
@dataclasses.dataclass(frozen=True)
class Celo(base.LearnedOptimizer):
    """Reads the loss (`value=`) and the length of the run (`num_steps`).

    The step is -step_size * lr * scale * direction * exp(exp_size * magnitude), with lr from the
    schedule, always positive, and scale the root mean square of the tensor's parameters. Gradients
    are clipped to +-1000, where a NaN counts as 0.

    Attributes:
      lstm_size: Units of the scheduler's LSTM.
      hidden_size: Units of each hidden layer of the perceptron.
      hidden_layers: How many.
      momentum_decays: Decays of the momenta.
      rms_decays: Decay of the averaged square; one.
      factored_decays: Decays of the factored averages; as many as momenta.
      step_size: Scale of the step.
      exp_size: Scale of the logarithm of the step.
      min_scale: The least scale: of a vector this, of a matrix or kernel this over the square root
        of the fan-in (the size over the last dimension), about the size of initial weights. 0 as
        published: a bias that starts at 0 then grows from 3e-5 by shares of itself.
      schedule: "constant" takes lr as 1: the first phase of the published meta-training, which then
        freezes the perceptron and trains the schedule.
      start: What `init` returns: a random network ("random", as published), or one that moves as
        Adam does without bias correction, by 1% of the parameters' size where lr is 1, with a
        schedule at about 4% of that ("adam").
    """

    lstm_size: int = 64
    hidden_size: int = 4
    hidden_layers: int = 2
    momentum_decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    rms_decays: tuple[float, ...] = (0.999,)
    factored_decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    step_size: float = 1e-3
    exp_size: float = 1e-3
    min_scale: float = 0.0
    schedule: Literal["learned", "constant"] = "learned"
    start: Literal["random", "adam"] = "random"

    def init(self, key: types.Key) -> base.MetaParams:
        key_mlp, key_scheduler = jax.random.split(key)
        num_inputs = features.count(
            features.VELO, self.momentum_decays, self.rms_decays, self.factored_decays
        )
        sizes = (num_inputs, *(self.hidden_size,) * self.hidden_layers, _NUM_OUTPUTS)
        weights = perceptron.init(key_mlp, sizes)
        if self.start == "adam":
            first = _FIRST_MOMENTUM + len(self.momentum_decays) + len(self.rms_decays)
            weights = perceptron.passing(weights, {first: 1.0}, gain=_ADAM_STEP / self.step_size)
        num_statistics = progress.NUM_FRACTION_FEATURES + loss_history.NUM_FEATURES
        schedule = scheduler.init(key_scheduler, num_statistics, self.lstm_size, 1)
        if self.start == "adam":
            log_rate = math.log(_ADAM_PEAK / _ADAM_STEP / _RATE)
            step_size = {**schedule["step_size"], "b": jnp.full((1,), log_rate, jnp.float32)}
            schedule = {**schedule, "step_size": step_size}
        return {"mlp": weights, "scheduler": schedule}

    def as_optax(
        self, meta_params: base.MetaParams, num_steps: base.NumSteps = None
    ) -> optax.GradientTransformationExtraArgs:
        decays = accumulators.fixed_decays(
            self.momentum_decays, self.rms_decays, self.factored_decays
        )

        def steer(
            shared: jax.Array,
            flat: tensors.Flat,
            moments: list[accumulators.Moments],
            lstm: recurrent.LstmState,
        ) -> tuple[recurrent.LstmState, frame.Step, list[Sequence[Any]]]:
            del flat, moments
            _, logs, lstm = scheduler.apply(meta_params["scheduler"], shared[None], lstm)
            lr = _RATE * jnp.exp(logs[0]) if self.schedule == "learned" else 1.0

            def step(tensor: features.Known) -> jax.Array:
                scale = -self.step_size * lr * size_of(tensor.param, self.min_scale)
                return frame.steered_step(meta_params["mlp"], tensor, scale, self.exp_size)

            return lstm, step, []

        return frame.steered("celo", num_steps, decays, meta_params, steer)


def size_of(param: jax.Array, min_scale: float) -> jax.Array:
    """Return what the steps of a tensor are relative to (`Celo.min_scale`), float []."""
    shape = jnp.shape(param)
    fan_in = math.prod(shape[:-1]) if len(shape) > 1 else 1
    return jnp.maximum(features.scale(param), min_scale / math.sqrt(max(fan_in, 1)))
