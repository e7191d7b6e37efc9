"""What metagradients go through: the abstract `Training`, and training a task.

A training is three pure functions. Nothing in it may depend on anything but its arguments and its
own arrays: batches, dropout and augmentation are functions of a key and the step's index, as in
`inner_loop.unroll`. Then any state can be computed again from an earlier one, bit for bit.

Meta-parameters may enter anywhere: the start, the transform, the task's loss or data, the outcome.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, final

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import sharded
from veldt.meta.replay import states
from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.inner_loop import hollow, unroll

# Shapes: S seeds.

Make: TypeAlias = Callable[..., tuple[base.Task, optax.GradientTransformation]]
"""`make(meta_params) -> (task, transform)`, or `make(meta_params, data)` where data are given."""


class Training(pytree.Pytree, abc.ABC):
    """A run of `num_steps` steps with an outcome. Subclasses are final, frozen dataclasses.

    Its fields are arguments of compiled programs (see `veldt.meta.pytree`): `num_steps` should be
    one of them, not static, so that runs of all lengths share programs.
    """

    num_steps: Any

    @abc.abstractmethod
    def init(self, meta_params: MetaParams) -> states.State:
        """Return state 0, a pytree of arrays."""

    @abc.abstractmethod
    def step(
        self, meta_params: MetaParams, state: states.State, index: types.Scalar
    ) -> states.State:
        """Return state `index + 1` from state `index`, of the same shapes and types.

        Args:
          meta_params: Meta-parameters that the gradient is taken by.
          state: Before the step.
          index: int32 [], traced; everything random follows from it.
        """

    @abc.abstractmethod
    def outcome(self, meta_params: MetaParams, state: states.State) -> types.Scalar:
        """Return what the last state is worth, float []; less is better."""

    def params(self, state: states.State) -> types.Params:
        """Return what is trained, of which metasmoothness is measured; by default the state."""
        return state

    def place(self, tree: Any, axis: int = 0) -> Any:
        """Hold leaves of states to their devices; by default nothing is said of them.

        Args:
          tree: Leaves as a state's, with `axis` further axes before; traced.
          axis: Where a state's own axes begin.
        """
        del axis
        return tree


@final
@dataclasses.dataclass(frozen=True)
class LastWindow:
    """The outcome that is the mean training loss of the last steps, each before its update.

    Attributes:
      num_steps: How many; at most all.
    """

    num_steps: int


Objective: TypeAlias = (
    Literal["valid"] | LastWindow | Callable[[base.Task, types.Params, types.Key], types.Scalar]
)
"""What a trained task is worth: the loss on the validation split, that of the last steps, or any
function of (task, params, the run's key) that returns a float []."""


@flax.struct.dataclass
class TaskState:
    """A task between two steps, on S seeds.

    Attributes:
      params: Leaves [S, ...].
      opt_state: Leaves [S, ...].
      window_loss: The share of the outcome so far, float [S]; None unless that is `LastWindow`.
    """

    params: types.Params
    opt_state: types.OptState
    window_loss: jax.Array | None


@final
@dataclasses.dataclass(frozen=True)
class TaskTraining(Training):
    """Train a task with a transform, on one or several seeds side by side; made by `of`.

    The outcome is the mean over seeds: what one order of the data makes rough is smoother in the
    mean of several.

    Attributes:
      make: Function from meta-parameters to task and transform, static.
      num_steps: Number of steps of the run, T.
      keys: Key of each run, of all that is random in it, keys [S].
      objective: What a run is worth, static.
      data: A pytree of arrays that `make` is given after the meta-parameters, if any: what it
        closes over becomes a constant of the compiled programs, and these do not. A task is one.
      mesh: The devices that the seeds are spread over, by `spread`, static; None for one.
    """

    make: Make = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int
    keys: types.Key
    objective: Objective = dataclasses.field(default="valid", metadata=pytree.STATIC)
    data: Any = None
    mesh: Mesh | None = dataclasses.field(default=None, metadata=pytree.STATIC)

    @classmethod
    def of(
        cls,
        make: Make,
        num_steps: int,
        *,
        seeds: int | Sequence[int] = 0,
        objective: Objective = "valid",
        data: Any = None,
    ) -> "TaskTraining":
        """Make a training.

        Args:
          make: Function from meta-parameters to task and transform.
          num_steps: Number of steps of the run, T.
          seeds: One, or several that are averaged over.
          objective: What a run is worth.
          data: What `make` is given after the meta-parameters, if anything.

        Raises:
          ValueError: There are no steps or no seeds, or the last window is longer than the run.
        """
        seeds = [seeds] if isinstance(seeds, int) else list(seeds)
        if num_steps < 1 or not seeds:
            raise ValueError(f"num_steps={num_steps} and the number of seeds must be at least 1")
        if isinstance(objective, LastWindow) and not 1 <= objective.num_steps <= num_steps:
            raise ValueError(f"{objective} must have from 1 to {num_steps} steps, the run's length")
        if isinstance(objective, str) and objective != "valid":
            raise ValueError(f'objective={objective!r} must be "valid", LastWindow or a function')
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        return cls(make, num_steps, keys, objective, data)

    def spread(self) -> "TaskTraining":
        """Return the same runs on as many of this process's devices as divide them evenly.

        Each device has its seeds' states, and its share of what a plan stores. The numbers are the
        same but for the last bits of means over seeds.
        """
        mesh = sharded.make_mesh(self.keys.shape[0])
        if mesh.size == 1:
            return self
        keys = jax.device_put(self.keys, _seeds(mesh))
        data = jax.device_put(self.data, NamedSharding(mesh, PartitionSpec()))
        return dataclasses.replace(self, keys=keys, data=data, mesh=mesh)

    def place(self, tree: Any, axis: int = 0) -> Any:
        if self.mesh is None:
            return tree
        # Without it, what starts as zeros would lie whole on each device.
        return jax.lax.with_sharding_constraint(tree, _seeds(self.mesh, axis))

    def init(self, meta_params: MetaParams) -> TaskState:
        task, tx = self._made(meta_params)

        def one(key: types.Key) -> TaskState:
            state = unroll.init(task, tx, key)
            window = isinstance(self.objective, LastWindow)
            return TaskState(state.params, state.opt_state, jnp.zeros(()) if window else None)

        return self.place(jax.vmap(one)(self.keys))

    def step(self, meta_params: MetaParams, state: TaskState, index: types.Scalar) -> TaskState:
        task, tx = self._made(meta_params)

        def one(state: TaskState, key: types.Key) -> TaskState:
            before = unroll.UnrollState(index, state.params, state.opt_state, key)
            after, loss = unroll.step_fn(task, tx, before)
            window_loss = state.window_loss
            if isinstance(self.objective, LastWindow) and window_loss is not None:
                length = self.objective.num_steps
                share = jnp.where(index >= self.num_steps - length, loss / length, 0.0)
                window_loss = window_loss + share.astype(window_loss.dtype)
            return TaskState(after.params, after.opt_state, window_loss)

        return self.place(jax.vmap(one)(state, self.keys))

    def outcome(self, meta_params: MetaParams, state: TaskState) -> types.Scalar:
        if state.window_loss is not None:
            return jnp.mean(state.window_loss)
        task, _ = self._made(meta_params)

        def one(params: types.Params, key: types.Key) -> types.Scalar:
            if callable(self.objective):
                return self.objective(task, params, key)
            return unroll.evaluate(task, params, key, "valid")

        return jnp.mean(jax.vmap(one)(state.params, self.keys))

    def params(self, state: TaskState) -> types.Params:
        return state.params

    def ends(self, meta_params: MetaParams, first: TaskState, last: TaskState) -> jax.Array:
        """Return what `hollow.judge` needs of each run, float32 [S, 5].

        That is its normalised validation loss, that of a batch before and after jitter, and the
        norm of the parameters at the start and at the end.
        """
        task, _ = self._made(meta_params)

        def one(start: types.Params, end: types.Params, key: types.Key) -> jax.Array:
            loss = task.normalizer(unroll.evaluate(task, end, key, "valid"))
            again = hollow.recheck(task, end, key, jnp.asarray(self.num_steps, jnp.int32))
            numbers = (loss, again.before, again.after, hollow.size(start), again.size)
            return jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers])

        return jax.vmap(one)(first.params, last.params, self.keys)

    def _made(self, meta_params: MetaParams) -> tuple[base.Task, optax.GradientTransformation]:
        return self.make(meta_params) if self.data is None else self.make(meta_params, self.data)


def _seeds(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Return the sharding of leaves whose `axis` is that of seeds."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, mesh.axis_names[0]))
