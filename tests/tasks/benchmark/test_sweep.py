"""Sweeps: the same runs as one at a time, settled where they diverge, and scored against Adam."""

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import strategies as st

from veldt.tasks import aggregate, registry, scores, training
from veldt.tasks import sweep as sweep_lib


def make(losses, *, num_steps=100, rates=None):
    """A sweep with these losses, [L, S, K, 3] or [L, S, K] for all three splits alike."""
    losses = np.asarray(losses, np.float32)
    if losses.ndim == 3:
        losses = np.repeat(losses[..., None], 3, axis=-1)
    steps = np.linspace(0, num_steps, losses.shape[2]).astype(np.int64)
    rates = np.ones(losses.shape[0]) if rates is None else np.asarray(rates)
    return sweep_lib.Sweep(rates, np.arange(losses.shape[1]), steps, losses, 0.0, 0.0)


# ------------------------------------------------------------------ sweeping


def test_a_sweep_is_its_runs_one_by_one():
    task = registry.load_task("breast_cancer_logistic")
    rates, seeds = [1e-2, 1e-1], [0, 7, 11]
    found = sweep_lib.sweep(
        task, lambda rate, _: optax.adam(rate), rates, seeds, num_steps=20, num_checks=4
    )
    assert found.losses.shape == (2, 3, 5, 3)
    assert found.steps.tolist() == [0, 5, 10, 15, 20]
    for i, rate in enumerate(rates):
        for j, seed in enumerate(seeds):
            curve = training.train(task, optax.adam(rate), 20, seed, eval_every=5)
            np.testing.assert_allclose(found.losses[i, j, :, 1], curve.valid_losses, rtol=2e-5)
    # The start does not depend on the rate; the splits are three.
    np.testing.assert_array_equal(found.losses[0, :, 0], found.losses[1, :, 0])
    assert len(np.unique(found.losses[0, 0, -1])) == 3


def test_the_optimizer_is_told_how_long_it_has():
    task = registry.load_task("quadratic")
    told = []

    def make_tx(rate, num_steps):
        told.append(num_steps)
        return optax.sgd(rate)

    sweep_lib.sweep(task, make_tx, [1.0], [0], num_steps=4, num_checks=2)
    sweep_lib.sweep(task, make_tx, [1.0], [0], num_steps=4, num_checks=2, schedule_steps=40)
    assert set(told) == {4, 40}


def test_a_run_that_diverges_is_infinite_from_there_on_and_the_others_go_on():
    task = registry.load_task("quadratic")
    found = sweep_lib.sweep(
        task, lambda rate, _: optax.sgd(rate), [1e-3, 1e20], [0, 1], num_steps=20, num_checks=5
    )
    assert found.diverged.tolist() == [[False, False], [True, True]]
    assert np.isfinite(found.losses[0]).all()
    assert np.isfinite(found.losses[1, :, 0]).all()
    assert np.isinf(found.losses[1, :, -1]).all()


def test_what_does_not_fit_is_refused():
    task = registry.load_task("quadratic")
    for arguments, text in [
        (([1.0], [0], 10, 3), "positive multiple"),
        (([], [0], 10, 5), "at least one"),
        (([1.0], [], 10, 5), "at least one"),
    ]:
        rates, seeds, num_steps, num_checks = arguments
        with pytest.raises(ValueError, match=text):
            sweep_lib.sweep(
                task,
                lambda rate, _: optax.sgd(rate),
                rates,
                seeds,
                num_steps=num_steps,
                num_checks=num_checks,
            )


# ------------------------------------------------------------------ the envelope and speed-ups


def test_on_an_exponential_the_step_is_found_exactly():
    steps = np.linspace(0, 3000, 31)
    reference = scores.Envelope(steps, np.exp(-steps / 400))
    for step in (1.0, 99.0, 100.0, 1234.5, 2999.0):
        assert scores.steps_to_reach(reference, np.exp(-step / 400)) == pytest.approx(step)
    assert scores.speedup(reference, float(np.exp(-1500 / 400)), 1000).value == pytest.approx(1.5)


def test_the_edges_of_a_speed_up():
    reference = scores.Envelope(np.array([0.0, 100.0, 300.0]), np.array([4.0, 2.0, 1.0]))
    assert scores.speedup(reference, float("inf"), 100) == scores.Speedup(0.0, False)
    assert scores.speedup(reference, float("nan"), 100) == scores.Speedup(0.0, False)
    assert scores.speedup(reference, 5.0, 100) == scores.Speedup(0.0, False)
    assert scores.speedup(reference, 4.0, 100) == scores.Speedup(0.0, False)
    assert scores.speedup(reference, 2.0, 100) == scores.Speedup(1.0, False)
    assert scores.speedup(reference, 1.0, 100) == scores.Speedup(3.0, False)
    assert scores.speedup(reference, 0.5, 100) == scores.Speedup(3.0, True)


def test_the_envelope_is_the_best_rate_at_every_step_and_never_rises():
    adam = make(
        [
            [[8, 4, 3, 3], [8, 2, 3, 3]],  # fast, then stuck: means 8, 3, 3, 3
            [[8, 6, 4, 1], [8, 6, 4, 1]],  # slow and steady
            [[8, 1, np.inf, np.inf], [8, 1, 1, 1]],  # diverges with one seed
        ]
    )
    assert scores.envelope(adam).losses.tolist() == [8, 1, 1, 1]
    assert scores.envelope(make(adam.losses[:2])).losses.tolist() == [8, 3, 3, 1]


@hypothesis.given(
    hnp.arrays(np.float64, (4, 3, 7), elements=st.floats(1e-6, 1e6)), st.integers(0, 3)
)
def test_no_run_of_adam_beats_adams_envelope(losses, rate):
    """Tuned Adam scores at most 1, whichever rate was chosen and by whatever."""
    losses[:, :, 0] = losses[:1, :, 0]  # One start.
    adam = make(losses, num_steps=600)
    final = scores.final_losses(adam, rate, "train").mean()
    assert scores.speedup(scores.envelope(adam), final, 600).value <= 1.0 + 1e-9


@hypothesis.given(
    hnp.arrays(np.float64, 9, elements=st.floats(1e-9, 1e3)),
    st.floats(1e-9, 1e3),
    st.floats(1e-9, 1e3),
)
def test_a_lower_loss_never_scores_less(curve, one, other):
    reference = scores.Envelope(np.arange(9.0), np.minimum.accumulate(curve))
    low, high = sorted((one, other))
    assert (
        scores.speedup(reference, low, 4).value >= scores.speedup(reference, high, 4).value - 1e-9
    )


def test_the_rate_is_chosen_by_validation_among_those_that_never_diverge():
    losses = np.ones((4, 2, 2, 3))
    losses[:, :, -1, 1] = [[3, 3], [2, 2], [0.5, np.inf], [2.5, 1.0]]
    losses[:, :, -1, 0] = [[0, 0], [9, 9], [0, 0], [9, 9]]  # Training losses say otherwise.
    chosen = make(losses)
    chosen.losses[2, 1, -1] = np.inf
    assert scores.best_rate(chosen) == 3
    assert scores.final_losses(chosen, 3, "valid").tolist() == [2.5, 1.0]
    everything = np.full((2, 2, 2, 3), np.inf)
    everything[1, 0] = 1.0
    assert scores.best_rate(make(everything)) == 1


# ------------------------------------------------------------------ over many tasks


@hypothesis.given(
    hnp.arrays(np.float64, st.integers(1, 8).map(lambda n: 4 * n), elements=st.floats(-1e6, 1e6))
)
def test_the_iqm_is_scipys_trimmed_mean(values):
    expected = scipy.stats.trim_mean(values, 0.25)
    np.testing.assert_allclose(aggregate.iqm(values), expected, rtol=1e-9, atol=1e-6)


@hypothesis.given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e3, 1e3)))
def test_the_iqm_is_the_mean_of_the_middle_half_for_any_number(values):
    """By brute force: every score four times, so that a quarter can be cut."""
    expected = np.sort(np.repeat(values, 4))[len(values) : 3 * len(values)].mean()
    np.testing.assert_allclose(aggregate.iqm(values), expected, rtol=1e-9, atol=1e-9)


def test_the_iqm_stands_infinite_outliers():
    assert aggregate.iqm(np.array([0.0, 1.0, 2.0, np.inf])) == 1.5


def test_the_bootstrap_is_the_plain_one():
    rng = np.random.default_rng(0)
    runs = [rng.lognormal(size=n) for n in (5, 3, 4, 5, 3, 5)]
    found = aggregate.bootstrap(runs, lambda task, values: float(values.mean()) + task)
    plain = []
    for _ in range(4000):
        drawn = [rng.choice(values, len(values)).mean() + i for i, values in enumerate(runs)]
        plain.append(aggregate.iqm(np.array(drawn)))
    low, high = np.quantile(plain, [0.025, 0.975])
    width = high - low
    assert found.value == aggregate.iqm(
        np.array([values.mean() + i for i, values in enumerate(runs)])
    )
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)
    again = aggregate.bootstrap(runs, lambda task, values: float(values.mean()) + task)
    assert again == found


def test_seeds_that_agree_leave_no_doubt():
    runs = [np.full(3, value) for value in (1.0, 2.0, 4.0)]
    found = aggregate.bootstrap(runs, lambda _, values: float(values.mean()))
    assert found.low == found.value == found.high


def test_a_profile_counts_tasks_at_or_above():
    found = aggregate.profile(np.array([0.0, 1.0, 1.0, 3.0]), np.array([0.0, 0.5, 1.0, 2.0, 9.0]))
    assert found.tolist() == [1.0, 0.75, 0.75, 0.25, 0.0]
