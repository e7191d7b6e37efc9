"""Candidates and baselines: what they make, what is refused, and when two are the same."""

import dataclasses
import itertools
import math
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks.benchmark.protocol import baselines, candidates, schedules
from veldt.tasks.common import errors

OWN = """
import functools

import optax


def doubled(learning_rate, factor=2.0):
    if callable(learning_rate):
        return optax.sgd(lambda step: factor * learning_rate(step))
    return optax.sgd(factor * learning_rate)


def rateless():
    return optax.chain(optax.scale_by_adam(), optax.scale(-1.0))


def timed(learning_rate, num_steps):
    return optax.sgd(learning_rate * num_steps)


def timed_rateless(num_steps):
    return optax.scale(-1.0 * num_steps)


def needs_more(learning_rate, rank, *, mask):
    return optax.sgd(learning_rate)


def takes_anything(learning_rate, *args, **kwargs):
    return optax.sgd(learning_rate, **kwargs)


def makes_none(learning_rate):
    return None


def makes_a_function(learning_rate):
    return lambda grads: grads


@functools.wraps(optax.adam)
def wrapping(*args, **kwargs):
    return optax.chain(optax.clip(1.0), optax.adam(*args, **kwargs))


slow_adam = functools.partial(optax.adam, b1=0.99)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's module, in the current directory; forgotten afterwards."""
    path = tmp_path / "own_optimizers.py"
    path.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield path
    sys.modules.pop("own_optimizers", None)


def updates_of(tx, num_steps=4):
    """What a transform makes of a few fixed gradients, float [num_steps, 3]."""
    params = jnp.array([1.0, -2.0, 3.0])
    state = tx.init(params)
    found = []
    for i in range(num_steps):
        grads = jnp.array([1.0, 0.1 * i, -3.0 + i])
        updates, state = tx.update(grads, state, params)
        found.append(updates)
    return np.asarray(found)


# ------------------------------------------------------------------ what a factory makes


@pytest.mark.parametrize("rate", [0.1, optax.linear_schedule(0.1, 0.5, 4)])
@pytest.mark.parametrize(
    ("factory", "options", "expected"),
    [
        ("optax:adam", (), optax.adam),
        ("optax:adam", (("b1", 0.5), ("eps", 0.1)), lambda lr: optax.adam(lr, b1=0.5, eps=0.1)),
        ("optax:sgd", (("momentum", 0.9),), lambda lr: optax.sgd(lr, momentum=0.9)),
        # Without a learning rate: as it is, times the rate.
        ("own_optimizers:rateless", (), optax.adam),
    ],
)
def test_it_makes_what_optax_makes(own, factory, options, expected, rate):
    made = candidates.FactoryCandidate("it", factory, options).make_tx(rate, 4)
    np.testing.assert_allclose(updates_of(made), updates_of(expected(rate)), rtol=1e-6)


def test_options_go_to_the_users_own_factory(own):
    for options, factor in [((), 2.0), ((("factor", 5.0),), 5.0)]:
        made = candidates.FactoryCandidate("it", "own_optimizers:doubled", options)
        np.testing.assert_allclose(
            updates_of(made.make_tx(0.1, 4)), updates_of(optax.sgd(0.1 * factor)), rtol=1e-6
        )


def test_it_gets_the_number_of_steps_if_it_has_that_parameter(own):
    for name in ("timed", "timed_rateless"):
        made = candidates.factory_candidate(f"own_optimizers:{name}").make_tx(0.1, 30)
        np.testing.assert_allclose(updates_of(made), updates_of(optax.sgd(3.0)), rtol=1e-6)


def test_a_traced_rate_is_as_good_as_a_number():
    made = candidates.factory_candidate("optax:adam")

    @jax.jit
    def first(rate):
        tx = made.make_tx(rate, 1)
        grads = jnp.array([3.0, -0.2])
        return tx.update(grads, tx.init(grads), grads)[0]

    # Adam's first step is the rate, against the gradient's sign.
    np.testing.assert_allclose(first(0.01), [-0.01, 0.01], rtol=1e-4)


# ------------------------------------------------------------------ candidates by name


def test_a_name_alone_is_a_candidate_with_the_usual_rates(own):
    adam = candidates.factory_candidate("optax:adam")
    assert (adam.name, adam.factory, adam.options) == ("optax:adam", "optax:adam", ())
    assert adam.rates == candidates.rate_grid(0.01)
    # Times 1 is the transform as its author made it.
    rateless = candidates.factory_candidate("own_optimizers:rateless")
    assert rateless.rates == candidates.rate_grid(1.0)
    assert candidates.factory_candidate("own_optimizers:takes_anything").options == ()


def test_the_grid_is_seven_rates_around_its_centre():
    grid = candidates.rate_grid(0.01)
    np.testing.assert_allclose(np.log10(grid), [-3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("optax:adem", r"optimizer 'optax:adem': .*did you mean 'adam'"),
        ("adam", "optimizer 'adam': write \"module:factory\""),
        ("nowhere_at_all:adam", "No module named 'nowhere_at_all'"),
        ("optax:EmptyState.x", 'write "module:factory"'),
        ("own_optimizers:needs_more", r"also needs rank, mask; .*factory\(learning_rate=...\)"),
        ("optax:ema", "also needs decay"),
    ],
)
def test_what_cannot_be_a_factory_is_refused(own, name, message):
    with pytest.raises(errors.TaskError, match=message):
        candidates.factory_candidate(name)


@pytest.mark.parametrize(
    ("name", "kind"), [("makes_none", "NoneType"), ("makes_a_function", "function")]
)
def test_what_is_no_transform_is_refused(own, name, kind):
    made = candidates.factory_candidate(f"own_optimizers:{name}")
    with pytest.raises(errors.TaskError, match=f"no optax.GradientTransformation; .*{kind}"):
        made.make_tx(0.1, 10)
    with pytest.raises(errors.TaskError, match=r"no optax\.GradientTransformation"):
        made.check()
    tx = optax.sgd(0.1)
    assert candidates.checked("it", tx) is tx


def test_a_check_finds_what_cannot_be_made_without_training(own):
    for row in baselines.BASELINES.values():
        row.check()
    wrong = candidates.FactoryCandidate("it", "optax:adam", (("beta", 0.5),))
    with pytest.raises(errors.TaskError, match=r"optimizer 'it' cannot be made: TypeError: .*beta"):
        wrong.check()


# ------------------------------------------------------------------ values and identities


def test_candidates_travel_and_are_values():
    for row in (*baselines.BASELINES.values(), baselines.REFERENCE):
        again = pickle.loads(pickle.dumps(row))  # noqa: S301
        assert again == row
        assert hash(again) == hash(row)
        assert again.identity == row.identity
    with pytest.raises(dataclasses.FrozenInstanceError):
        baselines.REFERENCE.name = "other"


def test_the_identity_tells_what_trains_differently_and_nothing_else(own):
    make = candidates.FactoryCandidate
    identities = [
        make("it", factory, options).identity
        for factory, options in [
            ("optax:adam", ()),
            ("optax:adam", (("b1", 0.9),)),
            ("optax:adam", (("b1", 0.8),)),
            ("optax:adam", (("b2", 0.9),)),
            ("optax:adamw", ()),
            ("own_optimizers:doubled", ()),
            ("own_optimizers:timed", ()),
        ]
    ]
    assert len(set(identities)) == len(identities)
    assert make("me", "optax:adam", rates=(0.5,)).identity == identities[0]
    assert optax.__version__ in identities[0]


def identity_after_editing(own, name):
    """A candidate's identity, before and after its module's file is changed."""
    made = candidates.FactoryCandidate("it", f"own_optimizers:{name}")
    before = made.identity
    assert made.identity == before
    own.write_text(OWN + "\n# Changed.\n")
    sys.modules.pop("own_optimizers")
    return before, made.identity


def test_the_identity_changes_with_the_users_file(own):
    before, after = identity_after_editing(own, "doubled")
    assert before != after
    own.write_text(OWN)
    assert candidates.FactoryCandidate("it", "own_optimizers:doubled").identity == before


def test_the_identity_changes_with_the_users_file_also_where_the_factory_wraps_optaxs(own):
    before, after = identity_after_editing(own, "wrapping")
    assert before != after


def test_a_partial_of_a_factory_is_a_factory_with_an_identity(own):
    made = candidates.factory_candidate("own_optimizers:slow_adam")
    np.testing.assert_allclose(
        updates_of(made.make_tx(0.1, 4)), updates_of(optax.adam(0.1, b1=0.99)), rtol=1e-6
    )
    before, after = identity_after_editing(own, "slow_adam")
    assert before != after


# ------------------------------------------------------------------ baselines


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_a_baseline_trains_a_quadratic_at_the_centre_of_its_rates(name):
    """With its rate as a number, and under every schedule at once, as the sweep does it."""
    row = baselines.BASELINES[name]
    start = {"w": jnp.array([[1.0, -0.8], [0.6, 1.0]]), "b": jnp.array([0.9, -1.0])}
    names = tuple(schedules.SCHEDULES)
    num_steps = 1000

    def loss(params):
        return 0.5 * (jnp.sum(params["w"] ** 2) + 0.3 * jnp.sum(params["b"] ** 2))

    def train(learning_rate):
        tx = row.make_tx(learning_rate, num_steps)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=num_steps)
        return loss(params)

    @jax.jit
    def finals(rate):
        def under(which):
            return train(schedules.scheduled(names, which, rate, num_steps))

        return train(rate), jax.vmap(under)(jnp.arange(len(names)))

    plain, scheduled = finals(row.rates[len(row.rates) // 2])
    assert plain < 0.1 * loss(start)
    assert (scheduled < 0.1 * loss(start)).all()


def test_the_baselines_are_each_one_thing_with_one_grid():
    rows = list(baselines.BASELINES.values())
    assert list(baselines.BASELINES) == [row.name for row in rows]
    assert len({row.identity for row in rows}) == len(rows)
    assert baselines.ADAM in baselines.BASELINES
    for row in rows:
        assert len(row.rates) == candidates.NUM_RATES == 7
        for low, high in itertools.pairwise(row.rates):
            assert high / low == pytest.approx(math.sqrt(10))


def test_every_second_inner_rate_of_the_reference_is_one_that_adam_is_tuned_over():
    adam = baselines.BASELINES[baselines.ADAM]
    assert baselines.REFERENCE.identity == adam.identity
    assert len(baselines.REFERENCE.rates) == 15
    # In the precision that they are used in they are the very same.
    inner = np.asarray(baselines.REFERENCE.rates[1::2], np.float32)
    assert inner.tolist() == np.asarray(adam.rates, np.float32).tolist()
