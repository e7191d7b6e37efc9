"""Known directions at learned scales: Muon and Adam, with all that their steps depend on learned.

Directions are known; what tuning gives is their scale, over time and by kind of parameter. So a few
numbers are learned: a schedule, the rate of each kind of parameter, how rates depend on width and
on the length of the run, the averages' decays, weight decay. With `scale="recurrent"` a small net
moves the rate of each tensor up and down while training runs (`steering`).

Matrices step along Muon's direction (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/),
the momentum made orthogonal by Newton-Schulz iterations; vectors and embeddings along Adam's
(arXiv 1412.6980). All numbers start at 0, which is Muon with a linear decay. With
`direction="carom"` matrices step along that of the rule carom, which a search of veldt's found: the
momentum's cube root is added, at a learned weight, and the average is shorter.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import base, errors
from veldt.learned_opt.blocks import matrices, newton_schulz, progress, steering, tensors
from veldt.tasks.common import types
from veldt.tasks.inner_loop import model_parts, trainable

Kind: TypeAlias = Literal["matrix", "last", "vector", "embedding"]
"""What a tensor is: a matrix, that of the last layer, an embedding, or anything else."""

_GAIN: Final = 10.0  # A meta-parameter of 0.01 is a tenth in the logarithm of what it sets.
_LENGTH: Final = 300.0  # The number of steps, and
_WIDTH: Final = 64.0  # the length of a matrix' sides, at which exponents change nothing.
_LAST_SHARE: Final = 0.1  # of the decay between two knots, where a linear decay would end at 0
Direction: TypeAlias = Literal["muon", "carom"]
"""The rule whose direction matrices step along."""

_MOMENTUM: Final[Mapping[Direction, float]] = {"muon": 0.05, "carom": 0.42}
_ADAM: Final[Mapping[str, float]] = {"adam_momentum": 0.1, "adam_square": 0.05}
"""What each average forgets in a step, to start with; the first is that of matrices."""
_LEAST_FORGOTTEN, _MOST_FORGOTTEN = 0.002, 0.5
_WEIGHT_DECAY: Final = 1e-3
_EPS: Final = 1e-8
_TINY: Final = 1e-30
_TINY_SQUARE: Final = 1e-18
_NUMBERS: Final = (
    *("matrix", "last", "vector", "embedding"),
    *("momentum", *_ADAM),
    *("nesterov", "decay", "longer_side", "shorter_side", "length", "momentum_length"),
)


class ScaledState(NamedTuple):
    """State of `Scaled`."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    momentum: types.Params  # float32 or wider
    square: types.Params  # of what steps along Adam's direction; None for matrices
    steering: steering.SteeringState | tuple[()]


@final
@dataclasses.dataclass(frozen=True)
class Scaled(base.LearnedOptimizer):
    """Update -rate * (direction + decay * parameter), where decay is of matrices alone.

    Gradients are clipped to +-1000, where a NaN counts as 0. An orthogonal direction has the root
    mean square of an orthogonal matrix, as `Celo2.scaling` "width" has it.

    Attributes:
      learning_rate: Rate that the numbers are relative to.
      knots: Number of knots of the schedule: the logarithm of the rate at evenly spaced shares of
        the run, linear in between.
      scale: What moves the rate beside the schedule: nothing ("schedule"), or a net for each tensor
        that reads the loss too ("recurrent").
      hidden_size: Hidden units of that net.
      newton_schulz_steps: Number of Newton-Schulz iterations.
      direction: Rule whose direction matrices step along.
    """

    learning_rate: float = 0.02
    knots: int = 9
    scale: Literal["schedule", "recurrent"] = "schedule"
    hidden_size: int = 8
    newton_schulz_steps: int = 5
    direction: Direction = "muon"

    def __post_init__(self) -> None:
        for name, least in (("knots", 2), ("hidden_size", 1), ("newton_schulz_steps", 1)):
            if getattr(self, name) < least:
                raise errors.LearnedOptError(
                    f"scaled: {name} is {getattr(self, name)}; it must be at least {least}"
                )

    def init(self, key: types.Key) -> base.MetaParams:
        share = jnp.linspace(1.0, 0.0, self.knots).at[-1].set(_LAST_SHARE / self.knots)
        names = (*_NUMBERS, "cube_root") if self.direction == "carom" else _NUMBERS
        meta_params: dict[str, Any] = {
            "schedule": {"knots": jnp.log(share) / _GAIN},
            "numbers": {name: jnp.zeros((), jnp.float32) for name in names},
        }
        if self.scale == "recurrent":
            meta_params["steering"] = steering.init_weights(key, self.hidden_size)
        return meta_params

    def as_optax(
        self, meta_params: base.MetaParams, num_steps: base.NumSteps = None
    ) -> optax.GradientTransformationExtraArgs:
        """Return the transform; with `scale="recurrent"` it reads the loss, `value=`.

        Raises:
          MissingInputError: The length of the run is not known.
        """
        length = progress.run_length(num_steps, "scaled")
        settings = _Settings.of(meta_params, length, _MOMENTUM[self.direction])
        steers = self.scale == "recurrent"

        def init_fn(params: types.Params) -> ScaledState:
            zeros = jax.tree.map(lambda leaf: jnp.zeros_like(tensors.as_tensor(leaf)), params)
            square = jax.tree.map(
                lambda kind, leaf: leaf if _is_adams(kind) else None, kinds_of(params), zeros
            )
            rates = steering.init(len(jax.tree.leaves(params))) if steers else ()
            return ScaledState(jnp.zeros((), jnp.int32), zeros, square, rates)

        def update_fn(
            updates: types.Grads,
            state: ScaledState,
            params: types.Params | None = None,
            *,
            value: jax.Array | float | None = None,
            **extra_args: object,
        ) -> tuple[types.Grads, ScaledState]:
            del extra_args
            if value is None and steers:
                raise errors.MissingInputError.value("scaled")
            flat = tensors.flatten(updates, params, "scaled")
            if not flat.grads:
                return updates, state
            grads = [tensors.clip(grad) for grad in flat.grads]
            kinds, momenta = flat.split(kinds_of(params)), flat.split(state.momentum)
            done = state.count / jnp.maximum(length - 1, 1)
            rate = self.learning_rate * settings.schedule(done)
            rates = [
                rate * settings.share(kind, param.shape)
                for kind, param in zip(kinds, flat.params, strict=True)
            ]
            steered = state.steering
            if isinstance(steered, steering.SteeringState):
                known = 1 - (1 - settings.forgets["momentum"]) ** state.count
                seen = [
                    _seen(*each, known=known)
                    for each in zip(kinds, grads, momenta, flat.params, rates, strict=True)
                ]
                loss = jnp.asarray(value)
                steered = steering.update(
                    meta_params["steering"], steered, steering.stack(seen), loss, done, length
                )
                scales = jnp.exp(steered.log_scale)
                rates = [rate * scale for rate, scale in zip(rates, scales, strict=True)]
            rows = zip(grads, flat.params, momenta, flat.split(state.square), rates, strict=True)
            moved = tensors.map_alike(lambda row: self._move(settings, state.count, *row), [*rows])
            momenta, squares, steps = ([*part] for part in zip(*moved, strict=True))
            count = optax.safe_increment(state.count)
            after = ScaledState(count, flat.join(momenta), flat.join(squares), steered)
            return flat.restore(steps), after

        return trainable.skip_untrainable(optax.GradientTransformationExtraArgs(init_fn, update_fn))

    def _move(
        self,
        settings: "_Settings",
        count: jax.Array,
        grad: jax.Array,
        param: jax.Array,
        momentum: jax.Array,
        square: jax.Array | None,
        rate: jax.Array,
    ) -> tuple[jax.Array, jax.Array | None, jax.Array]:
        """Return a tensor's averages after a gradient, and its step."""
        if square is None:
            forget = settings.forgets["momentum"]
            momentum = momentum + forget * (grad - momentum)
            ahead = momentum + settings.nesterov * forget * (grad - momentum)
            direction = self._orthogonal(ahead)
            if self.direction == "carom":
                direction = direction + jnp.exp(settings.logs["cube_root"]) * _cube_root(ahead)
            return momentum, None, -rate * (direction + settings.decay * param)
        first, second = settings.forgets["adam_momentum"], settings.forgets["adam_square"]
        momentum = momentum + first * (grad - momentum)
        square = square + second * (jnp.square(grad) - square)
        mean = momentum / (1 - (1 - first) ** (count + 1))
        root = jnp.sqrt(square / (1 - (1 - second) ** (count + 1)))
        return momentum, square, -rate * mean / (root + _EPS)

    def _orthogonal(self, x: jax.Array) -> jax.Array:
        """Return the orthogonal direction, of the root mean square of an orthogonal matrix."""
        direction = newton_schulz.orthogonalize(matrices.as_matrices(x), self.newton_schulz_steps)
        square = jnp.mean(jnp.square(direction), axis=(-2, -1), keepdims=True)
        size = matrices.orthogonal_size(direction)
        return (direction * size * jax.lax.rsqrt(square + _EPS)).reshape(x.shape)


@final
@dataclasses.dataclass(frozen=True)
class _Settings:
    """What the meta-parameters set, for a run of one length.

    Attributes:
      logs: Logarithms of the numbers' effects, float [] each.
      knots: Logarithms of the schedule.
      forgets: What each average forgets in a step.
      nesterov: Weight of the gradient in the direction, relative to Nesterov's.
      decay: Weight decay.
    """

    logs: Mapping[str, jax.Array]
    knots: jax.Array
    forgets: Mapping[str, jax.Array]
    nesterov: jax.Array
    decay: jax.Array

    @classmethod
    def of(cls, meta_params: base.MetaParams, length: jax.Array, momentum: float) -> Self:
        """Return the settings.

        Args:
          meta_params: Meta-parameters of `Scaled`.
          length: Number of steps of the run, float [].
          momentum: What the momentum of matrices forgets in a step, to start with.
        """
        logs = {name: _GAIN * number for name, number in meta_params["numbers"].items()}
        longer = jnp.log(length / _LENGTH)
        slower = longer * logs["momentum_length"]
        return cls(
            logs=logs,
            knots=_GAIN * meta_params["schedule"]["knots"] + longer * logs["length"],
            forgets={
                name: jnp.clip(
                    start * jnp.exp(logs[name] + slower), _LEAST_FORGOTTEN, _MOST_FORGOTTEN
                )
                for name, start in {"momentum": momentum, **_ADAM}.items()
            },
            nesterov=jnp.exp(logs["nesterov"]),
            decay=_WEIGHT_DECAY * jnp.exp(logs["decay"]),
        )

    def schedule(self, done: jax.Array) -> jax.Array:
        """Return the schedule at a share of the run, float []."""
        last = len(self.knots) - 1
        return jnp.exp(jnp.interp(done * last, jnp.arange(last + 1), self.knots))

    def share(self, kind: Kind, shape: tuple[int, ...]) -> jax.Array:
        """Return the rate of a tensor, relative to the schedule, float []."""
        log = self.logs[kind]
        if not _is_adams(kind):
            longer, shorter = matrices.sides(shape)
            log = log + self.logs["longer_side"] * math.log(longer / _WIDTH)
            log = log + self.logs["shorter_side"] * math.log(shorter / _WIDTH)
        return jnp.exp(log)


def kinds_of(params: types.Params) -> types.Params:
    """Return a tree as the parameters that has the kind of each."""
    embeddings, last = model_parts.embedding_mask(params), model_parts.last_mask(params)

    def kind(param: jax.Array, is_embedding: float, is_last: float) -> Kind:
        if not matrices.is_matrix(jnp.shape(param)):
            return "vector"
        if is_embedding:
            return "embedding"
        return "last" if is_last else "matrix"

    return jax.tree.map(kind, params, embeddings, last)


def _cube_root(x: jax.Array) -> jax.Array:
    """Return the cube root; within rounding, but for a finite derivative at 0."""
    return x * jnp.power(jnp.square(x) + _TINY_SQUARE, -1 / 3)


def _is_adams(kind: Kind) -> bool:
    """Return whether a tensor steps along Adam's direction."""
    return kind in ("vector", "embedding")


def _seen(
    kind: Kind,
    grad: jax.Array,
    momentum: jax.Array,
    param: jax.Array,
    rate: jax.Array,
    *,
    known: jax.Array,
) -> steering.Seen:
    """Return what the net reads of a tensor; `known` corrects the momentum's bias."""
    size = 1.0 if _is_adams(kind) else matrices.orthogonal_size(matrices.as_matrices(grad))
    energy, square = jnp.mean(jnp.square(grad)), jnp.mean(jnp.square(momentum))
    product = jnp.mean(grad * momentum)
    return steering.Seen(
        cosine=product * jax.lax.rsqrt(jnp.maximum(energy * square, _TINY)),
        energy=energy,
        momentum=square / jnp.square(jnp.maximum(known, _EPS)),
        ratio=rate * size / (jnp.sqrt(jnp.mean(jnp.square(param))) + _EPS),
    )
