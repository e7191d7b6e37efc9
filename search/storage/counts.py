"""A search's counts, the same while it runs and when they are read from its store.

Distinct programs are those that were trained. Proposals that a cache answered, that diverged on the
probe or ignored the gradient there, or that the interpreter has no space for, cost no training.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import final

from veldt.search.evaluation.jobs import Status
from veldt.search.storage.store import Store


@final
@dataclass(slots=True)
class Counts:
    """A search's counts. The engine has one and updates it, others only read it.

    Attributes:
      num_told: Number of proposals recorded.
      sources: Numbers of proposals by the source of their score.
      statuses: Numbers of distinct candidates by status, without the initial rule.
      num_invalid: Number of draws thrown away.
      num_statements: Number of statements of all genotypes proposed.
      num_live: Number of live instructions of all genotypes proposed.
      num_challenges: Number of challenges of the incumbent, the initial rule's own entry included.
    """

    num_told: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    num_invalid: int = 0
    num_statements: int = 0
    num_live: int = 0
    num_challenges: int = 0

    @classmethod
    def read(cls, store: Store) -> "Counts":
        """Return the counts of a store's rows."""
        sources = store.rows("SELECT source AS name, COUNT(*) AS n FROM proposal GROUP BY source")
        statuses = store.rows(
            "SELECT status AS name, COUNT(*) AS n FROM candidate WHERE id > 0 GROUP BY status"
        )
        sums = store.rows(
            "SELECT COUNT(*) AS told, COALESCE(SUM(invalid), 0) AS invalid, "
            "COALESCE(SUM(statements), 0) AS statements, COALESCE(SUM(live), 0) AS live "
            "FROM proposal"
        )[0]
        return cls(
            num_told=int(sums["told"]),
            sources=Counter({str(row["name"]): int(row["n"]) for row in sources}),
            statuses=Counter({str(row["name"]): int(row["n"]) for row in statuses}),
            num_invalid=int(sums["invalid"]),
            num_statements=int(sums["statements"]),
            num_live=int(sums["live"]),
            num_challenges=int(store.first("SELECT COUNT(*) FROM challenge")),
        )

    def add(
        self,
        source: str,
        status: Status | None,
        *,
        num_invalid: int,
        num_statements: int,
        num_live: int,
        challenged: bool,
    ) -> None:
        """Count a recorded proposal, with the status of its candidate if that is a new one."""
        self.num_told += 1
        self.sources[source] += 1
        if status is not None:
            self.statuses[status.value] += 1
        self.num_invalid += num_invalid
        self.num_statements += num_statements
        self.num_live += num_live
        self.num_challenges += challenged

    @property
    def num_trained(self) -> int:
        """The number of distinct programs trained."""
        return self.sources["evaluated"]

    @property
    def num_evaluations(self) -> int:
        """The number of evaluations: programs trained, and further samples of them."""
        return self.sources["evaluated"] + self.sources["sample"]

    @property
    def num_cached(self) -> int:
        """The number of proposals that a cache answered."""
        return self.sources["structure"] + self.sources["behaviour"]

    @property
    def num_candidates(self) -> int:
        """The number of distinct candidates, the initial rule included."""
        return 1 + self.statuses.total()


def figures(counts: Counts, max_evaluations: int) -> dict[str, str]:
    """Return a search's figures, by the names under which they are shown.

    Args:
      counts: Counts of the search.
      max_evaluations: Largest number of distinct programs that the search trains.
    """
    sources, statuses, trained = counts.sources, counts.statuses, counts.num_trained
    # Those that diverged on the probe cost no training.
    diverged = statuses["diverged"] - sources["probe"]
    drawn = counts.num_told + counts.num_invalid
    return {
        "trained": f"{trained:,} of {max_evaluations:,} distinct programs"
        if not sources["sample"]
        else f"{trained:,} distinct programs and {sources['sample']:,} further samples of them, of "
        f"{max_evaluations:,} evaluations",
        "proposed": f"{counts.num_told:,}",
        "from cache": (
            f"{share(counts.num_cached, counts.num_told)} "
            f"({sources['structure']:,} by structure, {sources['behaviour']:,} by behaviour)"
        ),
        "dead statements": share(counts.num_statements - counts.num_live, counts.num_statements),
        "invalid draws": share(counts.num_invalid, drawn),
        "rejected": f"{share(statuses['rejected'], trained)} of the trained, before their end",
        "diverged": (
            f"{share(diverged, trained)} of the trained; {sources['probe']:,} already on the probe"
        ),
        "hollow": (
            f"{share(statuses['hollow'] - sources['hollow'], trained)} of the trained; "
            f"{sources['hollow']:,} ignored the gradient"
        ),
        "failed": (
            f"{statuses['timeout']:,} out of time, {statuses['killed']:,} killed their workers, "
            f"{statuses['error']:,} other errors"
        ),
        "challenges": f"{max(counts.num_challenges - 1, 0):,} of the best, on fresh seeds",
    }


def share(part: int, whole: int) -> str:
    """Return a part in per cent."""
    return f"{part / whole:.0%}" if whole else "-"
