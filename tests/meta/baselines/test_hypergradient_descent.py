import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.meta.baselines import hypergradient_descent as hd

CURVATURES = jnp.asarray([1.0, 0.3, 0.1])


def loss(x):
    return 0.5 * jnp.sum(CURVATURES * x**2)


def run(tx, x, num_steps):
    """Return the points and the rates of a run."""

    def body(carry, _):
        x, state = carry
        updates, state = tx.update(jax.grad(loss)(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state.learning_rate)

    return jax.jit(lambda x: jax.lax.scan(body, (x, tx.init(x)), None, length=num_steps)[1])(x)


def test_sgd_hd_is_the_papers_loop():
    tx = hd.sgd_hd(0.1, hd.additive(0.02))
    points, rates = run(tx, jnp.asarray([1.0, -2.0, 3.0]), 8)
    x, last, rate = np.array([1.0, -2.0, 3.0]), np.zeros(3), 0.1
    for step in range(8):
        grad = np.asarray(CURVATURES) * x
        rate = rate + 0.02 * grad @ last
        x, last = x - rate * grad, grad
        np.testing.assert_allclose(points[step], x, rtol=1e-5)
        np.testing.assert_allclose(rates[step], rate, rtol=1e-5)


def test_the_multiplicative_rule_moves_the_rate_by_the_cosine():
    tx = hd.sgd_hd(0.1, hd.multiplicative(0.05))
    _, rates = run(tx, jnp.asarray([1.0, -2.0, 3.0]), 6)
    x, last, rate = np.array([1.0, -2.0, 3.0]), None, 0.1
    for step in range(6):
        grad = np.asarray(CURVATURES) * x
        if last is not None:
            rate *= 1 + 0.05 * grad @ last / np.sqrt((grad @ grad) * (last @ last))
        x, last = x - rate * grad, grad
        np.testing.assert_allclose(rates[step], rate, rtol=1e-5)


@pytest.mark.parametrize("make", [hd.sgd_hd, hd.adam_hd])
def test_the_rate_moves_by_the_derivative_of_the_next_loss(make, x64):
    """Of the first step's loss by its rate, found by automatic differentiation."""
    with x64():
        x = jnp.asarray([1.0, -2.0, 3.0])
        _, rates = run(make(0.1, hd.additive(1.0)), x, 2)

        def after(rate):
            tx = make(rate, hd.additive(0.0))
            updates, _ = tx.update(jax.grad(loss)(x), tx.init(x), x)
            return loss(x + updates)

        np.testing.assert_allclose(rates[1] - 0.1, -jax.grad(after)(0.1), rtol=1e-6)


@pytest.mark.parametrize("rule", [hd.additive(0.0), hd.multiplicative(0.0)])
@pytest.mark.parametrize(
    ("tx", "plain"),
    [
        (lambda rule: hd.sgd_hd(0.1, rule), optax.sgd(0.1)),
        (
            lambda rule: hd.sgd_hd(0.1, rule, momentum=0.9, nesterov=True),
            optax.sgd(0.1, 0.9, nesterov=True),
        ),
        (lambda rule: hd.adam_hd(0.1, rule), optax.adam(0.1)),
    ],
)
def test_at_a_hypergradient_rate_of_zero_it_is_optaxs(tx, plain, rule):
    tx = tx(rule)
    params = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(3.0)}
    ours, theirs = params, params
    state, their_state = tx.init(params), plain.init(params)
    for _ in range(5):
        updates, state = tx.update(ours, state, ours)
        ours = optax.apply_updates(ours, updates)
        updates, their_state = plain.update(theirs, their_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    for name in params:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)


@pytest.mark.parametrize(
    "tx",
    [
        hd.sgd_hd(1e-3, hd.additive(1e-2)),
        hd.sgd_hd(1e-3, hd.multiplicative(0.1)),
        hd.adam_hd(0.0, hd.additive(1e-3)),
    ],
)
def test_a_rate_that_is_too_small_grows_and_training_gains(tx):
    start = jnp.asarray([1.0, -2.0, 3.0])
    points, rates = run(tx, start, 60)
    first = float(tx.init(start).learning_rate)
    assert rates[-1] > 2 * first
    plain = loss(start * (1 - first * CURVATURES) ** 60)
    assert loss(points[-1]) < 0.8 * plain


def test_a_zero_gradient_changes_nothing_and_is_not_nan():
    tx = hd.sgd_hd(0.1, hd.multiplicative(0.1))
    zero = jnp.zeros(2)
    state = tx.init(zero)
    for _ in range(2):
        updates, state = tx.update(zero, state, zero)
    np.testing.assert_array_equal(updates, zero)
    assert float(state.learning_rate) == pytest.approx(0.1)
