"""The number of lanes that fit into the memory of a device, by the size of what a lane holds.

A lane holds the register file of its program and the schedules, once before and once after a call,
for each proxy, since proxies have loops of their own; and, while a proxy is being trained, the
values of a step: of the loss and its gradient on a batch, or of the loss on the validation split.
The last are taken from JAX's own form of the function, each intermediate once, so they are more
than XLA will need, which shares memory and merges operations.

The number depends on the config and a number of bytes alone. A run keeps it in its config, so that
it goes on with the same number elsewhere.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import jax

from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.runtime.encode import Capacity
from veldt.tasks import base, task_objects
from veldt.tasks.common.disk import run_directory
from veldt.tasks.inner_loop import flat

SHARE: Final = 0.5  # Of the memory; a stack of a batch that is only partly gone may be there too.
COPIES: Final = 2  # Of a lane's state: the call's argument, and its result.
_NUMBER_BYTES: Final = 4


def settle(
    config: SearchConfig,
    run_dir: Path,
    *,
    resume: bool,
    tasks: task_objects.TaskObjects = task_objects.NONE,
) -> SearchConfig:
    """Return the config with a number of lanes: its own, the stored run's, or as many as fit.

    Args:
      config: Config of the search.
      run_dir: Directory of the run.
      resume: Whether a stored run goes on, with its number of lanes.
      tasks: Tasks that are objects.
    """
    if config.lanes is not None:
        return config
    if resume and run_directory.kind_of(run_dir) == "search":
        stored = run_directory.read_config(run_dir).get("lanes", 1)
        return dataclasses.replace(config, lanes=int(stored))
    given = config.lane_memory_gib
    num_bytes = device_bytes() if given is None else int(given * 2**30)
    if num_bytes is None:
        return dataclasses.replace(config, lanes=1)
    loaded = [tasks.load(proxy.task) for proxy in config.proxies]
    capacity = config.evaluator.capacity
    lanes = fitting(loaded, config.proxies, capacity, num_bytes, most=_most(config))
    # One lane as well is a thread's work: other processes would find the device taken.
    pool = dataclasses.replace(config.pool, backend="inline")
    return dataclasses.replace(config, lanes=lanes, pool=pool)


def device_bytes() -> int | None:
    """Return the memory that JAX may take on this process's first device; None on a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    return None if stats is None else stats.get("bytes_limit")


def fitting(
    tasks: Sequence[base.Task],
    proxies: Sequence[ProxyConfig],
    capacity: Capacity,
    num_bytes: int,
    *,
    most: int,
) -> int:
    """Return the largest power of two of lanes that fit into a share of a device's memory.

    Args:
      tasks: Tasks of the proxies.
      proxies: Proxies.
      capacity: Capacity of the interpreter.
      num_bytes: Memory of the device.
      most: Largest number of lanes, at least 1.
    """
    pairs = list(zip(tasks, proxies, strict=True))
    held = sum(COPIES * state_bytes(task, proxy.num_steps, capacity) for task, proxy in pairs)
    each = held + max(step_bytes(task) for task in tasks)
    number = max(1, min(most, int(SHARE * num_bytes / each)))
    return 1 << (number.bit_length() - 1)


def state_bytes(task: base.Task, num_steps: int, capacity: Capacity) -> int:
    """Return the bytes of one run's registers and schedules."""
    num_params = flat.FlatTask(task).layout.num_params
    schedules = num_steps * (capacity.schedules + 1)
    return _NUMBER_BYTES * (capacity.registers * num_params + schedules)


def step_bytes(task: base.Task) -> int:
    """Return the bytes of all values of one step of training, or of an evaluation if more."""
    key = jax.random.key(0)
    params = jax.eval_shape(task.init, key)

    def step(params: Any, key: Any) -> Any:
        batch = task.train_batch(key)
        return jax.value_and_grad(task.loss, has_aux=True)(params, key, batch)

    def evaluate(params: Any, key: Any) -> Any:
        return task.loss(params, key, task.eval_batch("valid"))

    return max(_bytes_of(jax.make_jaxpr(each)(params, key).jaxpr) for each in (step, evaluate))


def _bytes_of(jaxpr: Any) -> int:
    """Return the bytes of all intermediate values of a function, in loops those of one pass."""
    total = 0
    for equation in jaxpr.eqns:
        for out in equation.outvars:
            total += out.aval.size * getattr(out.aval.dtype, "itemsize", _NUMBER_BYTES)
        total += sum(_bytes_of(inner) for inner in _inner(equation.params))
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the functions that an operation calls."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            each = getattr(each, "jaxpr", each)
            if hasattr(each, "eqns"):
                yield each


def _most(config: SearchConfig) -> int:
    """Return the number of candidates that can be there at once."""
    return min(config.window, config.pool.num_workers or config.window)
