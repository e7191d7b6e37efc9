"""A user's task that misbehaves, at every stage and in every way: an error that names it."""

import itertools
import os
import signal
import threading

import jax
import jax.numpy as jnp
import pytest

from veldt.tasks import base, registry
from veldt.tasks.common import errors
from veldt.tasks.common.user_code import error_origin, imports
from veldt.tasks.pool import base as pool_base
from veldt.tasks.pool import inline

STAGES = (
    *("module", "__init__", "init", "loss", "train_batch", "eval_batch", "normalizer", "sample"),
    "gather",
)
DEEDS = {
    "raises": "raise ValueError('mine')",
    "raises its own kind": "raise Strange('mine')",
    "recurses": "f = lambda: f(); f()",
    "sys.exit": "sys.exit(3)",
    "os._exit": "os._exit(3)",
    "returns another shape": "return jnp.zeros((7,))",
    "returns text": "return 'text'",
    "returns nothing": "return None",
    "returns integers": "return jnp.zeros((), jnp.int32)",
}
TEMPLATE = """
import os, sys
import jax, jax.numpy as jnp
from veldt.tasks import base

class Strange(BaseException):
    pass

{module}

class Bowl(base.Task):
    name = "bowl"

    def __init__(self):
        {__init__}
        self.zero = jnp.zeros(())

    def init(self, key):
        {init}
        return {{"w": jax.random.normal(key, (3,))}}

    def loss(self, params, key, batch):
        {loss}
        return jnp.sum((params["w"] - batch["x"] @ batch["y"]) ** 2), {{}}

    def train_batch(self, key):
        {train_batch}
        return {{"x": jax.random.normal(key, (3, 3)), "y": jnp.ones((3,))}}

    def eval_batch(self, split):
        {eval_batch}
        return {{"x": jnp.zeros((3, 3)), "y": jnp.ones((3,))}}

    def normalizer(self, loss):
        {normalizer}
        return base.clip_normalized(loss)

    def sample(self, key):
        {sample}
        return key

    def gather(self, key):
        {gather}
        return self.train_batch(key)
"""


def source(stage, deed):
    return TEMPLATE.format(**{each: DEEDS[deed] if each == stage else "" for each in STAGES})


CASES = [
    (stage, deed)
    for stage, deed in itertools.product(STAGES, DEEDS)
    # What a module cannot do, and what is right there.
    if not (stage == "module" and deed.startswith("returns"))
    and (stage, deed) != ("__init__", "returns nothing")
]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        name = f"strange_{abs(hash((str(tmp_path), text)))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.mark.parametrize(("stage", "deed"), CASES)
def test_at_every_stage_it_is_an_error_that_names_the_task(stage, deed, write):
    name = write(source(stage, deed))
    really = os._exit
    with pytest.raises(errors.TaskError) as caught:
        registry.load_task(f"{name}:Bowl")
    assert f"{name}:Bowl" in str(caught.value)
    assert os._exit is really
    if stage not in ("module", "__init__") and deed in ("raises", "sys.exit", "os._exit"):
        assert f"`{stage}` cannot be traced" in str(caught.value)


def test_ctrl_c_is_let_through(write):
    module = source("init", "raises").replace("ValueError('mine')", "KeyboardInterrupt")
    name = write(module)
    with pytest.raises(KeyboardInterrupt):
        registry.load_task(f"{name}:Bowl")


def test_what_prints_and_sleeps_is_loaded(write, capfd):
    text = source("init", "raises").replace("raise ValueError('mine')", "print('hello')")
    assert isinstance(registry.load_task(f"{write(text)}:Bowl"), base.Task)
    assert "hello" in capfd.readouterr().out


@pytest.mark.filterwarnings("ignore")  # JAX's, of any fork.
def test_a_forked_child_ends_as_it_should():
    with imports.no_exit():
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with pytest.raises(SystemExit, match=r"os\._exit\(7\)"):
            os._exit(7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("how", ["traced", "called back"])
@pytest.mark.parametrize("deed", ["raises", "sys.exit"])
def test_a_job_says_where_in_the_users_file_it_failed(num_workers, how, deed, write, monkeypatch):
    name = write(f"import sys\ndef late(*_):\n    {DEEDS[deed]}\n")
    late = imports.load_object("task", f"{name}:late")

    def work(payload):
        if how == "traced":
            return jax.jit(lambda x: late(x) or x)(1.0)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return float(jax.jit(lambda x: jax.pure_callback(late, shape, x))(jnp.float32(1.0)))

    with inline.InlinePool(lambda: work, num_workers) as pool:
        pool.submit(pool_base.Job(0, None))
        result = pool.next_result(60)
    assert result.status is pool_base.JobStatus.ERROR
    what = "ValueError: mine" if deed == "raises" else "SystemExit: 3"
    assert result.message.endswith(f"{name}.py, line 3, in late)")
    assert result.message.startswith(what) and "\n" not in result.message


def test_files_are_distinguished():
    assert error_origin.is_theirs(__file__)
    for ours in (base.__file__, jax.__file__, threading.__file__, "<string>", signal.__file__):
        assert not error_origin.is_theirs(ours)
    try:
        registry.load_task(3)
    except TypeError as error:
        here = error_origin.describe(error)
    assert "test_files_are_distinguished" in here
    assert error_origin.describe(ValueError("never raised")) is None
