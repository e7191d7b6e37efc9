"""`veldt.task`: a task from a model, a loss and arrays."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks import base
from veldt.tasks.common import errors, types
from veldt.tasks.data import dataset
from veldt.tasks.own_task import model_kinds, named_losses
from veldt.tasks.shipped import supervised

Pair: TypeAlias = tuple[Any, Any]
"""Inputs and targets, arrays with a row for each example."""

MIN_ROWS: Final = 10
_FEW: Final = 4  # Rows with which the model is tried.
_NO_STATE: Final = (
    "A task has one loss for training and evaluation, so the model has to be a function of its "
    "parameters and inputs alone"
)


def task(
    model: Any,
    loss: str | named_losses.Loss,
    data: Pair | Any | Mapping[types.Split, Pair],
    *,
    name: str | None = None,
    batch_size: int = 64,
    eval_size: int = 1024,
    reference_loss: float | None = None,
    seed: int = 0,
) -> base.Task:
    """Make a task of a model, a loss and arrays.

        x, y = sklearn.datasets.load_digits(return_X_y=True)
        task = veldt.task(lambda rngs: MyModel(rngs), "cross_entropy", (x / 16, y))

    The rows are shuffled and split into 60% for training, 20% for validation and 20% for test;
    training batches are drawn with replacement.

    Args:
      model: Model: a function of `rngs` that makes a flax.nnx module, a function of `key` that
        makes an equinox module, a linen module, or a pair of functions, `init(key) -> params` and
        `apply(params, inputs) -> outputs`. An *instance* of nnx or equinox will do too: all runs
        then start from its own parameters, and differ in their batches alone. Equinox modules take
        one example, all others a batch.
      loss: Name of a loss, "cross_entropy" (class numbers against an output for each class) or
        "mse", or a function of outputs and targets that returns a number, or one for each example.
      data: Inputs and targets, two arrays with a row for each example; one array, which is then
        both; or pairs by the names "train", "valid" and "test", if the rows are split already.
      name: Name in tables and errors; None takes the model's.
      batch_size: Number of rows of a training batch.
      eval_size: Largest number of rows in an evaluation.
      reference_loss: Loss of a predictor that knows nothing, which scales the losses of tasks so
        that they compare. None takes the best constant prediction for a named loss, and for a
        function the loss of the model at its start.
      seed: Seed of the split.

    Raises:
      TaskError: Model, loss and data do not fit together; the message says how.
    """
    wrapped = model_kinds.of(model)
    named = named_losses.find(loss) if isinstance(loss, str) else None
    if named is None and not callable(loss):
        raise errors.TaskError(
            f"the loss is {type(loss).__name__}, not a name "
            f"({', '.join(named_losses.LOSSES)}) or a function of outputs and targets"
        )
    criterion = named.function if named is not None else named_losses.MeanLoss(loss)  # type: ignore[arg-type]
    splits = _splits(data, seed)
    if batch_size < 1 or eval_size < 1:
        raise errors.TaskError(
            f"batch_size is {batch_size} and eval_size {eval_size}; both must be at least 1"
        )
    few = jax.tree.map(lambda rows: rows[:_FEW], splits["train"])
    params = _params(wrapped, few.inputs)
    outputs = _outputs(wrapped, params, few.inputs)
    if named is not None:
        for part in splits.values():
            shape = (len(part.targets), *getattr(outputs, "shape", ())[1:])
            named.check(jax.ShapeDtypeStruct(shape, np.float32), np.asarray(part.targets))
    else:
        _check_function(criterion, outputs, few.targets)
    on_device = supervised.on_device(splits)
    if reference_loss is None and named is not None:
        reference_loss = named.reference(np.asarray(splits["train"].targets))
    if reference_loss is None:
        valid = jax.tree.map(lambda rows: rows[:eval_size], on_device["valid"])
        reference_loss = float(criterion(wrapped.apply(params, valid.inputs), valid.targets))
    if not (np.isfinite(reference_loss) and reference_loss > 0):
        raise errors.TaskError(
            f"the loss of a predictor that knows nothing is {reference_loss:.4g}; it must be above "
            "0 for losses to be scaled by it. Give reference_loss"
        )
    made = supervised.SupervisedTask(
        name=model_kinds.name_of(model) if name is None else name,
        module=wrapped,
        criterion=criterion,
        splits=on_device,
        batch_size=batch_size,
        eval_size=eval_size,
        reference_loss=jnp.asarray(reference_loss, jnp.float32),
    )
    return base.check_task(made)


def _splits(data: Any, seed: int) -> dataset.Splits:
    """Return the three parts as NumPy arrays."""
    if isinstance(data, Mapping):
        wanted = get_args(types.Split)
        if set(data) != set(wanted):
            raise errors.TaskError(
                f"data that are split already are a mapping with the keys {', '.join(wanted)}, "
                f"not {', '.join(map(str, data)) or 'none'}"
            )
        return {split: _examples(data[split], f"data[{split!r}]", 1) for split in wanted}
    return dataset.split_rows(_examples(data, "data", MIN_ROWS), seed=seed)


def _examples(given: Any, label: str, min_rows: int) -> dataset.Examples:
    if isinstance(given, tuple | list):
        if len(given) != 2:
            raise errors.TaskError(
                f"{label} has {len(given)} parts; give inputs and targets, (x, y), or one array"
            )
        pair = _array(given[0], f"{label}: x"), _array(given[1], f"{label}: y")
    else:
        pair = (_array(given, label),) * 2
    examples = dataset.Examples(*pair)
    num_rows = len(examples.inputs)
    if len(examples.targets) != num_rows:
        raise errors.TaskError(
            f"{label}: x has {num_rows} rows and y {len(examples.targets)}; each needs one for "
            "each example"
        )
    if num_rows < min_rows:
        raise errors.TaskError(f"{label} has {num_rows} rows; at least {min_rows} are needed")
    return examples


def _array(given: Any, label: str) -> np.ndarray:
    """Return an array as JAX will have it: numbers of 32 bits, all finite."""
    try:
        array = np.asarray(given)
    except ValueError as error:  # Rows of different lengths.
        raise errors.TaskError(f"{label} cannot be made an array: {error}") from None
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise errors.TaskError(
            f"{label} is {array.dtype} of shape {list(array.shape)}; an array of numbers with a "
            "row for each example is needed"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise errors.TaskError(f"{label} holds NaN or infinity; fill or leave out such rows")
    if array.dtype.kind == "b":
        return array.astype(np.int32)
    narrow = {"f": np.float32, "i": np.int32, "u": np.uint32}[array.dtype.kind]
    return array.astype(narrow) if array.dtype.itemsize > 4 else array


def _params(model: Any, inputs: dataset.Array) -> types.Params:
    """Return parameters at the start."""
    try:
        params = model.init(jax.random.key(0), inputs)
    except Exception as error:
        raise errors.TaskError(
            f"the model's parameters cannot be drawn: {type(error).__name__}: {error}"
        ) from error
    if isinstance(params, Mapping) and isinstance(model, nn.Module):
        others = sorted(set(params) - {"params"})
        if others:
            raise errors.TaskError(
                f"the linen module has variables of kind {', '.join(others)}, such as those of "
                f"batch norm. {_NO_STATE}: use LayerNorm or GroupNorm, or subclass veldt.Task"
            )
    return params


def _outputs(model: Any, params: types.Params, inputs: dataset.Array) -> Any:
    """Return the shapes of the outputs for a few examples.

    Raises:
      TaskError: The model cannot be called, or changes state that is not its parameters.
    """
    try:
        if isinstance(model, model_kinds.NnxModel) and model.changed(params, inputs):
            raise errors.TaskError(
                "the nnx module changes its state when it is called, as dropout and batch norm do "
                f"in training. {_NO_STATE}: call model.eval() before (in the function that makes "
                "it), which turns both off, use LayerNorm, or subclass veldt.Task"
            )
        return jax.eval_shape(lambda params, inputs: model.apply(params, inputs), params, inputs)
    except errors.TaskError:
        raise
    except Exception as error:
        one = " (an equinox module gets one example)"
        said = f"{type(error).__name__}: {error}".rstrip(".")
        is_random = any(word in said.lower() for word in ("rng", "key", "dropout", "state"))
        raise errors.TaskError(
            f"the model cannot be called with inputs of shape {list(inputs.shape)}"
            f"{one if isinstance(model, model_kinds.EquinoxModel) else ''}: "
            f"{said}{f'. {_NO_STATE}: turn dropout off' if is_random else ''}"
        ) from error


def _check_function(criterion: named_losses.Loss, outputs: Any, targets: dataset.Array) -> None:
    """Check a user's loss on a few examples; only shapes are computed.

    Raises:
      TaskError: It fails, or returns neither a number nor one for each example.
    """
    assert isinstance(criterion, named_losses.MeanLoss)
    try:
        found = jax.eval_shape(criterion.function, outputs, targets)
    except Exception as error:
        raise errors.TaskError(
            "the loss cannot be called with outputs of "
            f"{jax.tree.map(lambda leaf: list(leaf.shape), outputs)} and targets of "
            f"{list(targets.shape)}: {type(error).__name__}: {error}"
        ) from error
    shape = getattr(found, "shape", None)
    if shape not in ((), (len(targets),)) or not jnp.issubdtype(found.dtype, jnp.floating):
        what = type(found).__name__ if shape is None else f"{found.dtype}{list(shape)}"
        raise errors.TaskError(
            "the loss must return a float, or one for each example; for "
            f"{len(targets)} examples it returns {what}"
        )
