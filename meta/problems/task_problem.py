"""Training tasks with a transform that meta-parameters define, as an inner problem."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, TypeVar, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.problems import inner_problem
from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.inner_loop import hollow, unroll

MakeTx: TypeAlias = Callable[[MetaParams, types.Scalar], optax.GradientTransformation]
"""`(meta_params, num_steps) -> transform`; `num_steps` is int32 [] and traced.

`LearnedOptimizer.as_optax` is one, and so is any program of its constants or schedule of its knots.
"""

FinalSplit: TypeAlias = Literal["train", "valid"]
"""What a final loss is of: fresh training batches, or held-out examples."""

_SourceT = TypeVar("_SourceT", base.Task, base.TaskFamily)


@final
class _OneTask(base.TaskFamily):
    """The same task in every run."""

    name = "task"

    def __init__(self, task: base.Task):
        self.the_task = task

    def sample(self, key: types.Key) -> types.TaskConfig:
        del key
        return ()

    def task(self, cfg: types.TaskConfig) -> base.Task:
        del cfg
        return self.the_task


@final
@dataclasses.dataclass(frozen=True)
class TaskProblem(inner_problem.InnerProblem):
    """Train tasks, each run for a length of its own; made by `of`.

    The loss of a step is that of its training batch before the update. The final loss is the mean
    over fresh training batches, as VeLO's meta-training has it, or that of held-out examples, at
    parameters moved by their last bits (`hollow.jitter`): a loss that only the arithmetic gives is
    not worth moving towards.

    Attributes:
      tasks: Where tasks come from; a task's or a family's arrays are leaves.
      make_tx: The transform of some meta-parameters, static: problems that share it, and the
        shapes of their task, share compiled programs.
      lengths: The least and the greatest T; log-uniform in between.
      num_final_batches: Number of training batches that the final loss is taken over.
      final_split: Examples that the final loss is of: "train", or "valid", the fixed held-out ones.
      normalize: Whether losses go through the task's normalizer, so that they compare between
        tasks and are finite.
      frozen: Parts of the meta-parameters that do not move, by their top-level names; the
        meta-parameters that this problem is given are the others.
    """

    tasks: base.TaskFamily
    make_tx: MakeTx = dataclasses.field(metadata=pytree.STATIC)
    lengths: tuple[int, int] = dataclasses.field(metadata=pytree.STATIC)
    num_final_batches: int = dataclasses.field(default=8, metadata=pytree.STATIC)
    normalize: bool = dataclasses.field(default=True, metadata=pytree.STATIC)
    frozen: Mapping[str, MetaParams] = dataclasses.field(default_factory=dict)
    final_split: FinalSplit = dataclasses.field(default="train", metadata=pytree.STATIC)

    @classmethod
    def of(
        cls,
        source: base.Task | base.TaskFamily,
        make_tx: MakeTx,
        *,
        lengths: tuple[int, int],
        num_final_batches: int = 8,
        normalize: bool = True,
        frozen: Mapping[str, MetaParams] | None = None,
        final_split: FinalSplit = "train",
    ) -> "TaskProblem":
        """Make the problem of training a task, or members of a family.

        Raises:
          ValueError: `lengths` are not 1 or more and in order, or there are no final batches.
        """
        low, high = lengths
        if not 1 <= low <= high:
            raise ValueError(f"lengths={lengths} must be (least, greatest), 1 <= least <= greatest")
        if num_final_batches < 1:
            raise ValueError(f"num_final_batches={num_final_batches} must be at least 1")
        if isinstance(source, base.Task):
            tasks: base.TaskFamily = _OneTask(_anonymous(source))
        else:
            tasks = _anonymous(source)
        kept = dict(frozen or {})
        return cls(tasks, make_tx, (low, high), num_final_batches, normalize, kept, final_split)

    def transform(
        self, meta_params: MetaParams, length: types.Scalar
    ) -> optax.GradientTransformation:
        """Return what a run of `length` steps is trained with."""
        if self.frozen:
            meta_params = {**self.frozen, **meta_params}
        return self.tasks.wrap(self.make_tx(meta_params, length))

    def draw_config(self, key: types.Key) -> inner_problem.Config:
        return self.tasks.sample(key)

    def instance(self, config: inner_problem.Config) -> base.Task:
        return self.tasks.task(config)

    def init(
        self, meta_params: MetaParams, instance: base.Task, key: types.Key, length: types.Scalar
    ) -> unroll.UnrollState:
        return unroll.init(instance, self.transform(meta_params, length), key)

    def step(
        self,
        meta_params: MetaParams,
        instance: base.Task,
        state: unroll.UnrollState,
        length: types.Scalar,
    ) -> tuple[unroll.UnrollState, types.Scalar]:
        # `unroll.unroll` draws the selections of all steps before its loop. With 16 or more
        # particles side by side drawing them inside is faster (42 against 71 ms for 50 steps of a
        # small MLP on CPU), and a window that holds two runs needs no second set.
        state, loss = unroll.step_fn(instance, self.transform(meta_params, length), state)
        return state, self._scaled(instance, loss)

    def final_loss(
        self,
        meta_params: MetaParams,
        instance: base.Task,
        state: unroll.UnrollState,
        key: types.Key,
    ) -> types.Scalar:
        del meta_params
        params = hollow.jitter(state.params)
        if self.final_split != "train":
            held_out = instance.eval_batch(self.final_split)
            return self._scaled(instance, instance.loss(params, key, held_out)[0])

        def batch_loss(key: types.Key) -> types.Scalar:
            key_batch, key_loss = jax.random.split(key)
            return instance.loss(params, key_loss, instance.train_batch(key_batch))[0]

        # One batch after another: side by side they would take the memory of as many steps.
        losses = jax.lax.map(batch_loss, jax.random.split(key, self.num_final_batches))
        return self._scaled(instance, jnp.mean(losses))

    def _scaled(self, task: base.Task, loss: types.Scalar) -> types.Scalar:
        return task.normalizer(loss) if self.normalize else loss


def _anonymous(source: _SourceT) -> _SourceT:
    """Return the source without its name, which is static: what is alike in all else compiles once.

    A family's members take its name.
    """
    twin = copy.copy(source)
    vars(twin)["name"] = "task"  # Straight into the dictionary: a dataclass may be frozen.
    return twin
