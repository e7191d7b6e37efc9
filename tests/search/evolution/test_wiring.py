"""Definitions and uses, against the graph of values that everything else works on."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.evolution.mutations.wiring import Use, Wiring
from veldt.search.language import dataflow
from veldt.search.language.dataflow import Constant
from veldt.search.program import Program

RULES = st.sampled_from(rule_sources.RULE_NAMES).map(rule_sources.load_rule)
PROGRAMS = strategies.programs() | strategies.programs_of_all_shapes() | RULES


@settings(max_examples=80)
@given(PROGRAMS)
def test_live_statements_and_kinds_are_those_of_the_graph(program):
    wiring = Wiring(program)
    flow, targets = dataflow.lower_with_targets(program)
    for position, index in enumerate(targets):
        assert wiring.kinds[position] == flow.values[index].kind
        # What computes numbers alone is one number in the graph, and so are its readers.
        if index in flow.live and not isinstance(flow.values[index], Constant):
            same = [i for i, other in enumerate(targets) if other == index]
            assert any(i in wiring.live for i in same)
    assert set(flow.live_slots) <= wiring.live
    hash_ = flow.structural_hash
    assert wiring.without_dead().lower().structural_hash == hash_
    bare = Wiring(wiring.without_dead())
    assert bare.live >= set(range(len(bare.program.statements)))


@settings(max_examples=80)
@given(PROGRAMS, st.data())
def test_names_that_are_freed_mean_the_inputs_and_nothing_else_changes(program, data):
    names = [*program.slots, "w", "g"]
    freed = data.draw(st.lists(st.sampled_from(names), unique=True))
    other = Wiring(program).unshadowed(freed)
    assert not {s.target for s in other.statements} & set(freed)
    assert other.lower() == program.lower()
    assert Wiring(other).definitions == Wiring(program).definitions


TEXT = """\
def rule(w, g, m, v, *, b=0.9):
    a = g + m
    m = interp(a, m, b)
    a = sign(m)
    dead = v * a
    return a, m, dead
"""


def test_uses_and_definitions_by_hand():
    wiring = Wiring(Program.parse(TEXT))
    assert wiring.definitions == (("g", "m"), (0, "m", "b"), (1,), ("v", 2), (2, 1, 3))
    assert wiring.live == {0, 1, 2, "g", "m", "b"}
    assert [wiring.argument(use) for use in wiring.live_uses] == list("gmambmam")
    assert not wiring.is_computed(Use(1, 2)) and wiring.is_computed(Use(1, 0))
    assert wiring.readers(1) == (Use(2, 0), Use(4, 1))
    assert wiring.readers("m", 1) == (Use(1, 1),)
    assert wiring.seen_from(1, "m") == "m" and wiring.seen_from(2, "m") == 1
    assert wiring.closure([2], [1]) == {2, 1}
