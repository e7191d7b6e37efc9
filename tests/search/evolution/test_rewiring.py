"""Children that are live by construction, against all that there can be for small programs."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import Individual
from veldt.search.evolution import mutation
from veldt.search.evolution.mutations import rewiring
from veldt.search.evolution.mutations.donors import Donors, rules_within
from veldt.search.evolution.mutations.wiring import Wiring
from veldt.search.language import dataflow
from veldt.search.program import Program

KINDS = ("rewire", "unwire", "graft")
NONE = dict.fromkeys(
    ("insert", "delete", "modify", "constant", "learning_rate", "repeat", *KINDS), 0.0
)


def only(**changes):
    return MutationConfig(**{**NONE, **changes})


def hash_of(program):
    return dataflow.lower(program, fold=True).structural_hash


def hashes(*texts):
    return {hash_of(Program.parse(f"def f(w, g, m):\n    {text}")) for text in texts}


def children(kind, text, config, draws=400):
    program = Program.parse(text)
    found = (kind(np.random.default_rng(seed), program, config) for seed in range(draws))
    return [child for child in found if child is not None]


def test_rewiring_puts_an_instruction_before_each_reader_of_each_live_value():
    text = "def f(w, g, m):\n    m = interp(g, m, 0.9)\n    return m, m"
    config = only(rewire=1.0, ops=("sign",))
    assert {hash_of(child) for child in children(rewiring.rewire, text, config)} == hashes(
        "m = interp(sign(g), m, 0.9)\n    return m, m",
        "m = interp(g, sign(m), 0.9)\n    return m, m",
        "m = interp(g, m, 0.9)\n    return sign(m), m",
        "m = interp(g, m, 0.9)\n    return m, sign(m)",
        "m = sign(interp(g, m, 0.9))\n    return m, m",
    )


def test_unwiring_puts_each_argument_in_place_of_each_live_result():
    text = str(rule_sources.load_rule("lion"))
    c, m, wd = "c = interp(g, m, 0.9)", "m = interp(g, m, 0.99)", "1e-3 * w"
    assert {
        hash_of(child) for child in children(rewiring.unwire, text, only(unwire=1.0))
    } == hashes(
        f"{c}; {m}; return c + {wd}, m".replace("; ", "\n    "),
        f"{c}; {m}; return sign(c), m".replace("; ", "\n    "),
        f"return {wd}, m",
        f"{c}; {m}; return sign(c) + w, m".replace("; ", "\n    "),
        f"return sign(g) + {wd}, m",
        f"{c}; return sign(c) + {wd}, g".replace("; ", "\n    "),
    )


@settings(max_examples=100)
@given(st.integers(0, 2**32), strategies.programs() | strategies.programs_of_all_shapes())
def test_a_rewired_program_reads_its_new_statement(seed, program):
    config = only(rewire=1.0, ops=("sign", "multiply", "max", "norm"))
    child = rewiring.rewire(np.random.default_rng(seed), program, config)
    assert child is not None and len(child.statements) == len(program.statements) + 1
    before, after = program.statements, child.statements
    (name,) = {s.target for s in after} - {s.target for s in before}
    (new,) = (i for i, s in enumerate(after) if s.target == name)
    assert new in Wiring(child).live
    rest = (*after[:new], *after[new + 1 :])
    assert [(s.target, s.op) for s in rest] == [(s.target, s.op) for s in before]


@settings(max_examples=100)
@given(st.integers(0, 2**32), strategies.programs() | strategies.programs_of_all_shapes())
def test_an_unwired_program_has_lost_an_instruction_on_the_way(seed, program):
    child = rewiring.unwire(np.random.default_rng(seed), program, only(unwire=1.0))
    if child is None:
        return
    before, after = Wiring(program), Wiring(child)
    assert 0 <= len(program.statements) - len(child.statements) <= 1
    assert len([i for i in after.live if isinstance(i, int)]) <= len(
        [i for i in before.live if isinstance(i, int)]
    )
    for slot in set(child.slots) & after.live:
        assert after.new_values[slot] != slot or before.new_values[slot] == slot


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", ["adamw", "lion", "muon"])
def test_nearly_all_children_are_other_rules(rule, kind):
    program = dataclasses.replace(rule_sources.load_rule(rule), doc="").with_slots(3)
    config = only(**{kind: 1.0}, ops=("published",), max_statements=48)
    donors = Donors(tuple(rules_within(config).values()))
    parent, rng = Individual.of(Genotype(program, 1e-3)), np.random.default_rng(0)
    made = [mutation.mutate(rng, parent.genotype, config, donors) for _ in range(200)]
    assert {child.mutation for child in made} == {kind}
    other = [hash_of(child.genotype.program) != hash_of(program) for child in made]
    assert np.mean(other) >= (0.95 if kind == "graft" else 0.99)


def test_at_the_limit_dead_statements_make_room():
    body = "a = sign(g)\n    b = a * w\n    m = interp(g, m, 0.9)\n    return m, m"
    text = f"def f(w, g, m):\n    {body}"
    parent = Genotype(Program.parse(text), 1.0)
    config = only(rewire=1.0, ops=("sign",), max_statements=4)
    for seed in range(20):
        first = mutation.mutate(np.random.default_rng(seed), parent, config).genotype
        assert len(first.program.statements) == 4
        second = mutation.mutate(np.random.default_rng(seed), first, config).genotype
        assert len(second.program.statements) == 3
        assert {"a", "b"}.isdisjoint(s.target for s in second.program.statements)
    tight = only(rewire=1.0, ops=("sign",), max_statements=1)
    child = mutation.mutate(np.random.default_rng(0), parent, tight)
    assert (child.mutation, child.genotype) == ("copy", parent)
