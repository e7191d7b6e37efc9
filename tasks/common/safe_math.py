"""Functions whose derivative stays finite where that of the textbook form does not.

The values are the same, to the bit. What changes is the derivative at one point, where JAX's
would be infinite, and infinity times the zero that comes to it from the chain rule is NaN: one dead
input makes every metagradient NaN.
"""

from typing import Any


def safe_sqrt(xp: Any, x: Any) -> Any:
    """Return the square root, whose derivative at 0 is taken as 0.

    Args:
      xp: Module `numpy` or `jax.numpy`.
      x: Argument, float, of any shape.
    """
    zero = x == 0
    # Both sides of a `where` are differentiated: the root must not see the zero. Its sign stays.
    return xp.where(zero, 0.0 * x, xp.sqrt(xp.where(zero, 1.0, x)))
