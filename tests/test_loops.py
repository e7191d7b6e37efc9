"""The code of docs/loops.md does what it says, and what the page says of hosts is so."""

import re
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from veldt.learned_opt import errors, registry
from veldt.tasks.inner_loop import trainable

TEXT = (Path(__file__).parents[1] / "docs" / "loops.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
NUM_STEPS = 2


def code_of(words: str) -> str:
    (text,) = [text for heading, text in SECTIONS if words in heading]
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def run(words: str, folder: Path) -> dict[str, Any]:
    path = folder / "shown.py"
    path.write_text(code_of(words), encoding="utf-8")
    return runpy.run_path(str(path))


def loss_fn(params: Any) -> jax.Array:
    return jnp.mean((jnp.ones((4, 3)) @ params["w"] + params["b"] - 1.0) ** 2)


class _Seen(NamedTuple):
    loss_sum: jax.Array


@pytest.fixture(scope="module")
def rule() -> Any:
    """Stands for all that read the loss: its steps and its state depend on it."""

    def update(
        updates: Any, state: _Seen, params: Any = None, *, value: Any = None, **_: Any
    ) -> tuple[Any, _Seen]:
        del params
        if value is None:
            raise errors.MissingInputError.value("the rule")
        state = _Seen(state.loss_sum + value)
        return jax.tree.map(lambda g: -0.1 * state.loss_sum * g, updates), state

    init = lambda params: _Seen(jnp.zeros(()))  # noqa: E731
    return trainable.skip_untrainable(optax.GradientTransformationExtraArgs(init, update))


def test_nnx_trains(tmp_path):
    losses = run("flax.nnx", tmp_path)["losses"]
    assert losses[-1] < losses[0]


def test_a_train_state_trains_as_a_plain_loop_does(tmp_path):
    found = run("without value=", tmp_path)
    tx = veldt.learned_optimizer("celo", num_steps=1000)
    params = {"w": jnp.ones((3, 2))}
    loss, grads = jax.value_and_grad(lambda params: jnp.mean(params["w"] ** 2))(params)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params, value=loss)
    expected = optax.apply_updates(params, updates)["w"]
    np.testing.assert_allclose(found["state"].params["w"], expected, rtol=1e-5)


def test_hyperparameters_are_injected(tmp_path):
    found = run("learning rate while", tmp_path)
    for name in ("tx", "rule"):
        assert "learning_rate" in found[name].init(PARAMS).hyperparams


def test_the_saved_state_is_the_state(tmp_path):
    found = run("save the state", tmp_path)
    expected = found["tx"].init(found["params"])
    assert jax.tree.structure(found["state"]) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found["state"], expected)


def given(tx: Any) -> Any:
    """The transform with the functions that a wrapper asks the loop for."""
    functions = {"obj_fn": loss_fn, "grad_fn": lambda params, _: jax.grad(loss_fn)(params)}

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return tx.update(updates, state, params, **functions, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


PASSING = {
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "named_chain": lambda tx: optax.named_chain(("rule", tx)),
    "multi_transform": lambda tx: optax.multi_transform(
        {"rule": tx, "sgd": optax.sgd(0.1)}, {"w": "rule", "b": "sgd"}
    ),
    "partition": lambda tx: optax.partition({"rule": tx}, {"w": "rule", "b": "rule"}),
    "masked": lambda tx: optax.masked(tx, {"w": True, "b": False}),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(
        lambda scale: optax.chain(tx, optax.scale(scale))
    )(scale=1.0),
    "flatten": optax.flatten,
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, lambda step: step < 9),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step < 9),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
    "GradientTransformationExtraArgs": lambda tx: optax.chain(
        optax.clip(1.0),
        optax.GradientTransformationExtraArgs(
            optax.MultiSteps(tx, 1).init, optax.MultiSteps(tx, 1).update
        ),
    ),
    "lookahead": veldt.wrappers.lookahead,
    "sam": lambda tx: given(veldt.wrappers.sam(tx)),
    "sam_alternating": veldt.wrappers.sam_alternating,
    "weight_prediction": veldt.wrappers.weight_prediction,
    "hutchinson": lambda tx: given(veldt.wrappers.hutchinson(tx)),
}


def moved(tx: Any, *, by_keyword: bool) -> Any:
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(NUM_STEPS):
        loss, grads = jax.value_and_grad(loss_fn)(params)
        if by_keyword:
            updates, state = tx.update(grads, state, params, value=loss)
        else:
            state = optax.tree.set(state, loss=loss)
            updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params["w"]


@pytest.mark.parametrize("host", PASSING)
def test_hosts_hand_over_the_loss_or_it_goes_in_by_the_state(host: str, rule: Any):
    """The same steps by both ways; and without either, an error that names the remedy."""
    assert f"`{host}" in TEXT or f"optax.{host}" in TEXT
    tx = PASSING[host](rule)
    by_state = PASSING[host](veldt.loss_in_state(rule))
    np.testing.assert_array_equal(moved(tx, by_keyword=True), moved(by_state, by_keyword=False))
    with pytest.raises(errors.MissingInputError, match=r"veldt\.loss_in_state.*docs/loops\.md"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_every_optimizer_that_reads_the_loss_says_what_to_do_without():
    for name in registry.names():
        small = {"lstm_size": 4, "bank_size": 2} if name.startswith("velo") else {}
        architecture = registry.architecture(name, **small)

        def step(key: Any, architecture: Any = architecture) -> Any:
            tx = architecture.as_optax(architecture.init(key), 10)
            return tx.update(PARAMS, tx.init(PARAMS), PARAMS)

        is_steered = getattr(architecture, "scale", "") == "recurrent"
        if is_steered or "Reads the loss" in (type(architecture).__doc__ or ""):
            assert f"`{name.removesuffix('_small')}`" in TEXT
            with pytest.raises(errors.MissingInputError, match=r"veldt\.loss_in_state"):
                jax.eval_shape(step, jax.random.key(0))
        else:
            jax.eval_shape(step, jax.random.key(0))


def test_a_loss_that_was_not_written_is_noticed(rule: Any):
    tx = veldt.loss_in_state(rule)
    state = tx.init(PARAMS)
    with pytest.raises(errors.MissingInputError, match=r"optax\.tree\.set"):
        tx.update(PARAMS, state, PARAMS)
    updates, after = jax.jit(tx.update)(PARAMS, state, PARAMS)
    assert np.isnan(updates["w"]).all()
    assert jax.tree.structure(after) == jax.tree.structure(state)
    # Nor is one used twice.
    _, after = tx.update(PARAMS, optax.tree.set(state, loss=1.0), PARAMS)
    with pytest.raises(errors.MissingInputError, match=r"optax\.tree\.set"):
        tx.update(PARAMS, after, PARAMS)
