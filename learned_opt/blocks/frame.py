"""The frame of every rule: trees become tensors, averages go on, each tensor gets a step.

`averaged` is a whole transform for rules that remember nothing but averages, `steered` one for
those that a scheduler steers: VeLO and Celo.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

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
    tensors,
)
from veldt.tasks.common import types
from veldt.tasks.inner_loop import trainable

Step: TypeAlias = Callable[..., jax.Array]
"""From what is known of a tensor, and further items of its own, to its step, [N...]."""


class AveragedState(NamedTuple):
    """State of a rule that remembers averages."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    moments: accumulators.Moments  # of trees shaped as the parameters


class SteeredState(NamedTuple):
    """State of a rule that a scheduler steers."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    moments: accumulators.Moments  # of trees shaped as the parameters
    losses: loss_history.LossHistory
    lstm: recurrent.LstmState  # one row, or one for each tensor, in the order of the leaves


def step_each(
    flat: tensors.Flat,
    moments: Sequence[accumulators.Moments],
    decays: accumulators.Decays,
    step: Step,
    *own: Sequence[Any],
    clip: bool = True,
) -> tuple[types.Grads, accumulators.Moments]:
    """Take every gradient into its averages, and return all steps and the averages for the state.

    Args:
      flat: The gradients and parameters.
      moments: Averages of each tensor before this gradient.
      decays: Decays of the averages.
      step: Function from a tensor to its step, given the averages after this gradient.
      *own: Further arguments of `step`, an item for each tensor.
      clip: Whether gradients are clipped first, where a NaN counts as 0.
    """

    def one(item: Any) -> tuple[jax.Array, accumulators.Moments]:
        grad, param, moments, *more = item
        if clip:
            grad = tensors.clip(grad)
        moments = accumulators.update(moments, grad, decays)
        return step(features.known(grad, param, moments), *more), moments

    items = list(zip(flat.grads, flat.params, moments, *own, strict=True))
    out = tensors.map_alike(one, items)
    moved = flat.restore([stepped for stepped, _ in out])
    return moved, accumulators.join(flat.treedef, [after for _, after in out])


def averaged(
    rule: str,
    decays: accumulators.Decays,
    step_at: Callable[[jax.Array], Step],
    *,
    clip: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Return the transform of a rule that remembers nothing but averages.

    Args:
      rule: Name of the rule, for messages.
      decays: Decays of the averages.
      step_at: Function from the number of steps taken, int32 [], to the step of a tensor.
      clip: Whether gradients are clipped.
    """

    def init_fn(params: types.Params) -> AveragedState:
        return AveragedState(jnp.zeros([], jnp.int32), accumulators.init_tree(params, decays))

    def update_fn(
        updates: types.Grads,
        state: AveragedState,
        params: types.Params | None = None,
        **extra_args: object,
    ) -> tuple[types.Grads, AveragedState]:
        del extra_args
        flat = tensors.flatten(updates, params, rule)
        old = accumulators.split(flat.treedef, state.moments)
        moved, moments = step_each(flat, old, decays, step_at(state.count), clip=clip)
        return moved, AveragedState(optax.safe_increment(state.count), moments)

    return trainable.skip_untrainable(optax.GradientTransformationExtraArgs(init_fn, update_fn))


def timed_perceptron(
    rule: str,
    decays: accumulators.Decays,
    blocks: Sequence[features.Block],
    weights: perceptron.Weights,
    *,
    step_size: float,
    exp_size: float,
) -> optax.GradientTransformationExtraArgs:
    """Return steps -step_size * direction * exp(exp_size * magnitude) of a perceptron.

    It reads the features of a parameter and the step's number; gradients are not clipped.
    """

    def step_at(count: jax.Array) -> Step:
        time = progress.tanh_of_step(count)

        def step(tensor: features.Known) -> jax.Array:
            x = features.normalized(blocks, tensor)
            direction, magnitude = perceptron.apply(
                weights, x, tensor.grad.shape, constants=time, num_outputs=2
            )
            return -step_size * direction * jnp.exp(exp_size * magnitude)

        return step

    return averaged(rule, decays, step_at, clip=False)


def steered(
    rule: str,
    num_steps: base.NumSteps,
    decays: accumulators.Decays,
    meta_params: base.MetaParams,
    steer: Callable[
        [jax.Array, tensors.Flat, list[accumulators.Moments], recurrent.LstmState],
        tuple[recurrent.LstmState, Step, list[Sequence[Any]]],
    ],
    *,
    per_tensor: bool = False,
    loss_horizon: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return the transform of a rule that reads the loss and the length of the run.

    Args:
      rule: Name of the rule, for messages.
      num_steps: The length of the run.
      decays: Decays of the averages.
      meta_params: Meta-parameters of the rule; the first state of the LSTM is read here.
      steer: Function from progress and losses, [18], tensors, the averages before this gradient and
        the LSTM's state to the LSTM's next state, the step of a tensor and its further arguments.
      per_tensor: Whether the LSTM has a row for each tensor.
      loss_horizon: Longest horizon of the loss averages, steps; None for the length of the run.

    Raises:
      MissingInputError: The length is not known.
    """
    length = progress.run_length(num_steps, rule)
    loss_decays = loss_history.decays(length if loss_horizon is None else loss_horizon)

    def init_fn(params: types.Params) -> SteeredState:
        num_rows = len(jax.tree.leaves(params)) if per_tensor else 1
        return SteeredState(
            jnp.zeros([], jnp.int32),
            accumulators.init_tree(params, decays),
            loss_history.init(),
            recurrent.tile_state(meta_params["scheduler"]["start"], num_rows),
        )

    def update_fn(
        updates: types.Grads,
        state: SteeredState,
        params: types.Params | None = None,
        *,
        value: jax.Array | float | None = None,
        **extra_args: object,
    ) -> tuple[types.Grads, SteeredState]:
        del extra_args
        if value is None:
            raise errors.MissingInputError.value(rule)
        flat = tensors.flatten(updates, params, rule)
        old = accumulators.split(flat.treedef, state.moments)
        losses = loss_history.update(state.losses, jnp.asarray(value), loss_decays)
        fraction = progress.tanh_of_fraction(state.count, length)
        shared = jnp.concatenate([fraction, loss_history.features(losses, loss_decays)])
        # The LSTM sees the averages before this gradient; the perceptron those after it.
        lstm, step, own = steer(shared, flat, old, state.lstm)
        moved, moments = step_each(flat, old, decays, step, *own)
        return moved, SteeredState(optax.safe_increment(state.count), moments, losses, lstm)

    return trainable.skip_untrainable(optax.GradientTransformationExtraArgs(init_fn, update_fn))


def steered_step(
    weights: perceptron.Weights, tensor: features.Known, scale: jax.Array, exp_size: float
) -> jax.Array:
    """Return scale * direction * exp(exp_size * magnitude), of a perceptron of VeLO's features."""
    x = features.normalized(features.VELO, tensor)
    direction, magnitude = perceptron.apply(weights, x, tensor.grad.shape, num_outputs=2)
    return scale * direction * jnp.exp(exp_size * magnitude)
