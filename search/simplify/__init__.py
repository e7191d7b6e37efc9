"""Simplification: the same behaviour in fewer statements.

- `prune` is exact to the bit and takes under a millisecond: for the search's inner loop.
- `simplify` is exact up to rounding and takes about a second: for what a search hands over, and
  behind `Program.simplify`.
- `knockout.knock_out` changes behaviour, and asks a score whether that matters.
"""

from veldt.search.language.pruning import prune as prune
from veldt.search.simplify.simplifier import simplify as simplify
