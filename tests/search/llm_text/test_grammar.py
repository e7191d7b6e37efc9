"""The grammar: what it generates is read, by a sampler that knows nothing of veldt's parser."""

import re

import grammar_samples
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from veldt.search.language.ops import OP_SETS, OPS, expand
from veldt.search.language.statements import READABLE
from veldt.search.llm_text import answers, grammar
from veldt.search.program import Program

SEVERAL = (
    (("base", "axes", "spectral"), ("step", "progress", "ndim"), 2, 30),
    (("published",), ("step",), 6, 14),
    ((), (), 0, 3),
    (tuple(OPS), READABLE, 3, 40),
    (("add", "products"), (), 1, 2),
    (("products",), (), 1, 9),
    (("clip_by_global_norm",), (), 1, 12),
)


def make(ops, reads, num_slots, max_statements):
    return grammar.gbnf(
        instructions=expand(ops), reads=reads, num_slots=num_slots, max_statements=max_statements
    )


def assert_all_read(text, ops, reads, num_slots, max_statements):
    """Check that each fenced program of a text parses and is within the limits."""
    blocks = re.findall(r"```python\n(.*?)```\n", text, re.DOTALL)
    assert 1 <= len(blocks) <= 4
    assert "".join(f"```python\n{block}```\n" for block in blocks) == text
    for block in blocks:
        program = Program.parse(block)
        assert len(program.statements) <= max_statements
        assert program.doc
    reading = answers.read(
        text,
        num_slots=num_slots,
        max_statements=max_statements,
        instructions=expand(ops),
        reads=reads,
        num_programs=4,
    )
    assert reading.problems == ()
    assert 1 <= len(reading.programs) <= len(blocks)


@pytest.mark.parametrize("limits", SEVERAL)
def test_whatever_it_generates_is_a_program_within_the_limits(limits):
    drawn = grammar_samples.Grammar(make(*limits))
    assert drawn.unused == set()
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert_all_read(drawn.sample(rng), *limits)


@hypothesis.given(
    st.sets(st.sampled_from([*OP_SETS, *OPS]), min_size=1, max_size=6).map(sorted),
    st.sets(st.sampled_from(READABLE)).map(sorted),
    st.integers(0, 6),
    st.integers(1, 60),
    st.integers(0, 1_000),
)
def test_this_holds_for_any_limits(ops, reads, num_slots, max_statements, seed):
    limits = (tuple(ops), reads, num_slots, max_statements)
    drawn = grammar_samples.Grammar(make(*limits))
    assert drawn.unused == set()
    rng = np.random.default_rng(seed)
    for _ in range(5):
        assert_all_read(drawn.sample(rng), *limits)


def test_every_instruction_and_name_can_be_drawn():
    """But those of other shapes, which a grammar cannot keep apart."""
    limits = (tuple(OPS), READABLE, 2, 30)
    drawn = grammar_samples.Grammar(make(*limits))
    rng = np.random.default_rng(1)
    programs = [
        Program.parse(block)
        for _ in range(700)
        for block in re.findall(r"```python\n(.*?)```\n", drawn.sample(rng), re.DOTALL)
    ]
    used = {statement.op for program in programs for statement in program.statements}
    assert used - {"copy"} == {name for name, op in OPS.items() if op.scope != "shape"}
    read = {arg for program in programs for each in program.statements for arg in each.args}
    assert {*READABLE, "w", "g", "m", "v", *grammar.CONSTANT_NAMES, "k1", "k2"} <= read
    assert {f"t{i}" for i in range(1, grammar.MAX_TENSORS + 1)} <= read
    # As long as the limit allows, and as many slots as there are; constants of both signs.
    assert max(len(program.statements) for program in programs) > 15
    assert {len(program.slots) for program in programs} == {2}
    values = [value for program in programs for _, value in program.constants]
    assert min(values) < 0 < max(values)


def test_it_is_short_enough_for_a_server_and_the_same_each_time():
    text = make(("base", "axes"), ("step",), 2, 30)
    assert len(text) < 50_000
    assert text == make(("base", "axes"), ("step",), 2, 30)
    names = re.findall(r"^([^ ]+) ::= ", text, re.MULTILINE)
    assert len(names) == len(set(names)) == text.count("\n")
    # llama.cpp takes no other characters in the name of a rule.
    assert all(re.fullmatch(r"[a-z][a-zA-Z0-9-]*", name) for name in names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("root ::= other", "missing: other"),
        ("root ::= ~", "cannot be read"),
        ('root ::= ("a"', "not closed"),
        ('root ::= "a")', "too many"),
        ("root", "no rule"),
        ('root ::= "a"\nroot ::= "b"', "twice"),
        ('root ::= "a"*', "has no end"),
    ],
)
def test_the_sampler_refuses_what_is_no_grammar(text, said):
    with pytest.raises(ValueError, match=said):
        grammar_samples.Grammar(text)


def test_the_sampler_draws_what_a_grammar_says():
    drawn = grammar_samples.Grammar('root ::= "x" ("b" | [c-e-] )? n{1,3}\nn ::= "\\"" | "\\n"\n')
    found = {drawn.sample(np.random.default_rng(seed)) for seed in range(2_000)}
    ends = [a + b + c for a in '"\n' for b in ['"', "\n", ""] for c in ['"', "\n", ""]]
    assert found == {f"x{middle}{end}" for middle in ["", *"bcde-"] for end in ends}
