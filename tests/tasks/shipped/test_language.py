"""Language models: that they cannot see ahead, and the recurrent ones' equations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks.shipped import language

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

MODELS = {
    "gru": language.Gru(num_symbols=11, width=8),
    "lstm": language.Lstm(num_symbols=11, width=8, num_layers=2),
    "transformer": language.Transformer(num_symbols=11, width=8, num_heads=2, num_layers=2),
}


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request):
    module = MODELS[request.param]
    symbols = np.random.default_rng(0).integers(0, 11, (2, 9)).astype(np.uint8)
    return module, jit(module.init)(jax.random.key(0), symbols), symbols


def test_logits_depend_on_the_past_alone(model):
    module, params, symbols = model
    apply = jit(module.apply)
    logits = apply(params, symbols)
    assert logits.shape == (2, 9, 11)
    for position in range(9):
        changed = symbols.copy()
        changed[:, position] = (changed[:, position] + 1) % 11
        differs = np.abs(apply(params, changed) - logits).max(axis=(0, 2)) > 1e-6
        assert not differs[:position].any()
        assert differs[position:].all()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_gru_follows_its_equations():
    module = MODELS["gru"]
    symbols = np.array([[3, 1, 4, 1, 5]], np.uint8)
    params = jit(module.init)(jax.random.key(1), symbols)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    p["bias"] = np.linspace(-1, 1, 24)
    params = {"params": {**params["params"], "bias": p["bias"].astype(np.float32)}}

    def gate(i):
        return slice(8 * i, 8 * (i + 1))

    h, expected = np.zeros(8), []
    for symbol in symbols[0]:
        x, kernel, bias = p["Embed_0"]["embedding"][symbol], p["kernel"], p["bias"]
        r, z = (sigmoid(x[gate(i)] + h @ kernel[:, gate(i)] + bias[gate(i)]) for i in (0, 1))
        n = np.tanh(x[gate(2)] + r * (h @ kernel[:, gate(2)] + bias[gate(2)]))
        h = (1 - z) * n + z * h
        expected.append(h @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
    np.testing.assert_allclose(jit(module.apply)(params, symbols)[0], expected, atol=1e-5)


def test_the_lstm_is_flaxs():
    module = language.Lstm(num_symbols=7, width=4)
    symbols = np.array([[3, 1, 4, 1, 5, 6]], np.uint8)
    params = jit(module.init)(jax.random.key(1), symbols)
    p = params["params"]
    p["bias_0"] = jnp.linspace(-1, 1, 16)
    # Flax names the gates i, f, g, o; ours lie side by side as enter, forget, leave, new.
    gates = {"i": p["kernel_0"][:, :4], "f": p["kernel_0"][:, 4:8]}
    gates |= {"o": p["kernel_0"][:, 8:12], "g": p["kernel_0"][:, 12:]}
    biases = {name: p["bias_0"][4 * i : 4 * i + 4] for i, name in enumerate("ifog")}
    biases["f"] = biases["f"] + 1.0  # our forget gate's start
    cell_params = {f"h{name}": {"kernel": gates[name], "bias": biases[name]} for name in "ifog"}
    cell_params |= {
        f"i{name}": {"kernel": p["Embed_0"]["embedding"][:, 4 * i : 4 * i + 4]}
        for i, name in enumerate("ifog")
    }
    step = jit(nn.LSTMCell(4).apply)
    carry, expected = (jnp.zeros((1, 4)), jnp.zeros((1, 4))), []
    for symbol in symbols[0]:
        carry, state = step({"params": cell_params}, carry, jnp.eye(7)[symbol][None])
        expected.append(state[0] @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
    np.testing.assert_allclose(
        jit(module.apply)(params, symbols)[0], jnp.stack(expected), atol=1e-5
    )
