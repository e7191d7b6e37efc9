"""The report's account of the work: who worked on the run, what it cost, what went wrong."""

import datetime
from typing import Final

from veldt.search.storage import usage
from veldt.search.storage.usage import StoredSession, Work
from veldt.tasks.common import formatting
from veldt.tasks.common.html import page
from veldt.tasks.common.html.markup import Html, join, table, tag
from veldt.tasks.pool import work_line

MAX_WORKERS: Final = 64  # Listed one by one per session.
_SESSION_HEADS: Final = (
    "began (UTC)", "where", "ended", "lasted", "workers", "jobs", "used, s", "wasted, s",
    "starting, s", "time of the workers",
)  # fmt: skip
_TROUBLE_HEADS: Final = (
    "began (UTC)", "workers lost", "jobs tried again", "given to two", "time-outs", "quarantined"
)  # fmt: skip
_WORKER_HEADS: Final = ("worker", "where", "jobs", "busy, s", "there, s", "rate")
_EVENT_HEADS: Final = ("when (UTC)", "what", "worker", "job", "more")


def section(data: Work) -> Html:
    """Return the section "Work and cost"."""
    if not data.sessions:
        text = "This run was made by an older veldt, which kept no record of it."
        return page.section("Work and cost", tag("p", text))
    parts: list[object] = [
        tag("p", f"{usage.cost_line(data).capitalize()}."),
        _sessions(data.sessions),
        tag("p", "Seconds are worker-seconds. Used: work whose result was taken. Wasted: lost with "
            "a worker, over the time limit, or done twice. For the rest of the time the workers "
            "were waiting.", class_="soft"),
        tag("h3", "What went wrong"),
        _troubles(data.sessions),
        tag("h3", "Throughput per worker"),
        tag("ul", *(
            tag("li", f"{one.began}: {usage.throughput(one.stats.workers)}")
            for one in data.sessions
        )),
        *(_workers(one) for one in data.sessions),
    ]  # fmt: skip
    if data.events:
        rows = [
            ("", (_when(one.time_s), one.kind.value, one.worker, one.job, one.message))
            for one in data.events
        ]
        summary = tag("summary", f"The last {len(rows)} events")
        parts.append(tag("details", summary, table(_EVENT_HEADS, rows, numbers=())))
    return page.section("Work and cost", *parts)


def _sessions(sessions: tuple[StoredSession, ...]) -> Html:
    rows = [
        (
            "",
            (
                one.began,
                one.place,
                one.state if one.state != "working" else "working, or killed",
                formatting.duration(one.elapsed_s),
                f"{one.stats.num_workers:,} ({one.stats.backend})",
                f"{one.stats.num_done:,}",
                f"{one.stats.busy_s:,.1f}",
                f"{one.stats.wasted_s:,.1f}",
                f"{one.stats.starting_s:,.1f}",
                work_line.shares([one.stats]) or "-",
            ),
        )
        for one in sessions
    ]
    return table(_SESSION_HEADS, rows, numbers=(3, 5, 6, 7, 8))


def _troubles(sessions: tuple[StoredSession, ...]) -> Html:
    rows = [
        (
            "",
            (
                one.began,
                f"{one.stats.num_lost_workers:,}",
                f"{one.stats.num_retries:,}",
                f"{one.stats.num_reissued:,}",
                f"{one.stats.num_timeouts:,}",
                f"{one.stats.num_killed:,}",
            ),
        )
        for one in sessions
    ]
    return table(_TROUBLE_HEADS, rows, numbers=range(1, len(_TROUBLE_HEADS)))


def _workers(session: StoredSession) -> Html:
    rows = [
        (
            "",
            (
                one.name,
                one.place,
                f"{one.num_jobs:,}",
                f"{one.busy_s:,.1f}",
                f"{one.alive_s:,.1f}",
                usage.throughput((one,)),
            ),
        )
        for one in session.stats.workers[:MAX_WORKERS]
    ]
    if not rows:
        return Html()
    left_out = len(session.stats.workers) - len(rows)
    more = tag("p", f"and {left_out:,} more", class_="soft") if left_out else Html()
    summary = tag("summary", f"The workers of {session.began}")
    return tag("details", summary, join([table(_WORKER_HEADS, rows, numbers=(2, 3, 4, 5)), more]))


def _when(time_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(time_s, datetime.UTC)
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
