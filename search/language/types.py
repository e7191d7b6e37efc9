"""Type aliases of the search package."""

from types import ModuleType
from typing import Literal, TypeAlias

# The array namespace that an op computes with: `numpy` in probes, `jax.numpy` in training.
ArrayModule: TypeAlias = ModuleType
# Kinds of values, for each parameter tensor of R rows and C columns (`shapes.py`): "scalar" is one
# number, "tensor" is shaped as the parameter, "transposed" is [C, R]; "row_pairs" is [R, R] and
# "column_pairs" [C, C], as products of a matrix with its transpose are; "sketch" is [K, L], where K
# is a fourth of the shorter side and L the longer; "history" is a list of so many numbers for all.
Kind: TypeAlias = Literal[
    "scalar", "tensor", "transposed", "row_pairs", "column_pairs", "sketch", "history"
]
