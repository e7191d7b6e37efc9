"""A parameter as a matrix, from its inputs to its outputs, as optimizers of whole matrices need it.

Jordan et al. 2024 (Muon, https://kellerjordan.github.io/posts/muon/) take a convolution's kernel as
one matrix from all inputs of its window to its outputs. Where those stand depends on the library:
Flax has [height, width, inputs, outputs], Equinox and PyTorch [outputs, inputs, height, width].
"""

import math

import jax


def as_matrices(x: jax.Array) -> jax.Array:
    """Return a convolution's kernel (rank 4) as a matrix; all else as it is, [..., rows, columns].

    A tensor of another rank above 2 counts as a stack of matrices over its last two axes.
    """
    if x.ndim != 4:
        return x
    if _outputs_first(x.shape):
        return x.reshape(x.shape[0], -1)
    return x.reshape(-1, x.shape[-1])


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether there is anything to make orthogonal: no side has the length 1."""
    if len(shape) < 2:
        return False
    if len(shape) == 4:
        outputs = shape[0] if _outputs_first(shape) else shape[-1]
        return min(outputs, math.prod(shape) // outputs) > 1
    return min(shape[-2:]) > 1


def sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the longer and the shorter side of a parameter as matrices: libraries transpose."""
    rows, columns = shape[-2:]
    if len(shape) == 4:
        columns = shape[0] if _outputs_first(shape) else shape[-1]
        rows = math.prod(shape) // columns
    return max(rows, columns), min(rows, columns)


def orthogonal_size(x: jax.Array) -> float:
    """Return the root mean square of orthogonal matrices [..., rows, columns]."""
    return 1 / math.sqrt(max(x.shape[-2:]))


def _outputs_first(shape: tuple[int, ...]) -> bool:
    """Whether the window is behind: square there, and not in front, or smaller than in front."""
    square = shape[2] == shape[3]
    return square and (shape[0] != shape[1] or shape[0] > shape[2])
