"""What a tuning found, as a Python file to read and to import, and as arrays.

`schedules.py` needs nothing but JAX: a function of the step for every hyperparameter that has a
schedule (an `optax.Schedule`), a number for every other. Its text is made of numbers and of names
that were checked, so that a file from a stranger's config holds nothing else.
"""

import io
import keyword
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from veldt.meta import errors
from veldt.meta.tune import config
from veldt.tasks.common.disk import atomic_files

FILE = "schedules.py"
ARRAYS_FILE = "tuned.npz"
_MOST_WRITTEN = 64  # numbers of a vector; longer ones are in the arrays alone

_INTERPOLATED = {
    "log": ("jnp.exp", "jnp.log"),
    "logit": ("jax.nn.sigmoid", "_log_odds"),
    "linear": ("", ""),
}


def check_names(settings: config.TuneConfig) -> None:
    """See that hyperparameters have names that Python can have.

    Raises:
      MetaTrainError: One has not.
    """
    for name in settings.tune:
        if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
            raise errors.MetaTrainError(f"tune.{name!r} is no name of an argument")


def write(
    settings: config.TuneConfig, numbers: Mapping[str, np.ndarray], run_dir: Path, remark: str
) -> None:
    """Write both files.

    Args:
      settings: Settings of the tuning.
      numbers: Numbers of each hyperparameter, at knots if it has any.
      run_dir: Folder of both files.
      remark: A line on where the numbers come from; plain text.
    """
    atomic_files.write_bytes(run_dir / FILE, source(settings, numbers, remark).encode())
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in numbers.items()}
    np.savez(content, **arrays)
    atomic_files.write_bytes(run_dir / ARRAYS_FILE, content.getvalue())


def source(settings: config.TuneConfig, numbers: Mapping[str, np.ndarray], remark: str) -> str:
    """Return the text of `schedules.py`."""
    clean = "".join(c for c in remark if c.isprintable()).replace("\\", "/").replace('"', "'")
    parts = [
        f'"""Found by veldt tune. {clean}\n\nSchedules are functions of the number of steps done, '
        'as Optax takes them.\n"""',
        "import jax\nimport jax.numpy as jnp",
        f"NUM_STEPS = {settings.num_steps}  # of the run that they were found for",
        _HELPERS.strip(),
    ]
    for name, spec in settings.tune.items():
        values = np.asarray(numbers[name], np.float64)
        if spec.knots:
            parts.append(_schedule(name, spec.scale, values))
        elif values.ndim == 0:
            parts.append(f"{name} = {values.item():.6g}")
        elif values.size <= _MOST_WRITTEN:
            parts.append(f"{name} = jnp.array({_list(values)})")
        else:
            parts.append(f"# {name}: {values.size} numbers, in {ARRAYS_FILE}")
    return "\n\n".join(parts) + "\n"


_HELPERS = """
def _log_odds(x):
    return jnp.log(x) - jnp.log1p(-x)


def _between(count, knots):
    place = jnp.clip(count / max(NUM_STEPS - 1, 1), 0, 1) * (len(knots) - 1)
    return jnp.interp(place, jnp.arange(len(knots)), knots)
"""


def _schedule(name: str, scale: str, values: np.ndarray) -> str:
    forward, inverse = _INTERPOLATED[scale]
    knots = f"jnp.array({_list(values)})"
    between = f"_between(count, {inverse}(knots))" if inverse else "_between(count, knots)"
    result = f"{forward}({between})" if forward else between
    return f"\ndef {name}(count):\n    knots = {knots}\n    return {result}\n"


def _list(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"
