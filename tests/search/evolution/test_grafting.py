"""Grafts: a part computes what it computed in its donor, and the typical ones happen."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation import probe
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution import mutation
from veldt.search.evolution.mutations import donors as donors_lib
from veldt.search.evolution.mutations import grafting
from veldt.search.evolution.mutations.donors import Donors
from veldt.search.evolution.mutations.wiring import Use, Wiring
from veldt.search.language import dataflow
from veldt.search.language.statements import MAX_SLOTS
from veldt.search.program import Program

NONE = dict.fromkeys(("insert", "delete", "modify", "constant", "learning_rate", "repeat"), 0.0)
GRAFT = MutationConfig(**NONE, graft=1.0, ops=("published",))
ALL = MutationConfig(rewire=1.0, unwire=1.0, graft=1.0, repeat=0.5, ops=("published",))
RULES = st.sampled_from(rule_sources.RULE_NAMES).map(rule_sources.load_rule)


def rule(name, slots=2):
    return dataclasses.replace(rule_sources.load_rule(name), doc="").with_slots(slots)


def hash_of(program):
    return dataflow.lower(program, fold=True).structural_hash


def num_live(program):
    return len(dataflow.lower(program, fold=True).live_nodes)


def updates(program, given=None):
    return probe.run_step_by_step(dataflow.lower(program, fold=True), given)


def statement_of_update(program):
    definition = Wiring(program).definitions[-1][0]
    return definition if isinstance(definition, int) else None


@settings(max_examples=60)
@given(strategies.programs() | strategies.programs_of_all_shapes(), RULES | strategies.programs())
def test_a_donors_update_in_place_of_the_hosts_is_the_donor(host, donor):
    host = Wiring(host.with_slots(MAX_SLOTS)).unshadowed(("w", "g"))
    wiring, value = Wiring(host), statement_of_update(donor)
    last = len(host.statements)
    shared = grafting._shared_slots(wiring, Wiring(donor), last, None)
    if value is None or shared:  # What is shared has the host's constants.
        return
    child = grafting._with_part(wiring, (Use(last, 0),), Wiring(donor), value, None)
    if child is None:
        missing = set(donor.slots) & Wiring(donor).live
        assert len(missing) > sum(slot not in wiring.live for slot in host.slots)
        return
    dataflow.check(child)
    np.testing.assert_array_equal(updates(child), updates(donor))
    assert child.slots == host.slots


@pytest.mark.parametrize("name", [n for n in rule_sources.RULE_NAMES if n != "sgd"])
def test_a_donor_cut_at_its_gradient_is_that_rule_on_the_hosts_value(name):
    slots = ", ".join(f"s{i}" for i in range(1, MAX_SLOTS + 1))
    host = Program.parse(f"def f(w, g, {slots}):\n    x = 3.0 * g\n    return x, {slots}")
    donor = rule_sources.load_rule(name)
    value = statement_of_update(donor)
    assert value is not None
    child = grafting._with_part(Wiring(host), (Use(1, 0),), Wiring(donor), value, "g")
    given_ = probe.inputs()
    tripled = given_._replace(grads=3.0 * given_.grads)
    np.testing.assert_array_equal(updates(child), updates(donor, tripled))


def test_a_rule_grafted_onto_itself_shares_its_slots():
    for name in ("adamw", "lion", "muon", "came", "dog", "conda", "soap"):
        program = rule(name, 0)
        wiring, value = Wiring(program), statement_of_update(program)
        last = len(program.statements)
        child = grafting._with_part(wiring, (Use(last, 0),), wiring, value, None)
        assert child is not None
        np.testing.assert_array_equal(updates(child), updates(program))
        # All is computed once.
        assert hash_of(child) == hash_of(program)
        assert num_live(child) == num_live(program)


MOMENTUM = Program.parse("def f(w, g, m, v):\n    m = interp(g, m, 0.9)\n    return m, m, v")
DECAY = Program.parse("def f(w, g):\n    return g * (1 - progress)")
# By donor: what it makes of momentum; the first statement is as it was.
TYPICAL = {
    "a direction": (rule("lion"), "return sign(m), m, v"),
    "a direction of the host's own average": (rule("carom"), "return orthogonalize(m), m, v"),
    "a normaliser": (rule("mars", 0), "return m / max(1.0, norm(m)), m, v"),
    "a normaliser of columns": (
        rule("scale"),
        "return m / where(ndim > 1, column_norm(m), norm(m)), m, v",
    ),
    "a normaliser with a slot": (
        rule("adam"),
        "v = interp(square(g), v, 0.999)\n"
        "    return m / (sqrt(v / (1 - 0.999**step)) + 1e-8), m, v",
    ),
    "a scale of shapes": (rule("muon"), "return sqrt(max(1.0, fan_out / fan_in)) * m, m, v"),
    "a correction of the start": (rule("adam"), "return m / (1 - 0.9**step), m, v"),
    "a schedule": (DECAY, "return m * (1 - progress), m, v"),
    "a second average": (rule("lion"), "v = interp(g, v, 0.9)\n    return v, m, v"),
}


@pytest.mark.parametrize("what", TYPICAL)
def test_typical_parts_are_grafted(what):
    donor, body = TYPICAL[what]
    text = f"def f(w, g, m, v):\n    m = interp(g, m, 0.9)\n    {body}"
    wanted = hash_of(Program.parse(text))
    donors, seeds = Donors((donor,)), range(20_000)
    made = (grafting.graft(np.random.default_rng(s), MOMENTUM, GRAFT, donors) for s in seeds)
    assert any(child is not None and hash_of(child) == wanted for child in made)


@settings(max_examples=60)
@given(st.integers(0, 2**32), RULES)
def test_children_by_all_mutations_stay_well_formed_and_within_bounds(seed, program):
    rng = np.random.default_rng(seed)
    genotype = Genotype(program, 1e-3)
    ops = {s.op for s in program.statements} | set(ALL.instructions) | {"copy"}
    donors = Donors(tuple(donors_lib.rules_within(ALL).values()), lambda _: program)
    longest = max(ALL.max_statements, len(program.statements))
    for _ in range(6):
        genotype = mutation.mutate(rng, genotype, ALL, donors).genotype
        child = genotype.program
        dataflow.lower(child)
        assert Program.parse(str(child)) == child
        assert child.slots == program.slots
        assert len(child.statements) <= longest
        assert {s.op for s in child.statements} <= ops


def test_every_kind_of_mutation_is_made():
    donors = Donors(tuple(donors_lib.rules_within(ALL).values()))
    parent = Genotype(rule("adamw", 3), 1e-3)
    made = [mutation.mutate(np.random.default_rng(s), parent, ALL, donors) for s in range(300)]
    assert {name for child in made for name in child.mutation.split("+")} == set(ALL.weights())


def test_the_same_seed_gives_the_same_child():
    donors = Donors(tuple(donors_lib.rules_within(GRAFT).values()))
    parent = Genotype(rule("lion"), 1e-3)
    one, other = (
        [mutation.mutate(np.random.default_rng(s), parent, GRAFT, donors) for s in range(30)]
        for _ in range(2)
    )
    assert one == other
    assert len({str(child.genotype) for child in one}) > 20


def test_nothing_is_grafted_without_donors():
    parent = Genotype(rule("lion"), 1e-3)
    child = mutation.mutate(np.random.default_rng(0), parent, GRAFT)
    assert child.mutation == "copy" and child.genotype == parent
    both = dataclasses.replace(GRAFT, modify=1.0)
    assert mutation.mutate(np.random.default_rng(0), parent, both).mutation == "modify"


def test_donors_are_drawn_as_often_as_the_config_says():
    rules = (rule("sgd"), rule("lion"))
    donors = Donors(rules, lambda _: rule("adamw"))
    rng = np.random.default_rng(0)
    names = [donors.draw(rng, 0.25).name for _ in range(2000)]
    assert names.count("adamw") / 2000 == pytest.approx(0.75, abs=0.04)
    assert names.count("sgd") / 2000 == pytest.approx(0.125, abs=0.03)
    assert {Donors(rules).draw(rng, 0.0).name for _ in range(50)} == {"sgd", "lion"}
    assert Donors(member=lambda _: rule("adamw")).draw(rng, 1.0).name == "adamw"
    assert not Donors()


def test_rules_are_those_of_which_a_search_could_have_drawn_every_part():
    names = set(donors_lib.rules_within(MutationConfig()))
    assert {"adamw", "lion", "radam"} <= names
    assert {"muon", "carom", "scale", "polyak", "shampoo"}.isdisjoint(names)
    more = donors_lib.rules_within(MutationConfig(ops=("published",), reads=("loss",)))
    assert {"adamw", "muon", "carom", "scale", "polyak"} <= set(more)
    assert "shampoo" not in more and more["muon"] == rule_sources.load_rule("muon")


def test_a_slot_is_shared_by_what_becomes_of_it_whatever_its_numbers():
    host = Wiring(rule("adamw"))
    last = len(host.program.statements)

    def shared(name, position=last):
        return grafting._shared_slots(host, Wiring(rule(name, 0)), position, None)

    assert shared("adam") == shared("adamw") == {"m": "m", "v": "v"}
    assert shared("lion") == {"m": "m"}
    assert shared("rmsprop") == {"v": "v"} and shared("adagrad") == {}
    # Nothing is known before it is computed.
    assert shared("adam", 0) == {} and shared("adam", 1) == {"m": "m"}
    # An average of something else is not the host's.
    adam = Wiring(rule("adam", 0))
    assert grafting._shared_slots(host, adam, last, "g") == {}


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_of_rules_is_a_probability(share):
    with pytest.raises(ValueError, match="from_rules"):
        MutationConfig(from_rules=share)
