"""A meta-training small enough to be run many times: two numbers, bowls of two dimensions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.learned_opt import base as learned_base
from veldt.learned_opt import registry
from veldt.meta.train import config, gradient_worker, meta_training, run_meta_training
from veldt.tasks import base
from veldt.tasks.families import distribution
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool import pools


@dataclasses.dataclass(frozen=True)
class Bowls(base.TaskFamily):
    """Bowls with a drawn curvature, noise in the gradient: loss = c x^2 / 2 + noise * x."""

    name: str = "bowls"

    def sample(self, key):
        return jax.random.uniform(key, minval=0.5, maxval=1.5)

    def task(self, cfg):
        return Bowl(cfg, self.name)


class Bowl(base.Task):
    def __init__(self, curvature=1.0, name="bowl"):
        self.name = name
        self.curvature = jnp.asarray(curvature)

    def init(self, key):
        return jax.random.normal(key)

    def loss(self, params, key, batch):
        return 0.5 * self.curvature * params**2 + batch * params, {}

    def train_batch(self, key):
        return 0.1 * jax.random.normal(key)

    def eval_batch(self, split):
        return jnp.zeros(())

    def normalizer(self, loss):
        return base.clip_normalized(loss)


FAMILIES = (Bowls(), Bowls("others"))
CHECK = config.CheckConfig("tests.meta.toys:Bowl", 3)


@dataclasses.dataclass(frozen=True)
class Rate(learned_base.LearnedOptimizer):
    """Gradient descent whose learning rate and momentum are the meta-parameters.

    Attributes:
      scale: Of the learning rate.
    """

    scale: float = 1.0

    def init(self, key):
        return {
            "momentum": {"share": 0.1 * jax.random.uniform(key)},
            "rate": {"log": jnp.asarray(-3.0)},
        }

    def as_optax(self, meta_params, num_steps=None):
        rate = self.scale * jnp.exp(meta_params["rate"]["log"])
        return optax.with_extra_args_support(
            optax.chain(
                optax.trace(meta_params["momentum"]["share"]),
                optax.scale_by_learning_rate(rate),
            )
        )


def phase(name="first", num_updates=4, *, kind="pes", window=2, particles=2, **changes):
    """A phase of a few windows of a few steps."""
    settings = {
        "lengths": (2 * window, 3 * window),
        "estimator": config.EstimatorConfig(kind, particles, window, sigma=0.1),
        "outer": config.MetaOptimizerConfig("adam", 0.1),
        **changes,
    }
    return config.PhaseConfig(name, num_updates, **settings)


def settings(*phases, **changes):
    """A meta-training of `Rate` on one thread, where `toy` is in force."""
    changes = {"pool": pool_config.PoolConfig("inline", 1), **changes}
    return config.MetaTrainConfig("rate", phases or (phase(),), **changes)


class Watcher:
    """Keeps what it is told, and presses Ctrl-C after so many updates."""

    def __init__(self, interrupt_after=None):
        self.interrupt_after = interrupt_after
        self.updates, self.checks = [], []

    def updated(self, progress, figures):
        self.updates.append((progress.update, figures))
        if progress.update == self.interrupt_after:
            raise KeyboardInterrupt

    def checked(self, progress, figures):
        self.checks.append((progress.update, figures))

    def waiting(self, progress, what, done, total):
        pass


@dataclasses.dataclass(frozen=True)
class ToyFactory:
    """Makes workers in other processes, where no fixture puts the toy in force."""

    config: config.MetaTrainConfig

    def __call__(self):
        registry.ARCHITECTURES["rate"] = Rate()
        distribution.draw = lambda tasks, seed: FAMILIES
        return gradient_worker.GradientWorker(self.config)


def train(config, progress=None, *, watcher=None, save=lambda progress: None, factory=None):
    """Train in memory to the end, or until an interrupt; returns where it got to."""
    factory = factory or gradient_worker.GradientWorkerFactory(config)
    watcher = watcher or Watcher()
    progress = progress or meta_training.begin(config, None)
    with pools.make_pool(config.pool, factory) as workers:
        loop = meta_training.MetaTraining(config, progress, workers, len(FAMILIES), watcher)
        try:
            loop.run(save)
        except KeyboardInterrupt:
            assert watcher.interrupt_after is not None
        return loop.progress


def run_in(directory, config, **options):
    """Run in a directory, to the end."""
    return run_meta_training.run_meta_training(config, directory, **options)


def same(one, other):
    """Whether two trees of arrays are equal, to the bit."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b, equal_nan=True)
        for a, b in zip(leaves, others, strict=True)
    )
