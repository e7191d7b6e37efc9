"""`scaled` where meta-training never was: long, wide, low precision; and carom's direction."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from tests.learned_opt import reference
from veldt.learned_opt import registry
from veldt.tasks.families import models
from veldt.tasks.inner_loop import train

LONGEST, WIDEST = 1000, 64  # of `configs/scaled.yaml`
NAMES = pytest.mark.parametrize("name", ["scaled", "scaled_recurrent"])


def make_tx(name, num_steps, seed=0, spread=0.02):
    """The transform of meta-parameters around the start, as evolution strategies try them."""
    rule = registry.architecture(name)
    leaves, treedef = jax.tree.flatten(rule.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noise = [spread * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    moved = treedef.unflatten([x + n for x, n in zip(leaves, noise, strict=True)])
    return rule.as_optax(moved, num_steps)


def member(structure, **fields):
    family = structure.family(**fields)
    return family.task(jax.jit(family.sample)(jax.random.key(0)))


@pytest.mark.slow
@NAMES
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("source", ["iris", "diabetes"])
def test_ten_times_the_longest_horizon_does_not_diverge(name, seed, source):
    task = member(models.Structure("tabular", (16, 8), "elu", 16, source))
    num_steps = 10 * LONGEST
    curve = train.train(task, make_tx(name, num_steps, seed), num_steps, seed, eval_every=num_steps)
    losses = curve.train_losses
    assert np.all(np.isfinite(losses))
    assert losses[-500:].mean() < 0.5 * losses[:10].mean()
    # What was reached is not lost again.
    windows = losses.reshape(20, -1).mean(axis=1)
    assert windows[-1] <= 2 * windows.min() + 0.01


@pytest.mark.slow
@NAMES
@pytest.mark.parametrize("source", ["leaves", "patterns"])
def test_thirty_times_the_width_does_not_diverge(name, source):
    task = member(models.Structure("perceptron", (30 * WIDEST,), "relu", 32, source))
    curve = train.train(task, make_tx(name, 200), 200)
    assert np.all(np.isfinite(curve.train_losses))
    assert curve.train_losses[-20:].mean() < 0.95 * curve.train_losses[:5].mean()


@NAMES
def test_parameters_of_half_precision_stay_so_and_averages_do_not(name):
    rng = np.random.default_rng(0)
    target = {"w": rng.normal(size=(8, 6)), "b": rng.normal(size=6)}
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.bfloat16), target)
    tx = make_tx(name, 200)

    def loss(params):
        rows = jax.tree.map(
            lambda p, t: jnp.mean(jnp.square(p.astype(jnp.float32) - t)), params, target
        )
        return rows["w"] + rows["b"]

    @jax.jit
    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)
        return (optax.apply_updates(params, updates), state), value

    (after, state), losses = jax.lax.scan(step, (params, tx.init(params)), None, 200)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(after))
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert floats and all(x.dtype == jnp.float32 for x in floats)
    assert np.all(np.isfinite(losses)) and losses[-1] < 0.3 * losses[0]


@NAMES
def test_gradients_may_be_accumulated(name):
    """Four parts of a batch, one step: that of the mean gradient and the last loss."""
    rng = np.random.default_rng(1)

    def draw(scale=1.0):
        shapes = {"w": (5, 7), "b": (7,)}
        return {
            k: jnp.asarray(rng.normal(scale=scale, size=s), jnp.float32) for k, s in shapes.items()
        }

    params = draw()
    plain, parts = make_tx(name, 20), optax.MultiSteps(make_tx(name, 20), every_k_schedule=4)
    update, update_parts = jax.jit(plain.update), jax.jit(parts.update)
    state, state_parts = plain.init(params), parts.init(params)
    expected = found = params
    for loss in (2.0, 1.5, 1.7):
        grads = [draw() for _ in range(4)]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *grads)
        updates, state = update(mean, state, expected, value=loss)
        expected = optax.apply_updates(expected, updates)
        for part, value in zip(grads, (9.0, 9.0, 9.0, loss), strict=True):
            updates, state_parts = update_parts(part, state_parts, found, value=value)
            found = optax.apply_updates(found, updates)
    check = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5)
    jax.tree.map(check, found, expected)


CAROM = registry.architecture("scaled", direction="carom")


def test_caroms_steps_are_those_of_the_slow_reference():
    rng = np.random.default_rng(2)
    meta_params = jax.tree.map(lambda x: x + 0.01 * rng.normal(size=x.shape), CAROM.init(None))
    oracle, tx = reference.ScaledCarom(meta_params, 20), CAROM.as_optax(meta_params, 20)
    params = {"b": jnp.ones(7), "w": jnp.asarray(rng.normal(size=(5, 7)), jnp.float32)}
    state = tx.init(params)
    oracle.init([np.asarray(p, np.float64) for p in params.values()])
    for scale in (1.0, 1e-3, 30.0):
        grads = jax.tree.map(lambda p, s=scale: s * rng.normal(size=p.shape), params)
        slow = oracle.update([*grads.values()], [*map(np.asarray, params.values())], 1.0)
        updates, state = jax.jit(tx.update)(grads, state, params)
        for found, expected in zip(updates.values(), slow, strict=True):
            size = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * size)
        params = optax.apply_updates(params, updates)


def test_caroms_direction_is_the_discovered_rules():
    """At the start, without weight decay and Nesterov's part, which the rule does not have."""
    meta_params = CAROM.init(None)
    meta_params["numbers"] |= {"decay": jnp.asarray(-10.0), "nesterov": jnp.asarray(-10.0)}
    ours = CAROM.as_optax(meta_params, 10**6)
    theirs = veldt.load_rule("carom").as_optax(CAROM.learning_rate, b1=0.58)
    rng = np.random.default_rng(3)
    params = {"w": jnp.zeros((6, 9)), "head": jnp.zeros((4, 6))}
    states = ours.init(params), theirs.init(params)
    for scale in (1.0, 0.01):
        grads = jax.tree.map(
            lambda p, s=scale: jnp.asarray(s * rng.normal(size=p.shape), jnp.float32), params
        )
        pairs = [tx.update(grads, s, params) for tx, s in zip((ours, theirs), states, strict=True)]
        states = [state for _, state in pairs]
        for a, b in zip(*(jax.tree.leaves(updates) for updates, _ in pairs), strict=True):
            # Five iterations leave singular values between 0.7 and 1.2.
            np.testing.assert_allclose(a, b, atol=0.3 * float(jnp.abs(b).max()))
            cosine = jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b)
            assert cosine > 0.999
