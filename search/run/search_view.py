"""The view of a search: sends its progress, best rule and workers to a display.

The display only reads: a search with another display, or none, is the same search.
"""

import math
import time
from collections.abc import Sequence
from typing import Final, TypeAlias, final

from veldt.search.evolution.engine import Evolution
from veldt.search.run.drivers.driver_progress import AllDrivers
from veldt.search.storage import best_rule, counts, usage
from veldt.tasks.common import formatting
from veldt.tasks.common.progress.display import Display, Silent, Status
from veldt.tasks.pool.base import PoolEvent, PoolStats

STARTING_INTERVAL_S: Final = 5.0
WORK_INTERVAL_S: Final = 60.0
MAX_TROUBLE_LINES: Final = 5  # At a time; the store has them all.


Searching: TypeAlias = Evolution | AllDrivers


@final
class SearchView:
    """Turns the state of the search's engine and pool into a status for a display."""

    def __init__(self, display: Display | None = None):
        self._display: Display = Silent() if display is None else display
        self._evolution: Searching | None = None
        self._stats: PoolStats | None = None
        self._last_work = time.monotonic()
        self._display.update(self.status)

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        """Show the progress of a stage other than the search itself: compiling, the finals."""
        self._display.phase(text, done, total)

    def doing(self, text: str) -> None:
        """Show what the search waits for, until something new comes."""
        self._display.doing(text)

    def update(self, evolution: Searching) -> None:
        """Show that a result was recorded. Called often."""
        self._evolution = evolution
        self._display.update(self.status)

    def best(self, evolution: Searching) -> None:
        """Show a new best."""
        self._evolution = evolution
        self._display.log(
            f"new best after {evolution.counts.num_told:,} proposed: {candidate_name(evolution)}, "
            f"{score_line(evolution)}"
        )

    def work(self, stats: PoolStats, events: Sequence[PoolEvent]) -> None:
        """Show what the workers do, and what happened since the last call. Called often."""
        self._stats = stats
        wrong = [event for event in events if event.kind in usage.TROUBLE]
        for event in wrong[:MAX_TROUBLE_LINES]:
            self._display.log(usage.event_line(event))
        if len(wrong) > MAX_TROUBLE_LINES:
            self._display.log(f"... and {len(wrong) - MAX_TROUBLE_LINES:,} more like these")
        interval_s = STARTING_INTERVAL_S if _is_starting(stats) else WORK_INTERVAL_S
        if time.monotonic() - self._last_work >= interval_s:
            self._last_work = time.monotonic()
            figures = usage.figures(stats).items()
            self._display.log("; ".join(f"{name}: {figure}" for name, figure in figures))
        self._display.refresh()

    def note(self, text: str) -> None:
        """Show a line that must be seen."""
        self._display.note(text)

    def status(self) -> Status:
        """Return the status of the search."""
        evolution, stats = self._evolution, self._stats
        if evolution is None:
            starting = stats is not None and _is_starting(stats)
            workers = usage.figures(stats)["workers"] if stats is not None else ""
            return Status("", highlights=(f"workers: {workers}",) if starting else ())
        found, total = evolution.counts, evolution.config.max_evaluations
        left = formatting.duration(time_left_s(evolution))
        elapsed, scores = formatting.duration(evolution.elapsed_s), score_line(evolution)
        figures = {} if stats is None else dict(usage.figures(stats))
        best = evolution.incumbent.genotype
        return Status(
            line=(
                f"[{elapsed}, {left} left] {found.num_told:,} proposed ({rate(evolution):.0f}/s), "
                f"{counts.share(found.num_cached, found.num_told)} from cache, "
                f"{found.num_trained:,} of {total:,} trained; {scores}"
                # The first few proposals show little of the rate.
                if found.num_told > evolution.config.window
                else ""
            ),
            done=found.num_trained,
            total=total,
            rate=f"{rate(evolution):.0f} candidates/s",
            time=f"{elapsed}, {left} left",
            highlights=(scores,),
            figures=figures | counts.figures(found, total) | self._llm(evolution),
            source=best_rule.shown(best.program),
            source_title=(
                f"best rule, {candidate_name(evolution)}, learning rate {best.learning_rate:.3g}"
            ),
        )

    def _llm(self, evolution: Searching) -> dict[str, str]:
        """Return the figures of language models; none where the search has none."""
        if isinstance(evolution, AllDrivers) or evolution.suggestions is None:
            return {}
        return evolution.suggestions.figures


def _is_starting(stats: PoolStats) -> bool:
    return stats.num_ready < stats.num_workers


def time_left_s(evolution: Searching) -> float:
    """Return the seconds until the search ends at the present rate; infinity if not known."""
    done = evolution.counts.num_trained
    elapsed_s = evolution.elapsed_s
    left = (evolution.config.max_evaluations - done) * elapsed_s / done if done else math.inf
    if evolution.config.time_limit_s is not None:
        left = min(left, evolution.config.time_limit_s - elapsed_s)
    if (steps := evolution.config.max_steps) is not None and (spent := evolution.budget.spent):
        left = min(left, (steps - spent) * elapsed_s / spent)
    return max(left, 0.0)


def rate(evolution: Searching) -> float:
    """Return the candidates recorded per second, over the whole search."""
    return evolution.counts.num_told / max(evolution.elapsed_s, 1e-9)


def candidate_name(evolution: Searching) -> str:
    """Return the name of the best so far, as in tables, reports and the store."""
    candidate = evolution.incumbent.candidate
    if not candidate:
        return evolution.config.initial_rule
    # A driver's own number; in the run's store it gets another.
    of = f" of driver {evolution.best_driver}" if isinstance(evolution, AllDrivers) else ""
    return f"#{candidate}{of}"


def score_line(evolution: Searching) -> str:
    """Return the scores of the best so far, beside the initial rule's."""
    best = evolution.incumbent
    gain = formatting.signed(best.fitness - evolution.initial.fitness)
    meta = "not yet" if best.meta_pending else formatting.signed(best.meta)
    return (
        f"best {formatting.signed(best.fitness)} ({gain} against {evolution.config.initial_rule}), "
        f"fresh {formatting.signed(best.fresh)}, meta-validation {meta}"
    )
