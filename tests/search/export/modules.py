"""What tests of exported modules share: loading, linting, text that tries to become code."""

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from hypothesis import strategies as st

ROOT = Path(__file__).parents[3]
_numbers = itertools.count()


def load(text: str, folder: Path) -> ModuleType:
    """Writes a module and imports it, as its user would."""
    path = folder / f"exported_{next(_numbers)}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_ruff(text: str, folder: Path) -> None:
    path = folder / f"linted_{next(_numbers)}.py"
    path.write_text(text, encoding="utf-8")
    config = ["--no-cache", "--config", str(ROOT / "pyproject.toml"), str(path)]
    for command in (["check"], ["format", "--check", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config], capture_output=True, text=True
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{text}"


# Names that the module needs for itself, that linters refuse, or that make lines too long.
AWKWARD_NAMES = (
    "jnp optax jax NamedTuple count state params updates leaf pick learning_rate sum float l O I "
    "_hidden __ __init__ ScaleByRuleState scale_by_rule _safe_divide squares square_sum outputs "
    "torch lr self group p closure list value Rule Optimizer Exception _leaf_update update "
    f"g_2 new_m new_v t3 step_2 ABC B1 naïve β 学习率 {'long_' * 12} {'x' * 300}"
).split()

EVIL = (
    '"""\nimport os\n"""', "\\", '"', "'''", "\\N{DEGREE SIGN}", "Args:", "Returns:\n  x", "# noqa",
    "\x00\x1b\u2028", "word " * 60, "学习率" * 60, "TODO: x", "\ud800",
)  # fmt: skip
evil_text = st.sampled_from(EVIL) | st.text()
