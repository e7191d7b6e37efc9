"""Exported modules: the numbers of `as_optax`, plain Optax, clean text, nothing smuggled in."""

import ast
import dataclasses
import functools
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from tests.search import strategies
from tests.search.export.modules import AWKWARD_NAMES, check_ruff, evil_text, load
from veldt.search import rule_sources
from veldt.search.export import embedded_program as exported
from veldt.search.export.optax_module import export_optax
from veldt.search.language.ops import OP_SETS, OPS
from veldt.search.language.statements import Statement
from veldt.search.program import Program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


def make_tree(rng: np.random.Generator) -> Any:
    """Shapes as everywhere in these tests, so that each operation compiles once."""
    tree = {"a": rng.normal(size=()), "b": (rng.normal(size=3), rng.normal(size=(2, 4)))}
    return jax.tree.map(jnp.asarray, tree)


def assert_same_steps(exported: Any, native: Any, num_steps: int, seed: int = 0) -> None:
    """Compares updates step by step, op by op: compiling costs more than running."""
    rng = np.random.default_rng(seed)
    params = make_tree(rng)
    states = [exported.init(params), native.init(params)]
    updates = [optax.with_extra_args_support(tx).update for tx in (exported, native)]
    for step in range(num_steps):
        grads = make_tree(rng)
        grads["b"][1].at[0].set(0.0)
        loss = 1.5 - step
        update, states[0] = updates[0](grads, states[0], params, value=loss)
        expected, states[1] = updates[1](grads, states[1], params, value=loss)
        jax.tree.map(np.testing.assert_array_equal, update, expected)
        params = jax.tree.map(lambda p, u: p + jnp.clip(u, -1.0, 1.0), params, expected)


def length_of(program: Program, num_steps: int) -> dict[str, int]:
    """Returns what a transform must be told of the run: its length, if the program reads it."""
    return {"num_steps": num_steps} if "progress" in program.lower().live_of_run else {}


# One rule for each thing that exports write: all others are slow tests.
QUICK = ("adamw", "adopt", "dog", "lamb", "lion", "momo", "nadam", "prodigy", "radam", "sgd")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in rule_sources.RULE_NAMES
    ],
)
def test_shipped_rules_compute_the_same(name: str, folder: Path, x64: Any) -> None:
    rule = rule_sources.load_rule(name)
    text = export_optax(rule)
    check_ruff(text, folder)
    module = load(text, folder)
    with x64():
        length = length_of(rule, 4)
        exported_tx = getattr(module, name)(0.1, **length)
        assert_same_steps(exported_tx, rule.as_optax(0.1, **length), num_steps=3)
        scale = getattr(module, f"scale_by_{name}")
        state = scale(**length).init(make_tree(np.random.default_rng(0)))
    assert type(state).__name__ == f"ScaleBy{name.title().replace('_', '')}State"
    assert state._fields == ("count", *rule.slots)


@pytest.mark.parametrize(
    "part",
    [pytest.param(part, marks=[] if part == "base" else [pytest.mark.slow]) for part in OP_SETS],
)
def test_every_op_computes_the_same(part: str, folder: Path, x64: Any) -> None:
    """On tensors, on scalars where it takes them, and where the sign of its result matters."""
    for name in OP_SETS[part]:
        op = OPS[name]
        if op.scope == "shape":  # their results are no updates; see PRODUCTS below
            continue
        tensors = ", ".join(
            {"scalar": "k"}.get(kind, arg) for kind, arg in zip(op.kinds, "gwm", strict=False)
        )
        scalars = ", ".join({"tensor": "w"}.get(kind, "step") for kind in op.kinds)
        text = (
            "def rule(w, g, m, *, k=0.7):\n"
            f"    u = {name}({tensors})\n"
            f"    return u + sqrt(u) + log1p(u) + u ** 0.3, {name}({scalars})"
        )
        program = Program.parse(text)
        with x64():
            exported = load(export_optax(program), folder).rule(0.1)
            assert_same_steps(exported, program.as_optax(0.1), num_steps=2)


PRODUCTS = """\
def products(w, g, left, right, turned):
    left = left + matmul(g, transpose(g))
    right = row_mean(right) + matmul(transpose(g), g)
    turned = matmul(right, transpose(g)) * 0.5 + turned
    size = norm(row_mean(left)) + dot(column_norm(left), left) + norm(turned)
    return matmul(matmul(left, transpose(turned)), right) * size, left, right, turned
"""
LAZY = """\
def lazy(w, g, left, root, basis, m, s, h, *, b=0.9, k=2.0):
    left = interp(row_gram(g), left, b)
    root = where(every(step, k), inverse_root(left, 4.0, 0.1) * progress, root)
    turned = where(step < 3, eigenbasis(column_gram(g), basis), 1.0)
    basis = where(every(step, 3), 0.5 * turned + basis, basis)
    m = where(every(step + 1, 2), polar(g) * nuclear_norm(w) * loss, m)
    s = 0.5 * s + sketch(g, step / 2)
    h = remember(h, global_dot(g, w) + global_cosine(m, sin(w)))
    u = matmul(root, matmul(g, basis)) + unsketch(s, step / 2) + sinkhorn(g) * sketch_norm(s)
    return u * percentile(h, 0.3) + m, left, root, basis, m, s, h
"""
THIN = """\
def thin(w, g, rows, columns, count, *, b=0.9):
    squares = square(g)
    rows = interp(row_mean(squares), rows, b)
    columns = max(interp(column_mean(squares), columns, b), 0.1)
    count = count + norm(columns) * is_last
    u = g / sqrt(rows * columns / mean(rows)) * global_norm(rows)
    u = u + clip_by_global_norm(count * rows, 0.5) + fan_in - fan_out * ndim + is_embedding
    return u, rows, columns, count
"""


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, marks=pytest.mark.slow) for text in (PRODUCTS, THIN)] + [LAZY],
    ids=["products", "thin", "lazy"],
)
def test_other_shapes_compute_the_same(text: str, folder: Path, x64: Any) -> None:
    program = Program.parse(text)
    exported = export_optax(program)
    check_ruff(exported, folder)
    with x64():
        length = length_of(program, 5)
        tx = getattr(load(exported, folder), program.name)(0.1, **length)
        native = program.as_optax(0.1, **length)
        assert_same_steps(tx, native, num_steps=4 if length else 2)
        shapes = [
            jax.tree.map(jnp.shape, tuple(state))
            for state in (
                tx.init(make_tree(np.random.default_rng(0)))[0][1:],
                native.init(make_tree(np.random.default_rng(0)))[0].slots.values(),
            )
        ]
        assert shapes[0] == shapes[1]


@hypothesis.settings(max_examples=20)
@hypothesis.given(program=strategies.programs(ops=OP_SETS["base"]), seed=st.integers(0, 2**32))
def test_random_programs_compute_the_same(program: Program, seed: int, folder: Path) -> None:
    check_random_program(program, seed, folder)


@pytest.mark.slow
@hypothesis.given(program=strategies.programs(), seed=st.integers(0, 2**32))
def test_random_programs_over_matrices_compute_the_same(
    program: Program, seed: int, folder: Path
) -> None:
    check_random_program(program, seed, folder)


def check_random_program(program: Program, seed: int, folder: Path) -> None:
    text = export_optax(program)
    check_ruff(text, folder)
    module = load(text, folder)
    length = length_of(program, 3)
    with jax.enable_x64(True):
        tx = module.rule(0.1, **length)
        assert_same_steps(tx, program.as_optax(0.1, **length), num_steps=2, seed=seed)


@hypothesis.settings(max_examples=20)
@hypothesis.given(update=strategies.expressions, slot=strategies.expressions)
def test_nested_expressions_compute_the_same(update: str, slot: str, folder: Path) -> None:
    """Where parentheses may go and where they must stay."""
    program = Program.parse(f"def rule(w, g, m, *, k=0.7):\n    return {update} + m, {slot}")
    text = export_optax(program)
    check_ruff(text, folder)
    module = load(text, folder)
    with jax.enable_x64(True):
        assert_same_steps(module.rule(0.1), program.as_optax(0.1), num_steps=2)


@hypothesis.settings(max_examples=15)
@hypothesis.given(
    program=strategies.programs(max_statements=8, ops=OP_SETS["base"]),
    names=st.permutations(AWKWARD_NAMES),
)
def test_any_names_will_do(program: Program, names: list[str], folder: Path) -> None:
    old = [*program.slots, *dict(program.constants), *strategies.LOCAL_NAMES]
    text = export_optax(strategies.rename(program, dict(zip(old, names, strict=False))))
    check_ruff(text, folder)
    module = load(text, folder)
    with jax.enable_x64(True):
        # The native side keeps the first names: some of the others, such as a constant called
        # learning_rate, no signature can have.
        length = length_of(program, 3)
        tx = module.rule(0.1, **length)
        assert_same_steps(tx, program.as_optax(0.1, **length), num_steps=2)


@pytest.mark.parametrize("name", [*AWKWARD_NAMES, "ScaleByState", "two_words_2", "adamW", "leaf_"])
def test_any_rule_name_will_do(name: str, folder: Path) -> None:
    program = Program.parse(f"def {name}(w, g, m):\n    m = g + m\n    return m / w, m")
    text = export_optax(program)
    tree = ast.parse(text)
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    keep_dtype, safe_divide, _skip, state, scale_by, rule = names
    assert (
        keep_dtype == "keep_dtype"
        and safe_divide == "_safe_divide"
        and scale_by == f"scale_by_{rule}"
    )
    assert state.startswith("ScaleBy") and state.endswith("State") and state != rule
    factory = getattr(load(text, folder), rule)
    tx = factory(0.1)
    update, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), 2.0 * jnp.ones(2))
    np.testing.assert_allclose(update, [-0.05, -0.05], rtol=1e-6)


def test_names_are_as_optax_names_things(folder: Path) -> None:
    module = load(export_optax(rule_sources.load_rule("adamw")), folder)
    state = module.scale_by_adamw(b1=0.5).init(jnp.ones(2))
    assert type(state).__name__ == "ScaleByAdamwState"
    assert state._fields == ("count", "m", "v")
    assert state.count.dtype == jnp.int32
    text = export_optax(Program.parse("def two_words_2(w, g, m):\n    return m, g"))
    assert "class ScaleByTwoWords2State(NamedTuple):" in text


READABLE = """\
        def leaf(g, w, m):
            c = (1 - b1) * g + b1 * m
            new_m = (1 - b2) * g + b2 * m
            return jnp.sign(c) + wd * w, new_m
"""


def test_reads_as_a_person_would_write_it() -> None:
    text = export_optax(rule_sources.load_rule("lion"))
    assert READABLE in text
    assert "_safe_divide" not in text
    assert "float32" not in text  # no step


def test_dead_code_and_dead_state_are_left_out() -> None:
    text = export_optax(
        Program.parse(
            "def rule(w, g, dead, m, *, unused=1.0, b=0.5):\n"
            "    dead = dead + unused\n    x = sin(w)\n    m = g + b * m\n    return m, dead, m"
        )
    )
    code = text[text.index("import jax") : text.index(exported.PROGRAM)]
    assert not [word for word in ("dead", "unused", "sin", "raise") if word in code]


def test_the_default_learning_rate() -> None:
    rule = rule_sources.load_rule("lion")
    assert "learning_rate: optax.ScalarOrSchedule = 0.0003," in export_optax(
        rule, learning_rate=3e-4
    )
    assert "learning_rate: optax.ScalarOrSchedule," in export_optax(rule)


def test_the_docstring_holds_the_program_and_where_it_comes_from() -> None:
    rule = rule_sources.load_rule("yogi")
    provenance = {"run": "r-17", "fitness": "-0.1 (4 seeds)"}
    text = export_optax(rule, provenance=provenance)
    assert text == export_optax(rule, provenance=provenance)
    doc = ast.get_docstring(ast.parse(text))
    assert "- run: r-17\n- fitness: -0.1 (4 seeds)" in doc
    start = doc.index("    def yogi(")
    program = Program.parse(textwrap.dedent(doc[start : doc.index("\n\n", start)]))
    assert program.lower().structural_hash == rule.lower().structural_hash


@hypothesis.settings(max_examples=30)
@hypothesis.given(doc=evil_text, provenance=st.dictionaries(evil_text, evil_text, max_size=3))
def test_nothing_breaks_out_of_the_docstring(
    doc: str, provenance: dict[str, str], folder: Path
) -> None:
    program = Program("rule", (), (), (), ("g",))
    plain = ast.parse(export_optax(program))
    text = export_optax(dataclasses.replace(program, doc=doc), provenance=provenance)
    check_ruff(text, folder)
    # Everything after the docstring is as it is without, but for the texts at the end.
    found = ast.parse(text).body
    texts = [node for node in found if isinstance(node, ast.Assign)]
    assert found[len(found) - len(texts) :] == texts
    assert all(isinstance(node.value, ast.Constant) for node in texts)
    code, expected = found[1 : len(found) - len(texts)], plain.body[1:-1]
    assert ast.dump(ast.Module(code, [])) == ast.dump(ast.Module(expected, []))


@hypothesis.given(name=evil_text, slot=evil_text, constant=evil_text)
def test_names_that_are_no_names_do_not_become_code(name: str, slot: str, constant: str) -> None:
    """Programs that no parser has seen."""
    slot, constant = f"m{slot}", f"c{constant}"
    statement = Statement("u", "multiply", (slot, constant))
    program = Program(name, (slot,), ((constant, 0.5),), (statement,), ("u", "g"))
    body = ast.parse(export_optax(program)).body
    if isinstance(body[-1], ast.Assign):  # A parser may see this one.
        assert isinstance(body.pop().value, ast.Constant)
    kinds = [type(node).__name__ for node in body]
    helper = ["FunctionDef"]
    assert kinds == ["Expr", "ImportFrom", *["Import"] * 3, *helper * 2, "ClassDef", *helper * 2]


STAND_ALONE = """
import importlib.util, sys

class NoVeldt:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "veldt":
            raise ImportError("veldt is not installed here")

sys.meta_path.insert(0, NoVeldt())
spec = importlib.util.spec_from_file_location("exported", sys.argv[1])
exported = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exported)
import jax, jax.numpy as jnp, optax

params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
tx = optax.chain(optax.clip_by_global_norm(1.0), exported.adamw(wd=0.1))
loss = lambda p: jnp.sum((p["w"] @ jnp.arange(3.0) + p["b"][0] - 2.0) ** 2)

def step(carry, _):
    params, state = carry
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value

losses = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=100)[1])(params)
assert losses[-1] < 0.1 * losses[0], losses
"""


def test_stands_alone(tmp_path: Path) -> None:
    text = export_optax(rule_sources.load_rule("adamw"), learning_rate=0.05)
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    assert [alias.name for node in imports for alias in node.names] == ["jax", "jax.numpy", "optax"]
    path = tmp_path / "adamw.py"
    path.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-c", STAND_ALONE, str(path)], check=True, cwd=tmp_path)


def test_as_a_citizen_of_optax(folder: Path) -> None:
    """Under jit and scan, with injected hyperparameters, masked, and in bfloat16."""
    factory = load(export_optax(rule_sources.load_rule("adamw")), folder).adamw
    native = rule_sources.load_rule("adamw").as_optax
    params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.ones(3)}

    def dress(factory: Any) -> list[Any]:
        inject = optax.inject_hyperparams(factory)
        masked = optax.masked(factory(0.01), {"w": True, "b": False})
        return [inject(learning_rate=0.01, b1=lambda count: 0.9 - 0.1 * count), masked]

    @jax.jit
    def run(params: Any) -> Any:
        txs = dress(factory) + dress(native)

        def step(states: list[Any], _: None) -> tuple[list[Any], Any]:
            pairs = [tx.update(params, s, params) for tx, s in zip(txs, states, strict=True)]
            return [state for _, state in pairs], [update for update, _ in pairs]

        return jax.lax.scan(step, [tx.init(params) for tx in txs], length=4)[1]

    runs = run(params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), runs[:2], runs[2:])
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    update, state = factory(0.01).update(narrow, factory(0.01).init(narrow), narrow)
    expected, _ = native(0.01).update(narrow, native(0.01).init(narrow), narrow)
    assert [x.dtype for x in jax.tree.leaves(state)] == [jnp.int32, *[jnp.bfloat16] * 4]
    jax.tree.map(np.testing.assert_array_equal, update, expected)


def test_parameters_are_asked_for_where_they_are_read(folder: Path) -> None:
    lion = load(export_optax(rule_sources.load_rule("lion")), folder).lion(0.1)
    with pytest.raises(ValueError, match="update needs them"):
        lion.update(jnp.ones(2), lion.init(jnp.ones(2)))
    adam = load(export_optax(rule_sources.load_rule("adam")), folder).adam(0.1)
    adam.update(jnp.ones(2), adam.init(jnp.ones(2)))


def test_the_length_of_the_run_and_the_loss_are_asked_for(folder: Path) -> None:
    program = Program.parse("def rule(w, g, *, k=0.5):\n    return g * (1 - progress) + k * loss")
    module = load(export_optax(program, learning_rate=0.3), folder)
    with pytest.raises(TypeError, match="num_steps"):
        module.rule()
    tx = module.rule(num_steps=4)
    params = jnp.ones(2)
    with pytest.raises(ValueError, match="reads the loss: update needs value=loss"):
        tx.update(params, tx.init(params))
    update, _ = tx.update(params, tx.init(params), value=2.0)
    np.testing.assert_allclose(update, -0.3 * (0.75 + 0.5 * 2.0) * np.ones(2), rtol=1e-6)


def test_empty_trees(folder: Path) -> None:
    tx = load(export_optax(rule_sources.load_rule("adamw")), folder).adamw(0.1)
    assert tx.update({}, tx.init({}), {})[0] == {}
