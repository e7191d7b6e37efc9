"""Which ops survive: every count against one made the slow way, from parsed programs."""

import collections

import pytest

from tests.search import fakes
from veldt.search.language.statements import COPY
from veldt.search.program import Program
from veldt.search.report import op_survival
from veldt.search.run import run_search
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search's directory, and the population's size."""
    directory = tmp_path_factory.mktemp("survival")
    config = fakes.small_config(pool=PoolConfig(num_workers=1), max_evaluations=80)
    run_search.run_search(config, directory, factory=fakes.FakeWorker)
    return directory, config.population_size


def parsed_ops(text):
    return {s.op for s in Program.parse(text).statements if s.op != COPY}


def test_every_count_is_that_of_the_parsed_programs(searched):
    directory, size = searched
    with Store.open(directory, read_only=True) as store:
        found = op_survival.survival(
            store, size, [Program.parse("def r(w, g):\n    return abs(g)\n")]
        )
        candidates = {row["id"]: row for row in store.rows("SELECT * FROM candidate WHERE id >= 0")}
        proposals = store.rows("SELECT * FROM proposal ORDER BY id")
    ops = {i: parsed_ops(row["program"]) for i, row in candidates.items()}
    for i, row in candidates.items():
        assert op_survival.ops_of(row["program"]) == ops[i]
    fitness = {
        i: row["fitness"] if row["fitness"] is not None else 9e9 for i, row in candidates.items()
    }

    def parent_of(row):
        return 0 if row["parent"] is None else proposals[row["parent"]]["candidate"]

    accepted = [r for r in proposals if fitness[r["candidate"]] < fitness[parent_of(r)]]
    last = proposals[-size:]
    descended = set()
    for row in last:
        while row["parent"] is not None and row["parent"] not in descended:
            descended.add(row["parent"])
            row = proposals[row["parent"]]
    before = proposals[:-size]
    assert found.num_children == len(proposals) and found.num_accepted == len(accepted) > 10
    assert found.num_population == size and found.num_before == len(before)
    assert found.num_alive == len(descended & {row["id"] for row in before}) > 0
    assert {one.op for one in found.ops} == set().union(*ops.values())
    introduced, alive = collections.Counter(), collections.Counter()
    for row in before:
        new = ops[row["candidate"]] - ops[parent_of(row)]
        introduced.update(new)
        alive.update(new if row["id"] in descended else ())
    assert sum(alive.values()) > 0

    def share(op, rows, of):
        return sum(op in ops[of(row)] for row in rows) / len(rows)

    for one in found.ops:
        assert one.children == pytest.approx(share(one.op, proposals, lambda r: r["candidate"]))
        assert one.parents == pytest.approx(share(one.op, proposals, parent_of))
        assert one.accepted == pytest.approx(share(one.op, accepted, lambda r: r["candidate"]))
        assert one.population == pytest.approx(share(one.op, last, lambda r: r["candidate"]))
        assert (one.introduced, one.alive) == (introduced[one.op], alive[one.op])
        assert one.initial == (one.op in ops[0]) and one.finalists == (one.op == "abs")
        assert len(one.over_time) == op_survival.NUM_PARTS


def test_a_search_without_children_has_no_survivors(searched, tmp_path):
    directory, size = searched
    with Store.create(tmp_path) as store, Store.open(directory, read_only=True) as other:
        row = other.rows("SELECT * FROM candidate WHERE id = 0")[0]
        with store.transaction():
            store.insert("candidate", **row)
        found = op_survival.survival(store, size, [])
    assert found.num_children == 0 and all(one.initial for one in found.ops)


def test_an_instruction_of_no_instruction_set_is_an_error():
    with pytest.raises(ValueError, match="'launch', which is no op"):
        op_survival.ops_of("def rule(w, g):\n    t1 = launch(g)\n    return t1\n")
    text = "def rule(w, g):\n    t1 = (-1.0) ** g\n    t2 = t1\n    t3 = g < t2\n    return t3\n"
    assert op_survival.ops_of(text) == {"power", "less"}
