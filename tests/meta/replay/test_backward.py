"""Metagradients against `jax.grad` through a plain scan, finite differences, and each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.replay import trainings
from veldt.meta import errors
from veldt.meta.replay import backward, plans, programs, states, storage, task_training

NUM_STEPS = 20
PLANS = (
    plans.store_all(NUM_STEPS),
    plans.square_root(NUM_STEPS),
    plans.binomial(NUM_STEPS, 1, 3),
    plans.binomial(NUM_STEPS, 3, 2),
    plans.kary(NUM_STEPS, 3),
)


def metagradient(run, z, plan, store=None):
    store = storage.DeviceStorage() if store is None else store
    walked = backward.backward(run, z, plan, store)
    assert walked.cost.forward_steps == plan.forward_steps
    assert walked.cost.reverse_steps == plan.num_steps
    assert store.steps == ()
    return walked


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def through_scan(run, z):
    """Jitted with the training as an argument, as the programs are."""
    num_steps = run.num_steps
    outcome = jax.jit(jax.value_and_grad(lambda z, run: trainings.outcome(run, z, num_steps)))
    return outcome(z, run)


def all_alike(run, z, plans):
    walked = [metagradient(run, z, plan) for plan in plans]
    for each in walked[1:]:
        assert each.outcome == walked[0].outcome
        np.testing.assert_array_equal(flat(each.meta_grad), flat(walked[0].meta_grad))
    return walked[0]


def test_every_plan_gives_the_same_bits():
    run, z = trainings.Map(NUM_STEPS), trainings.Map.point()
    walked = all_alike(run, z, PLANS)
    np.testing.assert_allclose(flat(walked.meta_grad), flat(through_scan(run, z)[1]), rtol=1e-4)


@pytest.mark.slow
def test_every_plan_gives_the_same_bits_through_adam():
    all_alike(trainings.curve("adam", NUM_STEPS), trainings.meta_params("adam"), PLANS)


# The slow ones compile for some seconds each, and find what the others find.
@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("sgd", "momentum", "lion", "program")),
        "adam",
    ],
)
def test_it_is_jax_grad_of_a_scan_in_64_bits(name, x64):
    with x64():
        run = trainings.Fit(NUM_STEPS, name)
        z = trainings.meta_params(name, jnp.float64)
        outcome, grad = through_scan(run, z)
        walked = metagradient(run, z, plans.binomial(NUM_STEPS, 3, 2))
        assert walked.outcome == pytest.approx(float(outcome), rel=1e-12)
        np.testing.assert_allclose(flat(walked.meta_grad), flat(grad), rtol=1e-9)
        assert np.all(flat(grad)[-1:] != 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", trainings.LEARNED)
def test_it_is_jax_grad_of_a_scan_for_learned_optimizers(name, x64):
    with x64():
        run = trainings.Fit(6, name)
        z = trainings.meta_params(name, jnp.float64)
        grad = flat(through_scan(run, z)[1])
        walked = metagradient(run, z, plans.kary(6, 2))
        largest = np.abs(grad).max()
        assert largest > 0
        np.testing.assert_allclose(flat(walked.meta_grad), grad, rtol=1e-9, atol=1e-9 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "lion"])
def test_finite_differences_close_in_with_the_square_of_the_step(name, x64):
    with x64():
        run = trainings.Fit(NUM_STEPS, name)
        z = trainings.meta_params(name, jnp.float64)
        grad = metagradient(run, z, plans.square_root(NUM_STEPS)).meta_grad
        slope = float(grad["log_rate"] + 0.1 * grad["decay"])
        spec = states.StateSpec.of(run.init, z)

        def moved(h):
            there = {"log_rate": z["log_rate"] + h, "decay": z["decay"] + 0.1 * h}
            return programs.run(spec, run, there)[0]

        gaps = [abs(float(moved(h) - moved(-h)) / (2 * h) - slope) for h in (2e-3, 1e-3)]
    assert gaps[1] < 1e-4 * abs(slope)
    assert gaps[1] == pytest.approx(gaps[0] / 4, rel=0.1)


def test_meta_parameters_may_enter_the_start_the_steps_and_the_outcome():
    run, z = trainings.Map(NUM_STEPS), trainings.Map.point()
    walked = metagradient(run, z, plans.kary(NUM_STEPS, 3))
    grad = through_scan(run, z)[1]
    for name in z:
        assert walked.meta_grad[name] == pytest.approx(float(grad[name]), rel=1e-5)


@dataclasses.dataclass(frozen=True)
class Counted(task_training.Training):
    """Counts how often its step is traced, which is how often a program is compiled with it."""

    num_steps: int

    traced = 0

    def init(self, z):
        return {"s": z}

    def step(self, z, state, index):
        type(self).traced += 1
        return {"s": state["s"] * (1 + 0.01 * z) + 1e-3 * index}

    def outcome(self, z, state):
        return state["s"] ** 2


def test_neither_length_nor_plan_compiles_anything_anew():
    z = jnp.asarray(0.5)
    metagradient(Counted(10), z, plans.binomial(10, 4, 2))
    before = Counted.traced
    assert before <= 4
    for plan in (plans.binomial(50, 4, 3), plans.kary(70, 4), plans.binomial(333, 4, 60)):
        run = Counted(plan.num_steps)
        walked = metagradient(run, z, plan)
        assert Counted.traced == before
        with jax.ensure_compile_time_eval():
            grad = jax.grad(lambda z, run=run: trainings.outcome(run, z, run.num_steps))(z)
        assert walked.meta_grad == pytest.approx(float(grad), rel=1e-4)
        before = Counted.traced


@pytest.mark.parametrize("kind", ["host", "disk", "tiers"])
def test_where_states_are_kept_changes_nothing(kind, tmp_path):
    run, z = trainings.Map(NUM_STEPS), trainings.Map.point()
    spec = states.StateSpec.of(run.init, z)
    disk = storage.DiskStorage(tmp_path, spec)
    store = {
        "host": storage.HostStorage(),
        "disk": disk,
        "tiers": storage.TieredStorage(
            (storage.DeviceStorage(), storage.HostStorage(), disk), (1, 2)
        ),
    }[kind]
    plan = plans.binomial(NUM_STEPS, 2, 6)
    expected = metagradient(run, z, plan)
    walked = metagradient(run, z, plan, store)
    np.testing.assert_array_equal(flat(walked.meta_grad), flat(expected.meta_grad))
    assert walked.cost.peak_stored_bytes == plan.peak_states * spec.num_bytes
    assert walked.cost.buffer_bytes == plan.leaf_steps * spec.num_bytes
    if kind == "disk":
        assert list(tmp_path.iterdir()) == []


@dataclasses.dataclass(frozen=True)
class Flipping(storage.Storage):
    """Flips one bit of one state when it is fetched."""

    inner: storage.DeviceStorage
    step: int

    def put(self, step, state):
        self.inner.put(step, state)

    def get(self, step):
        state = self.inner.get(step)
        if step != self.step:
            return state
        *others, last = (np.array(leaf) for leaf in state.moving)
        last.view(np.uint32).ravel()[1] ^= 1 << 7
        return state._replace(moving=(*others, last))

    def free(self, step):
        self.inner.free(step)

    @property
    def steps(self):
        return self.inner.steps

    @property
    def num_bytes(self):
        return self.inner.num_bytes


def test_a_flipped_bit_of_a_stored_state_is_found():
    run, z = trainings.Map(NUM_STEPS), trainings.Map.point()
    store = Flipping(storage.DeviceStorage(), 10)
    with pytest.raises(errors.ReplayError, match=r"state 10 .*\['s'\] of 3 arrays changed"):
        backward.backward(run, z, plans.binomial(NUM_STEPS, 5, 4), store)


def test_what_does_not_run_again_as_it_ran_is_found(monkeypatch):
    """Whatever is run a second time ends in other bits."""
    run, z = trainings.Map(9), trainings.Map.point()
    forward, seen = programs.forward, set()

    def drifting(spec, run, z, buffer, state, first, last, marks):
        buffer, state, before, hashes = forward(spec, run, z, buffer, state, first, last, marks)
        if int(first) in seen:
            hashes = hashes.at[0, 0].add(1)
        seen.update(range(first, last))
        return buffer, state, before, hashes

    monkeypatch.setattr(programs, "forward", drifting)
    with pytest.raises(errors.ReplayError, match=r"state \d .*\['s'\].*deterministic"):
        backward.backward(run, z, plans.square_root(9), storage.DeviceStorage())


def test_a_state_that_changes_its_type_is_an_error():
    @dataclasses.dataclass(frozen=True)
    class Widening(task_training.Training):
        num_steps: int

        def init(self, z):
            return {"w": jnp.zeros((), jnp.int32), "z": z}

        def step(self, z, state, index):
            return {"w": state["w"] + 0.5, "z": z}

        def outcome(self, z, state):
            return state["w"]

    with pytest.raises(errors.ReplayError, match=r"\['w'\] was int32\[\].*float32"):
        backward.backward(
            Widening(4), jnp.asarray(1.0), plans.store_all(4), storage.DeviceStorage()
        )


def test_a_plan_for_another_length_is_an_error():
    with pytest.raises(ValueError, match="5 steps, not 4"):
        backward.backward(
            trainings.Map(4), trainings.Map.point(), plans.store_all(5), storage.DeviceStorage()
        )
