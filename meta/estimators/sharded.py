"""One estimate spread over the devices of a process, by `jax.shard_map`.

The particles are split into S shards, each an estimator of its own with its own key; a device runs
the shards that fall to it one after another, and the estimate is the mean over all. S is part of
the experiment; how many devices there are is not: each shard is computed by the same program
wherever it lies, and the mean is taken over the gathered shards in their order, so that on the CPU
the numbers are the same bits on one device and on S.
"""

import dataclasses
import math
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import base
from veldt.tasks.common import types

_AXIS = "shards"


@final
@dataclasses.dataclass(frozen=True)
class Sharded(base.GradientEstimator):
    """The mean of S estimates of one kind.

    Attributes:
      part: The estimator of one shard.
      num_shards: Number of shards, S.
      mesh: The devices, by `make_mesh`; their number divides S.
    """

    part: base.GradientEstimator
    num_shards: int = dataclasses.field(metadata=pytree.STATIC)
    mesh: Mesh = dataclasses.field(metadata=pytree.STATIC)

    def init(self, meta_params: MetaParams, key: types.Key) -> base.EstimatorState:
        """Return the shards' states, leaves [S, ...]."""

        def local(
            part: base.GradientEstimator, meta_params: MetaParams, keys: types.Key
        ) -> base.EstimatorState:
            return jax.lax.map(lambda key: part.init(meta_params, key), keys)

        keys = jax.random.split(key, self.num_shards)
        return self._spread(local, num_split=1)(self.part, meta_params, keys)

    def estimate(
        self, meta_params: MetaParams, state: base.EstimatorState, key: types.Key
    ) -> tuple[base.MetaGrad, base.EstimatorState, base.Metrics]:
        def local(
            part: base.GradientEstimator,
            meta_params: MetaParams,
            states: base.EstimatorState,
            keys: types.Key,
        ) -> tuple[base.MetaGrad, base.EstimatorState, base.Metrics]:
            return jax.lax.map(lambda each: part.estimate(meta_params, *each), (states, keys))

        keys = jax.random.split(key, self.num_shards)
        meta_grads, states, metrics = self._spread(local, num_split=2)(
            self.part, meta_params, state, keys
        )
        # Every device gets all shards and adds them up in their order; left to itself, XLA adds up
        # those of each device first.
        whole = NamedSharding(self.mesh, PartitionSpec())
        meta_grads, metrics = jax.lax.with_sharding_constraint((meta_grads, metrics), whole)
        mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), meta_grads)
        metrics = dataclasses.replace(
            jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics),
            meta_loss=base.finite_mean(metrics.meta_loss),
        )
        return mean, states, metrics

    def _spread(self, local: Any, *, num_split: int) -> Any:
        """Run `local` on every device: estimator and meta-parameters whole, the rest split."""
        specs = (PartitionSpec(),) * 2 + (PartitionSpec(_AXIS),) * num_split
        return jax.shard_map(
            local,
            mesh=self.mesh,
            in_specs=specs,
            out_specs=PartitionSpec(_AXIS),
            check_vma=False,  # Nothing is exchanged between devices.
        )


def make_mesh(num_shards: int) -> Mesh:
    """Return a mesh of as many of this process's devices as divide the shards evenly."""
    devices = jax.local_devices()
    num_devices = max(n for n in range(1, len(devices) + 1) if num_shards % n == 0)
    return Mesh(np.array(devices[:num_devices]), (_AXIS,))


def split_particles(num_particles: int, num_shards: int) -> int:
    """Return the number of particles of a shard.

    Raises:
      ValueError: The shards would differ.
    """
    if num_particles % num_shards:
        raise ValueError(
            f"{num_particles} particles cannot be split into {num_shards} equal shards; "
            f"{math.gcd(num_particles, num_shards)} would do"
        )
    return num_particles // num_shards
