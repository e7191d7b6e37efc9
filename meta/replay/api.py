"""`metagradient`: the gradient of what a training ends in, with trust, plan and cost.

def make(meta_params, task):
    rate = optax.linear_schedule(jnp.exp(meta_params["start"]), jnp.exp(meta_params["end"]), 500)
    return task, optax.sgd(rate, momentum=0.9)

training = TaskTraining.of(make, num_steps=500, seeds=range(8), data=task)
found = metagradient(training, {"start": -2.0, "end": -6.0}, key=jax.random.key(0))
found.gradient, found.verdict.message
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.learned_opt.base import MetaParams
from veldt.meta import errors
from veldt.meta.replay import backward, fallback, plans, programs, resume, storage, trust
from veldt.meta.replay.task_training import Training
from veldt.tasks.common import types

Check: TypeAlias = Literal["fast", "full", "none"]
OnFailure: TypeAlias = Literal["auto", "keep", "raise"]
Method: TypeAlias = Literal["replay", "full ES"]

NUM_DIRECTIONS: Final[Mapping[Check, int]] = {"fast": 1, "full": 4, "none": 0}
"""Directions of a check."""

NUM_CHECK_RUNS: Final[Mapping[str, int]] = {"fast": 5, "full": 17, "none": 0}
"""Forward runs of a check."""


@final
@dataclasses.dataclass(frozen=True)
class Metagradient:
    """A gradient by the meta-parameters.

    Attributes:
      outcome: The outcome of the training.
      gradient: Gradient of the outcome, shaped as the meta-parameters.
      verdict: Trust in the gradient by replay, also where an estimate replaced it.
      plan: Plan by which the training was walked backwards.
      cost: Cost of the gradient; None where it was read from a directory.
      method: "replay", or "full ES" where the check failed and an estimate replaced the gradient.
    """

    outcome: float
    gradient: MetaParams
    verdict: trust.Trust
    plan: plans.Plan
    cost: backward.Cost | None
    method: Method = "replay"


@final
@dataclasses.dataclass(frozen=True)
class Replayed:
    """A gradient by the meta-parameters that nothing has examined.

    Attributes:
      outcome: The outcome of the training, float [].
      gradient: Gradient of the outcome, shaped as the meta-parameters.
      plan: Plan by which the training was walked backwards.
      cost: Cost of the gradient; None where it was read from a directory.
    """

    outcome: types.Scalar
    gradient: MetaParams
    plan: plans.Plan
    cost: backward.Cost | None


def metagradient(
    training: Training,
    meta_params: MetaParams,
    *,
    key: types.Key,
    plan: plans.Plan | Literal["auto"] = "auto",
    memory_bytes: int | None = None,
    directory: Path | str | None = None,
    store: storage.Storage | None = None,
    check: Check = "fast",
    on_failure: OnFailure = "auto",
    save_every_s: float = 10.0,
) -> Metagradient:
    """Return the gradient of a training's outcome by its meta-parameters.

    Args:
      training: Training that is run.
      meta_params: A pytree of floats or float arrays.
      key: Key of the directions of the check, and of the estimate that may replace a gradient that
        fails the check; it is consumed. The gradient itself does not depend on it.
      plan: Plan of the walk backwards, from `veldt.meta.replay.plans` (`store_all`, `square_root`,
        `binomial`, `kary`); "auto": the best within `memory_bytes`.
      memory_bytes: Memory for states (`plans.choose`). None: about two square roots of T states.
      directory: Folder for states and progress, so that the same call resumes after a crash, to the
        same bits. A call that has come to its end is answered from the folder.
      store: Storage of states without a directory, from `veldt.meta.replay.storage` (device, host,
        or tiers of both and disk); None for the memory of the device.
      check: "fast": differences along the gradient, 5 more forward runs; "full": along three
        more directions, half random, 17 runs; "none": only whether the gradient is finite.
      on_failure: What to do where the check fails. "auto": an estimate by evolution strategies
        takes the gradient's place, where it is not finite or of at most
        `fallback.MOST_NUMBERS` numbers; "keep": it is returned as it is; "raise": `ReplayError`.
      save_every_s: The least time between two records of progress in the directory.

    Raises:
      ReplayError: A replay is not what was run first, the directory is another's, or the check
        failed and `on_failure` is "raise".
      ValueError: A setting is out of range, or meta-parameters are not floats.
    """
    _check_choices(check, on_failure)
    meta_params = _inexact(meta_params)
    key_check, key_estimate = jax.random.split(key)
    found = replay(
        training,
        meta_params,
        plan=plan,
        memory_bytes=memory_bytes,
        directory=directory,
        store=store,
        save_every_s=save_every_s,
    )
    trusted = trust.examine(
        training,
        meta_params,
        found.outcome,
        found.gradient,
        key_check,
        num_directions=NUM_DIRECTIONS[check],
    )
    gradient = found.gradient
    method: Method = "replay"
    if is_replaced(trusted, on_failure, meta_params):
        gradient, method = fallback.estimate(training, meta_params, key_estimate), "full ES"
        trusted = fallback.noted(trusted)
    elif not trusted.passed:
        trusted = fallback.kept(trusted)
    return Metagradient(float(found.outcome), gradient, trusted, found.plan, found.cost, method)


def replay(
    training: Training,
    meta_params: MetaParams,
    *,
    plan: plans.Plan | Literal["auto"] = "auto",
    memory_bytes: int | None = None,
    directory: Path | str | None = None,
    store: storage.Storage | None = None,
    save_every_s: float = 10.0,
) -> Replayed:
    """Return the gradient of a training's outcome, unexamined; see `metagradient`."""
    if directory is not None and store is not None:
        raise ValueError("a directory is a storage: give one of directory and store")
    meta_params = _inexact(meta_params)
    chosen = _plan(training, meta_params, plan, memory_bytes)
    if directory is not None:
        return _in_directory(training, meta_params, chosen, Path(directory), save_every_s)
    store = storage.DeviceStorage() if store is None else store
    walked = backward.backward(training, meta_params, chosen, store)
    return Replayed(walked.outcome, walked.meta_grad, chosen, walked.cost)


def is_replaced(found: trust.Trust, on_failure: OnFailure, meta_params: MetaParams) -> bool:
    """Return whether an estimate is to take the place of a gradient.

    Args:
      found: Trust in the gradient.
      on_failure: What to do where the check fails; see `metagradient`.
      meta_params: Meta-parameters that the gradient is of.

    Raises:
      ReplayError: The check failed and `on_failure` is "raise".
    """
    if found.passed or on_failure == "keep":
        return False
    if on_failure == "raise":
        raise errors.ReplayError(f"the metagradient failed its check: {found.message}")
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(meta_params))
    return not found.finite or count <= fallback.MOST_NUMBERS


def _in_directory(
    training: Training,
    meta_params: MetaParams,
    plan: plans.Plan,
    directory: Path,
    save_every_s: float,
) -> Replayed:
    with resume.DirectoryJournal(
        directory, training, meta_params, plan, save_every_s=save_every_s
    ) as journal:
        finished = journal.finished()
        if finished is not None:
            return Replayed(*finished, plan, None)
        walked = backward.backward(training, meta_params, plan, journal.storage, journal=journal)
        journal.finish(walked)
        return Replayed(walked.outcome, walked.meta_grad, plan, walked.cost)


def _plan(
    training: Training,
    meta_params: MetaParams,
    plan: plans.Plan | Literal["auto"],
    memory_bytes: int | None,
) -> plans.Plan:
    if isinstance(plan, plans.Plan):
        if memory_bytes is not None:
            raise ValueError("memory_bytes chooses a plan: give one of plan and memory_bytes")
        return plan
    if plan != "auto":
        raise ValueError(f'plan={plan!r} must be "auto" or a plan of veldt.meta.replay.plans')
    spec = programs.spec_of(training, meta_params)
    return plans.choose(int(training.num_steps), spec.num_bytes, memory_bytes)


def _check_choices(check: Any, on_failure: Any) -> None:
    if check not in NUM_DIRECTIONS:
        raise ValueError(f"check={check!r} must be one of {', '.join(NUM_DIRECTIONS)}")
    if on_failure not in ("auto", "keep", "raise"):
        raise ValueError(f"on_failure={on_failure!r} must be one of auto, keep, raise")


def _inexact(meta_params: MetaParams) -> MetaParams:
    """Return meta-parameters as float arrays of definite types."""

    def convert(path: Any, leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            where = jax.tree_util.keystr(path)
            raise ValueError(f"meta-parameter {where} is {array.dtype}, and must be a float")
        return jax.lax.convert_element_type(array, array.dtype)

    return jax.tree_util.tree_map_with_path(convert, meta_params)
