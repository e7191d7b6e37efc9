"""Tasks from a model, a loss and arrays: the same numbers as written by hand, and clear errors."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import veldt
from veldt.tasks import base
from veldt.tasks.common.errors import TaskError
from veldt.tasks.data import dataset

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 4))  # float64, as NumPy has it.
Y = (X.sum(1) > 0).astype(np.int64) + (X[:, 0] > 1)
REAL = np.stack([X.sum(1), X[:, 0] ** 2], 1)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.first(x)))


class Noisy(nnx.Module):
    """Dropout and batch norm, which change their state in training."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.layer(x)))


class ByHand(base.Task):
    """The same as `veldt.task` makes of `Net`, written as a user would without it."""

    name = "by_hand"

    def __init__(self):
        order = np.random.RandomState(0).permutation(300)
        test, valid, train = order[:60], order[60:120], order[120:]
        self.parts = {
            name: (jnp.asarray(X[rows], jnp.float32), jnp.asarray(Y[rows], jnp.int32))
            for name, rows in (("train", train), ("valid", valid), ("test", test))
        }
        self.graph = nnx.graphdef(Net(nnx.Rngs(0)))
        shares = np.bincount(Y[train]) / len(train)
        self.entropy = -float((shares * np.log(shares)).sum())

    def init(self, key):
        return nnx.to_pure_dict(nnx.state(Net(nnx.Rngs(key))))

    def loss(self, params, key, batch):
        logits = nnx.merge(self.graph, nnx.State(params))(batch[0])
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch[1])
        return losses.mean(), {}

    def train_batch(self, key):
        rows = jax.random.bits(key, (64,), jnp.uint32) % 180
        return tuple(part[rows] for part in self.parts["train"])

    def eval_batch(self, split):
        return self.parts[split]

    def normalizer(self, loss):
        return base.clip_normalized(loss / self.entropy)


def curve(task, num_steps=20):
    return veldt.train(task, optax.adam(1e-2), num_steps=num_steps, seed=3)


def same_numbers(one, other, **tolerance):
    """Whether two tasks train to the same losses."""
    first, second = curve(one), curve(other)
    for name in ("train_losses", "valid_losses"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), **tolerance)


def test_an_nnx_module_is_the_task_written_by_hand():
    task = veldt.task(lambda rngs: Net(rngs), "cross_entropy", (X, Y), name="net")
    by_hand = ByHand()
    assert task.name == "net"
    same_numbers(task, by_hand, rtol=1e-5)
    for split in ("train", "valid", "test"):
        for ours, theirs in zip(task.eval_batch(split), by_hand.eval_batch(split), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    loss = jnp.asarray(0.7)
    assert float(task.normalizer(loss)) == pytest.approx(float(by_hand.normalizer(loss)))


def linen_params(key):
    return Linen().init(key, jnp.zeros((1, 4)))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(8)(x)))


def test_a_linen_module_is_its_functions():
    task = veldt.task(Linen(), "cross_entropy", (X, Y))
    functions = veldt.task(
        (linen_params, lambda params, x: Linen().apply(params, x)), "cross_entropy", (X, Y)
    )
    assert task.name == "Linen"
    same_numbers(task, functions, rtol=1e-6)


def test_an_instance_starts_all_runs_alike_and_a_function_each_anew():
    instance = veldt.task(Net(nnx.Rngs(5)), "cross_entropy", (X, Y))
    function = veldt.task(lambda rngs: Net(rngs), "cross_entropy", (X, Y))
    by_key = veldt.task(lambda key: Net(nnx.Rngs(key)), "cross_entropy", (X, Y))
    own = nnx.to_pure_dict(nnx.state(Net(nnx.Rngs(5))))
    for seed in (0, 1):
        key = jax.random.key(seed)
        for start, expected in (
            (instance.init(key), own),
            (function.init(key), nnx.to_pure_dict(nnx.state(Net(nnx.Rngs(key))))),
            (by_key.init(key), function.init(key)),
        ):
            jax.tree.map(np.testing.assert_array_equal, start, expected)


def test_an_equinox_module_takes_one_example():
    equinox = pytest.importorskip("equinox")

    def make(key):
        return equinox.nn.MLP(4, 3, 8, 1, key=key)

    task = veldt.task(make, "cross_entropy", (X, Y))
    batch = task.eval_batch("valid")
    logits = jax.vmap(make(jax.random.key(1)))(batch.inputs)
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch.targets).mean()
    found, _ = task.loss(task.init(jax.random.key(1)), jax.random.key(0), batch)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert curve(task).train_losses[-1] < curve(task).train_losses[0]
    instance = veldt.task(make(jax.random.key(0)), "cross_entropy", (X, Y))
    assert instance.name == "MLP"
    with pytest.raises(TaskError, match=r"gets one example.*dropout off"):
        layers = [equinox.nn.Linear(4, 3, key=jax.random.key(0)), equinox.nn.Dropout(0.5)]
        veldt.task(equinox.nn.Sequential(layers), "cross_entropy", (X, Y))
    with pytest.raises(TaskError, match=r"is the class MLP.*lambda key: MLP"):
        veldt.task(equinox.nn.MLP, "cross_entropy", (X, Y))


def test_dropout_and_batch_norm_are_refused_unless_they_are_off():
    with pytest.raises(TaskError, match=r"changes its state.*model\.eval\(\)"):
        veldt.task(Noisy(nnx.Rngs(0)), "cross_entropy", (X, Y))

    def make(rngs):
        model = Noisy(rngs)
        model.eval()
        return model

    task = veldt.task(make, "cross_entropy", (X, Y))
    params = task.init(jax.random.key(0))
    assert set(params) == {"layer", "norm"}  # No running means and no keys among them.
    batch = task.eval_batch("test")
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(
        make(nnx.Rngs(jax.random.key(0)))(batch.inputs), batch.targets
    ).mean()
    losses = [float(task.loss(params, jax.random.key(i), batch)[0]) for i in (1, 2)]
    assert losses == pytest.approx([float(expected)] * 2, rel=1e-5)


def regression(loss, **options):
    return veldt.task(nn.Dense(2), loss, (X, REAL), **options)


def test_a_loss_is_a_name_a_mean_or_one_for_each_example():
    def mean(outputs, targets):
        return jnp.mean((outputs - targets) ** 2)

    def each(outputs, targets):
        return jnp.mean((outputs - targets) ** 2, axis=-1)

    tasks = [regression(loss) for loss in ("mse", mean, each)]
    for other in tasks[1:]:
        same_numbers(tasks[0], other, rtol=1e-5)
    train = REAL[dataset.shuffled(300)[120:]].astype(np.float32)
    variance = float(train.var(axis=0).mean())
    assert float(tasks[0].normalizer(jnp.asarray(variance))) == pytest.approx(1.0, rel=1e-5)
    # A function has no best constant: the loss at the start is what knowing nothing costs.
    params = tasks[1].init(jax.random.key(0))
    start, _ = tasks[1].loss(params, jax.random.key(0), tasks[1].eval_batch("valid"))
    assert float(tasks[1].normalizer(start)) == pytest.approx(1.0, rel=1e-5)
    given = regression(mean, reference_loss=4.0)
    assert float(given.normalizer(jnp.asarray(1.0))) == 0.25


def test_one_array_is_input_and_target():
    task = veldt.task(nn.Dense(4), "mse", X)
    batch = task.train_batch(jax.random.key(0))
    np.testing.assert_array_equal(batch.inputs, batch.targets)
    assert batch.inputs.shape == (64, 4) and batch.inputs.dtype == jnp.float32


def test_the_split_is_by_the_seed_or_the_users_own():
    def rows(**options):
        task = regression("mse", **options)
        return [{tuple(row) for row in task.eval_batch(s).inputs.tolist()} for s in parts]

    parts = ("train", "valid", "test")
    one, again, other = rows(), rows(), rows(seed=1)
    assert one == again != other
    assert [len(part) for part in one] == [180, 60, 60]
    assert len(set.union(*one)) == 300
    data = {part: (X[i::3], REAL[i::3]) for i, part in enumerate(parts)}
    own = veldt.task(nn.Dense(2), "mse", data, batch_size=7, eval_size=20)
    np.testing.assert_allclose(own.eval_batch("test").inputs, X[2::3][:20], rtol=1e-6)
    assert own.train_batch(jax.random.key(0)).inputs.shape == (7, 4)


def test_labels_of_truth_and_small_integers_are_class_numbers():
    for labels in (Y > 0, (Y > 0).astype(np.uint8)):
        task = veldt.task(nn.Dense(2), "cross_entropy", (X, labels))
        assert curve(task, 5).train_losses.shape == (5,)


class TrainFlag(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(3)(x)


class LinenNoise(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


class LinenNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(3)(x))


DENSE = nn.Dense(3)
ONE_HOT = np.eye(3)[Y]


@pytest.mark.parametrize(
    ("model", "loss", "data", "said"),
    [
        (Net, "cross_entropy", (X, Y), "is the class Net: give an instance, or a function"),
        (Linen, "cross_entropy", (X, Y), "is the class Linen: give an instance$"),
        (3, "mse", X, "the model is int, not an instance"),
        (lambda: Net(nnx.Rngs(0)), "mse", X, r"takes \(\); one that makes a model takes"),
        (lambda key: 3, "mse", X, "returned int, which is no module"),
        (lambda rngs: DENSE, "mse", X, "returned a linen module: give the module itself"),
        (TrainFlag(), "cross_entropy", (X, Y), "cannot be drawn.*argument: 'train'"),
        (LinenNoise(), "cross_entropy", (X, Y), "needs PRNG.*turn dropout off"),
        (LinenNorm(), "cross_entropy", (X, Y), "variables of kind batch_stats.*LayerNorm"),
        (lambda rngs: nnx.Linear(5, 3, rngs=rngs), "mse", X, r"inputs of shape \[4, 4\]"),
        (DENSE, "crossentropy", (X, Y), "Did you mean 'cross_entropy'"),
        (DENSE, 3, (X, Y), "the loss is int, not a name"),
        (DENSE, "cross_entropy", (X, Y * 1.0), r"y is float32: give y\.astype\(int\)"),
        (DENSE, "cross_entropy", (X, ONE_HOT), r"y is float32: give y\.argmax"),
        (DENSE, "cross_entropy", (X, ONE_HOT.astype(int)), r"\[180, 3\]\. Give y\.argmax"),
        (nn.Dense(2), "cross_entropy", (X, Y), "class numbers from 0 to 2.*has 2 outputs"),
        (nn.Dense(1), "mse", (X, X[:, 0]), r"\[180, 1\] and y is \[180\]\. Give y\[:, None\]"),
        (DENSE, "mse", (X, REAL), r"returns \[180, 3\] and y is \[180, 2\]"),
        (DENSE, lambda o, y: o, (X, Y), r"for 4 examples it returns float32\[4, 3\]"),
        (DENSE, lambda o, y: (o, y), (X, Y), "it returns tuple"),
        (DENSE, lambda o, y: o @ y, (X, Y), "the loss cannot be called with outputs of"),
        (DENSE, lambda o, y: -(o**2).mean(), (X, Y), "must be above 0.*Give reference_loss"),
        (DENSE, "mse", (X, Y[:9]), "x has 300 rows and y 9"),
        (DENSE, "mse", (X, Y, Y), "has 3 parts"),
        (DENSE, "mse", X[:5], "has 5 rows; at least 10"),
        (DENSE, "mse", np.where(X > 2, np.nan, X), "holds NaN or infinity"),
        (DENSE, "mse", np.array(["a"] * 20), "an array of numbers"),
        (DENSE, "mse", np.array([None] * 20), "is object of shape"),
        (DENSE, "mse", ([[1.0, 2.0], [3.0]], X), "cannot be made an array"),
        (DENSE, "mse", {"train": X}, "the keys train, valid, test, not train"),
    ],
)
def test_what_does_not_fit_is_said(model, loss, data, said):
    with pytest.raises(TaskError, match=said):
        veldt.task(model, loss, data)


def test_sizes_are_checked():
    with pytest.raises(TaskError, match="batch_size is 0"):
        regression("mse", batch_size=0)


def test_a_task_is_whole_and_frozen():
    task = regression("mse")
    base.check_task(task)
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.batch_size = 3
    assert math.isfinite(float(curve(task, 5).train_losses[-1]))
