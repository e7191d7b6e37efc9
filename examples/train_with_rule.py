"""Train digits_mlp with an exported rule, in a plain Optax loop.

    veldt export runs/quickstart --to optax -o rule.py
    python examples/train_with_rule.py rule.py

Of veldt only the task is used, which gives the model, the loss and the batches: the exported
file stands alone. The rule goes into an `optax.chain` as any transform does. AdamW is trained
beside it, at a learning rate near its best here.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import optax

import veldt

NUM_STEPS = 500
SEEDS = (100, 101, 102)


def load_module(path: Path) -> ModuleType:
    """Import a Python file by its path. The file is your own export: importing runs it."""
    spec = importlib.util.spec_from_file_location("rule", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["rule"] = module
    spec.loader.exec_module(module)
    return module


def train(task: veldt.Task, tx: optax.GradientTransformation) -> list[float]:
    """Train from each seed; return the losses on held-out test data."""

    @jax.jit
    def step(task: veldt.Task, params: Any, opt_state: Any, key: jax.Array) -> tuple[Any, Any]:
        batch = task.train_batch(key)
        grads = jax.grad(lambda params: task.loss(params, key, batch)[0])(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    losses = []
    for seed in SEEDS:
        key_init, key_data = jax.random.split(jax.random.key(seed))
        params = task.init(key_init)
        opt_state = tx.init(params)
        for key in jax.random.split(key_data, NUM_STEPS):
            params, opt_state = step(task, params, opt_state, key)
        losses.append(float(task.loss(params, key_data, task.eval_batch("test"))[0]))
    return losses


def main() -> None:
    """Train with the rule and with AdamW; print test losses."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python examples/train_with_rule.py RULE.py")
    rule = load_module(Path(sys.argv[1]))
    task = veldt.load_task("digits_mlp")
    contenders = {
        "the exported rule": optax.chain(optax.clip_by_global_norm(10.0), rule.discovered()),
        "optax.adamw(1e-2)": optax.adamw(1e-2),
    }
    print(f"digits_mlp, {NUM_STEPS} steps, plain Optax, test loss of {len(SEEDS)} seeds:")
    for name, tx in contenders.items():
        losses = train(task, tx)
        print(f"  {name:20}" + "  ".join(f"{loss:.4f}" for loss in losses))


if __name__ == "__main__":
    main()
