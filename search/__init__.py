"""Symbolic search for update rules: the language, the interpreter, and how programs evolve.

Where to start: `program` (what a rule is), `ops` (the instruction set), `interpreter` (how
thousands of them are trained with one compiled loop), `evolution` (the search), `run` (a whole
run), `export` (the way out).
"""
