"""What a child shares with its parent, against the same child lowered by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import Individual, LoweredProgram
from veldt.search.evolution import mutation
from veldt.search.language import pruning
from veldt.search.program import Program

CONFIG = MutationConfig(rewire=1.0, unwire=0.5)
RULE = """
def f(w, g, m, v, *, b=0.9, unused=3.0):
    dead = m * unused
    m = interp(m, g, b)
    zero = g * 0.0
    update = m + zero
    return update, m, v
"""


def known(lowered):
    return "structural_hash" in vars(lowered)


@given(strategies.programs(), st.integers(0, 10_000))
def test_a_child_has_the_structure_that_it_has_by_itself(program, seed):
    parent = Individual.of(Genotype(program, 0.1))
    _ = parent.structure, parent.lowered.length
    rng = np.random.default_rng(seed)
    made = mutation.mutate(rng, parent.genotype, CONFIG).genotype
    child, alone = parent.with_genotype(made), LoweredProgram(made.program)
    assert child.lowered.structural_hash == alone.structural_hash
    assert child.lowered.length == alone.length
    # What has the parent's live code has its updates, to the bit.
    if pruning.live_code(made.program) == pruning.live_code(program):
        np.testing.assert_array_equal(alone.updates, parent.lowered.updates)


def test_most_children_of_a_published_rule_that_change_nothing_are_not_lowered():
    parent = Individual.of(Genotype(rule_sources.load_rule("lion").with_slots(4), 0.1))
    for seed in range(6):  # Rules as a search has them, with statements that nothing reads.
        edits = MutationConfig(delete=0.0, modify=0.0, constant=0.0, learning_rate=0.0)
        parent = parent.with_genotype(
            mutation.mutate(np.random.default_rng(seed), parent.genotype, edits).genotype
        )
    _ = parent.structure
    shared, same = 0, 0
    for seed in range(200):
        made = mutation.mutate(np.random.default_rng(seed), parent.genotype, CONFIG).genotype
        if made.program is not parent.lowered.program:
            shared += known(parent.with_genotype(made).lowered)
            same += LoweredProgram(made.program).structural_hash == parent.lowered.structural_hash
    assert shared > 20 and 0.8 * same <= shared <= same


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("dead = m * unused", "dead = m * 2.0", True),
        ("unused=3.0", "unused=4.0", True),
        ("return update, m, v", "return update, m, dead", True),  # A slot that nothing reads.
        ("b=0.9", "b=0.8", False),
        ("g * 0.0", "g * -0.0", False),
        ("return update, m, v", "return update, g, v", False),
        ("return update, m, v", "return m, m, v", False),
        ("update = m + zero", "update = m - zero", False),
    ],
)
def test_dead_code_alone_makes_no_difference(old, new, is_same):
    assert old in RULE
    parent = LoweredProgram(Program.parse(RULE))
    _ = parent.structural_hash
    program = Program.parse(RULE.replace(old, new))
    child = parent.with_program(program)
    assert known(child) == is_same
    assert child.structural_hash == LoweredProgram(program).structural_hash
    assert (child.structural_hash == parent.structural_hash) == is_same
