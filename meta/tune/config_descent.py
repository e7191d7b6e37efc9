"""What a tuning from a config descends on: metagradients, and checks on fixed seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta.replay import api, fallback
from veldt.meta.replay.task_training import TaskTraining
from veldt.meta.tune import config, loop, problem
from veldt.tasks.common import types

_CHECK_KEY: Final = 1
_MOST_LOGGED: Final = 64  # numbers of a hyperparameter; there may be one for each example


def make(
    settings: config.TuneConfig, subject: problem.Problem, journal: Path | None = None
) -> loop.Descent:
    """Return the descent of a tuning.

    Args:
      settings: Settings of the tuning.
      subject: Trainings of the tuning.
      journal: Folder for the metagradients' own progress; None keeps none.
    """

    def check(meta_params: MetaParams) -> tuple[float, Mapping[str, Any]]:
        outcome, hollow = problem.run_once(subject.check(), dict(meta_params))
        return outcome, {"hollow": hollow}

    def logged(meta_params: MetaParams) -> Mapping[str, Any]:
        numbers = subject.numbers(meta_params).items()
        short = {name: each.tolist() for name, each in numbers if each.size <= _MOST_LOGGED}
        return {"hyperparameters": short}

    return loop.Descent(
        settings.num_updates,
        settings.outer,
        lambda progress: _gradient(settings, subject, progress, journal),
        check,
        settings.check_every,
        logged,
    )


def _gradient(
    settings: config.TuneConfig,
    subject: problem.Problem,
    progress: loop.TuningProgress,
    journal: Path | None,
) -> loop.Step:
    meta_params = {name: jnp.asarray(value) for name, value in progress.meta_params.items()}
    key = jax.random.fold_in(jax.random.key(settings.seed), progress.update)
    key = jax.random.fold_in(key, _CHECK_KEY)
    training = subject.training_of(progress.update)
    # Agreement with differences costs as much again, so it is asked for only where a check is due.
    due = progress.update % settings.check_every == 0
    if progress.distrusted and not due:
        return _estimate(training, meta_params, key)
    directory = None if journal is None else journal / f"update_{progress.update}"
    verify = settings.verify if due else "none"
    return _metagradient(settings, training, meta_params, key, verify, directory)


def _metagradient(
    settings: config.TuneConfig,
    training: TaskTraining,
    meta_params: Mapping[str, jax.Array],
    key: types.Key,
    verify: api.Check,
    directory: Path | None,
) -> loop.Step:
    found = api.metagradient(
        training,
        meta_params,
        key=key,
        memory_bytes=int(settings.memory_mb * 2**20),
        directory=directory,
        check=verify,
        on_failure=settings.on_failure,
    )
    estimated = found.method != "replay"
    steps = 0 if found.cost is None else found.cost.forward_steps
    figures = {
        "method": found.method,
        "verdict": found.verdict.message,
        "metasmoothness": found.verdict.metasmoothness,
        "peak_bytes": None if found.cost is None else found.cost.peak_bytes,
        "plan": found.plan.describe(),
    }
    runs = steps / settings.num_steps + api.NUM_CHECK_RUNS[verify]
    runs += fallback.NUM_RUNS if estimated else 0
    return loop.Step(found.outcome, found.gradient, estimated, runs, figures)


def _estimate(
    training: TaskTraining, meta_params: Mapping[str, jax.Array], key: types.Key
) -> loop.Step:
    """Return an estimate in place of a gradient that is not trusted."""
    figures = {
        "method": "full ES",
        "verdict": "the last metagradient that was checked failed: an estimate until the next",
        "metasmoothness": None,
        "peak_bytes": None,
        "plan": "none",
    }
    return loop.Step(
        problem.outcome(training, dict(meta_params)),
        fallback.estimate(training, meta_params, key),
        True,
        fallback.NUM_RUNS + 1,
        figures,
    )
