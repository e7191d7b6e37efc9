"""Fingerprints of tasks: short texts that say which task a stored result was measured on.

A fingerprint is a hash of what is exact (shapes, number types, whole numbers such as labels and
bytes of text) and a few numbers: losses at the start and after one step, in training and in
evaluation, and the data's mean square. Such numbers differ in their last digits between machines,
so they are written out and compared with a tolerance, not hashed: of two numbers on either side of
a rounding boundary, however near, the hashes would differ.

    "9f3c21d07a44:+2.40713e+00,+2.38112e+00,..."
"""

import functools
import hashlib
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks import base
from veldt.tasks.common import types

RELATIVE_TOLERANCE = 1e-4
"""Largest relative difference of a task's numbers between machines. A rounding error of single
precision is 1e-7, and sums and one step of training multiply it a little."""

_STEP_NORM = 0.1  # Length of the one step, whatever the length of the gradient.
_NUM_DIGITS = 6


def fingerprint(task: base.Task) -> str:
    """Return a text that changes with the task's data, initial parameters, loss or normalizer.

    The task's name plays no part. Compare two with `matches`.
    """
    key = jax.random.key(0)
    shapes = jax.eval_shape(_probe_inputs, task, key)
    exact = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        line = f"{jax.tree_util.keystr(path)} {leaf.dtype} {list(leaf.shape)}\n"
        exact.update(line.encode())
    for leaf in jax.tree.leaves(task):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            exact.update(np.ascontiguousarray(leaf).tobytes())
    # On some accelerators matrix products lose digits by default.
    with jax.default_matmul_precision("highest"):
        numbers = jax.device_get(_numbers(task, key))
    text = ",".join(f"{float(number):+.{_NUM_DIGITS - 1}e}" for number in numbers)
    return f"{exact.hexdigest()[:12]}:{text}"


def matches(first: str, second: str) -> bool:
    """Return whether two fingerprints are of the same task, up to rounding.

    A text that is not a fingerprint matches nothing.
    """
    (exact, numbers), (other_exact, other_numbers) = _parse(first), _parse(second)
    return (
        exact == other_exact
        and len(numbers) == len(other_numbers) > 0
        and all(map(_close, numbers, other_numbers))
    )


def _close(first: float, second: float) -> bool:
    if math.isnan(first) or math.isnan(second):
        return math.isnan(first) and math.isnan(second)
    return math.isclose(first, second, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-6)


def _parse(text: str) -> tuple[str, list[float]]:
    exact, _, numbers = text.partition(":")
    try:
        return exact, [float(number) for number in numbers.split(",")]
    except ValueError:
        return exact, []


def _probe_inputs(
    task: base.Task, key: types.Key
) -> tuple[types.Params, types.Batch, dict[str, types.Batch]]:
    """Return start parameters, a training batch and the evaluation batches."""
    batches = {split: task.eval_batch(split) for split in get_args(types.Split)}
    return task.init(key), task.train_batch(key), batches


# A program that runs once: without LLVM's optimisation it compiles in half the time.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def _numbers(task: base.Task, key: types.Key) -> list[types.Scalar]:
    """Return losses before and after one step of steepest descent, and the data's mean square."""
    params, batch, eval_batches = _probe_inputs(task, key)
    grad_fn = jax.value_and_grad(task.loss, has_aux=True)
    (loss, _), grads = grad_fn(params, key, batch)
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(grads)]
    step = _STEP_NORM / jnp.sqrt(sum(squares) + 1e-12)
    moved = jax.tree.map(lambda param, grad: param - step * grad, params, grads)
    results = [loss, task.loss(moved, key, batch)[0]]
    for eval_batch in eval_batches.values():
        results.append(task.loss(params, key, eval_batch)[0])
    floats = [x for x in jax.tree.leaves(task) if jnp.issubdtype(x.dtype, jnp.floating)]
    # Weighted by position, so that two arrays that change places are noticed.
    size = sum((i + 1) * jnp.mean(jnp.square(leaf)) for i, leaf in enumerate(floats))
    return [*results, task.normalizer(loss), jnp.asarray(size, jnp.float32)]
