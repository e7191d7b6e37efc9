"""The config of where work is done."""

import dataclasses
import os
from typing import Literal, final

from veldt.tasks.common.config import bounds

# With more workers, threads of one process wait for Python's lock and for each other.
MAX_INLINE_WORKERS = 8


@final
@dataclasses.dataclass(frozen=True)
class RayConfig:
    """The use of a cluster by the `ray` back end.

    Attributes:
      address: Address of the cluster: "auto" (the one this machine belongs to), "HOST:PORT", or
        "ray://HOST:10001" (from outside); null starts one on this machine alone, which listens
        on loopback only and ends with the run.
      num_cpus: Number of CPU cores for each worker.
      num_gpus: Number of GPUs for each worker; a fraction shares one, and its memory, among
          several. Null gives each worker one where every node that runs workers has GPUs, all
          chips of a host where every such node has TPUs, else none.
      resources: Custom resources for each worker, such as {TPU: 4}.
      memory_limit_gib: Limit of a worker's memory; one that exceeds it is ended, and its job is
          tried again; null sets no limit.
      max_jobs: Largest number of jobs of one worker, after which a new process takes its place,
          between two jobs; null sets no limit. Workers that start together end one after another.
      max_growth_gib: Growth of a worker's memory since its start, after which a new process takes
          its place, between two jobs; null sets no limit.
      wheel: Wheel of veldt that Ray puts on the nodes; null where veldt is installed there.
      working_dir: Folder that Ray copies to the nodes, for tasks of your own; null copies none.
      env_vars: Environment variables of the workers.
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float | None = None
    resources: dict[str, float] = dataclasses.field(default_factory=dict)
    memory_limit_gib: float | None = None
    max_jobs: int | None = None
    max_growth_gib: float | None = None
    wheel: str | None = None
    working_dir: str | None = None
    env_vars: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        bounds.at_least(self, 0, "num_cpus", "num_gpus")
        for name, value in self.resources.items():
            if not value > 0:
                raise ValueError(f"resources: {name} is {value}; it must be above 0")
        bounds.at_least(self, 1, "max_jobs")
        bounds.above(self, 0, "memory_limit_gib", "max_growth_gib")


@final
@dataclasses.dataclass(frozen=True)
class PoolConfig:
    """The place where work is done, and its limits.

    Attributes:
      backend: Kind of workers: "inline" for threads of this process, "ray" for actors of a
        Ray cluster; "auto" takes Ray where an address is given (here or in RAY_ADDRESS) or
        more than 8 workers are wanted.
      num_workers: Number of jobs that run at once; null takes the cores this process may use,
        or as many as fit on the cluster.
      timeout_s: Time limit of a job in seconds; null sets none. Ray replaces a worker that
        exceeds it; inline it is noticed when the job has ended.
      max_tries: Number of workers that may die of a job before it is given up as `killed`.
      straggler_factor: Factor on the time that nearly all jobs stay below; with idle workers, a
        job that runs longer is also given to a second worker; null never does.
      ray: Use of a cluster by the `ray` back end.
    """

    backend: Literal["auto", "inline", "ray"] = "auto"
    num_workers: int | None = None
    timeout_s: float | None = None
    max_tries: int = 3
    straggler_factor: float | None = 4.0
    ray: RayConfig = dataclasses.field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "num_workers", "max_tries")
        bounds.above(self, 0, "timeout_s")
        bounds.above(self, 1, "straggler_factor")


def choose_backend(config: PoolConfig) -> Literal["inline", "ray"]:
    """Return the back end that a config names or, by "auto", that suits this machine."""
    if config.backend != "auto":
        return config.backend
    if config.ray.address is not None or os.environ.get("RAY_ADDRESS"):
        return "ray"
    many = (config.num_workers or num_usable_cores()) > MAX_INLINE_WORKERS
    return "ray" if many else "inline"


def num_usable_cores() -> int:
    """Return the number of cores that this process may use, by its affinity if there is one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
