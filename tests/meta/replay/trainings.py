"""Trainings to differentiate: a small network under each kind of optimizer, and a bare map."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import registry
from veldt.meta.replay import task_training as training
from veldt.meta.replay import transforms
from veldt.search.program import Program
from veldt.tasks import base

ROWS = 24


class Curve(base.Task):
    """Fit a sine with six tanh units, on minibatches of eight rows."""

    name = "curve"

    def __init__(self, dtype=jnp.float32):
        self.x = jnp.linspace(-2, 2, ROWS, dtype=dtype)

    def init(self, key):
        # One draw: every threefry that XLA meets takes it a tenth of a second.
        start = jax.random.normal(key, (3, 6), self.x.dtype)
        return {"in": start[:2], "out": start[2] / 6}

    def loss(self, params, key, batch):
        inputs = jnp.stack([batch, jnp.ones_like(batch)], -1)
        outputs = jnp.tanh(inputs @ params["in"]) @ params["out"]
        return jnp.mean((outputs - jnp.sin(2 * batch)) ** 2), {}

    def train_batch(self, key):
        return self.x[jax.random.bits(key, (8,), jnp.uint32) % ROWS]

    def eval_batch(self, split):
        return self.x[{"train": 0, "valid": 1, "test": 2}[split] :: 3]

    def normalizer(self, loss):
        return base.clip_normalized(loss)


PROGRAM = Program.parse(
    """
def momentum_of_signs(w, g, m, v, *, b1=0.9, b2=0.95):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    return m / (sqrt(v) + 0.01) + 0.01 * w, m, v
"""
)


def _rate(z):
    return jnp.exp(z["log_rate"])


def _learned(name):
    rule = registry.architecture(name)
    return lambda z: rule.as_optax(z, 40)


TRANSFORMS = {
    "sgd": lambda z: optax.sgd(_rate(z)),
    "momentum": lambda z: optax.sgd(_rate(z), momentum=z["decay"]),
    "adam": lambda z: optax.chain(
        transforms.scale_by_adam(b1=z["decay"]), optax.scale_by_learning_rate(_rate(z))
    ),
    "lion": lambda z: optax.chain(
        transforms.scale_by_lion(b1=z["decay"], width=0.05), optax.scale_by_learning_rate(_rate(z))
    ),
    "program": lambda z: PROGRAM.as_optax(_rate(z), b1=z["decay"]),
    "adafac_mlp": _learned("adafac_mlp"),
    "celo2_base": _learned("celo2_base"),
}
LEARNED = ("adafac_mlp", "celo2_base")


def meta_params(name, dtype=jnp.float32):
    """Where the gradient is taken."""
    if name in LEARNED:
        weights = jax.jit(registry.architecture(name).init)(jax.random.key(3))
        return jax.tree.map(lambda x: x.astype(dtype), weights)
    return {"log_rate": jnp.asarray(-3.0, dtype), "decay": jnp.asarray(0.8, dtype)}


@dataclasses.dataclass(frozen=True)
class Maker:
    """Equal for equal names, so that what is compiled for one is found by the next."""

    name: str

    def __call__(self, z, task):
        return task, TRANSFORMS[self.name](z)


def curve(name="momentum", num_steps=20, *, dtype=jnp.float32, seeds=0, **options):
    return training.TaskTraining.of(
        Maker(name), num_steps, seeds=seeds, data=Curve(dtype), **options
    )


@dataclasses.dataclass(frozen=True)
class Fit(training.Training):
    """A small network under a transform, without random numbers, which take long to compile.

    Its data move from step to step.
    """

    num_steps: int
    name: str = dataclasses.field(metadata={"static": True})

    def init(self, z):
        dtype = jnp.result_type(*jax.tree.leaves(z))
        at = jnp.arange(6.0, dtype=dtype)
        params = {"in": jnp.stack([jnp.cos(at), jnp.sin(3 * at)]), "out": jnp.sin(2 + at)}
        return {"params": params, "opt": TRANSFORMS[self.name](z).init(params)}

    def loss(self, params, x):
        outputs = jnp.tanh(jnp.stack([x, jnp.ones_like(x)], -1) @ params["in"]) @ params["out"]
        return jnp.mean((outputs - jnp.sin(2 * x)) ** 2)

    def step(self, z, state, index):
        params = state["params"]
        x = jnp.linspace(-1, 1, 5, dtype=params["out"].dtype) + 0.1 * (index % 7)
        value, grads = jax.value_and_grad(self.loss)(params, x)
        tx = optax.with_extra_args_support(TRANSFORMS[self.name](z))
        updates, opt = tx.update(grads, state["opt"], params, value=value)
        return {"params": optax.apply_updates(params, updates), "opt": opt}

    def outcome(self, z, state):
        out = state["params"]["out"]
        return self.loss(state["params"], jnp.linspace(-1, 2, 9, dtype=out.dtype))

    def params(self, state):
        return state["params"]


@dataclasses.dataclass(frozen=True)
class Map(training.Training):
    """s <- sin(a s + b) + noise(index), from s_0 = c: the meta-parameters enter everywhere."""

    num_steps: int
    key: jax.Array = dataclasses.field(default_factory=lambda: jax.random.key(5))

    def init(self, z):
        return {"s": z["c"] * jnp.arange(1.0, 4.0), "key": self.key, "count": 0}

    def step(self, z, state, index):
        noise = 0.1 * jax.random.normal(jax.random.fold_in(state["key"], index), (3,))
        s = jnp.sin(z["a"] * state["s"] + z["b"]) + noise
        return {"s": s, "key": state["key"], "count": state["count"] + 1}

    def outcome(self, z, state):
        return jnp.sum(state["s"] ** 2) + z["b"] * z["c"]

    @classmethod
    def point(cls):
        return {
            "a": jnp.asarray(1.3),
            "b": jnp.asarray([0.1, 0.2, 0.3]).sum(),
            "c": jnp.asarray(0.7),
        }


def outcome(training, z, num_steps):
    """The outcome through a plain scan."""

    def body(state, index):
        return training.step(z, state, index), None

    steps = jnp.arange(num_steps, dtype=jnp.int32)
    state, _ = jax.lax.scan(body, training.init(z), steps)
    return training.outcome(z, state)
