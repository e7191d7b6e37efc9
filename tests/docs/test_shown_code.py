"""The Python that the README and the site show does what they say."""

import ast
import json
import runpy
from pathlib import Path
from typing import Any

import jax
import pytest

import veldt
from tests.docs import pages
from veldt import config
from veldt.meta.train import run_meta_training
from veldt.meta.train.config import MetaTrainConfig

TESTED_ELSEWHERE = {pages.DOCS / "loops.md"}  # By `test_loops.py`.
SHOWN = [
    page for page in pages.ALL if page not in TESTED_ELSEWHERE and pages.blocks(page, "python")
]
SLOW = {"python", "use_a_rule", "meta_train", "learn_a_schedule", "baselines", "hypergradients"}
FOR_THE_READER = {"my_program", "theta_file"}
"""Names that a reader has to fill in."""


def is_program(code: str) -> bool:
    return code.startswith("def ") and "(w, g" in code


def is_whole(code: str) -> bool:
    """Whether a block needs nothing that a reader has to fill in."""
    nodes = ast.walk(ast.parse(code))
    read = {node.id for node in nodes if isinstance(node, ast.Name)}
    return code.startswith("def ") or not read & FOR_THE_READER


def code_of(page: Path) -> str:
    shown = pages.blocks(page, "python")
    return "\n".join(code for code in shown if not is_program(code) and is_whole(code))


def runnable() -> list[Any]:
    """The pages to run, each code once."""
    by_code = {code_of(page): page for page in SHOWN if code_of(page)}
    return [
        pytest.param(page, marks=pytest.mark.slow if page.stem in SLOW else ())
        for page in by_code.values()
    ]


@pytest.mark.parametrize("page", runnable(), ids=pages.name)
def test_code_runs(page, tmp_path):
    path = tmp_path / f"{page.stem}_shown.py"
    path.write_text(code_of(page), encoding="utf-8")
    found = runpy.run_path(str(path))
    if page.stem == "use_a_rule":
        assert found["after"] < 0.5 * found["before"]
        assert max(found["losses"].values()) < 0.5 * found["before"]
    if page.stem == "python":
        assert found["found"].finished and found["rows"]
    if page.stem == "learn_a_schedule":
        assert found["tuned"].outcomes[0] > 0.4
        assert found["tuned"].outcome < 0.2


@pytest.mark.parametrize("page", SHOWN, ids=pages.name)
def test_programs_are_the_rules_that_they_say(page):
    for code in filter(is_program, pages.blocks(page, "python")):
        program = veldt.Program.parse(code)
        shipped = veldt.load_rule(program.name)
        constants = dict(shipped.constants)
        for name, value in program.constants:  # Shown with three digits.
            assert value == pytest.approx(constants[name], rel=1e-3)
        same = shipped.with_constants(**dict(program.constants))
        assert program.lower().structural_hash == same.lower().structural_hash


def test_the_task_shown_is_a_task(tmp_path, monkeypatch):
    short, code = pages.blocks(pages.DOCS / "how-to" / "own_task.md", "python")
    (tmp_path / "my_spiral.py").write_text(short)
    (tmp_path / "my_task.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    made = veldt.load_task("my_spiral:make_spiral")
    assert len(short.splitlines()) < 0.6 * len(code.splitlines())
    assert made.train_batch(jax.random.key(0)).inputs.shape == (64, 2)
    task = veldt.load_task("my_task:Spiral")

    @jax.jit
    def begin(task, key):
        params = task.init(key)
        batch = task.train_batch(key)
        _, grads = jax.value_and_grad(lambda params: task.loss(params, key, batch)[0])(params)
        loss, _ = task.loss(params, key, task.eval_batch("valid"))
        return task.normalizer(loss), params, grads

    loss, params, grads = begin(task, jax.random.key(0))
    assert 0.5 < float(loss) < 1.5
    assert jax.tree.structure(grads) == jax.tree.structure(params)


def test_the_functions_of_ones_own_loop_are_short():
    (code,) = pages.blocks(pages.DOCS / "tutorials" / "learn_a_schedule.md", "python")
    functions = code[code.index("def init") :]
    assert len([line for line in functions.splitlines() if line.strip()]) < 30


@pytest.mark.slow
def test_the_meta_training_shown_learns(tmp_path):
    (text,) = pages.blocks(pages.DOCS / "tutorials" / "meta_train.md", "yaml")
    shorter = text.replace("num_updates: 200", "num_updates: 100")
    (tmp_path / "my_meta.yaml").write_text(shorter)
    settings = config.load_config(MetaTrainConfig, tmp_path / "my_meta.yaml")
    run_meta_training.run_meta_training(settings, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    scores = [row["score"] for row in map(json.loads, lines) if "score" in row]
    assert scores[-1] < scores[0]


@pytest.mark.slow
def test_the_example_trains_a_model_of_flax(monkeypatch, capsys):
    example = pages.ROOT / "examples" / "train_nnx.py"
    monkeypatch.setattr("sys.argv", [str(example), "lion"])
    runpy.run_path(str(example), run_name="__main__")
    before, after = (float(line.split(": ")[1]) for line in capsys.readouterr().out.splitlines())
    assert after < 0.5 * before
