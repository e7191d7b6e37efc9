"""Make the tables of what discovered rules are worth on tasks that no search has seen."""

from collections.abc import Mapping
from typing import Any, Final

from _generate import evidence, markdown
from _generate.evidence import Evidence

RESULTS: Final = "unseen"
_SCHEDULES: Final = {
    "constant": "constant",
    "warmup_linear": "warm-up, linear decay",
    "both": "both",
}
_LEVEL: Final = 0.01  # A per cent of the loss.
_MUON, _ADAMW = "muon_tuned", "adamw_tuned"
_REMARK: Final = (
    "A gain is the mean log normalised loss at the end less that of tuned Muon (or AdamW): below 0 "
    "is better, -0.1 is about 10% less loss."
)


def unseen() -> str:
    """Return what each candidate is worth over all tasks, beside tuned Muon and AdamW."""
    found = evidence.load(RESULTS)
    rows = []
    for schedule, title in _SCHEDULES.items():
        for name in found["candidates"]:
            own = found["aggregates"][name]["own_rate"][schedule]
            one = found["aggregates"][name]["one_rate"][schedule]
            rows.append(
                [
                    title,
                    f"`{name}`",
                    _signed(own[_MUON]["gain"]),
                    _signed(own[_MUON]["held_out_gain"]),
                    markdown.interval(own[_MUON]["speedup"]),
                    _signed(own[_ADAMW]["gain"]),
                    markdown.interval(own[_ADAMW]["speedup"]),
                    _signed(one[_MUON]["gain"]),
                    markdown.interval(one[_MUON]["speedup"]),
                ]
            )
    return evidence.table(
        [
            "schedule",
            "rule",
            "gain over Muon",
            "held-out gain over Muon",
            "speed-up over Muon",
            "gain over AdamW",
            "speed-up over AdamW",
            "one rate: gain over Muon",
            "one rate: speed-up over Muon",
        ],
        rows,
        _evidence(
            found,
            "95% intervals by bootstrap over tasks and seeds",
            f"Interquartile means over {len(found['tasks'])} tasks, each at its best rate; the "
            f"last two columns with one rate for all tasks. {_REMARK}",
        ),
    )


def unseen_tasks() -> str:
    """Return each candidate's gain and speed-up over tuned Muon, task by task."""
    found = evidence.load(RESULTS)
    names = [name for name in found["candidates"] if name != _MUON]
    rows = [
        [
            f"`{task}`",
            _SCHEDULES[schedule],
            markdown.number(by_name[_MUON]["own_rate"]["train"]),
            *(_over_muon(by_name[name]["own_rate"]) for name in names),
        ]
        for task, schedules in found["tasks"].items()
        for schedule, by_name in schedules.items()
    ]
    return evidence.table(
        ["task", "schedule", "Muon's log loss", *(f"`{name}`" for name in names)],
        rows,
        _evidence(
            found,
            "none for a task; the table above has the intervals over all",
            f"Gain and speed-up over tuned Muon, training loss. {_REMARK} A star marks a rate at "
            "the edge of its grid.",
        ),
    )


def figures() -> dict[str, str]:
    """Return the single numbers that pages name in their text."""
    found = evidence.load(RESULTS)
    (name,) = (name for name, about in found["candidates"].items() if about["found"])
    of = found["aggregates"][name]["own_rate"]
    return {
        "unseen_num_tasks": str(len(found["tasks"])),
        "unseen_gain": _signed(of["both"][_MUON]["gain"]),
        "unseen_speedup": markdown.interval(of["both"][_MUON]["speedup"]),
        "unseen_speedup_adamw": markdown.interval(of["both"][_ADAMW]["speedup"]),
        "unseen_not_behind": str(
            sum(
                by[name]["own_rate"]["over"][_MUON]["gain"] <= _LEVEL
                for by in (one["warmup_linear"] for one in found["tasks"].values())
            )
        ),
    }


def _over_muon(row: Mapping[str, Any]) -> str:
    over = row["over"][_MUON]
    star = "\\*" if row["at_edge"] else ""
    return f"{markdown.signed(over['gain'], 2)} / {markdown.number(over['speedup'])}{star}"


def _signed(row: Mapping[str, float]) -> str:
    value, low, high = (markdown.signed(row[key], 2) for key in ("value", "low", "high"))
    return f"{value} [{low},{markdown.NO_BREAK}{high}]"


def _evidence(found: Mapping[str, Any], spread: str, remark: str) -> Evidence:
    return Evidence(
        found["command"],
        f"{len(found['seeds'])}, the same for all rules",
        spread,
        "seven learning rates for each rule, task and schedule; all constants of every rule tuned "
        "alike before, on the search's own tasks",
        RESULTS,
        remark,
    )
