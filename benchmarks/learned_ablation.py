"""What should be learned: few numbers, a recurrent scale, a network's direction, a found direction.

    python benchmarks/learned_ablation.py [--minutes 20] [--seeds 3] [--arms cma_es recurrent]

Hypothesis: directions are known, and what pays is their scale; so few numbers do as well as a
network of hundreds of weights that costs as much to train, whatever moves them.

| arm         | architecture                                               | moved by       |
|-------------|------------------------------------------------------------|----------------|
| `cma_es`    | `scaled`, 22 numbers                                       | CMA-ES         |
| `numbers`   | `scaled`, 22 numbers                                       | meta-gradients |
| `recurrent` | `scaled_recurrent`: a scale for each tensor by a small net | meta-gradients |
| `network`   | `celo2`: a network for each parameter, and a schedule      | meta-gradients |
| `carom`     | `scaled` along carom's direction in place of Muon's        | meta-gradients |

Meta-gradients, families and lengths are those of `configs/scaled.yaml`. Every training has the same
processor time without compiling: `--minutes` for an arm and a seed. For this, a few updates are
timed first, in the same process. A seed draws families, starts and runs anew, the same families for
all arms. All candidates of a generation of CMA-ES see the same lengths, starts and batches; what is
validated is the centre of its distribution.

Measured is meta-validation (the mean log loss on the config's tasks, on validation batches), before
training and at every tenth part of it. The result of a training is its best check, as a
meta-training keeps its best weights: the same choice for all arms.

Each training is kept in `--folder` when it is done, and a second call goes on with the next one.
Writes `results/learned_ablation.json`, or the file that `--results` names.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt import config as config_lib
from veldt.learned_opt.base import MetaParams
from veldt.meta.baselines import black_box
from veldt.meta.estimators import full_es
from veldt.meta.train import build, gradient_worker, outer_step
from veldt.meta.train.config import MetaTrainConfig, PhaseConfig, Plain
from veldt.tasks.common import compiling, types
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.inner_loop import hollow

RESULTS: Final = Path(__file__).parent / "results" / "learned_ablation.json"
CONFIG: Final = "scaled"
NUM_CHECKS: Final = 10
NUM_TIMED: Final = 3
CMA_POPULATION: Final = 16
CMA_STD: Final = 0.05  # of meta-parameters; 0.1 is a factor of e in what they set


Mover: TypeAlias = Literal["gradients", "cma_es"]


@final
@dataclasses.dataclass(frozen=True)
class Arm:
    """What is learned, and how.

    Attributes:
      architecture: Name of the architecture.
      mover: What moves the meta-parameters: meta-gradients as the config has them, or CMA-ES.
      fields: Fields of the architecture that differ from the registry's.
    """

    architecture: str
    mover: Mover = "gradients"
    fields: Mapping[str, Plain] = dataclasses.field(default_factory=dict)


CELO2: Final[Mapping[str, Plain]] = {
    "start": "muon",
    "momentum_decays": (0.9, 0.95, 0.99),
    "scaling": "width",
    "vector_ratio": 1.0,
    "learning_rate": 0.02,
    "knots": 9,
    "adam_paths": ".*embed.*",
}
"""The fields of `configs/celo2.yaml`: it starts as Muon with a linear decay, as `scaled` does."""

ARMS: Final[Mapping[str, Arm]] = {
    "cma_es": Arm("scaled", "cma_es"),
    "numbers": Arm("scaled"),
    "recurrent": Arm("scaled_recurrent"),
    "network": Arm("celo2", fields=CELO2),
    "carom": Arm("scaled", fields={"direction": "carom", "learning_rate": 0.006}),
}


@final
class Lab:
    """One arm with one seed: families, estimators, and what a check is.

    Attributes:
      meta_params: Meta-parameters before training.
    """

    def __init__(self, settings: MetaTrainConfig):
        (phase,) = settings.phases
        self._worker = gradient_worker.GradientWorker(settings)
        self._settings, self._phase = settings, phase
        self.meta_params: MetaParams = build.architecture(settings).init(
            jax.random.key(settings.seed)
        )

    def check(self, meta_params: MetaParams) -> float:
        """Return the score of meta-validation: the mean log loss."""
        means = []
        for number in range(len(self._settings.meta_validation)):
            job = gradient_worker.CheckJob(0, number, meta_params)
            found = cast(gradient_worker.Check, self._worker(job))
            means.append(np.mean(np.log(np.maximum(found.losses, hollow.MIN_NORMALIZED))))
        return float(np.mean(means))

    def train(self, mover: Mover, budget_s: float) -> list[dict[str, float]]:
        """Train for so much processor time; return the checks."""
        steps = self._gradients if mover == "gradients" else self._cma_es
        one_s = self._time(steps)
        num_updates = max(round(budget_s / one_s), 1)
        checks = [{"update": 0, "seconds": 0.0, "score": self.check(self.meta_params)}]
        due = {round(num_updates * (i + 1) / NUM_CHECKS) for i in range(NUM_CHECKS)}
        spent = 0.0
        walk = steps(num_updates)
        for update in range(1, num_updates + 1):
            began = time.process_time()
            meta_params = next(walk)
            spent += time.process_time() - began
            if update in due:
                score = self.check(meta_params)
                checks.append({"update": update, "seconds": spent, "score": score})
        return checks

    def _time(self, steps: Any) -> float:
        """Return the processor seconds of an update, the mean of a few after compiling."""
        walk = steps(NUM_TIMED + 1)
        next(walk)
        began = time.process_time()
        for _ in range(NUM_TIMED):
            next(walk)
        return (time.process_time() - began) / NUM_TIMED

    def _estimators(self, phase: PhaseConfig) -> list[Any]:
        """Return an estimator for each family."""
        families = self._worker.families
        return [build.make_estimator(self._settings, phase, family, {}) for family in families]

    def _gradients(self, num_updates: int) -> Any:
        """Yield the meta-parameters after each update by meta-gradients."""
        tx = build.make_outer(self._phase.outer, num_updates)
        estimators = self._estimators(self._phase)
        meta_params = self.meta_params
        opt_state = tx.init(meta_params)
        for update in range(num_updates):
            found = [
                outer_step.estimate(each, meta_params, (), self._key(update, number))[0]
                for number, each in enumerate(estimators)
            ]
            meta_params, opt_state, _ = outer_step.move(tx, meta_params, opt_state, tuple(found))
            yield meta_params

    def _cma_es(self, num_updates: int) -> Any:
        """Yield the centre of CMA-ES's distribution after each generation."""
        how = dataclasses.replace(self._phase.estimator, kind="full_es")
        estimators = self._estimators(dataclasses.replace(self._phase, estimator=how))
        search = black_box.CmaEs(CMA_POPULATION, CMA_STD)
        state = search.init(self.meta_params, self._key(num_updates, 0))
        for update in range(num_updates):
            key = self._key(update, len(estimators))
            key_ask, key_tell = jax.random.split(key)
            candidates, state = search.ask(state, key_ask)
            found = [
                losses_of(each, candidates, self._key(update, number))
                for number, each in enumerate(estimators)
            ]
            total = jnp.mean(jnp.stack(found), axis=0)
            state = search.tell(state, candidates, total, key_tell)
            yield search.mean(state)

    def _key(self, update: int, number: int) -> types.Key:
        key = jax.random.fold_in(jax.random.key(self._settings.seed), update)
        return jax.random.fold_in(key, number)


@compiling.jit
def losses_of(each: full_es.FullES, candidates: MetaParams, key: types.Key) -> jax.Array:
    """Return the meta-losses float [N] of candidates [N, ...] in runs that are alike."""
    key_length, key_run, key_final = jax.random.split(key, 3)
    (size,) = {leaf.shape[0] for leaf in jax.tree.leaves(candidates)}
    keys = (jnp.broadcast_to(key, (size,)) for key in (key_run, key_final))
    return each.losses(candidates, each.problem.draw_length(key_length), *keys)


def settings_of(arm: Arm, seed: int, num_families: int | None) -> MetaTrainConfig:
    """Return the meta-training of an arm with a seed."""
    settings = config_lib.load_config(MetaTrainConfig, CONFIG)
    tasks = settings.tasks
    if num_families is not None:
        tasks = dataclasses.replace(tasks, num_families=num_families)
    return dataclasses.replace(
        settings,
        architecture=arm.architecture,
        fields=dict(arm.fields),
        tasks=tasks,
        seed=seed,
    )


def summary(trainings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the results say of an arm: means over seeds, and each seed."""
    starts = [training["checks"][0]["score"] for training in trainings]
    bests = [min(check["score"] for check in training["checks"]) for training in trainings]
    gains = np.subtract(starts, bests)
    error = float(np.std(gains, ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else None
    return {
        "start": float(np.mean(starts)),
        "best": float(np.mean(bests)),
        "gain": float(np.mean(gains)),
        "standard_error": error,
        "trainings": trainings,
    }


def main() -> None:
    """Train what is missing, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="of an arm with a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--families", type=int, help="number of families, for trials")
    parser.add_argument("--folder", type=Path, default=Path("runs/learned_ablation"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for name in args.arms:
        trainings = []
        for seed in range(args.seeds):
            path = args.folder / f"{name}-{seed}-{args.minutes:g}-{args.families}.json"
            if not path.exists():
                lab = Lab(settings_of(ARMS[name], seed, args.families))
                checks = lab.train(ARMS[name].mover, 60 * args.minutes)
                content = {"seed": seed, "checks": checks}
                atomic_files.write_bytes(path, json.dumps(content).encode())
                scores = ", ".join(f"{check['score']:.3f}" for check in checks)
                print(f"{name}, seed {seed}: {scores}", flush=True)
            trainings.append(json.loads(path.read_text(encoding="utf-8")))
        rows[name] = {**dataclasses.asdict(ARMS[name]), **summary(trainings)}
    print(f"\n{'':12}{'start':>9}{'best':>9}{'gain':>9}  log loss, mean of {args.seeds} seeds")
    for name, row in rows.items():
        error = "" if row["standard_error"] is None else f" +- {row['standard_error']:.3f}"
        print(f"{name:12}{row['start']:9.3f}{row['best']:9.3f}{row['gain']:9.3f}{error}")
    result = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "minutes": args.minutes,
        "num_families": args.families,
        "arms": rows,
    }
    args.results.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {args.results.name}")


if __name__ == "__main__":
    main()
