"""Files with single bytes changed, or cut short: each is found and named, or reads the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.damage import damaged
from veldt.learned_opt import registry, weight_files
from veldt.meta import checkpoint
from veldt.meta import errors as meta_errors
from veldt.meta.replay import storage
from veldt.search import rule_sources
from veldt.search.storage import best_rule
from veldt.tasks.benchmark import archive
from veldt.tasks.benchmark.runs import cache
from veldt.tasks.benchmark.runs.costs import Cost
from veldt.tasks.benchmark.runs.sweep import SPLITS, Sweep
from veldt.tasks.common import errors as task_errors

NUM_FLIPS = 200


def check(path: Path, read: Callable[[], Any], num_flips: int = NUM_FLIPS) -> None:
    """Damages one file in every way and reads what it is part of."""
    content, expected = path.read_bytes(), read()
    num_found = 0
    for broken in damaged(content, num_flips):
        path.write_bytes(broken)
        try:
            found = read()
        except task_errors.VeldtError as error:
            assert path.name in str(error) or path.parent.name in str(error), error
            num_found += 1
            continue
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    path.write_bytes(content)
    assert num_found >= num_flips // 2


def a_sweep() -> Sweep:
    rng = np.random.default_rng(0)
    rates, seeds, steps = np.array([0.1, 0.2]), np.arange(3), np.array([0, 5, 10])
    losses = rng.random((2, 3, 3, len(SPLITS))).astype(np.float32)
    return Sweep(rates, seeds, steps, losses, 1.5, 2.5)


def plain_sweep(sweep: Sweep) -> Any:
    return [getattr(sweep, name) for name in sweep.__dataclass_fields__]


def test_weights(tmp_path: Path):
    architecture = registry.architecture("celo2")
    meta_params = architecture.init(jax.random.key(0))
    path = tmp_path / "some.npz"
    weight_files.write(path, weight_files.Weights("celo2", architecture, meta_params, {"seed": 3}))

    def read() -> Any:
        found = weight_files.read(path)
        return found.name, repr(found.architecture), found.meta_params, json.dumps(found.record)

    check(path, read)


def test_an_archive_of_runs(tmp_path: Path):
    path = tmp_path / "some.npz"
    record = archive.Record(
        "contest", "t", "f", 10, "adam", "optax.adam", "constant", a_sweep(), Cost(1.25, 8.0)
    )
    archive.write_archive(path, archive.Archive({"date": "today"}, (record,)))

    def read() -> Any:
        found = archive.read_archive(path)
        (one,) = found.records
        return (
            dict(found.made),
            plain_sweep(one.sweep),
            one.identity,
            one.cost and one.cost.step_ratio,
        )

    check(path, read)


def test_finished_sweeps_and_costs(tmp_path: Path):
    """What an evaluation finds damaged it makes again: here that is an error."""
    kept = cache.RunCache(tmp_path)
    kept.write_sweeps(tmp_path / "a--0.npz", [a_sweep()])
    kept.write_cost(tmp_path / "a--0.json", Cost(1.25, 8.0))

    def sweeps() -> Any:
        try:
            return [plain_sweep(sweep) for sweep in cache.read_sweeps(tmp_path / "a--0.npz")]
        except Exception as error:
            raise task_errors.TaskError(f"a--0.npz {error}") from error

    check(tmp_path / "a--0.npz", sweeps)


class Anyone:
    """A candidate, as far as a file's name goes."""

    rates, identity, name = (1.0,), "anyone", "anyone"


def test_measured_costs(tmp_path: Path):
    kept, who = cache.RunCache(tmp_path), Anyone()
    kept.keep_cost("task", who, "f", Cost(1.25, 8.0))  # type: ignore[arg-type]
    path = kept.cost_path("task", who, "f")  # type: ignore[arg-type]

    def read() -> Any:
        found = kept.find_cost("task", who, "f")  # type: ignore[arg-type]
        if found is None:
            raise task_errors.TaskError(path.name)
        return found.step_ratio, found.state_bytes

    check(path, read)


@pytest.mark.parametrize("name", [best_rule.RULE_FILE, best_rule.PROVENANCE_FILE])
def test_a_best_rule(tmp_path: Path, name: str):
    found = best_rule.make_best(
        rule_sources.load_rule("adamw"), 0.0125, "found", {"run": "a", "seed": "17"}
    )
    best_rule.write_best(tmp_path, found)

    def read() -> Any:
        again = best_rule.read_best(tmp_path)
        return str(again.program), again.learning_rate, dict(again.provenance)

    check(tmp_path / name, read)
    if name == best_rule.RULE_FILE:
        check(tmp_path / name, lambda: str(rule_sources.load_rule(tmp_path)))


def test_states_of_a_metagradient(tmp_path: Path):
    path = tmp_path / "state"
    arrays = [np.arange(6, dtype=np.float32), np.array(3), np.zeros((0, 2))]
    storage.write_arrays(path, arrays, {"step": 3})
    check(path, lambda: storage.read_arrays(path))


def checkpointed(folder: Path) -> list[Path]:
    arrays = {"a": [np.arange(2000, dtype=np.float32)], "b": {"c": np.array([True, False])}}
    with checkpoint.Checkpoints(folder) as checkpoints:
        checkpoints.save(1, checkpoint.Stored(arrays, {"update": 1, "best": None}))
    folder = folder / checkpoint.FOLDER / "1"
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def check_checkpoint(folder: Path, num_flips: int) -> None:
    files = checkpointed(folder)
    with checkpoint.Checkpoints(folder) as checkpoints:

        def restore() -> Any:
            found = checkpoints.restore()
            return dict(found.arrays), json.dumps(found.facts), found.form

        expected = restore()
        num_found = 0
        for path in files:
            content = path.read_bytes()
            for broken in damaged(content, num_flips, num_cuts=1):
                path.write_bytes(broken)
                try:
                    found = restore()
                except meta_errors.MetaTrainError as error:
                    assert "checkpoints/1 cannot be read" in str(error)
                    num_found += 1
                    continue
                assert jax.tree.structure(found) == jax.tree.structure(expected), path
                jax.tree.map(np.testing.assert_array_equal, found, expected)
            path.write_bytes(content)
        assert num_found > 0


# Where Orbax meets damage it leaves its event loop behind.
LEFT_BEHIND = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@LEFT_BEHIND
def test_a_checkpoint(tmp_path: Path):
    check_checkpoint(tmp_path, 2)


@LEFT_BEHIND
@pytest.mark.slow
def test_a_checkpoint_often(tmp_path: Path):
    check_checkpoint(tmp_path, 40)
