"""A run's report: one HTML page that contains everything it shows and runs no script.

It is written from the store alone, read-only, so it can be made of a finished run, an interrupted
one, or one that still goes on. What the store holds is shown as text, whatever its origin.
"""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Final

from veldt.search.config import objectives
from veldt.search.language import printing
from veldt.search.program import Program
from veldt.search.report import (
    overfitting,
    report_data,
    report_funnel,
    report_lineage,
    report_outcome,
    report_survival,
    report_work,
    report_yields,
    search_figures,
)
from veldt.search.report.report_data import SearchData
from veldt.search.run import results_table
from veldt.search.storage import best_rule as best
from veldt.search.storage import counts
from veldt.search.storage.hall_entries import Entry
from veldt.tasks.common import formatting
from veldt.tasks.common.html import page as page_lib
from veldt.tasks.common.html.markup import Html, definitions, join, table, tag
from veldt.tasks.common.html.page import section

_HEADS: Final = (
    "rule", "length", "slots", "learning rate", "search fitness", "proxies", "meta-validation",
    "stages",
)  # fmt: skip
_PURPOSES: Final = {
    "fitness": "search: fitness",
    "fresh": "search: challenges on fresh seeds",
    "meta": "search: meta-validation of each best",
    "select": "finals: learning rates, selection seeds",
    "tuning": "finals: constants, selection seeds",
    "gradient": "finals: metagradients of constants",
    "final": "finals: final seeds",
    "meta-select": "finals: selection on meta-validation",
    "meta-final": "finals: meta-validation",
}

_STYLE: Final = """
tr.winner td { font-weight: 700; background: var(--mark); }
tr.baseline td { color: var(--blue); }
"""
_RULES: Final = (
    _STYLE
    + search_figures.STYLE
    + report_lineage.STYLE
    + report_funnel.STYLE
    + report_survival.STYLE
)


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
      run_dir: Directory of the run.
      output: File to write; `report.html` in the run directory if None.

    Returns:
      The path of the written file.

    Raises:
      StoreError: There is no run, it has scored nothing yet, or its store is damaged.
      FileError: The file cannot be written.
    """
    return page_lib.write(render(run_dir), run_dir, output)


def render(run_dir: Path) -> str:
    """Return the report of a run as HTML; see `write_report`."""
    data = report_data.read_run(run_dir)
    return page_lib.page(
        f"veldt search: {run_dir.resolve().name}",
        report_outcome.headline(data, run_dir),
        _rule(data, run_dir),
        _hall_of_fame(data),
        _progress(data),
        _meta_validation(data),
        report_lineage.section(data),
        report_funnel.section(data),
        report_yields.section(data),
        report_yields.models_section(data),
        report_survival.section(data),
        _budget(data),
        report_work.section(data.work),
        _configuration(data),
        rules=_RULES,
    )


def render_plots(run_dir: Path) -> str:
    """Return the report's plots of the search's course as a page; see `write_report`."""
    data = report_data.read_run(run_dir)
    title = f"veldt search: {run_dir.resolve().name}"
    return page_lib.page(title, _progress(data), _meta_validation(data), rules=_RULES)


def _source(program: Program) -> Html:
    return tag("pre", tag("code", printing.pretty(replace(program, doc="")).rstrip()))


# ---------------------------------------------------------------------------------- rule and table


def _rule(data: SearchData, run_dir: Path) -> Html:
    state = "the winner" if data.finished else "the best so far"
    label = f"#{data.subject}" if data.subject else data.initial_rule
    found = best.make_best(data.program, data.learning_rate, "discovered", {})
    export = shlex.join(
        ["veldt", "export", str(run_dir), "--to", "optax", "-o", f"{found.program.name}.py"]
    )
    snippet = "\n".join(
        [
            "import optax",
            f"from {found.program.name} import {found.program.name}",
            "",
            f"tx = {found.program.name}(learning_rate={found.learning_rate:.3g})",
            "opt_state = tx.init(params)",
            "updates, opt_state = tx.update(grads, opt_state, params)",
            "params = optax.apply_updates(params, updates)",
        ]
    )
    return section(
        f"The rule: {label}, {state}",
        _source(found.program),
        tag("p", "Training does ", tag("code", "w ← w − learning_rate · update"), " with learning "
            f"rate {found.learning_rate:.3g}; ", tag("code", "interp(x, y, a)"), " is ",
            tag("code", "(1 − a) · x + a · y"), ".", class_="soft"),
        tag("h3", "Using it"),
        tag("p", "Export it as a file that needs only JAX and Optax, then use it as any other "
            "Optax transform:"),
        tag("pre", tag("code", export)),
        tag("pre", tag("code", snippet)),
    )  # fmt: skip


def _hall_of_fame(data: SearchData) -> Html:
    if not data.finished:
        return Html()
    rows, sources = [], []
    for entry in data.entries:
        kind, badge = "", Html()
        if entry.winner:
            kind, badge = "winner", tag("span", "winner", class_="badge")
        elif entry.candidate < 0:
            kind, badge = "baseline", tag("span", "baseline", class_="badge")
        rows.append(
            (
                kind,
                (
                    join([entry.label, badge]),
                    entry.length,
                    len(entry.program.slots),
                    "-" if entry.learning_rate is None else f"{entry.learning_rate:.3g}",
                    formatting.signed(entry.search_fitness),
                    results_table.score_with_error(entry),
                    formatting.signed(entry.meta),
                    _stages(entry, data),
                ),
            )
        )
        summary = f"{entry.label}: {entry.length} instructions"
        source = best.shown(entry.program) if entry.winner else printing.pretty(entry.program)
        sources.append(tag("details", tag("summary", summary), tag("pre", tag("code", source))))
    return section(
        "Hall of fame",
        tag("p", "The Pareto front of fitness on the search's seeds, length and state slots, and "
            f"the baselines. Scores are {objectives.describe(data.settings.objective)}: lower is "
            "better, 0.1 less is about 10% less loss. The search fitness flatters, since it was "
            "selected on; “proxies” is the same tasks on seeds that nothing was selected on. The "
            f"winner is the best {_chosen(data)}. Stages are those of the funnel that a rule "
            "passed, out of all there are."),
        table(_HEADS, rows, numbers=range(1, len(_HEADS))),
        *sources,
    )  # fmt: skip


def _chosen(data: SearchData) -> str:
    config = data.settings.finals
    among = " of those that passed the most stages" if config.stages else ""
    if config.choose_by == "meta_validation" and data.settings.meta_validation:
        return f"on meta-validation{among}"
    return f"on runs that are not shown{among}, so it need not lead here"


def _stages(entry: Entry, data: SearchData) -> str:
    stages = data.settings.finals.stages
    return f"{entry.stages} of {len(stages)}" if stages and entry.candidate >= 0 else "-"


# ----------------------------------------------------------------------------------------- figures


def _progress(data: SearchData) -> Html:
    if not data.trained:
        return section("Progress", tag("p", "No program has been trained yet."))
    ancestors = {one.candidate for one in data.lineage}
    figure = search_figures.progress(data.trained, data.incumbents, data.initial_rule, ancestors)
    return section("Progress", figure)


def _meta_validation(data: SearchData) -> Html:
    first, last = data.incumbents[0], data.incumbents[-1]
    content: list[object] = []
    if len(data.incumbents) > 1:
        gains = [f"{last.fitness - first.fitness:+.3f} on the seeds that it was selected on"]
        if first.fresh is not None and last.fresh is not None:
            gains.append(f"{last.fresh - first.fresh:+.3f} on fresh seeds of the same tasks")
        if first.meta is not None and last.meta is not None:
            others = report_outcome.task_names(data.settings.meta_validation)
            gains.append(f"{last.meta - first.meta:+.3f} on other tasks, {others}")
        text = (
            f"Change in log loss from {data.initial_rule} to the last incumbent, each at the "
            "learning rate that it was found with: "
        )
        flatters = "Where another line lies above the fitness, the fitness flatters."
        content.append(tag("p", f"{text}{'; '.join(gains)}. {flatters}"))
        found = overfitting.onset(data.incumbents, data.meta_runs)
        if found is not None:
            best = f"#{found.best.candidate}" if found.best.candidate else data.initial_rule
            content.append(tag("p", overfitting.describe(found, len(data.trained), best)))
        content.append(search_figures.track(data.incumbents, len(data.trained), found))
        content.append(_incumbents(data))
    else:
        content.append(
            tag(
                "p",
                f"No challenger has beaten {data.initial_rule} on fresh seeds yet.",
            )
        )
    scatter = search_figures.transfer(data.entries)
    if scatter:
        content += [
            tag("h3", "Finalists and baselines, each at its best learning rate"),
            scatter,
        ]
    return section("Meta-validation against fitness", *content)


def _incumbents(data: SearchData) -> Html:
    rows = [
        (
            "",
            (
                f"#{incumbent.candidate}" if incumbent.candidate else data.initial_rule,
                f"{incumbent.since:,}",
                incumbent.length,
                formatting.signed(incumbent.fitness),
                formatting.signed(incumbent.fresh),
                incumbent.num_fresh,
                "not yet" if incumbent.meta_pending else formatting.signed(incumbent.meta),
            ),
        )
        for incumbent in data.incumbents
    ]
    heads = (
        "incumbent", "after programs", "length", "fitness", "fresh", "fresh seeds",
        "meta-validation",
    )  # fmt: skip
    return tag(
        "details",
        tag("summary", f"All {len(rows)} incumbents"),
        table(heads, rows, numbers=range(1, len(heads))),
    )


# ------------------------------------------------------------------------- budget and configuration


def _budget(data: SearchData) -> Html:
    spent = data.spent
    rows = [
        (
            "",
            (
                _PURPOSES.get(one.purpose, one.purpose),
                f"{one.num_runs:,}",
                f"{one.num_steps:,}",
                f"{one.wall_s:,.1f}",
                f"{1e3 * one.wall_s / one.num_runs:,.1f}",
                f"{1e6 * one.wall_s / max(one.num_steps, 1):,.0f}",
            ),
        )
        for one in spent
    ]
    rows.append(
        (
            "total",
            (
                "all",
                f"{sum(one.num_runs for one in spent):,}",
                f"{sum(one.num_steps for one in spent):,}",
                f"{sum(one.wall_s for one in spent):,.1f}",
                "",
                "",
            ),
        )
    )
    heads = ("evaluations", "runs", "training steps", "seconds", "ms per run", "µs per step")
    figures = {
        "search, wall clock": formatting.duration(data.search_s),
        **counts.figures(data.counts, data.settings.max_evaluations),
        "challenges won": f"{data.num_won:,}",
    }
    parts: list[object] = [
        definitions(figures),
        table(heads, rows, numbers=range(1, len(heads))),
        tag("p", "Seconds are those of training, summed over workers, without compiling; runs that "
            "were stopped early are counted with the steps that they made.", class_="soft"),
    ]  # fmt: skip
    if data.errors:
        messages = (tag("li", f"{count:,} × ", tag("code", text)) for text, count in data.errors)
        parts += [tag("h3", "Commonest messages of failed programs"), tag("ul", *messages)]
    return section("Budget", *parts)


def _configuration(data: SearchData) -> Html:
    versions = ", ".join(f"{name} {version}" for name, version in data.versions.items())
    facts = {
        "seed": data.settings.seed,
        "store version": data.schema_version,
        "made with": versions,
    }
    return page_lib.configuration(data.config, facts)
