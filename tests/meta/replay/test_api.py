"""`metagradient`: trust in good and bad gradients, fallback, plans, bad input."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.replay import trainings
from veldt.meta import errors
from veldt.meta.replay import api, fallback, plans, task_training, trust

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Simple(task_training.Training):
    """w <- w - 0.1 (w - bend(z)), from 0: closed forms, with what is wrong put in."""

    num_steps: int
    bend: str = dataclasses.field(default="plain", metadata={"static": True})

    def init(self, z):
        return {"w": jnp.zeros(2)}

    def step(self, z, state, index):
        match self.bend:
            case "plain":
                target = z**2
            case "detached":
                target = jax.lax.stop_gradient(0.9 * z**2) + 0.1 * z**2
            case "rough":
                target = z**2 + 0.01 * jnp.sin(4000.0 * z)
            case "root":
                target = z**2 + jnp.sqrt(jnp.abs(0.0 * z))
            case "diverging":
                target = jnp.where(index < 5, z**2, jnp.inf)
        return {"w": state["w"] - 0.1 * (state["w"] - target)}

    def outcome(self, z, state):
        return jnp.sum(state["w"] ** 2)


POINT = jnp.asarray(0.8)


def closed_form(num_steps, z):
    """The outcome is 2 (1 - 0.9^T)^2 z^4."""
    return 8 * (1 - 0.9**num_steps) ** 2 * z**3


def take(bend="plain", num_steps=12, **options):
    return api.metagradient(Simple(num_steps, bend), POINT, key=KEY, **options)


def test_a_smooth_training_passes():
    found = take(check="full")
    assert found.gradient == pytest.approx(closed_form(12, 0.8), rel=1e-5)
    assert found.verdict.passed and found.verdict.finite and found.method == "replay"
    assert max(found.verdict.relative_errors) < 0.01
    assert found.verdict.metasmoothness == pytest.approx(1.0)
    assert found.plan == plans.square_root(12)
    assert found.outcome == pytest.approx(2 * ((1 - 0.9**12) * 0.64) ** 2, rel=1e-5)
    assert found.cost.reverse_steps == 12


def test_what_is_not_differentiated_is_called_wrong():
    found = take("detached", on_failure="keep")
    assert not found.verdict.passed and found.method == "replay"
    assert found.verdict.disagreement < 0.05
    assert found.verdict.relative_errors == pytest.approx((0.9, 0.9), abs=0.02)
    assert "stop_gradient" in found.verdict.message


def test_what_is_rough_is_called_rough_and_estimated_instead():
    found = take("rough", num_steps=40)
    assert not found.verdict.passed and found.verdict.finite
    assert found.verdict.disagreement > 0.1
    assert "Average over more seeds" in found.verdict.message
    assert found.method == "full ES" and "full ES" in found.verdict.message
    # The estimate is of the smoothed outcome: about the gradient without the ripples.
    assert found.gradient == pytest.approx(closed_form(40, 0.8), rel=0.5)


@dataclasses.dataclass(frozen=True)
class HalfDetached(task_training.Training):
    """Ends in sum(z^2), of which half is not differentiated."""

    num_steps: int

    def init(self, z):
        return jnp.zeros(z.shape)

    def step(self, z, state, index):
        return state + z / self.num_steps

    def outcome(self, z, state):
        return jnp.sum(state * jax.lax.stop_gradient(z))


@pytest.mark.parametrize("count", [fallback.MOST_NUMBERS, fallback.MOST_NUMBERS + 1])
def test_a_gradient_of_many_numbers_is_kept_though_it_failed(count):
    z = jnp.linspace(-1.0, 1.0, count)
    found = api.metagradient(HalfDetached(4), z, key=KEY)
    assert not found.verdict.passed
    assert found.verdict.relative_errors == pytest.approx((0.5, 0.5), abs=0.02)
    if count > fallback.MOST_NUMBERS:
        assert found.method == "replay" and "The gradient is kept" in found.verdict.message
        np.testing.assert_allclose(found.gradient, z, rtol=1e-5)
    else:
        assert found.method == "full ES" and "an estimate by" in found.verdict.message
        assert not np.allclose(found.gradient, z)


def test_many_numbers_that_are_not_finite_are_never_kept():
    z = jnp.zeros(fallback.MOST_NUMBERS + 1)
    found = trust.judge(z, 1.0, z.at[0].set(jnp.nan), KEY, None)
    assert api.is_replaced(found, "auto", z)


def test_directions_go_along_the_gradient():
    params = {"a": jnp.full(50, 0.1), "b": jnp.asarray(-4.0)}
    grads = {"a": jnp.linspace(-1.0, 2.0, 50), "b": jnp.asarray(0.5)}
    rms = {"a": 0.1, "b": 4.0}
    flat = [np.concatenate([np.ravel(np.asarray(d[k]) / rms[k]) for k in "ab"])
            for d in trust._directions(KEY, params, grads, 3)]  # fmt: skip
    own = np.concatenate([np.ravel(np.asarray(grads[k]) * rms[k]) for k in "ab"])
    own /= np.linalg.norm(own)
    np.testing.assert_allclose(flat[0], own, rtol=1e-5)
    for other in flat[1:]:
        assert np.linalg.norm(other) == pytest.approx(1.0, rel=1e-5)
        assert other @ own == pytest.approx(math.sqrt(0.5), abs=0.25)
    assert not np.allclose(flat[1], flat[2])
    (nowhere,) = trust._directions(KEY, params, jax.tree.map(jnp.zeros_like, grads), 1)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nowhere))


def test_a_root_at_zero_is_said_to_be_that():
    found = take("root", on_failure="keep")
    assert not np.isfinite(found.gradient)
    assert not found.verdict.finite and not found.verdict.passed
    assert "scale_by_adam" in found.verdict.message
    with pytest.raises(errors.ReplayError, match=r"failed its check.*root at 0"):
        take("root", on_failure="raise")


def test_a_diverged_training_is_said_to_be_that():
    found = take("diverging", on_failure="keep")
    assert "training diverged" in found.verdict.message


def test_without_a_check_only_finiteness_is_known():
    found = take("detached", check="none")
    assert found.verdict.passed and found.verdict.relative_errors == ()
    assert found.verdict.metasmoothness is None


def test_a_budget_chooses_the_plan_and_changes_nothing():
    state_bytes = 8
    found = take(num_steps=200, memory_bytes=12 * state_bytes, check="none")
    assert found.plan == plans.choose(200, state_bytes, 12 * state_bytes)
    assert found.cost.peak_bytes <= 12 * state_bytes
    assert found.gradient == take(num_steps=200, plan=plans.kary(200, 3), check="none").gradient


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check": "some"}, "check='some' must be one of fast, full, none"),
        ({"on_failure": "weep"}, "auto, keep, raise"),
        ({"plan": "best"}, "auto"),
        ({"plan": plans.store_all(12), "memory_bytes": 100}, "one of plan and memory_bytes"),
        ({"memory_bytes": 3}, "too little"),
        ({"plan": plans.store_all(11)}, "11 steps, not 12"),
    ],
)
def test_bad_settings_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        take(**options)


def test_meta_parameters_must_be_floats():
    with pytest.raises(ValueError, match=r"\['n'\] is int32"):
        api.metagradient(Simple(3), {"n": 2}, key=KEY)


def test_metasmoothness_is_definition_two():
    first, middle, last = (
        jnp.asarray([0.0, 0, 0]),
        jnp.asarray([1.0, 2, 0]),
        jnp.asarray([2.0, 1, 0]),
    )
    # Displacements 2 and 1; the first goes on, the second turns back: (2 - 1) / 3.
    assert trust.metasmoothness(first, middle, last) == pytest.approx(1 / 3)
    assert trust.metasmoothness(first, first, first) == 1.0
    assert trust.metasmoothness(*({"w": x, "n": jnp.arange(3)} for x in (first, middle, last))) > 0


@pytest.mark.slow
def test_a_real_training_passes_and_the_last_window_may_be_the_outcome():
    run = trainings.curve("adam", 30, seeds=range(4), objective=task_training.LastWindow(10))
    found = api.metagradient(run, trainings.meta_params("adam"), key=KEY)
    assert found.verdict.passed, found.verdict.message
    assert found.verdict.metasmoothness > 0.9


@dataclasses.dataclass(frozen=True)
class Scaled(task_training.Training):
    """w <- w - rate (w - z^2), and a list that says how often its start was traced."""

    num_steps: int
    rate: jax.Array
    begun: "Begun" = dataclasses.field(metadata={"static": True})

    def init(self, z):
        self.begun.append(None)
        return {"w": jnp.zeros(2)}

    def step(self, z, state, index):
        return {"w": state["w"] - self.rate * (state["w"] - z**2)}

    def outcome(self, z, state):
        return jnp.sum(state["w"])


class Begun(list):
    """A list that may be static: it is equal to itself alone."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def test_the_start_is_traced_once_for_trainings_of_a_kind():
    begun = Begun()

    def outcome(rate):
        run = Scaled(5, jnp.float32(rate), begun)
        return api.metagradient(run, jnp.ones(2), key=KEY, check="none").outcome

    first = outcome(0.1)
    num_traced = len(begun)
    second = outcome(0.2)
    assert len(begun) == num_traced > 0
    # The rate is an argument, and not part of what was traced.
    np.testing.assert_allclose([first, second], 2 - 2 * np.array([0.9, 0.8]) ** 5, rtol=1e-5)
