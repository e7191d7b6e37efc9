"""The loop of a meta-training: gradients from a pool of workers, in an order timing cannot change.

An update of the meta-parameters takes one gradient from each task family and moves by their mean.
With `staleness` s, the gradients of update u are computed at the meta-parameters of update u - s
(the phase's first, if that is later): so the next s updates' work is handed out before this one's
is told, workers do not wait for each other, and still every number is a function of config and
seed. Bounded staleness of VeLO's kind (2211.09760), where it is whatever the cluster's timing made
it, cannot be repeated.

A stream of runs can continue only when its last window has been used, so there are s + 1 streams of
each family, used in turn.

All that the loop knows is a frozen `MetaTrainProgress`, replaced as a whole after each update: an
interrupt between two statements finds either the old one or the new one. It is replaced when the
watcher has it, so that what a run counts as done has been written down.
"""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast, final

import jax
import numpy as np

from veldt.learned_opt.base import MetaParams
from veldt.meta import array_lists, checkpoint, errors
from veldt.meta.train import build, config, gradient_worker, outer_step
from veldt.meta.train.gradient_worker import Check, CheckJob, Gradient, GradientJob
from veldt.tasks.common import stopping
from veldt.tasks.inner_loop import hollow
from veldt.tasks.pool import base, driver

# Shapes: E families, s staleness.


@final
@dataclasses.dataclass(frozen=True)
class MetaTrainProgress:
    """The state of a meta-training between two updates.

    Attributes:
      update: Number of updates done, over all phases.
      meta_params: All meta-parameters, NumPy arrays by top-level name.
      opt_state: State of the outer optimizer in the present phase; None before the phase's first
        update.
      versions: The meta-parameters that the present phase moves, after each of the last s + 1
        updates, by the number of updates then done.
      streams: States of the present phase's streams by (stream, family).
      checked_at: Number of updates done at the last meta-validation; -1 before the first.
      best_score: The lowest mean log loss on meta-validation so far; infinity before the first
        meta-validation.
      best: Meta-parameters with the best score; None before the first meta-validation.
      num_inner_steps: Number of inner steps done.
      worker_s: Seconds that workers spent.
      wall_s: Seconds of all sessions.
    """

    update: int
    meta_params: Mapping[str, MetaParams]
    opt_state: array_lists.Leaves | None = None
    versions: Mapping[int, MetaParams] = dataclasses.field(default_factory=dict)
    streams: Mapping[tuple[int, int], array_lists.Leaves] = dataclasses.field(default_factory=dict)
    checked_at: int = -1
    best_score: float = math.inf
    best: Mapping[str, MetaParams] | None = None
    num_inner_steps: int = 0
    worker_s: float = 0.0
    wall_s: float = 0.0


class MetaTrainWatcher(Protocol):
    """An observer of a meta-training; it changes nothing of it."""

    def updated(self, progress: MetaTrainProgress, figures: Mapping[str, Any]) -> None:
        """Receive the state after an update, and its figures."""
        ...

    def checked(self, progress: MetaTrainProgress, figures: Mapping[str, Any]) -> None:
        """Receive the state after a meta-validation, and its figures."""
        ...

    def waiting(self, progress: MetaTrainProgress, what: str, done: int, total: int) -> None:
        """Receive what is waited for, and how many of how many are there."""
        ...


@final
class MetaTraining:
    """The loop of a meta-training; it runs phases from the state that `progress` holds.

    Attributes:
      progress: The present state.
    """

    def __init__(
        self,
        settings: config.MetaTrainConfig,
        progress: MetaTrainProgress,
        workers: base.Pool,
        num_families: int,
        watcher: MetaTrainWatcher,
    ):
        self._config = settings
        self._num_families = num_families
        self._watcher = watcher
        self._jobs = driver.PoolJobs(workers, arrived=_refuse_failure)
        self._asked: dict[int, list[int]] = {}  # Jobs by update, until it is done.
        ends = itertools.accumulate(phase.num_updates for phase in settings.phases)
        self._phase_ends = frozenset(ends)
        self.progress = progress

    def run(self, save: Callable[[MetaTrainProgress], None]) -> None:
        """Run phases to the end of the last.

        Args:
          save: Called after each update that should be kept: in time with the config, and at the
            end of each phase.

        Raises:
          MetaTrainError: A worker cannot do its job.
          KeyboardInterrupt: Ctrl-C; `progress` is what was reached.
        """
        if self.progress.update > 0:
            # It belongs to the phase of the last update, which may have ended with the update.
            self._validate(self._config.phase_at(self.progress.update - 1)[0])
        while self.progress.update < self._config.num_updates:
            index, first = self._config.phase_at(self.progress.update)
            self._run_phase(index, first, save)

    def _run_phase(self, index: int, first: int, save: Callable[[MetaTrainProgress], None]) -> None:
        phase = self._config.phases[index]
        end = first + phase.num_updates
        staleness = self._config.staleness
        moving, frozen = build.split(self.progress.meta_params, phase.train)
        tx = build.make_outer(phase.outer, phase.num_updates)
        opt_shapes = jax.eval_shape(tx.init, moving)
        if self.progress.update == first:
            self.progress = dataclasses.replace(
                self.progress,
                opt_state=array_lists.leaves(tx.init(moving)),
                versions={first: moving},
                streams={},
            )
        asked = self.progress.update
        saved_s = began_s = time.monotonic()
        while (update := self.progress.update) < end:
            self._validate(index)
            while asked < min(end, update + staleness + 1):
                self._ask(index, asked, max(first, asked - staleness), frozen)
                asked += 1
            results = self._gradients(update)
            gradients = [cast(Gradient, result.value) for result in results]
            opt_state = array_lists.rebuild(opt_shapes, self.progress.opt_state or ())
            moving, opt_state, norm = outer_step.move(
                tx,
                self.progress.versions[update],
                opt_state,
                tuple(gradient.meta_grad for gradient in gradients),
            )
            moving = jax.tree.map(np.asarray, moving)
            now_s = time.monotonic()
            progress = self.progress
            num_steps = sum(gradient.num_steps for gradient in gradients)
            worker_s = sum(result.wall_s for result in results)
            stream = update % (staleness + 1)
            versions = {**progress.versions, update + 1: moving}
            progress = dataclasses.replace(
                progress,
                update=update + 1,
                meta_params={**progress.meta_params, **moving},
                opt_state=array_lists.leaves(opt_state),
                versions={u: v for u, v in versions.items() if u >= update + 1 - staleness},
                streams={
                    **progress.streams,
                    **{(stream, e): each.state for e, each in enumerate(gradients)},
                },
                num_inner_steps=progress.num_inner_steps + num_steps,
                worker_s=progress.worker_s + worker_s,
                wall_s=progress.wall_s + now_s - began_s,
            )
            began_s = now_s
            with stopping.hold():  # What was reported is kept.
                self._watcher.updated(
                    progress,
                    {
                        "phase": phase.name,
                        "meta_loss": [gradient.meta_loss for gradient in gradients],
                        "meta_grad_norm": float(norm),
                        "num_nonfinite": sum(gradient.num_nonfinite for gradient in gradients),
                        "num_completed": sum(gradient.num_completed for gradient in gradients),
                        "num_inner_steps": num_steps,
                        "worker_s": round(worker_s, 4),
                        "wall_s": round(progress.wall_s, 3),
                    },
                )
                self.progress = progress
            if time.monotonic() - saved_s >= self._config.checkpoint_every_s:
                save(self.progress)
                saved_s = time.monotonic()
        self._validate(index)
        save(self.progress)

    def _ask(self, phase: int, update: int, version: int, frozen: Mapping[str, MetaParams]) -> None:
        """Hand out the gradients of an update."""
        stream = update % (self._config.staleness + 1)
        self._asked[update] = []
        for family in range(self._num_families):
            job = GradientJob(
                phase=phase,
                family=family,
                update=update,
                stream=stream,
                meta_params=self.progress.versions[version],
                frozen=frozen,
                state=self.progress.streams.get((stream, family)),
            )
            named = driver.NamedJob(job, f"update {update}, family {family}")
            self._asked[update].append(self._jobs.submit(named))

    def _gradients(self, update: int) -> list[base.JobResult]:
        what = f"gradients of update {update + 1:,}"
        return self._await([(job, what) for job in self._asked.pop(update)])

    def _validate(self, phase: int) -> None:
        """Train the meta-validation tasks if they are due, and keep the best meta-parameters."""
        checks = self._config.meta_validation
        update = self.progress.update
        due = update in self._phase_ends or update % self._config.validate_every == 0
        if not checks or not due or self.progress.checked_at == update:
            return
        asked = []
        for number, check in enumerate(checks):
            job = CheckJob(phase, number, self.progress.meta_params)
            submitted = self._jobs.submit(driver.NamedJob(job, f"check {check.task}"))
            asked.append((submitted, f"meta-validation after update {update:,}: {check.task}"))
        ended = [cast(Check, result.value) for result in self._await(asked)]
        means = [
            float(np.mean(np.log(np.maximum(each.losses, hollow.MIN_NORMALIZED)))) for each in ended
        ]
        score = float(np.mean(means))
        progress = dataclasses.replace(self.progress, checked_at=update)
        if score < progress.best_score:
            progress = dataclasses.replace(progress, best_score=score, best=progress.meta_params)
        figures = {
            "score": score,
            "tasks": {check.task: mean for check, mean in zip(checks, means, strict=True)},
            "num_hollow": sum(each.num_hollow for each in ended),
        }
        with stopping.hold():
            self._watcher.checked(progress, figures)
            self.progress = progress

    def _await(self, asked: Sequence[tuple[int, str]]) -> list[base.JobResult]:
        """Return the results of jobs that belong together, given their numbers and names."""
        results: list[base.JobResult] = []
        for job, what in asked:
            tell = functools.partial(
                self._watcher.waiting, self.progress, what, len(results), len(asked)
            )
            results.append(self._jobs.take(job, tell))
        return results


def _refuse_failure(result: base.JobResult) -> None:
    """Stop where a worker could not do its job."""
    if result.status is not base.JobStatus.OK:
        raise errors.MetaTrainError(f"{result.label}: {result.status}: {result.message}")


def begin(settings: config.MetaTrainConfig, start: MetaParams | None) -> MetaTrainProgress:
    """Return the progress of a run that has not begun.

    Args:
      settings: Config of the run.
      start: Meta-parameters to start from; None draws them.
    """
    rule = build.architecture(settings)
    key = build.stream_key(settings, gradient_worker.INIT)
    drawn = rule.init(key) if start is None else start
    return MetaTrainProgress(
        0, {name: jax.tree.map(np.asarray, part) for name, part in drawn.items()}
    )


def store(progress: MetaTrainProgress) -> checkpoint.Stored:
    """Return what a checkpoint keeps."""
    streams: dict[str, dict[str, list[np.ndarray]]] = {}
    for (stream, family), leaves in progress.streams.items():
        if leaves:
            streams.setdefault(str(stream), {})[str(family)] = list(leaves)
    arrays = {
        "meta_params": _listed(progress.meta_params),
        "best": _listed(progress.best or {}),
        "opt_state": list(progress.opt_state or ()),
        "version": {str(update): _listed(part) for update, part in progress.versions.items()},
        "stream": streams,
    }
    facts = {
        "update": progress.update,
        "looked_at": progress.checked_at,  # The name in files of every version.
        "best_score": progress.best_score if math.isfinite(progress.best_score) else None,
        "num_inner_steps": progress.num_inner_steps,
        "worker_s": progress.worker_s,
        "wall_s": progress.wall_s,
    }
    return checkpoint.Stored({name: part for name, part in arrays.items() if part}, facts)


def _listed(meta_params: Mapping[str, MetaParams]) -> list[np.ndarray]:
    return list(array_lists.leaves(dict(meta_params)))


def restore(settings: config.MetaTrainConfig, stored: checkpoint.Stored) -> MetaTrainProgress:
    """Return the progress that a checkpoint was made of."""
    kept, facts = stored.arrays, stored.facts
    whole = jax.eval_shape(build.architecture(settings).init, jax.random.key(0))
    opt_state, versions, streams = None, {}, {}
    last, first = settings.phase_at(facts["update"] - 1)
    phase = settings.phases[last]
    if facts["update"] < first + phase.num_updates:
        # At the end of a phase there is nothing to go on from: the next begins with its own.
        opt_state = tuple(kept.get("opt_state", ()))
        moving, _ = build.split(whole, phase.train)
        versions = {
            int(update): array_lists.rebuild(moving, leaves)
            for update, leaves in kept.get("version", {}).items()
        }
        streams = {
            (int(stream), int(family)): tuple(leaves)
            for stream, families in kept.get("stream", {}).items()
            for family, leaves in families.items()
        }
    best_score = facts["best_score"]
    return MetaTrainProgress(
        update=facts["update"],
        meta_params=array_lists.rebuild(whole, kept["meta_params"]),
        opt_state=opt_state,
        versions=versions,
        streams=streams,
        checked_at=facts["looked_at"],
        best_score=math.inf if best_score is None else best_score,
        best=array_lists.rebuild(whole, kept["best"]) if "best" in kept else None,
        num_inner_steps=facts["num_inner_steps"],
        worker_s=facts["worker_s"],
        wall_s=facts["wall_s"],
    )
