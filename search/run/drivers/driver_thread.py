"""One driver of a search of several, in a thread of its own, in this process or in an actor's.

Whoever starts it asks it from time to time what there is (`exchange`), and hands it the letters
that came meanwhile. Nothing that it decides depends on when.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution import founders
from veldt.search.evolution.engine import Evolution
from veldt.search.evolution.founders import Founder
from veldt.search.run.drivers.driver_progress import Progress, Report
from veldt.search.run.proposing import helpers
from veldt.search.storage import integrity, numbers
from veldt.search.storage.mail import Inbox, Letter, Mail
from veldt.search.storage.numbers import Numbers
from veldt.search.storage.session import Session
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.common.errors import FileError
from veldt.tasks.pool import base, driver, pools
from veldt.tasks.pool.base import JobResult, PoolEvent, PoolStats

SHOW_S: Final = 0.2  # Between snapshots of the progress.
TURN_S: Final = 0.01
# A process that was killed may hold its folder for a moment longer.
LOCK_S: Final = 30.0
MAX_EVENTS: Final = 1000


@final
@dataclass(frozen=True, slots=True)
class Part:
    """The part of a search that one driver has.

    Attributes:
      config: Config of the whole search.
      driver: Number of the driver.
      num_workers: Number of workers of all drivers.
      run_dir: Directory of the run.
      start: Rules that the search starts from.
      texts: Named texts that a new store gets: config and versions.
    """

    config: SearchConfig
    driver: int
    num_workers: int
    run_dir: Path
    start: tuple[Founder, ...]
    texts: tuple[tuple[str, str], ...]


@final
class DriverThread:
    """One driver, from its start to its end or its failure. Public methods return at once."""

    def __init__(
        self,
        part: Part,
        factory: base.WorkerFactory,
        turns: threading.Semaphore | None = None,
    ):
        """Set up the driver; `begin` starts it.

        Args:
          part: Part of the search.
          factory: Maker of the pool's workers.
          turns: Turns that are taken while the driver works; None where it need not share.
        """
        self._part = part
        self._config = part.config.share(part.driver, part.num_workers)
        self._factory = factory
        self._turns = turns
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._letters: list[Letter] = []
        self._events: deque[PoolEvent] = deque(maxlen=MAX_EVENTS)
        self._stats: PoolStats | None = None
        self._progress: Progress | None = None
        self._shown = 0.0
        self._has_ended, self._stopping = False, False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """Start the driver."""
        self._thread.start()

    def exchange(self, letters: Sequence[Letter], *, ended: bool, stop: bool = False) -> Report:
        """Hand over letters, and return what is new.

        Args:
          letters: Letters of the driver before this one that came since the last time.
          ended: Whether these and those before are all.
          stop: Whether the driver is to stop where it is.
        """
        self._stopping = self._stopping or stop
        self._inbox.add(letters, ended=ended)
        with self._lock:
            sent, self._letters = tuple(self._letters), []
            events = tuple(self._events)
            self._events.clear()
            return Report(sent, self._has_ended, self._failure, self._progress, self._stats, events)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; return whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            with self._turn():
                self._search()
            with self._lock:
                self._has_ended = True
        except BaseException as error:
            with self._lock:
                self._failure = error

    def _search(self) -> None:
        config, part = self._config, self._part
        with (
            self._open_store() as store,
            pools.make_pool(config.pool, self._factory) as workers,
            Session(store, workers, self._show_work) as session,
        ):
            own = Numbers(part.driver, part.config.drivers)
            mail = Mail(store, own, config.migration_every, self._inbox)
            self._send(mail)

            def watch() -> None:
                self._check()
                session.watch()

            num_told = store.first("SELECT COUNT(*) FROM proposal")
            num_helpers = config.proposers
            engine = driver.OrderedDriver(
                workers,
                window=config.window,
                start=num_told,
                watch=watch,
                lag=helpers.lag(num_helpers, config.window),
            )
            evolution = Evolution.start(config, store, engine.run_now, mail)
            self._show(evolution, now=True)

            def ask(index: int) -> driver.Proposal:
                self._check()
                proposal = evolution.ask(index)
                if isinstance(proposal, driver.Wait):
                    self._give_turn()
                return proposal

            def tell(index: int, result: JobResult | driver.Ready) -> Sequence[driver.SideWork]:
                begun = evolution.tell(index, result)
                self._send(mail)
                self._show(evolution)
                session.watch()
                return begun

            def settle(work: int, results: Sequence[JobResult]) -> Sequence[driver.SideWork]:
                begun = evolution.settle(work, results)
                self._show(evolution)
                session.watch()
                return begun

            made = helpers.Proposers(num_helpers, evolution.proposer, lambda line: None)
            with made as evolution.helpers:
                engine.run(ask, tell, settle, evolution.begun)
            self._show(evolution, now=True)

    def _open_store(self) -> Store:
        """Open the driver's store, or make it."""
        folder = numbers.folder(self._part.run_dir, self._part.driver)
        folder.mkdir(exist_ok=True)
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                if not (folder / FILE_NAME).exists():
                    store = Store.create(folder)
                else:
                    store = Store.open(folder)
                break
            except FileError:
                if time.monotonic() >= deadline:
                    raise
                self._check()
                time.sleep(0.1)
        try:
            if "config" not in store.meta():
                with store.transaction():
                    for key, text in self._part.texts:
                        store.set_meta(key, text)
                    store.set_meta(founders.META_KEY, founders.dump(self._part.start))
            integrity.check(store)
        except BaseException:
            store.close()
            raise
        return store

    def _send(self, mail: Mail) -> None:
        if letters := mail.take_unsent():
            with self._lock:
                self._letters += letters

    def _show(self, evolution: Evolution, *, now: bool = False) -> None:
        if now or time.monotonic() - self._shown >= SHOW_S:
            self._shown = time.monotonic()
            self._progress = Progress.of(evolution)

    def _show_work(self, stats: PoolStats, events: Sequence[PoolEvent]) -> None:
        with self._lock:
            self._stats = stats
            self._events.extend(events)

    def _check(self) -> None:
        if self._stopping:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        self._take_turn()
        try:
            yield
        finally:
            if self._turns is not None:
                self._turns.release()

    def _take_turn(self) -> None:
        while self._turns is not None and not self._turns.acquire(timeout=TURN_S):
            # Without a turn there is nothing to give back, so a stop is left to the next check.
            if self._stopping:
                self._turns = None

    def _give_turn(self) -> None:
        """Let another driver work, while this one waits for a letter."""
        if self._turns is not None:
            self._turns.release()
            time.sleep(TURN_S)
            self._take_turn()
