"""Children's learning rates follow their updates' sizes, against sizes written out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation import probe
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import Individual
from veldt.search.evolution import mutation
from veldt.search.evolution.mutations import step_size
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.rule_sources import load_rule
from veldt.search.runtime import execute


def of(text, rate=0.1):
    return Individual.of(Genotype(Program.parse(f"def rule(w, g):\n    {text}\n"), rate))


SGD = of("return g")


def test_a_child_whose_update_is_larger_gets_a_rate_as_much_lower():
    child = step_size.matched(SGD, of("return 8.0 * g"))
    assert child.genotype.learning_rate == pytest.approx(0.1 / 8, rel=1e-12)
    child = step_size.matched(SGD, of("return sign(g)"))
    grads = probe.inputs().grads[:, :12]
    ratio = np.sqrt(np.mean(grads**2)) / np.sqrt(np.mean(np.sign(grads) ** 2))
    assert child.genotype.learning_rate == pytest.approx(0.1 * ratio, rel=1e-12)


def test_a_mutation_of_the_learning_rate_on_top_is_kept():
    child = step_size.matched(SGD, of("return 8.0 * g", 0.3))
    assert child.genotype.learning_rate == pytest.approx(0.3 / 8, rel=1e-12)


@pytest.mark.parametrize("kind", ["constant", "learning_rate", "constant+constant", "copy"])
def test_what_keeps_the_structure_is_not_matched(kind):
    assert not step_size.changes_structure(kind)
    for structural in ("insert", "delete", "modify", "rewire", "unwire", "graft"):
        assert step_size.changes_structure(f"{structural}+{kind}")


@pytest.mark.parametrize("text", ["return 0.0 * g", "return exp(1e4 + g * g)"])
def test_nothing_is_matched_to_an_update_that_is_zero_or_not_finite(text):
    child = of(text)
    assert step_size.matched(SGD, child) is child


def test_no_rate_moves_by_more_than_a_thousand():
    child = step_size.matched(SGD, of("return 1e9 * g"))
    assert child.genotype.learning_rate == pytest.approx(0.1 / step_size.MAX_RATIO)


def test_children_of_adamw_take_steps_of_its_size():
    """Measured by the transform's own executor, step by step, and not by the probe's batches."""
    parent = Individual.of(Genotype(load_rule("adamw"), 3e-3))
    config = MutationConfig(insert=1, delete=1, modify=1, constant=0, learning_rate=0)
    rng = np.random.default_rng(0)
    wanted = 3e-3 * size_step_by_step(parent.genotype.program)
    matched = 0
    for _ in range(30):
        child = Individual.of(mutation.mutate(rng, parent.genotype, config).genotype)
        genotype = step_size.matched(parent, child).genotype
        size = size_step_by_step(genotype.program)
        if 1e-2 < size < 1e2:  # within what is matched
            assert genotype.learning_rate * size == pytest.approx(wanted, rel=1e-6)
            matched += 1
    assert matched > 15


def test_rules_of_different_origin_get_the_rates_of_steps_of_one_length():
    """Against the transform under `jit`, on gradients made here."""
    grads = step_size._inputs()[1]
    sizes = {}
    for name in ("adamw", "sgd", "signsgd", "lion", "muon", "lamb", "rmsprop", "momentum"):
        genotype = step_size.like(Genotype(load_rule("adamw"), 0.01), load_rule(name))
        sizes[name] = np.sqrt(np.mean(moves(genotype, grads)[8:] ** 2))
    assert sizes == {name: pytest.approx(sizes["adamw"], rel=2e-3) for name in sizes}
    # By hand: signs are as long as they are, and the gradient is as long as it is made.
    rate = 0.01 * step_size.later_size(load_rule("adamw"))
    signs = step_size.like(Genotype(load_rule("adamw"), 0.01), load_rule("signsgd"))
    assert signs.learning_rate == pytest.approx(rate)
    plain = step_size.like(Genotype(load_rule("adamw"), 0.01), load_rule("sgd"))
    assert plain.learning_rate == pytest.approx(rate / 0.01, rel=0.2)


def moves(genotype, grads):
    params = {"kernel": jnp.asarray(step_size._inputs()[0], jnp.float32)}
    tx = genotype.program.as_optax(genotype.learning_rate)
    # The kernel would be the last layer, and no rule here reads that.
    state, update, found = tx.init(params), jax.jit(tx.update), []
    for grad in grads:
        step, state = update({"kernel": jnp.asarray(grad, jnp.float32)}, state, params)
        found.append(np.asarray(step["kernel"], np.float64))
    return np.stack(found)


@pytest.mark.parametrize("text", ["return 0.0 * g", "return exp(1e4 + g * g)"])
def test_a_rule_of_no_size_gets_the_initial_rules_rate(text):
    program = of(text).genotype.program
    assert step_size.like(Genotype(load_rule("adamw"), 0.02), program).learning_rate == 0.02


def size_step_by_step(program):
    flow = dataflow.lower(program, fold=True)
    shape = probe.SHAPES[0]
    state = {n: [np.zeros(s[0])] for n, s in execute.slot_shapes(flow, (shape,)).items()}
    squares = []
    for step, (params, grads) in enumerate(zip(*probe.inputs(), strict=True), 1):
        leaf = math.prod(shape)
        read = {"w": [params[:leaf].reshape(shape)], "g": [grads[:leaf].reshape(shape)], **state}
        with np.errstate(all="ignore"):
            update, slots = execute.execute(flow, np, read, [np.float64(step)], {})
        state = dict(zip(flow.live_slots, slots, strict=True))
        squares.append(np.mean(np.square(np.broadcast_to(update[0], shape))))
    return math.sqrt(np.mean(squares))
