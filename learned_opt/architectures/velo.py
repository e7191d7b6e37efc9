"""VeLO: an LSTM for every tensor writes the weights of the perceptron that updates its parameters.

Metz et al. 2022, "VeLO: training versatile learned optimizers by scaling up" (arXiv 2211.09760);
`HyperV2` of google/learned_optimization, research/general_lopt/hyper_v2.py. The paper and the code
differ in places; the code is followed.

Departures, apart from those of the parts: averages are float32 whatever the parameters are; tensors
without elements take no part.
"""

import dataclasses
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
    tensor_statistics,
    tensors,
)
from veldt.tasks.common import types
from veldt.tasks.inner_loop import trainable

_NUM_OUTPUTS = 3  # the third is never read; published files have its weights


class VeloState(NamedTuple):
    """State of `Velo`."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    moments: accumulators.Moments  # of trees shaped as the parameters
    losses: loss_history.LossHistory
    lstm: recurrent.LstmState  # one row for each tensor, in the order of the leaves


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
        length = progress.run_length(num_steps, "velo")
        decays = accumulators.fixed_decays(
            self.momentum_decays, self.rms_decays, self.factored_decays
        )
        loss_decays = loss_history.decays(
            length if self.loss_horizon is None else self.loss_horizon
        )

        def init_fn(params: types.Params) -> VeloState:
            num_tensors = len(jax.tree.leaves(params))
            return VeloState(
                jnp.zeros([], jnp.int32),
                accumulators.init_tree(params, decays),
                loss_history.init(),
                recurrent.tile_state(meta_params["scheduler"]["start"], num_tensors),
            )

        def update_fn(
            updates: types.Grads,
            state: VeloState,
            params: types.Params | None = None,
            *,
            value: jax.Array | float | None = None,
            **extra_args: object,
        ) -> tuple[types.Grads, VeloState]:
            del extra_args
            if value is None:
                raise errors.MissingInputError.value("velo")
            flat = tensors.flatten(updates, params, "velo")
            old = accumulators.split(flat.treedef, state.moments)
            losses = loss_history.update(state.losses, jnp.asarray(value), loss_decays)
            state = state._replace(count=optax.safe_increment(state.count), losses=losses)
            if not flat.grads:
                return updates, state

            # The LSTM sees the averages before this gradient; the perceptron those after it.
            shared = jnp.concatenate(
                [
                    progress.tanh_of_fraction(state.count - 1, length),
                    loss_history.features(losses, loss_decays),
                ]
            )
            rows = tensors.map_alike(
                lambda item: tensor_statistics.statistics(item[0], item[1], self.statistics),
                list(zip(flat.params, old, strict=True)),
            )
            x = jnp.stack([jnp.concatenate([shared, row.astype(shared.dtype)]) for row in rows])
            controls, lrs, lstm = scheduler.apply(meta_params["scheduler"], x, state.lstm)
            weights = self._own_weights(meta_params["bank"], controls)

            def step(
                item: tuple[
                    jax.Array, jax.Array, accumulators.Moments, perceptron.Weights, jax.Array
                ],
            ) -> tuple[jax.Array, accumulators.Moments]:
                grad, param, moments, weights, lr = item
                grad = tensors.clip(grad)
                moments = accumulators.update(moments, grad, decays)
                x = features.normalized(features.VELO, features.known(grad, param, moments))
                direction, magnitude = perceptron.apply(weights, x, grad.shape, num_outputs=2)
                scale = -self.step_size * lr * features.scale(param)
                return scale * direction * jnp.exp(self.exp_size * magnitude), moments

            own = [jax.tree.map(lambda w, i=i: w[i], weights) for i in range(len(flat.grads))]
            items = list(zip(flat.grads, flat.params, old, own, list(lrs), strict=True))
            out = tensors.map_alike(step, items)
            state = state._replace(moments=accumulators.join(flat.treedef, [m for _, m in out]))
            if self.recurrence == "carried":
                state = state._replace(lstm=lstm)
            return flat.restore([s for s, _ in out]), state

        return trainable.skip_untrainable(optax.GradientTransformationExtraArgs(init_fn, update_fn))

    def _own_weights(self, bank: perceptron.Weights, controls: jax.Array) -> perceptron.Weights:
        """Return every tensor's perceptron, stacked over tensors: a scaled mean of the bank."""
        return jax.tree.map(
            lambda w: (
                jnp.tensordot(controls, w, 1, precision=jax.lax.Precision.HIGHEST)
                * (self.bank_scale / self.bank_size)
            ),
            bank,
        )
