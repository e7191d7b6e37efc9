"""Searching with several drivers, until their stores are merged into that of the run."""

from collections.abc import Callable
from pathlib import Path
from typing import final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution.founders import Founder
from veldt.search.run.drivers import together
from veldt.search.run.drivers.driver_progress import AllDrivers, Best
from veldt.search.run.search_view import SearchView
from veldt.search.storage import numbers
from veldt.search.storage.store import FILE_NAME, Store, drivers_with_store
from veldt.tasks.common.disk.run_directory import RunDirectory
from veldt.tasks.pool import base


def search(
    config: SearchConfig,
    directory: RunDirectory,
    start: tuple[Founder, ...],
    factory: base.WorkerFactory,
    view: SearchView,
    write_best: Callable[[Best], None],
    *,
    resume: bool,
) -> None:
    """Search with several drivers, or go on, until the run has one store.

    Args:
      config: Config of the search, with more than one driver.
      directory: Directory of the run.
      start: Rules that the search starts from.
      factory: Maker of the pool's workers.
      view: Display of the search.
      write_best: Function that writes the best so far into the directory.
      resume: Whether a run that is there is continued.

    Raises:
      FileError: The directory holds another run, or one that is not to be resumed.
      SearchError: A driver has failed.
      KeyboardInterrupt: Ctrl-C; all recorded results are stored.
    """
    path = directory.path
    has_store = (path / FILE_NAME).exists()
    directory.begin(holds_run=has_store or bool(drivers_with_store(path)), resume=resume)
    if has_store:
        return
    view.phase(f"starting {config.drivers} drivers: compiling, scoring the initial rule")
    shown = _Shown(view, write_best)
    together.search(config, path, start, factory, shown.show, view.work)
    view.phase("merging the drivers' stores")
    Store.merge(path)


def start_folder(run_dir: Path) -> Path | None:
    """Return the folder with a store that has the founders of a run; None if there is none."""
    for folder in (run_dir, numbers.folder(run_dir, 0)):
        if (folder / FILE_NAME).exists():
            return folder
    return None


@final
class _Shown:
    """Shows and writes the best of all drivers when it changes."""

    def __init__(self, view: SearchView, write_best: Callable[[Best], None]):
        self._view = view
        self._write_best = write_best
        self._best: Best | None = None

    def show(self, drivers: AllDrivers) -> None:
        now, before = drivers.incumbent, self._best
        if now != before:
            self._best = now
            self._write_best(now)
            if before is not None and now.genotype != before.genotype:
                self._view.best(drivers)
        self._view.update(drivers)
