"""The runs of `proxies.py`: eleven rules at five rates on each task, made once and kept."""

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from veldt.search import rule_sources
from veldt.search.config import objectives
from veldt.search.config.objectives import NOTHING_LEARNT, Objective, Training
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.evaluation.jobs import ProxyRun, Status
from veldt.search.evaluation.proxy_loop import ProxyLoop
from veldt.search.language import dataflow
from veldt.search.runtime.encode import Capacity

# Rules, and the middle of the five rates.
RULES: Final = {
    "sgd": 0.3,
    "momentum": 0.1,
    "signsgd": 10**-2.75,
    "lion": 10**-2.75,
    "adagrad": 0.1,
    "rmsprop": 10**-2.25,
    "adam": 0.01,
    "nadam": 0.01,
    "adamw": 0.01,
    "muon": 10**-1.75,
    "carom": 10**-2.25,
}
CANDIDATES: Final = (
    "digits_mlp",
    "digits_autoencoder",
    "letters_logistic",
    "letters_mlp",
    "digits_mlp_deep",
    "digits_conv",
    "digits_autoencoder_deep",
    "breast_cancer_mlp",
    "breast_cancer_logistic",
    "digits_vae",
    "char_gru",
    "char_transformer",
)
TARGETS: Final = ("digits_resnet", "digits_diffusion", "digits_vit", "prose_gru")
HORIZONS: Final = (100, 200, 400, 800)
LONG: Final = 1000
CHUNK: Final = 20
CHECKS: Final = 5  # Of a search's run: its training loss is the mean over the last fifth.
OBJECTIVES: Final = ("held_out_loss", "train_loss")
FIRST_MEASURED: Final = 100


@final
class Watch(Objective):
    """Remembers the normalised losses of all checks, whatever becomes of the run."""

    description = "losses of all checks"
    rate_factors = (1.0,)
    is_last_check = True
    scores_training = True

    def __init__(self) -> None:
        self.curve: list[tuple[float, float]] = []

    def checked(self, train: float, valid: float) -> float:
        """Keep both losses of a check."""
        self.curve.append((train, valid))
        return objectives.log_loss(valid)

    def score(self, trained: Sequence[Training | None]) -> float:
        """Return the last check's."""
        return objectives.log_loss(self.curve[-1][1])


def horizons_of(task: str) -> tuple[int, ...]:
    """Return the horizons at which a task is scored."""
    return (LONG,) if task in TARGETS else HORIZONS


def scores_of(curve: Sequence[tuple[float, float]], horizon: int) -> dict[str, float]:
    """Return the scores of a run at a horizon; nothing is learnt where it has failed by then."""
    checks = curve[: horizon // CHUNK]
    if len(checks) < horizon // CHUNK:
        return dict.fromkeys(OBJECTIVES, NOTHING_LEARNT)
    train = np.mean([train for train, _ in checks[-(horizon // CHUNK // CHECKS) :]])
    return {
        "held_out_loss": objectives.log_loss(checks[-1][1]),
        "train_loss": objectives.log_loss(float(train)),
    }


def rates_of(rule: str) -> list[float]:
    """Return the learning rates tried."""
    return [RULES[rule] * 10 ** (power / 2) for power in range(-2, 3)]


@final
class Runs:
    """The runs of one task, made once and kept in a file."""

    def __init__(self, task: str, folder: Path):
        self.task = task
        self._path = folder / f"{task}.jsonl"
        self._loop: ProxyLoop | None = None
        self._watch = Watch()
        self._kept: dict[tuple[str, float, int], dict[str, Any]] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # The last line of a process that was killed.
                    continue
                self._kept[row["rule"], row["rate"], row["seed"]] = row

    def get(self, rule: str, rate: float, seed: int) -> dict[str, Any]:
        """Return a run, made now if it is not kept."""
        key = rule, rate, seed
        if key not in self._kept:
            row = {"rule": rule, "rate": rate, "seed": seed, **self._make(rule, rate, seed)}
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self._kept[key] = row
        return self._kept[key]

    def _make(self, rule: str, rate: float, seed: int) -> dict[str, Any]:
        if self._loop is None:
            longest = horizons_of(self.task)[-1]
            config = ProxyConfig(self.task, longest, longest // CHUNK)
            capacity = Capacity().with_ops(("orthogonalize", "polar"))
            self._loop = ProxyLoop(config, capacity, 0, self._watch)
        flow = dataflow.lower(rule_sources.load_rule(rule), fold=True)
        self._loop.prepare(flow, rate, seed)  # Compiling is no part of the seconds.
        self._watch.curve.clear()
        began = time.process_time()
        result = self._loop.run(flow, rate, ProxyRun(0, seed), ())
        seconds = time.process_time() - began
        curve = [] if result.status is Status.HOLLOW else self._watch.curve
        scores = {str(horizon): scores_of(curve, horizon) for horizon in horizons_of(self.task)}
        return {
            "status": result.status.value,
            "s_per_step": seconds / max(result.num_steps, 1),
            "scores": scores,
        }


class Measured(NamedTuple):
    """A rule at one horizon by one objective: scores on measured seeds, seconds, its rate."""

    scores: NDArray[np.float64]
    seconds: float
    rate: float
    at_edge: bool


def measure(runs: Runs, rule: str, num_select: int, num_measured: int) -> dict[Any, Measured]:
    """Return a rule's results by objective and horizon, its rate chosen on seeds of their own."""
    rates = rates_of(rule)
    tried = {rate: [runs.get(rule, rate, seed) for seed in range(num_select)] for rate in rates}
    found = {}
    for objective, horizon in itertools.product(OBJECTIVES, horizons_of(runs.task)):

        def mean(rate: float, where: tuple[str, str] = (str(horizon), objective)) -> float:
            return float(np.mean([row["scores"][where[0]][where[1]] for row in tried[rate]]))

        best = min(rates, key=mean)
        seeds = range(FIRST_MEASURED, FIRST_MEASURED + num_measured)
        rows = [runs.get(rule, best, seed) for seed in seeds]
        scores = np.array([row["scores"][str(horizon)][objective] for row in rows])
        seconds = float(np.median([row["s_per_step"] for row in rows])) * horizon
        found[objective, horizon] = Measured(scores, seconds, best, best in (rates[0], rates[-1]))
    return found
