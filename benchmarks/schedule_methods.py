"""The methods of `schedules.py`: each chooses a learning-rate schedule by validation loss alone.

A method gets a `Lab` (a task and how it is trained), a budget in forward runs and the number of
the search, and returns a `Found`. All train with the same differentiable Adam on the same task.
Methods that need a range of rates (grids, random search, hypergradient descent, one-pass) get
`start` to 100 times `start`, which has the best constant rate in about its middle. Those that
need a point (metagradients, forward mode, CMA-ES) get `start`, a tenth of the best.

Where candidates are compared on noisy losses, half of the budget goes to all of them evenly, and
the other half to the best sixteenth (`screen`): at equal cost a better choice than an even spread.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
import optax
import schedule_lab
from schedule_lab import CHUNK, RANGE, Found, Lab

from veldt.meta.baselines import (
    black_box,
    forward_sharing,
    grids,
    hypergradient_descent,
    initial_rates,
    one_pass,
    refinement,
)
from veldt.meta.hypergradient import bilevel
from veldt.meta.replay import fallback
from veldt.meta.tune import config, config_descent, loop, problem, tuning_jobs, tuning_worker
from veldt.meta.tune.training import hyperparameters, optimizers
from veldt.tasks import base
from veldt.tasks.common import compiling, types
from veldt.tasks.inner_loop import unroll
from veldt.tasks.pool import pools

# Shapes: N runs, T steps, K knots, C candidates.

KNOTS: Final = 8
SEGMENTS: Final = 6  # Of forward mode, whose cost is in proportion.


def _grid(lab: Lab, grid: grids.ScheduleGrid, num_runs: int, search: int) -> Found:
    first = schedule_lab.choosing_seed(search)
    best, loss = schedule_lab.screen(lab.valid, grid.rates, num_runs, first)
    settings = {name: float(values[best]) for name, values in grid.settings.items()}
    return lab.found(grid.rates[best], {**settings, "valid": loss}, num_runs)


def constant(lab: Lab, num_runs: int, search: int) -> Found:
    """Sweep 24 constant rates."""
    return _grid(lab, grids.constant(lab.range_of(24), num_steps=lab.num_steps), num_runs, search)


def linear(lab: Lab, num_runs: int, search: int) -> Found:
    """Search a grid of 20 peaks and 3 ends, linear between."""
    grid = grids.linear(lab.range_of(20), (0.0, 0.1, 0.3), num_steps=lab.num_steps)
    return _grid(lab, grid, num_runs, search)


def cosine(lab: Lab, num_runs: int, search: int) -> Found:
    """Search a grid of 20 peaks and 3 ends, a half cosine between."""
    grid = grids.cosine(lab.range_of(20), (0.0, 0.1, 0.3), num_steps=lab.num_steps)
    return _grid(lab, grid, num_runs, search)


def power(lab: Lab, num_runs: int, search: int) -> Found:
    """Search a grid of 20 peaks and 3 exponents of a power decay."""
    grid = grids.power(lab.range_of(20), (0.5, 1.5, 2.5), num_steps=lab.num_steps)
    return _grid(lab, grid, num_runs, search)


def cooldown(lab: Lab, num_runs: int, search: int) -> Found:
    """Search a grid of 20 peaks and 3 starts of a cooldown."""
    grid = grids.cooldown(lab.range_of(20), (0.4, 0.6, 0.8), num_steps=lab.num_steps)
    return _grid(lab, grid, num_runs, search)


def _thousand(lab: Lab) -> grids.ScheduleGrid:
    start = lab.entry.start
    return grids.one_cycle_thousand(start, RANGE * start, num_steps=lab.num_steps)


def one_cycle(lab: Lab, num_runs: int, search: int) -> Found:
    """Try as many of the 1,000 one-cycle schedules, drawn, as half the budget has runs."""
    grid = _thousand(lab)
    rows = np.random.default_rng(search).choice(1000, min(num_runs // 2, 1000), replace=False)
    return _grid(lab, jax.tree.map(lambda x: x[rows], grid), num_runs, search)


def one_cycle_1000(lab: Lab, num_runs: int, search: int) -> Found:
    """Try all 1,000 one-cycle schedules and the best 62 four times more: the bar, at its cost."""
    del num_runs
    return _grid(lab, _thousand(lab), 1250, search)


def random_search(lab: Lab, num_runs: int, search: int) -> Found:
    """Try knots drawn independently in the range."""
    start = lab.entry.start
    method = black_box.RandomSearch(num_runs // 2, math.log(RANGE) / 2)
    centre = jnp.full(KNOTS, math.log(start) + math.log(RANGE) / 2)
    key = jax.random.key(search)
    knots, _ = method.ask(method.init(centre, key), key)
    rates = jax.vmap(lambda knots: grids.from_knots(knots, lab.num_steps))(knots)
    best, loss = schedule_lab.screen(lab.valid, rates, num_runs, schedule_lab.choosing_seed(search))
    return lab.found(rates[best], {"valid": loss}, num_runs)


def cma_es(lab: Lab, num_runs: int, search: int) -> Found:
    """Search knots by CMA-ES; a generation shares a seed of training; the last mean is chosen."""
    method = black_box.CmaEs(population_size=12)
    key = jax.random.key(search)
    state = method.init(jnp.full(KNOTS, math.log(lab.entry.start)), key)
    generations = num_runs // method.population_size
    for generation in range(generations):
        key_ask, key_tell = jax.random.split(jax.random.fold_in(key, generation))
        knots, state = method.ask(state, key_ask)
        rates = jax.vmap(lambda knots: grids.from_knots(knots, lab.num_steps))(knots)
        keys = schedule_lab.seed_keys(schedule_lab.choosing_seed(search) + generation, 1)
        keys = jnp.repeat(keys, len(knots))
        state = method.tell(state, knots, jnp.asarray(lab.valid(rates, keys)), key_tell)
    rates = grids.from_knots(method.mean(state), lab.num_steps)
    return lab.found(rates, {"generations": generations}, generations * method.population_size)


def refined(lab: Lab, num_runs: int, search: int) -> Found:
    """Sweep linear decays, refine by the gradient norms of the best, and sweep the new shape."""
    seed, norm_runs = schedule_lab.choosing_seed(search), 4
    half = (num_runs - norm_runs) // 2
    grid = grids.linear(lab.range_of(20), (0.0,), num_steps=lab.num_steps)
    best, _ = schedule_lab.screen(lab.valid, grid.rates, half, seed)
    norms = _norms(lab.task, grid.rates[best], schedule_lab.seed_keys(seed + 100_000, norm_runs))
    shape = refinement.refine(np.mean(norms, axis=0), power=1.0)
    peaks = lab.range_of(20)
    rates = jnp.asarray(np.outer(peaks, shape), jnp.float32)
    best, loss = schedule_lab.screen(lab.valid, rates, half, seed + 200_000)
    return lab.found(rates[best], {"peak": peaks[best], "valid": loss}, num_runs)


def _recorded(task: base.Task, rates: jax.Array, keys: jax.Array) -> jax.Array:
    def run(key: types.Key) -> jax.Array:
        record = refinement.record_gradient_norms(rates.shape[0], order=1)
        tx = optax.chain(record, optimizers.adam(grids.as_schedule(rates)))
        state, _ = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=rates.shape[0])
        return state.opt_state[0].norms

    return jax.lax.map(run, keys)


_norms = compiling.jit(_recorded)


def _rated(lab: Lab, runs: Callable[..., jax.Array], axes: Mapping[str, Sequence[float]]) -> Any:
    """Return candidates of the product of settings, leaves [C], and the losses of runs."""
    rows = np.array(list(itertools.product(*axes.values())), np.float32)
    candidates = {name: jnp.asarray(rows[:, i]) for i, name in enumerate(axes)}
    return candidates, lambda settings, keys: schedule_lab.in_chunks(
        lambda settings, keys: runs(lab.task, lab.num_steps, settings, keys), settings, keys
    )


def _adaptive(
    lab: Lab,
    runs: Callable[..., jax.Array],
    axes: Mapping[str, Sequence[float]],
    num_runs: int,
    search: int,
    *,
    cost: float,
    states: int,
) -> Found:
    """Choose the settings of a training that has a rate of its own at each step."""
    candidates, losses = _rated(lab, runs, axes)
    affordable = int(num_runs / cost)
    best, loss = schedule_lab.screen(
        lambda settings, keys: losses(settings, keys)[:, 0],
        candidates,
        affordable,
        schedule_lab.choosing_seed(search),
    )
    chosen = jax.tree.map(lambda x: x[best], candidates)
    return Found(
        lambda keys: losses(
            jax.tree.map(lambda x: jnp.broadcast_to(x, (len(keys),)), chosen), keys
        )[:, 1],
        None,
        {**{name: float(x) for name, x in chosen.items()}, "valid": loss},
        affordable * cost,
        states,
    )


def _hypergradient_runs(task: base.Task, num_steps: int, settings: Any, keys: jax.Array) -> Any:
    def run(xs: tuple[Any, types.Key]) -> jax.Array:
        settings, key = xs
        rule = hypergradient_descent.multiplicative(settings["beta"])
        tx = hypergradient_descent.adam_hd(settings["rate"], rule)
        state, _ = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=num_steps)
        return schedule_lab.both_losses(task, state.params, key)

    return jax.lax.map(run, (settings, keys))


_hypergradient = compiling.jit(_hypergradient_runs, static_argnums=1)


def hypergradient(lab: Lab, num_runs: int, search: int, cost: float) -> Found:
    """Search first rates and rates of change of Adam-HD, multiplicative."""
    axes = {"rate": lab.range_of(6), "beta": [0.003, 0.01, 0.03, 0.1, 0.3]}
    return _adaptive(lab, _hypergradient, axes, num_runs, search, cost=cost, states=2)


@final
@dataclasses.dataclass(frozen=True)
class BatchProblem(bilevel.BilevelProblem):
    """A task on one training batch, judged on its validation split.

    Attributes:
      task: Task that is trained.
      batch: Batch for training.
      key: Key of the losses.
    """

    task: base.Task
    batch: Any
    key: types.Key

    def train_loss(self, params: types.Params, hyper: bilevel.HyperParams) -> types.Scalar:
        del hyper
        return self.task.loss(params, self.key, self.batch)[0]

    def valid_loss(self, params: types.Params, hyper: bilevel.HyperParams) -> types.Scalar:
        del hyper
        return self.task.loss(params, self.key, self.task.eval_batch("valid"))[0]


EVERY: Final = 10  # Steps between two hypergradients, the paper's T.


def _one_pass_runs(task: base.Task, num_steps: int, settings: Any, keys: jax.Array) -> Any:
    def run(xs: tuple[Any, types.Key]) -> jax.Array:
        settings, key = xs
        method = one_pass.OnePass(
            lambda hyper: optimizers.adam(jnp.exp(hyper)),
            optax.adam(settings["step"]),
            num_train_steps=1,
        )

        def problem_of(i: jax.Array) -> BatchProblem:
            return BatchProblem(task, task.train_batch(jax.random.fold_in(key, i)), key)

        def block(state: one_pass.OnePassState, first: jax.Array) -> Any:
            def plain(i: jax.Array, state: one_pass.OnePassState) -> one_pass.OnePassState:
                params, opt_state = bilevel.descend(
                    problem_of(i),
                    method.make_tx(state.hyper),
                    state.params,
                    state.opt_state,
                    state.hyper,
                    num_steps=1,
                )
                return dataclasses.replace(state, params=params, opt_state=opt_state)

            state = jax.lax.fori_loop(first, first + EVERY - 1, plain, state)
            return method.step(problem_of(first + EVERY - 1), state, key)

        params = task.init(jax.random.fold_in(key, num_steps))
        state = method.init(problem_of(jnp.zeros((), jnp.int32)), params, jnp.log(settings["rate"]))
        state, _ = jax.lax.scan(block, state, jnp.arange(0, num_steps, EVERY))
        return schedule_lab.both_losses(task, state.params, key)

    return jax.lax.map(run, (settings, keys))


_one_pass = compiling.jit(_one_pass_runs, static_argnums=1)


def one_pass_descent(lab: Lab, num_runs: int, search: int, cost: float) -> Found:
    """Tune by Clarke et al.'s one-pass tuning, a hypergradient every 10 steps, look-back 5."""
    axes = {"rate": lab.range_of(5), "step": [0.05, 0.1, 0.2]}
    return _adaptive(lab, _one_pass, axes, num_runs, search, cost=cost, states=3)


def _forward_gradient(
    task: base.Task, values: jax.Array, key: types.Key, num_steps: int
) -> tuple[types.Scalar, jax.Array]:
    return forward_sharing.forward_gradient(task, optimizers.adam, values, key, num_steps=num_steps)


_forward = compiling.jit(_forward_gradient, static_argnums=3)


def forward_mode(lab: Lab, num_runs: int, search: int, cost: float) -> Found:
    """Tune by FDS: rates of 6 segments from the flat start, at most 10% a run, as in the paper."""
    start = lab.entry.start
    values = jnp.full(SEGMENTS, start)
    tx = forward_sharing.bounded_descent(min_change=0.1 * start)
    state = tx.init(values)
    steps = int(num_runs / cost)
    for i in range(steps):
        key = schedule_lab.seed_keys(schedule_lab.choosing_seed(search) + i, 1)[0]
        _, grads = _forward(lab.task, values, key, lab.num_steps)
        updates, state = tx.update(grads, state, values)
        values = jnp.maximum(optax.apply_updates(values, updates), 0.01 * start)
    rates = values[jnp.arange(lab.num_steps) * SEGMENTS // lab.num_steps]
    return lab.found(rates, {"steps": steps}, steps * cost, SEGMENTS + 1)


def hypergradient_once(lab: Lab) -> None:
    """Run a chunk of hypergradient descent, to be timed."""
    _once(lab, _hypergradient, {"rate": [lab.entry.start], "beta": [0.01]})


def one_pass_once(lab: Lab) -> None:
    """Run a chunk of one-pass tuning, to be timed."""
    _once(lab, _one_pass, {"rate": [lab.entry.start], "step": [0.05]})


def _once(lab: Lab, runs: Callable[..., jax.Array], axes: Mapping[str, Sequence[float]]) -> None:
    candidates, losses = _rated(lab, runs, axes)
    keys = schedule_lab.seed_keys(schedule_lab.CHOOSING - 1000, CHUNK)
    losses(jax.tree.map(lambda x: jnp.broadcast_to(x, (CHUNK,)), candidates), keys)


def forward_once(lab: Lab) -> None:
    """Take one gradient of forward mode, to be timed."""
    values = jnp.full(SEGMENTS, lab.entry.start)
    jax.block_until_ready(_forward(lab.task, values, jax.random.key(0), lab.num_steps))


def step_law_rate(lab: Lab) -> float:
    """Return Step Law's peak for a language task, far below the sizes it was fitted to."""
    params = jax.eval_shape(lab.task.init, jax.random.key(0))["params"]
    sizes = {
        name: sum(math.prod(x.shape) for x in jax.tree.leaves(part))
        for name, part in params.items()
    }
    without = sum(size for name, size in sizes.items() if not name.startswith("Embed"))
    window = lab.task.splits["train"].inputs.shape[1]
    return initial_rates.step_law_learning_rate(
        without, lab.num_steps * lab.task.batch_size * window
    )


def step_law(lab: Lab, num_runs: int, search: int) -> Found:
    """Return Step Law's peak under a cosine down to 1e-5, without a search."""
    del num_runs, search
    peak = step_law_rate(lab)
    grid = grids.cosine([peak], [1e-5 / peak], num_steps=lab.num_steps)
    return lab.found(grid.rates[0], {"peak": peak}, 0)


def tune_config(
    lab: Lab, search: int, *, start: float, num_updates: int, seeds: int
) -> config.TuneConfig:
    """Return the config of the tuning, as `veldt tune` would have it from a file."""
    return config.TuneConfig(
        task=f"schedule_tasks:{lab.name}",
        num_steps=lab.num_steps,
        optimizer="adam",
        tune={"learning_rate": hyperparameters.Hyperparameter(start, knots=KNOTS)},
        num_updates=num_updates,
        seeds=seeds,
        outer=config.OuterConfig(learning_rate=0.3),
        check_every=5,
        check_seeds=16,
        seed=search,
    )


def tune_runs(settings: config.TuneConfig, cost: float) -> float:
    """Return the forward runs of a tuning, if a metagradient of one seed takes `cost`."""
    checks = settings.num_updates // settings.check_every + 1
    verified = -(-settings.num_updates // settings.check_every)
    return (
        settings.num_updates * settings.seeds * cost
        + verified * 5 * settings.seeds
        + checks * settings.check_seeds
    )


def metagradient(lab: Lab, settings: config.TuneConfig, cost: float) -> Found:
    """Tune by `veldt tune` from a flat schedule; fast trust checks at its checks."""
    watcher = _Watcher()
    subject = problem.Problem(settings)
    progress = loop.TuningProgress(0, subject.meta_params)
    factory = tuning_worker.TuningWorkerFactory(settings)
    with pools.make_pool(settings.pool, factory) as workers:
        descent = config_descent.make(settings, subject, tuning_jobs.TuningJobs(workers))
        progress = loop.run(descent, progress, watcher)
    spec = settings.tune["learning_rate"]
    assert progress.best is not None
    schedule: Any = spec.value(jnp.asarray(progress.best["learning_rate"]), settings.num_steps)
    rates = jax.vmap(schedule)(jnp.arange(settings.num_steps))
    found = {
        "updates": settings.num_updates,
        "seeds": settings.seeds,
        "start": spec.start,
        "looks": watcher.outcomes,
        "verdicts": watcher.distrusted,
        "fallbacks": progress.num_fallbacks,
        "untried": watcher.num_untried,
        "skipped": progress.num_skipped,
        "peak_bytes": watcher.peak_bytes,
        "plan": watcher.plan,
    }
    estimated = fallback.NUM_RUNS * progress.num_fallbacks - (cost - 1) * watcher.num_untried
    forward_runs = tune_runs(settings, cost) + settings.seeds * estimated
    return lab.found(rates, found, forward_runs, settings.num_steps)


@final
class _Watcher:
    """A watcher that keeps figures of a tuning for the record."""

    def __init__(self) -> None:
        self.outcomes: list[float] = []
        self.distrusted: list[str] = []
        self.num_untried = 0  # Estimates without a metagradient, since the last one had failed.
        self.peak_bytes, self.plan = 0, ""

    def doing(self, text: str) -> None:
        del text

    def updated(self, progress: loop.TuningProgress, figures: Mapping[str, Any]) -> None:
        del progress
        if "off the differences" in figures["verdict"]:
            self.distrusted.append(figures["verdict"])
        if figures["peak_bytes"] is None:
            self.num_untried += 1
        else:
            self.peak_bytes, self.plan = figures["peak_bytes"], figures["plan"]

    def checked(self, progress: loop.TuningProgress, figures: Mapping[str, Any]) -> None:
        del progress
        self.outcomes.append(figures["outcome"])
