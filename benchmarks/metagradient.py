"""The cost of a metagradient under every plan: time in forward runs, and memory in states.

    python benchmarks/metagradient.py [--steps 1000 10000] [--repeats 3] [--long]

One run, one machine. The training is a multilayer perceptron on fixed random data (as large as
`--width` says; 84,000 parameters with `--long`) under Adam, one learning rate and one decay as
meta-parameters. A state is parameters and both moments.

Time is that of a whole metagradient, forward pass included, over that of a plain forward run in one
compiled loop, both the median of `--repeats`, compiled before, in processor seconds. Memory is
counted: the most bytes that the storage held, and the leaf's buffer, in states. Beside both is
theory: the states and the forward steps of the plan, to which the reverse adds two
to four per step.
Runs of 100,000 steps are measured once: compiling is a part of their time. `--long` is one of the
large network under 64 MB of states, by the plan that `veldt` would choose.
"""

import argparse
import dataclasses
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.meta import pytree
from veldt.meta.replay import backward, plans, programs, states, storage, task_training, transforms

RESULTS: Final = Path(__file__).parent / "results" / "metagradient.json"
LONG_BYTES: Final = 64 * 10**6
LONG_STEPS: Final = 100_000
LONG_WIDTH: Final = 256
BATCH: Final = 16


@final
@dataclasses.dataclass(frozen=True)
class Perceptron(task_training.Training):
    """A perceptron of two hidden layers fits a random one; batches follow from the step.

    Attributes:
      num_steps: Length of the run.
      inputs: Inputs, float [N, 64].
      targets: Targets, float [N, 4].
      width: Width of the hidden layers.
    """

    num_steps: int
    inputs: jax.Array
    targets: jax.Array
    width: int = dataclasses.field(metadata=pytree.STATIC)

    @classmethod
    def of(cls, num_steps: int, width: int) -> "Perceptron":
        """Draw the data."""
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(512, 64)).astype(np.float32)
        targets = np.tanh(inputs @ rng.normal(size=(64, 4)) / 8).astype(np.float32)
        return cls(num_steps, jnp.asarray(inputs), jnp.asarray(targets), width)

    def init(self, meta_params: Any) -> Any:
        sizes = (64, self.width, self.width, 4)
        keys = jax.random.split(jax.random.key(0), 3)
        params = [
            jax.random.normal(key, (n, m)) / np.sqrt(n)
            for key, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]
        return params, self._tx(meta_params).init(params)

    def step(self, meta_params: Any, state: Any, index: jax.Array) -> Any:
        params, opt_state = state
        rows = (index * 37 + jnp.arange(BATCH) * 5) % self.inputs.shape[0]
        grads = jax.grad(self._loss)(params, self.inputs[rows], self.targets[rows])
        updates, opt_state = self._tx(meta_params).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def outcome(self, meta_params: Any, state: Any) -> jax.Array:
        return self._loss(state[0], self.inputs, self.targets)

    def params(self, state: Any) -> Any:
        return state[0]

    def _tx(self, meta_params: Any) -> optax.GradientTransformation:
        return optax.chain(
            transforms.scale_by_adam(b1=meta_params["decay"]),
            optax.scale_by_learning_rate(jnp.exp(meta_params["log_rate"])),
        )

    def _loss(self, params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        x = inputs
        for weights in params[:-1]:
            x = jnp.tanh(x @ weights)
        return jnp.mean((x @ params[-1] - targets) ** 2)


# At e^-6 the run is chaotic: over 50,000 steps the gradient is 1e26, over 100,000 not a number.
META_PARAMS: Final = {"log_rate": np.float32(-9.0), "decay": np.float32(0.9)}


def median_s(function: Callable[[], Any], repeats: int) -> float:
    """Call once to compile, then time: processor seconds, which other work disturbs least."""
    function()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return statistics.median(times)


def measure(run: Perceptron, plan: plans.Plan, repeats: int, run_s: float) -> dict[str, Any]:
    """Take the metagradient by a plan."""
    meta_params = jax.tree.map(jnp.asarray, META_PARAMS)
    spec = states.StateSpec.of(run.init, meta_params)
    walks: list[backward.Walked] = []

    def take() -> None:
        walks.append(backward.backward(run, meta_params, plan, storage.DeviceStorage()))

    if repeats > 1:
        seconds = median_s(take, repeats)
    else:  # Compiling is a small part of a measurement that is long enough to be made once.
        began = time.process_time()
        take()
        seconds = time.process_time() - began
    walked = walks[-1]
    assert walked.cost.forward_steps == plan.forward_steps
    return {
        "plan": plan.name,
        "leaf_steps": plan.leaf_steps,
        "seconds": seconds,
        "runs": seconds / run_s,
        "forward_runs_in_theory": plan.forward_steps / plan.num_steps,
        "states": walked.cost.peak_bytes / spec.num_bytes,
        "states_in_theory": plan.memory_states,
        "bytes": walked.cost.peak_bytes,
        "outcome": float(walked.outcome),
        "gradient": {name: float(g) for name, g in walked.meta_grad.items()},
    }


def plans_for(num_steps: int, state_bytes: int) -> list[plans.Plan]:
    """Return every plan, the binomial one also in the memory of each k-ary one."""
    found: list[plans.Plan] = []
    if num_steps * state_bytes <= 2**30:
        found.append(plans.store_all(num_steps))
    found.append(plans.square_root(num_steps))
    for arity in (4, 8):
        kary = plans.kary(num_steps, arity)
        found += [kary, plans.within(num_steps, kary.memory_states)]
    return found


def rerun_shares(num_steps: int) -> dict[str, float]:
    """Return the steps that binomial schedules re-run over REPLAY's, in as many states.

    These are counts. `binomial` has leaves of one step, `chosen` is the plan with the least work,
    in which a leaf's call costs as much as a few steps.
    """
    shares = {}
    for arity in (4, 8):
        replay = plans.kary(num_steps, arity)
        binomial = plans.binomial(num_steps, 1, replay.memory_states - 1)
        chosen = plans.within(num_steps, replay.memory_states)
        for name, plan in (("binomial", binomial), ("chosen", chosen)):
            shares[f"{name}, k = {arity}"] = plan.rerun_steps / replay.rerun_steps
    return shares


def measure_length(
    num_steps: int, width: int, repeats: int, chosen: list[plans.Plan] | None = None
) -> dict[str, Any]:
    """Measure the plans at one length."""
    run = Perceptron.of(num_steps, width)
    meta_params = jax.tree.map(jnp.asarray, META_PARAMS)
    spec = states.StateSpec.of(run.init, meta_params)
    num_params = sum(
        leaf.size for leaf in jax.tree.leaves(jax.eval_shape(run.init, meta_params)[0])
    )
    run_s = median_s(lambda: jax.block_until_ready(programs.run(spec, run, meta_params)), repeats)
    print(
        f"\n{num_steps:,} steps, {num_params:,} parameters, a state has {spec.num_bytes:,} bytes, "
        f"a forward run takes {run_s:.2f} s\n"
        f"{'plan':>12} {'leaf':>6} {'runs':>7} {'forward':>8} {'states':>8} {'theory':>7} {'MB':>8}"
    )
    rows = []
    for plan in chosen or plans_for(num_steps, spec.num_bytes):
        row = measure(run, plan, repeats, run_s)
        rows.append(row)
        print(
            f"{row['plan']:>12} {row['leaf_steps']:6,} {row['runs']:7.2f} "
            f"{row['forward_runs_in_theory']:8.2f} {row['states']:8,.0f} "
            f"{row['states_in_theory']:7,} {row['bytes'] / 1e6:8.1f}",
            flush=True,
        )
    shares = (f"{share:.2f} ({name})" for name, share in rerun_shares(num_steps).items())
    print(f"steps re-run, over REPLAY's in as many states: {', '.join(shares)}")
    same = all(row["gradient"] == rows[0]["gradient"] for row in rows)
    finite = all(math.isfinite(g) for row in rows for g in row["gradient"].values())
    print(
        f"{'the same' if same else 'NOT the same'} gradient to the bit under every plan"
        f"{'' if finite else ', and NOT a finite one'}"
    )
    return {
        "num_steps": num_steps,
        "num_params": num_params,
        "state_bytes": spec.num_bytes,
        "run_s": run_s,
        "repeats": repeats,
        "rerun_shares": rerun_shares(num_steps),
        "same_bits": same,
        "finite": finite,
        "plans": rows,
    }


def main() -> None:
    """Measure, print and write `results/metagradient.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--width", type=int, default=32, help="units of a hidden layer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="100,000 steps under 64 MB")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if min(args.steps) < 1 or args.repeats < 1 or args.width < 1:
        parser.error("--steps, --repeats and --width: at least 1")
    result: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "device": jax.devices()[0].device_kind,
            "python": platform.python_version(),
            "jax": jax.__version__,
        },
        "lengths": [],
    }
    args.output.parent.mkdir(exist_ok=True)

    def keep(length: dict[str, Any]) -> None:
        result["lengths"].append(length)
        args.output.write_text(json.dumps(result, indent=2) + "\n")

    for steps in args.steps:
        keep(measure_length(steps, args.width, args.repeats if steps < LONG_STEPS else 1))
    if args.long:
        run = Perceptron.of(LONG_STEPS, LONG_WIDTH)
        meta_params = jax.tree.map(jnp.asarray, META_PARAMS)
        state_bytes = states.StateSpec.of(run.init, meta_params).num_bytes
        plan = plans.choose(LONG_STEPS, state_bytes, LONG_BYTES)
        keep(measure_length(LONG_STEPS, LONG_WIDTH, 1, [plan]))


if __name__ == "__main__":
    main()
