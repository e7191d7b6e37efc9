"""Celo2: a learned direction, made orthogonal and scaled to root mean square 1.

Moudgil et al. 2026, "Celo2" (arXiv 2602.19142); amoudgl/celo, celo/optimizers/celo2_optax.py. It
has no schedule, no step size and no sense of time: chain it with those.

    optax.chain(
        celo2.scale_by_celo2(meta_params),
        optax.add_decayed_weights(1e-2),
        optax.scale_by_learning_rate(schedule),
    )

`Celo2.as_optax` is the published whole: the network for matrices, Adam at twenty times the rate for
the rest, a learning rate. A departure, off by default: with `knots` the schedule is learned too, so
that a run needs nothing but its length.
"""

import dataclasses
import functools
from typing import Any, Literal, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import base, errors, path_pattern
from veldt.learned_opt.blocks import (
    accumulators,
    features,
    frame,
    matrices,
    newton_schulz,
    perceptron,
    reductions,
)
from veldt.tasks.common import types
from veldt.tasks.inner_loop import trainable

_EPS = 1e-9  # of the scaling of inputs and of the output
_RMS_EPS = 1e-8
_NUM_OUTPUTS = 3  # only the first is read; published files have the weights of all
_ADAM_DECAYS = (0.9, 0.95)
_LAST_SHARE = 0.1  # of the decay between two knots, where a linear decay would end at 0
_LOG_RATE_SCALE = 10.0  # how fast a logarithm of a rate moves with its meta-parameter

_VECTOR_BLOCKS: tuple[features.Block, ...] = (
    features.gradient,
    features.clipped_gradient,
    features.parameter,
    features.momentum,
    features.rms,
    functools.partial(features.momentum_over_rms, eps=_RMS_EPS),
    functools.partial(features.inverse_rms, eps=_RMS_EPS),
    features.factored_gradient,
    functools.partial(features.gradient_over_rms, eps=_RMS_EPS),
)
_GRADIENT, _FIRST_MOMENTUM = 0, 3  # rows of their features
# Nesterov's step, in features of root mean square 1: (1 - b) g + b m with b = 0.95, where noise
# makes the momentum sqrt((1 - b) / (1 + b)) as large as the gradient.
_NESTEROV = 0.33
_BLOCKS = (*_VECTOR_BLOCKS, *features.FACTORED)


@final
@dataclasses.dataclass(frozen=True)
class Celo2(base.LearnedOptimizer):
    """Update -learning_rate * direction; the direction of each matrix has root mean square 1.

    Gradients are clipped to +-1000 before the network, where a NaN counts as 0; Adam's are not.

    Attributes:
      hidden_size: Units of each hidden layer.
      hidden_layers: Number of hidden layers.
      momentum_decays: Decays of the momenta.
      rms_decays: Decay of the averaged square; one.
      factored_decays: Decays of the factored averages; as many as momenta.
      newton_schulz_steps: 0 leaves the direction as it is: "celo2-base".
      vectors: What updates parameters of rank 0 and 1: Adam, or the network ("celo2-base"), which
        for them has no factored features.
      adam_paths: A pattern (`path_pattern`); parameters with a match in their path, such as
        "decoder/embedding/kernel", go to Adam too. Published runs use ".*bias.*|.*embed.*".
      start: What `init` returns: a random network and a constant rate ("random"), or Muon ("muon"):
        a network that returns the gradient averaged with the middle one of the momenta's decays and
        a little of the gradient itself, with other units that have no effect yet, and a linear
        decay.
      scaling: What root mean square a matrix' step has at a learning rate of 1: 1 ("rms", as
        published), or that of an orthogonal matrix, the inverse square root of the longer side
        ("width"). That is about the size of initial weights too, so that a rate found on narrow
        networks fits wide ones. With it a convolution's kernel is one matrix (see `matrices`), not
        one for each position, and what has a side of length 1 is a vector.
      vector_ratio: Adam's rate, relative to the learning rate.
      learning_rate: Learning rate of `as_optax`, unless given there.
      knots: Number of knots of a learned schedule: the logarithm of the rate at evenly spaced
        shares of the run, linear in between, and the ratio of Adam's rate to it. The schedule
        starts as `learning_rate`. 0: none.
    """

    hidden_size: int = 8
    hidden_layers: int = 2
    momentum_decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    rms_decays: tuple[float, ...] = (0.95,)
    factored_decays: tuple[float, ...] = (0.9, 0.99, 0.999)
    newton_schulz_steps: int = 5
    vectors: Literal["adam", "network"] = "adam"
    adam_paths: str | None = None
    start: Literal["random", "muon"] = "random"
    scaling: Literal["rms", "width"] = "rms"
    vector_ratio: float = 20.0
    learning_rate: float = 1e-3
    knots: int = 0

    def __post_init__(self) -> None:
        try:
            path_pattern.check(self.adam_paths or "")
        except ValueError as error:
            raise errors.LearnedOptError(f"adam_paths: {error}") from None

    def init(self, key: types.Key) -> base.MetaParams:
        num_inputs = features.count(
            _BLOCKS, self.momentum_decays, self.rms_decays, self.factored_decays
        )
        sizes = (num_inputs, *(self.hidden_size,) * self.hidden_layers, _NUM_OUTPUTS)
        weights = perceptron.init(key, sizes)
        if self.start == "muon":
            middle = _FIRST_MOMENTUM + len(self.momentum_decays) // 2
            weights = perceptron.passing(weights, {middle: 1.0, _GRADIENT: _NESTEROV})
        meta_params: dict[str, Any] = {"mlp": weights}
        if self.knots:
            share = jnp.ones((self.knots,), jnp.float32)
            if self.start == "muon":
                share = jnp.linspace(1.0, 0.0, self.knots).at[-1].set(_LAST_SHARE / self.knots)
            meta_params["schedule"] = {
                "knots": jnp.log(share) / _LOG_RATE_SCALE,
                "vectors": jnp.zeros((), jnp.float32),
            }
        return meta_params

    def as_optax(
        self,
        meta_params: base.MetaParams,
        num_steps: base.NumSteps = None,
        *,
        learning_rate: optax.ScalarOrSchedule | None = None,
    ) -> optax.GradientTransformationExtraArgs:
        """Return the network for matrices, Adam for the rest, at a learning rate.

        Args:
          meta_params: Meta-parameters from `init`, or trained.
          num_steps: The length of the run, for a learned schedule; others do not read it.
          learning_rate: A number or a schedule; None for the learned schedule, or for the field's
            number where there is none or the length of the run is not known.
        """
        rate = self.learning_rate if learning_rate is None else learning_rate
        adam_rate: Any = self.vector_ratio
        if self.knots:
            adam_rate = adam_rate * jnp.exp(_LOG_RATE_SCALE * meta_params["schedule"]["vectors"])
            if learning_rate is None and num_steps is not None:
                rate = functools.partial(self._rate, meta_params["schedule"]["knots"], num_steps)
        routes = {
            "network": scale_by_celo2(meta_params, self),
            "adam": optax.chain(optax.scale_by_adam(*_ADAM_DECAYS), optax.scale(adam_rate)),
        }
        return trainable.skip_untrainable(
            optax.chain(
                optax.multi_transform(routes, self.routes), optax.scale_by_learning_rate(rate)
            )
        )

    def _rate(self, knots: jax.Array, num_steps: int | jax.Array, count: jax.Array) -> jax.Array:
        """Return the learned schedule's rate after `count` steps, float []."""
        place = count / jnp.maximum(num_steps - 1, 1) * (self.knots - 1)
        log = jnp.interp(place, jnp.arange(self.knots), knots)
        return self.learning_rate * jnp.exp(_LOG_RATE_SCALE * log)

    def routes(self, params: types.Params) -> types.Params:
        """Return a tree as the parameters that says "network" or "adam" for each."""

        def route(path: tuple[jax.tree_util.KeyEntry, ...], param: jax.Array) -> str:
            shape = jnp.shape(param)
            is_vector = not matrices.is_matrix(shape) if self.scaling == "width" else len(shape) < 2
            if is_vector and self.vectors == "adam":
                return "adam"
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            is_named = self.adam_paths and path_pattern.matches(self.adam_paths, name)
            return "adam" if is_named else "network"

        return jax.tree_util.tree_map_with_path(route, params)


def scale_by_celo2(
    meta_params: base.MetaParams, config: Celo2 | None = None
) -> optax.GradientTransformationExtraArgs:
    """Return the learned direction alone, for every parameter, as `optax.scale_by_adam` has it.

    A learning rate applied after it (`optax.scale_by_learning_rate`) turns it downhill. For a
    tensor of rank above 2, each matrix over the last two axes counts by itself in the scaling; the
    factored averages are over the two largest dimensions, whichever they are.

    Args:
      meta_params: Meta-parameters from `Celo2.init`, or trained.
      config: Sizes and options; None for the defaults. The fields `vectors`, `adam_paths` and
        `learning_rate` are for `Celo2.as_optax` and not read here.
    """
    config = Celo2() if config is None else config
    decays = accumulators.fixed_decays(
        config.momentum_decays, config.rms_decays, config.factored_decays
    )

    def step(tensor: features.Known) -> jax.Array:
        grad = tensor.grad
        axes = tuple(range(grad.ndim))[-2:]
        blocks = _VECTOR_BLOCKS if grad.ndim < 2 else _BLOCKS
        x = features.normalized(blocks, tensor, axes=axes, eps=_EPS)
        (direction,) = perceptron.apply(meta_params["mlp"], x, grad.shape, num_outputs=1)
        size = 1.0
        if grad.ndim >= 2 and config.scaling == "width":
            direction = matrices.as_matrices(direction)
            size = matrices.orthogonal_size(direction)
            axes = tuple(range(direction.ndim))[-2:]
        if grad.ndim >= 2 and config.newton_schulz_steps:
            direction = newton_schulz.orthogonalize(direction, config.newton_schulz_steps)
        (square,) = reductions.mean_squares([direction], axes)
        direction = direction * (size * jax.lax.rsqrt(square + _EPS))
        return direction.reshape(grad.shape)

    return frame.averaged("celo2", decays, lambda count: step)
