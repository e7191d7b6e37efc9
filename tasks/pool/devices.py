"""The devices of drivers and workers: who may use which accelerator, and how much of its memory.

A process that asks JAX for its devices gets all that it sees, and three quarters of each GPU's
memory. So a driver whose workers are other processes stays on the CPU. So does a worker that was
given no accelerator, on a node that has one: Ray hides those that it gave to others only from a
worker that got one itself. A worker that shares a GPU takes its share of the memory. A worker with
whole devices sees those alone, which is Ray's doing (`CUDA_VISIBLE_DEVICES`, `TPU_VISIBLE_CHIPS`).

JAX reads all this when it makes its first array, and not again.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Final

import jax

from veldt.tasks.pool import config as config_lib

# Besides JAX's pool of memory, each process holds CUDA's context and code, some hundred MB.
MARGIN: Final = 0.9
PLATFORMS: Final = "JAX_PLATFORMS"
# Two names of one setting; JAX refuses both at once, and newer versions prefer the second.
FRACTION, NEW_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"


def keep_driver_on_cpu(config: config_lib.PoolConfig) -> None:
    """Keep this process on the CPU if its workers are other processes, before JAX has any device.

    Not by the environment: workers inherit that.
    """
    if config_lib.choose_backend(config) == "ray":
        jax.config.update("jax_platforms", "cpu")


def worker_shape(
    settings: config_lib.RayConfig, nodes: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Return the resources of one worker, by Ray's names.

    Where the config names no accelerator, a worker gets one GPU if all nodes that run workers have
    GPUs, or all chips of a host if all have TPUs: JAX claims every chip that it sees, and only one
    process may have a chip.

    Args:
      settings: Use of the cluster.
      nodes: Resources of the nodes that are alive.
    """
    working = [node for node in nodes if node.get("CPU")]
    shape = {"CPU": settings.num_cpus, "GPU": settings.num_gpus or 0.0, **settings.resources}
    if settings.num_gpus is None and "TPU" not in shape and working:
        if all(node.get("GPU", 0) >= 1 for node in working):
            shape["GPU"] = 1.0
        elif all(node.get("TPU", 0) >= 1 for node in working):
            shape["TPU"] = min(node["TPU"] for node in working)
    return {name: amount for name, amount in shape.items() if amount}


def worker_variables(shape: Mapping[str, float], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that keep a worker to its devices.

    Args:
      shape: Resources of the worker.
      environ: Environment of the worker's process; what it sets already stays.
    """
    if not set(shape) - {"CPU"}:  # With a resource of the user's own, who knows?
        return {} if environ.get(PLATFORMS) else {PLATFORMS: "cpu"}
    gpus = shape.get("GPU", 0)
    if 0 < gpus < 1 and not (environ.get(FRACTION) or environ.get(NEW_FRACTION)):
        return {FRACTION: f"{MARGIN * gpus:.3f}"}
    return {}


def prepare_worker(shape: Mapping[str, float]) -> None:
    """Keep this process, a worker with these resources, to its devices, before JAX has any."""
    variables = worker_variables(shape, os.environ)
    os.environ.update(variables)
    if PLATFORMS in variables and not getattr(jax.config, "jax_platforms", None):
        jax.config.update("jax_platforms", variables[PLATFORMS])  # JAX has read it when imported.
