"""Settings of every test: the CPU, quick and kept compiling, Ctrl-C, and hypothesis."""

import os
import signal
from pathlib import Path

# A shell's background jobs, and what they start, ignore Ctrl-C: tests that press it would wait for
# ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything imports JAX. Most of a test's time is LLVM's; at its level 1, which training loops
# are compiled at anyway (`veldt.tasks.common.compiling`), the same bits take 0.6 of it.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1"

# What is compiled is kept, for the other worker, for child processes and for the next run, which
# then takes a third of the time. `make clean` removes it.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ.get(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "compiled")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from collections.abc import Callable
from contextlib import AbstractContextManager

import hypothesis
import jax
import pytest

# Deadlines fail on compile time and on a busy machine, which are no defects. Examples are the same
# on every run, but for `make test-all`, which tries new ones each time.
hypothesis.settings.register_profile(
    "veldt",
    deadline=None,
    max_examples=50,
    derandomize=os.environ.get("VELDT_RANDOM_TESTS") != "1",
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("veldt")


@pytest.fixture
def x64() -> Callable[[], AbstractContextManager[None]]:
    """`with x64(): ...` runs the block in 64-bit precision, the test's oracle mode."""
    return lambda: jax.enable_x64(True)
