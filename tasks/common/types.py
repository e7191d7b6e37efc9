"""The types that every package shares: aliases that name what would otherwise be `Any`.

A pytree has no useful static type in JAX, so these names carry the meaning: a signature says
`params: Params, grads: Grads`, never `Any`.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import jax

Params: TypeAlias = Any
"""Pytree of float arrays: the parameters in training."""

Grads: TypeAlias = Any
"""Pytree shaped as the params: the gradient of the loss."""

OptState: TypeAlias = Any
"""Pytree that an Optax transform carries from step to step."""

Batch: TypeAlias = Any
"""Pytree of arrays: what one evaluation of a task's loss reads."""

Selection: TypeAlias = Any
"""Small pytree that names a batch before it is gathered, such as row numbers (`Task.sample`)."""

TaskConfig: TypeAlias = Any
"""Pytree of arrays: one member of a task family; may be traced."""

Key: TypeAlias = jax.Array
"""Typed PRNG key, shape [], from `jax.random.key`."""

Scalar: TypeAlias = jax.Array
"""Array of shape []."""

Aux: TypeAlias = Mapping[str, jax.Array]
"""Named extras of a loss, besides its value."""

Split: TypeAlias = Literal["train", "valid", "test"]
"""Part of a task's data: trained on, selected on, reported on."""
