"""Schedules against their closed forms, and one chosen while tracing against each by itself."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from veldt.tasks.benchmark.protocol import schedules

MAX_STEPS = 4000
# Always as many, so that nothing is compiled anew for another length.
STEPS = np.arange(MAX_STEPS + 1)
LENGTHS = st.integers(1, MAX_STEPS)


def shares(name, num_steps):
    """Shares of the peak at every step of a run and at its end, float64 [num_steps + 1]."""
    values = jnp.broadcast_to(schedules.SCHEDULES[name](num_steps)(STEPS), STEPS.shape)
    return np.asarray(values, np.float64)[: num_steps + 1]


def closed_form(name, num_steps):
    """The same by formula: up in a straight line over 5% of the steps, then down."""
    steps = np.arange(num_steps + 1.0)
    if name == "constant":
        return np.ones(num_steps + 1)
    warmup = max(round(0.05 * num_steps), 1)
    rise = 1 / warmup + (1 - 1 / warmup) * steps / warmup
    gone = (steps - warmup) / max(num_steps - warmup, 1)
    fall = {"warmup_cosine": (1 + np.cos(np.pi * gone)) / 2, "warmup_linear": 1 - gone}[name]
    return np.where(steps < warmup, rise, fall)


def test_the_schedules_are_these():
    assert set(schedules.SCHEDULES) == {"constant", "warmup_cosine", "warmup_linear"}


@pytest.mark.parametrize("name", schedules.SCHEDULES)
@hypothesis.given(num_steps=LENGTHS)
@hypothesis.example(1)
@hypothesis.example(2)
@hypothesis.example(30)  # 5% of it is 1.5 steps, rounded to even.
def test_a_schedule_has_its_closed_form(name, num_steps):
    found = shares(name, num_steps)
    np.testing.assert_allclose(found, closed_form(name, num_steps), atol=2e-6)


@pytest.mark.parametrize("name", ["warmup_cosine", "warmup_linear"])
@hypothesis.given(num_steps=LENGTHS)
@hypothesis.example(1)
@hypothesis.example(2)
def test_a_decaying_schedule_rises_to_1_and_falls_to_0(name, num_steps):
    found = shares(name, num_steps)
    peak = min(max(round(0.05 * num_steps), 1), num_steps)
    assert found[peak] == pytest.approx(1.0, abs=1e-6)
    assert found.max() <= 1.0 + 1e-6
    assert (np.diff(found[: peak + 1]) > -1e-6).all()
    assert (np.diff(found[peak:]) < 1e-6).all()
    assert (found[:num_steps] > 0).all(), "a step without a learning rate is lost"
    if num_steps > peak:
        assert found[num_steps] == pytest.approx(0.0, abs=1e-6)
        assert found[num_steps - 1] <= 1.0 / (num_steps - peak) + 1e-6


@pytest.mark.parametrize("num_steps", [1, 7, 200])
def test_a_traced_choice_is_each_schedule(num_steps):
    names = tuple(schedules.SCHEDULES)

    @jax.jit
    def rates(which, peak):
        schedule = schedules.scheduled(names, which, peak, num_steps)
        return jax.vmap(schedule)(jnp.arange(num_steps))

    for which, name in enumerate(names):
        expected = 0.3 * closed_form(name, num_steps)[:num_steps]
        np.testing.assert_allclose(rates(which, 0.3), expected, rtol=1e-5, atol=1e-7)


def test_the_names_asked_for_decide_which_is_which():
    names = ("warmup_linear", "constant")
    choose = [schedules.scheduled(names, jnp.int32(i), jnp.float32(1.0), 100) for i in (0, 1)]
    assert float(choose[0](99)) == pytest.approx(1 / 95, rel=1e-5)
    assert float(choose[1](99)) == 1.0


def test_the_constant_schedule_alone_is_the_number_itself():
    peak = jnp.float32(0.1)
    assert schedules.scheduled(("constant",), jnp.int32(0), peak, 10) is peak
    with pytest.raises(KeyError):
        schedules.scheduled(("warmup_cosin",), jnp.int32(0), peak, 10)
