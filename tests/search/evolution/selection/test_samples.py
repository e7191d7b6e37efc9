"""Samples: means and noise against NumPy, and a search with samples that dies and goes on."""

import collections

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.search import fakes
from tests.search.evolution import test_engine as engine_tests
from veldt.search.evolution.selection import samples
from veldt.search.storage import integrity
from veldt.search.storage.store import Store

SAMPLES = 4
contents, rows, search = engine_tests.contents, engine_tests.rows, engine_tests.search


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(-5, 5) | st.just(np.inf)), min_size=1, max_size=40
    )
)
def test_estimates_are_means_and_the_noise_is_pooled(told: list[tuple[int, float]]) -> None:
    known = samples.Samples(num_kept=len(told) + 2)
    known.end(-1)
    for proposal, (candidate, score) in enumerate(told):
        known.ask(candidate)
        known.add(candidate, proposal, score)
        known.end(proposal)
    for at in range(-1, len(told)):
        scores = collections.defaultdict(list)
        for candidate, score in told[: at + 1]:
            scores[candidate].append(score)
        squares, freedom = 0.0, 0
        for candidate, own in scores.items():
            expected = np.mean(own)
            found = known.estimate(candidate, at)
            assert found.num_samples == len(own)
            assert found.mean == pytest.approx(expected) or expected == found.mean == np.inf
            before_failure = own[: own.index(np.inf)] if np.inf in own else own
            if len(before_failure) > 1:
                squares += np.var(before_failure) * len(before_failure)
                freedom += len(before_failure) - 1
        noise = np.sqrt(squares / freedom) if freedom else 0.0
        assert known.noise(at) == pytest.approx(noise, abs=1e-9)


def test_a_lucky_sample_does_not_beat_a_proven_candidate() -> None:
    known = samples.Samples(10)
    for score in (-1.0, -1.2, -1.1, -0.9, -1.3):
        known.add(0, -1, score)
    known.add(1, 0, -1.6)
    assert not known.beats(1, 0)  # one sample
    known.add(1, 1, -0.6)
    assert not known.beats(1, 0)  # luck wore off
    known.add(2, 2, -1.5)
    known.add(2, 3, -1.45)
    assert known.beats(2, 0) and not known.beats(0, 2)
    difference, error = known.difference(2, 0)
    assert difference == pytest.approx(-1.475 + 1.1)
    assert error > 0


def test_seeds_belong_to_one_proposal() -> None:
    seen: dict[tuple[int, int], int] = {}
    for proposal in range(-6, 50):
        for run in samples.runs(2, 3, proposal):
            assert seen.setdefault((run.proxy, run.seed), proposal) == proposal
            assert samples.proposal_of(run.seed, 3) == proposal
    assert len(seen) == 56 * 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("sampled")
    return directory, search(directory, samples=SAMPLES, max_evaluations=120)


def test_duplicates_are_further_samples_up_to_a_number(whole) -> None:
    directory, _ = whole
    proposals = rows(directory, "SELECT * FROM proposal ORDER BY id")
    sources = collections.Counter(row["source"] for row in proposals)
    assert sources["evaluated"] + sources["sample"] == 120
    assert sources["sample"] > 10
    config = fakes.small_config()
    introduced = {}
    for row in proposals:
        if row["source"] == "sample":
            assert introduced[row["candidate"]] <= row["id"] - config.window
        else:
            introduced.setdefault(row["candidate"], row["id"])
        introduced.setdefault(0, -1)
    runs = rows(
        directory,
        "SELECT candidate, purpose, COUNT(*) AS n, COUNT(DISTINCT seed) AS seeds FROM evaluation "
        "WHERE purpose IN ('fitness', 'sample') GROUP BY candidate, purpose",
    )
    for row in runs:
        most = 4 * SAMPLES
        if row["purpose"] == "fitness":
            most = SAMPLES if row["candidate"] == 0 else 1
        assert row["seeds"] <= most * config.seeds_per_task
    # No seed is used twice, whatever for.
    purposes = "purpose IN ('fitness', 'sample')"
    seeds = rows(directory, f"SELECT task, seed FROM evaluation WHERE {purposes}")
    assert len({(row["task"], row["seed"]) for row in seeds}) == len(seeds)


def test_a_duplicate_is_a_sample_of_what_might_be_the_best(whole) -> None:
    directory, _ = whole
    config = fakes.small_config()
    proposals = rows(directory, "SELECT * FROM proposal ORDER BY id")
    scores: dict[int, dict[int, float]] = collections.defaultdict(dict)  # by candidate, proposal
    query = (
        "SELECT candidate, seed, AVG(log_loss) AS score, MIN(status = 'ok') AS ok FROM evaluation "
        "WHERE purpose IN ('fitness', 'sample') GROUP BY candidate, seed"
    )
    for row in rows(directory, query):
        proposal = max(samples.proposal_of(row["seed"], config.seeds_per_task), -1)
        first = scores[row["candidate"]].setdefault(proposal, row["score"] if row["ok"] else np.inf)
        if row["candidate"] == 0 and proposal == -1 and first != row["score"]:
            scores[0][-1 - len(scores[0]) / 100] = row["score"]  # the initial rule has several
    answered = collections.Counter()
    for row in proposals:
        newest = row["id"] - config.window
        if row["source"] not in ("sample", "structure", "behaviour") or row["mutation"] == "sample":
            continue
        known = {c: [v for at, v in of.items() if at <= newest] for c, of in scores.items()}
        known = {c: of for c, of in known.items() if of}
        asked = sum(at < row["id"] for at in scores[row["candidate"]])
        own = known.get(row["candidate"], [np.inf])
        if not np.isfinite(np.mean(own)) or asked >= SAMPLES:
            assert row["source"] != "sample"
            continue
        finite = [of for of in known.values() if len(of) > 1 and np.isfinite(of).all()]
        freedom = sum(len(of) - 1 for of in finite)
        noise = np.sqrt(sum(np.var(of) * len(of) for of in finite) / freedom)
        living = range(newest, newest - config.population_size, -1)
        members = {proposals[at]["candidate"] if at >= 0 else 0 for at in living}
        best = min(np.mean(known.get(member, [np.inf])) for member in members)
        gap = np.mean(own) - 2 * noise / np.sqrt(len(own)) - best
        if abs(gap) > 1e-9:
            assert (row["source"] == "sample") == (gap < 0), row["id"]
            answered[row["source"] == "sample"] += 1
    assert min(answered[True], answered[False]) > 3


def test_the_incumbent_has_the_lowest_upper_bound_at_its_moment(whole) -> None:
    directory, _ = whole
    challenges = rows(directory, "SELECT * FROM challenge ORDER BY id")
    assert len(challenges) > 1 and all(row["won"] for row in challenges)
    for row in challenges[1:]:
        assert row["difference"] is not None and row["standard_error"] > 0
        assert row["meta_fitness"] is not None
    with Store.open(directory, read_only=True) as store:
        assert integrity.problems(store) == []
        assert store.first("SELECT COUNT(*) FROM evaluation WHERE purpose = 'fresh'") == 0


@settings(max_examples=8, phases=(Phase.explicit, Phase.generate))
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_a_search_with_samples_that_dies_anywhere_reaches_the_same_store(
    whole, tmp_path_factory, lifetimes
) -> None:
    directory, _ = whole
    mortal = tmp_path_factory.mktemp("mortal")
    changes = {"samples": SAMPLES, "max_evaluations": 120}
    for lifetime in lifetimes:
        try:
            search(mortal, worker=engine_tests.MortalWorker(lifetime), resume=True, **changes)
        except engine_tests.Death:
            continue
    search(mortal, resume=True, **changes)
    assert contents(mortal) == contents(directory)


def test_workers_and_timing_change_nothing(whole, tmp_path) -> None:
    directory, _ = whole
    pool = engine_tests.PoolConfig(num_workers=3)
    worker = fakes.FakeWorker(0.001)
    search(tmp_path, worker=worker, pool=pool, samples=SAMPLES, max_evaluations=120)
    assert contents(tmp_path, skip=["meta"]) == contents(directory, skip=["meta"])
