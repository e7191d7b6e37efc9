"""What a model is shown of a search, and the figures of what it cost and bought."""

import io
import re
from collections import Counter

import pytest
from rich.console import Console

from tests.search import chat_server, fakes
from tests.search.evolution.llm import searches
from veldt import cli
from veldt.search.config.llm_config import LlmConfig, ModelConfig
from veldt.search.evolution import founders, suggestions
from veldt.search.run import search_view
from veldt.search.storage import llm_figures
from veldt.search.storage.store import Store
from veldt.tasks.common.progress import live

rows = searches.rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a search with a model that is busy at times, its config and its view."""
    directory = tmp_path_factory.mktemp("shown") / "run"
    view = fakes.View()
    script = lambda number, prompt: "busy" if number == 0 and len(prompt) % 3 == 0 else "good"  # noqa: E731
    with chat_server.Scripted(script) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(suggestions, "SHOW_S", 0.0)  # However quick the search is.
        models = (ModelConfig("m", server.url, input_price=2.0, output_price=10.0),)
        config = searches.llm(models=models, about="small images")
        searches.search(directory, config, view=view, max_evaluations=60)
    return directory, config, view


def shown(prompt, heading):
    """The numbers of the rules, and the lines about them, under a heading of a prompt."""
    part = prompt.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^(The initial rule|Rule #(\d+)): (.*)\.$", part, re.M)
    return {int(number or -1): line for _, number, line in found}


def test_what_founders_consist_of_is_allowed_too():
    config = fakes.small_config(
        llm=LlmConfig(manual="x"), initial_rule="muon", learning_rate=0.02, num_slots=3
    )
    limits = suggestions.limits_of(config, founders.load(config))
    assert "orthogonalize" in limits.instructions
    assert "orthogonalize" not in config.mutation.instructions
    rule = "def rule(w, g, m):\n    m = interp(g, m, 0.9)\n    return orthogonalize(m), m\n"
    (found,) = limits.read(rule).programs
    assert len(found.program.slots) == 3
    assert "orthogonalize" in limits.grammar()
    assert not limits.read(rule.replace("orthogonalize", "nuclear_norm")).programs


def test_the_first_prompt_is_that_of_the_initial_rule(run):
    directory, _, _ = run
    first = rows(directory, "SELECT * FROM llm_call ORDER BY id LIMIT 1")[0]
    assert {first["parent"]} == {*shown(first["prompt"], "The rule to improve")} == {-1}
    assert "small images" in first["prompt"] and "digits_mlp (10 steps)" in first["prompt"]


def test_a_prompt_shows_what_was_recorded_by_then(run):
    directory, _, _ = run
    query = "SELECT p.*, c.fitness, c.status FROM proposal p JOIN candidate c ON c.id = p.candidate"
    proposals = {row["id"]: row for row in rows(directory, query)}
    losses = {
        (row["candidate"], row["task"]): row["log_loss"]
        for row in rows(directory, "SELECT * FROM evaluation WHERE purpose = 'fitness'")
    }
    num_best, reasons = Counter(), Counter()
    for call in rows(directory, "SELECT * FROM llm_call"):
        prompt, index = call["prompt"], call["proposal"]
        parent = shown(prompt, "The rule to improve")
        best = shown(prompt, "The best other rules so far")
        failed = shown(prompt, "What failed")
        assert {*parent} == {call["parent"]}
        assert max((*parent, *best)) < index and max(failed, default=0) <= index
        num_best[len(best)] += 1
        for number, line in (parent | best).items():
            row = proposals.get(number, {"candidate": 0})
            if number >= 0:
                assert f"loss {row['fitness']:.4f}" in line
            for task in ("digits_mlp", "digits_conv"):
                assert f"{task} {losses[row['candidate'], task]:.4f}" in line
        candidates = [proposals[number]["candidate"] for number in best if number >= 0]
        assert len(candidates) == len({*candidates})
        for number, line in failed.items():
            row = proposals[number]
            if row["source"] in ("structure", "behaviour"):
                same = [p["id"] for p in proposals.values() if p["candidate"] == row["candidate"]]
                expected = f"same behaviour as #{min(same)}"
                if row["candidate"] == 0:
                    expected = "same behaviour as the initial rule"
                assert line.endswith(expected)
            elif row["source"] == "evaluated":
                assert row["status"] != "ok"
                word = {"rejected": "rejected at a check on", "diverged": "diverges on"}
                assert word[row["status"]] in line
            reasons[row["source"]] += 1
    assert num_best[3] > 5 and reasons["evaluated"] and reasons["behaviour"]


def test_figures_are_those_of_the_rows(run):
    directory, config, view = run
    with Store.open(directory, read_only=True) as store:
        model, blind = llm_figures.read(store)
        lines = llm_figures.closing_lines(store, config)
    proposals = rows(
        directory,
        "SELECT p.*, c.fitness FROM proposal p JOIN candidate c ON c.id = p.candidate",
    )
    fitness = {row["id"]: row["fitness"] for row in proposals}
    initial = rows(directory, "SELECT fitness FROM candidate WHERE id = 0")[0]["fitness"]
    for arm, mine in ((model, True), (blind, False)):
        ours = [row for row in proposals if (row["mutation"] == "llm m") == mine]
        trained = [row for row in ours if row["source"] == "evaluated"]
        better = [
            row
            for row in trained
            if row["fitness"] is not None
            and row["fitness"] < (initial if row["parent"] is None else fitness[row["parent"]])
        ]
        assert (arm.num_children, arm.num_trained) == (len(ours), len(trained))
        assert arm.num_better == len(better) > 0
    bests = rows(directory, "SELECT COUNT(*) AS n FROM challenge WHERE won = 1 AND id > 0")[0]["n"]
    assert model.num_bests + blind.num_bests == bests > 0
    answers = rows(directory, "SELECT * FROM llm_answer")
    assert model.prompt_tokens == 1000 * len(answers)
    assert model.completion_tokens == 200 * len(answers)
    assert model.num_requests == sum(row["tries"] for row in answers) > len(answers)
    calls = rows(directory, "SELECT COUNT(*) AS n FROM llm_call WHERE digest <> ''")[0]["n"]
    price = len(answers) * (1000 * 2 + 200 * 10) / 1e6
    assert lines[0] == (
        f"language models: {calls} calls, {1200 * len(answers):,} tokens, "
        f"at a price of {price:,.4g}"
    )
    assert lines == [note for note in view.notes if note in lines]
    assert lines[1].startswith(f"m: {calls} calls (0 failed, 0 without a program)")
    assert lines[2].startswith(f"mutation: {blind.num_children} proposed, ")


def test_the_view_shows_what_models_cost(run):
    _, _, view = run
    console = Console(file=io.StringIO(), force_terminal=True, width=150, height=60)
    display = live.LiveDisplay(io.StringIO(), console)
    viewed = search_view.SearchView(display)
    viewed.update(view.evolution)
    figures = viewed.status().figures
    display.close()
    assert re.fullmatch(
        r"\d+ calls, [\d,]+ tokens, at a price of [\d.]+; \d+ under way", figures["language models"]
    )


def test_the_command_shows_the_first_prompt_and_trains_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(
        "tasks: [{task: digits_mlp, num_steps: 10}]\nmeta_validation: []\n"
        "llm: {models: [{name: m, url: 'http://localhost:1', key_env: NO_SUCH_KEY}]}\n"
    )
    assert cli.main(["search", "a.yaml", "--llm.show-prompt", "true"]) == 0
    printed = capsys.readouterr().out
    found = fakes.small_config(llm=LlmConfig(manual="x"), meta_validation=())
    assert suggestions.first_prompt(found).system in printed
    assert "The initial rule: learning rate 0.003." in printed
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
    assert cli.main(["search", "a.yaml"]) == 1
    assert "NO_SUCH_KEY, which model m needs, is not set" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_template_that_cannot_be_used_is_named_before_anything_is_made(tmp_path):
    (tmp_path / "user.md").write_text("{parent} {tassks}")
    config = searches.llm("http://127.0.0.1:9", templates=str(tmp_path))
    with pytest.raises(Exception, match=r"user\.md: \{tassks\} is no placeholder"):
        searches.search(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()
