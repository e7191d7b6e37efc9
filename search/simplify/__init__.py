"""Simplification: the same behaviour in fewer statements.

- `prune` is exact to the bit and takes under a millisecond: for the search's inner loop.
- `simplify` is exact up to rounding and takes about a second: for the results of a search, and
  behind `Program.simplify`.
- `finals.ablation.ablate` changes behaviour, and a score decides whether that matters.
"""

from veldt.search.language.pruning import prune as prune
from veldt.search.simplify.simplifier import simplify as simplify
