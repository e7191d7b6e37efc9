"""What mutations yield: every count against one made the slow way, from the rows of the store."""

import statistics

import pytest

from tests.search import fakes
from tests.web import Page
from veldt.search.config.evolution_config import FounderConfig, MutationConfig
from veldt.search.report import mutation_yields, search_report
from veldt.search.run import run_search
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The directory of a search with founders and the published mutations."""
    directory = tmp_path_factory.mktemp("yields")
    config = fakes.small_config(
        pool=PoolConfig(num_workers=1),
        max_evaluations=120,
        founders=(FounderConfig("lion"),),
        mutation=MutationConfig(rewire=1.0, unwire=1.0),
    )
    run_search.run_search(config, directory, factory=fakes.FakeWorker)
    return directory


def test_every_count_is_that_of_the_rows(searched):
    with Store.open(searched, read_only=True) as store:
        found = mutation_yields.yields(store)
        proposals = store.rows("SELECT * FROM proposal ORDER BY id")
        candidates = {row["id"]: row for row in store.rows("SELECT * FROM candidate")}
        won = [r["proposal"] for r in store.rows("SELECT * FROM challenge WHERE won AND id > 0")]
    kinds = {"insert", "delete", "modify", "constant", "learning_rate", "rewire", "unwire"}
    assert {one.kind for one in found} == {*kinds, "several"}
    counts = [one.proposals for one in found[:-1]]
    assert found[-1].kind == "several" and counts == sorted(counts, reverse=True)
    made = [r for r in proposals if r["mutation"] != "copy" and "founder" not in r["mutation"]]
    assert sum(one.proposals for one in found) == len(made) < len(proposals)
    assert sum(one.incumbents for one in found) == sum(r["id"] in won for r in made) > 0
    for one in found:
        rows = [r for r in made if (one.kind if one.kind != "several" else "+") in r["mutation"]]
        if one.kind != "several":
            rows = [r for r in rows if r["mutation"] == one.kind]
        assert one.proposals == len(rows)
        duplicates = [r for r in rows if r["source"] in ("structure", "behaviour")]
        trained = [r for r in rows if r["source"] == "evaluated"]
        assert one.duplicates == len(duplicates) and one.trained == len(trained)
        assert one.refused == len(rows) - len(duplicates) - len(trained)
        gains, stopped = [], 0
        for row in trained:
            parent = 0 if row["parent"] is None else proposals[row["parent"]]["candidate"]
            before, after = candidates[parent]["fitness"], candidates[row["candidate"]]["fitness"]
            if after is None:
                stopped += 1
            else:
                gains.append(float("inf") if before is None else before - after)
        better = [gain for gain in gains if gain > 0]
        assert (one.stopped, one.better) == (stopped, len(better))
        assert one.better_by == tuple(
            sum(g >= margin for g in gains) for margin in mutation_yields.MARGINS
        )
        median = statistics.median(better) if better else None
        assert one.median_gain == (None if median is None else pytest.approx(median))
        assert one.incumbents == sum(r["id"] in won for r in rows)
    assert sum(one.better for one in found) > 10 and sum(one.stopped for one in found) > 10


def test_the_report_shows_them(searched):
    with Store.open(searched, read_only=True) as store:
        found = {one.kind: one for one in mutation_yields.yields(store)}
    text = search_report.render(searched)
    assert "What each mutation yields" in text
    part = text[text.index("What each mutation yields") :]
    row = part[part.index("<td>rewire</td>") :]
    row = row[: row.index("</tr>")]
    rewire = found["rewire"]
    assert f">{rewire.proposals}<" in row and f">{rewire.trained}<" in row
    assert f">{rewire.better / rewire.trained:.1%}<" in row
    assert "learning rate" in part and "several at once" in part
    Page(text)


def test_a_search_without_children_yields_nothing(searched, tmp_path):
    with Store.create(tmp_path) as store, Store.open(searched, read_only=True) as other:
        row = other.rows("SELECT * FROM candidate WHERE id = 0")[0]
        with store.transaction():
            store.insert("candidate", **row)
        assert mutation_yields.yields(store) == ()
