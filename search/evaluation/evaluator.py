"""Evaluating candidates: training proxy tasks with the interpreter, with a status for each run.

`Evaluator` is the worker that the task pool runs (`tasks.pool`). It keeps one compiled training
loop per proxy task; a job names a program, a learning rate and a list of runs (proxy, seed), and
comes back as an `Outcome`. Whatever goes wrong in training is a status beside the loss, never a NaN
and never an exception.

A run is trained in equal chunks. After each, the loss on the proxy's validation split is taken.
There a run that has diverged stops, and there the loss is compared with the *hurdle*: the initial
rule's own loss at the same point of the same run (same parameters, same batches). A candidate that
is worse by more than a margin is rejected, which saves the rest of its runs. (The loss is the
training loss where that is the objective.)

Fitness is the mean over runs of the objective's score (`objectives.py`), by default the logarithm
of the normalised validation loss at the end; lower is better, and a difference of -0.1 is a loss
about 10% lower.
"""

import functools
import math
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final, overload

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from veldt.search import objectives
from veldt.search.config.proxy_config import EvaluatorConfig, ProxyConfig
from veldt.search.evaluation import constant_gradients
from veldt.search.evaluation.constant_gradients import Gradient, GradientJob
from veldt.search.evaluation.jobs import EvalJob, Outcome, ProxyRun, RunResult, Status
from veldt.search.language import dataflow
from veldt.search.objectives import Objective, Training
from veldt.search.program import Program
from veldt.search.runtime import encode, lane_interpreter, training_paths
from veldt.search.runtime import lanes as lanes_lib
from veldt.tasks import registry
from veldt.tasks.benchmark.protocol import schedules
from veldt.tasks.common import compiling
from veldt.tasks.inner_loop import flat, hollow, unroll

# Most loops that a proxy keeps compiled: the interpreter's, and those of the last programs with
# a loop of their own.
MAX_COMPILED: Final = 4


@final
@dataclass(frozen=True, slots=True)
class _Trained:
    """Training at one learning rate, to the end or to the first check that fails."""

    status: Status
    curve: tuple[float, ...]  # values compared with the hurdle
    num_steps: int
    loss: float  # on the validation split, at the last check
    measured: Training
    message: str = ""  # why it is hollow


class CompiledLoop(NamedTuple):
    """A training loop: `start(data, rate, seed)` and `advance(data, rate, state)`."""

    start: Any
    advance: Any


class _State(NamedTuple):
    """A training run between two calls: the inner loop's state and how large it began."""

    training: unroll.UnrollState
    start_size: jax.Array


class _Report(NamedTuple):
    """The measurements of a check: scalars, on the device or back from it.

    Attributes:
      loss: Loss on the validation split.
      normalized: Normalised loss on the validation split.
      finite: Whether the losses of all steps since the last check are finite.
      train: Mean loss of all steps since the last check.
      train_normalized: Normalised mean loss of all steps since the last check.
      lowest: Lowest loss above the floor since the last check (`hollow.lowest_above_floor`).
      start_size: Size of the parameters before the first step (`hollow.size`).
      peak_size: Largest size of the parameters so far, where the objective tracks it.
      ended: Result of `hollow.recheck`, at the last check.
    """

    loss: Any
    normalized: Any
    finite: Any
    train: Any
    train_normalized: Any
    lowest: Any
    start_size: Any
    peak_size: Any
    ended: hollow.Recheck

    @classmethod
    def read(cls, numbers: NDArray[Any]) -> "_Report":
        """Return the report in the one array that comes back from the device."""
        values = [float(number) for number in np.asarray(numbers)]
        own = dict(zip(cls._fields[:-1], values, strict=False))
        before, after, size = values[len(own) :]
        return cls(**own, ended=hollow.Recheck(before, after, size))  # type: ignore[arg-type]


@final
@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A training run that is ready to start: a compiled loop and its arguments.

    Attributes:
      data: Program, in the form that the loop takes.
      learning_rate: Learning rate of all steps.
      seed: Seed of the run.
      compiled: Two functions of the loop.
    """

    data: Any
    learning_rate: np.float32
    seed: np.uint32
    compiled: CompiledLoop

    def start(self) -> Any:
        """Return the state before the first step."""
        return self.compiled.start(self.data, self.learning_rate, self.seed)

    def advance(self, state: Any) -> tuple[Any, Any]:
        """Train to the next check; return the new state, which replaces the old, and the report."""
        return self.compiled.advance(self.data, self.learning_rate, state)


@final
class ProxyLoop:
    """The training loop of one proxy, compiled; shared by the threads of a process."""

    def __init__(
        self,
        config: ProxyConfig,
        capacity: encode.Capacity,
        seed: int,
        objective: Objective,
        lanes: int = 1,
    ):
        self.config = config
        self.capacity = capacity
        self.lanes = lanes
        self._seed = seed
        self._objective = objective
        self.task = flat.FlatTask(registry.load_task(config.task))
        self._lock = threading.Lock()
        self._compiled: dict[Hashable, CompiledLoop] = {}

    def _compile(self, path: training_paths.AbstractPath, rate: Any, seed: Any) -> CompiledLoop:
        """Compile the loop, from example arguments."""
        in_lanes = self.lanes > 1 and isinstance(path, training_paths.Interpreted)

        def transform(data: Any) -> optax.GradientTransformationExtraArgs:
            if not in_lanes:
                return path.transform(data)
            encoded, of_all = data
            layout, capacity = self.task.layout, self.capacity
            return lane_interpreter.interpret(encoded, of_all, layout, capacity=capacity)

        def make_tx(data: Any, rate: Any) -> optax.GradientTransformationExtraArgs:
            scheduled = schedules.one(self.config.schedule, rate, self.config.num_steps)
            parts = [transform(data), optax.scale_by_learning_rate(scheduled)]
            if self._objective.scores_training:
                parts.append(hollow.track_peak())
            return optax.with_extra_args_support(optax.chain(*parts))

        def start(task: Any, data: Any, rate: Any, seed: Any) -> _State:
            key = jax.random.fold_in(jax.random.key(self._seed), seed)
            training = unroll.init(task, make_tx(data, rate), key)
            return _State(training, hollow.size(training.params))

        def advance(task: Any, data: Any, rate: Any, state: Any) -> tuple[Any, ...]:
            training, losses = unroll.unroll(
                task,
                make_tx(data, rate),
                state.training,
                num_steps=self.config.num_steps // self.config.num_chunks,
            )
            loss = unroll.evaluate(task, training.params, training.key, "valid")

            def end() -> tuple[Any, ...]:
                found = hollow.recheck(task, training.params, training.key, training.step)
                return tuple(jnp.asarray(each, jnp.float32) for each in found)

            # For the last check alone; in the same call, since another would cost as much again.
            is_last = training.step == self.config.num_steps
            ended = jax.lax.cond(is_last, end, lambda: (jnp.zeros((), jnp.float32),) * 3)
            report = _Report(
                loss=loss,
                normalized=task.normalizer(loss),
                finite=jnp.isfinite(losses).all(),
                train=losses.mean(),
                train_normalized=task.normalizer(losses.mean()),
                lowest=hollow.lowest_above_floor(task, losses),
                start_size=state.start_size,
                peak_size=hollow.peak_of(training.opt_state),
                ended=hollow.Recheck(*ended),
            )
            # One array, so that one transfer brings everything back.
            # A float16 loss has no space for the norms beside it.
            dtype = jnp.promote_types(loss.dtype, jnp.float32)
            numbers = jnp.stack([leaf.astype(dtype) for leaf in jax.tree.leaves(report)])
            return _State(training, state.start_size), numbers

        if in_lanes:
            return CompiledLoop(
                *lanes_lib.compile_loop(
                    start,
                    advance,
                    self.task,
                    (path.data, rate, seed),
                    lanes=self.lanes,
                    capacity=self.capacity,
                )
            )
        options = compiling.options()
        args = (self.task, path.data, rate, seed)
        started = jax.jit(start).lower(*args).compile(options)
        state = jax.eval_shape(start, *args)
        advanced = jax.jit(advance, donate_argnums=3).lower(*args[:3], state).compile(options)
        return CompiledLoop(
            functools.partial(started, self.task), functools.partial(advanced, self.task)
        )

    def prepare(self, flow: dataflow.Dataflow, learning_rate: float, seed: int) -> PreparedRun:
        """Return a run of a program, ready to start.

        Compiling is guarded: two threads that need the same loop compile it once.
        """
        path = training_paths.choose(
            flow, self.task.layout, num_steps=self.config.num_steps, capacity=self.capacity
        )
        rate, key = np.float32(learning_rate), np.uint32(seed)
        with self._lock:
            functions = self._compiled.pop(path.compiles_as, None)
            if functions is None:
                functions = self._compile(path, rate, key)
            self._compiled[path.compiles_as] = functions  # the last used comes last
            own = [key for key in self._compiled if key is not None]
            if len(own) >= MAX_COMPILED:
                del self._compiled[own[0]]
        return PreparedRun(path.data, rate, key, functions)

    def run(
        self, flow: dataflow.Dataflow, learning_rate: float, run: ProxyRun, hurdle: Sequence[float]
    ) -> RunResult:
        """Make one run: train at the objective's learning rates, and score.

        Args:
          flow: Program, lowered and folded.
          learning_rate: Learning rate of the rule.
          run: Proxy and seed.
          hurdle: Limits at each check of training at the rule's own rate, then of the score; empty
            for no hurdle.
        """
        began = time.perf_counter()
        own = self._train(flow, learning_rate, run.seed, hurdle)
        status, log_losses, num_steps = own.status, own.curve, own.num_steps
        if status is Status.OK:
            trained: list[Training | None] = [own.measured]
            for factor in self._objective.rate_factors[1:]:
                other = self._train(flow, learning_rate * factor, run.seed, ())
                num_steps += other.num_steps
                trained.append(other.measured if other.status is Status.OK else None)
            score = self._objective.score(trained)
            if not math.isfinite(score):
                status = Status.DIVERGED
            elif not self._objective.is_last_check:
                log_losses = (*log_losses, score)
                if hurdle and score > hurdle[-1]:
                    status = Status.REJECTED
        return RunResult(
            run=run,
            status=status,
            loss=own.loss if math.isfinite(own.loss) else None,
            log_losses=log_losses,
            num_steps=num_steps,
            wall_s=time.perf_counter() - began,
            message=own.message,
        )

    def _train(
        self, flow: dataflow.Dataflow, learning_rate: float, run_seed: int, hurdle: Sequence[float]
    ) -> _Trained:
        """Train once, to the end or to the first check that fails."""
        prepared = self.prepare(flow, learning_rate, run_seed)
        num_chunks, num_steps = self.config.num_chunks, self.config.num_steps
        state = prepared.start()
        status, loss, curve, chunk, message = Status.OK, math.nan, [], 0, ""
        reports: list[_Report] = []
        for chunk in range(num_chunks):
            state, numbers = prepared.advance(state)
            report = _Report.read(numbers)
            loss = report.loss
            if not (report.finite and math.isfinite(loss) and math.isfinite(report.normalized)):
                status = Status.DIVERGED
                break
            reports.append(report)
            curve.append(self._objective.checked(report.train_normalized, report.normalized))
            if chunk < len(hurdle) and curve[-1] > hurdle[chunk]:
                status = Status.REJECTED
                break
        if status is Status.OK:
            message = _why_hollow(reports)
            status = Status.HOLLOW if message else Status.OK
        measured = Training(
            task=self.config.task,
            seed=run_seed,
            learning_rate=learning_rate,
            num_steps=num_steps,
            steps=tuple((i + 1) * num_steps // num_chunks for i in range(len(reports))),
            train_losses=tuple(report.train for report in reports),
            valid_losses=tuple(report.loss for report in reports),
            train=tuple(report.train_normalized for report in reports),
            valid=tuple(report.normalized for report in reports),
        )
        done = (chunk + 1) * num_steps // num_chunks
        return _Trained(status, tuple(curve), done, loss, measured, message)

    def gradient(self, job: GradientJob) -> Gradient:
        """Differentiate the score of runs by a rule's numbers; the objective is a loss."""
        of_training = isinstance(self._objective, objectives.TrainLoss)
        window = self.config.num_steps // self.config.num_chunks if of_training else None
        return constant_gradients.take(job, self.task, self.config, window, self._seed)


def _why_hollow(reports: Sequence[_Report]) -> str:
    """Return why the checks show that a completed run is hollow; empty for an honest one."""
    first, last = reports[0], reports[-1]
    code = hollow.judge(
        last.normalized,
        last.ended.before,
        last.ended.after,
        last.start_size,
        last.ended.size,
        peak_size=last.peak_size,
        train=(first.train_normalized, last.train_normalized) if len(reports) > 1 else None,
        lowest=min(report.lowest for report in reports),
    )
    return hollow.REASONS[int(code)]


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
        """Train an `EvalJob`'s runs in order, to the first that fails, or do a `GradientJob`."""
        if isinstance(payload, GradientJob):
            return self._loops[payload.proxy].gradient(payload)
        job = payload
        assert isinstance(job, EvalJob)
        flow = dataflow.lower(job.genotype.program, fold=True)
        results: list[RunResult] = []
        for position, run in enumerate(job.runs):
            limits = job.limits(position, sum(result.log_losses[-1] for result in results))
            result = self._loops[run.proxy].run(flow, job.genotype.learning_rate, run, limits)
            results.append(result)
            if result.status is not Status.OK:
                break
        return Outcome.of(results)


@final
class EvaluatorFactory:
    """Makes the workers of a pool.

    The workers of one process share their compiled loops; a copy in another process makes its own.
    """

    def __init__(self, config: EvaluatorConfig):
        self.config = config
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
                    )
                    for proxy in self.config.proxies
                ]
            return Evaluator(self._loops)

    def __reduce__(self) -> tuple[type["EvaluatorFactory"], tuple[EvaluatorConfig]]:
        return EvaluatorFactory, (self.config,)
