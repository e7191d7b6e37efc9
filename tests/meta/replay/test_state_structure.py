"""A state that comes back in another structure: the error names the place and the remedy."""

import collections

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import veldt
from veldt.meta import errors
from veldt.meta.replay import states

Pair = collections.namedtuple("Pair", ["first", "second"])
ONE = jnp.ones(())


@pytest.mark.parametrize(
    ("given", "came", "said"),
    [
        ({"a": ONE}, {"b": ONE}, "state, a dict, had the keys 'a' at the start, and the keys 'b'"),
        ((ONE, ONE), (ONE,), "state, a tuple, had 2 parts at the start, and 1 parts came back"),
        ({"a": [ONE]}, {"a": ONE}, "state['a'] was a list at the start, and an array came back"),
        ({"a": ONE}, {"a": None}, "state['a'] was an array at the start, and None came back"),
        (Pair(ONE, (ONE,)), Pair(ONE, [ONE]), "state.second was a tuple at the start, and a list"),
        ((ONE, {"x": Pair(ONE, ONE)}), (ONE, {"x": (ONE, ONE)}), "state[1]['x'] was a "),
    ],
)
def test_the_first_difference_is_named(given, came, said):
    found = states.difference(jax.tree.structure(given), jax.tree.structure(came))
    assert said in found and "PyTreeDef" not in found and len(found) < 200
    assert states.difference(jax.tree.structure(given), jax.tree.structure(given)) == ""


def training(make_tx):
    def init(rate, data):
        model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
        return model, nnx.Optimizer(model, make_tx(), wrt=nnx.Param)

    def loss(model, data):
        return jnp.mean((model(data) - 1) ** 2)

    def step(rate, state, index, data):
        model, optimizer = state
        grads = nnx.grad(loss)(model, data)
        optimizer.update(model, jax.tree.map(lambda grad: grad * jnp.exp(rate), grads))
        return model, optimizer

    def outcome(rate, state, data):
        return loss(state[0], data)

    return veldt.FunctionTraining(init, step, outcome, num_steps=2, data=jnp.ones((3, 2)))


@pytest.mark.parametrize("call", ["metagradient", "tune"])
def test_an_nnx_optimizer_made_in_init_is_an_error_with_its_remedy(call):
    made = training(lambda: optax.sgd(0.1))
    with pytest.raises(errors.ReplayError) as caught:
        if call == "tune":
            veldt.tune(made, jnp.zeros(()), num_updates=1)
        else:
            veldt.metagradient(made, jnp.zeros(()), key=jax.random.key(0))
    text = str(caught.value)
    assert "state[1], a Optimizer, holds the function" in text and "which was made anew" in text
    assert "outside init and step (for an nnx.Optimizer the Optax transform)" in text
    assert len(text) < 400 and "PyTreeDef" not in text


def test_with_the_remedy_it_is_differentiated():
    tx = optax.sgd(0.1)
    found = veldt.metagradient(training(lambda: tx), jnp.zeros(()), key=jax.random.key(0))
    assert found.gradient < 0  # A larger rate is better.
