"""Scores of made-up curves, whose speed-ups, ratios, wins and rates are known by formula."""

import dataclasses
import math

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import strategies as st

from veldt.tasks.benchmark.runs import sweep as sweep_lib
from veldt.tasks.benchmark.runs.costs import Cost
from veldt.tasks.benchmark.scores import scoring
from veldt.tasks.common import errors

NUM_STEPS = 100
CHECKS = 10
HORIZON = 3
LONG = np.arange(HORIZON * CHECKS + 1) * (NUM_STEPS // CHECKS)
SHORT = LONG[: CHECKS + 1]
TAU = 40.0
RATES = (0.001, 0.01, 0.1)
FINE = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Adam's: every second inner one is a contestant's."""
WORST = 1.5


def normalizer(losses):
    losses = np.asarray(losses, np.float64)
    return np.where(np.isfinite(losses), np.minimum(losses, WORST), WORST)


def decays(taus, steps, *, seeds=(0, 1, 2), rates=RATES, luck=None, held_out=(1.0, 1.0)):
    """Exponential decays from 1, one time constant per rate.

    Args:
      taus: [L].
      steps: of the checks, [K].
      luck: factor on each seed's losses, [S].
      held_out: factors on the validation and the test loss.
    """
    curves = np.exp(-np.asarray(steps)[None, :] / np.asarray(taus, np.float64)[:, None])  # [L, K]
    luck = np.ones(len(seeds)) if luck is None else np.asarray(luck)
    losses = curves[:, None, :, None] * luck[:, None, None] * np.array([1.0, *held_out])
    return sweep_lib.Sweep(
        np.array(rates), np.array(seeds), np.asarray(steps), losses.astype(np.float32), 0.0, 0.0
    )


def adam(taus=(80, TAU, 60, 60, 60, 60, 60), *, seeds=(0, 1, 2, 3, 4), luck=None):
    """Adam's long sweep; its best rate is also a contestant's."""
    return decays(taus, LONG, seeds=seeds, rates=FINE, luck=luck)


def reference(task="one", sweep=None):
    return scoring.Reference(task, NUM_STEPS, adam() if sweep is None else sweep, normalizer)


def entry(sweeps, costs=None, name="it"):
    return scoring.Entry(name, "constant", "run", sweeps, costs or {})


def score(sweeps, references=None, costs=None):
    references = [reference(task) for task in sweeps] if references is None else references
    (row,) = scoring.compare(references, [entry(sweeps, costs)])
    return row


def decay(tau, num_steps=NUM_STEPS):
    return math.exp(-num_steps / tau)


def assert_interval(found, value, low=None, high=None, rel=1e-5):
    assert found.value == pytest.approx(value, rel=rel)
    assert found.low == pytest.approx(value if low is None else low, rel=rel)
    assert found.high == pytest.approx(value if high is None else high, rel=rel)


# ------------------------------------------------------------------ one task


@pytest.mark.parametrize("slower", [0.5, 1.0, 1.25, 3.0])
def test_a_curve_that_decays_more_slowly_has_a_lower_speed_in_proportion(slower):
    row = score({"one": decays([200, slower * TAU, 190], SHORT)})
    (task,) = row.tasks
    assert task.rate == task.valid_rate == 0.01
    assert not task.capped
    assert not task.failed
    assert not task.at_edge
    assert task.speedup == pytest.approx(1 / slower, rel=1e-4)
    assert_interval(row.speedup, 1 / slower, rel=1e-4)
    ratio = decay(slower * TAU) / decay(TAU)
    assert task.train_loss == pytest.approx(decay(slower * TAU), rel=1e-5)
    assert task.test == pytest.approx(decay(slower * TAU), rel=1e-5)
    assert task.train_ratio == pytest.approx(ratio, rel=1e-5)
    assert_interval(row.train_ratio, ratio)
    assert_interval(row.test_ratio, ratio)
    assert task.curve == pytest.approx(np.exp(-SHORT / (slower * TAU)), abs=2e-6)
    assert (row.diverged, row.num_capped, row.num_at_edge, row.num_failed) == (0, 0, 0, 0)


def test_a_speed_up_beyond_adams_curves_is_cut_off_there():
    row = score({"one": decays([200, TAU / 4, 200], SHORT)})
    assert row.tasks[0].capped
    assert row.tasks[0].speedup == HORIZON
    assert row.num_capped == 1


def test_speed_is_measured_by_adams_envelope_and_losses_by_its_contest():
    """A rate that only the fine grid has makes Adam faster, not its final losses lower."""
    fine = adam((80, TAU, TAU / 2, 60, 60, 60, 60))
    row = score({"one": decays([200, TAU, 200], SHORT)}, [reference(sweep=fine)])
    assert row.tasks[0].speedup == pytest.approx(0.5, rel=1e-4)
    assert row.tasks[0].train_ratio == pytest.approx(1.0)


def test_training_and_held_out_losses_each_choose_their_rate():
    losses = decays([TAU, TAU, TAU], SHORT)
    losses.losses[:, :, -1] = [[[0.1, 0.5, 0.7]], [[0.2, 0.4, 0.9]], [[0.3, 0.6, 0.01]]]
    (task,) = score({"one": losses}).tasks
    assert (task.rate, task.valid_rate) == (RATES[0], RATES[1])
    assert (task.train_loss, task.test_loss) == pytest.approx((0.1, 0.9))
    assert task.at_edge
    assert task.train_ratio == pytest.approx(0.1 / decay(TAU), rel=1e-5)
    assert task.test_ratio == pytest.approx(0.9 / decay(TAU), rel=1e-5)


def test_held_out_losses_that_were_not_taken_change_nothing():
    """Sweeps have them at the end alone; Adam's also at the end of a contestant's steps."""
    luck = [0.5, 1.0, 2.0, 1.0, 3.0]
    ours = decays([60, 50, 70], SHORT, luck=[1.0, 1.2, 0.7], held_out=(1.1, 1.3))
    plain = score({"one": ours}, [reference(sweep=adam(luck=luck))])
    ours, theirs = decays([60, 50, 70], SHORT, luck=[1.0, 1.2, 0.7], held_out=(1.1, 1.3)), adam()
    theirs = adam(luck=luck)
    ours.losses[:, :, :-1, 1:] = np.nan
    taken = np.zeros(len(LONG), bool)
    taken[CHECKS::CHECKS] = True
    theirs.losses[:, :, ~taken, 1:] = np.nan
    assert score({"one": ours}, [reference(sweep=theirs)]) == plain


def test_one_diverged_run_costs_its_rate_and_is_counted():
    ours = decays([300, TAU, 2 * TAU], SHORT)
    ours.losses[1, 2, 4:] = np.inf
    row = score({"one": ours})
    assert row.tasks[0].rate == RATES[2]
    assert row.tasks[0].speedup == pytest.approx(0.5, rel=1e-4)
    assert row.tasks[0].diverged == row.diverged == pytest.approx(1 / 9)


def test_what_never_gets_below_the_start_has_no_speed():
    row = score({"one": decays([-500, -400, -300], SHORT)})
    assert row.tasks[0].speedup == 0.0
    assert_interval(row.speedup, 0.0)


# ------------------------------------------------------------------ over tasks


def test_over_tasks_it_is_the_interquartile_mean_of_logarithms_for_ratios():
    slower = dict(zip("abcd", [0.8, 1.25, 2.0, 4.0], strict=True))
    row = score({task: decays([400, by * TAU, 400], SHORT) for task, by in slower.items()})
    assert [task.task for task in row.tasks] == list("abcd")
    assert_interval(row.speedup, (1 / 1.25 + 1 / 2.0) / 2, rel=1e-4)
    middle = [decay(by * TAU) / decay(TAU) for by in (1.25, 2.0)]
    assert_interval(row.train_ratio, math.sqrt(middle[0] * middle[1]))
    assert_interval(row.test_ratio, math.sqrt(middle[0] * middle[1]))


def test_wins_are_lower_test_losses_and_a_draw_is_half_a_one():
    row = score(
        {
            "won": decays([400, 0.9 * TAU, 400], SHORT),
            "drawn": decays([400, TAU, 400], SHORT),
            "lost": decays([400, 1.1 * TAU, 400], SHORT),
            "won by far": decays([400, 0.5 * TAU, 400], SHORT),
        }
    )
    assert row.won == pytest.approx(2.5 / 4)


def test_the_one_rate_for_all_tasks_is_that_of_the_lowest_mean_logarithm():
    """Not that of the lowest mean, which is rate 2's."""

    def ending(*ends):
        sweep = decays([1e9] * 3, SHORT)
        sweep.losses[:, :, -1] = np.array(ends)[:, None, None]
        return sweep

    sweeps = {"one": ending(0.02, 0.5, 0.4), "two": ending(0.8, 0.5, 0.2)}
    row = score(sweeps)
    assert [task.rate for task in row.tasks] == [RATES[0], RATES[2]]
    assert row.untuned_rate == RATES[0]  # 0.02 * 0.8 < 0.4 * 0.2 < 0.5 * 0.5.
    speedups = [math.log(1 / end) * TAU / NUM_STEPS for end in (0.02, 0.8)]
    # Adam's envelope decays with TAU; a speed-up is the step with that loss.
    assert [task.untuned_speedup for task in row.tasks] == pytest.approx(speedups, rel=1e-4)
    assert_interval(row.untuned_speedup, sum(speedups) / 2, rel=1e-4)
    ratios = [end / decay(TAU) for end in (0.02, 0.8)]
    assert [task.untuned_test_ratio for task in row.tasks] == pytest.approx(ratios, rel=1e-4)
    assert_interval(row.untuned_test_ratio, math.sqrt(ratios[0] * ratios[1]), rel=1e-4)


def test_adam_too_has_one_rate_for_all_tasks():
    """Its best rates differ; the one at 0.01 is the better compromise."""
    first, second = (80, 30, 80, 40, 80, 90, 80), (80, 90, 80, 40, 80, 30, 80)
    references = [reference("one", adam(first)), reference("two", adam(second))]
    same = decays([TAU] * 3, SHORT)
    row = score({"one": same, "two": same}, references)
    for task in row.tasks:
        assert task.untuned_test_ratio == pytest.approx(1.0, rel=1e-5)
        assert task.test_ratio == pytest.approx(decay(40) / decay(30), rel=1e-5)
    assert (row.won, row.won_untuned) == (0.0, 0.5)


def test_a_failed_task_counts_as_diverged():
    row = score({"fine": decays([400, TAU, 400], SHORT)}, [reference("failed"), reference("fine")])
    failed, fine = row.tasks
    assert (failed.task, failed.failed, fine.failed) == ("failed", True, False)
    assert (failed.speedup, failed.diverged, failed.capped) == (0.0, 1.0, False)
    assert failed.train == failed.test == WORST
    assert failed.test_loss == math.inf
    assert failed.test_ratio == pytest.approx(WORST / decay(TAU), rel=1e-5)
    assert (row.num_failed, row.diverged, row.won) == (1, 0.5, 0.25)
    assert row.speedup.value == pytest.approx(0.5)


def test_what_fails_everywhere_has_a_row_too():
    row = score({}, [reference("one"), reference("two")])
    assert (row.num_failed, row.diverged, row.won, row.speedup.value) == (2, 1.0, 0.0, 0.0)
    assert row.step_ratio is None


def test_costs_are_averaged_over_the_tasks_measured():
    sweeps = {task: decays([400, TAU, 400], SHORT) for task in "abc"}
    row = score(sweeps, costs={"a": Cost(0.5, 4.0), "c": Cost(4.0, 8.0)})
    assert row.step_ratio == pytest.approx(math.sqrt(2.0))
    assert row.state_bytes == 6.0
    assert [task.step_ratio for task in row.tasks] == [0.5, None, 4.0]
    assert (score(sweeps).step_ratio, score(sweeps).state_bytes) == (None, None)


def test_rows_come_in_the_order_of_the_entries():
    fast, slow = decays([400, TAU, 400], SHORT), decays([400, 2 * TAU, 400], SHORT)
    entries = [entry({"one": slow}, name="slow"), entry({"one": fast}, name="fast")]
    rows = scoring.compare([reference()], entries)
    assert [row.name for row in rows] == ["slow", "fast"]
    assert rows[0].speedup.value < rows[1].speedup.value


# ------------------------------------------------------------------ seeds


LUCK = (1.0, 1.5, 0.6, 4.0, 0.1)


def test_seeds_that_agree_leave_no_doubt():
    row = score({task: decays([400, by * TAU, 400], SHORT) for task, by in [("a", 2), ("b", 3)]})
    for found in (row.speedup, row.train_ratio, row.test_ratio, row.untuned_test_ratio):
        assert found.low == pytest.approx(found.value, rel=1e-12)
        assert found.high == pytest.approx(found.value, rel=1e-12)


def test_seeds_that_differ_leave_some_and_the_value_lies_inside():
    slower = [0.7, 1.1, 1.5, 2.0, 2.5]
    row = score(
        {
            f"task {by}": decays([400, by * TAU, 400], SHORT, seeds=(7, 8, 9), luck=(0.7, 1, 1.4))
            for by in slower
        }
    )
    for found in (row.speedup, row.train_ratio, row.test_ratio, row.untuned_speedup):
        assert found.low < found.value < found.high


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (4, 3, 0)])
def test_with_the_same_seeds_luck_is_shared_in_any_order(order):
    """The candidate is Adam, to the seed: no draw of seeds can tell them apart."""
    theirs = adam(luck=LUCK)
    luck = [LUCK[seed] for seed in order]
    ours = decays([400, TAU, 400], SHORT, seeds=order, luck=luck)
    row = score({"one": ours}, [reference(sweep=theirs)])
    assert_interval(row.train_ratio, 1.0, rel=1e-6)
    assert_interval(row.test_ratio, 1.0, rel=1e-6)
    assert_interval(row.speedup, 1.0)


def test_with_other_seeds_luck_is_the_candidates_and_adam_is_the_mean_of_all_its_seeds():
    ours = decays([400, TAU, 400], SHORT, seeds=(0, 1, 99), luck=LUCK[:3])
    row = score({"one": ours}, [reference(sweep=adam(luck=LUCK))])
    mean = np.mean(LUCK)
    value = np.mean(LUCK[:3]) / mean
    # The luckiest and the unluckiest of the 27 draws have 1/27 each, more than 2.5%.
    assert_interval(row.train_ratio, value, low=0.6 / mean, high=1.5 / mean)
    # Adam's mean curve is mean * exp(-step / TAU), and it starts there too.
    assert row.speedup.value == pytest.approx(
        (NUM_STEPS + TAU * math.log(mean / np.mean(LUCK[:3]))) / NUM_STEPS, rel=1e-4
    )


# ------------------------------------------------------------------ Adam beside itself


def settled(losses):
    """Finite at the start, and infinite from where a run has diverged."""
    losses[:, :, 0] = np.where(np.isfinite(losses[:, :, 0]), losses[:, :, 0], 1.0)
    lost = np.logical_or.accumulate(~np.isfinite(losses).all(-1), axis=-1)
    return np.where(lost[..., None], np.float32(np.inf), losses)


CURVES = hnp.arrays(
    np.float32,
    (5, 4, 5, 3),
    elements=st.one_of(
        # Values that meet again and again make curves stand still.
        st.sampled_from(np.float32([0.1, 0.3, 1.0, np.inf]).tolist()),
        st.floats(2**-20, 2**10, width=32),
    ),
    fill=st.nothing(),
)


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    st.lists(CURVES, min_size=1, max_size=2), st.permutations(range(4)), st.integers(1, 4)
)
def test_adam_beside_itself_is_no_faster_and_no_better_than_it_is(curves, seeds, num_seeds):
    steps = np.arange(5) * 10
    long = [
        sweep_lib.Sweep(np.array(FINE[:5]), np.arange(4), steps, settled(losses), 0.0, 0.0)
        for losses in curves
    ]
    references = [scoring.Reference(str(i), 20, sweep, normalizer) for i, sweep in enumerate(long)]
    seeds = np.array(seeds[:num_seeds])
    sweeps = {}
    for i, sweep in enumerate(long):
        contest = scoring.contestant(sweep, 20)
        sweeps[str(i)] = dataclasses.replace(contest, seeds=seeds, losses=contest.losses[:, seeds])
    row = score(sweeps, references)
    assert all(task.speedup <= 1.0 + 1e-9 for task in row.tasks)
    assert row.speedup.high <= 1.0 + 1e-9
    for interval in (row.train_ratio, row.test_ratio, row.untuned_test_ratio):
        assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    assert row.won == row.won_untuned == 0.5
    assert not any(task.capped for task in row.tasks)


def test_a_contestant_has_every_second_rate_and_the_first_part_of_the_curve():
    long = adam()
    cut = scoring.contestant(long, NUM_STEPS)
    assert cut.rates.tolist() == [FINE[1], FINE[3], FINE[5]] == list(RATES)
    assert cut.steps.tolist() == SHORT.tolist()
    np.testing.assert_array_equal(cut.losses, long.losses[[1, 3, 5], :, : CHECKS + 1])


# ------------------------------------------------------------------ what it was selected on


def test_a_task_that_a_rule_was_selected_on_counts_in_no_mean():
    sweeps = {
        "known": decays((TAU / 4, TAU / 4, TAU / 4), SHORT),  # Far faster than Adam.
        "new": decays((2 * TAU,) * 3, SHORT),
    }
    references = [reference(task) for task in sweeps]
    honest = dataclasses.replace(entry(sweeps), selected_on=frozenset({"known"}))
    (row,) = scoring.compare(references, [honest])
    (alone,) = scoring.compare(references[1:], [entry({"new": sweeps["new"]})])
    for name in ("speedup", "train_ratio", "test_ratio", "untuned_speedup", "won", "num_capped"):
        assert getattr(row, name) == getattr(alone, name)
    assert row.num_selected == 1
    assert [(task.task, task.selected) for task in row.tasks] == [("known", True), ("new", False)]
    assert row.tasks[0].capped  # It is still shown, task by task.
    (fooled,) = scoring.compare(references, [entry(sweeps)])
    assert fooled.speedup.value > row.speedup.value


def test_a_rule_that_was_selected_on_everything_cannot_be_scored():
    sweeps = {"known": decays((TAU,) * 3, SHORT)}
    known = dataclasses.replace(entry(sweeps), selected_on=frozenset({"known", "other"}))
    with pytest.raises(errors.TaskError, match="it was selected on every task"):
        scoring.compare([reference("known")], [known])
