"""Objects to train: the abstract `Task`, the abstract `TaskFamily`, and the comparable scale.

A task is a model, its loss and its data, without an optimizer. The split into `Task` and
`TaskFamily` (`sample(key) -> cfg`, `task(cfg) -> Task`) follows google/learned_optimization;
unlike there, a task has exactly one loss.

**A task is a pytree.** JAX writes an array that a jitted function closes over into the program as a
constant: with Fashion-MNIST's 47 MB (uint8) that makes 94 MB of program text, three times the
compile time, and a second copy in memory. So every subclass of `Task` is registered as a pytree
when it is defined. The arrays among its attributes are leaves, everything else (a Flax module, a
number, a function) is static and must be hashable; attributes stay as `__init__` left them. A
`TaskFamily` is a pytree in the same way. Pass the task as an *argument*:

    run = jax.jit(lambda task, key: unroll.unroll(task, tx, unroll.init(task, tx, key), ...))
    run(task, key)

A task of one's own is thus a plain class (or dataclass) that needs no decorator of JAX's or Flax's,
with its arrays as attributes:

    class Line(veldt.Task):
        name = "line"

        def __init__(self):
            self.x = jnp.linspace(-1.0, 1.0, 300)

        def init(self, key):
            return {"slope": jnp.zeros(())}

        def loss(self, params, key, batch):
            return jnp.mean((params["slope"] * batch - 2.0 * batch) ** 2), {}

        def train_batch(self, key):
            return jax.random.choice(key, self.x[:200], (16,))

        def eval_batch(self, split):
            return {"train": self.x[:200], "valid": self.x[200:250], "test": self.x[250:]}[split]

        def normalizer(self, loss):
            return base.clip_normalized(loss / jnp.mean((2.0 * self.x) ** 2))
"""

import abc
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import optax

from veldt.tasks.common import array_tree, errors, types

MAX_NORMALIZED_LOSS = 1.5
"""Upper limit of every normalizer: half as bad again as knowing nothing; NaN counts as this."""


class Task(array_tree.ArrayTree, abc.ABC):
    """One training problem. Subclasses are final, and pytrees (see the module's docstring).

    Attributes:
      name: Name in tables and errors.
    """

    name: str

    @abc.abstractmethod
    def init(self, key: types.Key) -> types.Params:
        """Draw initial parameters, a pytree of float arrays. The key is consumed."""

    @abc.abstractmethod
    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the mean loss on a batch (float, shape []) and named extras.

        The key is consumed by whatever is random in the model; most models ignore it.
        """

    @abc.abstractmethod
    def train_batch(self, key: types.Key) -> types.Batch:
        """Draw a training minibatch, a pure function of the key, which is consumed."""

    @abc.abstractmethod
    def eval_batch(self, split: types.Split) -> types.Batch:
        """Return the one fixed evaluation batch of a split, the same in every run.

        "train" gives a fixed sample of the training data. The three share no rows.
        """

    @abc.abstractmethod
    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        """Map a loss to a scale on which tasks compare: 0 perfect, 1 knows nothing.

        Monotone, at most `MAX_NORMALIZED_LOSS`, and that for NaN or infinity; end with
        `clip_normalized`.
        """

    def sample(self, key: types.Key) -> types.Selection:
        """Draw the selection that names a training batch; by default the key itself.

        The inner loop calls `gather(sample(key))` and draws the selections of all its steps at
        once, outside the loop, where random numbers cost a fraction. A task with its data in
        arrays may define `sample` to return row indices and `gather` to fetch them. Define both or
        neither: `gather(sample(key))` must be `train_batch(key)`.
        """
        return key

    def gather(self, selection: types.Selection) -> types.Batch:
        """Return the training batch that a selection of `sample` names."""
        return self.train_batch(selection)


class TaskFamily(array_tree.ArrayTree, abc.ABC):
    """A distribution over tasks of one shape. Subclasses are final, and pytrees as tasks are.

    `jax.vmap(lambda cfg: ... family.task(cfg) ...)(cfgs)` trains many members at once. All members
    have one structure, so that they compile once; a data set that they share is an array of the
    family's, and not of the configuration, of which there is one per member.

    Attributes:
      name: Name in tables and errors.
    """

    name: str

    @abc.abstractmethod
    def sample(self, key: types.Key) -> types.TaskConfig:
        """Draw one member's configuration, a pytree of arrays. The key is consumed."""

    @abc.abstractmethod
    def task(self, cfg: types.TaskConfig) -> Task:
        """Make the member; `cfg` may be traced."""

    def wrap(self, tx: optax.GradientTransformation) -> optax.GradientTransformation:
        """Return the transform between a member's gradients and `tx`; by default `tx` itself.

        This is for changes of gradients that need a state, which a task does not have: a delay.
        """
        return tx


def clip_normalized(normalized: types.Scalar) -> types.Scalar:
    """Cut a normalized loss off at `MAX_NORMALIZED_LOSS`; NaN and infinities become that."""
    bounded = jnp.minimum(normalized, MAX_NORMALIZED_LOSS)
    return jnp.where(jnp.isfinite(normalized), bounded, MAX_NORMALIZED_LOSS)


def check_task(task: object) -> Task:
    """Return `task` if it keeps the contract of `Task`; only shapes are computed.

    Raises:
      TaskError: It is not a `Task`, cannot go through `jax.jit`, or a method returns a wrong type.
    """
    if not isinstance(task, Task):
        raise errors.TaskError(f"{task!r} is no veldt.Task (it is a {type(task).__name__}).")
    label = f"task {getattr(task, 'name', type(task).__name__)!r}"
    if not isinstance(getattr(task, "name", None), str):
        raise errors.TaskError(f"{label}: `name` must be a string attribute.")

    def scalars_of(task: Task, key: types.Key, params: types.Params) -> list[types.Scalar]:
        batches = [
            _call(label, task.train_batch, key),
            _call(label, task.gather, _call(label, task.sample, key)),
        ]
        batches += [_call(label, task.eval_batch, split) for split in get_args(types.Split)]
        losses = [_loss_of(label, task, params, key, batch) for batch in batches]
        return [*losses, _call(label, task.normalizer, losses[0])]

    key = jax.random.key(0)
    params = _trace(label, lambda task, key: _call(label, task.init, key), task, key)
    if not jax.tree.leaves(params):
        raise errors.TaskError(f"{label}: `init` returned no parameters.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            where = jax.tree_util.keystr(path)
            raise errors.TaskError(f"{label}: parameter {where} is {leaf.dtype}, not floating.")
    scalars = _trace(label, scalars_of, task, key, params)
    for scalar in scalars:
        if not hasattr(scalar, "shape"):
            raise errors.TaskError(
                f"{label}: `loss` and `normalizer` must return floats of shape [], not {scalar!r}."
            )
        if scalar.shape != () or not jnp.issubdtype(scalar.dtype, jnp.floating):
            raise errors.TaskError(
                f"{label}: `loss` and `normalizer` must return floats of shape [], "
                f"not {scalar.dtype}{list(scalar.shape)}."
            )
    return task


def _call(label: str, method: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a method of a user's task; an error that it raises names the method."""
    try:
        return method(*args)
    except (errors.TaskError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise errors.TaskError(
            f"{label}: `{method.__name__}` cannot be traced by JAX: {type(error).__name__}: {error}"
        ) from error


def _loss_of(
    label: str, task: Task, params: types.Params, key: types.Key, batch: types.Batch
) -> types.Scalar:
    found = _call(label, task.loss, params, key, batch)
    if not (isinstance(found, tuple) and len(found) == 2):
        raise errors.TaskError(
            f"{label}: `loss` must return the pair (loss, aux), such as `loss, {{}}`; it returned "
            f"{type(found).__name__}."
        )
    return found[0]


def _trace(label: str, function: Callable[..., Any], *args: Any) -> Any:
    """Return the shapes that a user's code makes of `args`; its errors name the task."""
    try:
        return jax.eval_shape(function, *args)
    except (errors.TaskError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise errors.TaskError(
            f"{label} cannot be traced by JAX: {type(error).__name__}: {error}"
        ) from error
