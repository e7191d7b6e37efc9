"""The inner loop: replay, resume, derivatives, and a closed form."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from veldt.tasks import base, registry
from veldt.tasks.inner_loop import unroll
from veldt.tasks.shipped import quadratic

NUM_STEPS = 12
TX = optax.adam(0.01)


def assert_same(a, b):
    """Bit for bit, keys included."""
    raw = functools.partial(jax.tree.map, _raw)
    jax.tree.map(np.testing.assert_array_equal, raw(a), raw(b))


def _raw(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


@pytest.fixture(scope="module")
def bowl():
    return quadratic.quadratic()


@pytest.fixture(scope="module")
def digits():
    return registry.load_task("digits_mlp")


init = jax.jit(lambda task, key: unroll.init(task, TX, key))
one_step = jax.jit(lambda task, state: unroll.step_fn(task, TX, state))


@functools.partial(jax.jit, static_argnames="num_steps")
def run(task, state, num_steps):
    return unroll.unroll(task, TX, state, num_steps=num_steps)


@pytest.fixture(scope="module")
def walked(digits):
    """The states and losses of a run taken step by step."""
    states, losses = [init(digits, jax.random.key(3))], []
    for _ in range(NUM_STEPS):
        state, loss = one_step(digits, states[-1])
        states.append(state)
        losses.append(loss)
    return states, losses


def test_unroll_equals_a_loop_written_by_hand(digits):
    """Only what the module documents: streams 0 params, 1 batch, 2 loss, folded with the step."""
    key = jax.random.key(3)

    @jax.jit
    def start(task):
        params = task.init(jax.random.fold_in(key, 0))
        return params, TX.init(params)

    @jax.jit
    def step(task, params, opt_state, i):
        batch = task.train_batch(jax.random.fold_in(jax.random.fold_in(key, 1), i))
        key_loss = jax.random.fold_in(jax.random.fold_in(key, 2), i)
        loss, grads = jax.value_and_grad(lambda p: task.loss(p, key_loss, batch)[0])(params)
        updates, opt_state = TX.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    (params, opt_state), losses = start(digits), []
    for i in range(NUM_STEPS):
        params, opt_state, loss = step(digits, params, opt_state, i)
        losses.append(loss)
    state, unrolled = init(digits, key), []
    for _ in range(NUM_STEPS // 4):
        state, four = run(digits, state, 4)
        unrolled.extend(four)
    np.testing.assert_allclose(unrolled, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, params)
    assert int(state.step) == NUM_STEPS


@hypothesis.given(start=st.integers(0, NUM_STEPS - 1), lengths=st.lists(st.sampled_from([1, 3, 4])))
def test_any_cut_of_a_run_retraces_it_bit_for_bit(digits, walked, start, lengths):
    """Loops of three lengths, entered anywhere and strung together, against single steps."""
    states, losses = walked
    state, step = states[start], start
    for length in lengths:
        if step + length > NUM_STEPS:
            break
        state, replayed = run(digits, state, length)
        assert_same(replayed, jnp.stack(losses[step : step + length]))
        step += length
    assert_same(state, states[step])


def test_a_run_cut_in_two_is_the_run_uncut(bowl):
    start = init(bowl, jax.random.key(0))
    whole, losses = run(bowl, start, 300)
    middle, first = run(bowl, start, 120)
    end, second = run(bowl, middle, 180)
    assert_same(end, whole)
    assert_same(jnp.concatenate([first, second]), losses)


def test_vmap_over_keys_equals_a_loop(bowl):
    def train(task, key):
        state, losses = unroll.unroll(task, TX, unroll.init(task, TX, key), num_steps=300)
        return state.params, losses

    keys = jax.random.split(jax.random.key(1), 3)
    params, losses = jax.jit(jax.vmap(train, in_axes=(None, 0)))(bowl, keys)
    for i, key in enumerate(keys):
        state, single = run(bowl, init(bowl, key), 300)
        np.testing.assert_allclose(losses[i], single, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(params[i], state.params, rtol=1e-4, atol=1e-4)


def diagonal_bowl(eigenvalues, minimum, noise_scale=0.0):
    cfg = quadratic.QuadraticConfig(
        eigenvalues=jnp.asarray(eigenvalues),
        rotation=jnp.eye(len(eigenvalues)),
        minimum=jnp.asarray(minimum),
        noise_scale=jnp.asarray(noise_scale),
    )
    return quadratic.QuadraticTask(cfg, name="diagonal")


def test_gradient_descent_on_a_diagonal_bowl_has_its_closed_form(x64):
    with x64():
        eigenvalues = np.array([1.0, 0.3, 0.05])
        minimum = np.array([2.0, -1.0, 0.5])
        task, lr, num_steps = diagonal_bowl(eigenvalues, minimum), 0.7, 40
        tx = optax.sgd(lr)

        @jax.jit
        def train(task, key):
            start = unroll.init(task, tx, key)
            state, losses = unroll.unroll(task, tx, start, num_steps=num_steps)
            return start, state, losses, unroll.evaluate(task, state.params, key, "valid")

        start, state, losses, final = train(task, jax.random.key(0))
        # x_k - m = (1 - lr h)^k (x_0 - m) in each coordinate.
        powers = (1 - lr * eigenvalues) ** np.arange(num_steps + 1)[:, None]
        offsets = powers * (np.asarray(start.params) - minimum)
        heights = 0.5 * (eigenvalues * offsets**2).sum(axis=1)
        np.testing.assert_allclose(losses, heights[:-1], rtol=1e-12)
        np.testing.assert_allclose(state.params, minimum + offsets[-1], rtol=1e-12)
        np.testing.assert_allclose(final, heights[-1], rtol=1e-12)


def test_the_derivative_by_the_learning_rate_is_right_in_both_modes(x64):
    """Against central differences at two steps: their error falls as the square of the step."""
    with x64():
        task = diagonal_bowl([1.0, 0.4, 0.1], [1.0, -2.0, 0.5], noise_scale=0.1)
        key = jax.random.key(5)

        def final_loss(lr):
            tx = optax.sgd(lr, momentum=0.8)
            state, _ = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=25)
            return unroll.evaluate(task, state.params, key, "valid")

        at = 0.2
        by_reverse, by_forward = jax.jit(
            lambda lr: (jax.grad(final_loss)(lr), jax.jacfwd(final_loss)(lr))
        )(at)
        np.testing.assert_allclose(by_forward, by_reverse, rtol=1e-11)
        h = np.array([1e-3, 1e-4])
        above, below = jax.jit(jax.vmap(jax.vmap(final_loss)))(at + np.stack([h, -h]))
        coarse, fine = (above - below) / (2 * h)
        assert abs(by_reverse) > 1e-3
        np.testing.assert_allclose(fine, by_reverse, rtol=1e-5)
        ratio = abs(coarse - by_reverse) / abs(fine - by_reverse)
        np.testing.assert_allclose(ratio, 100, rtol=0.2)


def test_the_transform_is_given_the_loss_as_value(bowl):
    tx = optax.GradientTransformationExtraArgs(
        init=lambda params: jnp.zeros(()),
        update=lambda grads, state, params=None, *, value, **_: (grads, value),
    )
    state = unroll.init(bowl, tx, jax.random.key(0))
    state, losses = unroll.unroll(bowl, tx, state, num_steps=3)
    np.testing.assert_array_equal(state.opt_state, losses[-1])


class Indexed(base.Task):
    """Fit the mean of numbers; batches by row number."""

    name = "indexed"

    def __init__(self):
        self.numbers = jnp.arange(300.0)

    def init(self, key):
        return jax.random.normal(key)

    def loss(self, params, key, batch):
        return jnp.mean((params - batch) ** 2) + 0.1 * jax.random.normal(key) * params, {}

    def sample(self, key):
        return jax.random.randint(key, (8,), 0, 200)

    def gather(self, selection):
        return self.numbers[selection]

    def train_batch(self, key):
        return self.gather(self.sample(key))

    def eval_batch(self, split):
        return {"train": self.numbers[:200], "valid": self.numbers[200:250]}.get(
            split, self.numbers[250:]
        )

    def normalizer(self, loss):
        return base.clip_normalized(loss / 1e4)


class Plain(base.Task):
    """The same task from a user who wrote `train_batch` alone."""

    name = "plain"

    def __init__(self):
        self.indexed = Indexed()

    def init(self, key):
        return self.indexed.init(key)

    def loss(self, params, key, batch):
        return self.indexed.loss(params, key, batch)

    def train_batch(self, key):
        return self.indexed.train_batch(key)

    def eval_batch(self, split):
        return self.indexed.eval_batch(split)

    def normalizer(self, loss):
        return self.indexed.normalizer(loss)


def test_drawing_rows_ahead_changes_where_they_are_drawn_and_nothing_else():
    def trained(task):
        tx = optax.sgd(0.1)
        state = unroll.init(task, tx, jax.random.key(2))
        return unroll.unroll(task, tx, state, num_steps=10)

    assert_same(jax.jit(trained)(Indexed()), jax.jit(trained)(Plain()))

    def draws_in_loop(task):
        jaxpr = jax.make_jaxpr(trained)(task)
        (loop,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan")
        return str(loop.params["jaxpr"]).count("random_bits")

    # The loss draws one normal; the batch of the plain task is drawn there too.
    assert draws_in_loop(Indexed()) == 1
    assert draws_in_loop(Plain()) > 1


def test_data_of_a_task_passed_as_argument_stay_out_of_the_program(digits):
    key = jax.random.key(0)

    def trained(task, key):
        return unroll.unroll(task, TX, unroll.init(task, TX, key), num_steps=5)

    as_argument = jax.jit(trained).lower(digits, key).as_text()
    closed_over = jax.jit(lambda key: trained(digits, key)).lower(key).as_text()
    num_bytes = digits.splits["train"].inputs.nbytes
    assert len(closed_over) > num_bytes
    assert len(as_argument) < len(closed_over) - num_bytes
