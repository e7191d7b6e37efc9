"""Hashes of bits: every flip is seen, of every dtype."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from veldt.meta import errors
from veldt.meta.replay import state_hashing

DTYPES = ("float32", "bfloat16", "float16", "int8", "int32", "uint16", "float8_e4m3fn")
hash_leaves = jax.jit(state_hashing.hash_leaves)


def random_bits(dtype, seed=0, size=37):
    itemsize = jnp.dtype(dtype).itemsize
    return np.random.default_rng(seed).integers(0, 256, size * itemsize, np.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_flipped_bit_changes_the_hash_of_its_leaf_alone(dtype):
    raw = random_bits(dtype)
    other = np.arange(3.0, dtype=np.float32)
    before = np.asarray(hash_leaves((raw.view(jnp.dtype(dtype)), other)))
    for bit in range(0, raw.size * 8, 5):
        flipped = raw.copy()
        flipped[bit // 8] ^= 1 << bit % 8
        after = np.asarray(hash_leaves((flipped.view(jnp.dtype(dtype)), other)))
        assert after[0] != before[0] and after[1] == before[1]


@pytest.mark.parametrize("dtype", ["float64", "int64", "complex128"])
def test_wide_types_count_in_full(dtype, x64):
    with x64():
        raw = random_bits(dtype)
        before = np.asarray(hash_leaves(raw.view(dtype)))
        for byte in range(0, raw.size, 3):
            flipped = raw.copy()
            flipped[byte] ^= 16
            assert np.asarray(hash_leaves(flipped.view(dtype))) != before


@hypothesis.given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=9), st.data())
@hypothesis.settings(max_examples=30)
def test_words_that_change_places_are_seen(words, data):
    i = data.draw(st.integers(0, len(words) - 2))
    padded = np.zeros(16, np.uint32)
    padded[: len(words)] = words
    swapped = padded.copy()
    swapped[[i, i + 1]] = padded[[i + 1, i]]
    same = bool(np.all(hash_leaves(padded) == hash_leaves(swapped)))
    assert same == (padded[i] == padded[i + 1])


def test_booleans_keys_and_signs_of_zero_count():
    pairs = [
        (np.array([True, False]), np.array([True, True])),
        (jax.random.key(1), jax.random.key(2)),
        (np.float32([0.0]), np.float32([-0.0])),
        (np.zeros(2, np.float32), np.zeros(3, np.float32)),
    ]
    for one, other in pairs:
        assert np.all(hash_leaves(one) != hash_leaves(other))
        assert np.all(hash_leaves(one) == hash_leaves(one))
    assert hash_leaves(()).shape == (0,)


def test_hashes_are_spread_evenly():
    """Of 4000 small integers, the share with each bit set is a half, within five deviations."""
    hashes = np.asarray(jax.jit(jax.vmap(state_hashing.hash_leaf))(jnp.arange(4000)[:, None]))
    assert np.unique(hashes).size == 4000
    share = np.mean((hashes[:, None] >> np.arange(32, dtype=np.uint32)) & 1, axis=0)
    assert np.abs(share - 0.5).max() < 5 * 0.5 / np.sqrt(4000)


def test_the_error_names_step_and_leaves():
    expected, found = np.zeros(5, np.uint32), np.ones(5, np.uint32)
    with pytest.raises(errors.ReplayError, match=r"state 7 .*a, b, c and 2 more of 5 arrays"):
        state_hashing.check(7, expected, found, tuple("abcde"))
    state_hashing.check(7, expected, expected, tuple("abcde"))
