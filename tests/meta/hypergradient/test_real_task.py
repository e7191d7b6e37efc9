"""A decay for each of 30 features of a logistic regression on the Wisconsin tumours.

The grid is of decays that all features share; what every method finds is trained anew to the end
before it is compared.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.meta.hypergradient import (
    alternating,
    bamm,
    bilevel,
    cross_entropy,
    hoag,
    implicit,
    self_tuning,
)
from veldt.tasks.data import dataset
from veldt.tasks.shipped import tabular

pytestmark = pytest.mark.slow

TRAIN = optax.sgd(0.05, momentum=0.9)  # Stable while a decay is below e^4.3.
START = jnp.full(30, 0.0)
LAYER = self_tuning.BestResponseDense(1)


@dataclasses.dataclass(frozen=True)
class Tumours(bilevel.BilevelProblem):
    train: dataset.Examples
    valid: dataset.Examples

    def logits(self, params, hyper, examples):
        return (examples.inputs @ params["w"] + params["b"])[:, None]

    def weights(self, params, hyper):
        return params["w"]

    def train_loss(self, params, hyper):
        logits = self.logits(params, hyper, self.train)
        decay = jnp.exp(hyper) @ jnp.square(self.weights(params, hyper))
        return tabular.binary_cross_entropy(logits, self.train.targets) + 0.5 * decay

    def valid_loss(self, params, hyper):
        logits = self.logits(params, hyper, self.valid)
        return tabular.binary_cross_entropy(logits, self.valid.targets)


class Answered(Tumours):
    """The same with the parameters of a best response."""

    def logits(self, params, hyper, examples):
        return LAYER.apply(params, examples.inputs, hyper)

    def weights(self, params, hyper):
        outputs = LAYER.apply(params, jnp.concatenate([jnp.eye(30), jnp.zeros((1, 30))]), hyper)
        return outputs[:30, 0] - outputs[30, 0]


@functools.cache
def tumours():
    splits = dataset.load_breast_cancer()
    parts = [
        dataset.Examples(jnp.asarray(splits[name].inputs), jnp.asarray(splits[name].targets))
        for name in ("train", "valid")
    ]
    return Tumours(*parts)


@jax.jit
def trained_loss(problem, hyper):
    """Return L_V after training to the end, by Newton's steps."""
    params = {"w": jnp.zeros(30), "b": jnp.zeros(())}
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def newton(_, flat):
        loss = lambda v: problem.train_loss(unravel(v), hyper)  # noqa: E731
        hessian = jax.hessian(loss)(flat) + 1e-6 * jnp.eye(31)
        return flat - jnp.linalg.solve(hessian, jax.grad(loss)(flat))

    return problem.valid_loss(unravel(jax.lax.fori_loop(0, 15, newton, flat)), hyper)


def begin():
    return {"w": jnp.zeros(30), "b": jnp.zeros(())}


def descent(inverse):
    return alternating.AlternatingDescent(TRAIN, optax.adam(0.1), inverse, num_train_steps=20)


# name: method, steps, what share of the way from the start to the grid's best it must go.
METHODS = {
    "hoag": lambda: (hoag.Hoag(), 60, 1.0),
    "conjugate gradient": lambda: (descent(implicit.ConjugateGradient()), 150, 1.0),
    "neumann": lambda: (descent(implicit.Neumann(0.03, num_terms=200)), 140, 1.0),
    "bamm": lambda: (bamm.Bamm(0.05, 0.05, 3.0, averaging=0.0), 5000, 1.0),
    "cross entropy": lambda: (
        cross_entropy.CrossEntropy(TRAIN, 200, num_candidates=60, num_elites=12, init_scale=2.0),
        20,
        0.8,
    ),
}


def test_newton_ends_at_a_minimum_of_the_grid():
    losses = jax.vmap(lambda decay: trained_loss(tumours(), jnp.full(30, decay)))(
        jnp.linspace(-8, 0, 9)
    )
    assert np.all(np.isfinite(losses))
    assert 0 < np.argmin(losses) < 8  # The best shared decay is inside.


def grid_best():
    decays = jnp.linspace(-8.0, 2.0, 41)
    return jnp.min(jax.vmap(lambda d: trained_loss(tumours(), jnp.full(30, d)))(decays))


@pytest.mark.parametrize("name", METHODS)
def test_decays_by_feature_match_the_best_shared_decay(name):
    problem = tumours()
    method, num_steps, share = METHODS[name]()
    state = method.init(problem, begin(), START)
    state, _ = bilevel.run(method, problem, state, jax.random.key(0), num_steps=num_steps)
    hyper = getattr(state, "best_hyper", state.hyper)
    first, best = trained_loss(problem, START), grid_best()
    found = trained_loss(problem, hyper)
    assert first > best + 0.02
    assert found <= first + share * (best - first) + 1e-4


def test_a_self_tuning_network_goes_most_of_the_way():
    problem = Answered(tumours().train, tumours().valid)
    method = self_tuning.SelfTuning(
        optax.adam(3e-3), optax.adam(3e-2), num_warmup_steps=300, entropy_weight=1e-4
    )
    params = LAYER.init(jax.random.key(0), jnp.zeros((1, 30)), START)
    state = method.init(problem, params, START)
    state, _ = bilevel.run(method, problem, state, jax.random.key(1), num_steps=1500)
    first, best = trained_loss(tumours(), START), grid_best()
    found = trained_loss(tumours(), state.hyper)
    assert found <= first + 0.7 * (best - first)
