"""The cost of a step of each learned optimizer: time beside Adam's, memory, compile time.

    python benchmarks/step_time.py [--rounds 15] [--turn 0.2] [--only celo2 velo] [--results FILE]

One run, one machine. A step is the update alone, from gradients to new parameters; in training the
gradient comes on top. Two trees: `wide`, a network of a million parameters in a few matrices of 512
columns and their vectors, and `leaves`, many small ones, where the number of
tensors matters. Weights are untrained: the time does not depend on them.

In each round every optimizer has a turn of about `--turn` seconds, one after the other, so that a
slower moment of the machine affects all of them. A ratio is of one round's times, to Adam's; its
median over rounds is the result, and that of the fastest turns is beside it. Where Optax's Muon is
measured, the ratios to it are kept too: `scaled` should be within 1.3 of it. Memory is the
optimizer's state, in bytes per parameter and relative to the parameters themselves. Compile time
includes tracing, and is measured once.
"""

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
import optax

from veldt.learned_opt import registry

RESULTS: Final = Path(__file__).parent / "results" / "step_time.json"
ADAM: Final = "adam"
MUON: Final = "muon"
RULES: Final = (
    "mlp",
    "adafac_mlp",
    "velo",
    "celo",
    "celo2_base",
    "celo2",
    "scaled",
    "scaled_recurrent",
    MUON,
)
NUM_STEPS: Final = 1000

Shapes = dict[str, tuple[int, ...]]


def wide() -> Shapes:
    """Return a perceptron with an embedding: 985,000 parameters, 9 tensors."""
    shapes: Shapes = {"embed": (256, 512), "head": (512, 128), "head_bias": (128,)}
    for i in range(3):
        shapes |= {f"w{i}": (512, 512), f"b{i}": (512,)}
    return shapes


def leaves() -> Shapes:
    """Return 24 small layers: 76,000 parameters, 96 tensors of 4 shapes."""
    shapes: Shapes = {}
    for i in range(24):
        shapes |= {f"in{i}": (32, 64), f"in_bias{i}": (64,)}
        shapes |= {f"out{i}": (32, 32), f"out_bias{i}": (32,)}
    return shapes


TREES: Final[dict[str, Callable[[], Shapes]]] = {"wide": wide, "leaves": leaves}


def make_tx(name: str) -> optax.GradientTransformationExtraArgs:
    """Return an optimizer; a learned one with untrained weights."""
    if name == ADAM:
        return optax.with_extra_args_support(optax.adam(1e-3))
    if name == MUON:
        return optax.with_extra_args_support(optax.contrib.muon(1e-3))
    rule = registry.architecture(name)
    return rule.as_optax(jax.jit(rule.init)(jax.random.key(0)), NUM_STEPS)


def num_bytes(tree: Any) -> int:
    """Return the bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class Stepper:
    """One optimizer on one tree: compiled, and stepped from its present state.

    Attributes:
      compile_s: Seconds of tracing and compiling a step.
      state_bytes: Bytes of the optimizer's state.
    """

    def __init__(
        self, tx: optax.GradientTransformationExtraArgs, shapes: Shapes, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        draw = functools.partial(rng.normal, scale=0.05)
        self._grads = {k: jax.device_put(np.float32(draw(size=s))) for k, s in shapes.items()}
        self._params = {k: jax.device_put(np.float32(draw(size=s))) for k, s in shapes.items()}
        self._state = jax.jit(tx.init)(self._params)
        self.state_bytes = num_bytes(self._state)

        def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = tx.update(grads, state, params, value=np.float32(1.0))
            return optax.apply_updates(params, updates), state

        began = time.perf_counter()
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(self._params, self._state, self._grads)
        self._step = lowered.compile()
        self.compile_s = time.perf_counter() - began

    def run(self, repeats: int) -> float:
        """Take `repeats` steps; return the seconds of one."""
        began = time.perf_counter()
        for _ in range(repeats):
            self._params, self._state = self._step(self._params, self._state, self._grads)
        jax.block_until_ready(self._params)
        return (time.perf_counter() - began) / repeats


def measure(
    shapes: Shapes, names: Sequence[str], num_rounds: int, turn_s: float, seed: int
) -> dict[str, Any]:
    """Time the optimizers in turns on one tree."""
    steppers = {name: Stepper(make_tx(name), shapes, seed) for name in (ADAM, *names)}
    repeats = {}
    for name, stepper in steppers.items():
        stepper.run(1)
        repeats[name] = max(round(turn_s / stepper.run(3)), 1)
    rounds = [
        {name: stepper.run(repeats[name]) for name, stepper in steppers.items()}
        for _ in range(num_rounds)
    ]
    num_params = sum(int(np.prod(shape)) for shape in shapes.values())
    result: dict[str, Any] = {
        "num_params": num_params,
        "num_tensors": len(shapes),
        "num_rounds": num_rounds,
        "optimizers": {
            name: {
                "ms": spread([row[name] * 1e3 for row in rounds]),
                "ratio_to_adam": spread([row[name] / row[ADAM] for row in rounds]),
                "ratio_of_fastest": min(row[name] for row in rounds)
                / min(row[ADAM] for row in rounds),
                "steps_per_turn": repeats[name],
                "state_bytes_per_param": stepper.state_bytes / num_params,
                "state_over_params": stepper.state_bytes / (4 * num_params),
                "compile_s": stepper.compile_s,
            }
            for name, stepper in steppers.items()
        },
    }
    if MUON in names:
        for name, row in result["optimizers"].items():
            row["ratio_to_muon"] = spread([each[name] / each[MUON] for each in rounds])
    return result


def spread(values: list[float]) -> dict[str, float]:
    """Return smallest, quartiles and largest."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"min": min(values), "q25": low, "median": middle, "q75": high, "max": max(values)}


def print_table(name: str, result: dict[str, Any]) -> None:
    """Print one tree's rows."""
    print(
        f"\n{name}: {result['num_params']:,} parameters in {result['num_tensors']} tensors, "
        f"{result['num_rounds']} rounds; quartiles in brackets"
    )
    print(
        f"{'':16}{'ms':>9}{'times Adam':>26}{'fastest':>9}{'state/params':>14}{'compile s':>11}"
        f"{'by Muon':>8}"
    )
    for rule, row in result["optimizers"].items():
        ratio = row["ratio_to_adam"]
        times = f"{ratio['median']:.2f} [{ratio['q25']:.2f}, {ratio['q75']:.2f}]"
        over_muon = f"{row['ratio_to_muon']['median']:8.2f}" if "ratio_to_muon" in row else ""
        print(
            f"{rule:16}{row['ms']['median']:9.2f}{times:>26}{row['ratio_of_fastest']:9.2f}"
            f"{row['state_over_params']:14.2f}{row['compile_s']:11.2f}{over_muon}"
        )


def main() -> None:
    """Measure, print and write `results/step_time.json`, or the file that `--results` names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--turn", type=float, default=0.2, help="seconds of one turn")
    parser.add_argument("--only", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("--rounds: at least 2, for a spread")
    trees: dict[str, Any] = {}
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "device": jax.devices()[0].device_kind,
            "python": platform.python_version(),
            "jax": jax.__version__,
        },
        "turn_s": args.turn,
        "seed": args.seed,
        "trees": trees,
    }
    for name, make_shapes in TREES.items():
        trees[name] = measure(make_shapes(), args.only, args.rounds, args.turn, args.seed)
        print_table(name, trees[name])
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
