"""The training loop of one proxy task, compiled once, and the runs that it makes.

A run is trained in equal chunks. After each, the loss on the proxy's validation split is taken, a
*check*: there a run that has diverged stops. At its end a run whose loss training did not earn is
found out (`tasks.inner_loop.hollow`). Whatever goes wrong is a status beside the loss, never a NaN
and never an exception.
"""

import functools
import math
import threading
import time
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from veldt.search.config import objectives
from veldt.search.config.objectives import Objective, Training
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.evaluation import constant_gradients
from veldt.search.evaluation.constant_gradients import Gradient, GradientJob
from veldt.search.evaluation.jobs import ProxyRun, RunResult, Status
from veldt.search.language import dataflow
from veldt.search.runtime import encode, lane_interpreter, training_paths
from veldt.search.runtime import lanes as lanes_lib
from veldt.tasks import task_objects
from veldt.tasks.benchmark.protocol import schedules
from veldt.tasks.common import compiling
from veldt.tasks.inner_loop import flat, hollow, unroll

# Most loops that a proxy keeps compiled: the interpreter's, and those of the last programs with
# a loop of their own.
MAX_COMPILED: Final = 4


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
class PreparedRun(NamedTuple):
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
        tasks: task_objects.TaskObjects = task_objects.NONE,
    ):
        self.config = config
        self.capacity = capacity
        self.lanes = lanes
        self._seed = seed
        self.objective = objective
        self.task = flat.FlatTask(tasks.load(config.task))
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
            if self.objective.scores_training:
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

    def begin(self, flow: dataflow.Dataflow, learning_rate: float, run: ProxyRun) -> "Course":
        """Begin a run, and make none of its steps."""
        return Course(self, flow, learning_rate, run)

    def run(
        self, flow: dataflow.Dataflow, learning_rate: float, run: ProxyRun, hurdle: Sequence[float]
    ) -> RunResult:
        """Make one run, to its end or to the first check that is above a limit.

        Args:
          flow: Program, lowered and folded.
          learning_rate: Learning rate of the rule.
          run: Proxy and seed.
          hurdle: Limits at each check of training at the rule's own rate, then of the score; empty
            for no limits.
        """
        course = self.begin(flow, learning_rate, run)
        while course.advance():
            check = len(course.log_losses) - 1
            if check < len(hurdle) and course.log_losses[check] > hurdle[check]:
                course.reject()
        return course.result()

    def gradient(self, job: GradientJob) -> Gradient:
        """Differentiate the score of runs by a rule's numbers; the objective is a loss."""
        of_training = isinstance(self.objective, objectives.TrainLoss)
        window = self.config.num_steps // self.config.num_chunks if of_training else None
        return constant_gradients.take(job, self.task, self.config, window, self._seed)


@final
class Course:
    """One run, from check to check: training at the rule's own rate, then the score.

    An objective that trains at other learning rates too does so before it scores; that is one more
    check, whose value is the score.

    Attributes:
      run: Proxy and seed.
      status: Status so far.
      log_losses: Values of the checks so far, which limits are compared with.
    """

    def __init__(
        self, loop: ProxyLoop, flow: dataflow.Dataflow, learning_rate: float, run: ProxyRun
    ):
        self.run = run
        self.status = Status.OK
        self.log_losses: list[float] = []
        self._loop, self._flow, self._rate = loop, flow, learning_rate
        self._num_steps, self._wall_s, self._message = 0, 0.0, ""
        self._own: _Trainer | None = None
        self._ended = False

    def advance(self) -> bool:
        """Go on to the next check; return whether there was one, and its value is finite."""
        if self._ended or self.status is not Status.OK:
            return False
        began = time.perf_counter()
        if self._own is None:
            self._own = _Trainer(self._loop, self._flow, self._rate, self.run.seed)
        before = len(self.log_losses)
        if not self._own.ended:
            self._train(self._own)
        else:
            self._score(self._own)
        self._wall_s += time.perf_counter() - began
        return len(self.log_losses) > before

    def _train(self, own: "_Trainer") -> None:
        """Train to the next check, and at the last one score where training is all there is."""
        value = own.advance()
        self._num_steps = own.num_steps
        self.status, self._message = own.status, own.message
        if value is not None:
            self.log_losses.append(value)
        if own.ended and self.status is Status.OK and self._loop.objective.is_last_check:
            self._score(own)

    def _score(self, own: "_Trainer") -> None:
        """Train at the objective's other rates, and score."""
        objective = self._loop.objective
        self._ended = True
        trained: list[Training | None] = [own.measured()]
        for factor in objective.rate_factors[1:]:
            other = _Trainer(self._loop, self._flow, self._rate * factor, self.run.seed)
            while not other.ended:
                other.advance()
            self._num_steps += other.num_steps
            trained.append(other.measured() if other.status is Status.OK else None)
        score = objective.score(trained)
        if not math.isfinite(score):
            self.status = Status.DIVERGED
        elif not objective.is_last_check:
            self.log_losses.append(score)

    def reject(self) -> None:
        """Give the run up, unless it has diverged."""
        if self.status is not Status.DIVERGED:
            self.status, self._message = Status.REJECTED, ""

    def result(self) -> RunResult:
        """Return the result of the run as it stands."""
        loss = self._own.loss if self._own is not None else math.nan
        return RunResult(
            run=self.run,
            status=self.status,
            loss=loss if math.isfinite(loss) else None,
            log_losses=tuple(self.log_losses),
            num_steps=self._num_steps,
            wall_s=self._wall_s,
            message=self._message,
        )


@final
class _Trainer:
    """Training at one learning rate, chunk by chunk, to the end or to where it diverges."""

    def __init__(
        self, loop: ProxyLoop, flow: dataflow.Dataflow, learning_rate: float, run_seed: int
    ):
        self.status, self.message, self.loss, self.num_steps = Status.OK, "", math.nan, 0
        self._loop, self._rate, self._seed = loop, learning_rate, run_seed
        self._prepared = loop.prepare(flow, learning_rate, run_seed)
        self._state = self._prepared.start()
        self._reports: list[_Report] = []

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to train."""
        return self.status is not Status.OK or len(self._reports) == self._loop.config.num_chunks

    def advance(self) -> float | None:
        """Train a chunk; return what the check is worth, or None if it has diverged."""
        config = self._loop.config
        self._state, numbers = self._prepared.advance(self._state)
        report = _Report.read(numbers)
        self.loss = report.loss
        self.num_steps += config.num_steps // config.num_chunks
        if not (report.finite and math.isfinite(report.loss) and math.isfinite(report.normalized)):
            self.status = Status.DIVERGED
            return None
        self._reports.append(report)
        if self.ended:
            self.message = _why_hollow(self._reports)
            self.status = Status.HOLLOW if self.message else Status.OK
        return self._loop.objective.checked(report.train_normalized, report.normalized)

    def measured(self) -> Training:
        """Return all that an objective may score."""
        config, reports = self._loop.config, self._reports
        return Training(
            task=config.task,
            seed=self._seed,
            learning_rate=self._rate,
            num_steps=config.num_steps,
            steps=tuple(
                (i + 1) * config.num_steps // config.num_chunks for i in range(len(reports))
            ),
            train_losses=tuple(report.train for report in reports),
            valid_losses=tuple(report.loss for report in reports),
            train=tuple(report.train_normalized for report in reports),
            valid=tuple(report.normalized for report in reports),
        )


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
