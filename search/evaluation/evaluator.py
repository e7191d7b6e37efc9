"""Evaluating candidates: training proxy tasks with the interpreter, with a status for each run.

`Evaluator` is the worker that the task pool runs (`tasks.pool`). It keeps one compiled training
loop per proxy task (`proxy_loop.py`); a job names a program, a learning rate and a list of runs
(proxy, seed), and comes back as an `Outcome`. Whatever goes wrong in training is a status beside
the loss, never a NaN and never an exception.

At each check of a run the loss is compared with the *hurdle*: the initial rule's own loss at the
same point, plus a margin. A candidate that is worse is rejected, which saves the rest of its runs.
(The loss is the training loss where that is the objective.) With a hurdle for each run, runs are
made one after the other, and the first that is above its limits ends the job. With one hurdle for
their mean, all runs of a candidate go on together, from check to check, so that one task that a
rule fits badly does not hide what it is worth on the others.

Fitness is the mean over runs of the objective's score (`objectives.py`), by default the logarithm
of the normalised validation loss at the end; lower is better, and a difference of -0.1 is a loss
about 10% lower.
"""

import statistics
import threading
from collections.abc import Mapping, Sequence
from typing import final, overload

from veldt.search.config import objectives
from veldt.search.config.proxy_config import EvaluatorConfig
from veldt.search.evaluation.constant_gradients import Gradient, GradientJob
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.evaluation.proxy_loop import ProxyLoop
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.tasks import task_objects
from veldt.tasks.task_objects import TaskObjects


@final
class Evaluator:
    """The pool's worker: `EvalJob -> Outcome`, and `GradientJob -> Gradient`."""

    def __init__(self, loops: Mapping[int, ProxyLoop] | Sequence[ProxyLoop]):
        self._loops = loops

    def warm_up(self) -> None:
        """Compile all loops, so that no job's time includes it.

        Any program will do: a compiled loop serves all programs that are interpreted.
        """
        flow = dataflow.lower(Program.parse("def rule(w, g):\n    return g\n"), fold=True)
        loops = self._loops.values() if isinstance(self._loops, Mapping) else self._loops
        for loop in loops:
            loop.prepare(flow, 0.0, 0)

    @overload
    def __call__(self, payload: EvalJob) -> Outcome: ...

    @overload
    def __call__(self, payload: GradientJob) -> Gradient: ...

    @overload
    def __call__(self, payload: object) -> Outcome | Gradient: ...

    def __call__(self, payload: object) -> Outcome | Gradient:
        """Do an `EvalJob` or a `GradientJob`."""
        if isinstance(payload, GradientJob):
            return self._loops[payload.proxy].gradient(payload)
        assert isinstance(payload, EvalJob)
        flow = dataflow.lower(payload.genotype.program, fold=True)
        results = self._in_rounds(payload, flow) if payload.mean else self._in_turn(payload, flow)
        return Outcome.of(results)

    def _in_turn(self, job: EvalJob, flow: dataflow.Dataflow) -> list[RunResult]:
        """Make a job's runs in order, to the first that fails."""
        results: list[RunResult] = []
        for position, run in enumerate(job.runs):
            limits = job.limits(position, sum(result.log_losses[-1] for result in results))
            result = self._loops[run.proxy].run(flow, job.genotype.learning_rate, run, limits)
            results.append(result)
            if result.status is not Status.OK:
                break
        return results

    def _in_rounds(self, job: EvalJob, flow: dataflow.Dataflow) -> list[RunResult]:
        """Make a job's runs together, a check of each in a round, until one or their mean fails.

        The run that failed comes last; those that it ended are rejected.
        """
        rate = job.genotype.learning_rate
        courses = [self._loops[run.proxy].begin(flow, rate, run) for run in job.runs]
        for limit in job.mean:
            for course in courses:
                course.advance()
                if course.status is not Status.OK:
                    courses.remove(course)
                    for other in courses:
                        other.reject()
                    made = [other.result() for other in courses if other.log_losses]
                    return [*made, course.result()]
            if statistics.fmean(course.log_losses[-1] for course in courses) > limit:
                for course in courses:
                    course.reject()
                break
        return [course.result() for course in courses]


@final
class EvaluatorFactory:
    """Makes the workers of a pool.

    The workers of one process share their compiled loops; a copy in another process makes its own.
    """

    def __init__(self, config: EvaluatorConfig, tasks: TaskObjects = task_objects.NONE):
        self.config = config
        self._tasks = tasks
        self._lock = threading.Lock()
        self._loops: list[ProxyLoop] | None = None

    def __call__(self) -> Evaluator:
        with self._lock:
            if self._loops is None:
                objective = objectives.load(self.config.objective)
                self._loops = [
                    ProxyLoop(
                        proxy,
                        self.config.capacity,
                        self.config.seed,
                        objective,
                        self.config.lanes,
                        self._tasks,
                    )
                    for proxy in self.config.proxies
                ]
            return Evaluator(self._loops)

    def __reduce__(
        self,
    ) -> tuple[type["EvaluatorFactory"], tuple[EvaluatorConfig, TaskObjects]]:
        return EvaluatorFactory, (self.config, self._tasks)
