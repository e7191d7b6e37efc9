"""Find `_generate` where Sphinx's `conf.py` finds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
