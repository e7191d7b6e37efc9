"""The drivers of one search: their folders, the numbers of their proposals, and their order."""

from dataclasses import dataclass
from pathlib import Path
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one driver's proposals among those of all drivers, which take turns.

    They choose random draws and sample seeds, so no two drivers make the same ones.

    Attributes:
      driver: Number of the driver, from 0.
      drivers: Number of drivers.
    """

    driver: int = 0
    drivers: int = 1

    def of(self, index: int) -> int:
        """Return the number among all of a proposal of this driver."""
        return index * self.drivers + self.driver

    def index(self, number: int) -> int:
        """Return the number with this driver of a proposal; those below 0 are all drivers'."""
        return number if number < 0 else (number - self.driver) // self.drivers


def folder(run_dir: Path, driver: int) -> Path:
    """Return the folder of a driver in the directory of the run."""
    return run_dir / f"driver_{driver}"


def letter_of(index: int, every: int) -> int | None:
    """Return the number of the letter whose rule a proposal is; None if it is none.

    Args:
      index: Number of the proposal, with its driver.
      every: Number of proposals between two letters; 0 for no mail.
    """
    if not every or index % every or index < 2 * every:
        return None
    return index // every - 1


def sender(driver: int, drivers: int) -> int:
    """Return the driver whose letters a driver gets."""
    return (driver - 1) % drivers
