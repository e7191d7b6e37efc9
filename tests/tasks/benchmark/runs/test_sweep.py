"""Sweeps: the same runs as one at a time, settled where they diverge, and scored against Adam."""

import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import strategies as st
from optax import contrib

from veldt.tasks import base, registry
from veldt.tasks.benchmark.runs import cache
from veldt.tasks.benchmark.runs import sweep as sweep_lib
from veldt.tasks.benchmark.scores import aggregate, speedup
from veldt.tasks.inner_loop import train, unroll


def make(losses, *, num_steps=100, rates=None):
    """A sweep with these losses, [L, S, K, 3] or [L, S, K] for all three splits alike."""
    losses = np.asarray(losses, np.float32)
    if losses.ndim == 3:
        losses = np.repeat(losses[..., None], 3, axis=-1)
    steps = np.linspace(0, num_steps, losses.shape[2]).astype(np.int64)
    rates = np.ones(losses.shape[0]) if rates is None else np.asarray(rates)
    return sweep_lib.Sweep(rates, np.arange(losses.shape[1]), steps, losses, 0.0, 0.0)


class Slope(base.Task):
    """A small bowl that compiles quickly; its minimum is elsewhere on every split."""

    name = "slope"

    def __init__(self):
        self.steepness = jnp.array([1.0, 0.3, 0.1])

    def init(self, key):
        return jax.random.uniform(key, (3,), minval=1.0, maxval=2.0)

    def loss(self, params, key, batch):
        return jnp.sum(self.steepness * jnp.square(params - batch)), {}

    def train_batch(self, key):
        return 0.1 * jax.random.uniform(key, (3,))

    def eval_batch(self, split):
        return jnp.full(3, {"train": 0.0, "valid": 0.1, "test": 0.2}[split])

    def normalizer(self, loss):
        return base.clip_normalized(loss)


# ------------------------------------------------------------------ sweeping


def test_hollow_runs_are_marked_and_their_losses_do_not_count(tmp_path):
    task = registry.load_task("digits_mlp")

    def add(updates, state, params=None):
        return jax.tree.map(lambda update: update - state, updates), state

    def make_tx(rate, num_steps):
        push = optax.GradientTransformation(lambda params: 1e9 * (rate > 0.5), add)
        return optax.chain(optax.sign_sgd(rate), push)

    (found,) = sweep_lib.sweep(task, make_tx, [1e-2, 1.0], [0, 1], num_steps=4, num_checks=2)
    assert found.hollow.tolist() == [[False, False], [True, True]]
    assert np.isinf(found.losses[1, :, -1]).all() and np.isfinite(found.losses[0, :, -1]).all()
    assert found.lost.tolist() == found.hollow.tolist() and not found.diverged.any()
    assert speedup.best_rate(found, "train") == speedup.best_rate(found, "valid") == 0
    part = found.take(rates=slice(1, None), seeds=[1])
    assert part.hollow.tolist() == [[True]] and part.losses.shape == (1, 1, 3, 3)
    assert not found.until(2).hollow_runs.any() and found.until(4) is found
    with (tmp_path / "sweep.npz").open("wb") as handle:
        cache.write_sweeps(handle, [found])
    (back,) = cache.read_sweeps(tmp_path / "sweep.npz")
    assert back.hollow.tolist() == found.hollow.tolist()


def test_sweeps_of_older_versions_have_no_hollow_runs(tmp_path):
    with (tmp_path / "sweep.npz").open("wb") as handle:
        cache.write_sweeps(handle, [make(np.ones((2, 3, 4)))])
    (back,) = cache.read_sweeps(tmp_path / "sweep.npz")
    assert back.hollow is None and back.hollow_runs.shape == (2, 3)


def optax_schedule(name, rate, num_steps):
    """The benchmark's schedules, as one would write them with Optax."""
    warmup = round(0.05 * num_steps)
    match name:
        case "constant":
            return rate
        case "warmup_cosine":
            return optax.warmup_cosine_decay_schedule(rate / warmup, rate, warmup, num_steps)
        case "warmup_linear":
            rise = optax.linear_schedule(rate / warmup, rate, warmup)
            fall = optax.linear_schedule(rate, 0.0, num_steps - warmup)
            return optax.join_schedules([rise, fall], [warmup])


NAMES = ("warmup_linear", "constant", "warmup_cosine")
SEEDS = (0, 7, 11)


def test_sweeps_are_their_runs_one_by_one_in_numpy():
    """Gradient descent by hand, on the batches that `unroll` says it takes."""
    rates, num_steps, steepness = (0.05, 0.4), 40, np.array([1.0, 0.3, 0.1])

    def sweep(names):
        return sweep_lib.sweep(
            Slope(),
            lambda rate, _: optax.sgd(rate),
            rates,
            SEEDS,
            num_steps=num_steps,
            num_checks=4,
            held_out_every=2,
            schedules=names,
        )

    found = sweep(NAMES)
    draw = jax.jit(lambda key: Slope().train_batch(key))
    expected = np.empty((3, 2, 3, 5, 3))
    for k, seed in enumerate(SEEDS):
        key = jax.random.key(seed)
        key_batch = jax.random.fold_in(key, unroll._BATCH)
        batches = [np.asarray(draw(jax.random.fold_in(key_batch, t))) for t in range(num_steps)]
        start = np.asarray(unroll.init(Slope(), optax.sgd(1.0), key).params, np.float64)
        for i, name in enumerate(NAMES):
            for j, rate in enumerate(rates):
                schedule = optax_schedule(name, rate, num_steps)
                params = start.copy()
                for t in range(num_steps + 1):
                    if t % 10 == 0:
                        offsets = params - np.array([[0.0], [0.1], [0.2]])  # By split.
                        expected[i, j, k, t // 10] = offsets**2 @ steepness
                    if t < num_steps:
                        now = schedule(t) if callable(schedule) else schedule
                        params -= float(now) * 2 * steepness * (params - batches[t])
    # Held-out losses are taken at every second check, the start left out.
    expected[..., [0, 1, 3], 1:] = np.nan
    for one, losses in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.losses, losses, rtol=1e-4)
        assert one.losses.dtype == np.float32
        assert one.steps.tolist() == [0, 10, 20, 30, 40]
        assert (one.rates.tolist(), one.seeds.tolist()) == (list(rates), list(SEEDS))
        assert not one.diverged.any()
    # Nothing would pass for something else.
    finals = expected[..., -1, 0]
    assert np.diff(np.sort(finals.ravel())).min() > 1e-3 * finals.min()
    # Alone, the constant schedule is the rate as a plain number.
    (alone,) = sweep(("constant",))
    np.testing.assert_allclose(alone.losses, found[1].losses, rtol=1e-5)


@pytest.mark.slow
def test_sweeps_are_their_runs_one_by_one_of_the_trainer():
    task = registry.load_task("breast_cancer_logistic")
    rates = (1e-2, 1e-1)
    found = sweep_lib.sweep(
        task,
        lambda rate, _: optax.adam(rate),
        rates,
        SEEDS,
        num_steps=40,
        num_checks=4,
        held_out_every=2,
        schedules=NAMES,
    )
    for name, i, one in zip(NAMES, [1, 0, 1], found, strict=True):
        tx = optax.adam(optax_schedule(name, rates[i], 40))
        for j, seed in enumerate(SEEDS):
            curve = train.train(task, tx, 40, seed, eval_every=20)
            np.testing.assert_allclose(one.losses[i, j, 2::2, 1], curve.valid_losses[1:], rtol=5e-5)
            for split, loss in zip(sweep_lib.SPLITS, one.losses[i, j, -1], strict=True):
                expected, _ = task.loss(curve.params, jax.random.key(0), task.eval_batch(split))
                np.testing.assert_allclose(loss, expected, rtol=5e-5)
        # The start depends neither on the rate nor on the schedule; the splits are three.
        np.testing.assert_array_equal(one.losses[:, :, 0], found[0].losses[[0, 0], :, 0])
        assert len(np.unique(one.losses[0, 0, -1])) == 3
    finals = np.stack([one.losses[..., -1, 1] for one in found])
    assert len(np.unique(finals)) == finals.size


@pytest.mark.parametrize("chained", [False, True])
def test_schedule_free_is_judged_at_its_average(chained):
    """As a plain loop does it, by Optax's own function for it."""
    task = Slope()

    def make_tx(rate, _):
        tx = contrib.schedule_free_adamw(rate)
        return optax.chain(optax.clip_by_global_norm(1.0), tx) if chained else tx

    def losses_at(params):
        offsets = np.asarray(params) - np.array([[0.0], [0.1], [0.2]])  # By split.
        return (offsets**2) @ np.array([1.0, 0.3, 0.1])

    (found,) = sweep_lib.sweep(
        task, make_tx, [0.3], [5], num_steps=12, num_checks=3, held_out_every=1
    )
    tx = make_tx(0.3, 12)
    step = jax.jit(lambda task, state: unroll.step_fn(task, tx, state)[0])
    state = unroll.init(task, tx, jax.random.key(5))
    average, at_hand = [], []
    for i in range(13):
        if i % 4 == 0:
            free = state.opt_state[1] if chained else state.opt_state
            params = contrib.schedule_free_eval_params(free, state.params)
            average.append(losses_at(params))
            at_hand.append(losses_at(state.params))
        state = step(task, state)
    average, at_hand = np.array(average), np.array(at_hand)
    np.testing.assert_allclose(found.losses[0, 0, :, 0], average[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found.losses[0, 0, 1:], average[1:], rtol=1e-4)
    # It would be seen if those at hand had been taken.
    assert (np.abs(at_hand / average - 1)[1:] > 1e-2).all()


def test_other_optimizers_are_judged_at_their_parameters():
    params = {"w": jnp.ones(3), "b": jnp.zeros(())}
    for tx in (optax.adam(0.1), optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9))):
        assert sweep_lib.eval_params(tx.init(params), params) is params
    # An average of only some of the parameters cannot stand for them all.
    of_some = contrib.schedule_free_adamw(0.1).init({"w": jnp.ones(3)})
    assert sweep_lib.eval_params((of_some,), params) is params


def test_a_run_that_diverges_is_infinite_from_there_on_and_the_others_go_on():
    lengths = []

    def make_tx(rate, num_steps):
        lengths.append(num_steps)
        return optax.sgd(rate)

    (found,) = sweep_lib.sweep(Slope(), make_tx, [1e-3, 1e20], [0, 1], num_steps=20, num_checks=5)
    assert set(lengths) == {20}  # The optimizer knows how long it has.
    assert found.diverged.tolist() == [[False, False], [True, True]]
    # By default held-out losses are taken at the end alone.
    assert np.isfinite(found.losses[0, :, :, 0]).all()
    assert np.isfinite(found.losses[0, :, -1]).all()
    assert np.isnan(found.losses[:, :, :-1, 1:]).all()
    assert np.isfinite(found.losses[1, :, 0, 0]).all()
    assert np.isinf(found.losses[1, :, -1]).all()


def test_a_run_that_comes_back_from_infinity_stays_infinite():
    """Parameters are thrown to infinity for one stretch of the run and set right after it."""
    task = Slope()

    def make_tx(rate, _):
        def update(grads, step, params):
            del grads
            far = rate * jnp.where((step >= 4) & (step < 8), 1e30, 1.0)
            return far - params, step + 1

        return optax.GradientTransformation(lambda _: jnp.zeros((), jnp.int32), update)

    (found,) = sweep_lib.sweep(
        task, make_tx, [0.1, 1.0], [0], num_steps=16, num_checks=4, held_out_every=2
    )
    finite = [True, True, False, False, False]
    assert np.isfinite(found.losses[:, 0, :, 0]).tolist() == [finite] * 2
    for split in (1, 2):
        assert np.isposinf(found.losses[:, 0, 2::2, split]).all()
        assert np.isnan(found.losses[:, 0, [0, 1, 3], split]).all()
    assert found.diverged.all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_checks": 3}, "positive multiple"),
        ({"num_steps": 0}, "positive multiple"),
        ({"num_checks": 0}, "positive multiple"),
        ({"held_out_every": 2}, "must divide"),
        ({"held_out_every": 0}, "must divide"),
        ({"rates": []}, "at least one"),
        ({"seeds": []}, "at least one"),
        ({"schedules": []}, "at least one"),
    ],
)
def test_what_does_not_fit_is_refused(changes, text):
    fits = {"rates": [1.0], "seeds": [0], "num_steps": 10, "num_checks": 5}
    with pytest.raises(ValueError, match=text):
        sweep_lib.sweep(Slope(), lambda rate, _: optax.sgd(rate), **{**fits, **changes})


@hypothesis.given(st.integers(1, 50), st.integers(1, 50))
def test_checks_are_evenly_spread_from_the_start_to_the_end(num_checks, length):
    steps = sweep_lib.check_steps(num_checks * length, num_checks)
    assert steps == tuple(length * i for i in range(num_checks + 1))


# ------------------------------------------------------------------ the envelope and speed-ups


def test_on_an_exponential_the_step_is_found_exactly():
    steps = np.linspace(0, 3000, 31)
    reference = speedup.Envelope(steps, np.exp(-steps / 400))
    for step in (1.0, 99.0, 100.0, 1234.5, 2999.0):
        assert speedup.steps_to_reach(reference, np.exp(-step / 400)) == pytest.approx(step)
    assert speedup.speedup(reference, float(np.exp(-1500 / 400)), 1000).value == pytest.approx(1.5)


def test_the_edges_of_a_speed_up():
    reference = speedup.Envelope(np.array([0.0, 100.0, 300.0]), np.array([4.0, 2.0, 1.0]))
    assert speedup.speedup(reference, float("inf"), 100) == speedup.Speedup(0.0, False)
    assert speedup.speedup(reference, float("nan"), 100) == speedup.Speedup(0.0, False)
    assert speedup.speedup(reference, 5.0, 100) == speedup.Speedup(0.0, False)
    assert speedup.speedup(reference, 4.0, 100) == speedup.Speedup(0.0, False)
    assert speedup.speedup(reference, 2.0, 100) == speedup.Speedup(1.0, False)
    assert speedup.speedup(reference, 1.0, 100) == speedup.Speedup(3.0, False)
    assert speedup.speedup(reference, 0.5, 100) == speedup.Speedup(3.0, True)


def test_the_envelope_is_the_best_rate_at_every_step_and_never_rises():
    adam = make(
        [
            [[8, 4, 3, 3], [8, 2, 3, 3]],  # fast, then stuck: means 8, 3, 3, 3
            [[8, 6, 4, 1], [8, 6, 4, 1]],  # slow and steady
            [[8, 1, np.inf, np.inf], [8, 1, 1, 1]],  # diverges with one seed
        ]
    )
    assert speedup.envelope(adam).losses.tolist() == [8, 1, 1, 1]
    assert speedup.envelope(make(adam.losses[:2])).losses.tolist() == [8, 3, 3, 1]


def test_the_envelope_of_some_seeds_is_theirs_alone():
    adam = make([[[8, 4, 2], [6, 2, 1], [4, 3, 3]]])
    assert speedup.envelope(adam).losses.tolist() == [6, 3, 2]
    assert speedup.envelope(adam, seeds=np.array([1])).losses.tolist() == [6, 2, 1]
    assert speedup.envelope(adam, seeds=np.array([0, 0, 0, 1])).losses.tolist() == [7.5, 3.5, 1.75]
    assert speedup.envelope(adam, seeds=None).horizon == 100


def test_without_a_finite_start_there_is_no_envelope():
    with pytest.raises(ValueError, match="no envelope"):
        speedup.envelope(make(np.full((2, 2, 3), np.inf)))


@hypothesis.given(
    hnp.arrays(np.float64, (4, 3, 7), elements=st.floats(1e-6, 1e6)), st.integers(0, 3)
)
def test_no_run_of_adam_beats_adams_envelope(losses, rate):
    """Tuned Adam scores at most 1, whichever rate was chosen and by whatever."""
    losses[:, :, 0] = losses[:1, :, 0]  # One start.
    adam = make(losses, num_steps=600)
    final = speedup.final_losses(adam, rate, "train").mean()
    assert speedup.speedup(speedup.envelope(adam), final, 600).value <= 1.0 + 1e-9


@hypothesis.given(
    hnp.arrays(np.float64, 9, elements=st.floats(1e-9, 1e3)),
    st.floats(1e-9, 1e3),
    st.floats(1e-9, 1e3),
)
def test_a_lower_loss_never_scores_less(curve, one, other):
    reference = speedup.Envelope(np.arange(9.0), np.minimum.accumulate(curve))
    low, high = sorted((one, other))
    assert (
        speedup.speedup(reference, low, 4).value >= speedup.speedup(reference, high, 4).value - 1e-9
    )


def test_the_rate_is_chosen_by_the_split_asked_for_among_those_that_never_diverge():
    losses = np.ones((4, 2, 2, 3))
    losses[:, :, -1, 1] = [[3, 3], [2, 2], [0.5, np.inf], [2.5, 1.0]]
    losses[:, :, -1, 0] = [[0, 0.5], [9, 9], [0, 0], [9, 9]]  # Training losses say otherwise.
    chosen = make(losses)
    chosen.losses[2, 1, -1] = np.inf
    assert speedup.best_rate(chosen, "valid") == 3
    assert speedup.best_rate(chosen, "train") == 0
    assert speedup.final_losses(chosen, 3, "valid").tolist() == [2.5, 1.0]


def test_where_every_rate_diverges_the_one_that_does_so_least_is_chosen():
    everything = np.full((3, 3, 2, 3), np.inf)
    everything[:, :, 0] = 1.0
    everything[0, 0] = 0.1
    everything[1, :2] = 5.0
    everything[2, 1:] = 4.0
    for split in sweep_lib.SPLITS:
        assert speedup.best_rate(make(everything), split) == 2


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


def test_the_bootstrap_over_tasks_too_is_the_plain_one():
    """Tasks that are nearly the same, one apart: most of the spread is which tasks were drawn."""
    runs = [np.array([0.0, 0.1]) + task for task in (0, 1, 2, 3, 7)]
    found = aggregate.bootstrap(runs, lambda _, values: float(values.mean()), draw_tasks=True)
    rng = np.random.default_rng(1)
    drawn = [
        aggregate.iqm(np.array([rng.choice(runs[task], 2).mean() for task in tasks]))
        for tasks in rng.integers(5, size=(20000, 5))
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15)
    fixed = aggregate.bootstrap(runs, lambda _, values: float(values.mean()))
    assert found.value == fixed.value
    assert found.low < fixed.low < fixed.high < found.high


def test_seeds_that_agree_leave_no_doubt():
    runs = [np.full(3, value) for value in (1.0, 2.0, 4.0)]
    found = aggregate.bootstrap(runs, lambda _, values: float(values.mean()))
    assert found.low == found.value == found.high


def test_a_profile_counts_tasks_at_or_above():
    found = aggregate.profile(np.array([0.0, 1.0, 1.0, 3.0]), np.array([0.0, 0.5, 1.0, 2.0, 9.0]))
    assert found.tolist() == [1.0, 0.75, 0.75, 0.25, 0.0]
