"""The plain per-parameter perceptron: gradient, parameter and momenta in, a step out.

Metz et al. 2019, "Understanding and correcting pathologies in the training of learned optimizers"
(arXiv 1810.10180), also called LOLv2; `MLPLOpt` of google/learned_optimization, mlp_lopt.py.
"""

import dataclasses
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import base
from veldt.learned_opt.blocks import accumulators, features, perceptron, progress, tensors
from veldt.tasks.common import types
from veldt.tasks.inner_loop import trainable

_BLOCKS: tuple[features.Block, ...] = (
    features.gradient,
    features.parameter,
    features.momentum,
)


class MlpState(NamedTuple):
    """State of `Mlp`."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    moments: accumulators.Moments  # of trees shaped as the parameters


@final
@dataclasses.dataclass(frozen=True)
class Mlp(base.LearnedOptimizer):
    """Step -step_size * direction * exp(exp_size * magnitude) of every parameter.

    The gradient is not clipped (nor is it in the original): a NaN stays in the averages.

    Attributes:
      hidden_size: Units of each hidden layer.
      hidden_layers: How many.
      decays: Decays of the momenta.
      step_size: Scale of the step.
      exp_size: Scale of the logarithm of the step.
    """

    hidden_size: int = 32
    hidden_layers: int = 2
    decays: tuple[float, ...] = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
    step_size: float = 1e-3
    exp_size: float = 1e-3

    def init(self, key: types.Key) -> base.MetaParams:
        num_inputs = 2 + len(self.decays) + progress.NUM_STEP_FEATURES
        return perceptron.init(key, (num_inputs, *(self.hidden_size,) * self.hidden_layers, 2))

    def as_optax(
        self, meta_params: base.MetaParams, num_steps: base.NumSteps = None
    ) -> optax.GradientTransformationExtraArgs:
        del num_steps  # It reads the step's number, not the run's length.
        decays = accumulators.fixed_decays(self.decays)

        def init_fn(params: types.Params) -> MlpState:
            return MlpState(jnp.zeros([], jnp.int32), accumulators.init_tree(params, decays))

        def update_fn(
            updates: types.Grads,
            state: MlpState,
            params: types.Params | None = None,
            **extra_args: object,
        ) -> tuple[types.Grads, MlpState]:
            del extra_args
            flat = tensors.flatten(updates, params, "mlp")
            old = accumulators.split(flat.treedef, state.moments)
            time = progress.tanh_of_step(state.count)

            def step(
                item: tuple[jax.Array, jax.Array, accumulators.Moments],
            ) -> tuple[jax.Array, accumulators.Moments]:
                grad, param, moments = item
                moments = accumulators.update(moments, grad, decays)
                x = features.normalized(_BLOCKS, features.known(grad, param, moments))
                direction, magnitude = perceptron.apply(
                    meta_params, x, grad.shape, constants=time, num_outputs=2
                )
                return -self.step_size * direction * jnp.exp(self.exp_size * magnitude), moments

            out = tensors.map_alike(step, list(zip(flat.grads, flat.params, old, strict=True)))
            state = MlpState(
                optax.safe_increment(state.count),
                accumulators.join(flat.treedef, [m for _, m in out]),
            )
            return flat.restore([s for s, _ in out]), state

        return trainable.skip_untrainable(optax.GradientTransformationExtraArgs(init_fn, update_fn))
