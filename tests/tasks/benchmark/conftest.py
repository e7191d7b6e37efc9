"""Two tasks that compile in a second, in a module of their own as a user's would be."""

import sys
from pathlib import Path

import pytest

from veldt.tasks import suites
from veldt.tasks.benchmark import archive
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.runs import cache
from veldt.tasks.common.progress.display import Silent
from veldt.tasks.pool import config

MODULE = "tiny_benchmark_tasks"
SOURCE = '''
import jax
import jax.numpy as jnp
import optax

import veldt
from veldt.tasks import base


class Line(veldt.Task):
    def __init__(self, name, slope, noise):
        self.name = name
        x = jnp.linspace(-1.0, 1.0, 90)
        self.x = jnp.stack([x, slope * x + noise * jnp.sin(40.0 * x)])

    def init(self, key):
        return {"slope": 0.1 * jax.random.normal(key, (2,))}

    def loss(self, params, key, batch):
        slope = params["slope"][0] + 0.3 * params["slope"][1]
        return jnp.mean((slope * batch[0] - batch[1]) ** 2), {}

    def train_batch(self, key):
        return self.x[:, jax.random.randint(key, (8,), 0, 60)]

    def eval_batch(self, split):
        return {"train": self.x[:, :60], "valid": self.x[:, 60:75], "test": self.x[:, 75:]}[split]

    def normalizer(self, loss):
        return base.clip_normalized(loss / jnp.mean(self.x[1] ** 2))


def line():
    return Line("line", 2.0, 0.1)


def steep():
    return Line("steep", 20.0, 1.0)


def sgd(learning_rate):
    return optax.sgd(learning_rate)


def uphill(learning_rate):
    return optax.sgd(-learning_rate)


def breaks(learning_rate):
    def update(grads, state, params=None):
        raise ValueError("this optimizer cannot do that")

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def learned(num_steps):
    """No learning rate, but the length of the run: as a learned optimizer is used."""
    return optax.chain(
        optax.scale_by_rms(), optax.scale_by_schedule(optax.linear_schedule(-0.1, 0.0, num_steps))
    )


def suite():
    from veldt.tasks import suites

    return suites.Suite("mine", "", (suites.SuiteTask(f"{__name__}:line", 25),))
'''


@pytest.fixture(scope="session")
def tiny_module(tmp_path_factory):
    """The module's name; it can be imported for the rest of the session."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    yield MODULE
    sys.path.remove(str(folder))
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="session")
def tiny_suite(tiny_module):
    names = [f"{tiny_module}:{task}" for task in ("line", "steep")]
    return suites.Suite("tiny", "two lines", tuple(suites.SuiteTask(name, 50) for name in names))


@pytest.fixture(scope="session")
def inline():
    return config.PoolConfig(backend="inline", num_workers=1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="session")
def tiny_archive(tiny_suite, tiny_folder, inline):
    """An archive of Adam and SGD on both tasks, made as the shipped ones are."""
    rows = [baselines.BASELINES[name] for name in ("adam", "sgd_momentum")]
    return archive.run_baselines(tiny_suite, rows, inline, cache.RunCache(tiny_folder), Silent())
