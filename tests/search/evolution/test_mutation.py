"""Mutations: well formed, as configured, reproducible."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veldt.search import rule_sources
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution import mutation
from veldt.search.language import dataflow
from veldt.search.language.ops import OP_SETS
from veldt.search.language.statements import ROLES
from veldt.search.program import Program

ADAMW = Genotype(dataclasses.replace(rule_sources.load_rule("adamw"), doc=""), 1e-3)
ONLY = {
    "insert": 0.0,
    "delete": 0.0,
    "modify": 0.0,
    "constant": 0.0,
    "learning_rate": 0.0,
    "repeat": 0.0,
}


def only(**changes):
    return MutationConfig(**{**ONLY, **changes})


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(rule_sources.RULE_NAMES))
def test_children_of_children_stay_well_formed_and_round_trip(seed, rule):
    rng = np.random.default_rng(seed)
    genotype = Genotype(rule_sources.load_rule(rule), 1e-3)
    config = MutationConfig(repeat=0.5)
    limit = max(config.max_statements, len(genotype.program.statements))
    for _ in range(8):
        genotype = mutation.mutate(rng, genotype, config).genotype
        dataflow.lower(genotype.program)
        assert Program.parse(str(genotype.program)) == genotype.program
        assert len(genotype.program.statements) <= limit
        assert genotype.learning_rate > 0


def test_the_same_seed_gives_the_same_child():
    children = [
        mutation.mutate(np.random.default_rng(7), ADAMW, MutationConfig()) for _ in range(2)
    ]
    assert children[0] == children[1]
    others = {
        str(mutation.mutate(np.random.default_rng(s), ADAMW, MutationConfig())) for s in range(20)
    }
    assert len(others) > 15


def test_insert_adds_one_statement_and_keeps_the_rest():
    for seed in range(30):
        child = mutation.mutate(np.random.default_rng(seed), ADAMW, only(insert=1.0)).genotype
        before, after = ADAMW.program.statements, child.program.statements
        assert len(after) == len(before) + 1
        position = next(
            (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before)
        )
        assert (*after[:position], *after[position + 1 :]) == before
        assert child.learning_rate == ADAMW.learning_rate


def test_delete_removes_one_statement():
    for seed in range(30):
        child = mutation.mutate(np.random.default_rng(seed), ADAMW, only(delete=1.0))
        statements = child.genotype.program.statements
        if child.mutation == "copy":  # no deletion left the program well formed
            continue
        assert len(statements) == len(ADAMW.program.statements) - 1
        assert set(statements) <= set(ADAMW.program.statements)


def test_modify_changes_one_argument():
    for seed in range(50):
        child = mutation.mutate(np.random.default_rng(seed), ADAMW, only(modify=1.0)).genotype
        changed = [
            (a, b)
            for a, b in zip(ADAMW.program.statements, child.program.statements, strict=True)
            if a != b
        ]
        assert len(changed) <= 1  # an argument may be redrawn as itself
        for a, b in changed:
            assert (a.target, a.op, len(a.args)) == (b.target, b.op, len(b.args))
            assert sum(x != y for x, y in zip(a.args, b.args, strict=True)) == 1


def test_constants_are_scaled_by_powers_of_two_drawn_normally():
    logs = []
    for seed in range(400):
        child = mutation.mutate(np.random.default_rng(seed), ADAMW, only(constant=1.0)).genotype
        changed = child.program.constants != ADAMW.program.constants
        assert not changed or child.program.statements == ADAMW.program.statements
        for (name, old), (_, new) in zip(
            ADAMW.program.constants, child.program.constants, strict=True
        ):
            if old != new:
                logs.append((name, np.log2(new / old)))
    values = np.array([value for _, value in logs])
    assert {name for name, _ in logs} == {name for name, value in ADAMW.program.constants if value}
    assert abs(values.mean()) < 0.2 and abs(values.std() - 1) < 0.2


def test_new_constants_are_standard_normal():
    values = []
    for seed in range(600):
        child = mutation.mutate(
            np.random.default_rng(seed), ADAMW, only(insert=1.0, new_constant=0.9)
        )
        for statement in child.genotype.program.statements:
            if statement not in ADAMW.program.statements:
                values += [arg for arg in statement.args if not isinstance(arg, str)]
    assert abs(np.mean(values)) < 0.15 and abs(np.std(values) - 1) < 0.15


def test_the_learning_rate_is_scaled_and_the_program_left_alone():
    logs = []
    for seed in range(300):
        child = mutation.mutate(
            np.random.default_rng(seed), ADAMW, only(learning_rate=1.0)
        ).genotype
        assert child.program == ADAMW.program
        logs.append(np.log2(child.learning_rate / ADAMW.learning_rate))
    assert abs(np.mean(logs)) < 0.2 and abs(np.std(logs) - 1) < 0.15


def test_weights_are_odds():
    config = MutationConfig(
        insert=3.0, delete=0.0, modify=1.0, constant=0.0, learning_rate=0.0, repeat=0.0
    )
    names = [mutation.mutate(np.random.default_rng(s), ADAMW, config).mutation for s in range(400)]
    assert set(names) == {"insert", "modify"}
    # Invalid draws are drawn again whatever they were, so the odds shift a little.
    assert 0.65 < names.count("insert") / len(names) < 0.85


def test_only_the_named_instructions_are_inserted():
    config = only(insert=1.0, ops=("sign", "interp"))
    for seed in range(40):
        child = mutation.mutate(np.random.default_rng(seed), ADAMW, config).genotype
        new = set(child.program.statements) - set(ADAMW.program.statements)
        assert {statement.op for statement in new} <= {"sign", "interp"}


def test_parts_of_the_instruction_set_are_named_and_the_rest_is_lions():
    config = only(insert=1.0, ops=("axes", "products"))
    assert config.instructions == (*OP_SETS["axes"], *OP_SETS["products"])
    assert MutationConfig().instructions == OP_SETS["base"]


def test_roles_are_read_where_they_may_be_and_never_overwritten():
    program = Program.parse("def f(w, g, m):\n    m = g + m\n    return m, m")
    config = only(insert=1.0, modify=1.0, reads=("step", "ndim", "is_last"))
    read, written = set(), set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        child = mutation.mutate(rng, Genotype(program, 1.0), config).genotype.program
        read |= {arg for statement in child.statements for arg in statement.args}
        written |= {statement.target for statement in child.statements}
    assert {"step", "ndim", "is_last"} <= read
    assert not read & {"fan_in", "fan_out", "is_embedding"}
    assert not written & {*ROLES, "step"}


def test_all_that_a_run_knows_is_read_where_it_may_be():
    config = only(insert=1.0, modify=1.0, reads=("progress", "loss"))
    read, written = set(), set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        program = rule_sources.load_rule("lion")
        child = mutation.mutate(rng, Genotype(program, 1.0), config).genotype.program
        read |= {arg for statement in child.statements for arg in statement.args}
        written |= {statement.target for statement in child.statements}
        assert Program.parse(str(child)) == child
    assert {"progress", "loss"} <= read
    assert not written & {"progress", "loss", "step"}


@pytest.mark.parametrize("part", OP_SETS)
def test_every_part_of_the_instruction_set_is_drawn(part):
    """Also what fits few arguments: chains of children reach each instruction of the part."""
    config = MutationConfig(ops=(part,), delete=0.0, repeat=0.5)
    text = (
        "def f(w, g, m, h, a, s):\n    h = remember(h, norm(g))\n"
        "    a = interp(row_gram(g), a, 0.9)\n    s = interp(sketch(g, 1.0), s, 0.9)\n"
        "    return m, g + m, h, a, s"
    )
    seen = set()
    rng = np.random.default_rng(0)
    for _ in range(40):
        genotype = Genotype(Program.parse(text), 1.0)
        for _ in range(14):
            genotype = mutation.mutate(rng, genotype, config).genotype
        seen |= {statement.op for statement in genotype.program.statements}
        assert Program.parse(str(genotype.program)) == genotype.program
    few = {"base", "published"}  # Too many for so few draws.
    assert set(OP_SETS[part]) <= seen or part in few
    assert len(seen & set(OP_SETS[part])) > min(len(OP_SETS[part]), 10) // 2


def test_nothing_is_inserted_at_the_limit():
    limit = len(ADAMW.program.statements)
    config = only(insert=1.0, modify=0.1, max_statements=limit)
    for seed in range(20):
        child = mutation.mutate(np.random.default_rng(seed), ADAMW, config)
        assert child.mutation == "modify"


def test_invalid_draws_are_counted_and_a_program_that_cannot_change_is_copied():
    program = Program.parse("def f(w, g):\n    x = square(g)\n    return x")
    child = mutation.mutate(np.random.default_rng(0), Genotype(program, 1.0), only(delete=1.0))
    assert child.genotype.program == program
    assert child.mutation == "copy"
    assert child.invalid == mutation.MAX_TRIES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"insert": -1.0}, "insert is -1.0"),
        ({"repeat": 1.0}, "repeat is 1.0"),
        ({"ops": ("sine",)}, "'sine'"),
        ({"reads": ("fan",)}, "reads names 'fan'; what can be read is step, progress, loss, ndim"),
        (
            dict.fromkeys(("insert", "delete", "modify", "constant", "learning_rate"), 0.0),
            "all mutation",
        ),
    ],
)
def test_bad_odds_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        MutationConfig(**changes)


def test_mutations_are_chosen_as_numpy_would():
    """Runs made before must come out the same: the same name, and the same numbers after it."""
    for seed in range(200):
        weights = np.random.default_rng(seed).integers(0, 4, size=5) / 4 + (
            np.arange(5) == seed % 5
        )
        names = list("abcde")
        ours, numpys = np.random.default_rng(seed), np.random.default_rng(seed)
        for _ in range(10):
            chosen = mutation._choose(ours, dict(zip(names, weights.tolist(), strict=True)))
            assert chosen == numpys.choice(names, p=weights / weights.sum())
        assert ours.random() == numpys.random()
