"""Procedural texts: the successors of a context and their odds, counted."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks.families import chains

SOURCE = chains.Chains(window=16, num_outputs=16)


def language(*, free, pairs, num_windows=3000):
    """Windows and targets of one member with the chances given, int [B, T]."""
    cfg = SOURCE.sample(jax.random.key(0))
    cfg = dataclasses.replace(cfg, free=jnp.asarray(free), pairs=jnp.asarray(pairs))
    examples = jax.jit(SOURCE.examples)(cfg, SOURCE.select(jax.random.key(1), num_windows))
    return [np.asarray(array) for array in examples]


def successors(contexts, targets):
    """How often each symbol follows each context."""
    counts = collections.defaultdict(collections.Counter)
    for context, target in zip(contexts, targets, strict=True):
        counts[context][target] += 1
    return counts


def test_targets_are_the_inputs_one_symbol_later():
    inputs, targets = language(free=0.2, pairs=0.4, num_windows=50)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
    assert inputs.min() >= 0 and inputs.max() < 16


def test_of_pairs_alone_each_symbol_has_four_successors_with_odds_4_2_1_1():
    inputs, targets = language(free=0.0, pairs=1.0)
    table = successors(inputs.ravel().tolist(), targets.ravel().tolist())
    assert max(len(counts) for counts in table.values()) == 4
    full = [counts for counts in table.values() if len(counts) == 4 and counts.total() > 1000]
    assert full
    for counts in full:
        shares = np.array(sorted(counts.values(), reverse=True)) / counts.total()
        np.testing.assert_allclose(shares, [0.5, 0.25, 0.125, 0.125], atol=0.05)


def test_of_triples_alone_the_symbol_before_the_last_counts():
    inputs, targets = language(free=0.0, pairs=0.0)
    last, two = inputs[:, 1:].ravel(), inputs[:, :-1].ravel()
    followed = targets[:, 1:].ravel().tolist()
    pairs = successors(zip(two.tolist(), last.tolist(), strict=True), followed)
    assert max(len(counts) for counts in pairs.values()) == 4
    singles = successors(last.tolist(), followed)
    assert min(len(counts) for counts in singles.values()) > 8


def test_free_symbols_depend_on_nothing_and_the_first_are_frequent():
    inputs, targets = language(free=1.0, pairs=0.0)
    shares = np.bincount(targets.ravel(), minlength=16) / targets.size
    # The square of a uniform number, in sixteenths.
    expected = np.diff(np.sqrt(np.arange(17) / 16))
    np.testing.assert_allclose(shares, expected, atol=0.01)
    after_zero = np.bincount(targets[inputs == 0], minlength=16) / np.sum(inputs == 0)
    np.testing.assert_allclose(after_zero, expected, atol=0.02)


def test_members_speak_different_languages():
    cfgs = jax.vmap(SOURCE.sample)(jax.random.split(jax.random.key(2), 2))
    names = SOURCE.select(jax.random.key(3), 8)
    texts = jax.vmap(SOURCE.examples, (0, None))(cfgs, names).inputs
    assert np.mean(texts[0] == texts[1]) < 0.5
    assert cfgs.free[0] != pytest.approx(cfgs.free[1])
