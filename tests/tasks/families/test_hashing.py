"""The hash against its definition in whole numbers, and its numbers against their distributions."""

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.families import hashing

NAMES = jax.random.bits(jax.random.key(0), (500, 2), jnp.uint32)


def lowbias32(x):
    """The published function, on Python's integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def test_the_hash_is_the_published_one():
    given = [0, 1, 2, 12345, 2**31, 2**32 - 1]
    hashed = hashing.mix(jnp.asarray(given, jnp.uint32))
    assert [int(x) for x in hashed] == [lowbias32(x) for x in given]


def test_names_differ_between_rows_and_keys_that_differ_in_any_word():
    keys = [jax.random.key(seed) for seed in range(40)]
    keys += [jax.random.wrap_key_data(jnp.array([word, 7], jnp.uint32)) for word in range(1, 41)]
    names = np.concatenate([np.asarray(hashing.names(key, 64)) for key in keys])
    for words in names.T:
        assert len(np.unique(words)) > 0.999 * len(words)


def test_words_count_with_the_stride_of_their_example():
    words = np.asarray(hashing.words(NAMES[:3], 5, 4))
    for row, (start, stride) in zip(words, np.asarray(NAMES[:3]).tolist(), strict=True):
        expected = [lowbias32((start + k * (stride | 1)) % 2**32) for k in range(5, 9)]
        assert row.tolist() == expected


def test_uniform_numbers_are_uniform_and_noise_has_unit_variance():
    words = hashing.words(NAMES, 0, 200)
    uniform = np.sort(np.asarray(hashing.uniform(words)).ravel())
    assert uniform[0] >= 0 and uniform[-1] < 1
    # Kolmogorov-Smirnov, at one in a thousand.
    grid = (np.arange(uniform.size) + 0.5) / uniform.size
    assert np.abs(uniform - grid).max() < 1.95 / np.sqrt(uniform.size)
    noise = np.asarray(hashing.centred(words))
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    np.testing.assert_allclose(noise.std(), 1.0, atol=0.01)
    assert np.abs(noise).max() < 2.45


def test_numbers_of_one_example_and_of_one_place_are_uncorrelated():
    noise = np.asarray(hashing.centred(hashing.words(NAMES, 0, 100)))
    for table in (noise, noise.T):
        correlations = np.corrcoef(table)[np.triu_indices(len(table), 1)]
        np.testing.assert_allclose(correlations.std() * np.sqrt(table.shape[1]), 1.0, atol=0.1)
        assert np.abs(correlations).max() < 6 / np.sqrt(table.shape[1])
