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
from typing import Any, Literal, NamedTuple, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import base, errors
from veldt.learned_opt.blocks import (
    accumulators,
    features,
    loss_history,
    perceptron,
    progress,
    recurrent,
    scheduler,
    tensors,
)
from veldt.tasks.common import types
from veldt.tasks.inner_loop import trainable

_FIRST_MOMENTUM = 3  # row of its feature
_ADAM_STEP = 0.01  # relative to the parameters' size, at a rate of 1
_ADAM_PEAK = 0.04  # where an untrained schedule begins
_RATE = 0.1  # of a schedule whose logarithm is 0
_NUM_OUTPUTS = 3  # the third is never read; published files have its weights


class CeloState(NamedTuple):
    """State of `Celo`."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    moments: accumulators.Moments  # of trees shaped as the parameters
    losses: loss_history.LossHistory
    lstm: recurrent.LstmState  # one row


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
        length = progress.run_length(num_steps, "celo")
        decays = accumulators.fixed_decays(
            self.momentum_decays, self.rms_decays, self.factored_decays
        )
        loss_decays = loss_history.decays(length)

        def init_fn(params: types.Params) -> CeloState:
            return CeloState(
                jnp.zeros([], jnp.int32),
                accumulators.init_tree(params, decays),
                loss_history.init(),
                recurrent.tile_state(meta_params["scheduler"]["start"], 1),
            )

        def update_fn(
            updates: types.Grads,
            state: CeloState,
            params: types.Params | None = None,
            *,
            value: jax.Array | float | None = None,
            **extra_args: object,
        ) -> tuple[types.Grads, CeloState]:
            del extra_args
            if value is None:
                raise errors.MissingInputError.value("celo")
            flat = tensors.flatten(updates, params, "celo")
            old = accumulators.split(flat.treedef, state.moments)
            losses = loss_history.update(state.losses, jnp.asarray(value), loss_decays)
            fraction = progress.tanh_of_fraction(state.count, length)
            x = jnp.concatenate([fraction, loss_history.features(losses, loss_decays)])
            _, logs, lstm = scheduler.apply(meta_params["scheduler"], x[None], state.lstm)
            lr = _RATE * jnp.exp(logs[0]) if self.schedule == "learned" else 1.0

            def step(
                item: tuple[jax.Array, jax.Array, accumulators.Moments],
            ) -> tuple[jax.Array, accumulators.Moments]:
                grad, param, moments = item
                grad = tensors.clip(grad)
                moments = accumulators.update(moments, grad, decays)
                x = features.normalized(features.VELO, features.known(grad, param, moments))
                direction, magnitude = perceptron.apply(
                    meta_params["mlp"], x, grad.shape, num_outputs=2
                )
                scale = -self.step_size * lr * size_of(param, self.min_scale)
                return scale * direction * jnp.exp(self.exp_size * magnitude), moments

            out = tensors.map_alike(step, list(zip(flat.grads, flat.params, old, strict=True)))
            state = CeloState(
                optax.safe_increment(state.count),
                accumulators.join(flat.treedef, [m for _, m in out]),
                losses,
                lstm,
            )
            return flat.restore([s for s, _ in out]), state

        return trainable.skip_untrainable(optax.GradientTransformationExtraArgs(init_fn, update_fn))


def size_of(param: jax.Array, min_scale: float) -> jax.Array:
    """Return what the steps of a tensor are relative to (`Celo.min_scale`), float []."""
    shape = jnp.shape(param)
    fan_in = math.prod(shape[:-1]) if len(shape) > 1 else 1
    return jnp.maximum(features.scale(param), min_scale / math.sqrt(max(fan_in, 1)))
