"""What a tuning found, as a Python file to read and to import, and as arrays.

`schedules.py` needs nothing but JAX: a function of the step for every hyperparameter that has a
schedule (an `optax.Schedule`), a number for every other; where each part of the model has its own,
a vector in the order of `PARTS`. `optimizer()` makes of all this the transform, by Optax, where the
optimizer is one of `training/optimizers.py`. Its text is made of numbers, of names that were
checked and of quoted strings, so that a file from a stranger's config holds nothing else.
"""

import io
import keyword
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veldt.meta import errors
from veldt.meta.tune import config
from veldt.meta.tune.training import hyperparameters, optimizers
from veldt.meta.tune.training.parts import Parts, part_of
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
    settings: config.TuneConfig,
    numbers: Mapping[str, np.ndarray],
    run_dir: Path,
    remark: str,
    model: Parts | None = None,
) -> None:
    """Write both files.

    Args:
      settings: Settings of the tuning.
      numbers: Numbers of each hyperparameter, at knots if it has any.
      run_dir: Folder of both files.
      remark: A line on where the numbers come from; plain text.
      model: Parts of the model, where a hyperparameter has a value for each.
    """
    text = source(settings, numbers, remark, model)
    atomic_files.write_bytes(run_dir / FILE, text.encode())
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in numbers.items()}
    np.savez(content, **arrays)
    atomic_files.write_bytes(run_dir / ARRAYS_FILE, content.getvalue())


def source(
    settings: config.TuneConfig,
    numbers: Mapping[str, np.ndarray],
    remark: str,
    model: Parts | None = None,
) -> str:
    """Return the text of `schedules.py`; see `write`."""
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
        elif values.size <= _MOST_WRITTEN or spec.by != "all":
            parts.append(f"{name} = jnp.array({_list(values)})")
        else:
            parts.append(f"# {name}: {values.size} numbers, in {ARRAYS_FILE}")
    if model is not None and model.by:
        names = {name: model.names(name) for name, _ in model.by}
        lines = [f"    {name!r}: {_tuple(of)}," for name, of in names.items()]
        parts.append("\n".join(["PARTS = {  # what has a value of its own", *lines, "}"]))
    if _is_whole(settings):
        parts.append(_optimizer(settings, model))
    return "\n\n".join(parts) + "\n"


_HELPERS = """
def _log_odds(x):
    return jnp.log(x) - jnp.log1p(-x)


def _between(count, knots):
    place = jnp.clip(count / max(NUM_STEPS - 1, 1), 0, 1) * (knots.shape[-1] - 1)
    left = jnp.clip(jnp.floor(place).astype(int), 0, knots.shape[-1] - 2)
    return knots[..., left] + (place - left) * (knots[..., left + 1] - knots[..., left])
"""


def _schedule(name: str, scale: str, values: np.ndarray) -> str:
    forward, inverse = _INTERPOLATED[scale]
    knots = f"jnp.array({_list(values)})"
    between = f"_between(count, {inverse}(knots))" if inverse else "_between(count, knots)"
    result = f"{forward}({between})" if forward else between
    return f"\ndef {name}(count):\n    knots = {knots}\n    return {result}\n"


def _is_whole(settings: config.TuneConfig) -> bool:
    """Return whether Optax's optimizer of the same name, with what was learned, is all of it."""
    ours = not any(
        name in hyperparameters.TASK_NAMES or name.startswith(hyperparameters.GROUP_PREFIX)
        for name in settings.tune
    )
    return ours and settings.optimizer in optimizers.FACTORIES


def _optimizer(settings: config.TuneConfig, model: Parts | None) -> str:
    """Return the function that makes the optimizer with all that was learned."""
    own = {name for name, spec in settings.tune.items() if spec.by != "all"}
    given = {name: name for name in settings.tune if name not in own}
    # Optax's Lion has a sign, where the one that is differentiated has a width.
    given |= {k: f"{v:.6g}" for k, v in settings.fixed.items() if k != "width"}
    # The one that is not Optax's default.
    if settings.optimizer == "sgd" and "momentum" not in {*given, *own}:
        given["momentum"] = "0.9"
    arguments = "".join(f", {key}={value}" for key, value in given.items())
    head = '\ndef optimizer():\n    """Return the optimizer with all that was learned."""\n'
    head += "    import optax\n\n"
    make = f"optax.inject_hyperparams(optax.{settings.optimizer})"
    if model is None or not own:
        return f"{head}    return {make}({arguments.removeprefix(', ')})\n"
    groups = dict(model.groups)
    rows = {
        place: tuple(model.names(name).index(part_of(by, place, groups)) for name, by in model.by)
        for place in model.tensors
    }
    of_tensor = "".join(f"        {place!r}: {_tuple(of)},\n" for place, of in rows.items())
    by_part = "".join(
        f", {name}=" + (f"_row({name}, rows[{i}])" if settings.tune[name].knots
                        else f"{name}[rows[{i}]]")
        for i, (name, _) in enumerate(model.by)
    )  # fmt: skip
    return (
        "\ndef _row(schedule, row):\n    return lambda count: schedule(count)[row]\n\n"
        f"{head}    rows_of = {{  # of each tensor, by its place in the tree of parameters: its "
        f"rows of {', '.join(name for name, _ in model.by)}\n{of_tensor}    }}\n\n"
        "    def of(rows):\n"
        f"        return {make}({(arguments + by_part).removeprefix(', ')})\n\n"
        "    def labels(params):\n"
        "        def label(path, _):\n"
        '            place = jax.tree_util.keystr(path, simple=True, separator="/")\n'
        "            return str(rows_of[place])\n\n"
        "        return jax.tree_util.tree_map_with_path(label, params)\n\n"
        "    return optax.partition({str(rows): of(rows) for rows in rows_of.values()}, labels)\n"
    )


def _list(values: np.ndarray) -> str:
    if values.ndim > 1:
        return "[" + ", ".join(_list(row) for row in values) + "]"
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _tuple(values: Sequence[Any]) -> str:
    return repr(tuple(values))
