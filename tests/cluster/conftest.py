"""Puts the benchmarks' scripts, of which a soak is made, where tests can import them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
