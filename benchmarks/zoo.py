"""The cost of a step of each shipped rule: time beside Adam's, and memory.

    python benchmarks/zoo.py [--rounds 9] [--turn 0.1] [--only muon lion] [--quick]

One run, one machine. A step is the update alone, from gradients to new parameters, compiled; in
training the gradient comes on top. The tree has a matrix of 960 by 960, a kernel of 3 by 3 by 64 by
128 and a vector of 960: 996,288 parameters in float32. Constants are the rules' defaults.

Each rule is measured beside `optax.adam` and veldt's own adam: in every round all three have a turn
of about `--turn` seconds, so that a slower moment of the machine affects all of them. A rule that
does its dear part every k steps takes whole multiples of k steps. A ratio is of one round's times;
its median and quartiles over rounds are the result. Memory is the optimizer's state on this tree,
without the step count. `--quick` takes two short rounds of three rules, to see whether it runs, and
writes nothing.
"""

import argparse
import json
import math
import platform
from pathlib import Path
from typing import Any, Final, TypeAlias

import jax
import optax
import step_time

from veldt.search import rule_sources
from veldt.search.language.dataflow import Constant, Dataflow, Node
from veldt.search.language.statements import PROGRESS
from veldt.search.program import Program

RESULTS: Final = Path(__file__).parent / "results" / "zoo.json"
OPTAX_ADAM: Final = "optax.adam"
ADAM: Final = "adam"
SHAPES: Final[step_time.Shapes] = {
    "matrix": (960, 960),
    "kernel": (3, 3, 64, 128),
    "vector": (960,),
}
NUM_PARAMS: Final = sum(math.prod(shape) for shape in SHAPES.values())
NUM_STEPS: Final = 1000
RATE: Final = 1e-3
QUICK: Final = ("lion", "muon", "sophia")
Transform: TypeAlias = optax.GradientTransformationExtraArgs


def make_tx(program: Program) -> Transform:
    """Return a rule's transform."""
    of_run = {"num_steps": NUM_STEPS} if PROGRESS in program.lower().live_of_run else {}
    return program.as_optax(RATE, **of_run)


def period(flow: Dataflow) -> int:
    """Return the number of steps after which a step's cost repeats."""
    nodes = (flow.values[index] for index in flow.live_nodes)
    periods = [flow.values[n.args[1]] for n in nodes if isinstance(n, Node) and n.op == "every"]
    numbers = [max(round(abs(p.value)), 1) for p in periods if isinstance(p, Constant)]
    return math.lcm(*numbers)


def measure(program: Program, num_rounds: int, turn_s: float, seed: int) -> dict[str, Any]:
    """Time a rule and both Adams in turns."""
    transforms = {
        OPTAX_ADAM: optax.with_extra_args_support(optax.adam(RATE)),
        ADAM: make_tx(rule_sources.load_rule(ADAM)),
        "rule": make_tx(program),
    }
    steppers = {name: step_time.Stepper(tx, SHAPES, seed) for name, tx in transforms.items()}
    every = dict.fromkeys(steppers, 1) | {"rule": period(program.lower())}
    repeats = {}
    for name, stepper in steppers.items():
        stepper.run(every[name])
        spent = stepper.run(every[name]) * every[name]
        repeats[name] = max(round(turn_s / spent), 1) * every[name]
    rounds = [
        {name: stepper.run(repeats[name]) for name, stepper in steppers.items()}
        for _ in range(num_rounds)
    ]
    # All but the step count, which both have.
    state_bytes = steppers["rule"].state_bytes - 4
    return {
        "ms": step_time.spread([row["rule"] * 1e3 for row in rounds]),
        "ratio_to_optax_adam": step_time.spread([row["rule"] / row[OPTAX_ADAM] for row in rounds]),
        "ratio_to_adam": step_time.spread([row["rule"] / row[ADAM] for row in rounds]),
        "steps_per_turn": repeats["rule"],
        "state_bytes_per_param": state_bytes / NUM_PARAMS,
        "compile_s": steppers["rule"].compile_s,
    }


def print_row(name: str, row: dict[str, Any]) -> None:
    """Print one rule's row."""
    ratio, own = row["ratio_to_optax_adam"], row["ratio_to_adam"]
    times = f"{ratio['median']:.2f} [{ratio['q25']:.2f}, {ratio['q75']:.2f}]"
    print(
        f"{name:16}{row['ms']['median']:10.2f}{times:>30}{own['median']:12.2f}"
        f"{row['state_bytes_per_param']:13.2f}{row['compile_s']:11.2f}",
        flush=True,
    )


def main() -> None:
    """Measure, print and write `results/zoo.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn", type=float, default=0.1, help="seconds of one turn")
    parser.add_argument("--only", nargs="+", choices=rule_sources.RULE_NAMES)
    parser.add_argument("--quick", action="store_true", help="see whether it runs; writes nothing")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.turn, args.only = 2, 0.01, args.only or QUICK
    if args.rounds < 2:
        parser.error("--rounds: at least 2, for a spread")
    rules: dict[str, Any] = {}
    print(
        f"{NUM_PARAMS:,} parameters in {len(SHAPES)} tensors, {args.rounds} rounds; quartiles in "
        f"brackets\n{'':16}{'ms':>10}{'times optax.adam':>30}{'times adam':>12}"
        f"{'state/param':>13}{'compile s':>11}"
    )
    for name in args.only or rule_sources.RULE_NAMES:
        rules[name] = measure(rule_sources.load_rule(name), args.rounds, args.turn, args.seed)
        print_row(name, rules[name])
    if args.quick or args.only:
        return
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "device": jax.devices()[0].device_kind,
            "python": platform.python_version(),
            "jax": jax.__version__,
        },
        "shapes": SHAPES,
        "num_params": NUM_PARAMS,
        "num_rounds": args.rounds,
        "turn_s": args.turn,
        "seed": args.seed,
        "rules": rules,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
