"""Make the reference of the store's tables, from the statements that create them."""

import sqlite3
from typing import final

from _generate import markdown
from veldt.search.storage import schema


@final
class _Recorder(sqlite3.Connection):
    """A connection that keeps the text of the scripts that it runs, comments included."""

    text = ""

    def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
        self.text += sql_script
        return super().executescript(sql_script)


def tables() -> str:
    """Return the page of the tables of a search's store."""
    connection = sqlite3.connect(":memory:", factory=_Recorder)
    try:
        schema.create(connection)
        script = connection.text
    finally:
        connection.close()
    return markdown.page(
        "The store of a search",
        "A search keeps every proposal, program and training run in one SQLite file of its run "
        f"directory. These are the tables of version {schema.SCHEMA_VERSION}; a store of an older "
        f"version ({', '.join(map(str, schema.READABLE[:-1]))}) is brought up to date when it is "
        "opened, and nothing stored is changed.",
        "There are two kinds of tables. The tables of the search are exactly the same in a killed "
        "and resumed run as in a run without a break, but for columns named `*_s`, which hold "
        "times. "
        f"The others ({', '.join(f'`{name}`' for name in schema.MACHINE_TABLES)}) record what "
        "happened on machines. No search reads them but `llm_answer`, where answers of language "
        "models are kept as they arrive; `llm_call` has those that the search has learnt.",
        markdown.code(script.strip(), "sql"),
    )
