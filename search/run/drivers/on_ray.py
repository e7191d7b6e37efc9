"""Drivers of a search as Ray actors: processes beside this one, on its machine.

An actor holds a `DriverThread` and answers at once whenever it is asked. It takes no CPU of Ray's
count, so it always fits. Its workers are its own: when it dies Ray ends them too, and the driver
that takes its place asks for others.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, final

from veldt.search.errors import SearchError
from veldt.search.run.drivers.driver_progress import Delivery, Report
from veldt.search.run.drivers.driver_thread import DriverThread, Part
from veldt.search.storage.mail import Letter
from veldt.tasks.pool import base, devices, ray_cluster
from veldt.tasks.pool.config import PoolConfig

ANSWER_S: Final = 120.0  # An actor's process starts, or a driver computes without a pause.
STOP_S: Final = 8.0


class _Actor:
    """The class of the actor."""

    def __init__(self, part: Part, factory: base.WorkerFactory):
        devices.keep_driver_on_cpu(part.config.pool)
        self._thread = DriverThread(part, factory)
        self._thread.begin()

    def exchange(self, letters: list[Letter], *, ended: bool, stop: bool = False) -> Report:
        """Hand over letters, and return what is new."""
        return self._thread.exchange(letters, ended=ended, stop=stop)

    def join(self, timeout_s: float) -> bool:
        """Wait for the driver's end."""
        return self._thread.join(timeout_s)


@final
class Actors:
    """The drivers of a search as actors."""

    def __init__(
        self,
        config: PoolConfig,
        parts: Callable[[int], list[Part]],
        factory: base.WorkerFactory,
    ):
        """Connect to the cluster.

        Args:
          config: Config of the pool.
          parts: Function from the number of workers of all drivers to the drivers' parts.
          factory: Maker of the pool's workers.

        Raises:
          PoolError: The cluster cannot be reached.
          SearchError: It is reached from outside, or there are fewer workers than drivers.
        """
        self.poll_s = 0.1
        self._cluster = ray_cluster.connect(config)
        try:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            if ray.util.client.ray.is_connected():
                raise SearchError(
                    "several drivers write to the run's directory, so they need to be on this "
                    "machine, which is not one of the cluster's (pool.ray.address: ray://...); "
                    "start the search on a machine of the cluster, or take drivers: 1"
                )
            num_workers = config.num_workers or self._cluster.max_workers()
            self._parts = parts(num_workers)
            if num_workers < len(self._parts):
                raise SearchError(
                    f"there are {num_workers} workers for {len(self._parts)} drivers; on Ray each "
                    "driver needs at least one"
                )
            here = ray.get_runtime_context().get_node_id()
            options: dict[str, Any] = {
                "num_cpus": 0,
                "max_restarts": 0,
                "max_task_retries": 0,
                "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
            }
            self._class = ray.remote(**options)(_Actor)
            self._factory = factory
            self._actors: dict[int, Any] = {}
        except BaseException:
            self._cluster.close()
            raise

    def begin(self, driver: int) -> None:
        """Start a driver, or start it anew."""
        self._actors[driver] = self._class.remote(self._parts[driver], self._factory)

    def exchange(self, mail: Mapping[int, Delivery]) -> dict[int, Report | str]:
        """Exchange with several drivers; see `together.Drivers`."""
        import ray

        asked = {
            driver: self._actors[driver].exchange.remote(letters, ended=ended)
            for driver, (letters, ended) in mail.items()
        }
        found: dict[int, Report | str] = {}
        for driver, ref in asked.items():
            try:
                found[driver] = ray.get(ref, timeout=ANSWER_S)
            except ray.exceptions.RayTaskError:  # It is alive, and the fault is in its code.
                raise
            except ray.exceptions.RayError as error:
                # Whatever is left of it must not write to the store that another goes on with.
                ray.kill(self._actors[driver])
                found[driver] = str(error).strip().split("\n", 1)[0] or type(error).__name__
        return found

    def close(self) -> None:
        """Stop the actors, and disconnect."""
        import ray

        try:
            stop = [
                ref
                for actor in self._actors.values()
                for ref in (
                    actor.exchange.remote([], ended=False, stop=True),
                    actor.join.remote(STOP_S),
                )
            ]
            ray.wait(stop, num_returns=len(stop), timeout=STOP_S)
            for actor in self._actors.values():
                ray.kill(actor)
        finally:
            self._cluster.close()
