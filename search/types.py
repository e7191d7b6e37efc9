"""Aliases shared by the search room."""

from types import ModuleType
from typing import Literal, TypeAlias

# The array namespace that an op computes with: `numpy` in probes, `jax.numpy` in training.
ArrayModule: TypeAlias = ModuleType
# "tensor" is shaped as the parameter; "scalar" is one number per parameter tensor.
Kind: TypeAlias = Literal["tensor", "scalar"]
