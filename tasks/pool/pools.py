"""The one place that knows the pool's back ends."""

from veldt.tasks.pool import base, inline
from veldt.tasks.pool import config as config_lib


def make_pool(config: config_lib.PoolConfig, factory: base.WorkerFactory) -> base.Pool:
    """Make the pool that a config names; use it as a context manager.

    Args:
      config: Back end, number of workers, limits.
      factory: Function that makes one worker, called where that worker lives.

    Raises:
      PoolError: The cluster cannot be reached, or cannot run a single worker.
    """
    if config_lib.choose_backend(config) == "ray":
        from veldt.tasks.pool import ray_pool

        return ray_pool.RayPool(factory, config)
    num_workers = config.num_workers or config_lib.num_usable_cores()
    return inline.InlinePool(factory, num_workers, timeout_s=config.timeout_s)
