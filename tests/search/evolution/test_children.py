"""Children of a search: they are what they were in earlier versions."""

import hashlib
import json

from tests.search import fakes
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation.jobs import Outcome, RunResult, Status
from veldt.search.run import run_search
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig

MUTATIONS = MutationConfig(graft=0.5, rewire=0.5, unwire=0.25, match_steps=True)
# Hashes of the proposals, written down with an engine that lowered each child several times and
# told one result in each transaction (commit ec03f85).
PROPOSALS = {
    "published": "84ad055fad22677432ad820299c89fe8280717d7",
    "all": "03db514466d6c65f10c49e658ea650a82a7259e5",
}


def by_text(payload):
    """A worker whose scores depend on the text alone."""
    genotype = payload.genotype
    text = f"{genotype.program}{genotype.learning_rate!r}"
    log_loss = -int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) / 16**8
    status = Status.REJECTED if payload.hurdle and log_loss > -0.3 else Status.OK
    results = tuple(RunResult(run, status, 0.5, (log_loss,), 10, 0.0) for run in payload.runs)
    return Outcome.of(results if status is Status.OK else results[:1])


def proposals(directory, **changes):
    settings = {"pool": PoolConfig(num_workers=1), "max_evaluations": 150, **changes}
    config = fakes.small_config(**settings)
    run_search.run_search(config, directory, factory=lambda: by_text)
    with Store.open(directory, read_only=True) as store:
        rows = store.rows(
            "SELECT id, parent, mutation, program, learning_rate, structure, statements, live, "
            "invalid, source, candidate FROM proposal ORDER BY id"
        )
    assert len(rows) > 80
    return hashlib.sha1(json.dumps(rows).encode()).hexdigest()


def test_the_proposals_of_a_small_search_are_what_they_were(tmp_path):
    found = {
        "published": proposals(tmp_path / "published"),
        "all": proposals(tmp_path / "all", mutation=MUTATIONS, max_evaluations=80),
    }
    assert found == PROPOSALS
