"""Learned example weights against wrong labels: share of the lost accuracy that comes back.

    python benchmarks/data_weights.py [--trials 5] [--updates 30] [--seeds 8]

The 8x8 digits are split anew in each trial: 1,000 rows for training, of which 30% get a wrong label
(uniformly one of the nine others), 200 clean rows for validation, 597 for test. A perceptron of one
hidden layer of 128 GELU units is trained by Adam for 400 steps of 50 rows, long enough to learn
many of the wrong labels by heart.

Learned weights: one number for each training row, through a sigmoid, moved by `veldt.tune`: Adam
along the metagradient of the validation loss through the whole training, new seeds of training at
each update. The validation rows are never trained on; the test rows enter only the score.
The scored models are trained from scratch on seeds of their own, the mean of 4. "Recovered" is
(accuracy - that of all rows as they are) / (that with clean labels - that of all rows as they are).

    clean             the true labels
    noisy             all rows as they are: nothing recovered
    random            a random 70% of them
    loss              without the 30% of highest loss, after training on all of them
    loss_early        the same after an eighth of the training (the small-loss trick)
    early_stopping    all rows, the number of steps chosen by accuracy on the validation rows
    oracle            the 70% whose labels are right
    validation        the 200 clean rows alone
    with_validation   all rows as they are and the 200 clean ones
    learned           all rows, weighted
    learned_selection without the 30% of least weight; the share is given, as for `loss`

Processor time on two cores: about two minutes a trial, most of it metagradients.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.meta.replay import task_training
from veldt.meta.tune import descent
from veldt.meta.tune.training import optimizers, shaped_task
from veldt.tasks import base
from veldt.tasks.benchmark.runs import provenance
from veldt.tasks.common import compiling, types
from veldt.tasks.data import dataset
from veldt.tasks.inner_loop import unroll
from veldt.tasks.shipped import image_models, supervised

# Shapes: N training rows, S seeds.

RESULTS: Final = Path(__file__).parent / "results" / "data_weights.json"
SHARE_WRONG: Final = 0.3
NUM_SCORING: Final = 4
STOPS: Final = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # Shares of the run.
EARLY: Final = 1 / 8
TRUSTED: Final = 5.0  # The logit of a row whose label is known to be right: a weight of 0.993.
NUM_DRAWS: Final = 4000
MEMORY: Final = 2**30
# Seeds of runs. Those of metagradients count from 0.
SCORING: Final = 1_000_000_000
CHOOSING: Final = 500_000_000


@final
@dataclasses.dataclass(frozen=True)
class Setting:
    """A data set and how it is learned.

    Attributes:
      load: Function that returns the splits, which are pooled and drawn anew.
      num_classes: Number of classes.
      num_train: Number of rows for training, some with wrong labels.
      num_valid: Number of clean rows.
      num_test: Number of test rows, at most.
      num_steps: Number of steps of training.
      horizon: Number of steps of the shorter training that metagradients go through.
      batch_size: Number of rows of a step.
      rate: Learning rate of Adam.
    """

    load: Callable[[], dataset.Splits]
    num_classes: int
    num_train: int
    num_valid: int
    num_test: int
    num_steps: int
    horizon: int
    batch_size: int
    rate: float


SETTINGS: Final[Mapping[str, Setting]] = {
    "digits": Setting(dataset.load_digits, 10, 1000, 200, 597, 500, 60, 100, 0.01),
    "letters": Setting(dataset.load_letters, 26, 4000, 500, 4000, 500, 100, 128, 0.01),
}

Rows = dataset.Examples


def draw(setting: Setting, trial: int) -> tuple[Rows, Rows, Rows, np.ndarray, np.ndarray]:
    """Return train rows as they are, validation, test, the true labels, and which are wrong."""
    parts = setting.load().values()
    inputs = np.concatenate([np.asarray(part.inputs) for part in parts])
    labels = np.concatenate([np.asarray(part.targets) for part in parts])
    rng = np.random.RandomState(trial)
    order = rng.permutation(len(inputs))
    ends = np.cumsum([setting.num_train, setting.num_valid, setting.num_test])
    train, valid, test, _ = np.split(order, ends)
    is_wrong = np.zeros(len(train), bool)
    is_wrong[rng.permutation(len(train))[: round(SHARE_WRONG * len(train))]] = True
    shifts = rng.randint(1, setting.num_classes, len(train))
    noisy = np.where(is_wrong, (labels[train] + shifts) % setting.num_classes, labels[train])
    return (
        Rows(inputs[train], noisy.astype(np.int32)),
        Rows(inputs[valid], labels[valid]),
        Rows(inputs[test], labels[test]),
        labels[train],
        is_wrong,
    )


@final
class Lab:
    """The trainings of a setting.

    Attributes:
      setting: Data set and training.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._train = compiling.jit(self._run)

    def task(self, train: Rows, valid: Rows, test: Rows) -> supervised.SupervisedTask:
        """Return the task of learning `train`."""
        setting = self.setting
        return supervised.SupervisedTask(
            name="wrong_labels",
            module=image_models.Mlp((128, setting.num_classes), nn.gelu),
            criterion=supervised.cross_entropy,
            splits=supervised.on_device({"train": train, "valid": valid, "test": test}),
            batch_size=setting.batch_size,
            eval_size=setting.num_test,
            reference_loss=jnp.asarray(np.log(setting.num_classes), jnp.float32),
        )

    def make(
        self, logits: jax.Array, task: supervised.SupervisedTask
    ) -> tuple[base.Task, optax.GradientTransformation]:
        """Return the task with example weights sigmoid(logits), and its optimizer."""
        weights = jax.nn.sigmoid(logits)
        # Of mean 1: weights say which rows matter, and not how large the loss is.
        shape = shaped_task.Shape(example_weights=weights / jnp.mean(weights))
        return shaped_task.ShapedTask(task, shape), optimizers.adam(self.setting.rate)

    def train(
        self, task: base.Task, logits: np.ndarray, keys: jax.Array, share: float = 1.0
    ) -> types.Params:
        """Return the parameters trained on each key in a share of the steps, leaves [S, ...]."""
        num_steps = round(share * self.setting.num_steps)
        return self._train(task, jnp.asarray(logits, jnp.float32), keys, num_steps)

    def _run(
        self, task: Any, logits: jax.Array, keys: jax.Array, num_steps: types.Scalar
    ) -> types.Params:
        shaped, tx = self.make(logits, task)

        def run(key: types.Key) -> types.Params:
            def step(_: types.Scalar, state: unroll.UnrollState) -> unroll.UnrollState:
                return unroll.step_fn(shaped, tx, state)[0]

            return jax.lax.fori_loop(0, num_steps, step, unroll.init(shaped, tx, key)).params

        return jax.vmap(run)(keys)

    def learn(
        self, task: supervised.SupervisedTask, trial: int, num_updates: int, seeds: int, rate: float
    ) -> tuple[np.ndarray, tuple[float, ...]]:
        """Return the learned logits, float [N], and the validation loss before each update."""
        path: list[Any] = []

        def training_of(update: int) -> task_training.TaskTraining:
            first = (trial * 1000 + update) * seeds
            return task_training.TaskTraining.of(
                self.make, self.setting.horizon, seeds=range(first, first + seeds), data=task
            )

        def report(update: int, outcome: float, logits: Any) -> None:
            path.append(logits)
            if update % 10 == 0:
                print(f"  update {update:3}  validation loss {outcome:.4f}", flush=True)

        tuned = descent.tune(
            training_of,
            jnp.zeros(self.setting.num_train),
            num_updates=num_updates,
            learning_rate=rate,
            memory_bytes=MEMORY,
            report=report,
        )
        # Outcomes of single updates are of few seeds: the last weights, not those of the luckiest.
        return np.asarray(path[-1]), tuned.outcomes


@jax.jit
def _logits(task: supervised.SupervisedTask, params: types.Params, inputs: jax.Array) -> jax.Array:
    def of_one(params: types.Params) -> jax.Array:
        return jnp.asarray(task.module.apply(params, inputs))

    return jax.vmap(of_one)(params)


def accuracy(task: supervised.SupervisedTask, params: types.Params, split: types.Split) -> float:
    """Return the share of rows that are classified right, the mean over seeds."""
    rows = task.splits[split]
    found = np.argmax(_logits(task, params, rows.inputs), axis=-1)  # [S, rows]
    return float(np.mean(found == np.asarray(rows.targets)))


def mean_losses(task: supervised.SupervisedTask, params: types.Params) -> np.ndarray:
    """Return the loss of each training row, the mean over seeds, float [N]."""
    rows = task.splits["train"]
    logs = np.asarray(jax.nn.log_softmax(_logits(task, params, rows.inputs)))  # [S, N, C]
    return -logs[:, np.arange(len(rows.targets)), np.asarray(rows.targets)].mean(axis=0)


def run_trial(name: str, lab: Lab, trial: int, args: Any) -> dict[str, Any]:
    """Run one trial and return its record."""
    setting = lab.setting
    noisy, valid, test, labels, is_wrong = draw(setting, trial)
    rng = np.random.RandomState(1000 + trial)
    seeds = trial * 100 + jnp.arange(NUM_SCORING)
    scoring, choosing = (jax.vmap(jax.random.key)(first + seeds) for first in (SCORING, CHOOSING))
    plain = lab.task(noisy, valid, test)
    flat = np.zeros(setting.num_train)
    num_wrong = int(is_wrong.sum())

    def score(rows: Rows, logits: np.ndarray | None = None, share: float = 1.0) -> float:
        logits = np.zeros(len(rows.inputs)) if logits is None else logits
        task = lab.task(rows, valid, test)
        return accuracy(task, lab.train(task, logits, scoring, share), "test")

    def without_worst(badness: np.ndarray) -> Rows:
        return dataset.take(noisy, np.sort(np.argsort(badness)[:-num_wrong]))

    began, began_cpu = time.monotonic(), time.process_time()
    logits, outcomes = lab.learn(plain, trial, args.updates, args.seeds, args.rate)
    wall_s, cpu_s = time.monotonic() - began, time.process_time() - began_cpu
    stopped = {share: lab.train(plain, flat, choosing, share) for share in STOPS}
    stop = max(STOPS, key=lambda share: accuracy(plain, stopped[share], "valid"))
    badness = {
        "random": rng.rand(setting.num_train),
        "loss": mean_losses(plain, stopped[1]),
        "loss_early": mean_losses(plain, stopped[EARLY]),
        "oracle": is_wrong.astype(float),
        "learned_selection": -logits,
    }
    merged = Rows(*(np.concatenate(pair) for pair in zip(noisy, valid, strict=True)))
    found = {
        "clean": score(Rows(noisy.inputs, labels)),
        "noisy": score(noisy),
        **{method: score(without_worst(each)) for method, each in badness.items()},
        "early_stopping": score(noisy, share=stop),
        "validation": score(valid),
        "with_validation": score(merged),
        "learned": score(noisy, logits),
        "learned_with_validation": score(
            merged, np.append(logits, np.full(setting.num_valid, TRUSTED))
        ),
    }
    return {
        "setting": name,
        "trial": trial,
        "accuracy": found,
        "auc": {method: auc(each, is_wrong) for method, each in badness.items()},
        "stop": stop,
        "outcomes": outcomes,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
    }


def auc(badness: np.ndarray, is_wrong: np.ndarray) -> float:
    """Return how often a wrong row is worse than a right one, ties as halves."""
    wrong, right = badness[is_wrong], np.sort(badness[~is_wrong])
    below, upto = (np.searchsorted(right, wrong, side) for side in ("left", "right"))
    return float(np.mean(below + upto) / 2 / len(right))


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return for each method the means over trials and the recovered share with its interval."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(records), size=(NUM_DRAWS, len(records)))
    accuracies = {
        method: np.array([r["accuracy"][method] for r in records])
        for method in records[0]["accuracy"]
    }
    noisy, clean = accuracies["noisy"], accuracies["clean"]
    table = {}
    for method, values in accuracies.items():
        shares = (values - noisy) / (clean - noisy)
        low, high = np.quantile(np.median(shares[rows], axis=1), [0.025, 0.975])
        table[method] = {
            "accuracy": float(np.mean(values)),
            "recovered": float(np.median(shares)),
            "low": float(low),
            "high": float(high),
            "recovered_of_means": float(np.mean(values - noisy) / np.mean(clean - noisy)),
            "shares": shares.tolist(),
        }
        if method in records[0]["auc"]:
            table[method]["auc"] = statistics.mean(r["auc"][method] for r in records)
    return table


def show(name: str, records: Sequence[dict[str, Any]], table: dict[str, dict[str, Any]]) -> None:
    """Print a setting's table."""
    cpu_s = statistics.median(r["cpu_s"] for r in records)
    wall_s = statistics.median(r["wall_s"] for r in records)
    print(
        f"\n{name}: {len(records)} trials; learning the weights took {cpu_s:.0f} processor s, "
        f"{wall_s:.0f} s\n{'':18} {'accuracy':>8} {'recovered':>9} {'95%':>15} {'AUC':>6}"
    )
    for method, row in sorted(table.items(), key=lambda item: -item[1]["accuracy"]):
        interval = f"{row['low']:.2f}..{row['high']:.2f}"
        found = f"{row['auc']:.3f}" if "auc" in row else ""
        print(
            f"{method:18} {row['accuracy']:8.4f} {row['recovered']:9.2f} {interval:>15} {found:>6}"
        )


def main() -> None:
    """Run the trials, print the tables and write `results/data_weights.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", default=["digits"], choices=list(SETTINGS))
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--updates", type=int, default=30, help="metagradients of a trial")
    parser.add_argument("--seeds", type=int, default=8, help="runs side by side of a metagradient")
    parser.add_argument("--rate", type=float, default=0.6, help="learning rate of the outer Adam")
    parser.add_argument("--folder", type=Path, default=Path("runs/data_weights"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if min(args.trials, args.updates, args.seeds) < 1:
        parser.error("--trials, --updates and --seeds: at least 1")
    compiling.keep_compiled()
    args.folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Any] = {}
    everything: list[dict[str, Any]] = []
    for name in args.settings:
        lab, records = Lab(SETTINGS[name]), []
        for trial in range(args.trials):
            path = args.folder / f"{name}_{trial}.json"
            if not path.exists():
                path.write_text(json.dumps(run_trial(name, lab, trial, args)))
            records.append(json.loads(path.read_text()))
            print(name, trial, json.dumps(records[-1]["accuracy"]), flush=True)
        tables[name] = summarise(records)
        show(name, records, tables[name])
        everything += records
    result = {
        "versions": provenance.versions(),
        "share_wrong": SHARE_WRONG,
        "updates": args.updates,
        "seeds": args.seeds,
        "rate": args.rate,
        "tables": tables,
        "records": everything,
    }
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
