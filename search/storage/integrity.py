"""Check that a store's rows are those of one search: nothing lost, nothing counted twice.

SQLite finds a damaged page by itself. This also finds what is sound as a file and yet no search
could have written: a missing proposal, a candidate introduced twice, a fitness that is not the mean
of its training runs, an incumbent that won no challenge. Each rule is one query that counts or
names the rows that break it, so the check costs little memory however long the run is.
"""

from dataclasses import dataclass
from typing import Final, final

from veldt.search.errors import StoreError
from veldt.search.storage.store import Store

_MAX_NAMED: Final = 5


@final
@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule that must hold; `query` selects the rows that break it, one column."""

    text: str
    query: str


_NEW: Final = "('evaluated', 'probe', 'hollow', 'capacity')"
_RULES: Final = (
    _Rule(
        "proposals are numbered from 0 without a gap; broken from number",
        "SELECT n FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id) - 1 AS n FROM proposal) "
        "WHERE id <> n LIMIT 1",
    ),
    _Rule(
        "candidates are numbered from 0 without a gap; broken from number",
        "SELECT n FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id) - 1 AS n FROM candidate "
        "WHERE id >= 0) WHERE id <> n LIMIT 1",
    ),
    _Rule(
        "a proposal's candidate exists; it does not for proposal",
        "SELECT id FROM proposal WHERE candidate < 0 OR candidate NOT IN "
        "(SELECT id FROM candidate)",
    ),
    _Rule(
        "an evaluation's candidate exists; there is none with the number",
        "SELECT DISTINCT candidate FROM evaluation WHERE candidate NOT IN "
        "(SELECT id FROM candidate)",
    ),
    _Rule(
        "a candidate is introduced by exactly one proposal; broken by candidate",
        f"SELECT id FROM candidate LEFT JOIN (SELECT candidate, COUNT(*) AS n FROM proposal "
        f"WHERE source IN {_NEW} GROUP BY candidate) ON candidate = id "
        "WHERE id >= 0 AND COALESCE(n, 0) <> (id > 0)",
    ),
    _Rule(
        "a source is evaluated, probe, hollow, capacity, structure, behaviour or sample; broken by "
        "proposal",
        f"SELECT id FROM proposal WHERE source NOT IN {_NEW} "
        "AND source NOT IN ('structure', 'behaviour', 'sample')",
    ),
    _Rule(
        "a cached structure was proposed before, with the same candidate; broken by proposal",
        "SELECT id FROM proposal AS p WHERE source = 'structure' AND candidate <> 0 AND NOT EXISTS "
        "(SELECT 1 FROM proposal AS q WHERE q.structure = p.structure AND q.id < p.id "
        "AND q.candidate = p.candidate)",
    ),
    _Rule(
        "a cached behaviour was introduced before; broken by proposal",
        "SELECT id FROM (SELECT id, source, candidate, MIN(CASE WHEN source IN "
        f"{_NEW} THEN id END) OVER (PARTITION BY candidate) AS first FROM proposal) "
        f"WHERE source NOT IN {_NEW} AND candidate <> 0 AND (first IS NULL OR id <= first)",
    ),
    _Rule(
        "a parent was proposed before its child; broken by proposal",
        "SELECT id FROM proposal WHERE parent < 0 OR parent >= id",
    ),
    _Rule(
        "a candidate has a fitness if and only if its status is ok; broken by candidate",
        "SELECT id FROM candidate WHERE (status = 'ok') <> (fitness IS NOT NULL)",
    ),
    _Rule(
        "a fitness is the mean log loss of its training runs, all of them ok; broken by candidate",
        "SELECT id FROM candidate LEFT JOIN (SELECT candidate, AVG(log_loss) AS mean, "
        "COUNT(*) - COUNT(log_loss) AS failed FROM evaluation WHERE purpose = 'fitness' "
        "GROUP BY candidate) ON candidate = id WHERE status = 'ok' AND id >= 0 AND "
        "(mean IS NULL OR failed > 0 OR ABS(mean - fitness) > 1e-9 * MAX(1.0, ABS(fitness)))",
    ),
    _Rule(
        "a training run has a score if and only if its status is ok; broken by candidate",
        "SELECT DISTINCT candidate FROM evaluation WHERE (status = 'ok') <> (log_loss IS NOT NULL)",
    ),
    _Rule(
        "a metagradient is stored if and only if its status is ok; broken by candidate",
        "SELECT DISTINCT candidate FROM gradient WHERE (status = 'ok') <> (score IS NOT NULL) "
        "OR (status = 'ok') <> (gradient IS NOT NULL)",
    ),
    _Rule(
        "challenges are numbered from 0 without a gap; broken from number",
        "SELECT n FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id) - 1 AS n FROM challenge) "
        "WHERE id <> n LIMIT 1",
    ),
    _Rule(
        "a challenger is its proposal's candidate; broken by challenge",
        "SELECT h.id FROM challenge AS h LEFT JOIN proposal AS p ON p.id = h.proposal "
        "WHERE CASE WHEN h.id = 0 THEN h.proposal <> -1 OR h.challenger <> 0 OR h.won <> 1 "
        "ELSE p.candidate IS NOT h.challenger END",
    ),
    _Rule(
        "a winner has beaten the incumbent of its moment; broken by challenge",
        "SELECT id FROM challenge AS h WHERE won = 1 AND incumbent IS NOT COALESCE((SELECT "
        "challenger FROM challenge AS g WHERE g.won = 1 AND g.driver = h.driver AND g.id < h.id "
        "ORDER BY g.id DESC "
        "LIMIT 1), 0)",
    ),
    _Rule(
        "what is challenged is or was the incumbent; broken by challenge",
        "SELECT id FROM challenge AS h WHERE incumbent <> 0 AND NOT EXISTS (SELECT 1 FROM "
        "challenge AS g WHERE g.won = 1 AND g.driver = h.driver AND g.id < h.id "
        "AND g.challenger = h.incumbent)",
    ),
    _Rule(
        "side work is about its proposal's candidate; broken by stage",
        "SELECT s.id FROM side_work AS s LEFT JOIN proposal AS p ON p.id = s.proposal "
        "WHERE p.candidate IS NOT s.candidate",
    ),
    _Rule(
        "side work is settled before the proposal that it is due before; broken by stage",
        "SELECT id FROM side_work WHERE done = 0 AND due < (SELECT COUNT(*) FROM proposal)",
    ),
    _Rule(
        "calls of language models are numbered from 1 without a gap; broken from number",
        "SELECT n FROM (SELECT id, ROW_NUMBER() OVER (ORDER BY id) AS n FROM llm_call) "
        "WHERE id <> n LIMIT 1",
    ),
    _Rule(
        "a call is under way until the first of its proposals is recorded; broken by call",
        "SELECT id FROM llm_call WHERE status NOT IN ('not chosen', 'refused: budget') "
        "AND (status = 'under way') <> (due >= (SELECT COUNT(*) FROM proposal))",
    ),
    _Rule(
        "a proposal of a model is a program of a call of it; broken by proposal",
        "SELECT p.id FROM proposal AS p WHERE p.mutation LIKE 'llm %' AND NOT EXISTS (SELECT 1 "
        "FROM llm_call AS c WHERE p.mutation = 'llm ' || c.model AND p.id >= c.due "
        "AND p.id < c.due + c.programs AND COALESCE(p.parent, -1) = c.parent)",
    ),
    _Rule(
        "an answer is that of a call; there is none with the number",
        "SELECT DISTINCT call FROM llm_answer WHERE call NOT IN (SELECT id FROM llm_call)",
    ),
    _Rule(
        "the finals have one winner at most; they have",
        "SELECT n || ' of them' FROM (SELECT COUNT(*) AS n FROM hall_of_fame WHERE winner = 1) "
        "WHERE n > 1",
    ),
)


def problems(store: Store) -> list[str]:
    """Return what is wrong with a store, in sentences; empty for a sound one."""
    found = [
        f"the file is damaged: {row['integrity_check']}"
        for row in store.rows(f"PRAGMA integrity_check({_MAX_NAMED})")
        if row["integrity_check"] != "ok"
    ]
    if found:
        return found
    for rule in _RULES:
        rows = store.rows(f"SELECT * FROM ({rule.query}) LIMIT {_MAX_NAMED + 1}")
        if rows:
            named = [str(value) for row in rows[:_MAX_NAMED] for value in row.values()]
            more = " and more" if len(rows) > _MAX_NAMED else ""
            found.append(f"{rule.text} {', '.join(named)}{more}")
    for row in store.rows('SELECT DISTINCT "table", parent FROM pragma_foreign_key_check'):
        found.append(f"a row of {row['table']} points to none of {row['parent']}")
    return found


def check(store: Store) -> None:
    """Raise an error for a store that no search could have written.

    Raises:
      StoreError: A rule is broken; the message names all that are.
    """
    if found := problems(store):
        listed = "".join(f"\n  - {problem}" for problem in found)
        raise StoreError(
            f"{store.path} is not what a search writes; restore it from a copy, or start a new "
            f"run. What must hold and does not:{listed}"
        )
