"""List what the site generates: whole pages, and tables and numbers inside of pages.

`conf.py` writes `PAGES` before Sphinx reads the sources, and gives `substitutions()` to MyST, which
puts them where a page says `{{ tables.NAME }}` or `{{ figures.NAME }}`.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from _generate import (
    api,
    commands,
    gallery,
    language,
    metagradient_results,
    optimizer_results,
    power_results,
    search_results,
    shipped,
    speed_results,
    store,
    unseen_results,
)

CONFIGS: Final = ("search", "meta-train", "tune", "evaluate")

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/command_line.md": commands.command_line,
    **{
        f"reference/{commands.page_of(name)}": functools.partial(commands.config_fields, name)
        for name in CONFIGS
    },
    "reference/instructions.md": language.instruction_set,
    "reference/store.md": store.tables,
    "reference/shipped.md": shipped.lists,
    "reference/api.md": api.names,
    "gallery/rules.md": gallery.programs,
}
"""What each generated page holds, by its path in `docs`."""

TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "quickstart_seeds": power_results.quickstart_seeds,
    "search_power": power_results.search_power,
    "search_power_curves": power_results.search_power_curves,
    "power_winner": power_results.power_winner,
    "proxies": power_results.proxies,
    "unseen": unseen_results.unseen,
    "unseen_tasks": unseen_results.unseen_tasks,
    "proxy_sets": power_results.proxy_sets,
    "racing": search_results.racing,
    "hollow_searches": search_results.hollow_searches,
    "hollow_reasons": search_results.hollow_reasons,
    "hollow_rules": search_results.hollow_rules,
    "hollow_honest": search_results.hollow_honest,
    "simplifier": search_results.simplifier,
    "baselines": optimizer_results.baselines,
    "baselines_diverged": optimizer_results.baselines_diverged,
    "carom": optimizer_results.carom,
    "carom_tasks": optimizer_results.carom_tasks,
    "carom_finals": optimizer_results.carom_finals,
    "weights": optimizer_results.weights,
    "weights_tasks": optimizer_results.weights_tasks,
    "weights_costs": optimizer_results.weights_costs,
    "generalisation": optimizer_results.generalisation,
    "step_time": optimizer_results.step_time,
    "interpreter": speed_results.interpreter,
    "dear_rules": speed_results.dear_rules,
    "dear_instructions": speed_results.dear_instructions,
    "throughput": speed_results.throughput,
    "cache": speed_results.cache,
    "driver": speed_results.driver,
    "metatraining": speed_results.metatraining,
    "pool": speed_results.pool,
    "utilisation": speed_results.utilisation,
    "scaling": speed_results.scaling,
    "faults": speed_results.faults,
    "metagradient_cost": metagradient_results.cost,
    "schedules": metagradient_results.schedules,
    "data_weights": metagradient_results.data_weights,
    "meta_signal": metagradient_results.signal,
    "meta_signal_estimates": metagradient_results.signal_estimates,
    "rules": gallery.index,
}
"""What each `{{ tables.NAME }}` stands for."""


def figures() -> dict[str, str]:
    """Return what each `{{ figures.NAME }}` stands for."""
    return {
        **search_results.figures(),
        **optimizer_results.figures(),
        **speed_results.figures(),
        **metagradient_results.figures(),
        **unseen_results.figures(),
    }


def substitutions() -> dict[str, dict[str, str]]:
    """Return the tables and numbers of all pages."""
    return {"tables": {name: make() for name, make in TABLES.items()}, "figures": figures()}


def write_pages(folder: Path) -> None:
    """Write the generated pages, and leave those alone that have not changed."""
    for name, make in PAGES.items():
        path, text = folder / name, make()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
