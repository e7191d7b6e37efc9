"""The beginning of a report: what was searched, and the outcome in sentences and figures."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from veldt.search.config import objectives
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.finals import conclusion
from veldt.search.report.report_data import SearchData
from veldt.tasks.common import formatting
from veldt.tasks.common.html.markup import Html, join, table, tag


def headline(data: SearchData, run_dir: Path) -> Html:
    """Return the head of the page: the run's name, what was searched, and the outcome."""
    counts = data.counts
    start = _join([data.initial_rule, *(one.rule for one in data.settings.founders)])
    searched = (
        f"A search from {start} on {task_names(data.settings.tasks)}: "
        f"{counts.num_trained:,} distinct programs trained, {counts.num_told:,} proposed, "
        f"in {formatting.duration(data.search_s)} of search; seed {data.settings.seed}. "
        f"Scores: {objectives.describe(data.settings.objective)}."
    )
    if data.finished:
        outcome: list[object] = [
            tag("p", conclusion.sentences(data.entries, data.settings.finals), class_="outcome")
        ]
        outcome += [_comparisons(data)]
    else:
        outcome = [_unfinished(data, run_dir)]
    return tag(
        "header", tag("h1", run_dir.resolve().name), tag("p", searched, class_="soft"), *outcome
    )


def _unfinished(data: SearchData, run_dir: Path) -> Html:
    first, best_ = data.incumbents[0], data.incumbents[-1]
    if best_.candidate == 0:
        state = f"Nothing has beaten {data.initial_rule} on fresh seeds yet."
    else:
        state = (
            f"The best so far is #{best_.candidate}: {best_.fitness:+.3f} on the search's own "
            f"seeds, which flatter it, against {data.initial_rule}'s {first.fitness:+.3f}"
        )
        state += f"; on fresh seeds {best_.fresh:+.3f}." if best_.fresh is not None else "."
    again = shlex.join(
        ["veldt", "search", str(run_dir / "config.yaml"), "--run-dir", str(run_dir), "--resume"]
    )
    return tag(
        "div",
        tag("p", f"This search has not ended. {state} No finals have been played, so it is not "
            "known yet whether it beats a tuned baseline.", class_="outcome"),
        tag("p", "If it was interrupted, ", tag("code", again), " continues it.", class_="soft"),
    )  # fmt: skip


def _comparisons(data: SearchData) -> Html:
    winner = conclusion.find_winner(data.entries)
    compared = conclusion.compare(data.entries)
    if winner is None or not compared:
        return Html()
    labels = {entry.label: entry.candidate for entry in data.entries if entry.candidate < 0}
    rows = []
    for c in compared:
        ours = data.seed_scores.get(winner.candidate, {})
        theirs = data.seed_scores.get(labels[c.baseline], {})
        met = ours.keys() & theirs.keys()
        won = sum(ours[seed] < theirs[seed] for seed in met)
        rows.append(
            (
                "",
                (
                    c.baseline,
                    str(c),
                    f"{c.loss_change:+.0%}",
                    f"{won} of {len(met)}",
                    _judgement(c),
                    formatting.signed(c.meta_difference),
                ),
            )
        )
    heads = (
        f"{winner.label} against", "log loss", "loss", "seeds won", "result",
        "meta-validation, log loss",
    )  # fmt: skip
    config = data.settings.finals
    note = (
        f"Differences below 0 are in favour of {winner.label}. Every rule had the same "
        f"{config.num_rates} learning rates to choose from, on {config.select_seeds} seeds "
        f"of their own; the figures are from {config.final_seeds} further seeds, ± one standard "
        f"error over seeds. {_tuned(config)} Meta-validation has {data.settings.meta_seeds} seeds "
        f"and {_part_of_meta(config)}. Standard errors count seeds, not tasks: they do not show "
        "how the rule does on other tasks."
    )
    edge = _edge(data)
    return join(
        [table(heads, rows, numbers=(1, 2, 3, 5)), tag("p", note, class_="soft"), *edge],
    )


def _tuned(config: FinalsConfig) -> str:
    if not config.tuning.budget:
        return (
            "The baselines' other constants are their defaults, while the search tuned the "
            "winner's."
        )
    return (
        f"All constants of every rule, the baselines' too, had {config.tuning.budget} trials of "
        "tuning from there."
    )


def _part_of_meta(config: FinalsConfig) -> str:
    if config.choose_by == "meta_validation":
        return "chose the winner among the finalists, on seeds of their own"
    return "no part in any choice"


def _judgement(comparison: conclusion.Comparison) -> str:
    if comparison.floor:
        return "at the floor"
    if not comparison.significant:
        return "not significant"
    return "better" if comparison.difference < 0 else "worse"


def _edge(data: SearchData) -> list[Html]:
    """Return a note on rules whose best learning rate is the lowest or highest tried."""
    lowest, highest = data.rate_range
    ends = [
        entry.label
        for entry in data.entries
        if entry.learning_rate is not None
        and not lowest * 1.001 < entry.learning_rate < highest / 1.001
    ]
    if not ends or lowest == highest:
        return []
    text = (
        f"The best learning rate of {' and '.join(ends)} is at the end of those tried, "
        f"{lowest:.3g} to {highest:.3g}: it may do better beyond."
    )
    return [tag("p", text, class_="soft")]


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def task_names(proxies: Sequence[ProxyConfig]) -> str:
    """Return the proxy tasks of a config with their lengths, for a sentence."""
    return ", ".join(f"{proxy.task} ({proxy.num_steps} steps)" for proxy in proxies)
