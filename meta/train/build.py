"""From a config to what trains: architecture, families, estimators, outer optimizers."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, final

import jax
import optax

from veldt.learned_opt import base as learned_base
from veldt.learned_opt import registry
from veldt.learned_opt.base import MetaParams
from veldt.meta import errors
from veldt.meta.estimators import (
    antithetic,
    full_backprop,
    full_es,
    sharded,
    truncated_backprop,
    truncated_es,
)
from veldt.meta.estimators import base as estimator
from veldt.meta.problems import imitation, meta_loss, task_problem
from veldt.meta.train import config
from veldt.tasks import base
from veldt.tasks.common import spelling
from veldt.tasks.common.user_code import imports

_LOG_FLOOR = 1e-3  # of normalised losses, where 1 is to know nothing
_OBJECTIVES: dict[str, meta_loss.MetaLoss] = {
    "mean": meta_loss.MeanLoss(),
    "final": meta_loss.FinalLoss(),
    "log_final": meta_loss.FinalLoss(_LOG_FLOOR),
    "telescoped": meta_loss.TelescopedLoss(),
}


def architecture(
    settings: config.MetaTrainConfig, phase: config.PhaseConfig | None = None
) -> learned_base.LearnedOptimizer:
    """Return the learned optimizer as it is trained in a phase, or (None) as it will be used.

    Raises:
      LearnedOptError: There is no such architecture, or it has no such field.
    """
    fields = {**settings.fields, **(phase.fields if phase is not None else {})}
    return registry.architecture(settings.architecture, **fields)


@final
@dataclasses.dataclass(frozen=True)
class MakeTx:
    """A learned optimizer's `as_optax`, as a `task_problem.MakeTx`.

    Equal for equal optimizers, as their own bound methods are not: so what was compiled for one is
    found again by the next job, which makes its own.

    Attributes:
      rule: The learned optimizer.
    """

    rule: learned_base.LearnedOptimizer

    def __call__(
        self, meta_params: MetaParams, num_steps: learned_base.NumSteps
    ) -> optax.GradientTransformationExtraArgs:
        """Return the transform of some meta-parameters, for runs of `num_steps`."""
        return self.rule.as_optax(meta_params, num_steps)


def split(
    meta_params: MetaParams, train: Sequence[str]
) -> tuple[dict[str, MetaParams], dict[str, MetaParams]]:
    """Part meta-parameters into what a phase moves and what it leaves.

    Args:
      meta_params: Meta-parameters by top-level name.
      train: Names of the parts that move; empty for all.

    Raises:
      UnknownNameError: A name is none of theirs.
    """
    for name in train:
        if name not in meta_params:
            known = ", ".join(sorted(meta_params))
            near = spelling.did_you_mean(name, meta_params)
            raise errors.UnknownNameError(
                f"there is no part {name!r} to train{near}; there are: {known}"
            )
    names = set(train) or set(meta_params)
    moving = {name: part for name, part in meta_params.items() if name in names}
    return moving, {name: part for name, part in meta_params.items() if name not in names}


def make_estimator(
    settings: config.MetaTrainConfig,
    phase: config.PhaseConfig,
    family: base.TaskFamily,
    frozen: Mapping[str, MetaParams],
) -> estimator.GradientEstimator:
    """Return a phase's estimator on one family of tasks."""
    how = phase.estimator
    rule = architecture(settings, phase)
    problem = task_problem.TaskProblem.of(
        family, MakeTx(rule), lengths=phase.lengths, frozen=frozen, final_split=how.split
    )
    num_particles = sharded.split_particles(how.num_particles, settings.shards)
    noise = antithetic.Antithetic(how.sigma, how.clip_difference, how.sign)
    objective = _OBJECTIVES[how.objective]
    part: estimator.GradientEstimator
    match how.kind:
        case "full_es":
            part = full_es.FullES(problem, num_particles, how.window, objective, noise)
        case "truncated_es":
            part = truncated_es.TruncatedES(problem, num_particles, how.window, objective, noise)
        case "pes":
            part = truncated_es.PES(problem, num_particles, how.window, objective, noise)
        case "nres":
            part = truncated_es.NRES(problem, num_particles, how.window, objective, noise)
        case "truncated_backprop":
            part = truncated_backprop.TruncatedBackprop(
                problem, num_particles, how.window, objective
            )
        case "full_backprop":
            part = full_backprop.FullBackprop(
                problem, num_particles, how.window, objective, how.clip_norm
            )
        case "imitation":
            expert = imports.load_object("expert", how.expert)
            followed = imitation.ImitationProblem(problem, expert)
            part = truncated_backprop.TruncatedBackprop(
                followed, num_particles, how.window, objective
            )
    if settings.shards == 1:
        return part
    return sharded.Sharded(part, settings.shards, sharded.make_mesh(settings.shards))


@functools.cache
def make_outer(outer: config.MetaOptimizerConfig, num_updates: int) -> optax.GradientTransformation:
    """Return a phase's outer optimizer; the same object for the same settings, which compile once.

    Args:
      outer: Settings of the optimizer.
      num_updates: Number of updates of the phase, over which the learning rate moves.
    """
    rate = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if outer.warmup > 0 else outer.learning_rate,
        peak_value=outer.learning_rate,
        warmup_steps=round(outer.warmup * num_updates),
        decay_steps=num_updates,
        end_value=0.1 * outer.learning_rate if outer.decay == "cosine" else outer.learning_rate,
    )
    clips: list[Any] = []
    if outer.clip is not None:
        clips.append(optax.clip(outer.clip))
    if outer.clip_norm is not None:
        clips.append(optax.clip_by_global_norm(outer.clip_norm))
    match outer.optimizer:
        case "adam":
            return optax.chain(*clips, optax.adam(rate))
        case "adamw":
            return optax.chain(*clips, optax.adamw(rate, weight_decay=outer.weight_decay))
        case "sgd":
            return optax.chain(*clips, optax.sgd(rate, momentum=0.9))


def stream_key(settings: config.MetaTrainConfig, stream: int) -> jax.Array:
    """Return the key of one of a run's streams of randomness, by its number."""
    return jax.random.fold_in(jax.random.key(settings.seed), stream)
