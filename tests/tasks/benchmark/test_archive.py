"""The archive: made once, found again for the same task only, and read from strangers safely."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest

from veldt.tasks import suites
from veldt.tasks.benchmark import archive
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.protocol.schedules import SCHEDULES
from veldt.tasks.benchmark.runs import cache
from veldt.tasks.common import errors


class Counting:
    """Remembers how much there was to do."""

    def __init__(self):
        self.totals = {}

    def phase(self, text, done, total):
        self.totals[text] = total

    def note(self, text):
        pass


def fingerprint_of(found, task):
    return next(record.fingerprint for record in found.records if record.task == task)


def test_it_holds_adams_reference_and_every_baseline_with_every_schedule(tiny_archive, tiny_suite):
    assert tiny_archive.tasks == {entry.task for entry in tiny_suite.tasks}
    for entry in tiny_suite.tasks:
        fingerprint = fingerprint_of(tiny_archive, entry.task)
        reference = tiny_archive.reference(entry, fingerprint)
        assert reference.losses.shape == (15, 5, 76, 3)
        assert reference.steps[-1] == 150
        found = {(r.name, r.schedule) for r in tiny_archive.contests(entry, fingerprint)}
        assert found == {(n, s) for n in ("adam", "sgd_momentum") for s in SCHEDULES}
        for record in tiny_archive.contests(entry, fingerprint):
            assert record.sweep.losses.shape == (7, 3, 26, 3)
            assert record.cost.step_ratio > 0
            # The count of steps is 4 bytes beside two parameters.
            expected = {"adam": 8 + 4 / 2, "sgd_momentum": 4}[record.name]
            assert record.cost.state_bytes == expected


def test_adam_as_a_contestant_agrees_with_its_reference(tiny_archive, tiny_suite):
    """Same rates, seeds and batches: the same curves, though another program trained them."""
    entry = tiny_suite.tasks[0]
    fingerprint = fingerprint_of(tiny_archive, entry.task)
    reference = tiny_archive.reference(entry, fingerprint)
    contest = next(
        record
        for record in tiny_archive.contests(entry, fingerprint)
        if (record.name, record.schedule) == ("adam", "constant")
    )
    np.testing.assert_allclose(contest.sweep.rates, reference.rates[1::2], rtol=1e-6)
    np.testing.assert_allclose(
        contest.sweep.losses[..., 0], reference.losses[1::2, :3, :26, 0], rtol=1e-4
    )
    np.testing.assert_allclose(
        contest.sweep.losses[:, :, -1], reference.losses[1::2, :3, 25], rtol=1e-4
    )


def test_a_file_gives_back_what_was_written(tiny_archive, tmp_path):
    path = tmp_path / "tiny.npz"
    archive.write_archive(path, tiny_archive)
    again = archive.read_archive(path)
    assert again.made == tiny_archive.made
    assert len(again.records) == len(tiny_archive.records)
    for first, second in zip(tiny_archive.records, again.records, strict=True):
        names = ["role", "task", "fingerprint", "num_steps", "name", "identity", "schedule", "cost"]
        for name in names:
            assert getattr(first, name) == getattr(second, name)
        for name in ("rates", "seeds", "steps", "losses"):
            np.testing.assert_array_equal(getattr(first.sweep, name), getattr(second.sweep, name))
    assert [p.name for p in path.parent.iterdir()] == ["tiny.npz"]


def test_what_is_in_the_cache_is_not_run_again(tiny_archive, tiny_suite, tiny_folder, inline):
    watcher = Counting()
    rows = [baselines.BASELINES[name] for name in ("adam", "sgd_momentum")]
    again = archive.run_baselines(tiny_suite, rows, inline, cache.RunCache(tiny_folder), watcher)
    assert watcher.totals == {"checking tasks": 2}
    for first, second in zip(tiny_archive.records, again.records, strict=True):
        np.testing.assert_array_equal(first.sweep.losses, second.sweep.losses)


def test_a_task_that_has_changed_is_not_found(tiny_archive, tiny_suite):
    entry = tiny_suite.tasks[0]
    fingerprint = fingerprint_of(tiny_archive, entry.task)
    exact, _, numbers = fingerprint.partition(":")
    first, _, rest = numbers.partition(",")
    moved = f"{exact}:{float(first) * 1.01:+.5e},{rest}"
    for other in (moved, "0" * 12 + ":" + numbers, "", "nonsense"):
        assert tiny_archive.reference(entry, other) is None
        assert tiny_archive.contests(entry, other) == []
    # Rounding on another machine is no change.
    rounded = f"{exact}:{float(first) * (1 + 1e-6):+.5e},{rest}"
    assert tiny_archive.reference(entry, rounded) is not None


def test_another_length_is_another_task(tiny_archive, tiny_suite):
    entry = dataclasses.replace(tiny_suite.tasks[0], num_steps=75)
    assert tiny_archive.reference(entry, fingerprint_of(tiny_archive, entry.task)) is None
    unknown = suites.SuiteTask("quadratic", 50)
    assert tiny_archive.reference(unknown, "abc:+1.0e+00") is None


def test_all_files_of_the_folder_are_one_archive(tiny_archive, tiny_suite, tmp_path):
    assert archive.shipped(tmp_path).records == ()
    for i, entry in enumerate(tiny_suite.tasks):
        own = tuple(record for record in tiny_archive.records if record.task == entry.task)
        archive.write_archive(tmp_path / f"{i}.npz", archive.Archive({}, own))
    found = archive.shipped(tmp_path)
    assert found.tasks == tiny_archive.tasks
    assert len(found.records) == len(tiny_archive.records)
    for entry in tiny_suite.tasks:
        assert found.reference(entry, fingerprint_of(tiny_archive, entry.task)) is not None


def test_one_task_may_be_there_at_several_lengths(tiny_archive, tiny_suite):
    """A long contest of one suite is not taken for the reference of another, nor the reverse."""
    entry = tiny_suite.tasks[0]
    known_as = fingerprint_of(tiny_archive, entry.task)
    longer = tuple(
        dataclasses.replace(record, num_steps=3 * record.num_steps)
        for record in tiny_archive.records
        if record.role == archive.CONTEST
    )
    found = archive.Archive({}, (*longer, *tiny_archive.records))
    assert found.reference(entry, known_as).losses.shape == (15, 5, 76, 3)
    assert len(found.contests(entry, known_as)) == 6
    three_times = dataclasses.replace(entry, num_steps=150)
    assert found.reference(three_times, known_as) is None
    assert len(found.contests(three_times, known_as)) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"not a zip at all",
    ],
)
def test_a_damaged_file_is_a_clear_error(tiny_archive, tmp_path, damage):
    path = tmp_path / "tiny.npz"
    archive.write_archive(path, tiny_archive)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(errors.TaskError, match=r"tiny\.npz is no archive of runs, or damaged"):
        archive.read_archive(path)


def test_headers_that_lie_are_refused(tiny_archive, tmp_path):
    path = tmp_path / "tiny.npz"
    archive.write_archive(path, tiny_archive)
    with np.load(path) as arrays:
        content = dict(arrays)
    header = json.loads(bytes(content["header"]).decode())

    def rewrite(change):
        lying = json.loads(json.dumps(header))
        change(lying)
        content["header"] = np.frombuffer(json.dumps(lying).encode(), np.uint8)
        np.savez(path, **content)

    for change, text in [
        (lambda h: h.update(format=2), "format is 2"),
        (lambda h: h["records"][0].update(rates=[0.1]), "losses of shape"),
        (lambda h: h["records"][0].update(losses="missing"), "missing"),
    ]:
        rewrite(change)
        with pytest.raises(errors.TaskError, match=text):
            archive.read_archive(path)


def test_arrays_of_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    path = tmp_path / "trap.npz"
    np.savez(path, header=np.array([Trap()], dtype=object))
    with pytest.raises(errors.TaskError, match="damaged"):
        archive.read_archive(path)


@pytest.mark.slow
def test_what_is_not_finished_is_left_out_and_run_by_the_next_session(
    tiny_archive, tiny_suite, tiny_folder, tmp_path, inline
):
    """Also where the cache is gone and the archive is all that is left."""
    rows = [baselines.BASELINES[name] for name in ("adam", "sgd_momentum")]
    kept = cache.RunCache(tmp_path / "one")
    shutil.copytree(tiny_folder, kept.folder)
    (removed,) = kept.folder.glob("*_line--sgd_momentum--*.npz")
    removed.unlink()
    fingerprints = {record.task: record.fingerprint for record in tiny_archive.records}
    partial = archive.gather(tiny_suite, rows, kept, fingerprints)
    line = tiny_suite.tasks[0].task
    ours = {(r.task, r.name, r.schedule) for r in partial.records if r.role == archive.CONTEST}
    theirs = {
        (r.task, r.name, r.schedule) for r in tiny_archive.records if r.role == archive.CONTEST
    }
    assert theirs - ours == {(line, "sgd_momentum", schedule) for schedule in SCHEDULES}
    watcher = Counting()
    empty = cache.RunCache(tmp_path / "two")
    again = archive.run_baselines(tiny_suite, rows, inline, empty, watcher, partial)
    # Of the costs only the one that went with the missing runs is measured again.
    assert watcher.totals == {"checking tasks": 2, "training": 1, "measuring step times": 1}
    for first, second in zip(tiny_archive.records, again.records, strict=True):
        np.testing.assert_array_equal(first.sweep.losses, second.sweep.losses)


@pytest.mark.parametrize("name", ["smoke", "small"])
def test_the_shipped_archives_hold_adam_and_the_baselines_as_they_are(name):
    suite = suites.load_suite(name)
    found = archive.read_archive(archive.FOLDER / f"{name}.npz")
    assert found.tasks == {entry.task for entry in suite.tasks}
    for entry in suite.tasks:
        fingerprint = fingerprint_of(found, entry.task)
        reference = found.reference(entry, fingerprint)
        np.testing.assert_allclose(reference.rates, baselines.REFERENCE.rates, rtol=1e-6)
        contests = found.contests(entry, fingerprint)
        for record in contests:
            assert record.identity.startswith(baselines.BASELINES[record.name].factory)
            np.testing.assert_allclose(
                record.sweep.rates, baselines.BASELINES[record.name].rates, rtol=1e-6
            )


@pytest.mark.parametrize("name", ["smoke", "small"])
def test_the_shipped_archives_have_every_baseline_on_every_task_with_every_schedule(name):
    found = archive.read_archive(archive.FOLDER / f"{name}.npz")
    contests = [record for record in found.records if record.role == archive.CONTEST]
    everything = itertools.product(
        (entry.task for entry in suites.load_suite(name).tasks), baselines.BASELINES, SCHEDULES
    )
    assert {(r.task, r.name, r.schedule) for r in contests} == set(everything)
    assert all(record.cost is not None for record in contests)
