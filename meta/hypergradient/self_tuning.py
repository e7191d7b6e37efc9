"""Self-tuning networks: parameters as a learned function of the hyperparameters.

MacKay, Vicol, Lorraine, Duvenaud and Grosse 2019 (arXiv 1903.03088;
github.com/asteroidhouse/self-tuning-networks). A network with parameters φ reads the
hyperparameters and answers with the weights that are best for them, ŵ_φ(λ), near the present λ.
With perturbations ε of standard deviation σ, steps alternate between

    φ to lessen E L_T(ŵ_φ(λ + ε), λ + ε)     on training data, several times;
    λ, σ to lessen E L_V(ŵ_φ(λ + ε)) - τ Σ log(σ √(2πe))     on validation data, once.

The bonus of the entropy keeps σ from shrinking to zero, where ŵ would be learned at a point and
have no slope. The gradient by λ goes through ŵ alone, so L_T need not be differentiable by λ.

`BestResponseDense` is the dense layer, W(λ) = s W_elem + diag(U λ) W_hyper, the bias likewise; the
problem's `train_loss(φ, λ)` is any loss of a network of such layers.

Departures: a perturbation is drawn per sample of S and shared by the batch, so that the problem's
losses see one λ as everywhere in this package; the paper draws one per example. (The layer itself
takes λ per example too.) Hyperparameters enter the layers as they are: transformed to be
unconstrained, but neither centred nor scaled.
"""

import dataclasses
import math
from typing import Any, final

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from veldt.meta import pytree
from veldt.meta.hypergradient import bilevel
from veldt.tasks.common import types

# Shapes: B examples, H hyperparameters, I inputs, O outputs, S samples.


@final
class BestResponseDense(nn.Module):
    """A dense layer whose kernel and bias are affine in the hyperparameters.

    Attributes:
      features: Number of outputs, O.
      use_bias: Whether there is a bias.
    """

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array, hyper: jax.Array) -> jax.Array:
        """Apply the layer.

        Args:
          inputs: Float [..., I].
          hyper: Float [H], or one per example, [..., H].

        Returns:
          Float [..., O].
        """
        num_inputs = inputs.shape[-1]
        bound = 1.0 / math.sqrt(num_inputs)
        uniform = _symmetric_uniform(bound)
        shape = (num_inputs, self.features)
        scale = self.param("scale", nn.initializers.ones, ())
        kernel = self.param("kernel", uniform, shape)
        response = self.param("response_kernel", uniform, shape)
        slopes = self.param(
            "slopes", nn.initializers.normal(0.01), (hyper.shape[-1], 2 * self.features)
        )
        kernel_slope, bias_slope = jnp.split(hyper @ slopes, 2, axis=-1)  # each [..., O]
        outputs = scale * (inputs @ kernel) + kernel_slope * (inputs @ response)
        if self.use_bias:
            bias = self.param("bias", uniform, (self.features,))
            response_bias = self.param("response_bias", uniform, (self.features,))
            outputs = outputs + scale * bias + bias_slope * response_bias
        return outputs


@flax.struct.dataclass
class SelfTuningState:
    """The state of a self-tuning network.

    Attributes:
      params: Parameters, φ, the parameters of the best response.
      hyper: Hyperparameters, λ.
      raw_scale: σ before the softplus, shaped as the hyperparameters.
      opt_state: State of the transform that trains φ.
      hyper_opt_state: State of the transform that moves λ and σ.
      step: Number of steps done, int32 [].
    """

    params: types.Params
    hyper: bilevel.HyperParams
    raw_scale: bilevel.HyperParams
    opt_state: types.OptState
    hyper_opt_state: types.OptState
    step: types.Scalar


@final
@dataclasses.dataclass(frozen=True)
class SelfTuning(bilevel.HyperOptimizer):
    """Train a best response and move the hyperparameters through it.

    Attributes:
      tx: Transform that trains φ.
      hyper_tx: Transform that moves λ and σ, as one pytree `(hyper, raw_scale)`; Adam with 3e-3 in
        the paper.
      init_scale: The first σ of every hyperparameter.
      entropy_weight: Weight of the entropy, τ; 1e-5 to 1e-3 in the paper.
      num_train_steps: Number of training steps between two steps of the hyperparameters; 2 in the
        paper.
      num_warmup_steps: Number of steps in which λ and σ stay; five epochs in the paper.
      num_samples: Number of perturbations that an expectation is taken over, S.
    """

    tx: optax.GradientTransformation = dataclasses.field(metadata=pytree.STATIC)
    hyper_tx: optax.GradientTransformation = dataclasses.field(metadata=pytree.STATIC)
    init_scale: float | jax.Array = 0.5
    entropy_weight: float | jax.Array = 1e-3
    num_train_steps: int = dataclasses.field(default=2, metadata=pytree.STATIC)
    num_warmup_steps: int | jax.Array = 0
    num_samples: int = dataclasses.field(default=8, metadata=pytree.STATIC)

    def init(
        self, problem: bilevel.BilevelProblem, params: types.Params, hyper: bilevel.HyperParams
    ) -> SelfTuningState:
        del problem
        raw_scale = jax.tree.map(
            lambda h: jnp.full_like(h, jnp.log(jnp.expm1(self.init_scale))), hyper
        )
        return SelfTuningState(
            params=params,
            hyper=hyper,
            raw_scale=raw_scale,
            opt_state=self.tx.init(params),
            hyper_opt_state=self.hyper_tx.init((hyper, raw_scale)),
            step=jnp.zeros((), jnp.int32),
        )

    def step(
        self, problem: bilevel.BilevelProblem, state: SelfTuningState, key: types.Key
    ) -> tuple[SelfTuningState, bilevel.BilevelLosses]:
        key_train, key_valid = jax.random.split(key)

        def train(
            carry: tuple[types.Params, types.OptState], key: types.Key
        ) -> tuple[tuple[types.Params, types.OptState], None]:
            params, opt_state = carry
            sampled = self._perturb(state.hyper, state.raw_scale, key)

            def expected_loss(params: types.Params) -> types.Scalar:
                return jnp.mean(jax.vmap(lambda h: problem.train_loss(params, h))(sampled))

            grads = jax.grad(expected_loss)(params)
            updates, opt_state = self.tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        keys = jax.random.split(key_train, self.num_train_steps)
        (params, opt_state), _ = jax.lax.scan(train, (state.params, state.opt_state), keys)

        def objective(tuned: tuple[bilevel.HyperParams, bilevel.HyperParams]) -> types.Scalar:
            sampled = self._perturb(*tuned, key_valid)
            losses = jax.vmap(lambda h: problem.valid_loss(params, h))(sampled)
            return jnp.mean(losses) - self.entropy_weight * entropy(tuned[1])

        tuned = (state.hyper, state.raw_scale)
        updates, hyper_opt_state = self.hyper_tx.update(
            jax.grad(objective)(tuned), state.hyper_opt_state, tuned
        )
        moved = (optax.apply_updates(tuned, updates), hyper_opt_state)
        is_warm = state.step >= self.num_warmup_steps
        (hyper, raw_scale), hyper_opt_state = optax.tree.where(
            is_warm, moved, (tuned, state.hyper_opt_state)
        )
        state = SelfTuningState(
            params=params,
            hyper=hyper,
            raw_scale=raw_scale,
            opt_state=opt_state,
            hyper_opt_state=hyper_opt_state,
            step=state.step + 1,
        )
        return state, bilevel.measure(problem, params, hyper)

    def _perturb(
        self, hyper: bilevel.HyperParams, raw_scale: bilevel.HyperParams, key: types.Key
    ) -> bilevel.HyperParams:
        """Draw perturbed hyperparameters, leaves [S, ...]."""

        def sample(key: types.Key) -> bilevel.HyperParams:
            noise = optax.tree.random_like(key, hyper, jax.random.normal)
            return jax.tree.map(
                lambda h, raw, eps: h + jax.nn.softplus(raw) * eps, hyper, raw_scale, noise
            )

        return jax.vmap(sample)(jax.random.split(key, self.num_samples))


def entropy(raw_scale: bilevel.HyperParams) -> types.Scalar:
    """Return the entropy in nats of independent normals with σ = softplus(raw_scale), float []."""
    return optax.tree.sum(
        jax.tree.map(
            lambda raw: jnp.log(jax.nn.softplus(raw) * math.sqrt(2.0 * math.pi * math.e)),
            raw_scale,
        )
    )


def _symmetric_uniform(bound: float) -> nn.initializers.Initializer:
    """Return an initializer that draws from [-bound, bound]."""

    def init(key: types.Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
