"""One battery for every storage; damage on disk is found; tiers keep the latest nearest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.meta import errors
from veldt.meta.replay import plans, states, storage


def make(seed):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(2, 3)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        "count": jnp.asarray(seed, jnp.int32),
        "flag": jnp.asarray([True, False]),
        "none": jnp.zeros((0, 2)),
        "key": jax.random.key(seed),
    }


SPEC = states.StateSpec.of(lambda: make(0))


def packed(seed):
    return SPEC.pack(make(seed))


def same(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in leaves)


@pytest.fixture(params=["device", "host", "disk", "tiers"])
def store(request, tmp_path):
    disk = storage.DiskStorage(tmp_path, SPEC)
    tiers = (storage.DeviceStorage(), storage.HostStorage(), disk)
    return {
        "device": storage.DeviceStorage(),
        "host": storage.HostStorage(),
        "disk": disk,
        "tiers": storage.TieredStorage(tiers, (1, 1)),
    }[request.param]


def test_what_is_put_is_got_until_it_is_freed(store):
    for step in (0, 4, 9, 11):
        store.put(step, packed(step))
    assert store.steps == (0, 4, 9, 11)
    assert store.num_bytes == 4 * SPEC.num_bytes
    for step in (9, 0, 11, 4):
        got = store.get(step)
        assert same(got, packed(step))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(got))
    store.free(9)
    store.put(4, packed(5))
    assert store.steps == (0, 4, 11) and same(store.get(4), packed(5))
    with pytest.raises(KeyError):
        store.get(9)
    assert store.peak_bytes == 4 * SPEC.num_bytes


def test_packing_goes_back_and_forth():
    state = make(3)
    again = SPEC.unpack(SPEC.pack(state))
    assert jax.tree.structure(state) == jax.tree.structure(again)
    assert jnp.array_equal(jax.random.key_data(again["key"]), jax.random.key_data(state["key"]))
    assert SPEC.num_bytes == 24 + 8 + 4 + 2 + 0 + 8
    assert len(packed(0).moving) == 3 and len(packed(0).rest) == 3
    assert SPEC.packed_paths[:3] == ("['half']", "['none']", "['w']")


def test_the_host_keeps_a_copy(tmp_path):
    store, state = storage.HostStorage(), packed(1)
    store.put(0, jax.tree.map(np.array, state))
    array = np.array(state.moving[2])
    store.put(1, state._replace(moving=(*state.moving[:2], array)))
    array[:] = 0
    assert same(store.get(1), state)


def test_the_latest_states_are_nearest():
    tiers = [storage.DeviceStorage(), storage.HostStorage(), storage.HostStorage()]
    store = storage.TieredStorage(tiers, (2, 1))
    for step in range(5):
        store.put(step, packed(step))
    assert [tier.steps for tier in tiers] == [(3, 4), (2,), (0, 1)]
    store.free(4)
    store.free(3)
    store.put(7, packed(7))
    assert [tier.steps for tier in tiers] == [(7,), (2,), (0, 1)]


@pytest.mark.parametrize("plan", [plans.binomial(60, 2, 7), plans.kary(60, 3)])
def test_tiers_hold_at_most_what_the_plan_predicts(plan):
    tiers = [storage.HostStorage() for _ in range(3)]
    store = storage.TieredStorage(tiers, (2, 3))
    for action in plan.actions():
        match action:
            case plans.Store(step):
                store.put(step, packed(step))
            case plans.Free(step):
                store.free(step)
    found = [tier.peak_bytes // SPEC.num_bytes for tier in tiers]
    assert found == [2, 3, plan.peak_states - 5]


def test_every_damaged_byte_on_disk_is_found(tmp_path):
    store = storage.DiskStorage(tmp_path, SPEC)
    store.put(2, packed(2))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(errors.ReplayError, match="checksum"):
            store.get(2)
    path.write_bytes(whole[:-9])
    with pytest.raises(errors.ReplayError, match="checksum"):
        store.get(2)
    path.write_bytes(whole)
    assert same(store.get(2), packed(2))


def test_a_state_of_another_training_is_refused(tmp_path):
    other = states.StateSpec.of(lambda: {"w": jnp.zeros(3)})
    storage.DiskStorage(tmp_path, other).put(1, other.pack({"w": jnp.ones(3)}))
    with pytest.raises(errors.ReplayError, match="no state of this training"):
        storage.DiskStorage(tmp_path, SPEC).get(1)


def test_tiers_need_capacities():
    with pytest.raises(ValueError, match="2 tiers need 1"):
        storage.TieredStorage([storage.DeviceStorage(), storage.HostStorage()], [])
