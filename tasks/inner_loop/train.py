"""Training of one task with one transform, for its curve: `veldt.train`."""

import dataclasses
import functools
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.tasks import base
from veldt.tasks.common import errors, types
from veldt.tasks.inner_loop import hollow, unroll


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The curve of a training run.

    Attributes:
      steps: Number of steps done at each validation, int [E]: 0, every `eval_every`, the last.
      valid_losses: Losses on the validation batch at those steps, float [E].
      train_losses: Losses on each step's training batch before the update, float [T].
      params: Parameters after the last step.
      hollow: Reason why the last loss comes from the arithmetic and not from training
        (`inner_loop.hollow`); empty if the run is honest, or not finite.
    """

    steps: np.ndarray
    valid_losses: np.ndarray
    train_losses: np.ndarray
    params: types.Params
    hollow: str = ""

    @property
    def final_valid_loss(self) -> float:
        """Loss on the validation batch after the last step; NaN if training diverged."""
        return float(self.valid_losses[-1])


def train(
    task: base.Task,
    tx: optax.GradientTransformation,
    num_steps: int = 500,
    seed: int = 0,
    *,
    eval_every: int | None = None,
) -> Curve:
    """Train a task with an Optax transform.

    Training again with the same task, transform and number of steps does not compile again.

    Args:
      task: Task that is trained.
      tx: Transform, with its learning rate.
      num_steps: Length T of the run.
      seed: Seed of all randomness of the run: start, batches and loss.
      eval_every: Steps between validations; by default only before the first step and at the end.

    Raises:
      TaskError: The task is not a task, or breaks the contract of `Task`.
      ValueError: `num_steps` or `eval_every` is below 1.
    """
    base.check_task(task)
    if not isinstance(tx, optax.GradientTransformation):
        raise errors.TaskError(f"tx must be an Optax transform, not a {type(tx).__name__}.")
    eval_every = num_steps if eval_every is None else eval_every
    if num_steps < 1 or eval_every < 1:
        raise ValueError(f"num_steps={num_steps} and eval_every={eval_every} must be at least 1.")
    state = _init(task, tx, jax.random.key(seed))
    start_size = hollow.size(state.params)
    steps, train_losses, valid_losses = [0], [], [_validate(task, state)]
    while steps[-1] < num_steps:
        length = min(eval_every, num_steps - steps[-1])
        state, losses = _advance(task, tx, state, length)
        steps.append(steps[-1] + length)
        train_losses.append(losses)
        valid_losses.append(_validate(task, state))
    train_loss = jnp.concatenate(train_losses)
    why = ""
    if np.isfinite(valid_losses[-1]):
        loss, again, lowest = _recheck(task, state, valid_losses[-1], train_loss)
        code = hollow.judge(loss, again.before, again.after, start_size, again.size, lowest=lowest)
        why = hollow.REASONS[int(code)]
    return Curve(
        steps=np.asarray(steps),
        valid_losses=np.asarray(valid_losses),
        train_losses=np.asarray(train_loss),
        params=state.params,
        hollow=why,
    )


# The task is an argument, so that its arrays are no constants of the program; the transform, made
# of functions, is static, so that a second seed finds the compiled loop.


@functools.partial(jax.jit, static_argnames="tx")
def _init(task: base.Task, tx: optax.GradientTransformation, key: types.Key) -> unroll.UnrollState:
    return unroll.init(task, tx, key)


@functools.partial(jax.jit, static_argnames=("tx", "num_steps"))
def _advance(
    task: base.Task, tx: optax.GradientTransformation, state: unroll.UnrollState, num_steps: int
) -> tuple[unroll.UnrollState, jax.Array]:
    return unroll.unroll(task, tx, state, num_steps=num_steps)


@jax.jit
def _validate(task: base.Task, state: unroll.UnrollState) -> types.Scalar:
    return unroll.evaluate(task, state.params, state.key, "valid")


@jax.jit
def _recheck(
    task: base.Task, state: unroll.UnrollState, loss: types.Scalar, train_losses: jax.Array
) -> tuple[types.Scalar, hollow.Recheck, types.Scalar]:
    again = hollow.recheck(task, state.params, state.key, state.step)
    return task.normalizer(loss), again, hollow.lowest_above_floor(task, train_losses)
