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
        "Two kinds of tables: what was searched, which a killed and resumed run has exactly as one "
        "left alone (but for columns named `*_s`, which hold times), and what happened on machines "
        f"({', '.join(f'`{name}`' for name in schema.MACHINE_TABLES)}), which no search reads.",
        markdown.code(script.strip(), "sql"),
    )
