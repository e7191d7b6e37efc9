"""Settings of every test: the CPU, and hypothesis without deadlines."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # Before anything imports JAX.

from collections.abc import Callable
from contextlib import AbstractContextManager

import hypothesis
import jax
import pytest

# Deadlines fail on compile time and on a busy machine, which are no defects. With CI set, examples
# are the same on every run; elsewhere new ones are tried each time.
hypothesis.settings.register_profile(
    "veldt",
    deadline=None,
    max_examples=50,
    derandomize=bool(os.environ.get("CI")),
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("veldt")


@pytest.fixture
def x64() -> Callable[[], AbstractContextManager[None]]:
    """`with x64(): ...` runs the block in 64-bit precision, the test's oracle mode."""
    return lambda: jax.enable_x64(True)
