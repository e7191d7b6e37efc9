import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.meta.hypergradient import ridge
from veldt.meta.baselines import one_pass
from veldt.meta.hypergradient import bilevel


def decayed(hyper):
    """Weight decay by the update map: the training loss itself knows nothing of λ."""
    return optax.chain(optax.add_decayed_weights(jnp.exp(hyper)), optax.sgd(0.3))


@dataclasses.dataclass(frozen=True)
class Plain(bilevel.BilevelProblem):
    """Ridge regression without its ridge."""

    ridge: ridge.Ridge

    def train_loss(self, params, hyper):
        return self.ridge.train_loss(params, -jnp.inf)

    def valid_loss(self, params, hyper):
        return self.ridge.valid_loss(params, hyper)


def test_at_a_fixed_point_a_long_look_back_is_the_implicit_hypergradient(x64):
    with x64():
        problem = Plain(ridge.draw())
        w, _, grad = problem.ridge.closed_form(-1.0)
        method = one_pass.OnePass(decayed, num_terms=3000)
        state = method.init(problem, jnp.asarray(w), jnp.asarray(-1.0))
        found = jax.jit(
            lambda: method.hypergradient(problem, state.params, state.opt_state, -1.0)
        )()
        np.testing.assert_allclose(found, np.sum(grad), rtol=1e-8)


def test_without_a_look_back_it_is_the_derivative_through_one_step(x64):
    with x64():
        problem = Plain(ridge.draw())
        params = jnp.linspace(-1.0, 1.0, 8)
        rates = jnp.linspace(-3.0, -1.0, 8)  # A learning rate for each parameter.

        def make_tx(hyper):
            return optax.chain(optax.trace(0.9), optax.stateless(lambda g, _: -jnp.exp(hyper) * g))

        method = one_pass.OnePass(make_tx, num_terms=0)
        opt_state = jax.tree.map(lambda x: x + 0.5, make_tx(rates).init(params))
        found = method.hypergradient(problem, params, opt_state, rates)

        def after(rates):
            grads = jax.grad(problem.train_loss)(params, rates)
            return problem.valid_loss(params - jnp.exp(rates) * (grads + 0.9 * 0.5), rates)

        np.testing.assert_allclose(found, jax.grad(after)(rates), rtol=1e-10)


@pytest.mark.parametrize("num_terms", [1, 4])
def test_the_look_back_is_the_derivative_of_as_many_steps_where_they_stand_still(num_terms, x64):
    with x64():
        problem = Plain(ridge.draw())
        w = jnp.asarray(problem.ridge.closed_form(-1.0)[0])
        method = one_pass.OnePass(decayed, num_terms=num_terms)
        found = method.hypergradient(problem, w, decayed(-1.0).init(w), -1.0)

        def after(hyper):
            tx, params = decayed(hyper), w
            for _ in range(num_terms + 1):
                updates, _ = tx.update(jax.grad(problem.train_loss)(params, 0), tx.init(w), params)
                params = optax.apply_updates(params, updates)
            return problem.valid_loss(params, hyper)

        np.testing.assert_allclose(found, jax.grad(after)(-1.0), rtol=1e-9)


def test_one_pass_finds_the_best_decay_of_ridge(x64):
    with x64():
        problem = Plain(ridge.draw())
        best, best_loss = problem.ridge.best()
        method = one_pass.OnePass(decayed, num_terms=30)
        state = method.init(problem, jnp.zeros(8), jnp.asarray(0.5))
        state, metrics = bilevel.run(method, problem, state, jax.random.key(0), num_steps=400)
        assert float(state.hyper) == pytest.approx(best, abs=1e-2)
        np.testing.assert_allclose(metrics.valid_loss[-1], best_loss, rtol=1e-3)


def test_a_learning_rate_that_is_too_small_grows():
    problem = Plain(ridge.draw())
    method = one_pass.OnePass(
        lambda hyper: optax.sgd(jnp.exp(hyper["rate"]), momentum=jax.nn.sigmoid(hyper["momentum"]))
    )
    hyper = {"rate": jnp.log(1e-3), "momentum": jnp.asarray(0.0)}
    state = method.init(problem, jnp.zeros(8), hyper)
    state, metrics = bilevel.run(method, problem, state, jax.random.key(0), num_steps=40)
    still = one_pass.OnePass(method.make_tx, optax.set_to_zero())
    other = still.init(problem, jnp.zeros(8), hyper)
    _, unmoved = bilevel.run(still, problem, other, jax.random.key(0), num_steps=40)
    assert jnp.exp(state.hyper["rate"]) > 2e-3
    assert state.hyper["momentum"] > 0.0
    best = problem.ridge.best()[1]
    assert metrics.valid_loss[-1] - best < 0.5 * (unmoved.valid_loss[-1] - best)
