"""The pool's figures as Ray metrics, for a cluster's dashboard or Prometheus.

Ray exports them from the driver's node; names start with `ray_veldt_pool_`.
"""

from typing import Final, final

from veldt.tasks.pool.base import PoolStats

_GAUGES: Final = {
    "num_workers": "Workers wanted.",
    "num_ready": "Workers alive and able to work.",
    "num_queued": "Jobs that no worker has yet.",
    "num_running": "Jobs that a worker has.",
}
_COUNTERS: Final = {
    "num_done": "Jobs that ended.",
    "num_retries": "Jobs handed out again because their worker went away.",
    "num_reissued": "Stragglers handed to a second worker.",
    "num_timeouts": "Jobs ended by the time limit.",
    "num_killed": "Jobs quarantined.",
    "num_lost_workers": "Workers that died or were given up.",
    "busy_s": "Worker-seconds spent on work that was used.",
    "wasted_s": "Worker-seconds spent on work that was not.",
    "starting_s": "Worker-seconds spent on making workers.",
}


@final
class Metrics:
    """A sender of a pool's figures to Ray; needs a connection."""

    def __init__(self) -> None:
        from ray.util import metrics

        self._gauges = {
            name: metrics.Gauge(f"veldt_pool_{name}", description=text)
            for name, text in _GAUGES.items()
        }
        self._counters = {
            name: metrics.Counter(f"veldt_pool_{name}", description=text)
            for name, text in _COUNTERS.items()
        }
        self._jobs = metrics.Gauge(
            "veldt_pool_worker_jobs_per_s",
            description="Jobs that a worker ends per second of its life.",
            tag_keys=("worker",),
        )
        self._sent = dict.fromkeys(_COUNTERS, 0.0)
        self._workers: set[str] = set()

    def update(self, stats: PoolStats) -> None:
        """Send the figures that changed."""
        for name, gauge in self._gauges.items():
            gauge.set(getattr(stats, name))
        for name, counter in self._counters.items():
            value = float(getattr(stats, name))
            if value > self._sent[name]:
                counter.inc(value - self._sent[name])
                self._sent[name] = value
        rates = {w.name: w.num_jobs / w.alive_s for w in stats.workers if w.alive_s > 0}
        for name in self._workers - rates.keys():
            self._jobs.set(0.0, tags={"worker": name})
        for name, rate in rates.items():
            self._jobs.set(rate, tags={"worker": name})
        self._workers = set(rates)
