"""Inner steps per second of meta-training, as a share of plain Adam's in the same loop.

PES on a perceptron of digits (8x8 images, width 32, batch 64), as the published recipes have it:
`adafac_mlp` against Adam, whose one meta-parameter is its learning rate, with the same particles,
windows and noise, in the same run. Also measured is the time of compiling an estimate: estimators
that differ in arrays alone share one program.

    python benchmarks/meta_training.py
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import registry
from veldt.meta.estimators import truncated_es
from veldt.meta.problems import task_problem
from veldt.meta.train import outer_step
from veldt.tasks import base
from veldt.tasks import registry as tasks

RESULTS = Path(__file__).parent / "results" / "meta_training.json"
RULES = ("adafac_mlp", "mlp", "celo", "celo2_base", "celo2")
NUM_PARTICLES, WINDOW, LENGTHS = 8, 50, (100, 2000)
ROUNDS = 10


@final
@dataclasses.dataclass
class Measured:
    """The estimates of one optimizer.

    Attributes:
      name: Name "adam", or that of an architecture.
      compile_s: Wall seconds of the first estimate, with the beginning of its runs.
      again_s: Wall seconds of the first estimate of a second estimator, whose task has other data.
      window_s: Wall seconds of each further estimate.
      cpu_s: CPU seconds of each further estimate.
    """

    name: str
    compile_s: float
    again_s: float
    window_s: list[float]
    cpu_s: list[float]


@final
class Subject:
    """An estimator that continues window by window."""

    def __init__(
        self, name: str, make_tx: Any, meta_params: Any, task: base.Task, other: base.Task
    ):
        self._meta_params = meta_params
        self._keys = iter(jax.random.split(jax.random.key(0), ROUNDS + 4))

        def begin(task: base.Task) -> float:
            problem = task_problem.TaskProblem.of(task, make_tx, lengths=LENGTHS)
            self._each = truncated_es.PES(problem, NUM_PARTICLES, WINDOW)
            began = time.perf_counter()
            self._state = outer_step.begin(self._each, meta_params, next(self._keys))
            self._estimate()
            return time.perf_counter() - began

        compile_s = begin(other)
        again_s = begin(task)
        self.measured = Measured(name, compile_s, again_s, [], [])

    def round(self) -> None:
        """Measure one estimate."""
        began, cpu_began = time.perf_counter(), time.process_time()
        self._estimate()
        self.measured.window_s.append(time.perf_counter() - began)
        self.measured.cpu_s.append(time.process_time() - cpu_began)

    def _estimate(self) -> None:
        meta_grad, self._state, _ = outer_step.estimate(
            self._each, self._meta_params, self._state, next(self._keys)
        )
        jax.block_until_ready(meta_grad)


def main() -> None:
    """Measure, print and write."""
    task, other = tasks.load_task("digits_mlp"), _with_other_data(tasks.load_task("digits_mlp"))
    subjects = [
        Subject(
            "adam", lambda p, n: optax.adam(p["rate"]), {"rate": jnp.asarray(1e-3)}, task, other
        )
    ]
    for name in RULES:
        rule = registry.architecture(name)
        subjects.append(Subject(name, rule.as_optax, rule.init(jax.random.key(1)), task, other))
    for _ in range(ROUNDS):
        for subject in subjects:
            subject.round()
    num_steps = 2 * NUM_PARTICLES * WINDOW
    adam = subjects[0].measured
    rows: dict[str, dict[str, Any]] = {}
    for subject in subjects:
        m = subject.measured
        shares = [a / b for a, b in zip(adam.cpu_s, m.cpu_s, strict=True)]
        rows[m.name] = {
            "inner_steps_per_s": num_steps / min(m.window_s),
            "inner_steps_per_cpu_s": num_steps / min(m.cpu_s),
            "share_of_adam": min(adam.cpu_s) / min(m.cpu_s),
            "share_of_adam_quartiles": statistics.quantiles(shares, n=4),
            "compile_s": m.compile_s,
            "second_estimator_s": m.again_s,
        }
        low, _, high = rows[m.name]["share_of_adam_quartiles"]
        print(
            f"{m.name:12} {num_steps / min(m.window_s):8,.0f} inner steps/s, "
            f"{rows[m.name]['share_of_adam']:5.2f} of Adam's (quartiles of {ROUNDS}: {low:.2f} to "
            f"{high:.2f}); first estimate {m.compile_s:.1f} s, one alike {m.again_s:.2f} s"
        )
    result = {
        "device": str(jax.devices()[0]),
        "jax": jax.__version__,
        "num_particles": NUM_PARTICLES,
        "window": WINDOW,
        "rounds": ROUNDS,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULTS.name}")


def _with_other_data(task: base.Task) -> base.Task:
    """Return the same shapes with other numbers, as another task of a family has."""
    return jax.tree.map(lambda x: x[::-1] if getattr(x, "ndim", 0) else x, task)


if __name__ == "__main__":
    main()
