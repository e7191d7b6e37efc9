"""What models cost and yielded, in the report: against counts made the slow way from the rows."""

import re
from dataclasses import replace

import pytest

from tests.search import chat_server, fakes
from tests.search.evolution.llm import searches
from tests.web import Page
from veldt.search.config.llm_config import ModelConfig
from veldt.search.report import (
    llm_yields,
    mutation_yields,
    report_data,
    report_lineage,
    report_rows,
    report_yields,
    search_report,
)
from veldt.search.run import run_search
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig

TITLE = "What language models cost and yielded"


def script(number, prompt):
    """A server that is good at most prompts, broken at first at some, and down at some."""
    kind = sum(map(ord, prompt)) % 5
    if kind == 0:
        return "down"
    if kind == 1:
        return "cut"
    return "broken" if kind == 2 and "Your last answer" not in prompt else "good"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The directory of a search that asked two models, one of which has prices."""
    directory = tmp_path_factory.mktemp("asked") / "run"
    with chat_server.Scripted(script) as server:
        models = (
            ModelConfig("first_one", server.url, input_price=2.0, output_price=10.0),
            ModelConfig("second:b", server.url),
        )
        config = searches.llm(models=models, max_tries=1, max_calls=14)
        searches.search(directory, config, max_evaluations=60)
    return directory


def test_the_figures_are_those_of_the_rows(asked):
    with Store.open(asked, read_only=True) as store:
        kinds = mutation_yields.yields(store)
        settings = report_data.read_run(asked).settings
        found = llm_yields.read(store, settings.llm, kinds)
        calls = store.rows("SELECT * FROM llm_call")
        answered = store.rows("SELECT * FROM llm_answer")
        proposals = store.rows("SELECT * FROM proposal")
    assert [one.figures.name for one in found.models] == ["first_one", "second:b"]
    assert found.refused == sum(call["status"] == "refused: budget" for call in calls) > 0
    assert found.not_chosen == 0
    statuses = set()
    for one in found.models:
        name = one.figures.name
        own = [c for c in calls if c["model"] == name and c["digest"]]
        for status, count in one.statuses.items():
            assert count == sum(c["status"].startswith(status) for c in own)
            statuses |= {status} if count else set()
        assert sum(one.statuses.values()) == len(own) == one.figures.num_calls
        assert sum(count for _, count in one.failures) == one.statuses["failed"]
        assert one.programs == sum(c["programs"] for c in own)
        ids = {c["id"] for c in own}
        tokens = [
            (a["prompt_tokens"], a["completion_tokens"]) for a in answered if a["call"] in ids
        ]
        assert one.figures.num_tokens == sum(map(sum, tokens)) > 0
        children = [p for p in proposals if p["mutation"] == f"llm {name}"]
        assert one.children.proposals == len(children) <= one.programs
        price = sum(2.0 * asked + 10.0 * written for asked, written in tokens) / 1e6
        assert one.price == (pytest.approx(price) if name == "first_one" else None)
    assert {"ok", "cut off", "failed"} <= statuses


def test_the_report_shows_them_beside_the_mutations(asked):
    text = search_report.render(asked)
    section = text[text.index(TITLE) :]
    section = section[: section.index("</section>")]
    data = report_data.read_run(asked)
    for one in data.models.models:
        cost, bought = (
            Page(row).texts
            for row in re.findall(r"<tr>(?:(?!</tr>).)*</tr>", section, re.DOTALL)
            if f"<td>{one.figures.name}</td>" in row
        )
        assert cost[:3] == [
            one.figures.name,
            str(one.figures.num_calls),
            str(one.statuses["ok"]),
        ]
        assert f"{one.figures.prompt_tokens:,}" in cost
        child = one.children
        distinct = child.proposals - child.duplicates
        expected = [one.figures.name, one.programs, distinct, child.trained, child.better]
        assert bought[:5] == [str(value) for value in expected]
        each = f"{one.figures.num_tokens / child.better:,.0f}" if child.better else "-"
        assert bought[-1] == each
    assert "further calls were beyond the budget" in section
    assert "500 Internal Server Error: internal" in section
    # A model's name is not respelt.
    assert "<td>llm first_one</td>" in text[: text.index(TITLE)]


def test_a_models_idea_stands_beside_its_change(asked):
    with Store.open(asked, read_only=True) as store:
        calls = store.rows("SELECT * FROM llm_call WHERE programs > 0")
        seen = 0
        for call in calls:
            given = call["answer"] if call["status"] != "unreadable" else call["repair_answer"]
            ideas = re.findall(r'"""(.*?)"""', call["repair_answer"] or given)
            for number, idea in enumerate(ideas[: call["programs"]]):
                row = store.rows(
                    "SELECT candidate, MIN(id) AS first FROM proposal WHERE candidate = "
                    "(SELECT candidate FROM proposal WHERE id = ?)",
                    (call["due"] + number,),
                )[0]
                if row["first"] != call["due"] + number:  # The same as a rule before it.
                    continue
                lineage = llm_yields.with_ideas(store, report_rows.lineage(store, row["candidate"]))
                assert lineage[-1].idea == idea
                assert all(one.idea == "" for one in lineage if one.mutation[:4] != "llm ")
                seen += 1
    assert seen > 10
    data = replace(report_data.read_run(asked), lineage=lineage)
    assert f"“{idea}”" in Page(str(report_lineage.section(data))).text


def test_an_idea_is_shown_as_text(asked):
    data = report_data.read_run(asked)
    with Store.open(asked, read_only=True) as store:
        query = "SELECT candidate FROM proposal WHERE source = 'evaluated'"
        lineage = report_rows.lineage(store, store.rows(query)[0]["candidate"])
    wicked = replace(lineage[0], idea="<script>alert(1)</script>")
    section = str(report_lineage.section(replace(data, lineage=(wicked,))))
    assert "<script" not in section and "&lt;script&gt;" in section


def test_a_search_without_models_has_no_such_section(tmp_path):
    config = fakes.small_config(pool=PoolConfig(num_workers=1), max_evaluations=10)
    run_search.run_search(config, tmp_path, factory=fakes.FakeWorker)
    assert report_data.read_run(tmp_path).models is None
    text = search_report.render(tmp_path)
    assert TITLE not in text and "<td>llm " not in text


def test_a_model_without_any_answer_is_shown(tmp_path):
    with chat_server.Scripted(lambda number, prompt: "down") as server:
        config = searches.llm(models=(ModelConfig("m", server.url),), max_tries=1)
        searches.search(tmp_path / "run", config, max_evaluations=12)
    data = report_data.read_run(tmp_path / "run")
    (one,) = data.models.models
    assert one.children is None and one.programs == 0 and one.statuses["failed"] > 0
    assert "500 Internal Server Error" in Page(str(report_yields.models_section(data))).text
