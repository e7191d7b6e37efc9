"""`veldt.wrappers` against Optax's own and against NumPy formulas from the authors' code."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from veldt import wrappers
from veldt.learned_opt import errors
from veldt.learned_opt.wrappers import hessian_probe

NUM_STEPS = 100
RULES = {
    "momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "adam": lambda: optax.adam(0.05),
    "adamw": lambda: optax.adamw(0.05, weight_decay=0.3),  # It reads the parameters.
}
AROUND = {
    "lookahead": wrappers.lookahead,
    "sam": wrappers.sam,
    "sam_alternating": wrappers.sam_alternating,
    "weight_prediction": wrappers.weight_prediction,
    "hutchinson": wrappers.hutchinson,
}
HOLDERS = ("lookahead", "sam_alternating", "weight_prediction")


def start() -> Any:
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.normal(size=(3, 2))), "b": jnp.asarray(rng.normal(size=2))}


def batch(step: Any) -> Any:
    return jax.random.normal(jax.random.fold_in(jax.random.key(7), step), (4, 3))


def loss_fn(params: Any, x: Any) -> Any:
    out = jnp.tanh(x @ params["w"] + params["b"])
    return jnp.mean((out - 0.3 * x[:, :2]) ** 2) + 0.01 * jnp.sum(params["w"] ** 4)


def run(tx: Any, num_steps: int = NUM_STEPS, params: Any = None, repeats: int = 1) -> Any:
    """The parameters and the state after training, in one `lax.scan`."""
    params = start() if params is None else params

    def step(carry: Any, index: Any) -> Any:
        params, state = carry
        of_params = lambda params: loss_fn(params, batch(index // repeats))  # noqa: E731
        loss, grads = jax.value_and_grad(of_params)(params)
        updates, state = tx.update(
            grads,
            state,
            params,
            value=loss,
            obj_fn=of_params,
            grad_fn=lambda params, _: jax.grad(of_params)(params),
        )
        return (optax.apply_updates(params, updates), state), None

    begin = (params, tx.init(params))
    (params, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(num_steps)))(begin)
    return params, state


def only(tx: Any, *names: str) -> Any:
    """The transform, given just these extra arguments: those of Optax refuse others."""

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return tx.update(updates, state, params, **{name: extra_args[name] for name in names})

    return optax.GradientTransformationExtraArgs(tx.init, update)


def close(found: Any, expected: Any, atol: float = 1e-12) -> None:
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype == np.float64
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def numpy_run(step: Any, num_steps: int = NUM_STEPS) -> Any:
    """A NumPy rule on a vector of four numbers: `step(w, gradient_at, t) -> w`, t from 1."""
    w = np.array([1.0, -2.0, 0.5, 0.1])
    for t in range(1, num_steps + 1):
        w = step(w, bowl_grad, t)
    return w


SCALES = np.array([1.0, 3.0, 0.2, 10.0])


def bowl(w: Any) -> Any:
    return jnp.sum(SCALES * (w**2 / 2 + w**4 / 4))


def bowl_grad(w: Any) -> Any:
    return SCALES * (w + w**3)


def bowl_run(tx: Any, num_steps: int = NUM_STEPS) -> Any:
    params = jnp.array([1.0, -2.0, 0.5, 0.1])
    state = tx.init(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(
            jax.grad(bowl)(params),
            state,
            params,
            obj_fn=bowl,
            grad_fn=lambda params, _: jax.grad(bowl)(params),
        )
        return optax.apply_updates(params, updates), state

    for _ in range(num_steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("period", "size"), [(6, 0.5), (1, 0.8), (5, 0.3)])
def test_lookahead_is_optaxs_without_its_pairs(rule, period, size, x64):
    with x64():
        tx = wrappers.lookahead(RULES[rule](), period, size)
        params, state = run(tx)
        other = optax.lookahead(RULES[rule](), period, size)
        pair = optax.LookaheadParams.init_synced(start())
        other_state = other.init(pair)

        @jax.jit
        def step(pair, other_state, index):
            grads = jax.grad(loss_fn)(pair.fast, batch(index))
            updates, other_state = other.update(grads, other_state, pair)
            return optax.apply_updates(pair, updates), other_state

        for index in range(NUM_STEPS):
            pair, other_state = step(pair, other_state, index)
        close(params, pair.fast)
        close(wrappers.eval_params(state, params), pair.slow)
        # 100 steps end at a synchronisation, but not where that is every 6.
        distance = np.max(np.abs(np.asarray(pair.fast["w"] - pair.slow["w"])))
        assert distance > 1e-4 if period == 6 else distance < 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_sam_is_optaxs_in_both_forms(rule, x64):
    with x64():
        uphill = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
        opaque = optax.contrib.sam(RULES[rule](), uphill, opaque_mode=True)
        found, _ = run(wrappers.sam(RULES[rule]()))
        close(found, run(only(opaque, "grad_fn"))[0])
        # An odd number of steps, so that the true parameters are not the loop's.
        params, state = run(wrappers.sam_alternating(RULES[rule]()), 2 * NUM_STEPS + 1, repeats=2)
        others, other_state = run(
            only(optax.contrib.sam(RULES[rule](), uphill)), 2 * NUM_STEPS + 1, repeats=2
        )
        close(params, others)
        close(wrappers.eval_params(state, params), other_state.cache)
        # With each batch twice, the two forms are one.
        close(wrappers.eval_params(state, params), found)


def test_sam_is_its_papers_formula(x64):
    """Algorithm 1 of Foret et al. with p = 2."""

    def step(w, gradient_at, _):
        g = gradient_at(w)
        return w - 0.02 * gradient_at(w + 0.1 * g / np.linalg.norm(g))

    with x64():
        close(bowl_run(wrappers.sam(optax.sgd(0.02), 0.1))[0], numpy_run(step))
        params, state = bowl_run(wrappers.sam_alternating(optax.sgd(0.02), 0.1), 2 * NUM_STEPS)
        close(params, numpy_run(step))
        close(wrappers.eval_params(state, params), params)


@pytest.mark.parametrize("form", ["sam", "sam_alternating"])
def test_sam_does_not_divide_by_a_gradient_of_zero(form):
    tx = AROUND[form](optax.sgd(0.1))
    params = {"w": jnp.ones((2, 2), jnp.bfloat16), "b": jnp.zeros(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params, grad_fn=lambda *_: zero)
    for update, param in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        assert not np.any(np.asarray(update, np.float32))
        assert update.dtype == param.dtype


@pytest.mark.parametrize("num_ahead", [1.0, 2.5])
def test_weight_prediction_is_xgrad_with_momentum(num_ahead, x64):
    """`SGD.py` of the authors: predict from the buffer, take the gradient, put back, step."""
    memory = {"buf": np.zeros(4)}

    def step(w, gradient_at, _):
        predicted = w - 0.01 * num_ahead * memory["buf"]
        memory["buf"] = 0.9 * memory["buf"] + gradient_at(predicted)
        return w - 0.01 * memory["buf"]

    with x64():
        tx = wrappers.weight_prediction(optax.sgd(0.01, momentum=0.9), num_ahead)
        params, state = bowl_run(tx)
        expected = numpy_run(step)
        close(wrappers.eval_params(state, params), expected)
        close(params, expected - 0.01 * num_ahead * memory["buf"])


@pytest.mark.parametrize("rule", ["optax", "program"])
def test_weight_prediction_is_xgrad_with_adam(rule, x64):
    """`Adam.py` of the authors, whose prediction uses the bias corrections of the last step."""
    memory = {"m": np.zeros(4), "v": np.zeros(4)}

    def direction(t):
        m, v = memory["m"] / (1 - 0.9**t), memory["v"] / (1 - 0.999**t)
        return 0.02 * m / (np.sqrt(v) + 1e-8)

    def step(w, gradient_at, t):
        g = gradient_at(w - direction(t - 1) if t > 1 else w)
        memory["m"] = 0.9 * memory["m"] + 0.1 * g
        memory["v"] = 0.999 * memory["v"] + 0.001 * g**2
        return w - direction(t)

    with x64():
        inner = optax.adam(0.02) if rule == "optax" else veldt.load_rule("adam").as_optax(0.02)
        params, state = bowl_run(wrappers.weight_prediction(inner))
        expected = numpy_run(step)
        # One step of Adam is 0.02, so that predicted and true weights differ by far more.
        close(wrappers.eval_params(state, params), expected)
        close(params, expected - direction(NUM_STEPS))


def test_the_wrapped_transform_reads_the_true_weights(x64):
    """Decay is of the true weights: with a gradient of zero, w falls by a factor a step."""
    with x64():
        tx = wrappers.weight_prediction(
            optax.chain(optax.add_decayed_weights(1.0), optax.sgd(0.1)), 3.0
        )
        params = jnp.array([2.0])
        state = tx.init(params)
        for _ in range(5):
            updates, state = tx.update(jnp.zeros(1), state, params)
            params = optax.apply_updates(params, updates)
        close(wrappers.eval_params(state, params), np.array([2 * 0.9**5]))


@pytest.mark.parametrize("interval", [1, 4])
def test_hutchinson_is_exact_where_the_hessian_is_diagonal(interval, x64):
    """The signs of the probe cancel, and the step is Newton's."""
    with x64():
        tx = wrappers.hutchinson(optax.sgd(1.0), eps=0.0, update_interval=interval)
        w, scales = jnp.array([1.0, -2.0, 3.0]), jnp.array([0.5, 4.0, 100.0])
        quadratic = lambda w: jnp.sum(scales * (w - 1) ** 2) / 2  # noqa: E731
        state = tx.init(w)
        for _ in range(6):
            updates, state = tx.update(jax.grad(quadratic)(w), state, w, obj_fn=quadratic)
            num_probes = -(-int(state.count) // interval)
            found = np.sqrt(np.asarray(state.nu) / (1 - 0.999**num_probes))
            np.testing.assert_allclose(found, scales, rtol=1e-12)
            np.testing.assert_allclose(updates, 1 - w, rtol=1e-10)
        assert num_probes == (6 if interval == 1 else 2)


@pytest.mark.parametrize(("interval", "power"), [(1, 1.0), (1, 0.7), (3, 1.0)])
def test_hutchinson_is_adahessian_with_the_same_probes(interval, power, x64):
    """`optim_adahessian.py` of the authors; a Hessian by finite differences of the gradient."""
    with x64():
        rng = np.random.default_rng(1)
        root = rng.normal(size=(4, 4))
        matrix = root @ root.T + np.eye(4)

        def objective(w):
            return w @ jnp.asarray(matrix) @ w / 2 + jnp.sum(w**4) / 4

        def gradient(w):
            return matrix @ w + w**3

        tx = optax.chain(
            optax.ema(0.9),
            wrappers.hutchinson(
                optax.sgd(0.1), 0.99, power, eps=1e-4, update_interval=interval, seed=5
            ),
        )
        params = jnp.array([1.0, -2.0, 0.5, 0.1])
        state = tx.init(params)
        w, exp_avg, diag_sq = np.array(params), np.zeros(4), np.zeros(4)
        num_probes = 0

        @jax.jit
        def update(params, state):
            grads = jax.grad(objective)(params)
            updates, state = tx.update(grads, state, params, obj_fn=objective)
            return optax.apply_updates(params, updates), state

        for step in range(NUM_STEPS):
            params, state = update(params, state)
            grad = gradient(w)
            if step % interval == 0:
                num_probes += 1
                key = jax.random.fold_in(jax.random.key(5), step)
                v = np.asarray(hessian_probe.random_signs(key, params))
                assert set(v) <= {-1.0, 1.0}
                hv = (gradient(w + 1e-5 * v) - gradient(w - 1e-5 * v)) / 2e-5
                diag_sq = 0.99 * diag_sq + 0.01 * np.abs(hv) ** 2
            exp_avg = 0.9 * exp_avg + 0.1 * grad
            denom = (np.sqrt(diag_sq) ** power) / np.sqrt(1 - 0.99**num_probes) ** power + 1e-4
            w = w - 0.1 * exp_avg / (1 - 0.9 ** (step + 1)) / denom
        close(params, w, 1e-10)
        assert num_probes == (100 if interval == 1 else 34)


def test_probes_are_new_at_each_step_and_follow_from_the_seed():
    params = {"w": jnp.zeros((8, 8)), "b": jnp.zeros(64)}
    draw = lambda seed, step: hessian_probe.random_signs(  # noqa: E731
        jax.random.fold_in(jax.random.key(seed), step), params
    )
    first, again, second, other = draw(0, 0), draw(0, 0), draw(0, 1), draw(1, 0)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for signs in (second, other):
        assert np.any(signs["w"] != first["w"])
    assert np.any(first["w"].ravel() != first["b"])


def test_kernels_are_averaged_over_the_axes_that_the_caller_says(x64):
    """As the authors' code does to 4-D kernels, there with the spatial axes last."""
    with x64():
        rng = np.random.default_rng(2)
        scales = jnp.asarray(rng.uniform(1, 2, size=(3, 3, 2, 4)))
        kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 4)))
        quadratic = lambda w: jnp.sum(scales * w**2) / 2  # noqa: E731
        tx = wrappers.hutchinson(
            optax.sgd(1.0), eps=0.0, average=lambda d: jnp.mean(d, (0, 1), keepdims=True)
        )
        grads = jax.grad(quadratic)(kernel)
        updates, state = tx.update(grads, tx.init(kernel), kernel, obj_fn=quadratic)
        assert state.nu.shape == (1, 1, 2, 4)
        expected = -grads / np.mean(scales, (0, 1), keepdims=True)
        np.testing.assert_allclose(updates, expected, rtol=1e-12)


@pytest.mark.parametrize("name", AROUND)
def test_dtypes_stay_and_all_arguments_arrive(name):
    seen = {}

    def update(updates, state, params=None, **extra_args):
        seen.update(extra_args, params=params)
        return jax.tree.map(lambda g: -g, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    tx = AROUND[name](inner)
    params = {"w": jnp.ones((3, 2), jnp.bfloat16), "b": jnp.ones(2), "count": jnp.array(3)}
    of_params = lambda p: jnp.sum(p["w"].astype(jnp.float32) ** 2) + jnp.sum(p["b"] ** 2)  # noqa: E731
    grad_of = lambda params, _: jax.grad(of_params, allow_int=True)(params)  # noqa: E731
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(
            grad_of(params, 0), state, params, value=2.5, obj_fn=of_params, grad_fn=grad_of
        )
        params = optax.apply_updates(params, updates)
    assert seen["value"] == 2.5
    assert seen["params"]["count"] is None
    assert [x.dtype for x in jax.tree.leaves(updates)] == [x.dtype for x in jax.tree.leaves(params)]
    assert int(params["count"]) == 3


@pytest.mark.parametrize("name", AROUND)
def test_what_is_missing_is_said(name):
    tx = AROUND[name](optax.sgd(0.1))
    grads = {"w": jnp.ones(2)}
    with pytest.raises(errors.MissingInputError, match=f"{name} reads the parameters"):
        tx.update(grads, tx.init(grads))
    if name == "sam":
        with pytest.raises(errors.MissingInputError, match=r"grad_fn=jax\.grad.*sam_alternating"):
            tx.update(grads, tx.init(grads), grads)
    if name == "hutchinson":
        with pytest.raises(errors.MissingInputError, match="obj_fn=lambda"):
            tx.update(grads, tx.init(grads), grads)
    if name not in HOLDERS:
        with pytest.raises(errors.MissingInputError, match="lookahead, sam_alternating"):
            wrappers.eval_params(tx.init(grads), grads)


@pytest.mark.parametrize("name", HOLDERS)
def test_a_step_may_be_donated_the_parameters_and_the_state(name):
    """A buffer that both hold could not be."""
    tx = AROUND[name](optax.sgd(0.1))

    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        return optax.apply_updates(params, updates), state

    donated = jax.jit(step, donate_argnums=(0, 1))
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    state = tx.init(params)
    for _ in range(7):
        params, state = donated(params, state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))


def test_options_are_checked():
    with pytest.raises(errors.OptionError, match="sync_period must be at least 1; got 0"):
        wrappers.lookahead(optax.sgd(0.1), 0)
    with pytest.raises(errors.OptionError, match="update_interval must be at least 1; got -2"):
        wrappers.hutchinson(optax.sgd(0.1), update_interval=-2)


HOSTS = {
    "chain": lambda tx: optax.chain(optax.clip(1e9), tx),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
    "hutchinson": lambda tx: wrappers.hutchinson(tx, power=0.0, eps=0.0),
    "partition": lambda tx: optax.partition({"a": tx, "b": tx}, {"w": "a", "b": "b"}),
}
"""Each does nothing of its own, or gives each parameter a wrapper."""
FOUND = [(name, host) for name in HOLDERS for host in HOSTS]
FOUND.remove(("sam_alternating", "partition"))  # Its norm is over the parameters that it sees.


@pytest.mark.parametrize(("name", "host"), FOUND)
def test_the_weights_to_evaluate_are_found_at_any_depth(name, host, x64):
    with x64():
        tx = AROUND[name](optax.sgd(0.05, momentum=0.9))
        hosted = HOSTS[host](tx)
        params, state = run(tx, 7)
        found, hosted_state = run(hosted, 7)
        close(found, params)
        expected = wrappers.eval_params(state, params)
        close(wrappers.eval_params(hosted_state, found), expected)
        assert np.max(np.abs(np.asarray(expected["w"] - params["w"]))) > 1e-4


def test_wrappers_of_wrappers_end_at_the_slow_weights(x64):
    """True weights of the outer one are the inner one's to average."""
    with x64():
        inner = wrappers.lookahead(optax.sgd(0.05, momentum=0.9), 3)
        tx = wrappers.weight_prediction(inner)
        params, state = run(tx, 7)
        close(wrappers.eval_params(state, params), state.inner.slow)
        predicted = jax.tree.map(lambda w, offset: w - offset, params, state.offset)
        assert np.any(np.asarray(predicted["w"]) != np.asarray(state.inner.slow["w"]))


def test_leaves_that_nobody_trains_are_whole_in_the_callers_functions():
    """`grad_fn` and `obj_fn` read a counter that the wrapped transform never sees."""
    params = {"w": jnp.ones(3), "count": jnp.array(2), "none": None, "empty": jnp.zeros((0, 2))}

    def objective(params):
        return params["count"] * jnp.sum(params["w"] ** 2) + jnp.sum(params["empty"])

    grad_of = lambda params, _: jax.grad(objective, allow_int=True)(params)  # noqa: E731
    tx = wrappers.sam(wrappers.hutchinson(optax.sgd(1.0), eps=0.0), 0.0)
    updates, state = tx.update(
        grad_of(params, 0), tx.init(params), params, obj_fn=objective, grad_fn=grad_of
    )
    np.testing.assert_allclose(updates["w"], -params["w"], rtol=1e-5)  # Newton's step.
    assert updates["count"].dtype == params["count"].dtype and updates["empty"].shape == (0, 2)
    assert len(jax.tree.leaves(state.nu)) == 1


@pytest.mark.parametrize("base", ["sgd", "rmsprop"])
def test_schedule_free_goes_around_rules_as_around_optaxs(base, x64):
    """What the docs say of `optax.contrib.schedule_free`."""
    with x64():
        others = {"sgd": optax.sgd(0.05), "rmsprop": optax.rmsprop(0.05)}
        found = [
            run(optax.contrib.schedule_free(tx, 0.05))
            for tx in (veldt.load_rule(base).as_optax(0.05), others[base])
        ]
        points = [optax.contrib.schedule_free_eval_params(state, p) for p, state in found]
        close(found[0][0], found[1][0])
        close(points[0], points[1])
        assert np.any(np.asarray(points[0]["w"]) != np.asarray(found[0][0]["w"]))
