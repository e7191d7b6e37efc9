"""Everything that leaves veldt as an Optax transform, in other people's hands.

Rules, what `veldt export` writes, learned optimizers and shipped weights, and what a tuning makes:
their states go through flax.nnx, `flax.serialization`, Orbax and NumPy's archives, for trees of
dicts, of lists and tuples, and for single arrays; and leaves that nobody trains stay as they are.
Most of that is about structure, and so is traced and not run.
"""

import functools
import importlib.util
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import veldt
from veldt.learned_opt import registry, shipped, wrappers
from veldt.learned_opt.loss_in_state import LossInState
from veldt.meta.tune.training import optimizers
from veldt.search import rule_sources
from veldt.search.export.optax_module import export_optax
from veldt.search.language.ops import INTERPRETED
from veldt.search.runtime.encode import Capacity, encode
from veldt.search.runtime.interpreter import interpret
from veldt.search.runtime.optax_transform import scale_by_program
from veldt.tasks.inner_loop.flat import Layout

LOSS = jnp.float32(1.5)
SMALL = {"lstm_size": 4, "bank_size": 2}
TREES = {
    "dict": {"net": {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}},
    "sequence": [np.ones((3, 2), np.float32), (np.ones(2, np.float32), np.float32(1.0))],
    "array": np.ones((3, 2), np.float32),
}
ODD: Any = {
    "kernel": jnp.ones((3, 2)),
    "bias": jnp.ones(2),
    "scale": jnp.ones(()),
    "empty": jnp.zeros((0,)),
    "no_rows": jnp.zeros((0, 4)),
    "no_columns": jnp.zeros((4, 0)),
    "key": jnp.array([16777217, 4294967295], jnp.uint32),  # no float32 holds either
    "counter": jnp.array(7),
    "flag": jnp.array(True),
    "nothing": None,
}


def of_rule(name: str, folder: Path) -> Any:
    del folder
    return rule_sources.load_rule(name).as_optax(0.1, **length_for(name))


def length_for(name: str) -> dict[str, int]:
    """The length of the run, for rules that read how far it is."""
    reads = rule_sources.load_rule(name).lower().live_of_run
    return {"num_steps": 100} if "progress" in reads else {}


def exported_factory(name: str, folder: Path) -> Any:
    path = folder / f"{name}_exported.py"
    path.write_text(export_optax(rule_sources.load_rule(name)), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def of_export(name: str, folder: Path) -> Any:
    return exported_factory(name, folder)(0.1, **length_for(name))


def of_architecture(name: str, folder: Path) -> Any:
    del folder
    fields = SMALL if name.startswith("velo") else {}
    architecture = registry.architecture(name, **fields)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(architecture.init, jax.random.key(0))
    meta_params = jax.tree.map(lambda x: (0.1 * rng.normal(size=x.shape)).astype(x.dtype), shapes)
    return architecture.as_optax(meta_params, 100)


def of_weights(name: str, folder: Path) -> Any:
    del folder
    return veldt.learned_optimizer(name, num_steps=100)


def of_weights_with_loss_in_state(name: str, folder: Path) -> Any:
    return veldt.loss_in_state(of_weights(name, folder))


def objective(params: Any) -> Any:
    """Of any tree, also with leaves that nobody trains."""
    return sum(jnp.sum(jnp.asarray(x, jnp.float32) ** 2) for x in jax.tree.leaves(params))


def of_wrapper(name: str, folder: Path) -> Any:
    """A wrapper, with the functions that it asks the loop for."""
    del folder
    wrapper, _, around = name.partition(" of ")
    tx = getattr(wrappers, wrapper)(
        of_weights(around, Path()) if around in shipped.names() else of_rule(around, Path())
    )
    given = {
        "obj_fn": objective,
        "grad_fn": lambda params, _: jax.grad(objective, allow_int=True)(params),
    }

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return tx.update(updates, state, params, **given, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def of_tuning(name: str, folder: Path) -> Any:
    del folder
    schedule = optax.linear_schedule(0.1, 0.01, 10)
    values = {"learning_rate": schedule}
    return optimizers.make(name, values, {"kernels": "kernel"}, {"kernels": jnp.float32(0.5)})


WRAPPED = [
    f"{wrapper} of {around}"
    for wrapper in sorted({*wrappers.__all__} - {"eval_params"})
    for around in ("muon", "celo2")
]
MAKERS: dict[str, tuple[Callable[[str, Path], Any], list[str]]] = {
    "rule": (of_rule, list(rule_sources.RULE_NAMES)),
    "export": (of_export, list(rule_sources.RULE_NAMES)),
    "architecture": (of_architecture, registry.names()),
    "weights": (of_weights, shipped.names()),
    "loss in state": (of_weights_with_loss_in_state, shipped.names()),
    "wrapper": (of_wrapper, WRAPPED),
    "tuned": (of_tuning, list(optimizers.FACTORIES)),
}
ALL = [(kind, name) for kind, (_, names) in MAKERS.items() for name in names]
# What is traced in the fast tests: of many alike some, and those whose states are unlike others'.
SOME = ("adafactor", "adam", "apollo", "carom", "dog", "muon", "muon_linear", "sgd", "shampoo")
# Of the same classes as others.
ALIKE = ("adafac_mlp_wide", "velo")
# What is run there.
RUN = (
    ("rule", "muon"),
    ("rule", "carom"),
    ("export", "carom"),
    ("wrapper", "lookahead of muon"),
    ("wrapper", "sam of muon"),
    ("wrapper", "sam_alternating of muon"),
    ("wrapper", "weight_prediction of muon"),
    ("wrapper", "hutchinson of muon"),
)


def kinds() -> list[Any]:
    """Each kind with the names to walk: some of them, and in a slow test all."""
    found: list[Any] = []
    for kind, (_, names) in MAKERS.items():
        some = [name for name in names if name in SOME] if len(names) > 12 else names
        some = [name for name in some if name not in ALIKE]
        found.append(pytest.param(kind, some, id=kind))
        if len(some) < len(names):
            found.append(pytest.param(kind, names, id=f"all of {kind}", marks=pytest.mark.slow))
    return found


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    folder = tmp_path_factory.mktemp("exported")
    return functools.cache(lambda kind, name: MAKERS[kind][0](name, folder))


def steps(tx: Any, params: Any, num_steps: int = 2) -> Any:
    """The parameters and the state after some steps."""
    state = tx.init(params)
    for _ in range(num_steps):
        updates, state = tx.update(params, state, params, value=LOSS)
        params = optax.apply_updates(params, updates)
    return params, state


def same_form(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(one)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(other)
    ]


def some_state(tx: Any, params: Any) -> Any:
    """A state as after some steps, of any numbers."""
    rng = np.random.default_rng(0)
    _, state = jax.eval_shape(lambda params: steps(tx, params), params)
    return jax.tree.map(lambda x: np.asarray(5 * rng.random(x.shape)).astype(x.dtype), state)


def by_serialization(state: Any, target: Any) -> Any:
    plain = flax.serialization.to_state_dict(state)
    jax.tree.map(
        np.testing.assert_array_equal, flax.serialization.from_state_dict(target, plain), state
    )
    return flax.serialization.from_bytes(target, flax.serialization.to_bytes(state))


def by_numpy(state: Any, target: Any) -> Any:
    file = io.BytesIO()
    np.savez(file, *jax.tree.leaves(state))
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        leaves = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize(("kind", "names"), kinds())
def test_states_keep_their_form_and_come_back_from_files(
    kind: str, names: Any, tree: str, make: Any, tmp_path: Path
):
    """The form is that of `init` after every update, as `lax.scan` wants; files give all back."""
    params = TREES[tree]
    states = {}
    for name in names:
        tx = make(kind, name)
        target = jax.eval_shape(tx.init, params)
        states[name] = state = some_state(tx, params)
        same_form(state, target)
        for way in (by_serialization, by_numpy):
            restored = way(state, target)
            same_form(restored, state)
            jax.tree.map(np.testing.assert_array_equal, restored, state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(
            tmp_path / "states", jax.tree.map(ocp.utils.to_shape_dtype_struct, states)
        )
    same_form(restored, states)
    jax.tree.map(np.testing.assert_array_equal, restored, states)


class Model(nnx.Module):
    """A list of layers, so that the parameters' tree has numbers for names too."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)])
        self.scale = nnx.Param(jnp.ones(()))

    def loss(self) -> Any:
        x = jnp.ones((4, 3))
        for layer in self.layers:
            x = layer(x)
        return jnp.mean((self.scale[...] * x - 1.0) ** 2)


def nnx_step(model: Any, optimizer: Any) -> Any:
    loss, grads = nnx.value_and_grad(lambda model: model.loss())(model)
    optimizer.update(model, grads, value=loss)
    return loss


@pytest.mark.parametrize(("kind", "names"), kinds())
def test_nnx_optimizer_keeps_what_update_reads(kind: str, names: Any, make: Any):
    def run(tx: Any) -> Any:
        model = Model()
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        before = nnx.as_pure(optimizer.opt_state)
        for _ in range(3):
            nnx_step(model, optimizer)
        return before, nnx.as_pure(optimizer.opt_state)

    for name in names:
        same_form(*jax.eval_shape(functools.partial(run, make(kind, name))))


def run_in_hosts(tx: Any) -> None:
    """Five steps in a plain loop and in nnx."""
    model = Model()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params = nnx.to_pure_dict(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        def loss_fn(params: Any) -> Any:
            model = nnx.merge(graph, params, rest)
            return model.loss()

        loss, grads = jax.value_and_grad(loss_fn)(nnx.State(params))
        grads = nnx.to_pure_dict(grads)
        updates, state = tx.update(grads, state, params, value=loss)
        return loss, optax.apply_updates(params, updates), state

    state = tx.init(params)
    plain = []
    for _ in range(5):
        loss, params, state = step(params, state)
        plain.append(float(loss))

    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    compiled = nnx.jit(nnx_step)
    in_nnx = [float(compiled(model, optimizer)) for _ in range(5)]
    np.testing.assert_allclose(in_nnx, plain, rtol=1e-4)


@pytest.mark.parametrize(("kind", "name"), [RUN[1]])
def test_losses_in_nnx_are_those_of_a_plain_loop(kind: str, name: str, make: Any):
    run_in_hosts(make(kind, name))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [each for each in ALL if each != RUN[1]])
def test_losses_in_nnx_are_those_of_a_plain_loop_for_all(kind: str, name: str, make: Any):
    run_in_hosts(make(kind, name))


@pytest.mark.parametrize(("kind", "names"), kinds())
def test_train_state_takes_all(kind: str, names: Any, make: Any):
    """Those that read the loss have it in their state there."""
    params = TREES["dict"]
    for name in names:
        tx = make(kind, name)
        reads = kind in ("architecture", "weights")
        if kind in ("rule", "export"):
            reads = "loss" in rule_sources.load_rule(name).lower().live_of_run
        tx = veldt.loss_in_state(tx) if reads else tx

        def run(params: Any, tx: Any = tx) -> Any:
            state = TrainState.create(apply_fn=None, params=params, tx=tx)
            for _ in range(2):
                if "LossInState" in type(state.opt_state).__name__:
                    opt_state = optax.tree.set(state.opt_state, loss=LOSS)
                    state = state.replace(opt_state=opt_state)
                state = state.apply_gradients(grads=params)
            return state.params, flax.serialization.to_state_dict(state)["params"]

        same_form(*jax.eval_shape(run, params))


def odd_grads(params: Any) -> Any:
    """What JAX gives for such a tree: float0 for integers and booleans."""

    return jax.grad(objective, allow_int=True)(params)


def only_trained(params: Any) -> Any:
    return {name: params[name] for name in ("kernel", "bias", "scale")}


def odd_steps(tx: Any, params: Any) -> Any:
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(odd_grads(params), state, params, value=LOSS)
        params = optax.apply_updates(params, updates)
    return params, updates, state


@pytest.mark.parametrize(("kind", "names"), kinds())
def test_leaves_that_nobody_trains_are_skipped(kind: str, names: Any, make: Any):
    if kind == "tuned":
        pytest.skip("Optax's own transforms, which take no float0")
    for name in names:
        tx = make(kind, name)
        params, updates, state = jax.eval_shape(functools.partial(odd_steps, tx), ODD)
        same_form(params, ODD)
        for field in ("key", "counter", "empty", "no_rows", "no_columns"):
            assert updates[field].dtype == ODD[field].dtype, name
        same_form(state, jax.eval_shape(tx.init, ODD))
        # It is as if they were not there.
        expected = jax.eval_shape(tx.init, only_trained(ODD))
        assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(expected)), name


def check_odd(tx: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params, updates, state = jax.jit(functools.partial(odd_steps, tx))(ODD)
    if isinstance(state, LossInState):  # Its loss is -inf until the next one is written.
        state = state.inner
    for leaf in jax.tree.leaves((params, updates, state)):
        assert np.isfinite(leaf).all()
    for field in set(ODD) - {"nothing"} - set(only_trained(ODD)):
        np.testing.assert_array_equal(params[field], ODD[field])
        assert params[field].dtype == ODD[field].dtype
    trained, *_ = jax.jit(functools.partial(odd_steps, tx))(only_trained(ODD))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), only_trained(params), trained
    )


@pytest.mark.parametrize(("kind", "name"), RUN)
def test_they_keep_their_bits_and_change_nothing_else(kind: str, name: str, make: Any):
    check_odd(make(kind, name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [each for each in ALL if each not in RUN and each[0] != "tuned"]
)
def test_they_keep_their_bits_and_change_nothing_else_for_all(kind: str, name: str, make: Any):
    check_odd(make(kind, name))


def test_updates_without_parameters_are_skipped_too():
    """SGD and its like read no parameters: then gradients say what is trained."""
    for tx in (
        rule_sources.load_rule("momentum").as_optax(0.1),
        rule_sources.load_rule("sgd").as_optax(0.1),
    ):
        scale = optax.with_extra_args_support(tx)
        with pytest.raises(ValueError, match="reads the parameters"):
            scale.update(odd_grads(ODD), scale.init(ODD))


def test_the_interpreter_passes_over_tensors_without_entries():
    """As the native transform does, for every instruction and role."""
    rule = rule_sources.load_rule("muon")
    params = {name: ODD[name] for name in ("kernel", "bias", "empty", "no_rows", "no_columns")}
    layout = Layout.of(params)
    ops = tuple(name for name in rule_ops(rule) if name in INTERPRETED)
    capacity = Capacity(statements=64, registers=80, ops=ops)
    encoded = encode(rule, num_steps=4, capacity=capacity)
    tx, native = interpret(encoded, layout, capacity=capacity), scale_by_program(rule)
    vector = layout.ravel(params)
    update, _ = jax.jit(tx.update)(vector, tx.init(vector), vector)
    expected, _ = jax.jit(native.update)(params, native.init(params), params)
    np.testing.assert_allclose(update, layout.ravel(expected), rtol=1e-4, atol=1e-5)


def rule_ops(rule: Any) -> list[str]:
    return sorted({statement.op for statement in rule.statements})
