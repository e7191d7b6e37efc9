"""A per-tensor LSTM and a per-parameter perceptron that talk to each other.

Metz et al. 2020, "Tasks, stability, architecture, and compute: training more effective learned
optimizers" (arXiv 2009.11243); `RNNMLPLOpt` of google/learned_optimization, rnn_mlp_lopt.py. Its
two networks pass messages: the LSTM's output goes to the perceptron, the perceptron's mean output
and a mean over tensors of the LSTM's come back at the next step.
"""

import dataclasses
import math
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import base, errors
from veldt.learned_opt.blocks import (
    accumulators,
    features,
    gradient_clipping,
    loss_scale,
    perceptron,
    progress,
    recurrent,
    reductions,
    tensors,
)
from veldt.tasks.common import types
from veldt.tasks.inner_loop import trainable

_NUM_STATISTICS = 18
_NUM_DIMS = 4
_NUM_TENSOR_CONSTANTS = 3  # number of tensors, norm, number of parameters
_TRAIN_LOSS_DECAY = 0.9
_VALID_LOSS_DECAY = 0.95

_BLOCKS: tuple[features.Block, ...] = (
    features.gradient,
    features.parameter,
    features.log_parameter,
    features.momentum,
    features.rms,
    features.momentum_over_rms,
    features.inverse_rms,
)


class RnnMlpState(NamedTuple):
    """State of `RnnMlp`."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    moments: accumulators.Moments  # of trees shaped as the parameters
    lstm: recurrent.LstmState  # one row for each tensor, in the order of the leaves
    from_mlp: jax.Array  # [tensors, from_mlp_size]
    from_lstm: jax.Array  # [from_lstm_size]
    train_loss: loss_scale.LossScale
    valid_loss: loss_scale.LossScale
    clipping: gradient_clipping.ClippingState


@final
@dataclasses.dataclass(frozen=True)
class RnnMlp(base.LearnedOptimizer):
    """Reads the loss (`value=`); the validation loss too, where it is given (`valid_value=`).

    The step is -step_size * direction * exp(exp_size * magnitude). Gradients are clipped to ten
    times their running root mean square, where a NaN counts as 0.

    Attributes:
      lstm_size: Units of the LSTM.
      hidden_size: Units of each hidden layer of the perceptron.
      hidden_layers: How many.
      from_mlp_size: Size of the perceptron's message to the LSTM.
      from_lstm_size: Size of the LSTM's message to itself, from all tensors.
      to_mlp_size: Size of the LSTM's message to the perceptron.
      decays: Decays of the momenta and of the averaged squares.
      step_size: Scale of the step.
      exp_size: Scale of the logarithm of the step.
    """

    lstm_size: int = 64
    hidden_size: int = 32
    hidden_layers: int = 2
    from_mlp_size: int = 16
    from_lstm_size: int = 18
    to_mlp_size: int = 17
    decays: tuple[float, ...] = (0.5, 0.9, 0.99, 0.999, 0.9999)
    step_size: float = 1e-3
    exp_size: float = 1e-3

    def init(self, key: types.Key) -> base.MetaParams:
        keys = iter(jax.random.split(key, 6))
        num_inputs = features.count(_BLOCKS, self.decays, self.decays, (0.9,))
        num_inputs += progress.NUM_STEP_FEATURES + _NUM_TENSOR_CONSTANTS + self.to_mlp_size
        sizes = (num_inputs, *(self.hidden_size,) * self.hidden_layers, 2 + self.from_mlp_size)
        num_statistics = _NUM_STATISTICS + self.from_lstm_size + self.from_mlp_size
        return {
            "mlp": perceptron.init(next(keys), sizes),
            "lstm": recurrent.init_lstm(next(keys), num_statistics, self.lstm_size),
            "start": recurrent.init_state(self.lstm_size),
            "to_mlp": recurrent.init_linear(next(keys), self.lstm_size, self.to_mlp_size),
            "to_lstm": recurrent.init_linear(next(keys), self.lstm_size, self.from_lstm_size),
            "from_mlp": _init_message(next(keys), self.from_mlp_size),
            "from_lstm": _init_message(next(keys), self.from_lstm_size),
        }

    def as_optax(
        self, meta_params: base.MetaParams, num_steps: base.NumSteps = None
    ) -> optax.GradientTransformationExtraArgs:
        del num_steps  # It reads the step's number, not the run's length.
        decays = accumulators.fixed_decays(self.decays, self.decays)

        def init_fn(params: types.Params) -> RnnMlpState:
            num_tensors = len(jax.tree.leaves(params))
            return RnnMlpState(
                jnp.zeros([], jnp.int32),
                accumulators.init_tree(params, decays),
                recurrent.tile_state(meta_params["start"], num_tensors),
                jnp.tile(meta_params["from_mlp"], (num_tensors, 1)),
                meta_params["from_lstm"],
                loss_scale.init(),
                loss_scale.init(),
                gradient_clipping.init(),
            )

        def update_fn(
            updates: types.Grads,
            state: RnnMlpState,
            params: types.Params | None = None,
            *,
            value: jax.Array | float | None = None,
            valid_value: jax.Array | float | None = None,
            **extra_args: object,
        ) -> tuple[types.Grads, RnnMlpState]:
            del extra_args
            if value is None:
                raise errors.MissingInputError.value("rnn_mlp")
            flat = tensors.flatten(updates, params, "rnn_mlp")
            if not flat.grads:
                return updates, state._replace(count=optax.safe_increment(state.count))
            old = accumulators.split(flat.treedef, state.moments)

            train = loss_scale.update(state.train_loss, jnp.asarray(value), _TRAIN_LOSS_DECAY)
            valid = state.valid_loss
            if valid_value is not None:
                valid = loss_scale.update(valid, jnp.asarray(valid_value), _VALID_LOSS_DECAY)
            losses = jnp.stack(
                [
                    loss_scale.standardize(train, jnp.asarray(value), _TRAIN_LOSS_DECAY),
                    loss_scale.standardize(
                        train, loss_scale.mean(valid, _VALID_LOSS_DECAY), _TRAIN_LOSS_DECAY
                    ),
                ]
            )
            clipping, grads = gradient_clipping.clip(state.clipping, flat.grads)

            def read(
                item: tuple[jax.Array, jax.Array, accumulators.Moments, jax.Array],
            ) -> tuple[jax.Array, accumulators.Moments]:
                grad, param, moments, is_scalar = item
                moments = accumulators.update(moments, grad, decays)
                return _statistics(grad, param, moments, losses, is_scalar), moments

            scalars = [jnp.where(jnp.ndim(g) == 0, 1.0, -1.0) for g in jax.tree.leaves(updates)]
            read_out = tensors.map_alike(
                read, list(zip(grads, flat.params, old, scalars, strict=True))
            )
            x = jnp.stack(
                [
                    jnp.concatenate([state.from_lstm, state.from_mlp[i], row])
                    for i, (row, _) in enumerate(read_out)
                ]
            )
            lstm = recurrent.lstm(meta_params["lstm"], x, state.lstm)
            to_mlp = recurrent.linear(meta_params["to_mlp"], lstm.hidden)
            time = progress.sin_of_step(state.count)

            def step(
                item: tuple[jax.Array, jax.Array, accumulators.Moments, jax.Array],
            ) -> tuple[jax.Array, jax.Array]:
                grad, param, moments, message = item
                x = features.normalized(_BLOCKS, features.known(grad, param, moments))
                constants = jnp.stack(
                    [
                        jnp.log(jnp.asarray(len(flat.grads), jnp.float32)) - 1.0,
                        jnp.log(_norm(param) + 1e-8),
                        jnp.log(jnp.asarray(max(grad.size, 1), jnp.float32)),
                    ]
                )
                direction, magnitude, *extra = perceptron.apply(
                    meta_params["mlp"],
                    x,
                    grad.shape,
                    constants=jnp.concatenate([time, constants, message]),
                    num_outputs=2 + self.from_mlp_size,
                )
                message = jnp.stack([m.reshape(()) for m in reductions.means(extra)])
                return -self.step_size * direction * jnp.exp(self.exp_size * magnitude), message

            moments = [m for _, m in read_out]
            out = tensors.map_alike(
                step, list(zip(grads, flat.params, moments, list(to_mlp), strict=True))
            )
            state = RnnMlpState(
                optax.safe_increment(state.count),
                accumulators.join(flat.treedef, moments),
                lstm,
                jnp.stack([message for _, message in out]),
                jnp.mean(recurrent.linear(meta_params["to_lstm"], lstm.hidden), axis=0),
                train,
                valid,
                clipping,
            )
            return flat.restore([s for s, _ in out]), state

        return trainable.skip_untrainable(optax.GradientTransformationExtraArgs(init_fn, update_fn))


def _statistics(
    grad: jax.Array,
    param: jax.Array,
    moments: accumulators.Moments,
    losses: jax.Array,
    is_scalar: jax.Array,
) -> jax.Array:
    """Return the 18 numbers about a tensor, in the alphabetical order of the original's names.

    Means and variances are over the parameters and over the decays together.

    Args:
      grad: Clipped gradient, [N...].
      param: Parameters, [N...].
      moments: Averages after this gradient.
      losses: Train and validation loss, standardized, [2].
      is_scalar: 1.0 for a parameter of rank 0, else -1.0.
    """
    assert moments.rms is not None
    mean_m, var_m = _mean_and_variance(list(moments.momentum))
    mean_rms, var_rms = _mean_and_variance(list(moments.rms))
    mean_p, var_p = _mean_and_variance([param])
    dims = [
        jnp.asarray(float(max(size, 1))) for size in (*param.shape, *(1,) * _NUM_DIMS)[:_NUM_DIMS]
    ]
    return jnp.stack(
        [
            _log(_norm(grad)),
            is_scalar,
            _log(mean_m),
            jnp.sign(mean_m),
            _log(mean_rms),
            jnp.sign(mean_rms),
            _log(mean_p),
            jnp.sign(mean_p),
            _log(_norm(param)),
            *(jnp.log(dim) - 1.0 for dim in dims),
            *losses,
            _log(var_m),
            _log(var_rms),
            _log(var_p),
        ]
    )


def _mean_and_variance(arrays: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance of all numbers in arrays of one shape."""
    centre = sum(reductions.means(arrays), start=jnp.zeros(())) / len(arrays)
    squares = reductions.mean_squares([array - centre for array in arrays])
    return centre.reshape(()), sum(squares, start=jnp.zeros(())).reshape(()) / len(arrays)


def _norm(x: jax.Array) -> jax.Array:
    """Return the root of the sum of squares; the derivative at 0 is 0."""
    square = reductions.mean_squares([x])[0].reshape(()) * x.size
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _log(x: jax.Array) -> jax.Array:
    return jnp.clip(jnp.log(1e-8 + jnp.abs(x)), -5, 5)


def _init_message(key: types.Key, size: int) -> jax.Array:
    """Return a first message, of Haiku's `VarianceScaling`: a cut normal of variance 1 / size."""
    cut_deviation = 0.87962566103423978
    normal = jax.random.truncated_normal(key, -2.0, 2.0, (size,), jnp.float32)
    return normal / (cut_deviation * math.sqrt(size))
