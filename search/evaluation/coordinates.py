"""A rule's numbers as a point without bounds, where a step of 1 has a like meaning everywhere.

| number                         | coordinate                 |
|--------------------------------|----------------------------|
| the learning rate              | its logarithm              |
| between 0 and 1 (decays, eps)  | log(c / (1 - c))           |
| any other but 0                | log of its size; sign kept |
| 0                              | c / 0.01                   |

The number that a constant starts from sets its row, which stays the same: a gain that began above
1 may fall below it, and a weight that began at 0 may have either sign.
"""

import enum
import math
from typing import Final, final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from veldt.search.evaluation.genotype import MAX_CONSTANT, Genotype
from veldt.search.program import Program

_ZERO_SCALE: Final = 0.01
_LARGEST_LOG: Final = 80.0  # e to this is a float32
_LEAST_SHARE: Final = 1e-12  # Shares stay between this and 1 - 1e-7, the float below 1 in float32.


@final
class _Scale(enum.Enum):
    """The coordinate of a constant; a row of the table above."""

    SHARE = enum.auto()
    SIZE = enum.auto()
    ZERO = enum.auto()

    @classmethod
    def of(cls, start: float) -> "_Scale":
        if start == 0:
            return cls.ZERO
        return cls.SHARE if 0 < start < 1 else cls.SIZE


def encode(start: Program, genotype: Genotype) -> NDArray[np.float64]:
    """Return the coordinates of a rule's numbers, float [1 + constants]: learning rate first.

    Args:
      start: Program with the constants that it starts from.
      genotype: Same program with numbers that may be reached from there.
    """
    numbers = [
        _coordinate(first, value)
        for (_, first), (_, value) in zip(start.constants, genotype.program.constants, strict=True)
    ]
    return np.array([math.log(genotype.learning_rate), *numbers])


def decode(start: Program, point: NDArray[np.float64]) -> Genotype:
    """Return the rule at a point.

    Args:
      start: Program with the constants that it starts from.
      point: Coordinates, float [1 + constants].
    """
    # The bounds are wide enough that no two candidates end at the same one.
    rate = math.exp(min(max(float(point[0]), -_LARGEST_LOG), _LARGEST_LOG))
    values = {
        name: _number(value, float(x))
        for (name, value), x in zip(start.constants, point[1:], strict=True)
    }
    return Genotype(start.with_constants(**values), rate)


def shifted(
    start: Program, numbers: jax.Array, shift: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return a rule's numbers after a small shift; differentiable by the shift.

    This is `decode` at the coordinates of `numbers` plus `shift`, but for the bounds. The
    coordinates themselves are not computed: in float32 those of 1e-8 and of 0.999 have too few
    digits for a small shift to show.

    Args:
      start: Program with the constants that it started from.
      numbers: Learning rate and constants, in the program's order; float [1 + constants].
      shift: Shift of the coordinates, float [1 + constants].

    Returns:
      The learning rate, float [], and the constants by name.
    """
    factors = jnp.exp(shift)
    constants = {}
    for i, (name, value) in enumerate(start.constants, 1):
        match _Scale.of(value):
            case _Scale.ZERO:
                constants[name] = numbers[i] + _ZERO_SCALE * shift[i]
            case _Scale.SHARE:
                odds = numbers[i] * factors[i]
                constants[name] = odds / (1.0 - numbers[i] + odds)
            case _Scale.SIZE:
                constants[name] = numbers[i] * factors[i]
    return numbers[0] * factors[0], constants


def _coordinate(start: float, value: float) -> float:
    match _Scale.of(start):
        case _Scale.ZERO:
            return value / _ZERO_SCALE
        case _Scale.SHARE:
            return math.log(value) - math.log1p(-value)
        case _Scale.SIZE:
            return math.log(abs(value))


def _number(start: float, x: float) -> float:
    """Return the number at a coordinate, for a constant that began at `start`."""
    match _Scale.of(start):
        case _Scale.ZERO:
            return min(max(_ZERO_SCALE * x, -MAX_CONSTANT), MAX_CONSTANT)
        case _Scale.SHARE:
            share = 1 / (1 + math.exp(-min(max(x, -700.0), 700.0)))
            return min(max(share, _LEAST_SHARE), 1 - 2.0**-24)
        case _Scale.SIZE:
            return math.copysign(math.exp(min(x, math.log(MAX_CONSTANT))), start)
