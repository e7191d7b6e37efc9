"""Symbolic search for update rules: the language, the interpreter, and how programs evolve.

Where to start: `program` (a rule), `language/ops` (the instruction set), `runtime/interpreter` (how
thousands of them are trained with one compiled loop), `evolution` (the search), `run` (a whole
run), `export` (stand-alone files).
"""
