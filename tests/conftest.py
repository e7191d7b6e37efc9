"""Settings of every test: the CPU, quick compiling, Ctrl-C, and hypothesis without deadlines."""

import os
import signal

# A shell's background jobs, and what they start, ignore Ctrl-C: tests that press it would wait for
# ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything imports JAX. Most of a test's time is LLVM's; at its level 1, which training loops
# are compiled at anyway (`veldt.tasks.common.compiling`), the same bits take 0.6 of it.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1"

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
