"""Weights of VeLO, Celo and Celo2 as their authors publish them, read as weights of veldt.

The authors' files are trees of arrays that Flax wrote as msgpack (`theta.state` of amoudgl/celo,
`params` of google/learned_optimization); an `.npz` of the same arrays, each under its path joined
by "/", is read too. Nothing in either can run.

    weights = published.load("theta.state", "velo")
    tx = weights.as_optax(num_steps=1000)
    weight_files.write("velo.npz", weights)  # for veldt.learned_optimizer and veldt evaluate

The forms that `load` knows:

| form | weights | architecture |
|---|---|---|
| `velo` | VeLO of 2022 (`aug12_...`), amoudgl/velo-4000 | `velo`, statistics="published" |
| `velo_old` | older ones of VeLO, without a config | also recurrence="held", loss_horizon=10.0 |
| `velo_small` | VeLO-S of amoudgl/celo | `velo_small`, statistics="published" |
| `celo` | amoudgl/celo | `celo` |
| `celo2` | amoudgl/celo2 | `celo2`, adam_paths=".*bias.*|.*embed.*" |
| `celo2_base` | amoudgl/celo2, `celo2-base` | `celo2_base` |

The names are Haiku's. A perceptron's first layer comes in one part for each block of features, in
the order of `features.VELO`; parts are joined by rows:

| published | ours |
|---|---|
| `ff_mod_stack/~/w0__0`, `w0__1`, ... | `mlp/w0` (VeLO: `bank/w0`) |
| `ff_mod_stack/~/b0`, `w1`, `b1`, ... | `mlp/b0`, `w1`, `b1`, ... |
| `rnn_params/linear` | `scheduler/unused` |
| `rnn_params/linear_1` | `scheduler/mix` |
| `rnn_params/linear_2` | `scheduler/input` |
| `rnn_params/rnn/linear` | `scheduler/lstm` |
| `rnn_params/rnn_to_controls` | `scheduler/controls` |
| `rnn_params/step_size` | `scheduler/step_size` |
| `lstm_init_state/hidden`, `cell` | `scheduler/start/hidden`, `cell` |

An axis of length 1 that ours lacks (Celo's bank, the rows of the LSTM's start) is dropped.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from veldt.learned_opt import base, errors, registry, weight_files
from veldt.learned_opt.architectures import celo, celo2, velo
from veldt.tasks.common.disk import npz

_PERCEPTRON: Final = "ff_mod_stack/~/"
_SCHEDULER: Final = {
    "rnn_params/linear/": "scheduler/unused/",
    "rnn_params/linear_1/": "scheduler/mix/",
    "rnn_params/linear_2/": "scheduler/input/",
    "rnn_params/rnn/linear/": "scheduler/lstm/",
    "rnn_params/rnn_to_controls/": "scheduler/controls/",
    "rnn_params/step_size/": "scheduler/step_size/",
    "lstm_init_state/": "scheduler/start/",
}
_PERCEPTRONS: Final[dict[type[base.LearnedOptimizer], str]] = {
    velo.Velo: "bank/",
    celo.Celo: "mlp/",
    celo2.Celo2: "mlp/",
}
_FIRST_LAYER: Final = re.compile(r"w0__(\d+)")
# What training writes beside the weights: `ParameterCheckpoint`, and a tuple before there was that.
_WRAPPERS: Final = ({"params", "gen_id", "step"}, {"0", "1", "2"})


_FORMS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "velo": ("velo", {"statistics": "published"}),
    "velo_old": (
        "velo",
        {"statistics": "published", "recurrence": "held", "loss_horizon": 10.0},
    ),
    "velo_small": ("velo_small", {"statistics": "published"}),
    "celo": ("celo", {}),
    "celo2": ("celo2", {"adam_paths": ".*bias.*|.*embed.*"}),
    "celo2_base": ("celo2_base", {}),
}


def load(path: str | Path, form: str) -> weight_files.Weights:
    """Return published weights as weights of veldt.

    Args:
      path: An `.npz`, or msgpack under any name.
      form: What the file holds: a name of the table of this module.

    Raises:
      UnknownArchitectureError: There is no such form.
      WeightsError: The file cannot be read, or does not fit: says which arrays.
    """
    if form not in _FORMS:
        raise errors.UnknownArchitectureError.of("form of published weights", form, _FORMS)
    name, fields = _FORMS[form]
    architecture = registry.architecture(name, **fields)
    record = {"published_as": form, "file": Path(path).name}
    return weight_files.Weights(name, architecture, read(path, architecture), record)


def read(path: str | Path, architecture: base.LearnedOptimizer) -> base.MetaParams:
    """Return published weights as meta-parameters of an architecture.

    Args:
      path: An `.npz`, or msgpack under any name.
      architecture: A `Velo`, `Celo` or `Celo2`, with the sizes and options that the weights want.

    Raises:
      WeightsError: The file cannot be read, or does not fit: says which arrays.
    """
    kind = type(architecture)
    if kind not in _PERCEPTRONS:
        known = ", ".join(k.__name__ for k in _PERCEPTRONS)
        raise errors.WeightsError.of(path, f"can be read for {known}, not for {kind.__name__}")
    content = weight_files.read_bytes(path)
    try:
        arrays = _read_npz(content) if content.startswith(b"PK") else _read_msgpack(content)
        ours, unknown = _translate(arrays, _PERCEPTRONS[kind])
    except Exception as error:  # Damage has many kinds.
        why = f"no .npz or msgpack of arrays, or damaged: {type(error).__name__}: {error}"
        raise errors.WeightsError.of(path, why) from None
    return _fit(path, ours, unknown, architecture)


def _read_npz(content: bytes) -> dict[str, np.ndarray]:
    return {name: _as_float(name, array) for name, array in npz.read(content).items()}


def _read_msgpack(content: bytes) -> dict[str, np.ndarray]:
    from flax import serialization  # Takes half a second, which other sources need not wait for.

    tree = serialization.msgpack_restore(content)
    if isinstance(tree, Mapping) and set(tree) in _WRAPPERS:
        tree = tree["params"] if "params" in tree else tree["0"]
    return dict(_flatten(tree, ""))


def _flatten(tree: Any, path: str) -> list[tuple[str, np.ndarray]]:
    """Return all arrays of nested mappings with their paths."""
    if isinstance(tree, Mapping):
        return [
            item
            for key, value in tree.items()
            for item in _flatten(value, f"{path}/{key}" if path else str(key))
        ]
    return [(path, _as_float(path, tree))]


def _as_float(path: str, leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind not in "fiuV" or not path:  # V: bfloat16
        raise ValueError(f"{path or 'it'} is {type(leaf).__name__}, no array of numbers")
    return array.astype(np.float32)


def _translate(
    arrays: Mapping[str, np.ndarray], perceptron: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return arrays by our paths, and the names that are in no table.

    Args:
      arrays: Arrays by published path.
      perceptron: Path of the perceptron, or of the bank of perceptrons, in veldt.
    """
    ours: dict[str, np.ndarray] = {}
    unknown: list[str] = []
    parts: dict[int, np.ndarray] = {}
    for name, array in arrays.items():
        own = name.removeprefix(_PERCEPTRON)
        prefix = next((known for known in _SCHEDULER if name.startswith(known)), None)
        if own != name and (number := _FIRST_LAYER.fullmatch(own)):
            parts[int(number.group(1))] = array
        elif own != name:
            ours[perceptron + own] = array
        elif prefix is not None:
            ours[_SCHEDULER[prefix] + name.removeprefix(prefix)] = array
        else:
            unknown.append(name)
    if parts:
        ours[perceptron + "w0"] = np.concatenate([parts[i] for i in sorted(parts)], axis=-2)
    return ours, unknown


def _fit(
    path: str | Path,
    ours: Mapping[str, np.ndarray],
    unknown: list[str],
    architecture: base.LearnedOptimizer,
) -> base.MetaParams:
    """Return the arrays as the architecture's meta-parameters; all must fit, none be left."""
    shapes = jax.eval_shape(lambda: architecture.init(jax.random.key(0)))
    paths, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    specs = {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in paths}
    missing = sorted(set(specs) - set(ours))
    unknown = sorted({*unknown, *(set(ours) - set(specs))})
    resized = {
        name: _without_ones(ours[name], spec.ndim) for name, spec in specs.items() if name in ours
    }
    misfits = [
        f"{name} {ours[name].shape} for {specs[name].shape}"
        for name, array in resized.items()
        if array.shape != specs[name].shape
    ]
    infinite = [name for name, array in resized.items() if not np.isfinite(array).all()]
    wrong = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("nothing in it maps to", missing),
            ("maps to nothing of the architecture", unknown),
            ("of another shape", misfits),
            ("not finite", infinite),
        )
        if names
    ]
    if wrong:
        raise errors.WeightsError.of(
            path, f"does not fit {type(architecture).__name__}; {'; '.join(wrong)}"
        )
    return jax.tree.unflatten(treedef, jax.device_put([resized[name] for name in specs]))


def _without_ones(array: np.ndarray, ndim: int) -> np.ndarray:
    """Drop leading axes of length 1 beyond `ndim`."""
    while array.ndim > ndim and array.shape[0] == 1:
        array = array[0]
    return array
