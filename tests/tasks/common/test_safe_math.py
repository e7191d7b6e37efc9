"""The safe root has the root's values to the bit, and a finite derivative everywhere."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from veldt.search.language.ops import OPS
from veldt.tasks.common.safe_math import safe_sqrt

ROOTS = [
    (jax.jit(lambda x: safe_sqrt(jnp, x)), jax.jit(jnp.sqrt)),
    (jax.jit(lambda x: OPS["sqrt"].fn(jnp, x)), jax.jit(lambda x: jnp.sqrt(jnp.abs(x)))),
]
words = st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8)


@hypothesis.given(words)
def test_its_values_are_those_of_the_root(bits):
    x = np.array([*bits, 0, 2**31], np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(safe_sqrt(np, x).view(np.uint32), np.sqrt(x).view(np.uint32))
    for ours, theirs in ROOTS:
        ours, theirs = np.asarray(ours(x)), np.asarray(theirs(x))
        numbers = ~np.isnan(theirs)  # Which NaN it is may differ.
        np.testing.assert_array_equal(np.isnan(ours), ~numbers)
        np.testing.assert_array_equal(
            ours.view(np.uint32)[numbers], theirs.view(np.uint32)[numbers]
        )


def test_its_derivative_at_zero_is_zero_in_every_mode():
    slope = jax.grad(lambda x: safe_sqrt(jnp, x))
    assert slope(0.0) == 0.0
    assert jax.jvp(lambda x: safe_sqrt(jnp, x), (0.0,), (1.0,))[1] == 0.0
    assert jax.grad(slope)(0.0) == 0.0
    np.testing.assert_allclose(slope(0.25), 1.0)
    np.testing.assert_allclose(jax.grad(slope)(4.0), -1 / 32)


def test_programs_roots_and_norms_have_finite_derivatives_at_zero():
    zeros = jnp.zeros(3)
    for name in ("sqrt", "norm"):
        grad = jax.grad(lambda x, name=name: jnp.sum(OPS[name].fn(jnp, x)))(zeros)
        np.testing.assert_array_equal(grad, zeros, err_msg=name)
    grad = jax.grad(lambda x: OPS["cosine_sim"].fn(jnp, x, jnp.ones(3)))(zeros)
    np.testing.assert_array_equal(grad, zeros)
    for name, args in (("global_norm", ()), ("clip_by_global_norm", (1.0,))):
        op = OPS[name]

        def total(x, op=op, args=args):
            return jnp.sum(op.fn(jnp, op.partial(jnp, x), x, *args))

        grad = jax.grad(total)(zeros)
        assert np.all(np.isfinite(grad)), name
