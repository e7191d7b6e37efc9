"""What a meta-gradient is worth: how well each estimator points, for the time that it takes.

    python benchmarks/meta_signal.py [--minutes 15] [--only scaled celo2] [--folder FOLDER]

Hypothesis: few numbers learn fastest from evolution strategies on whole runs, and windows or
backpropagation pay where there are many weights or runs are long. The recipe of
`configs/scaled.yaml` follows from the table.

A *case* is an architecture, a family of tasks and a length of runs. At the start an estimator may
see no more than that rates are too low or too high; so one case is after some updates on its
family, by backpropagation through whole runs, where what is left is less plain. The *reference* is
the mean of many antithetic pairs on whole runs, in two independent halves. Each *arm*, an estimator
with its settings, is then asked several times; estimators of windows are asked for as many windows
as a run has, and the mean counts as one estimate, so that one estimate of every arm is of whole
runs. What is wanted is the gradient of the logarithm of the final loss, smoothed by the noise.
Truncated estimators are given the mean loss of a window instead: of the final loss all windows but
the last say nothing.

For each arm and case the script measures

- `seconds`: processor seconds of an estimate, compiling left out;
- `cosine`: with the true gradient, of one estimate;
- `share_after`: the squared cosine of the mean of as many estimates as fit into 1, 10 and 100
  seconds, where one does. It is the share of the progress that a step along the true gradient
  makes, to first order, and 1 minus it is the squared error after the best scaling, relative to the
  gradient. An estimator that is biased stays below 1 however long it is asked.

Means of products of different estimates, and of the two halves of the reference, stand for squared
lengths, so that noise lengthens nothing. Intervals are 95% bootstrap intervals over estimates; the
noise of the reference is not in them, and `reference_cosine`, between its halves, tells its size.

It can be stopped and called again: each arm of each case is kept in `--folder`. What does not fit
into `--minutes` is left for the next call. Writes `results/meta_signal.json`.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import jax
import numpy as np
import optax

from veldt import config as config_lib
from veldt.meta.train import build, outer_step
from veldt.meta.train.config import EstimatorConfig, MetaTrainConfig, PhaseConfig
from veldt.tasks import base
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.families import models

RESULTS: Final = Path(__file__).parent / "results" / "meta_signal.json"
WINDOW: Final = 50
SIGMA: Final = 0.02
LEARNING_RATE: Final = 0.01  # of the updates before a case
BUDGETS_S: Final = (1.0, 10.0, 100.0)
_NUM_RESAMPLES: Final = 400
_LEAST_ESTIMATES, _MOST_ESTIMATES = 6, 40
_TINY: Final = 1e-30

FAMILIES: Final[Mapping[str, models.Structure]] = {
    "perceptron": models.Structure("perceptron", (32,), "silu", 16, "leaves"),
    "regression": models.Structure("tabular", (32, 8), "elu", 16, "diabetes"),
}
DATA_SIZES: Final = (100, 10000)


@final
@dataclasses.dataclass(frozen=True)
class Case:
    """What a gradient is of.

    Attributes:
      config: Name of the config of a meta-training, whose fields the architecture has.
      architecture: Name of the architecture.
      family: Name in `FAMILIES`.
      num_steps: Length of a run, a multiple of `WINDOW`.
      num_pairs: Number of pairs of the reference, both halves together.
      num_updates: Number of updates before the gradient is taken.
    """

    config: str
    architecture: str
    family: str
    num_steps: int
    num_pairs: int
    num_updates: int = 0

    def __str__(self) -> str:
        trained = f", after {self.num_updates} updates" if self.num_updates else ""
        return f"{self.architecture}, {self.family}, {self.num_steps} steps{trained}"


CASES: Final = (
    Case("scaled", "scaled", "perceptron", 100, 512),
    Case("scaled", "scaled", "perceptron", 500, 256),
    Case("scaled", "scaled", "perceptron", 200, 1024, num_updates=30),
    Case("scaled", "scaled", "regression", 500, 512),
    Case("scaled", "scaled_recurrent", "perceptron", 100, 1024),
    Case("celo2", "celo2", "perceptron", 100, 1024),
)

ARMS: Final[Mapping[str, EstimatorConfig]] = {
    "full_es_2": EstimatorConfig("full_es", num_particles=2, objective="log_final"),
    "full_es_16": EstimatorConfig("full_es", num_particles=16, objective="log_final"),
    "full_es_signs": EstimatorConfig("full_es", num_particles=16, objective="log_final", sign=True),
    "pes": EstimatorConfig("pes", num_particles=8, objective="log_final"),
    "nres": EstimatorConfig("nres", num_particles=8, objective="log_final"),
    "truncated_es": EstimatorConfig("truncated_es", num_particles=8, objective="mean"),
    "truncated_backprop": EstimatorConfig("truncated_backprop", num_particles=8, objective="mean"),
    "full_backprop": EstimatorConfig("full_backprop", num_particles=8, objective="log_final"),
}
"""Estimators by name; `full_es_2` is 2 pairs, and so on."""


@final
@dataclasses.dataclass(frozen=True)
class Sampled:
    """Estimates of one arm.

    Attributes:
      estimates: Estimates, float [k, d].
      seconds: Processor seconds of one, the mean.
    """

    estimates: np.ndarray
    seconds: float


@final
class Asked:
    """An arm on a case, whose estimates are asked for one by one."""

    def __init__(self, case: Case, how: EstimatorConfig, seed: int, start: Any):
        settings = config_lib.load_config(MetaTrainConfig, case.config)
        settings = dataclasses.replace(settings, architecture=case.architecture)
        how = dataclasses.replace(how, window=WINDOW, sigma=SIGMA)
        phase = PhaseConfig("all", 1, lengths=(case.num_steps,) * 2, estimator=how)
        self._each = build.make_estimator(settings, phase, family_of(case), {})
        is_whole = how.kind in ("full_es", "full_backprop")
        self._num_windows = 1 if is_whole else case.num_steps // WINDOW
        self._meta_params = start
        self._key = jax.random.key(seed)
        self._state = outer_step.begin(self._each, self._meta_params, jax.random.key(seed + 1))
        if not is_whole:
            self.ask()  # First runs are cut short, so that particles stand at different steps.

    def ask(self) -> np.ndarray:
        """Return the next estimate, float [d]."""
        total: Any = 0.0
        for _ in range(self._num_windows):
            self._key, key = jax.random.split(self._key)
            meta_grad, self._state, _ = outer_step.estimate(
                self._each, self._meta_params, self._state, key
            )
            total = total + np.concatenate([np.ravel(x) for x in jax.tree.leaves(meta_grad)])
        return np.asarray(total / self._num_windows, np.float64)

    def sample(self, least: int, most: int, budget_s: float) -> Sampled:
        """Ask within a budget, `least` times or more; what is compiled first is not counted."""
        self.ask()
        found: list[np.ndarray] = []
        began = time.process_time()
        while len(found) < least or (len(found) < most and time.process_time() - began < budget_s):
            found.append(self.ask())
        return Sampled(np.stack(found), (time.process_time() - began) / len(found))


def family_of(case: Case) -> base.TaskFamily:
    """Return the family of a case."""
    return FAMILIES[case.family].family(data_sizes=DATA_SIZES)


def start_of(case: Case) -> Any:
    """Return the meta-parameters of a case: untrained, or after its updates."""
    settings = config_lib.load_config(MetaTrainConfig, case.config)
    settings = dataclasses.replace(settings, architecture=case.architecture)
    meta_params = build.architecture(settings).init(jax.random.key(1))
    if not case.num_updates:
        return meta_params
    how = dataclasses.replace(ARMS["full_backprop"], window=WINDOW)
    phase = PhaseConfig("all", 1, lengths=(case.num_steps,) * 2, estimator=how)
    each = build.make_estimator(settings, phase, family_of(case), {})
    tx = optax.adam(LEARNING_RATE)
    opt_state = tx.init(meta_params)
    for update in range(case.num_updates):
        key = jax.random.fold_in(jax.random.key(2), update)
        meta_grad, _, _ = outer_step.estimate(each, meta_params, (), key)
        meta_params, opt_state, _ = outer_step.move(tx, meta_params, opt_state, (meta_grad,))
    return meta_params


def reference(case: Case, start: Any) -> np.ndarray:
    """Return the two halves of the reference, float [2, d]."""
    pairs = 32
    how = dataclasses.replace(ARMS["full_es_16"], num_particles=pairs)
    asked = Asked(case, how, seed=100, start=start)
    count = case.num_pairs // pairs
    found = asked.sample(count, count, 0.0).estimates
    return np.stack([found[::2].mean(axis=0), found[1::2].mean(axis=0)])


@final
@dataclasses.dataclass(frozen=True)
class Quality:
    """How well estimates point; all by means of products of different estimates.

    Attributes:
      along: Product of the expected estimate and the gradient.
      gradient: Squared length of the gradient.
      expected: Squared length of the expected estimate.
      variance: Expected squared distance of an estimate from its expectation.
    """

    along: float
    gradient: float
    expected: float
    variance: float

    @classmethod
    def of(cls, estimates: np.ndarray, halves: np.ndarray) -> "Quality":
        """Return the quality of estimates [k, d] beside a reference in halves [2, d]."""
        count = len(estimates)
        squares = np.sum(np.square(estimates))
        total = np.sum(np.square(np.sum(estimates, axis=0)))
        expected = (total - squares) / (count * (count - 1))
        return cls(
            along=float(np.mean(estimates @ halves.mean(axis=0))),
            gradient=float(halves[0] @ halves[1]),
            expected=float(expected),
            variance=float(squares / count - expected),
        )

    def cosine(self, num_estimates: float) -> float:
        """Return the cosine of the gradient and a mean of so many estimates, -1 to 1."""
        square = max(self.expected, 0.0) + self.variance / num_estimates
        length = np.sqrt(max(self.gradient, _TINY) * max(square, _TINY))
        return float(np.clip(self.along / length, -1.0, 1.0))

    def share(self, num_estimates: float) -> float:
        """Return the share of first-order progress; 0 if the step would go uphill."""
        return max(self.cosine(num_estimates), 0.0) ** 2


def row(sampled: Sampled, halves: np.ndarray) -> dict[str, Any]:
    """Return what the results say of an arm on a case."""
    random = np.random.default_rng(0)
    count = len(sampled.estimates)
    whole = Quality.of(sampled.estimates, halves)
    # A resample without what it drew twice: a product of an estimate with itself is a square.
    drawn = [np.unique(random.integers(count, size=count)) for _ in range(_NUM_RESAMPLES)]
    resampled = [Quality.of(sampled.estimates[rows], halves) for rows in drawn if len(rows) > 2]

    def interval(value: Any) -> dict[str, float]:
        low, high = np.quantile([value(each) for each in resampled], [0.025, 0.975])
        return {"value": value(whole), "low": float(low), "high": float(high)}

    return {
        "estimates": count,
        "seconds": sampled.seconds,
        "cosine": interval(lambda quality: quality.cosine(1)),
        "share_after": {
            f"{budget:g}": interval(
                lambda quality, budget=budget: quality.share(budget / sampled.seconds)
            )
            for budget in BUDGETS_S
            if budget >= sampled.seconds
        },
    }


def main() -> None:
    """Measure what is not yet kept, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=8.0, help="of estimates, for each arm")
    parser.add_argument("--only", nargs="+", choices=sorted({c.architecture for c in CASES}))
    parser.add_argument("--folder", type=Path, default=Path("runs/meta_signal"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * args.minutes
    cases = [case for case in CASES if not args.only or case.architecture in args.only]
    for case in cases:
        start = None
        for arm in ("reference", *ARMS):
            path = kept(args.folder, case, arm)
            if path.exists() or time.monotonic() > ends:
                continue
            start = start_of(case) if start is None else start
            began = time.monotonic()
            if arm == "reference":
                content = {"halves": reference(case, start).tolist()}
            else:
                asked = Asked(case, ARMS[arm], seed=7, start=start)
                sampled = asked.sample(_LEAST_ESTIMATES, _MOST_ESTIMATES, args.seconds)
                content = {"estimates": sampled.estimates.tolist(), "seconds": sampled.seconds}
            atomic_files.write_bytes(path, json.dumps(content).encode())
            print(f"{case}: {arm}, {time.monotonic() - began:.0f} s", flush=True)
    write(args.folder)


def kept(folder: Path, case: Case, arm: str) -> Path:
    """Return the file of an arm on a case."""
    return (
        folder / f"{case.architecture}-{case.family}-{case.num_steps}-{case.num_updates}-{arm}.json"
    )


@functools.cache
def load(path: Path) -> dict[str, Any]:
    """Return what a file keeps."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(folder: Path) -> None:
    """Write and print the results of all that is kept."""
    cases = []
    for case in CASES:
        if not kept(folder, case, "reference").exists():
            continue
        halves = np.asarray(load(kept(folder, case, "reference"))["halves"])
        arms = {}
        for arm in ARMS:
            if kept(folder, case, arm).exists():
                found = load(kept(folder, case, arm))
                sampled = Sampled(np.asarray(found["estimates"]), found["seconds"])
                arms[arm] = row(sampled, halves)
        lengths = np.linalg.norm(halves, axis=1)
        agree = float(halves[0] @ halves[1] / lengths.prod())
        print(f"\n{case}: cosine of the reference's halves {agree:.2f}")
        for arm, each in arms.items():
            shares = "  ".join(
                f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]"
                for s in each["share_after"].values()
            )
            print(f"  {arm:20}{each['seconds']:8.3f} s {each['cosine']['value']:7.3f}  {shares}")
        cases.append(
            {
                **dataclasses.asdict(case),
                "num_meta_params": halves.shape[1],
                "reference_cosine": agree,
                "arms": arms,
            }
        )
    result = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "window": WINDOW,
        "sigma": SIGMA,
        "families": {name: str(structure) for name, structure in FAMILIES.items()},
        "cases": cases,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULTS.name}")


if __name__ == "__main__":
    main()
