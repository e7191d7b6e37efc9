"""Running the drivers of a search side by side, until all have ended.

Drivers that are threads of this process share its workers: each has its share of them, and where
there are fewer workers than drivers, drivers take turns. On Ray each driver is an actor, in a
process beside this one and on the same machine, since it writes to the run's directory; its workers
are anywhere on the cluster. This process carries the letters, and starts a driver anew that died.
It keeps nothing: a driver sends all the letters of its store when it starts.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, final

from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import SearchError
from veldt.search.evolution.founders import Founder
from veldt.search.run.drivers.driver_progress import (
    AllDrivers,
    Delivery,
    Progress,
    Report,
    total_stats,
)
from veldt.search.run.drivers.driver_thread import DriverThread, Part
from veldt.search.storage import numbers
from veldt.search.storage.mail import Letter
from veldt.tasks.common import versions
from veldt.tasks.common.config import codec
from veldt.tasks.pool import base
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool.base import PoolEvent, PoolStats

STOP_S: Final = 8.0  # For the drivers to stop; what they have recorded is stored anyway.
MAX_DEATHS: Final = 5  # Of one driver, without a proposal recorded between them.

Show = Callable[[AllDrivers], None]
ShowWork = Callable[[PoolStats, tuple[PoolEvent, ...]], None]


class Drivers(Protocol):
    """The drivers of a search, wherever they are."""

    poll_s: float

    def begin(self, driver: int) -> None:
        """Start a driver, or start it anew."""
        ...

    def exchange(self, mail: Mapping[int, Delivery]) -> dict[int, Report | str]:
        """Exchange with several drivers.

        Returns:
          Report of each driver, or how it died.
        """
        ...

    def close(self) -> None:
        """End what is left of the drivers."""
        ...


@final
class Threads:
    """Drivers as threads of this process."""

    def __init__(self, parts: list[Part], factory: base.WorkerFactory):
        self.poll_s = 0.02
        num_turns = min(len(parts), parts[0].num_workers)
        turns = threading.Semaphore(num_turns) if num_turns < len(parts) else None
        self._threads = [DriverThread(part, factory, turns) for part in parts]

    def begin(self, driver: int) -> None:
        """Start a driver."""
        self._threads[driver].begin()

    def exchange(self, mail: Mapping[int, Delivery]) -> dict[int, Report | str]:
        """Exchange with several drivers; a thread does not die without an exception."""
        return {
            driver: self._threads[driver].exchange(letters, ended=ended)
            for driver, (letters, ended) in mail.items()
        }

    def close(self) -> None:
        """Stop the threads and wait for them, though not for long."""
        deadline = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.exchange((), ended=False, stop=True)
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))


def search(
    config: SearchConfig,
    run_dir: Path,
    start: tuple[Founder, ...],
    factory: base.WorkerFactory,
    show: Show = lambda _: None,
    show_work: ShowWork = lambda *_: None,
) -> None:
    """Run all drivers of a search to their end, from where their stores are.

    Args:
      config: Config of the search.
      run_dir: Directory of the run.
      start: Rules that the search starts from.
      factory: Maker of the pool's workers.
      show: Function called with the progress of all drivers, now and then.
      show_work: Function called with the figures of all workers, and with new events.

    Raises:
      SearchError: A driver has failed.
      KeyboardInterrupt: Ctrl-C; all recorded results are stored.
    """
    texts = (
        ("config", json.dumps(codec.to_plain(config))),
        ("versions", json.dumps(versions.versions())),
    )

    def parts(num_workers: int) -> list[Part]:
        return [
            Part(config, driver, num_workers, run_dir.absolute(), start, texts)
            for driver in range(config.drivers)
        ]

    drivers: Drivers
    if pool_config.choose_backend(config.pool) == "ray":
        from veldt.search.run.drivers import on_ray

        drivers = on_ray.Actors(config.pool, parts, factory)
    else:
        drivers = Threads(parts(config.pool.num_workers or pool_config.num_usable_cores()), factory)
    try:
        _Post(config, drivers, show, show_work).run()
    finally:
        drivers.close()


@final
class _Post:
    """Carries letters until all drivers have ended."""

    def __init__(self, config: SearchConfig, drivers: Drivers, show: Show, show_work: ShowWork):
        self._config = config
        self._drivers = drivers
        self._show = show
        self._show_work = show_work
        everyone = range(config.drivers)
        self._letters: dict[int, dict[int, Letter]] = {driver: {} for driver in everyone}
        self._carried: dict[int, set[int]] = {driver: set() for driver in everyone}  # By receiver.
        self._ended: set[int] = set()
        self._progress: dict[int, Progress] = {}
        self._stats: dict[int, PoolStats] = {}
        self._deaths = dict.fromkeys(everyone, 0)
        self._told_at_death = dict.fromkeys(everyone, -1)

    def run(self) -> None:
        """Start all drivers, and return when all have ended."""
        everyone = range(self._config.drivers)
        for driver in everyone:
            self._drivers.begin(driver)
        while len(self._ended) < len(everyone):
            mail = {driver: self._mail(driver) for driver in everyone if driver not in self._ended}
            events: tuple[PoolEvent, ...] = ()
            for driver, report in self._drivers.exchange(mail).items():
                if isinstance(report, str):
                    events += (self._died(driver, report),)
                else:
                    events += self._read(driver, report)
            if self._progress:
                self._show(AllDrivers(self._config, self._progress))
            if self._stats:
                self._show_work(total_stats(tuple(self._stats.values())), events)
            time.sleep(self._drivers.poll_s)

    def _mail(self, driver: int) -> Delivery:
        """Return what a driver has not got yet."""
        sender = numbers.sender(driver, self._config.drivers)
        carried = self._carried[driver]
        new = [letter for id, letter in self._letters[sender].items() if id not in carried]
        carried.update(letter.id for letter in new)
        return Delivery(new, sender in self._ended)

    def _read(self, driver: int, report: Report) -> tuple[PoolEvent, ...]:
        self._letters[driver] |= {letter.id: letter for letter in report.letters}
        if report.failure is not None:
            raise report.failure
        if report.has_ended:
            self._ended.add(driver)
        if report.progress is not None:
            self._progress[driver] = report.progress
        if report.stats is not None:
            self._stats[driver] = report.stats
        return report.events

    def _died(self, driver: int, how: str) -> PoolEvent:
        """Start a driver anew, unless it dies again and again."""
        known = self._progress.get(driver)
        told = -1 if known is None else known.counts.num_told
        again = told <= self._told_at_death[driver]
        self._deaths[driver] = self._deaths[driver] + 1 if again else 1
        self._told_at_death[driver] = told
        if self._deaths[driver] > MAX_DEATHS:
            raise SearchError(
                f"driver {driver} died {self._deaths[driver]} times without a proposal between "
                f"({how}); all recorded results are stored, and --resume goes on"
            )
        self._carried[driver].clear()
        self._drivers.begin(driver)
        message = f"driver {driver} died ({how}) and is started anew"
        return PoolEvent(time.time(), base.EventKind.POOL, message=message)
