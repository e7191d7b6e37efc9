import dataclasses

import pytest

from veldt.tasks.common.config import bounds


@dataclasses.dataclass(frozen=True)
class Settings:
    count: int = 3
    size: float | None = None


def test_what_keeps_its_bounds_passes():
    bounds.at_least(Settings(), 3, "count", "size")
    bounds.above(Settings(), 2, "count", "size")


def test_what_breaks_one_is_named_with_its_value():
    with pytest.raises(ValueError, match="count is 3; it must be at least 4"):
        bounds.at_least(Settings(), 4, "size", "count")
    with pytest.raises(ValueError, match="size is nan; it must be above 0"):
        bounds.above(Settings(size=float("nan")), 0, "count", "size")
