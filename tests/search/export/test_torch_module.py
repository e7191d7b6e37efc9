"""Exported PyTorch modules: the numbers of the Optax export, torch's own ways, clean text.

What runs PyTorch is slow, and skipped where it is not installed.
"""

import ast
import copy
import dataclasses
import io
import re
import runpy
import shlex
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
from tests.search.export.modules import AWKWARD_NAMES, ROOT, check_ruff, evil_text, load
from veldt import cli
from veldt.search import rule_sources
from veldt.search.export import embedded_program
from veldt.search.export.optax_module import export_optax
from veldt.search.export.torch_module import export_torch
from veldt.search.language.ops import OP_SETS, OPS
from veldt.search.program import Program

# Shapes as JAX has them. The matrix is wide and the kernel tall, which some rules tell apart.
SHAPES = {"a": (), "b": (3,), "c": (3, 5), "d": (3, 2, 2, 4), "e": (5, 4)}
LAST = "e"
TOLERANCE = 1e-10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def in_torch(x: Any) -> np.ndarray:
    """Flax's axes (h, w, in, out) in PyTorch's order (out, in, h, w)."""
    x = np.asarray(x)
    return x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)).copy() if x.ndim > 1 else x


def options(program: Program) -> dict[str, int]:
    return {"num_steps": 40} if "progress" in program.lower().live_of_run else {}


def optimizer_of(module: Any, torch: Any) -> Any:
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    ]
    return found


def same_trajectory(
    program: Program, text: str, folder: Path, torch: Any, num_steps: int, rate: float = 0.02
) -> bool:
    """Compares parameters after every step with the Optax export's, in float64; did they move?"""
    rng = np.random.default_rng(0)
    roles = program.lower().live_roles
    params = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in SHAPES.items()}
    start = params
    ours = {name: torch.nn.Parameter(torch.tensor(in_torch(x))) for name, x in params.items()}
    groups = [
        {"params": [p], **({"is_last": True} if "is_last" in roles and name == LAST else {})}
        for name, p in ours.items()
    ]
    optimizer = optimizer_of(load(text, folder), torch)(groups, rate, **options(program))
    factory = getattr(load(export_optax(program), folder), program.name)
    tx = optax.with_extra_args_support(factory(rate, **options(program)))
    update = jax.jit(tx.update) if num_steps > 5 else tx.update
    state = tx.init(params)
    for step in range(num_steps):
        noise = {name: 0.3 * rng.normal(size=shape) for name, shape in SHAPES.items()}
        loss = 2.5 / (step + 1)
        grads = {name: params[name] + noise[name] for name in SHAPES}
        for name, p in ours.items():
            p.grad = p.detach() + torch.tensor(in_torch(noise[name]))
        updates, state = update(grads, state, params, value=jnp.asarray(loss))
        params = optax.apply_updates(params, updates)
        optimizer.step(lambda loss=loss: loss)
        for name, p in ours.items():
            expected = in_torch(params[name])
            np.testing.assert_allclose(p.detach().numpy(), expected, TOLERANCE, TOLERANCE)
    return any(not np.array_equal(params[name], start[name]) for name in SHAPES)


@pytest.mark.slow
@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_shipped_rules_move_as_the_optax_export(
    name: str, folder: Path, torch: Any, x64: Any
) -> None:
    rule = rule_sources.load_rule(name)
    text = export_torch(rule)
    check_ruff(text, folder)
    with x64():
        assert same_trajectory(rule, text, folder, torch, num_steps=50)


def test_shipped_rules_are_clean_and_import_torch_alone(folder: Path) -> None:
    for name in rule_sources.RULE_NAMES:
        rule = rule_sources.load_rule(name)
        text = export_torch(rule)
        tree = ast.parse(text)
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert [alias.name for node in imports for alias in node.names] == ["math", "torch"]
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert functions - called <= {"param_groups"}, name  # Only what the rule uses is there.
        found = embedded_program.read(text)
        assert found is not None and Program.parse(found.program) == rule
        if name in ("adafactor", "carom", "momo", "muon", "soap"):  # All others in slow tests.
            check_ruff(text, folder)


READABLE = """\
def _leaf_update(g, w, m, *, b1, b2, wd):
    \"\"\"Return the update and the new state of one tensor.\"\"\"
    c = (1 - b1) * g + b1 * m
    new_m = (1 - b2) * g + b2 * m
    return torch.sign(c) + wd * w, new_m
"""


def test_reads_as_a_person_would_write_it() -> None:
    text = export_torch(rule_sources.load_rule("lion"), learning_rate=3e-4)
    assert READABLE.replace("torch.sign", "_sign") in text
    assert "lr: float = 0.0003," in text
    assert "param_groups" not in text.replace("self.param_groups", "").replace(
        'state_dict["param_groups"]', ""
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", OP_SETS)
def test_every_op_computes_the_same(part: str, folder: Path, torch: Any, x64: Any) -> None:
    for name in OP_SETS[part]:
        op = OPS[name]
        if op.scope == "shape":  # See OTHER_SHAPES.
            continue
        tensors = ", ".join(
            {"scalar": "k"}.get(kind, arg) for kind, arg in zip(op.kinds, "gwm", strict=False)
        )
        scalars = ", ".join({"tensor": "w"}.get(kind, "step") for kind in op.kinds)
        numbers = ", ".join({"tensor": "w"}.get(kind, "k") for kind in op.kinds)
        program = Program.parse(
            "def rule(w, g, m, n, *, k=0.7):\n"
            f"    u = {name}({tensors})\n"
            f"    return u + sqrt(u) + log1p(u) + u ** 0.3, {name}({scalars}), {name}({numbers})"
        )
        with x64():
            same_trajectory(program, export_torch(program), folder, torch, 3, rate=1e-3)


OTHER_SHAPES = """\
def other(w, g, left, root, basis, m, s, h, *, b=0.9, k=2.0):
    left = interp(row_gram(g), left, b)
    root = where(every(step, k), inverse_root(left, 4.0, 0.1) * progress, root)
    turned = where(step < 3, eigenbasis(column_gram(g) + 1.0, basis), 1.0)
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
    u = u + clip_by_global_norm(count * rows, 0.5) + fan_in - fan_out * ndim
    return u, rows, columns, count
"""


@pytest.mark.slow
@pytest.mark.parametrize("text", [OTHER_SHAPES, THIN], ids=["other", "thin"])
def test_other_shapes_compute_the_same(text: str, folder: Path, torch: Any, x64: Any) -> None:
    program = Program.parse(text)
    exported = export_torch(program)
    check_ruff(exported, folder)
    with x64():
        same_trajectory(program, exported, folder, torch, num_steps=6, rate=1e-3)


@pytest.mark.slow
@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(program=strategies.programs(), seed=st.integers(0, 2**32))
def test_random_programs_compute_the_same(
    program: Program, seed: int, folder: Path, torch: Any
) -> None:
    """One step, in NumPy's numbers; infinite and undefined ones are where they are in JAX."""
    text = export_torch(program)
    check_ruff(text, folder)
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=SHAPES[name]) for name in ("a", "b", "c")}
    grads = {name: rng.normal(size=SHAPES[name]) for name in ("a", "b", "c")}
    with jax.enable_x64(True):
        tx = optax.with_extra_args_support(program.as_optax(1.0, **options(program)))
        x, y = jax.tree.map(jnp.asarray, (params, grads))
        expected, _ = tx.update(y, tx.init(x), x, value=jnp.asarray(1.5))
    ours = {name: torch.nn.Parameter(torch.tensor(in_torch(p))) for name, p in params.items()}
    for name, p in ours.items():
        p.grad = torch.tensor(in_torch(grads[name]))
    roles = program.lower().live_roles
    groups = [
        {"params": [p], **({"is_last": True} if "is_last" in roles and name == "c" else {})}
        for name, p in ours.items()
    ]
    optimizer_of(load(text, folder), torch)(groups, 1.0, **options(program)).step(lambda: 1.5)
    for name, p in ours.items():
        wanted = in_torch(params[name] + np.asarray(expected[name]))
        if np.all(np.isfinite(wanted)) and np.abs(wanted).max() < 1e6:
            np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=1e-6, atol=1e-6)


@hypothesis.settings(max_examples=15)
@hypothesis.given(
    program=strategies.programs(max_statements=8, ops=OP_SETS["base"]),
    names=st.permutations(AWKWARD_NAMES),
)
def test_any_names_will_do(program: Program, names: list[str], folder: Path) -> None:
    old = [*program.slots, *dict(program.constants), *strategies.LOCAL_NAMES]
    check_ruff(
        export_torch(strategies.rename(program, dict(zip(old, names, strict=False)))), folder
    )


@pytest.mark.parametrize("name", [*AWKWARD_NAMES, "none", "true", "value_error", "runtime_error"])
def test_any_rule_name_will_do(name: str, folder: Path) -> None:
    text = export_torch(Program.parse(f"def {name}(w, g, m):\n    m = g + m\n    return m / w, m"))
    check_ruff(text, folder)
    classes = [node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert len(classes) == 1 and classes[0] not in ("None", "ValueError", "RuntimeError")


@hypothesis.settings(max_examples=30)
@hypothesis.given(doc=evil_text, provenance=st.dictionaries(evil_text, evil_text, max_size=3))
def test_nothing_breaks_out_of_the_docstring(
    doc: str, provenance: dict[str, str], folder: Path
) -> None:
    program = Program("rule", (), (), (), ("g",))
    plain = ast.parse(export_torch(program))
    text = export_torch(dataclasses.replace(program, doc=doc), provenance=provenance)
    check_ruff(text, folder)
    found = ast.parse(text).body
    texts = [node for node in found if isinstance(node, ast.Assign)]
    assert found[len(found) - len(texts) :] == texts
    assert all(isinstance(node.value, ast.Constant) for node in texts)
    code, expected = found[1 : len(found) - len(texts)], plain.body[1:-1]
    assert ast.dump(ast.Module(code, [])) == ast.dump(ast.Module(expected, []))


# --- what torch's users do


def make(name: str, folder: Path, torch: Any) -> Any:
    module = load(export_torch(rule_sources.load_rule(name)), folder)
    return module, optimizer_of(module, torch)


def train(model: Any, optimizer: Any, torch: Any, num_steps: int, scheduler: Any = None) -> list:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 4, generator=generator)
    losses = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = ((model(x) - x[:, :3] * 2.0) ** 2).mean()
        loss.backward()
        optimizer.step(lambda loss=loss: loss)
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "muon", "momo", "adafactor", "autoclip", "carom"])
def test_a_model_trains_and_resumes(name: str, folder: Path, torch: Any) -> None:
    torch.manual_seed(0)
    _, make_optimizer = make(name, folder, torch)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    length = options(rule_sources.load_rule(name))
    optimizer = make_optimizer(model.parameters(), 0.02, **length)
    losses = train(model, optimizer, torch, 30)
    assert losses[-1] < losses[0]
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = copy.deepcopy(model)
    again.load_state_dict(saved["model"])
    resumed = make_optimizer(again.parameters(), 0.5, **length)
    resumed.load_state_dict(saved["optimizer"])
    assert train(again, resumed, torch, 5) == train(model, optimizer, torch, 5)


@pytest.mark.slow
def test_schedulers_and_groups(folder: Path, torch: Any) -> None:
    """As an Optax schedule, and with constants that differ from group to group."""
    _, lion = make("lion", folder, torch)
    params = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))]
    groups = [{"params": params[:1], "wd": 0.0}, {"params": params[1:], "wd": 0.5}]
    optimizer = lion(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    native = rule_sources.load_rule("lion").as_optax
    txs = [native(lambda count: 0.1 * 0.5**count, wd=wd) for wd in (0.0, 0.5)]
    values, states = [jnp.ones(2)] * 2, [tx.init(jnp.ones(2)) for tx in txs]
    for _ in range(4):
        for i, tx in enumerate(txs):
            params[i].grad = params[i].detach() * 2.0
            updates, states[i] = tx.update(values[i] * 2.0, states[i], values[i])
            values[i] = values[i] + updates
        optimizer.step()
        scheduler.step()
    for p, value in zip(params, values, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), value, rtol=1e-6)


@pytest.mark.slow
def test_a_linear_layer_is_flaxs_kernel_transposed(folder: Path, torch: Any, x64: Any) -> None:
    """Embeddings, on the other hand, have flax's axes already; `param_groups` knows both."""
    module, scale = make("scale", folder, torch)  # It reads columns, and the last layer.

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(6, 4)
            self.hidden = torch.nn.Linear(4, 5)
            self.head = torch.nn.Linear(5, 3)

    model = Model().double()
    flax_names = {"embed.weight": ("embed", "embedding"), "hidden.weight": ("hidden", "kernel")}
    flax_names |= {"head.weight": ("head", "kernel"), "hidden.bias": ("hidden", "bias")}
    flax_names |= {"head.bias": ("head", "bias")}

    def tree(of: str) -> Any:
        found: dict[str, dict[str, Any]] = {}
        for name, p in model.named_parameters():
            layer, part = flax_names[name]
            x = (p if of == "param" else p.grad).detach().numpy().copy()
            found.setdefault(layer, {})[part] = jnp.asarray(x.T if part == "kernel" else x)
        return found

    optimizer = scale(module.param_groups(model), 0.1)
    assert [group["is_last"] for group in optimizer.param_groups] == [False, True, False]
    with x64():
        tx = rule_sources.load_rule("scale").as_optax(0.1)
        params = tree("param")
        state = tx.init(params)
        for step in range(5):
            for p in model.parameters():
                p.grad = torch.sin(7.0 * p.detach() + step)
            updates, state = tx.update(tree("grad"), state, params)
            params = optax.apply_updates(params, updates)
            optimizer.step()
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, 1e-10), tree("param"), params
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_other_dtypes_are_near_float64(name: str, folder: Path, torch: Any) -> None:
    """Parameters and state keep their dtype; `state_dtype` is the state's own, also from files."""
    _, make_optimizer = make(name, folder, torch)
    start = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(3, 4)

    def run(dtype: Any, state_dtype: Any = None) -> Any:
        p = torch.nn.Parameter(start.clone().to(dtype))
        optimizer = make_optimizer([p], 0.01, state_dtype=state_dtype)
        for _ in range(10):
            p.grad = p.detach() * 2.0 + 0.1
            optimizer.step()
        again = make_optimizer([p], 0.01)
        again.load_state_dict(optimizer.state_dict())
        assert p.dtype == dtype
        for one in (optimizer, again):
            assert {x.dtype for x in one.state[p].values() if torch.is_tensor(x)} == {
                state_dtype or dtype
            }
        return p.detach().double()

    exact = run(torch.float64)
    torch.testing.assert_close(run(torch.float32), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(run(torch.bfloat16), exact, rtol=0.05, atol=0.05)
    torch.testing.assert_close(run(torch.bfloat16, torch.float32), exact, rtol=0.03, atol=0.03)
    torch.testing.assert_close(run(torch.float32, torch.bfloat16), exact, rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_bad_use_is_a_clear_error(folder: Path, torch: Any) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    _, adam = make("adam", folder, torch)
    with pytest.raises(ValueError, match="b1 must be finite, and is nan"):
        adam([p], 0.1, b1=float("nan"))
    with pytest.raises(ValueError, match="lr must be at least 0, not -1"):
        adam([p], -1.0)
    _, polyak = make("polyak", folder, torch)
    p.grad = torch.ones(3)
    with pytest.raises(ValueError, match="give step"):
        polyak([p], 0.1).step()
    table = torch.nn.Embedding(3, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="dense"):
        adam(table.parameters(), 0.1).step()
    _, length = (
        Program,
        load(export_torch(Program.parse("def rule(w, g):\n    return g * (1 - progress)")), folder),
    )
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        length.Rule([p], 0.1, num_steps=0)


@pytest.mark.slow
def test_what_has_no_gradient_or_no_entries_is_left_alone(folder: Path, torch: Any) -> None:
    _, adam = make("adam", folder, torch)
    moved, frozen = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    empty = torch.nn.Parameter(torch.ones(0, 3))
    moved.grad, empty.grad = torch.ones(3), torch.ones(0, 3)
    optimizer = adam([moved, frozen, empty], 0.1)
    optimizer.step()
    assert list(optimizer.state) == [moved]
    assert torch.equal(frozen, torch.ones(3)) and not torch.equal(moved, torch.ones(3))


@pytest.mark.slow
def test_the_pages_code_runs(torch: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Of docs/how-to/pytorch.md, with the file that its command writes."""
    page = (ROOT / "docs" / "how-to" / "pytorch.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (command,) = re.findall(r"^veldt export .*", page, re.MULTILINE)
    assert cli.main(shlex.split(command)[1:]) == 0
    (code,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shown.py").write_text(code, encoding="utf-8")
    torch.manual_seed(0)
    found = runpy.run_path(str(tmp_path / "shown.py"))
    assert float(found["loss"]) < 0.5


def test_the_command_writes_the_file(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "lion_torch.py"
    assert cli.main(["export", "lion", "--to", "torch", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert path.read_text() == export_torch(rule_sources.load_rule("lion"))
    assert rule_sources.load_rule(path) == rule_sources.load_rule("lion")
