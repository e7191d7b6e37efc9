"""The cache of finished sweeps: exact round trips, damaged and foreign files, names and digests."""

import dataclasses
import pickle
import warnings
import zipfile

import numpy as np
import pytest

from veldt.tasks.benchmark.protocol import candidates, protocol
from veldt.tasks.benchmark.runs import cache, costs
from veldt.tasks.benchmark.runs import sweep as sweep_lib
from veldt.tasks.common import errors

PLAN = protocol.SweepPlan(
    candidate=candidates.FactoryCandidate("adam", "optax:adam", rates=(0.01, 0.1 / 3)),
    task="quadratic",
    num_steps=4,
    num_checks=2,
    seeds=(3, 4, 2**32 - 1),
    schedules=("constant", "warmup_linear"),
)
PRINT = "9f3c21d07a44:+2.40713e+00,+2.38112e+00"
ARRAYS = ("rates", "seeds", "steps", "losses")


def made_sweeps(plan=PLAN):
    """Sweeps of a plan with every kind of number in them."""
    rng = np.random.default_rng(0)
    shape = (len(plan.candidate.rates), len(plan.seeds), plan.num_checks + 1, 3)
    found = []
    for i, _ in enumerate(plan.schedules):
        losses = rng.lognormal(sigma=20, size=shape).astype(np.float32)
        losses[-1, :, -1] = np.inf
        losses[:, :, 0, 1:] = np.nan
        losses[0, 0, 1] = [np.float32(1e-45), -0.0, np.finfo(np.float32).max]
        steps = np.arange(plan.num_checks + 1) * (plan.num_steps // plan.num_checks)
        rates = np.array(plan.candidate.rates)
        found.append(
            sweep_lib.Sweep(rates, np.array(plan.seeds), steps, losses, 0.1 + i, 1 / 3 + i)
        )
    return tuple(found)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ARRAYS:
            mine, theirs = getattr(one, name), getattr(other, name)
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
        assert (one.compile_s, one.run_s) == (other.compile_s, other.run_s)


@pytest.fixture
def kept(tmp_path):
    """A cache with `PLAN`'s sweeps on it, and their file."""
    there = cache.RunCache(tmp_path / "deep" / "cache")
    there.keep(PLAN, PRINT, made_sweeps())
    return there, there.path(PLAN, PRINT)


# ------------------------------------------------------------------ keeping and finding


def test_what_is_kept_is_found_exactly(kept):
    there, path = kept
    assert_same(there.find(PLAN, PRINT), made_sweeps())
    assert_same(cache.RunCache(there.folder).find(PLAN, PRINT), made_sweeps())
    # Nothing else lies in the folder, no half-written file for one.
    assert list(there.folder.iterdir()) == [path]


def test_an_empty_cache_has_nothing_and_makes_no_folder(tmp_path):
    there = cache.RunCache(tmp_path / "cache")
    assert there.find(PLAN, PRINT) is None
    assert not there.folder.exists()


def test_keeping_again_replaces(kept):
    there, _ = kept
    other = tuple(dataclasses.replace(one, losses=one.losses + 1) for one in made_sweeps())
    there.keep(PLAN, PRINT, other)
    assert_same(there.find(PLAN, PRINT), other)
    assert len(list(there.folder.iterdir())) == 1


def test_a_draft_left_by_a_killed_process_does_no_harm(kept):
    there, path = kept
    path.rename(path.with_name(path.name + ".new"))
    assert there.find(PLAN, PRINT) is None
    there.keep(PLAN, PRINT, made_sweeps())
    assert_same(there.find(PLAN, PRINT), made_sweeps())


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    there = cache.RunCache(tmp_path / "cache")
    with pytest.raises(errors.FileError, match=r"cache cannot be made"):
        there.keep(PLAN, PRINT, made_sweeps())
    assert there.find(PLAN, PRINT) is None


# ------------------------------------------------------------------ damaged and foreign files


def assert_made_again(kept):
    """The file counts as missing, and writing it anew cures it."""
    there, _ = kept
    assert there.find(PLAN, PRINT) is None
    there.keep(PLAN, PRINT, made_sweeps())
    assert_same(there.find(PLAN, PRINT), made_sweeps())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_as_good_as_none(kept, share):
    _, path = kept
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert_made_again(kept)


def test_a_file_with_a_wrong_byte_is_right_or_none_wherever_that_is(kept):
    """Every fifth byte in turn: the sweeps are never others, and nothing is raised."""
    there, path = kept
    good = path.read_bytes()
    expected = made_sweeps()
    raised = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Its own test is the one above.
        for position in range(0, len(good), 5):
            bad = bytearray(good)
            bad[position] ^= 0xFF
            path.write_bytes(bad)
            try:
                found = there.find(PLAN, PRINT)
            except Exception as error:
                raised.setdefault(f"{type(error).__name__}: {error}", position)
                continue
            if found is not None:
                assert_same(found, expected)
    assert raised == {}


def arrays_of(sweeps):
    return {
        f"{i}.{name}": np.asarray(getattr(one, name))
        for i, one in enumerate(sweeps)
        for name in (*ARRAYS, "compile_s", "run_s")
    }


def write_array(handle):
    np.save(handle, np.zeros(3))


def write_other_arrays(handle):
    np.savez(handle, weights=np.zeros(3))


def write_pickle(handle):
    pickle.dump(made_sweeps(), handle)


def write_array_of_objects(handle):
    np.save(handle, np.array([{}], object))


def write_arrays_of_objects(handle):
    arrays = arrays_of(made_sweeps())
    np.savez(handle, **{**arrays, "0.rates": arrays["0.rates"].astype(object)})


def write_other_archive(handle):
    with zipfile.ZipFile(handle, "w") as archive:
        archive.writestr("0.rates", "no array")


@pytest.mark.parametrize(
    "write",
    [
        lambda handle: handle.write(b"hello"),
        write_other_arrays,
        write_pickle,
        write_arrays_of_objects,
        write_array_of_objects,
        write_other_archive,
        write_array,
    ],
    ids=["text", "other arrays", "pickle", "objects", "object", "archive", "one array"],
)
def test_a_foreign_file_is_as_good_as_none(kept, write):
    _, path = kept
    with path.open("wb") as handle:
        write(handle)
    assert_made_again(kept)


def test_nothing_in_a_file_is_run(kept):
    """A pickle that would write a file when it is loaded."""
    there, path = kept
    trace = there.folder / "trace"

    class Bomb:
        def __reduce__(self):
            return (type(trace).write_text, (trace, "loaded"))

    bomb = np.empty(2, object)
    bomb[:] = Bomb()
    with path.open("wb") as handle:
        np.savez(handle, **{**arrays_of(made_sweeps()), "0.rates": bomb})
    assert there.find(PLAN, PRINT) is None
    assert not trace.exists()
    with np.load(path, allow_pickle=True) as arrays:
        arrays["0.rates"]
    assert trace.exists()  # It was a bomb.


@pytest.mark.parametrize(
    "change",
    [
        {"0.losses": np.zeros((2, 3, 3, 2), np.float32)},
        {"1.losses": np.zeros((2, 3, 4, 3), np.float32)},
        {"0.steps": np.array([0, 1, 4])},
        {"1.steps": np.array([0, 2])},
        {"2.losses": np.zeros((2, 3, 3, 3), np.float32)},
        {"0.steps": np.zeros((3, 2), np.int64)},
        {"0.steps": np.array(0)},
        {"0.compile_s": np.zeros(2)},
        {"0.rates": np.zeros(7)},
        {"1.seeds": np.array([3, 4])},
        {"0.losses": np.full((2, 3, 3, 3), "none")},
    ],
    ids=lambda change: ", ".join(f"{key} {array.shape}" for key, array in change.items()),
)
def test_sweeps_of_another_shape_are_as_good_as_none(kept, change):
    there, path = kept
    with path.open("wb") as handle:
        np.savez(handle, **{**arrays_of(made_sweeps()), **change})
    assert there.find(PLAN, PRINT) is None


# ------------------------------------------------------------------ names and digests


OTHERS = [
    {"task": "quadratic_stiff"},
    {"num_steps": 6},
    {"num_checks": 4},
    {"seeds": (3, 4)},
    {"seeds": (4, 3, 2**32 - 1)},
    {"schedules": ("constant",)},
    {"schedules": ("warmup_linear", "constant")},
    {"candidate": dataclasses.replace(PLAN.candidate, factory="optax:adamw")},
    {"candidate": dataclasses.replace(PLAN.candidate, options=(("b1", 0.8),))},
    {"candidate": dataclasses.replace(PLAN.candidate, rates=(0.01, 0.1))},
    {"candidate": dataclasses.replace(PLAN.candidate, rates=(0.01,))},
]


def test_the_digest_differs_when_anything_of_the_plan_does():
    digests = [PLAN.digest(PRINT), PLAN.digest(PRINT + "1")]
    digests += [dataclasses.replace(PLAN, **change).digest(PRINT) for change in OTHERS]
    assert len(set(digests)) == len(digests)


def test_the_digest_is_of_the_plans_content():
    again = pickle.loads(pickle.dumps(PLAN))  # noqa: S301
    assert again.digest(PRINT) == PLAN.digest(PRINT)
    renamed = dataclasses.replace(PLAN.candidate, name="other")
    assert dataclasses.replace(PLAN, candidate=renamed).digest(PRINT) == PLAN.digest(PRINT)


def test_another_plan_finds_nothing_of_this_one(kept):
    there, _ = kept
    for change in OTHERS:
        assert there.find(dataclasses.replace(PLAN, **change), PRINT) is None
    assert there.find(PLAN, PRINT + "1") is None


@pytest.mark.parametrize(
    "name",
    [
        "my.module:task",
        "../../outside:task",
        "/etc/passwd",
        "a\\b:c",
        'con: *?"<>|\n\0',
        "..",
        "",
        "ünïcödé:täsk",
        "x" * 5000,
    ],
)
def test_odd_names_make_safe_files_inside_the_folder(tmp_path, name):
    there = cache.RunCache(tmp_path / "cache")
    candidate = dataclasses.replace(PLAN.candidate, name=name)
    for plan in (
        dataclasses.replace(PLAN, task=name),
        dataclasses.replace(PLAN, candidate=candidate),
    ):
        path = there.path(plan, PRINT)
        assert path.parent == there.folder
        assert path.resolve().parent == there.folder.resolve()
        assert path.name.isascii()
        assert not set(path.name) & set('/\\:*?"<>| \n\0')
        assert len(path.name) < 200
        there.keep(plan, PRINT, made_sweeps())
        assert path.is_file()
        assert_same(there.find(plan, PRINT), made_sweeps())


def test_names_with_equal_file_names_do_not_collide(tmp_path):
    there = cache.RunCache(tmp_path)
    names = ["my:task", "my/task", "my_task", "my task", "x" * 200 + "1", "x" * 200 + "2"]
    for i, name in enumerate(names):
        sweeps = [dataclasses.replace(one, run_s=float(i)) for one in made_sweeps()]
        there.keep(dataclasses.replace(PLAN, task=name), PRINT, sweeps)
    for i, name in enumerate(names):
        assert there.find(dataclasses.replace(PLAN, task=name), PRINT)[0].run_s == i
    assert len(list(tmp_path.iterdir())) == len(names)


# ------------------------------------------------------------------ costs


def test_a_cost_is_kept_and_found_exactly(tmp_path):
    there = cache.RunCache(tmp_path / "cache")
    cost = costs.Cost(1 / 3, 8.25)
    assert there.find_cost("my:task", PLAN.candidate, PRINT) is None
    there.keep_cost("my:task", PLAN.candidate, PRINT, cost)
    assert there.find_cost("my:task", PLAN.candidate, PRINT) == cost
    assert there.find_cost("my:task", PLAN.candidate.renamed("adam"), PRINT) == cost
    for other in OTHERS:
        if "candidate" in other and other["candidate"].identity != PLAN.candidate.identity:
            assert there.find_cost("my:task", other["candidate"], PRINT) is None
    assert there.find_cost("my/task", PLAN.candidate, PRINT) is None
    assert there.find_cost("my:task", PLAN.candidate, PRINT + "1") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"step_ratio": 1}',
        '{"step_ratio": null, "state_bytes": 4}',
        '{"step_ratio": NaN, "state_bytes": 4}',
        '{"step_ratio": -1, "state_bytes": 4}',
        "\x00\xff",
    ],
)
def test_a_damaged_cost_is_as_good_as_none(tmp_path, text):
    there = cache.RunCache(tmp_path)
    there.cost_path("quadratic", PLAN.candidate, PRINT).write_text(text, encoding="latin-1")
    assert there.find_cost("quadratic", PLAN.candidate, PRINT) is None
