"""The toy meta-training: its architecture and its families in the place of the real ones."""

import pytest

from tests.meta import toys
from veldt.learned_opt import registry
from veldt.tasks.families import distribution


@pytest.fixture
def toy(monkeypatch):
    """`toys.settings` can be trained."""
    monkeypatch.setitem(registry.ARCHITECTURES, "rate", toys.Rate())
    monkeypatch.setattr(distribution, "draw", lambda tasks, seed: toys.FAMILIES)
    return toys
