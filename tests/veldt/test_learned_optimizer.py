"""`veldt.learned_optimizer`: two lines in a user's training, whatever the model is made of."""

import functools
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from veldt import cli, evaluation
from veldt.learned_opt import errors, registry, shipped, weight_files
from veldt.learned_opt.candidate import LearnedCandidate
from veldt.search import errors as search_errors
from veldt.tasks.benchmark.runs import costs

ROOT = Path(__file__).parents[2]
# Small and quick to compile; what is tested here is the way to them.
SIZES = {"mlp": {"hidden_size": 2}, "celo": {"lstm_size": 3, "hidden_size": 2}, "celo2": {}}


def write(path, name, **record):
    rule = registry.architecture(name, **SIZES[name])
    meta_params = jax.tree.map(
        lambda s: np.random.default_rng(0).normal(scale=0.5, size=s.shape).astype(np.float32),
        jax.eval_shape(rule.init, jax.random.key(0)),
    )
    weight_files.write(path, weight_files.Weights(name, rule, meta_params, record))
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A user's folder: weights in files and in a run directory; the current directory."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.npz", "mlp", tasks=["digits_mlp", "mine:Task"])
    (tmp_path / "my_run").mkdir()
    write(tmp_path / "my_run" / "weights.npz", "mlp", tasks=["quadratic"])
    return tmp_path


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    """Shipped weights: one file."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    write(folder / "my_celo2.npz", "celo2")
    for function in (shipped.names, shipped.find):
        monkeypatch.setattr(function, "__defaults__", (folder,))
    return folder


# ------------------------------------------------------------------ where weights come from


def test_a_source_is_a_shipped_name_a_file_or_a_run_directory(here, weights_folder):
    assert shipped.names() == ["my_celo2"]
    assert shipped.find("my_celo2") == weights_folder / "my_celo2.npz"
    assert shipped.find("small.npz") == Path("small.npz")
    assert shipped.find(here / "my_run") == here / "my_run" / "weights.npz"
    assert isinstance(shipped.load("my_celo2").architecture, type(registry.architecture("celo2")))


def test_sources_without_weights_say_what_there_is(here, weights_folder):
    with pytest.raises(errors.WeightsError, match=r"you mean 'my_celo2'\?\)\. Shipped: my_celo2"):
        veldt.learned_optimizer("my_celo")
    with pytest.raises(errors.WeightsError, match=r"my_celo\.npz: there is no such weight file"):
        veldt.learned_optimizer("my_celo.npz")
    (here / "empty").mkdir()
    with pytest.raises(errors.WeightsError, match=r"empty: a directory without weights\.npz"):
        veldt.learned_optimizer("empty")


def test_options_are_the_architectures_own(here, weights_folder):
    params, grads = {"w": jnp.ones(2)}, {"w": jnp.array([0.5, -0.5])}

    def first_step(**options):  # Celo2 leaves vectors to Adam, at twenty times the rate.
        tx = veldt.learned_optimizer("my_celo2", **options)
        return tx.update(grads, tx.init(params), params)[0]["w"]

    np.testing.assert_allclose(first_step(learning_rate=0.1), [-2.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(first_step(), [-0.02, 0.02], rtol=1e-5)
    with pytest.raises(errors.UnknownOptionError, match=r"'learning_rat' \(did you mean 'learn"):
        veldt.learned_optimizer("my_celo2", learning_rat=0.1)
    with pytest.raises(errors.UnknownOptionError, match=r"takes no option 'lr'\. Options: none"):
        veldt.learned_optimizer("small.npz", lr=0.1)


def test_a_missing_length_is_an_error_that_names_it(here):
    write(here / "celo.npz", "celo")
    with pytest.raises(errors.MissingInputError, match="num_steps"):
        veldt.learned_optimizer("celo.npz")


def test_a_fresh_process_prints_nothing_and_loads_no_more_than_it_needs(here):
    code = (
        "import sys, veldt\n"
        "veldt.learned_optimizer(sys.argv[1], num_steps=10)\n"
        "heavy = {'flax', 'ray', 'evosax', 'matplotlib', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(here / "small.npz")],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ------------------------------------------------------------------ what it trains


def make_tx(path="small.npz", **options):
    """The one line that is the user's."""
    return optax.chain(optax.clip_by_global_norm(1.0), veldt.learned_optimizer(path, **options))


def test_it_trains_a_shipped_task(here):
    curve = veldt.train(veldt.load_task("digits_mlp"), make_tx(), num_steps=3)
    assert np.isfinite(curve.train_losses).all()
    assert len(set(curve.train_losses)) == 3


@pytest.mark.slow
def test_a_rule_that_reads_the_loss_and_the_length_trains_a_shipped_task(here):
    write(here / "celo.npz", "celo")
    tx = make_tx("celo.npz", num_steps=3)
    curve = veldt.train(veldt.load_task("digits_mlp"), tx, num_steps=3)
    assert np.isfinite(curve.train_losses).all()
    assert len(set(curve.train_losses)) == 3


X, Y = jnp.linspace(-1, 1, 12).reshape(6, 2), jnp.arange(6.0)[:, None]


jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def one_step(loss, params):
    @jit
    def step(params):
        tx = make_tx()
        value, grads = jax.value_and_grad(loss)(params)
        updates, _ = tx.update(grads, tx.init(params), params, value=value)
        return optax.apply_updates(params, updates)

    return step(params)


def assert_moved(before, after):
    assert jax.tree.structure(before) == jax.tree.structure(after)
    leaves = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    assert leaves and all(np.all(a != b) and np.isfinite(b).all() for a, b in leaves)


def test_it_trains_a_linen_model(here):
    model = flax.linen.Dense(1)
    params = model.init(jax.random.key(0), X)["params"]
    after = one_step(lambda p: jnp.mean((model.apply({"params": p}, X) - Y) ** 2), params)
    assert_moved(params, after)


def test_it_trains_an_nnx_model(here):
    model = flax.nnx.Linear(2, 1, rngs=flax.nnx.Rngs(0))
    optimizer = flax.nnx.Optimizer(model, make_tx(), wrt=flax.nnx.Param)
    before = jax.tree.map(jnp.copy, flax.nnx.state(model))

    @flax.nnx.jit
    def step(model, optimizer):
        value, grads = flax.nnx.value_and_grad(lambda m: jnp.mean((m(X) - Y) ** 2))(model)
        optimizer.update(model, grads, value=value)

    step(model, optimizer)
    assert_moved(before, flax.nnx.state(model))


@jax.tree_util.register_dataclass
@dataclass
class Module:
    """As Equinox has them: arrays, `None` where a gradient has no leaf, and static fields."""

    weight: jax.Array
    bias: jax.Array | None
    activation: str = field(default="tanh", metadata={"static": True})


def test_it_trains_a_tree_with_static_fields_and_nones(here):
    params = [Module(jnp.ones((2, 3)), None), Module(jnp.ones((3, 1)), jnp.ones(1), "relu")]

    def loss(modules):
        one, two = modules
        return jnp.mean((jnp.tanh(X @ one.weight) @ two.weight + two.bias - Y) ** 2)

    after = one_step(loss, params)
    assert_moved(params, after)
    assert after[0].bias is None and after[1].activation == "relu"


# ------------------------------------------------------------------ as a candidate


def test_weights_are_a_candidate_that_is_not_tuned(here, weights_folder):
    for source, name, tasks in (
        ("my_celo2", "my_celo2", set()),
        ("small.npz", "small", {"digits_mlp", "mine:Task"}),
        (here / "my_run", "my_run", {"quadratic"}),
    ):
        found = evaluation.load_candidate(source)
        assert isinstance(found, LearnedCandidate)
        assert (found.name, found.rates, found.selected_on) == (name, (1.0,), tasks)
        found.check()
        assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301
    assert evaluation.as_candidate("small.npz", "mine").name == "mine"


def test_a_candidates_identity_is_its_content_and_options(here):
    one = evaluation.load_candidate("small.npz")
    (here / "copy.npz").write_bytes((here / "small.npz").read_bytes())
    assert evaluation.load_candidate("copy.npz").identity == one.identity
    write(here / "small.npz", "mlp", tasks=["digits_mlp"], seed=1)
    assert evaluation.load_candidate("small.npz").identity != one.identity
    options = LearnedCandidate(one.name, one.content, (("learning_rate", 0.1),))
    assert options.identity != one.identity
    assert one.with_rates((0.1, 1.0)).rates == (0.1, 1.0)


def test_a_candidate_gets_the_length_of_the_run_and_the_rate_is_a_factor(here):
    write(here / "celo.npz", "celo")
    candidate = evaluation.load_candidate("celo.npz")
    params, grads = {"w": jnp.ones((2, 2))}, {"w": jnp.arange(4.0).reshape(2, 2) - 1}

    @jit
    def first_steps(rate):
        chains = (
            veldt.learned_optimizer("celo.npz", num_steps=7),
            candidate.make_tx(rate, 7),
            candidate.make_tx(lambda step: rate, 7),
        )
        return [tx.update(grads, tx.init(params), params, value=1.0)[0]["w"] for tx in chains]

    plain, fixed, scheduled = first_steps(0.5)
    np.testing.assert_allclose(fixed, 0.5 * plain, rtol=1e-6)
    np.testing.assert_allclose(scheduled, 0.5 * plain, rtol=1e-6)
    assert np.all(plain != 0)
    with pytest.raises(errors.MissingInputError, match="got 0"):
        candidate.make_tx(1.0, 0)


def test_what_is_no_weight_file_is_the_commands_plain_error(here, capsys):
    (here / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(errors.WeightsError, match=r"bad\.npz: no weight file"):
        evaluation.load_candidate("bad.npz")
    assert cli.main(["evaluate", "bad.npz", "--suite", "smoke"]) == cli.FAILURE
    assert capsys.readouterr().err.startswith("error: bad.npz: no weight file")
    (here / "empty").mkdir()
    with pytest.raises(search_errors.SearchError, match="holds no best rule"):
        evaluation.load_candidate("empty")


LINE = """
import jax.numpy as jnp

import veldt
from veldt.tasks import base


class Line(veldt.Task):
    name = "line"

    def init(self, key):
        return {"slope": jnp.array([0.1])}

    def loss(self, params, key, batch):
        return jnp.mean((params["slope"] * batch - 2.0 * batch) ** 2), {}

    def train_batch(self, key):
        return jnp.linspace(-1.0, 1.0, 8)

    def eval_batch(self, split):
        return jnp.linspace(-1.0, 1.0, {"train": 8, "valid": 5, "test": 7}[split])

    def normalizer(self, loss):
        return base.clip_normalized(loss)
"""


@pytest.mark.slow
def test_the_command_compares_weights_with_baselines(here, capsys):
    (here / "learned_line.py").write_text(LINE)
    (here / "suite.yaml").write_text(
        "name: mine\ndescription: one line\n"
        'tasks:\n  - {task: "learned_line:Line", num_steps: 25}\n'
    )
    words = ["evaluate", "small.npz", "my_run", "--suite", "suite.yaml", "--out", "out"]
    try:
        assert cli.main([*words, "--pool.num-workers", "1"]) == cli.OK
    finally:
        sys.modules.pop("learned_line", None)
    data = json.loads((here / "out" / "results.json").read_text())
    assert [row["name"] for row in data["rows"]][:2] == ["small", "my_run"]
    assert data["rows"][0]["untuned_rate"] == 1.0
    capsys.readouterr()


def test_the_cost_of_a_step_can_be_measured(here):
    candidate = evaluation.load_candidate("small.npz")
    task = veldt.load_task("quadratic")
    assert costs.state_bytes(task, candidate) >= 6 * 4  # Six momenta.
