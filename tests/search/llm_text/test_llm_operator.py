"""The benchmark of models in a search: its arms are configs, and its arithmetic is right."""

import json
import socket
import urllib.request

import llm_operator
import pytest
import search_power
from search_power import Search

from veldt.search.evolution import founders, suggestions
from veldt.search.llm_text import answers

WITH_MODEL = ("--url", "http://localhost:1/v1", "--model", "some", "--key-env", "SOME_KEY")


def searches(tmp_path, *words):
    args = llm_operator.parse(["--runs", str(tmp_path), *words])
    return {
        arm: Search(
            arm, 3, args.base, own, 40, tmp_path, "max_evaluations", llm_operator.FRACTIONS
        ).config(0.5)
        for arm, own in args.arms.items()
    }


def test_the_arms_differ_in_what_they_are_named_for(tmp_path):
    assert list(searches(tmp_path)) == ["mutation", "best_of_n", "grammar"]
    found = searches(tmp_path, *WITH_MODEL, "--grammar", "vllm", "--max-tokens-total", "9000")
    assert list(found) == ["mutation", "best_of_n", "grammar", "model", "mixed"]
    for config in found.values():
        assert (config.seed, config.max_evaluations, config.max_steps) == (3, 20, None)
        assert config.finals == found["mutation"].finals
    assert found["mutation"].llm is None
    assert found["best_of_n"].parents == "initial" and found["best_of_n"].mutation.repeat == 0
    for arm, share, choice in (
        ("grammar", 1, "shares"),
        ("model", 1, "shares"),
        ("mixed", 0.5, "bandit"),
    ):
        llm = found[arm].llm
        assert (llm.share, llm.choice, llm.lead) == (share, choice, found[arm].window)
    (model,) = found["model"].llm.models
    assert (model.name, model.key_env, model.grammar) == ("some", "SOME_KEY", "vllm")
    assert found["model"].llm.max_tokens_total == 9000


@pytest.mark.parametrize(
    "words",
    [
        ("--url", "http://localhost:1/v1"),
        ("--only", "nothing"),
        ("--common", "max_evaluations=3"),
        ("--common", "llm=null"),
    ],
)
def test_unequal_terms_are_refused(tmp_path, words):
    with pytest.raises(SystemExit):
        searches(tmp_path, *words)


def test_the_stand_in_answers_random_programs_of_the_grammar():
    config = search_power.load("quickstart", ())
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]

    def ask(prompt):
        body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["choices"][0]["message"]["content"]

    with llm_operator.stand_in_model(llm_operator.grammar_of(config), port):
        given = [ask("one"), ask("two"), ask("one")]
    assert given[0] == given[2] != given[1]
    limits = suggestions.limits_of(config, founders.load(config))
    for text in given:
        reading = answers.read(
            text,
            num_slots=limits.num_slots,
            max_statements=limits.max_statements,
            instructions=limits.instructions,
            reads=limits.reads,
            num_programs=2,
        )
        assert reading.programs and reading.problems == ()


def stages(*rows):
    return [{"processor_s": seconds, "fresh": [loss, loss]} for seconds, loss in rows]


def test_at_equal_time_each_search_counts_with_what_it_had_by_then():
    """The quick arm takes 10 seconds; by then the slow one had handed out one rule, or none."""
    scored = {
        "quick": {0: stages((5, -1.0), (9, -1.2)), 1: stages((5, -1.0), (11, -1.4))},
        "slow": {0: stages((8, -1.5), (30, -3.0)), 1: stages((12, -1.7), (31, -3.0))},
    }
    found = llm_operator.at_equal_time(scored, {"adamw": {"fresh": [-1.0, -1.0]}})
    assert found["seconds"] == 10
    assert found["arms"]["quick"]["each"] == pytest.approx([-0.2, 0.0])
    assert found["arms"]["slow"]["each"] == pytest.approx([-0.5, -0.7])
    assert [found["arms"][arm]["late"] for arm in scored] == [0, 1]
    assert found["arms"]["slow"]["less_adamw"]["mean"] == pytest.approx(-0.6)


def test_a_budget_in_steps_is_what_it_was(tmp_path):
    """Results of `search_power` that were stored before budgets could be programs stay valid."""
    old = Search("evolution", 0, "quickstart", ("islands=2",), 4_000, tmp_path)
    assert old.signature == ["quickstart", ["islands=2"], 4_000]
    config = old.config(0.25)
    assert (config.max_steps, config.max_evaluations, config.islands) == (1_000, 100, 2)
    new = Search("evolution", 0, "quickstart", (), 40, tmp_path, "max_evaluations", (0.5, 1.0))
    assert new.signature == ["quickstart", [], 40, "max_evaluations", [0.5, 1.0]]
