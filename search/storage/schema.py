"""The tables of a run's store, and the migration of older versions.

Two kinds of tables: the tables of the search, which a killed and resumed run has exactly as a run
without a break (but for columns named `*_s`, which hold times), and `MACHINE_TABLES`, which record
what happened on machines: no two runs share them. A search reads none of those but `llm_answer`,
answers of language models as they arrived; a search learns them in order, in `llm_call`.
"""

import json
import sqlite3
from typing import Final, NamedTuple

from veldt.search.storage import checksums

SCHEMA_VERSION: Final = 9
READABLE: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9)

# How the best is challenged: a key of the table `meta`, which stores begun before version 7 have.
CHALLENGES: Final = "challenges"
AT_ONCE: Final = "at once"

MACHINE_TABLES: Final = ("session", "worker", "pool_event", "llm_answer", checksums.TABLE)

_SEARCH: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- One row per distinct behaviour (program and learning rate); ids below 0: the finals' baselines.
CREATE TABLE candidate (
  id INTEGER PRIMARY KEY,
  behaviour TEXT NOT NULL UNIQUE,
  program TEXT NOT NULL,          -- live statements only
  learning_rate REAL NOT NULL,
  length INTEGER NOT NULL,        -- live instructions
  status TEXT NOT NULL,
  fitness REAL,                   -- NULL unless the status is ok
  num_steps INTEGER NOT NULL,     -- training steps spent on its fitness
  message TEXT NOT NULL,
  slots INTEGER                   -- live state slots; NULL in what older versions wrote
);
-- One row per child proposed, in the order recorded.
CREATE TABLE proposal (
  id INTEGER PRIMARY KEY,
  parent INTEGER,                 -- proposal; NULL for a child of the initial rule
  mutation TEXT NOT NULL,
  program TEXT NOT NULL,          -- the genotype, dead statements included
  learning_rate REAL NOT NULL,
  structure TEXT NOT NULL,        -- structural hash with the learning rate
  statements INTEGER NOT NULL,    -- statements of the genotype
  live INTEGER NOT NULL,          -- statements that matter
  invalid INTEGER NOT NULL,       -- draws thrown away before it
  -- evaluated | probe | hollow | capacity (by older versions), or the cache that answered:
  -- structure | behaviour; or sample: a further evaluation of a known candidate
  source TEXT NOT NULL,
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  told_s REAL NOT NULL            -- seconds of search when it was recorded
);
-- One row per challenge of the incumbent, won or lost, in the order decided.
CREATE TABLE challenge (
  id INTEGER PRIMARY KEY,
  proposal INTEGER NOT NULL,
  challenger INTEGER NOT NULL REFERENCES candidate(id),
  incumbent INTEGER NOT NULL REFERENCES candidate(id),
  difference REAL,                -- mean log loss, challenger less incumbent; NULL: one failed
  standard_error REAL,
  won INTEGER NOT NULL,
  -- fitness on meta-validation of a new incumbent; NULL also while it is under way
  meta_fitness REAL,
  told_s REAL NOT NULL,
  number INTEGER NOT NULL DEFAULT 0,     -- in the order begun; picks the fresh seeds
  settled INTEGER NOT NULL DEFAULT -1,   -- first proposal recorded with its result known
  driver INTEGER NOT NULL DEFAULT 0      -- driver whose incumbent it is about
);
-- The finals' table, in the order shown.
CREATE TABLE hall_of_fame (
  id INTEGER PRIMARY KEY,
  label TEXT NOT NULL,
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  learning_rate REAL,
  length INTEGER NOT NULL,
  search_fitness REAL,
  select_score REAL,
  final_score REAL,
  final_error REAL,
  meta REAL,
  winner INTEGER NOT NULL,
  program TEXT,                   -- with tuned constants; NULL: the candidate's program
  stages INTEGER NOT NULL DEFAULT 0  -- stages of the funnel that it passed
);
"""
_EVALUATION: Final = """
-- One row per training run. A job that ended without any (its worker raised, took too long or
-- died) has one row, for the first run that it should have made.
CREATE TABLE evaluation (
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  -- fitness | sample | fresh | meta | select | tuning | stage NAME | meta-select | final
  -- | meta-final
  purpose TEXT NOT NULL,
  task TEXT NOT NULL,
  seed INTEGER NOT NULL,
  learning_rate REAL NOT NULL,
  -- Tuned constants of the program trained, as JSON; empty for the candidate's own program and in
  -- rows of versions before 6, in which the learning rate alone distinguished tuned programs.
  constants TEXT NOT NULL DEFAULT '',
  status TEXT NOT NULL,
  loss REAL,
  log_loss REAL,                  -- log normalised validation loss at the end
  num_steps INTEGER NOT NULL,
  wall_s REAL NOT NULL,
  message TEXT NOT NULL DEFAULT '',  -- why a job has no runs, or why a run is hollow
  PRIMARY KEY (candidate, purpose, constants, task, seed, learning_rate)
) WITHOUT ROWID;
"""
_GRADIENT: Final = """
-- One row per metagradient: the gradient of a task's mean score by the numbers of a rule.
CREATE TABLE gradient (
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  constants TEXT NOT NULL,        -- as in evaluation
  task TEXT NOT NULL,
  seeds TEXT NOT NULL,            -- seeds of the runs: JSON
  learning_rate REAL NOT NULL,
  status TEXT NOT NULL,           -- ok; rejected: not to be trusted; or what went wrong
  score REAL,                     -- mean score of the runs; NULL unless the status is ok
  gradient TEXT,                  -- by number, the learning rate first: JSON; NULL unless ok
  message TEXT NOT NULL,          -- result of the check of the gradient, or what went wrong
  num_steps INTEGER NOT NULL,     -- training steps that it counts as
  wall_s REAL NOT NULL,           -- with compiling
  PRIMARY KEY (candidate, constants, task, seeds, learning_rate)
) WITHOUT ROWID;
"""
_OF_VERSION_3: Final = (
    ("candidate", "slots INTEGER"),
    ("hall_of_fame", "program TEXT"),
    ("hall_of_fame", "stages INTEGER NOT NULL DEFAULT 0"),
)
# The table that version 2 added.
_PLAYED: Final = """
-- Finals begun: more than one where a budget grew or the finals' config changed.
CREATE TABLE finals (
  id INTEGER PRIMARY KEY,
  told INTEGER NOT NULL,          -- proposals recorded by then
  config TEXT NOT NULL            -- config of the finals, as JSON
);
CREATE INDEX proposal_structure ON proposal(structure);
"""
# The table that version 4 added.
_RACE: Final = """
-- One row per program that was trained in a search that races (`racing.py`).
CREATE TABLE race (
  proposal INTEGER PRIMARY KEY REFERENCES proposal(id),
  role TEXT NOT NULL,             -- by lot: raced | calibrates | shapes; or founder
  dropped_at INTEGER,             -- rung, from 0 over all runs; NULL: the race did not drop it
  curves TEXT NOT NULL            -- by run, log losses at the checks made: JSON
);
"""
# The table and the columns that version 7 added.
_SIDE_WORK: Final = """
-- One row per stage of a comparison that runs beside the proposals, in the order begun.
CREATE TABLE side_work (
  id INTEGER PRIMARY KEY,
  stage TEXT NOT NULL,            -- first | rest (of the fresh seeds) | meta
  number INTEGER NOT NULL,        -- number of the challenge
  proposal INTEGER NOT NULL,      -- proposal of the challenger, or new incumbent
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  incumbent INTEGER NOT NULL REFERENCES candidate(id),  -- incumbent challenged
  differences TEXT NOT NULL,      -- differences on the first seeds, for the rest: JSON
  begun INTEGER NOT NULL,         -- proposal at, or before, whose recording it began
  due INTEGER NOT NULL,           -- proposal before whose recording it is settled
  done INTEGER NOT NULL           -- 0 while it is under way
);
"""
_OF_VERSION_7: Final = (
    ("challenge", "number INTEGER NOT NULL DEFAULT 0"),
    ("challenge", "settled INTEGER NOT NULL DEFAULT -1"),
)
# The table and the column that version 8 added.
_MAIL: Final = """
-- One row per letter of this driver to the next one: its best rule after so many proposals.
CREATE TABLE mail (
  id INTEGER PRIMARY KEY,         -- 1, 2, ...: in the order put
  proposal INTEGER NOT NULL,      -- proposal of the rule; -1 for the initial rule
  program TEXT NOT NULL,
  learning_rate REAL NOT NULL,
  mean REAL,                      -- what was known of it: mean log loss over its samples
  num_samples INTEGER NOT NULL
);
"""
_OF_VERSION_8: Final = (("challenge", "driver INTEGER NOT NULL DEFAULT 0"),)
# The tables that version 9 added.
_LLM: Final = """
-- One row per call of a language model, or choice of none, in the order begun.
CREATE TABLE llm_call (
  id INTEGER PRIMARY KEY,         -- 1, 2, ...
  proposal INTEGER NOT NULL,      -- proposal at whose recording it began
  due INTEGER NOT NULL,           -- first of the proposals that its programs are
  model TEXT NOT NULL,            -- name in the config; empty where no model was chosen
  params TEXT NOT NULL,           -- what was asked with the prompt: JSON
  system TEXT NOT NULL,
  prompt TEXT NOT NULL,
  digest TEXT NOT NULL,           -- of both texts; empty where nothing was asked
  parent INTEGER NOT NULL,        -- proposal of the parent shown; -1 for the initial rule
  -- under way | ok | cut off | empty | unreadable | failed: WHY | refused: budget | not chosen.
  -- What follows is written when proposal `due` is recorded, until which a call is under way.
  status TEXT NOT NULL,
  programs INTEGER NOT NULL DEFAULT 0,   -- programs read: proposals due, due + 1, ...
  answer TEXT NOT NULL DEFAULT '',
  repair_prompt TEXT NOT NULL DEFAULT '',
  repair_answer TEXT NOT NULL DEFAULT '',
  prompt_tokens INTEGER NOT NULL DEFAULT 0,
  completion_tokens INTEGER NOT NULL DEFAULT 0,
  estimated INTEGER NOT NULL DEFAULT 0,  -- 1: the endpoint did not count the tokens
  requests INTEGER NOT NULL DEFAULT 0,   -- requests that were answered, the repair included
  latency_s REAL,
  arrived_s REAL                  -- seconds of search when the last answer arrived
);
"""
_LLM_ANSWER: Final = """
-- One row per request of a call that has ended, as soon as it has.
CREATE TABLE llm_answer (
  call INTEGER NOT NULL REFERENCES llm_call(id),
  round INTEGER NOT NULL,         -- 0; 1 for the repair
  digest TEXT NOT NULL,           -- of the prompt answered
  status TEXT NOT NULL,           -- ok | cut off | empty | failed: WHY
  answer TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  estimated INTEGER NOT NULL,
  tries INTEGER NOT NULL,         -- requests made, failed ones included; 0: taken from a store
  latency_s REAL NOT NULL,
  arrived_s REAL NOT NULL,
  PRIMARY KEY (call, round)
) WITHOUT ROWID;
"""
_MACHINES: Final = """
-- One row per process that worked on the run. Seconds are worker-seconds but for `elapsed_s`.
CREATE TABLE session (
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  began TEXT NOT NULL,            -- UTC, ISO 8601
  state TEXT NOT NULL,            -- working (or killed) | done | stopped | failed
  backend TEXT NOT NULL,
  num_workers INTEGER NOT NULL,
  done INTEGER NOT NULL,
  retries INTEGER NOT NULL,
  reissued INTEGER NOT NULL,
  timeouts INTEGER NOT NULL,
  killed INTEGER NOT NULL,
  lost_workers INTEGER NOT NULL,
  busy_s REAL NOT NULL,
  wasted_s REAL NOT NULL,
  starting_s REAL NOT NULL,
  alive_s REAL NOT NULL,
  elapsed_s REAL NOT NULL
);
-- A session's workers, lost ones as they were last seen.
CREATE TABLE worker (
  session INTEGER NOT NULL REFERENCES session(id),
  name TEXT NOT NULL,
  place TEXT NOT NULL,
  jobs INTEGER NOT NULL,
  busy_s REAL NOT NULL,
  alive_s REAL NOT NULL,
  PRIMARY KEY (session, name)
) WITHOUT ROWID;
-- What happened to workers and jobs apart from results; the most recent ones.
CREATE TABLE pool_event (
  id INTEGER PRIMARY KEY,
  session INTEGER NOT NULL REFERENCES session(id),
  time_s REAL NOT NULL,           -- since the epoch
  kind TEXT NOT NULL,
  worker TEXT NOT NULL,
  job TEXT NOT NULL,
  message TEXT NOT NULL
);
"""
# The table that version 5 added; see `checksums.py`.
_CHECKSUMS: Final = f"""
CREATE TABLE {checksums.TABLE} (
  name TEXT PRIMARY KEY,          -- name of a table
  num_rows INTEGER NOT NULL,
  total TEXT NOT NULL             -- sum of the hashes of its rows, in hexadecimal
) WITHOUT ROWID;
"""


_RUN: Final = (
    "candidate, purpose, task, seed, learning_rate, status, loss, log_loss, num_steps, wall_s, "
    "message"
)
_FIRST_SEED_5: Final = 2_000_000  # First seed of metagradients; version 5 stored only the last.


class _Gradient5(NamedTuple):
    """A metagradient as version 5 stored it; `message` is JSON where the status is ok."""

    candidate: int
    task: str
    last_seed: int
    learning_rate: float
    status: str
    score: float | None
    message: str
    num_steps: int
    wall_s: float


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of a new store."""
    connection.executescript(
        _SEARCH
        + _EVALUATION
        + _GRADIENT
        + _PLAYED
        + _RACE
        + _SIDE_WORK
        + _MAIL
        + _LLM
        + _LLM_ANSWER
        + _MACHINES
        + _CHECKSUMS
    )
    connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
    checksums.begin(connection)
    connection.commit()


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables of a store up to date, inside a transaction; no result is changed."""
    if version == 1:
        connection.execute("ALTER TABLE evaluation ADD COLUMN message TEXT NOT NULL DEFAULT ''")
        for statement in (_PLAYED + _MACHINES).split(";\n"):
            connection.execute(statement)
    elif version < 6:
        _rename_sessions(connection)
    if version < 3:
        for table, column in _OF_VERSION_3:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    if version < 4:
        connection.execute(_RACE)
    if version < 5:
        connection.execute(_CHECKSUMS)
    if version < 6:
        _key_runs_by_constants(connection)
    if version < 7:
        _keep_challenges(connection)
    if version < 8:
        for table, column in _OF_VERSION_8:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
        connection.execute(_MAIL)
    connection.execute(_LLM)
    connection.execute(_LLM_ANSWER)
    connection.execute(
        "UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(SCHEMA_VERSION),)
    )
    checksums.begin(connection)


def _keep_challenges(connection: sqlite3.Connection) -> None:
    """Bring challenges up to version 7; the search goes on with challenges made at once."""
    for table, column in _OF_VERSION_7:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    connection.execute("UPDATE challenge SET number = id, settled = proposal")
    connection.execute(_SIDE_WORK)
    connection.execute("INSERT INTO meta VALUES (?, ?)", (CHALLENGES, AT_ONCE))


def _rename_sessions(connection: sqlite3.Connection) -> None:
    """Give the tables of sessions the names of version 6."""
    connection.execute("ALTER TABLE sitting RENAME TO session")
    for table in ("worker", "pool_event"):
        connection.execute(f"ALTER TABLE {table} RENAME COLUMN sitting TO session")


def _key_runs_by_constants(connection: sqlite3.Connection) -> None:
    """Split version 5's table of runs and metagradients into the two tables of version 6."""
    connection.execute("ALTER TABLE evaluation RENAME TO of_version_5")
    connection.execute(_EVALUATION)
    connection.execute(_GRADIENT)
    connection.execute(
        f"INSERT INTO evaluation ({_RUN}) SELECT {_RUN} FROM of_version_5 "
        "WHERE purpose <> 'gradient'"
    )
    gradients = connection.execute(
        "SELECT candidate, task, seed, learning_rate, status, log_loss, message, num_steps, wall_s "
        "FROM of_version_5 WHERE purpose = 'gradient'"
    )
    for row in map(_Gradient5._make, gradients.fetchall()):
        stored = json.loads(row.message) if row.status == "ok" else {"verdict": row.message}
        gradient = json.dumps(stored["gradient"]) if row.status == "ok" else None
        connection.execute(
            "INSERT INTO gradient VALUES (?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.candidate,
                row.task,
                json.dumps(list(range(_FIRST_SEED_5, row.last_seed + 1))),
                row.learning_rate,
                row.status,
                row.score,
                gradient,
                stored["verdict"],
                row.num_steps,
                row.wall_s,
            ),
        )
    connection.execute("DROP TABLE of_version_5")
