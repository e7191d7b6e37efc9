"""Whole updates against the slow reference, published sizes, and Optax's manners."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.learned_opt import reference
from veldt.learned_opt import errors, registry
from veldt.learned_opt.architectures import celo, celo2, velo
from veldt.learned_opt.blocks import matrices, newton_schulz

NUM_STEPS = 50
SMALL = {
    "mlp": {"hidden_size": 6},
    "adafac_mlp": {},
    "rnn_mlp": {"lstm_size": 8, "hidden_size": 8},
    "velo": {"lstm_size": 16, "bank_size": 5},
    "celo": {"lstm_size": 16},
    "celo2": {},
    "celo2_base": {},
    "scaled": {},
    "scaled_recurrent": {"hidden_size": 4},
}
# Compiling takes seconds for most; one goes through every test in the quick suite.
EACH = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "mlp" else pytest.mark.slow) for n in SMALL]
)


def quick_options():
    """What compiles faster; nothing here runs for long. JAX 0.12 has no such emitters any more."""
    options = {"xla_backend_optimization_level": 0}
    try:
        more = options | {"xla_cpu_use_fusion_emitters": False}
        jax.jit(jnp.negative, compiler_options=more)(1.0)
    except jax.errors.JaxRuntimeError:
        return options
    return more


jit = functools.partial(jax.jit, compiler_options=quick_options())


def build(name, seed=0):
    """A small architecture, and meta-parameters none of which is zero."""
    rule = registry.architecture(name, **SMALL[name])

    def init():
        leaves, treedef = jax.tree.flatten(rule.init(jax.random.key(seed)))
        keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
        noise = [0.02 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
        return treedef.unflatten([x + n for x, n in zip(leaves, noise, strict=True)])

    return rule, jit(init)()


def draw(rng, shapes, scale=0.3):
    return {k: jnp.asarray(rng.normal(scale=scale, size=s), jnp.float32) for k, s in shapes.items()}


def run(tx, params, all_grads, losses):
    """Every update, and the parameters and state after them."""
    state = jit(tx.init)(params)
    update = jit(lambda g, s, p, v: tx.update(g, s, p, value=v))
    all_updates = []
    for grads, loss in zip(all_grads, losses, strict=True):
        updates, state = update(grads, state, params, loss)
        params = optax.apply_updates(params, updates)
        all_updates.append(updates)
    return all_updates, params, state


REFERENCES = {
    "mlp": reference.Mlp,
    "adafac_mlp": reference.AdafacMlp,
    "rnn_mlp": reference.RnnMlp,
    "velo": reference.Velo,
    "celo": reference.Celo,
    "scaled": reference.Scaled,
    "scaled_recurrent": reference.Scaled,
}


def assert_follows(oracle, tx, shapes, num=4, rtol=2e-4, sign=1.0):
    rng = np.random.default_rng(3)
    params = draw(rng, shapes)
    all_grads = [draw(rng, shapes, scale) for scale in (0.2, 1.0, 0.05, 0.4)][:num]
    losses = [2.3, 1.9, 2.6, 1.4][:num]
    state = jit(tx.init)(params)
    oracle.init([np.asarray(p, np.float64) for p in params.values()])
    update = jit(lambda g, s, p, v: tx.update(g, s, p, value=v))
    for grads, loss in zip(all_grads, losses, strict=True):
        slow = oracle.update(
            [np.asarray(g, np.float64) for g in grads.values()],
            [np.asarray(p, np.float64) for p in params.values()],
            loss,
        )
        updates, state = update(grads, state, params, loss)
        for name, expected in zip(params, slow, strict=True):
            tolerance = rtol * np.max(np.abs(expected))
            np.testing.assert_allclose(
                updates[name], sign * expected, rtol=rtol, atol=tolerance, err_msg=name
            )
        params = optax.apply_updates(params, updates)


SHAPES = {"b": (7,), "w": (5, 7)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in ("velo", "rnn_mlp") else [])
        for n in REFERENCES
    ],
)
def test_updates_are_those_of_the_slow_reference(name):
    rule, meta_params = build(name)
    tx = rule.as_optax(meta_params, NUM_STEPS)
    assert_follows(REFERENCES[name](meta_params, NUM_STEPS), tx, SHAPES)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_updates_of_many_shapes_are_those_of_the_slow_reference(name):
    # A scalar, vectors, ties, largest dimensions not last, two alike, two large enough to unroll.
    shapes = {
        "a": (),
        "b": (1,),
        "c": (3, 3, 2, 3),
        "d": (6, 2, 5),
        "e": (4, 4),
        "f": (4, 4),
        "g": (96, 100),
        "h": (9000,),
    }
    rule, meta_params = build(name)
    tx = rule.as_optax(meta_params, NUM_STEPS)
    assert_follows(REFERENCES[name](meta_params, NUM_STEPS), tx, shapes, rtol=1e-3)


@pytest.mark.parametrize(
    ("steps", "oracle"), [(5, reference.Celo2), (0, reference.Celo2Base)], ids=["celo2", "base"]
)
def test_the_celo2_direction_is_that_of_the_slow_reference(steps, oracle):
    config = celo2.Celo2(newton_schulz_steps=steps)
    _, meta_params = build("celo2")
    tx = celo2.scale_by_celo2(meta_params, config)
    shapes = {"b": (7,), "k": (2, 6, 4), "w": (8, 5)}
    assert_follows(oracle(meta_params), tx, shapes, rtol=1e-3)


@pytest.mark.slow
def test_the_celo2_direction_of_large_tensors_is_that_of_the_slow_reference():
    _, meta_params = build("celo2")
    tx = celo2.scale_by_celo2(meta_params, celo2.Celo2(newton_schulz_steps=0))
    shapes = {"b": (8192,), "w": (96, 100)}
    assert_follows(reference.Celo2Base(meta_params), tx, shapes, num=2, rtol=1e-3)


@pytest.mark.slow
def test_published_velo_statistics_reach_the_update():
    rule, meta_params = build("velo")
    rule = registry.architecture("velo", **SMALL["velo"], statistics="published")
    assert_follows(
        reference.PublishedVelo(meta_params, NUM_STEPS),
        rule.as_optax(meta_params, NUM_STEPS),
        SHAPES,
    )


def test_meta_parameters_are_as_many_as_published():
    def size(rule):
        return sum(x.size for x in jax.tree.leaves(jax.eval_shape(rule.init, jax.random.key(0))))

    sizes = {name: size(registry.architecture(name)) for name in registry.names()}
    assert sizes == {
        "mlp": 1762,
        "adafac_mlp": 197,
        "adafac_mlp_wide": 2409,
        "rnn_mlp": 35799,
        "velo": 2320385,
        "velo_small": 46337,
        "celo": 37089,
        "celo2": 347,
        "celo2_base": 347,
        "scaled": 22,
        "scaled_recurrent": 111,
    }
    assert size(velo.Velo(lstm_size=128, bank_size=64)) == 162305
    bank = jax.eval_shape(velo.Velo().init, jax.random.key(0))["bank"]
    assert sum(x.size for x in jax.tree.leaves(bank)) == 256 * 159


@EACH
def test_meta_parameters_can_be_traced_batched_and_differentiated(name):
    rule, meta_params = build(name)
    rng = np.random.default_rng(0)
    params, grads = draw(rng, SHAPES), draw(rng, SHAPES)

    def moved(meta_params):
        tx = rule.as_optax(meta_params, NUM_STEPS)
        state = tx.init(params)
        out = params
        for loss in (2.0, 1.8, 1.7, 1.9):
            updates, state = tx.update(grads, state, out, value=loss)
            out = optax.apply_updates(out, updates)
        return sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(out))

    batch = jax.tree.map(lambda x: jnp.stack([x, 1.1 * x]), meta_params)
    both = jit(jax.vmap(moved))(batch)
    assert both[0] == pytest.approx(float(jit(moved)(meta_params)), rel=1e-5)
    assert both[0] != both[1]

    gradient = jit(jax.grad(moved))(meta_params)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(gradient))
    norm = optax.tree.norm(gradient)
    assert norm > 0
    along = jax.tree.map(lambda g: g / norm, gradient)
    eps = 1e-2
    up, down = (
        jit(moved)(jax.tree.map(lambda m, a, s=s: m + s * a, meta_params, along))
        for s in (eps, -eps)
    )
    if jnp.abs(up - down) > 1e-4:  # below, float32 has nothing to say
        assert (up - down) / (2 * eps) == pytest.approx(float(norm), rel=0.1)


@EACH
def test_bfloat16_parameters_get_bfloat16_updates_near_the_float32_ones(name):
    rule, meta_params = build(name)
    tx = rule.as_optax(meta_params, NUM_STEPS)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), draw(rng, SHAPES))
    all_grads = [jax.tree.map(lambda x: x.astype(jnp.bfloat16), draw(rng, SHAPES))]
    (updates,), after, state = run(tx, params, all_grads, [2.0])
    assert {x.dtype for x in jax.tree.leaves((updates, after))} == {jnp.dtype(jnp.bfloat16)}
    floats = {x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert jnp.dtype(jnp.float32) in floats

    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (params, all_grads))
    (expected,), _, _ = run(tx, *wide, [2.0])
    for got, want in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        limit = 0.02 * jnp.max(jnp.abs(want))
        np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=0.02, atol=limit)


@EACH
def test_rules_chain_and_take_part_of_the_parameters(name):
    rule, meta_params = build(name)
    tx = rule.as_optax(meta_params, NUM_STEPS)
    rng = np.random.default_rng(2)
    params, grads = draw(rng, SHAPES), draw(rng, SHAPES)
    (alone,), _, _ = run(tx, {"w": params["w"]}, [{"w": grads["w"]}], [2.0])

    routed = optax.multi_transform({"rule": tx, "sgd": optax.sgd(0.5)}, {"w": "rule", "b": "sgd"})
    chained = optax.chain(optax.identity(), routed, optax.scale(2.0))
    (updates,), _, _ = run(chained, params, [grads], [2.0])
    np.testing.assert_allclose(updates["w"], 2 * alone["w"], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(updates["b"], -grads["b"], rtol=1e-6)

    nothing = optax.multi_transform({"rule": tx, "sgd": optax.sgd(0.5)}, {"w": "sgd", "b": "sgd"})
    (updates,), _, _ = run(nothing, params, [grads], [2.0])
    np.testing.assert_allclose(updates["w"], -0.5 * grads["w"], rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "celo2_base",
        "scaled_recurrent",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("velo", "celo", "rnn_mlp")),
    ],
)
def test_a_nan_gradient_or_loss_is_forgotten(name):
    # The rules that clip. The others, like Adam, keep a NaN for ever.
    rule, meta_params = build(name)
    tx = rule.as_optax(meta_params, NUM_STEPS)
    rng = np.random.default_rng(4)
    params = draw(rng, SHAPES)
    all_grads = [draw(rng, SHAPES) for _ in range(4)]
    all_grads[1] = jax.tree.map(lambda x: x.at[..., 0].set(jnp.nan), all_grads[1])
    all_grads[2] = jax.tree.map(lambda x: x.at[..., 1].set(jnp.inf), all_grads[2])
    all_updates, after, state = run(tx, params, all_grads, [2.0, jnp.nan, jnp.inf, 1.9])
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((all_updates, after, state)))


@EACH
def test_state_has_one_structure_and_holds_no_parameters(name):
    rule, meta_params = build(name)
    tx = rule.as_optax(meta_params, NUM_STEPS)
    rng = np.random.default_rng(5)
    params = jax.tree.map(lambda x: x + 100.0, draw(rng, SHAPES))
    state = tx.init(params)
    _, _, after = run(tx, params, [draw(rng, SHAPES)], [2.0])
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, after)]
    assert shapes[0] == shapes[1]
    limit = max(float(jnp.max(x)) for x in jax.tree.leaves(after) if x.size and x.shape != (10,))
    assert limit < 90.0


@pytest.mark.parametrize("name", ["velo", "celo", "rnn_mlp"])
def test_a_missing_loss_is_an_error_that_says_how(name):
    tx = registry.architecture(name, **SMALL[name]).as_optax({}, NUM_STEPS)
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(errors.MissingInputError, match="value=loss"):
        tx.update(params, None, params)


@pytest.mark.parametrize("name", ["velo", "celo", "scaled"])
@pytest.mark.parametrize("num_steps", [None, 0])
def test_a_missing_run_length_is_an_error_that_says_how(name, num_steps):
    with pytest.raises(errors.MissingInputError, match="num_steps=N"):
        registry.architecture(name).as_optax({}, num_steps)


@EACH
def test_missing_parameters_are_an_error(name):
    rule, meta_params = build(name)
    tx = rule.as_optax(meta_params, NUM_STEPS)
    params = {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match="params"):
        tx.update(params, tx.init(params), value=1.0)


def test_unknown_names_and_fields_are_errors_with_the_nearest():
    with pytest.raises(errors.UnknownArchitectureError, match="did you mean 'celo2'"):
        registry.architecture("ccelo2")
    with pytest.raises(errors.UnknownArchitectureError, match="did you mean 'hidden_size'"):
        registry.architecture("mlp", hiden_size=3)


def test_width_scaling_gives_steps_the_size_of_orthogonal_matrices():
    sizes = {
        (12, 48): 48**-0.5,
        (3, 16, 8): 16**-0.5,
        (3, 3, 4, 8): 36**-0.5,  # Flax's kernels: 3 x 3 x 4 inputs
        (8, 4, 3, 3): 36**-0.5,  # Equinox'
        (7, 1): 0.5,  # Adam's first step
        (7,): 0.5,
    }
    params = {str(shape): jnp.ones(shape) for shape in sizes}
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    _, meta_params = build("celo2")
    rule = celo2.Celo2(scaling="width", learning_rate=1.0, vector_ratio=0.5)
    tx = rule.as_optax(meta_params)
    steps, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    for shape, size in sizes.items():
        step = np.asarray(steps[str(shape)])
        assert step.shape == shape
        assert np.sqrt(np.mean(np.square(step))) == pytest.approx(size, rel=1e-3)
    plain = celo2.Celo2(learning_rate=1.0).as_optax(meta_params)
    only = {"(12, 48)": params["(12, 48)"]}
    step, _ = jax.jit(plain.update)({key: grads[key] for key in only}, plain.init(only), only)
    matrix = step["(12, 48)"]
    np.testing.assert_allclose(steps["(12, 48)"], matrix / np.sqrt(48), rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 3, 1, 8), (3, 3, 8, 8), (5, 5, 3, 16), (1, 1, 8, 4)])
def test_a_convolutions_kernel_is_the_same_matrix_in_both_layouts(shape):
    flax_kernel = jax.random.normal(jax.random.key(0), shape)
    other = jnp.transpose(flax_kernel, (3, 2, 0, 1))
    matrix = np.asarray(matrices.as_matrices(flax_kernel))
    assert matrix.shape == (math.prod(shape[:3]), shape[3])
    turned = np.asarray(matrices.as_matrices(other))
    assert turned.shape == matrix.shape[::-1]
    # The same numbers in each output, in another order of inputs.
    np.testing.assert_array_equal(np.sort(matrix.T, axis=1), np.sort(turned, axis=1))


def _some_training(tx, num_steps=4):
    """Parameters, gradients of some steps, and the updates that `tx` makes of them."""
    params = {"w": jax.random.normal(jax.random.key(0), (6, 5))}
    state, grads, steps = tx.init(params), [], []
    update = jax.jit(tx.update)
    for i in range(num_steps):
        grads.append({"w": 10 * jax.random.normal(jax.random.key(i + 1), (6, 5))})
        step, state = update(grads[-1], state, params, value=jnp.float32(1.0))
        steps.append(step)
    return params, grads, steps


def test_celo2_may_start_as_muon():
    rule = celo2.Celo2(start="muon", momentum_decays=(0.9, 0.95, 0.99), learning_rate=1.0)
    meta_params = rule.init(jax.random.key(0))
    _, grads, steps = _some_training(rule.as_optax(meta_params))
    momentum = np.zeros((6, 5), np.float32)
    for grad, step in zip(grads, steps, strict=True):
        momentum = 0.95 * momentum + 0.05 * np.asarray(grad["w"])
        parts = [np.asarray(x) for x in (momentum, grad["w"])]
        m, g = (x / np.sqrt(np.mean(np.square(x))) for x in parts)
        direction = np.asarray(newton_schulz.orthogonalize(jnp.asarray(m + 0.33 * g)))
        direction = direction / np.sqrt(np.mean(np.square(direction)))
        np.testing.assert_allclose(step["w"], -direction, atol=1e-4)
    moved = jax.tree.map(lambda x: x + 0.01 * jnp.ones_like(x), meta_params)
    _, _, others = _some_training(rule.as_optax(moved))
    assert np.abs(others[0]["w"] - steps[0]["w"]).max() > 1e-3  # the other units are there


def test_a_schedule_that_starts_as_muons_decays_linearly():
    rule = celo2.Celo2(start="muon", knots=9, learning_rate=0.5)
    tx = rule.as_optax(rule.init(jax.random.key(0)), 81)
    params = {"w": jax.random.normal(jax.random.key(0), (6, 5))}
    state, sizes, update = tx.init(params), [], jax.jit(tx.update)
    for _ in range(81):
        step, state = update({"w": params["w"]}, state, params)
        sizes.append(float(jnp.sqrt(jnp.mean(jnp.square(step["w"])))))
    np.testing.assert_allclose(sizes[::10][:8], 0.5 * (1 - np.arange(8) / 8), rtol=1e-3)
    assert 0 < sizes[-1] < 0.01


def test_celo_may_start_as_adam_relative_to_the_parameters():
    rule = celo.Celo(start="adam", schedule="constant")
    params, grads, steps = _some_training(rule.as_optax(rule.init(jax.random.key(0)), 100))
    adam = optax.scale_by_adam(0.9, 0.999)
    state = adam.init(params)
    size = float(jnp.sqrt(jnp.mean(jnp.square(params["w"]))))
    for grad, step in zip(grads, steps, strict=True):
        right, state = adam.update(grad, state)
        right = np.asarray(right["w"]) / np.sqrt(np.mean(np.square(right["w"])))
        np.testing.assert_allclose(step["w"], -0.01 * size * right, rtol=2e-2, atol=1e-5)


def test_celo_moves_what_is_zero_as_if_it_were_of_the_least_scale():
    params = {"w": jnp.zeros((6, 5)), "b": jnp.zeros((5,)), "x": jnp.full((3,), 0.7)}
    grads = jax.tree.map(lambda p: jnp.arange(1.0, 1 + p.size).reshape(p.shape), params)

    def first_step(min_scale):
        rule = celo.Celo(start="adam", lstm_size=4, min_scale=min_scale)
        tx = rule.as_optax(rule.init(jax.random.key(0)), 100)
        return jax.jit(lambda: tx.update(grads, tx.init(params), params, value=1.0)[0])()

    plain, floored = first_step(0.0), first_step(0.1)
    published = np.sqrt(1e-9)
    np.testing.assert_allclose(floored["b"], plain["b"] * 0.1 / published, rtol=1e-4)
    np.testing.assert_allclose(floored["w"], plain["w"] * 0.1 / 6**0.5 / published, rtol=1e-4)
    np.testing.assert_array_equal(floored["x"], plain["x"])


def test_a_schedule_of_celos_that_starts_as_adams_begins_near_its_peak():
    rule = celo.Celo(start="adam", lstm_size=8)
    meta_params = rule.init(jax.random.key(0))
    _, _, steps = _some_training(rule.as_optax(meta_params, 100))
    plain = dataclasses.replace(rule, schedule="constant")
    _, _, at_one = _some_training(plain.as_optax(meta_params, 100))
    ratio = float(jnp.linalg.norm(steps[0]["w"]) / jnp.linalg.norm(at_one[0]["w"]))
    assert 2.0 < ratio < 8.0  # 4, but for what a random LSTM adds
