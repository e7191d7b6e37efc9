"""The seam of every learned optimizer: meta-parameters in, a plain Optax transform out.

The split is that of google/learned_optimization (`LearnedOptimizer.init(key) -> theta`,
`.opt_fn(theta) -> Optimizer`), with Optax's transform in the place of an optimizer class.
"""

import abc
from typing import Any, TypeAlias

import jax
import optax

from veldt.tasks.common import types

MetaParams: TypeAlias = Any
"""Pytree of float arrays: what meta-training moves."""

NumSteps: TypeAlias = int | jax.Array | None
"""The length of a training run; a scalar of JAX, where it is traced; None where it is not known."""


class LearnedOptimizer(abc.ABC):
    """An update rule with weights."""

    @abc.abstractmethod
    def init(self, key: types.Key) -> MetaParams:
        """Return untrained meta-parameters; the key is consumed."""

    @abc.abstractmethod
    def as_optax(
        self, meta_params: MetaParams, num_steps: NumSteps = None
    ) -> optax.GradientTransformationExtraArgs:
        """Return the transform that these meta-parameters define.

        Differentiable in `meta_params`, which may be traced; its updates are what
        `optax.apply_updates` adds.

        Args:
            meta_params: From `init`, or trained.
            num_steps: The length of the training run, for a rule that reads how far it has got.
                It may be traced: runs of many lengths are one compiled program.
        """
