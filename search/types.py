"""Aliases shared by the search room."""

from types import ModuleType
from typing import Any, Literal, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray[Any, Any]
Scalar: TypeAlias = float | Array
# The array namespace that an op computes with: `numpy` in probes, `jax.numpy` in training.
ArrayModule: TypeAlias = ModuleType
# "tensor" is shaped as the parameter; "scalar" is one number per parameter tensor.
Kind: TypeAlias = Literal["tensor", "scalar"]
