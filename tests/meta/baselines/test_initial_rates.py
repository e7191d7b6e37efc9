import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.meta.baselines import initial_rates


def test_step_law_is_the_published_power_law():
    """Worked by logarithms from the paper's constants, for 1e9 parameters and 1e11 tokens."""
    rate = 10 ** (np.log10(1.79) - 0.713 * 9 + 0.307 * 11)
    assert rate == pytest.approx(1.633e-3, rel=1e-3)
    assert initial_rates.step_law_learning_rate(1e9, 1e11) == pytest.approx(rate)
    batch = 10 ** (np.log10(0.58) + 0.571 * 11)
    assert batch == pytest.approx(1.108e6, rel=1e-3)
    assert initial_rates.step_law_batch_size(1e11) == pytest.approx(batch)


def test_step_law_has_the_published_exponents():
    law = initial_rates.step_law_learning_rate
    assert law(2e8, 1e10) / law(1e8, 1e10) == pytest.approx(2**-0.713)
    assert law(1e8, 2e10) / law(1e8, 1e10) == pytest.approx(2**0.307)
    batch = initial_rates.step_law_batch_size
    assert batch(2e10) / batch(1e10) == pytest.approx(2**0.571)


def test_the_square_root_rule_for_a_fourfold_batch():
    old = initial_rates.AdamSettings(1e-3, b1=0.9, b2=0.99, eps=1e-8)
    new = initial_rates.square_root_rule(old, 4.0)
    assert new.learning_rate == pytest.approx(2e-3)
    assert (new.b1, new.b2, new.eps) == pytest.approx((0.6, 0.96, 5e-9))
    back = initial_rates.square_root_rule(new, 0.25)
    assert (back.learning_rate, back.b1, back.b2, back.eps) == pytest.approx(
        (1e-3, 0.9, 0.99, 1e-8)
    )


def test_the_square_root_rule_ends_where_a_decay_would_be_negative():
    settings = initial_rates.AdamSettings(1e-3)
    with pytest.raises(ValueError, match=r"b1 = -0\.2"):
        initial_rates.square_root_rule(settings, 12.0)
    rmsprop = initial_rates.AdamSettings(1e-3, b1=0.0)
    assert initial_rates.square_root_rule(rmsprop, 12.0).b1 == 0.0


def test_the_square_root_rule_keeps_the_noise_of_adam():
    """Where gradients are noise alone, the spread after the same number of examples is kept."""

    def spread(settings, num_steps, noise):
        tx = optax.adam(settings.learning_rate, settings.b1, settings.b2, settings.eps)

        def body(carry, key):
            x, state = carry
            grads = noise * jax.random.normal(key, x.shape)
            updates, state = tx.update(grads, state)
            return (x + updates, state), None

        x = jnp.zeros(4000)
        keys = jax.random.split(jax.random.key(0), num_steps)
        (x, _), _ = jax.lax.scan(body, (x, tx.init(x)), keys)
        return float(jnp.std(x))

    old = initial_rates.AdamSettings(1e-3, b1=0.9, b2=0.999)
    expected = spread(old, 1600, 1.0)
    new = initial_rates.square_root_rule(old, 4.0)
    assert spread(new, 400, 0.5) == pytest.approx(expected, rel=0.05)
    unscaled = initial_rates.AdamSettings(1e-3, b1=0.9, b2=0.999)
    assert spread(unscaled, 400, 0.5) < 0.6 * expected


def test_the_linear_rule():
    assert initial_rates.linear_rule(0.1, 8.0) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("kind", "init_std", "output", "sgd", "adam"),
    [
        # Table 8 of Tensor Programs V at a width ratio of 16, in its columns' order.
        ("input", 1.0, 1.0, 16.0, 1.0),
        ("output", 1.0, 1 / 16, 16.0, 1.0),
        ("hidden", 1 / 4, 1.0, 1.0, 1 / 16),
    ],
)
def test_mup_multipliers_are_those_of_table_8(kind, init_std, output, sgd, adam):
    found = initial_rates.mup_multipliers(kind, 16.0)
    assert (found.init_std, found.output, found.sgd_rate, found.adam_rate) == (
        init_std,
        output,
        sgd,
        adam,
    )
    assert set(vars(initial_rates.mup_multipliers(kind, 1.0)).values()) == {1.0}


def test_mups_attention_is_one_over_d_and_the_usual_at_the_base():
    scale = initial_rates.mup_attention_scale
    assert scale(64, 64) == pytest.approx(64**-0.5)
    assert scale(128, 64) == pytest.approx(0.5 * scale(64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_change_of_the_output_by_a_few_steps_does_not_depend_on_the_width(optimizer):
    """The coordinate check of package mup, of a three-layer network from width 64 to 1024."""
    base_width = 64
    key_data, *keys = jax.random.split(jax.random.key(0), 4)
    inputs = jax.random.normal(key_data, (16, 8))
    targets = jnp.sin(inputs[:, :1])

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def change(width, ratio):
        """Mean change of the outputs in 4 steps; a ratio of 1 leaves muP out."""
        kinds = ("input", "hidden", "output")
        mup = {kind: initial_rates.mup_multipliers(kind, ratio) for kind in kinds}
        shapes = {"input": (8, width), "hidden": (width, width), "output": (width, 1)}
        base = {"input": 8**-0.5, "hidden": base_width**-0.5, "output": base_width**-0.5}
        if ratio == 1:  # The standard parametrization: 1 / fan-in.
            base = {kind: shapes[kind][0] ** -0.5 for kind in kinds}
        params = {
            kind: base[kind] * mup[kind].init_std * jax.random.normal(key, shapes[kind])
            for kind, key in zip(kinds, keys, strict=True)
        }

        def apply(params):
            x = inputs
            for kind in kinds:
                x = mup[kind].output * (x @ params[kind])
                x = x if kind == "output" else jnp.tanh(x)
            return x

        loss = lambda params: jnp.mean((apply(params) - targets) ** 2)  # noqa: E731
        rate = {"adam": 0.01, "sgd": 0.05}[optimizer]
        tx = optax.chain(
            optax.scale_by_adam() if optimizer == "adam" else optax.identity(),
            optax.stateless(
                lambda updates, _: {
                    kind: -rate * getattr(mup[kind], f"{optimizer}_rate") * update
                    for kind, update in updates.items()
                }
            ),
        )
        first, state = apply(params), tx.init(params)

        def body(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(body, (params, state), None, length=4)
        return jnp.mean(jnp.abs(apply(params) - first))

    base = change(base_width, 1)
    wide = change(1024, 16)
    standard = change(1024, 1)
    assert 0.6 < wide / base < 1.6
    assert standard / base > 2.0
