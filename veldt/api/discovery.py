"""`Discovery`: the result of a search, read from its run directory."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Self, final

from veldt.api.found_rule import FoundRule
from veldt.search.config import search_config
from veldt.search.config.search_config import SearchConfig
from veldt.search.finals import conclusion
from veldt.search.report import search_report
from veldt.search.storage import best_rule, hall_entries
from veldt.search.storage.store import Store
from veldt.tasks.common import formatting
from veldt.tasks.common.html import shown_page
from veldt.tasks.common.html.markup import table, tag
from veldt.tasks.common.html.shown_page import ShownPage

_HEADS = ("rule", "statements", "slots", "learning rate", "proxies", "meta-validation")


@final
@dataclasses.dataclass(frozen=True)
class Discovery:
    """The result of a search, or of as much of it as has been done.

    Attributes:
      best: Best rule: the winner of the finals, or before these the best so far.
      hall_of_fame: Rules of the finals, the best of each length and more; empty before the finals.
      baselines: Baselines of the finals; empty before these.
      conclusion: Comparison with the baselines in a few sentences; empty before the finals.
      config: Config of the search, without the pool that did the work.
      run_dir: Directory of the run.
    """

    best: FoundRule
    hall_of_fame: tuple[FoundRule, ...]
    baselines: tuple[FoundRule, ...]
    conclusion: str
    config: SearchConfig
    run_dir: Path

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Read the result of the search in a directory.

        Raises:
          StoreError: There is no search, or its store is damaged.
          UnknownRuleError: The search has scored nothing yet.
        """
        with Store.open(run_dir, read_only=True) as store:
            entries = hall_entries.read_entries(store)
            stored = json.loads(store.meta()["config"])
            config = search_config.read_stored(stored, str(store.path))
        found = best_rule.read_best(run_dir)
        rules = tuple(FoundRule.of(entry, found.provenance) for entry in entries)
        best = next((rule for rule in rules if rule.is_best), None)
        return cls(
            best=dataclasses.replace(
                best or FoundRule("best so far", found.program, None, is_best=True),
                program=found.program,
                learning_rate=found.learning_rate,
                provenance=found.provenance,
            ),
            hall_of_fame=tuple(rule for rule in rules if not rule.is_baseline),
            baselines=tuple(rule for rule in rules if rule.is_baseline),
            conclusion=conclusion.sentences(entries, config.finals),
            config=config,
            run_dir=run_dir,
        )

    @property
    def finished(self) -> bool:
        """Whether the finals have been played."""
        return bool(self.hall_of_fame)

    def to_records(self) -> list[dict[str, Any]]:
        """Return the table of the finals as dictionaries, one a rule."""
        return [rule.record() for rule in self._rows()]

    def to_pandas(self) -> Any:
        """Return the table of the finals as a pandas DataFrame.

        Raises:
          VeldtError: pandas is not installed.
        """
        return formatting.data_frame(self.to_records())

    def plot(self) -> ShownPage:
        """Return the plots of the search's course, which a notebook shows.

        Raises:
          StoreError: The run directory is gone or damaged.
        """
        html = search_report.render_plots(self.run_dir)
        return ShownPage(html, shown_page.PLOT_HEIGHT)

    def report(self, path: str | Path | None = None) -> ShownPage:
        """Write the report, and return it, so that a notebook shows it.

        Args:
          path: File to write; None for `report.html` in the run directory.

        Raises:
          StoreError: The run directory is gone or damaged.
          FileError: The file cannot be written.
        """
        output = None if path is None else Path(path)
        written = search_report.write_report(self.run_dir, output)
        return ShownPage(written.read_text(encoding="utf-8"), path=written)

    def export(self, path: str | Path, to: str = "optax") -> Path:
        """Write the best rule as a stand-alone source file; see `FoundRule.export`."""
        return self.best.export(path, to)

    def _rows(self) -> tuple[FoundRule, ...]:
        return (*self.hall_of_fame, *self.baselines) or (self.best,)

    def _title(self) -> str:
        state = "" if self.finished else ", not finished"
        return f"Search from {self.config.initial_rule}, seed {self.config.seed}{state}"

    def __repr__(self) -> str:
        lines = [f"{self._title()} ({self.run_dir})"]
        if self.finished:
            lines += [f"{'>>> ' if rule.is_best else '    '}{_line(rule)}" for rule in self._rows()]
        return "\n".join([*lines, *filter(None, [self.conclusion]), repr(self.best)])

    def _repr_html_(self) -> str:
        parts: list[object] = [tag("div", tag("b", self._title()))]
        if self.finished:
            rows = [("", _cells(rule)) for rule in self._rows()]
            parts.append(table(_HEADS, rows, numbers=range(1, len(_HEADS))))
        parts.append(tag("p", self.conclusion))
        parts += [tag("b", f"best: {self.best.name}"), tag("pre", self.best.text)]
        return tag("div", *parts)


def _cells(rule: FoundRule) -> tuple[object, ...]:
    name = tag("b", f"{rule.name} (best)") if rule.is_best else rule.name
    error = "" if rule.proxies is None else formatting.plus_minus(rule.proxies_error)
    return (
        name,
        len(rule.program.statements),
        len(rule.program.slots),
        "-" if rule.learning_rate is None else f"{rule.learning_rate:.3g}",
        formatting.signed(rule.proxies) + error,
        formatting.signed(rule.meta_validation),
    )


def _line(rule: FoundRule) -> str:
    kind = "baseline" if rule.is_baseline else f"{len(rule.program.statements)} statements"
    return f"{rule.name} ({kind}): {rule.scores or 'failed'}"
