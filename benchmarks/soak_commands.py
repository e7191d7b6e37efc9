"""The four commands that a soak strikes: small jobs, each with an end that can be compared.

A command has several variants, so that not every round is the same one. All of them end alike
wherever and however often they are interrupted: a search with the same rows in its store, a
meta-training with the same weights bit for bit, a tuning with the same numbers and outcomes, an
evaluation with the same table and the same curves behind it.
"""

import abc
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import yaml

from veldt.search.config import finals_config, proxy_config
from veldt.search.config import search_config as search_config_lib
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks.common.config import codec

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tests.search import rerun

TIMES: Final = (
    "worker_s",
    "wall_s",
    "compile_s",
    "run_s",
    "seconds",
    "effort",
    "versions",
    "time_s",
)


class Command(abc.ABC):
    """A command under test.

    Attributes:
      name: Name on veldt's command line.
      pause: Factor on the pauses between faults: what takes long to start is struck less often.
    """

    name: str
    pause = 1.0

    @abc.abstractmethod
    def words(self, folder: Path, variant: int, run_dir: Path) -> list[str]:
        """Return the words after `veldt` that begin a run or resume it; writes its config."""

    @abc.abstractmethod
    def contents(self, run_dir: Path) -> Mapping[str, Any]:
        """Return what a run has come to, without times and machines."""

    def check(self, run_dir: Path) -> None:
        """Raise an error if what an interrupted run has left is damaged."""
        for path in (*run_dir.glob("*.npz"), *run_dir.glob("sweeps/*.npz")):
            _arrays(path)
        for path in run_dir.glob("*.json"):
            json.loads(path.read_text(encoding="utf-8"))

    def differences(self, struck: Path, alone: Path) -> list[str]:
        """Return in sentences how the end of a run differs from that of one left alone."""
        ours, theirs = self.contents(struck), self.contents(alone)
        names = sorted(ours.keys() | theirs.keys())
        return [f"{name} differs" for name in names if ours.get(name) != theirs.get(name)]


@final
class Search(Command):
    """A search with simulated workers; every other variant selects by samples."""

    name = "search"

    def __init__(self, evaluations: int = 1500):
        """Set the number of evaluations of one search."""
        self._evaluations = evaluations

    def words(self, folder: Path, variant: int, run_dir: Path) -> list[str]:
        samples = 4 if variant % 2 else 1
        settings = search_config_lib.SearchConfig(
            tasks=(proxy_config.ProxyConfig("digits_mlp", 10, 1),),
            meta_validation=(proxy_config.ProxyConfig("quadratic", 10, 1),),
            seed=variant,
            max_evaluations=self._evaluations,
            population_size=30,
            hurdle_over="mean" if samples > 1 else "each_run",
            samples=samples,
            fresh_seeds=4,
            window=12,
            mutation=MutationConfig(graft=1.0, rewire=0.5, match_steps=True),
            finals=finals_config.FinalsConfig(
                num_rates=3, select_seeds=1, final_seeds=2, max_entries=3
            ),
        )
        plain = {k: v for k, v in codec.to_plain(settings).items() if k != "pool"}
        path = _write(folder / f"search{variant}.yaml", yaml.safe_dump(plain))
        return ["search", path, "--run-dir", str(run_dir), "--resume"]

    def contents(self, run_dir: Path) -> Mapping[str, Any]:
        with Store.open(run_dir, read_only=True) as store:
            found: dict[str, Any] = dict(store.meta())
        found["config"] = {**json.loads(found["config"]), "pool": None}
        return found

    def check(self, run_dir: Path) -> None:
        super().check(run_dir)
        if (run_dir / "store.sqlite").exists():
            with Store.open(run_dir, read_only=True) as store:
                integrity.check(store)

    def differences(self, struck: Path, alone: Path) -> list[str]:
        with (
            Store.open(struck, read_only=True) as ours,
            Store.open(alone, read_only=True) as theirs,
        ):
            found = rerun.differences(ours, theirs)
        rows = [text for text in found if not text.startswith("meta:")]  # It names the pool.
        return rows + super().differences(struck, alone)


META_TRAIN: Final = """
architecture: celo2_base
fields: {{hidden_size: 4}}
phases:
  - name: imitate
    num_updates: 20
    lengths: [10, 20]
    estimator:
      {{kind: imitation, num_particles: 2, window: 5, expert: "veldt.meta.problems.experts:adam"}}
    outer: {{learning_rate: 0.01}}
  - name: train
    num_updates: {num_updates}
    lengths: [10, 40]
    estimator: {{kind: pes, num_particles: 2, window: 5}}
    outer: {{learning_rate: 0.01, decay: cosine, clip: 1.0}}
tasks:
  num_families: 2
  kinds: {{perceptron: 1.0}}
  images: {{patterns: 1.0}}
  widths: [4, 8]
  depths: [1]
  activations: [relu]
  batch_sizes: [8]
meta_validation: [{{task: quadratic, num_steps: 20}}]
validate_every: 100
seed: {seed}
staleness: {staleness}
checkpoint_every_s: 0.5
"""


@final
class MetaTrain(Command):
    """A meta-training of two phases; every other variant has stale gradients."""

    name = "meta-train"
    pause = 2.5

    def __init__(self, num_updates: int = 600):
        """Set the number of updates of the second phase."""
        self._num_updates = num_updates

    def words(self, folder: Path, variant: int, run_dir: Path) -> list[str]:
        text = META_TRAIN.format(
            num_updates=self._num_updates, seed=variant, staleness=1 - variant % 2
        )
        path = _write(folder / f"meta{variant}.yaml", text)
        return ["meta-train", path, "--run-dir", str(run_dir), "--resume"]

    def contents(self, run_dir: Path) -> Mapping[str, Any]:
        return {
            **_arrays(run_dir / "weights.npz"),
            **_arrays(run_dir / "last.npz"),
            "log": _lines(run_dir / "metrics.jsonl"),
        }


TUNE: Final = """
task: quadratic
num_steps: 40
num_updates: {num_updates}
seeds: 2
check_every: 5
check_seeds: 4
runs_per_job: 1
outer: {{optimizer: {optimizer}}}
tune: {{learning_rate: {{start: 0.01, knots: 4}}}}
seed: {seed}
"""


@final
class Tune(Command):
    """A tuning of a schedule, with its comparison; each training run is a job."""

    name = "tune"
    pause = 2.5

    def __init__(self, num_updates: int = 150):
        """Set the number of updates."""
        self._num_updates = num_updates

    def words(self, folder: Path, variant: int, run_dir: Path) -> list[str]:
        optimizer = ("adam", "signed")[variant % 2]
        text = TUNE.format(num_updates=self._num_updates, optimizer=optimizer, seed=variant)
        path = _write(folder / f"tune{variant}.yaml", text)
        return ["tune", path, "--run-dir", str(run_dir), "--resume"]

    def contents(self, run_dir: Path) -> Mapping[str, Any]:
        compared = run_dir / "comparison.json"
        return {
            **_arrays(run_dir / "tuned.npz"),
            "comparison": json.loads(compared.read_text()) if compared.exists() else None,
            "log": _lines(run_dir / "metrics.jsonl"),
        }


EVALUATE: Final = """
name: soak
description: Two small tasks.
tasks:
  - {{task: quadratic, num_steps: {num_steps}}}
  - {{task: breast_cancer_logistic, num_steps: {num_steps}}}
"""


@final
class Evaluate(Command):
    """A comparison on tasks whose curves are in no archive; other seeds in each variant."""

    name = "evaluate"
    pause = 2.5
    _rules = ("sgd", "adam", "lion", "adabelief")

    def __init__(self, num_steps: int = 300):
        """Set the length of the candidates' trainings."""
        self._num_steps = num_steps

    def words(self, folder: Path, variant: int, run_dir: Path) -> list[str]:
        path = _write(folder / "suite.yaml", EVALUATE.format(num_steps=self._num_steps))
        # Step times are measured, and no two measurements are the same.
        return [
            *("evaluate", *self._rules, "--suite", path, "--out", str(run_dir)),
            *("--seed", str(variant), "--step-times", "false"),
        ]

    def contents(self, run_dir: Path) -> Mapping[str, Any]:
        results = json.loads((run_dir / "results.json").read_text())
        found = {f"results: {name}": part for name, part in _timeless(results).items()}
        for path in sorted((run_dir / "sweeps").glob("*.npz")):
            found |= _arrays(path)
        return found


COMMANDS: Final[Mapping[str, Callable[..., Command]]] = {
    "search": Search,
    "meta-train": MetaTrain,
    "evaluate": Evaluate,
    "tune": Tune,
}


def _write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def _timeless(plain: Any) -> Any:
    """Return plain data without the entries that are times or machines."""
    if isinstance(plain, dict):
        return {k: _timeless(v) for k, v in plain.items() if k not in TIMES}
    return [_timeless(each) for each in plain] if isinstance(plain, list) else plain


def _arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a file, as bytes with their kinds and shapes."""
    found = {}
    with open(path, "rb") as file, np.load(file) as archive:
        for name in archive.files:
            if not name.endswith((".json", *TIMES)):
                array = archive[name]
                found[f"{path.name}/{name}"] = (array.dtype.str, array.shape, array.tobytes())
    return found


def _lines(path: Path) -> Any:
    return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
