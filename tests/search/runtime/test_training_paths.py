"""The path that a program takes: by cost alone, unless the interpreter has no space."""

import jax
import numpy as np
import pytest

from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.runtime import training_paths
from veldt.search.runtime.encode import Capacity
from veldt.tasks.inner_loop.flat import Layout

RULE = "def rule(w, g, m):\n    m = 0.9 * m + g\n    return m / (abs(m) + 1e-3), m\n"


def choose(text, num_params, num_steps, capacity=None):
    layout = Layout.of([jax.ShapeDtypeStruct((num_params,), np.float32)])
    flow = dataflow.lower(Program.parse(text), fold=True)
    return training_paths.choose(flow, layout, num_steps=num_steps, capacity=capacity or Capacity())


@pytest.mark.parametrize(
    ("num_params", "num_steps", "path"),
    [
        (2410, 200, training_paths.Interpreted),  # the quickstart's proxies
        (9802, 3000, training_paths.Interpreted),  # a stage of `discover`
        (
            301_066,
            200,
            training_paths.Interpreted,
        ),  # a large proxy: compiling takes as long as training
        (301_066, 10_000, training_paths.Compiled),
        (25_000_000, 200, training_paths.Compiled),
    ],
)
def test_long_training_of_many_parameters_is_compiled(num_params, num_steps, path):
    assert type(choose(RULE, num_params, num_steps)) is path


def test_the_break_even_is_where_saving_equals_compiling():
    def saved_s(*factors):
        return training_paths.SAVED_NS / 1e9 * np.prod(factors, dtype=np.float64)

    for factors in ((12, 301_066, 1), (5, 9802, 40), (1, 64, 7)):
        *rest, _ = factors
        steps = int(training_paths.COMPILE_S / saved_s(*rest))
        assert not training_paths.worth_compiling(*rest, steps - 1)
        assert training_paths.worth_compiling(*rest, steps + 2)


@pytest.mark.parametrize("which", range(3))
def test_more_of_anything_never_speaks_against_compiling(which):
    for exponent in range(3, 8):
        less = [10, 10**exponent, 10**4]
        more = [n * (10 if i == which else 1) for i, n in enumerate(less)]
        assert training_paths.worth_compiling(*more) >= training_paths.worth_compiling(*less)


def test_what_the_interpreter_has_no_room_for_is_compiled():
    assert isinstance(choose(RULE, 10, 10, Capacity(registers=4)), training_paths.Compiled)
    transposed = "def rule(w, g):\n    return matmul(matmul(g, transpose(g)), g)\n"
    assert isinstance(choose(transposed, 10, 10), training_paths.Compiled)


def test_interpreted_programs_share_a_loop_and_compiled_ones_share_it_with_their_equals():
    other = RULE.replace("0.9", "0.8")
    assert choose(RULE, 10, 10).compiles_as == choose(other, 10, 10).compiles_as
    compiled, same, differs = (choose(text, 10**8, 10**4) for text in (RULE, RULE, other))
    assert compiled.compiles_as == same.compiles_as != differs.compiles_as
    assert choose(RULE, 10, 10).compiles_as != compiled.compiles_as
