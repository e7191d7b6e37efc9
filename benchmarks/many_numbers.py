r"""Two hundred and more hyperparameters at once: metagradients against rivals at equal compute.

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        python benchmarks/many_numbers.py --folder DIR [--trials 5] [--tasks mlp_gelu ...]

*Hypothesis*, fixed before anything was run: on at least three of four tasks a metagradient that
learns all numbers ends at a lower test loss than every rival that had as much processor time, and
the 95% interval of the paired difference is clear of 0.

*Tasks.* The four kinds of model of `schedule_tasks`, with GELU, for 200 steps of AdamW. Learning
rate, weight decay and both averages of each layer (`by: layer`) have 20 knots over the run, smooth
over two of them: 240 numbers for three layers. They start from the flat rate of `schedule_tasks`, a
tenth of the best constant one.

| arm | what it moves |
|---|---|
| metagradient | all numbers: `veldt tune`, with its trust checks |
| es_many | all numbers, by 8 antithetic pairs of runs an update, and the same outer Adam |
| cma_many | all numbers, by CMA-ES |
| cma_few | five: the rate's ends, geometric between them, weight decay and both averages |
| random_few | the same five, drawn around the start, screened |
| cosine | peaks and ends of a cosine, screened; all else as at the start |

*Budget.* Processor seconds without compiling: what the metagradient's updates and checks took in
that trial. A rival stops with the generation in which it has used as much, so it has a little more.

*Measure.* All arms choose by validation loss: those that move a point by 16 runs on fixed seeds,
every fifth update, as `veldt tune` does; those that screen by their own runs. The choice is trained
on 16 seeds that no trial has had, and its mean test loss counts. Differences are paired by trial:
all arms of a trial have the same seeds. Intervals are 95%, by Student's t over trials.

Each result is a line in `--folder` and is not made again. Writes `results/many_numbers.json`.
"""

import argparse
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import intervals
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import schedule_lab
import schedule_tasks

from veldt.meta.baselines import black_box, grids
from veldt.meta.tune import config, config_descent, loop, problem, tuning_jobs, tuning_worker
from veldt.meta.tune.training.hyperparameters import Hyperparameter
from veldt.tasks import base
from veldt.tasks.benchmark.runs import provenance
from veldt.tasks.common import compiling
from veldt.tasks.inner_loop import unroll
from veldt.tasks.pool import pools

# Shapes: N runs, C candidates.

RESULTS: Final = Path(__file__).parent / "results" / "many_numbers.json"
TASKS: Final = ("mlp_gelu", "conv_gelu", "autoencoder_gelu", "transformer_gelu")
OURS: Final = "metagradient"
NUM_STEPS: Final = 200
KNOTS: Final = 20
NUM_CHECKED: Final = 16
NUM_REPORTING: Final = 16
CHECK_EVERY: Final = 5
NUM_PAIRS: Final = 8
SIGMA: Final = 0.1  # Of evolution strategies, on the scales of the numbers: ten per cent.
OUTER_RATE: Final = 0.1
NUM_DRAWN: Final = 64  # Candidates of a screening.
WIDTH: Final = math.log(schedule_lab.RANGE) / 2  # Of random search, in units of the scales.

Point = Mapping[str, Any]


@final
class Search(NamedTuple):
    """What an arm is given.

    Attributes:
      name: Name of the task.
      trial: Number of the trial.
      updates: Updates of the metagradient.
      budget_s: Processor seconds, without compiling.
    """

    name: str
    trial: int
    updates: int
    budget_s: float

    @property
    def first_seed(self) -> int:
        """The first seed of the runs that choose."""
        return schedule_lab.choosing_seed(self.trial)


def tune_config(search: Search, kind: str) -> config.TuneConfig:
    """Return the config of many numbers, of few, or of a rate that is given step by step."""
    start = schedule_tasks.TASKS[search.name].start
    rest = {"weight_decay": (1e-3, "log"), "b1": (0.9, "logit"), "b2": (0.99, "logit")}
    own: dict[str, Any] = {}
    if kind == "many":
        own = {"knots": KNOTS, "by": "layer", "smooth": 2.0}
    rates = {
        "many": Hyperparameter(start, **own),
        "few": Hyperparameter(start, knots=2),
        "by_step": Hyperparameter(start, "linear", NUM_STEPS),
    }
    tune = {"learning_rate": rates[kind]}
    tune |= {
        name: Hyperparameter(value, scale, **own)  # type: ignore[arg-type]
        for name, (value, scale) in rest.items()
    }
    return config.TuneConfig(
        task=f"schedule_tasks:{search.name}",
        num_steps=NUM_STEPS,
        optimizer="adamw",
        tune=tune,
        num_updates=search.updates,
        outer=config.OuterConfig(learning_rate=OUTER_RATE),
        check_every=CHECK_EVERY,
        check_seeds=NUM_CHECKED,
        seed=search.trial,
    )


def _runs(make: problem.Make, task: base.Task, points: Point, keys: jax.Array) -> jax.Array:
    def run(xs: tuple[Point, jax.Array]) -> jax.Array:
        point, key = xs
        shaped, tx = make(point, task)
        state, _ = unroll.unroll(shaped, tx, unroll.init(shaped, tx, key), num_steps=NUM_STEPS)
        return schedule_lab.both_losses(task, state.params, key)

    return jax.lax.map(run, (points, keys))


_losses = compiling.jit(_runs, static_argnums=0)


@final
class Lab:
    """The trainings of one kind of numbers.

    Attributes:
      subject: Trainings of the tuning.
      start: Numbers at the start, on their scales.
    """

    def __init__(self, search: Search, kind: str):
        settings = tune_config(search, kind)
        self.subject = problem.Problem(settings)
        self.start: Point = jax.tree.map(jnp.asarray, dict(self.subject.meta_params))
        self._make = problem.Make.of(settings, self.subject.task)
        self._search = search

    def losses(self, points: Any, keys: jax.Array) -> np.ndarray:
        """Return validation and test losses [N, 2] of runs, points' leaves [N, ...]."""
        run = functools.partial(_losses, self._make, self.subject.task)
        return schedule_lab.in_chunks(run, points, keys)

    def valid(self, points: Any, keys: jax.Array) -> np.ndarray:
        """Return validation losses [N]."""
        found: np.ndarray = self.losses(points, keys)[:, 0]
        return found

    def at(self, point: Point, first_seed: int, count: int) -> np.ndarray:
        """Return both losses [N, 2] of one point on some seeds."""
        repeated = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), point)
        return self.losses(repeated, schedule_lab.seed_keys(first_seed, count))

    def check(self, point: Point) -> float:
        """Return the mean validation loss on the seeds that points are compared by."""
        found = self.at(point, self._search.first_seed + 500_000, NUM_CHECKED)[:, 0]
        return float(np.mean(found)) if np.isfinite(found).all() else math.inf


class Clock:
    """Processor seconds of a search; what it compiles is compiled before."""

    def __init__(self, budget_s: float):
        self._began, self._budget_s = time.process_time(), budget_s

    @property
    def used_s(self) -> float:
        """Processor seconds so far."""
        return time.process_time() - self._began

    @property
    def is_up(self) -> bool:
        """Whether the budget is used."""
        return self.used_s >= self._budget_s


class Chosen(NamedTuple):
    """The choice of an arm.

    Attributes:
      lab: Trainings that the point is one of.
      point: Numbers on their scales.
      used_s: Processor seconds.
      updates: Updates or generations.
    """

    lab: Lab
    point: Point
    used_s: float
    updates: int


def metagradient(search: Search) -> Chosen:
    """Tune all numbers by `veldt tune`."""
    settings = tune_config(search, "many")
    lab = Lab(search, "many")
    factory = tuning_worker.TuningWorkerFactory(settings)

    def tune(settings: config.TuneConfig) -> loop.TuningProgress:
        with pools.make_pool(settings.pool, factory) as workers:
            jobs = tuning_jobs.TuningJobs(workers)
            descent = config_descent.make(settings, lab.subject, jobs)
            return loop.run(descent, loop.TuningProgress(0, lab.subject.meta_params))

    tune(dataclasses.replace(settings, num_updates=1))  # Compiles.
    clock = Clock(math.inf)
    ended = tune(settings)
    assert ended.best is not None
    return Chosen(lab, ended.best, clock.used_s, ended.update)


def _descend(search: Search, lab: Lab, move: Callable[[int], Point]) -> Chosen:
    """Move a point until the budget is used; return the best that was checked.

    Args:
      search: Task and budget.
      lab: Trainings.
      move: Function that makes a generation, by its number, and returns the point.
    """
    lab.check(lab.start)  # Compiles.
    clock, number = Clock(search.budget_s), 0
    best, best_loss = lab.start, lab.check(lab.start)
    while not clock.is_up:
        point = move(number)
        number += 1
        if number % CHECK_EVERY == 0 or clock.is_up:
            loss = lab.check(point)
            if loss < best_loss:
                best, best_loss = point, loss
    return Chosen(lab, best, clock.used_s, number)


def es_many(search: Search) -> Chosen:
    """Move all numbers along an estimate by antithetic pairs, by the outer Adam of `veldt tune`."""
    lab = Lab(search, "many")
    # As many updates as pay for their runs: the decay is to end where the budget does.
    one_s = _seconds(lab, 2 * NUM_PAIRS + NUM_CHECKED / CHECK_EVERY)
    outer = loop.make_outer(
        tune_config(search, "many").outer, max(round(search.budget_s / one_s), 1)
    )
    state = {"point": lab.start, "outer": outer.init(lab.start)}
    flat, unravel = jax.flatten_util.ravel_pytree(lab.start)
    rng = np.random.default_rng(search.trial)

    def move(number: int) -> Point:
        noise = rng.standard_normal((NUM_PAIRS, flat.size)).astype(np.float32)
        here, _ = jax.flatten_util.ravel_pytree(state["point"])
        both = jnp.concatenate([here + SIGMA * noise, here - SIGMA * noise])
        keys = schedule_lab.seed_keys(search.first_seed + number * NUM_PAIRS, NUM_PAIRS)
        losses = lab.valid(jax.vmap(unravel)(both), jnp.concatenate([keys, keys]))
        difference = losses[:NUM_PAIRS] - losses[NUM_PAIRS:]
        usable = np.isfinite(difference)
        if usable.any():
            weights = np.where(usable, difference, 0.0) / (2 * SIGMA * usable.sum())
            grads = unravel(jnp.asarray(weights @ noise, jnp.float32))
            steps, state["outer"] = outer.update(grads, state["outer"], state["point"])
            state["point"] = jax.tree.map(jnp.add, state["point"], steps)
        return state["point"]

    return _descend(search, lab, move)


def _cma(search: Search, kind: str) -> Chosen:
    lab = Lab(search, kind)
    method = black_box.CmaEs(population_size=schedule_lab.CHUNK)
    key = jax.random.key(search.trial)
    state = [method.init(lab.start, key)]
    method.ask(state[0], key)

    def move(number: int) -> Point:
        key_ask, key_tell = jax.random.split(jax.random.fold_in(key, number))
        points, state[0] = method.ask(state[0], key_ask)
        keys = jnp.repeat(schedule_lab.seed_keys(search.first_seed + number, 1), schedule_lab.CHUNK)
        losses = jnp.asarray(lab.valid(points, keys))
        state[0] = method.tell(state[0], points, losses, key_tell)
        return method.mean(state[0])

    return _descend(search, lab, move)


def _seconds(lab: Lab, num_runs: float) -> float:
    """Return the processor seconds of some runs, compiled before."""
    lab.check(lab.start)
    clock = Clock(math.inf)
    lab.check(lab.start)
    return clock.used_s / NUM_CHECKED * num_runs


def _screen(search: Search, lab: Lab, candidates: Point) -> Chosen:
    """Choose among candidates [C] with as many runs as the budget pays for."""
    num_runs = max(round(search.budget_s / _seconds(lab, 1)), NUM_DRAWN)
    clock = Clock(search.budget_s)
    best, _ = schedule_lab.screen(lab.valid, candidates, num_runs, search.first_seed)
    return Chosen(lab, jax.tree.map(lambda x: x[best], candidates), clock.used_s, num_runs)


def random_few(search: Search) -> Chosen:
    """Screen few numbers that are drawn around the middle of the range of rates."""
    lab = Lab(search, "few")
    centre = {**lab.start, "learning_rate": lab.start["learning_rate"] + WIDTH}
    key = jax.random.key(search.trial)
    method = black_box.RandomSearch(NUM_DRAWN, WIDTH)
    points, _ = method.ask(method.init(centre, key), key)
    return _screen(search, lab, points)


def cosine(search: Search) -> Chosen:
    """Screen 20 peaks and 3 ends of a cosine, with all else as at the start."""
    lab = Lab(search, "by_step")
    start = schedule_tasks.TASKS[search.name].start
    peaks = np.geomspace(start, schedule_lab.RANGE * start, 20).tolist()
    grid = grids.cosine(peaks, (0.0, 0.1, 0.3), num_steps=NUM_STEPS)
    rates = jnp.asarray(grid.rates)
    rest = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(rates), *x.shape)), dict(lab.start))
    return _screen(search, lab, {**rest, "learning_rate": rates})


RIVALS: Final[Mapping[str, Callable[[Search], Chosen]]] = {
    "es_many": es_many,
    "cma_many": functools.partial(_cma, kind="many"),
    "cma_few": functools.partial(_cma, kind="few"),
    "random_few": random_few,
    "cosine": cosine,
}


def run(search: Search, arm: str) -> dict[str, Any]:
    """Run one arm and score its choice."""
    chosen = metagradient(search) if arm == OURS else RIVALS[arm](search)
    losses = chosen.lab.at(chosen.point, schedule_lab.REPORTING, NUM_REPORTING)
    return {
        "task": search.name,
        "arm": arm,
        "trial": search.trial,
        "test": float(np.mean(losses[:, 1])),
        "valid": float(np.mean(losses[:, 0])),
        "numbers": 2 if arm == "cosine" else sum(x.size for x in chosen.lab.start.values()),
        "processor_s": chosen.used_s,
        "updates": chosen.updates,
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return each arm's test loss by task, and the metagradient's less it."""
    tables: dict[str, Any] = {}
    for task in dict.fromkeys(one["task"] for one in found):
        by = {
            arm: {r["trial"]: r for r in found if r["task"] == task and r["arm"] == arm}
            for arm in (OURS, *RIVALS)
        }
        tables[task] = {}
        for arm, rows in by.items():
            both = sorted(set(rows) & set(by[OURS]))
            if not both:
                continue
            tables[task][arm] = {
                "numbers": rows[both[0]]["numbers"],
                "test": intervals.of_mean([rows[trial]["test"] for trial in both]),
                "processor_s": float(np.mean([rows[trial]["processor_s"] for trial in both])),
                "ours_less": intervals.of_mean(
                    [by[OURS][trial]["test"] - rows[trial]["test"] for trial in both]
                ),
            }
    return tables


def main() -> None:
    """Run what is missing, print and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    compiling.keep_compiled()
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "records.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for task in args.tasks:
        for trial in range(args.trials):
            for arm in (OURS, *RIVALS):
                own = [r for r in found if r["task"] == task and r["trial"] == trial]
                if any(r["arm"] == arm for r in own):
                    continue
                budget_s = next((r["processor_s"] for r in own if r["arm"] == OURS), math.inf)
                found.append(run(Search(task, trial, args.updates, budget_s), arm))
                with path.open("a") as file:
                    file.write(json.dumps(found[-1]) + "\n")
                print(json.dumps(found[-1]), flush=True)
    tables = summary(found)
    for task, rows in tables.items():
        print(f"\n{task}: test loss, and the metagradient's less it")
        for arm, row in rows.items():
            print(
                f"{arm:14}{row['numbers']:5} {intervals.text(row['test']):>20}"
                f"{intervals.text(row['ours_less']):>20} {row['processor_s']:6.0f} s"
            )
    content = {
        "command": "python benchmarks/many_numbers.py --folder DIR",
        "versions": provenance.versions(),
        "updates": args.updates,
        "steps": NUM_STEPS,
        "reporting_seeds": NUM_REPORTING,
        "tables": tables,
        "records": found,
    }
    args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
