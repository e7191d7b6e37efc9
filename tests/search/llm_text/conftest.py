"""Puts the benchmarks' scripts, which draw texts of a grammar, where tests can import them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
