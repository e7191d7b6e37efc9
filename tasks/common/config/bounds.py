"""Bounds of a config's numbers, refused in the same words everywhere.

A field that is None, which stands for no number, keeps every bound.
"""


def at_least(config: object, least: float, *names: str) -> None:
    """See that fields are `least` or more.

    Raises:
      ValueError: One is less, or no number.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def above(config: object, bound: float, *names: str) -> None:
    """See that fields are more than `bound`.

    Raises:
      ValueError: One is not.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > bound:
            raise ValueError(f"{name} is {value}; it must be above {bound}")
