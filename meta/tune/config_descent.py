"""What a tuning from a config descends on: metagradients, and checks on fixed seeds, on a pool.

All that an update needs and that does not depend on results is handed out at once: the check of the
meta-parameters and their metagradient. The differences that it is held to are along itself, so they
come after it. What is learnt does not depend on how many workers there are.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, final

import jax
import numpy as np

from veldt.meta.replay import api, fallback, trust
from veldt.meta.tune import config, loop, problem, tuning_jobs
from veldt.meta.tune.tuning_jobs import TuningJobs
from veldt.meta.tune.tuning_worker import (
    Arrays,
    DifferenceJob,
    EstimateJob,
    OutcomeJob,
    ReplayJob,
    key_bits,
)
from veldt.tasks.common import types

_CHECK_KEY: Final = 1
_MOST_LOGGED: Final = 64  # numbers of a vector; there may be one for each example
_MOST_KNOTS: Final = 2048  # numbers of schedules, of all parts of a model together

_Awaited: TypeAlias = Callable[[], loop.Step]
"""Function that awaits the jobs of an update and returns its gradient."""


def make(settings: config.TuneConfig, subject: problem.Problem, jobs: TuningJobs) -> loop.Descent:
    """Return the descent of a tuning.

    Args:
      settings: Settings of the tuning.
      subject: Trainings of the tuning.
      jobs: Jobs of the tuning, on a pool of `TuningWorker`s.
    """

    def logged(meta_params: Arrays) -> Mapping[str, Any]:
        short = {}
        for name, each in subject.numbers(meta_params).items():
            spec = settings.tune.get(name)
            if spec is None:  # Learned rows are in files.
                continue
            most = _MOST_KNOTS if spec.knots or spec.by != "all" else _MOST_LOGGED
            if each.size <= most:
                # Of parts with schedules, one after the other.
                short[name] = each.ravel().tolist() if each.ndim else each.tolist()
        return {"hyperparameters": short}

    updates = _Updates(settings, subject, jobs)
    return loop.Descent(
        settings.num_updates,
        settings.outer,
        updates.gradient,
        updates.check,
        settings.check_every,
        logged,
    )


@final
class _Updates:
    """The jobs of updates and checks."""

    def __init__(
        self, settings: config.TuneConfig, subject: problem.Problem, jobs: TuningJobs
    ) -> None:
        self._config, self._subject, self._jobs = settings, subject, jobs
        self._asked: dict[int, _Awaited] = {}  # By the number of the update.

    def check(self, progress: loop.TuningProgress) -> tuple[float, Mapping[str, Any]]:
        """Return the outcome on the fixed seeds; the update's jobs go to workers beside it."""
        groups = self._subject.groups(self._subject.check_seeds)
        meta_params = _plain(progress)
        label = f"check after update {progress.update}"
        numbers = self._jobs.submit(label, [OutcomeJob(group, meta_params) for group in groups])
        if progress.update < self._config.num_updates:
            self._asked[progress.update] = self._ask(progress)
        ended = self._jobs.take(numbers, "the check on fixed seeds")
        outcome, hollow = problem.judge(ended, tuning_jobs.shares(groups))
        return outcome, {"hollow": hollow}

    def gradient(self, progress: loop.TuningProgress) -> loop.Step:
        """Return the gradient of an update."""
        awaited = self._asked.pop(progress.update, None) or self._ask(progress)
        return awaited()

    def _ask(self, progress: loop.TuningProgress) -> _Awaited:
        key = jax.random.fold_in(jax.random.key(self._config.seed), progress.update)
        key = jax.random.fold_in(key, _CHECK_KEY)
        # Agreement with differences costs as much again: it is asked for where a check is due.
        due = progress.update % self._config.check_every == 0
        if progress.distrusted and not due:
            return self._ask_untrusted(progress, key)
        return self._ask_metagradient(progress, key, self._config.verify if due else "none")

    def _ask_metagradient(
        self, progress: loop.TuningProgress, key: types.Key, verify: api.Check
    ) -> _Awaited:
        groups, meta_params = self._groups(progress), _plain(progress)
        weights = tuning_jobs.shares(groups)
        key_check, key_estimate = jax.random.split(key)
        name = f"update_{progress.update}"
        names = [f"{name}_part_{i}" for i in range(len(groups))] if len(groups) > 1 else [name]
        replays = self._jobs.submit(
            f"metagradient of update {progress.update}",
            [ReplayJob(group, meta_params, n) for group, n in zip(groups, names, strict=True)],
        )

        def step() -> loop.Step:
            what = f"metagradient {progress.update + 1:,} of {self._config.num_updates:,}"
            parts = self._jobs.take(replays, what)
            outcome = tuning_jobs.mean([part.outcome for part in parts], weights)
            gradient: Mapping[str, Any] = tuning_jobs.mean_gradient(
                [part.gradient for part in parts], weights
            )
            found = trust.judge(meta_params, outcome, gradient, key_check, None)
            if found.finite and (num_directions := api.NUM_DIRECTIONS[verify]):
                bits = key_bits(key_check)
                numbers = {name: np.asarray(value) for name, value in gradient.items()}
                around = self._jobs.submit(
                    f"differences of update {progress.update}",
                    [
                        DifferenceJob(group, meta_params, numbers, bits, num_directions)
                        for group in groups
                    ],
                )
                differences = self._jobs.take(around, f"the differences around {what}")
                together = trust.mean(differences, weights)
                found = trust.judge(meta_params, outcome, gradient, key_check, together)
            estimated = api.is_replaced(found, self._config.on_failure, meta_params)
            if not found.passed and not estimated:
                found = fallback.kept(found)
            if estimated:
                gradient, found = (
                    self._ask_estimate(progress, key_estimate)(),
                    fallback.noted(found),
                )
            steps = sum(part.forward_steps * len(g) for part, g in zip(parts, groups, strict=True))
            runs = steps / (self._config.num_steps * self._config.seeds)
            runs += api.NUM_CHECK_RUNS[verify] + (fallback.NUM_RUNS if estimated else 0)
            figures = {
                "method": "full ES" if estimated else "replay",
                "verdict": found.message,
                "metasmoothness": found.metasmoothness,
                "peak_bytes": max(
                    (part.peak_bytes for part in parts if part.peak_bytes is not None), default=None
                ),
                "plan": parts[0].plan,
            }
            return loop.Step(outcome, gradient, estimated, runs, figures)

        return step

    def _ask_untrusted(self, progress: loop.TuningProgress, key: types.Key) -> _Awaited:
        """Ask for an estimate in place of a gradient that is not trusted."""
        groups, meta_params = self._groups(progress), _plain(progress)
        outcomes = self._jobs.submit(
            f"outcome of update {progress.update}",
            [OutcomeJob(group, meta_params) for group in groups],
        )
        estimate = self._ask_estimate(progress, key)
        figures = {
            "method": "full ES",
            "verdict": "the last metagradient that was checked failed: an estimate until the next",
            "metasmoothness": None,
            "peak_bytes": None,
            "plan": "none",
        }

        def step() -> loop.Step:
            outcome, _ = problem.judge(self._jobs.take(outcomes), tuning_jobs.shares(groups))
            return loop.Step(outcome, estimate(), True, fallback.NUM_RUNS + 1, figures)

        return step

    def _ask_estimate(
        self, progress: loop.TuningProgress, key: types.Key
    ) -> Callable[[], Mapping[str, Any]]:
        """Ask for a gradient by evolution strategies; the key is consumed."""
        groups, meta_params, bits = self._groups(progress), _plain(progress), key_bits(key)
        numbers = self._jobs.submit(
            f"estimate of update {progress.update}",
            [EstimateJob(group, meta_params, bits) for group in groups],
        )

        def gradient() -> Mapping[str, Any]:
            parts = self._jobs.take(numbers, f"the estimate for update {progress.update + 1:,}")
            return tuning_jobs.mean_gradient(parts, tuning_jobs.shares(groups))

        return gradient

    def _groups(self, progress: loop.TuningProgress) -> list[tuple[int, ...]]:
        return self._subject.groups(self._subject.seeds_of(progress.update))


def _plain(progress: loop.TuningProgress) -> dict[str, np.ndarray]:
    """Return the meta-parameters as jobs carry them."""
    return {name: np.asarray(value) for name, value in progress.meta_params.items()}
