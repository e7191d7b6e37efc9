"""A search with language models: any answer, any moment of death, the same store."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.search import chat_server, fakes, rerun
from tests.search.evolution.llm import searches
from tests.search.evolution.test_engine import Death, MortalWorker
from veldt.search.config.evolution_config import FounderConfig
from veldt.search.config.llm_config import ModelConfig
from veldt.search.errors import SearchError
from veldt.search.evolution.selection.population import INITIAL
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.run import llm_source
from veldt.search.storage import integrity
from veldt.search.storage.llm_calls import Answer
from veldt.search.storage.store import Store
from veldt.tasks.common.errors import FileError
from veldt.tasks.pool.config import PoolConfig

contents, rows = searches.contents, searches.rows
CALLS = "SELECT * FROM llm_call ORDER BY id"


def again(number, prompt):
    """Busy at first, then good."""
    return "busy" if number == 0 else "good"


def always(kind):
    return lambda number, prompt: kind


# What a server does, and the status of the calls that come of it.
CASES = {
    "good": (always("good"), "ok"),
    "slow": (always("slow"), "ok"),
    "no_usage": (always("no_usage"), "ok"),
    "busy_once": (again, "ok"),
    "broken": (always("broken"), "ok"),  # The repair is good.
    "prose": (always("prose"), "unreadable"),
    "cut": (always("cut"), "cut off"),
    "empty": (always("empty"), "empty"),
    "wrong": (always("wrong"), "failed: the answer is no JSON"),
    "no_choices": (always("no_choices"), "failed: the answer has no choices, as a chat's has"),
    "busy": (always("busy"), "failed: 429 Too Many Requests: slow down"),
    "down": (always("down"), "failed: 500 Internal Server Error: internal"),
    "refused": (
        always("refused"),
        "failed: 401 Unauthorized: Incorrect API key provided: Bearer [hidden]",
    ),
    "hang": (always("hang"), "failed: no whole answer within the time limit"),
    "drip": (always("drip"), "failed: no whole answer within the time limit"),
    "ended": (always("ended"), "failed: the answer ended too early"),
    "large": (always("large"), "failed: the answer has more than 1,048,576 bytes"),
    "redirect": (always("redirect"), "failed: redirect to localhost"),
}
# Where a case ends with the time limit.
SETTINGS = {name: {"max_tries": 1, "timeout_s": 0.2} for name in ("hang", "drip")}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    from veldt.search.evolution.llm import endpoints

    monkeypatch.setattr(endpoints, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A search that was left alone, with a server that answers well."""
    directory = tmp_path_factory.mktemp("good") / "run"
    with chat_server.Scripted() as server:
        searches.search(directory, searches.llm(server.url))
    return directory


def checked(directory, status):
    """The calls of a run whose store is sound, of which all that were learnt have a status."""
    with Store.open(directory, read_only=True) as store:
        assert integrity.problems(store) == []
    found = rows(directory, CALLS)
    learnt = [row["status"] for row in found if row["status"] not in ("under way", "not chosen")]
    assert {*learnt} == {status} and len(learnt) > 3
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_search_takes_whatever_a_server_does(tmp_path, case):
    script, status = CASES[case]
    view = fakes.View()
    with chat_server.Scripted(script) as server:
        config = searches.llm(server.url, **SETTINGS.get(case, {}))
        searches.search(tmp_path / "run", config, view=view)
        asked = dict(server.requests)
    found = checked(tmp_path / "run", status)
    assert searches.files_with(tmp_path, chat_server.KEY) == []
    assert chat_server.KEY not in " ".join(view.notes)
    learnt = [row for row in found if row["status"] not in ("under way", "not chosen")]
    made = [row["programs"] for row in learnt]
    if status == "ok":
        assert set(made) == {2}
    elif status == "cut off":
        assert set(made) == {1}  # What was whole counts.
    else:
        assert set(made) == {0}
    proposals = rows(tmp_path / "run", "SELECT * FROM proposal WHERE mutation = 'llm m'")
    num_told = rows(tmp_path / "run", "SELECT COUNT(*) AS n FROM proposal")[0]["n"]
    places = [row["due"] + i for row in learnt for i in range(row["programs"])]
    assert [row["id"] for row in proposals] == [place for place in places if place < num_told]
    if case == "no_usage":
        assert all(row["estimated"] for row in learnt)
        size = len((learnt[0]["system"] + learnt[0]["prompt"]).encode())
        assert learnt[0]["prompt_tokens"] == -(-size // 4)
    elif status == "ok":
        assert {row["prompt_tokens"] for row in learnt} == {1000 * (2 if case == "broken" else 1)}
        assert not any(row["estimated"] for row in learnt)
    if case == "broken":
        assert all("unknown function 'fft'" in row["repair_prompt"] for row in learnt)
    if set(made) == {0} and not status.startswith("failed"):
        assert f"m: a call has brought no program ({status})" in view.notes
    if status.startswith("failed"):
        assert [note for note in view.notes if status in note] == [f"m: a call has {status}"]
        assert "m: the last 3 calls have failed; it is asked for one call in 10 until one" in (
            " ".join(view.notes)
        )
        later = [row["id"] for row in found if row["digest"] and row["id"] > learnt[3]["id"] + 2]
        assert all(number % 10 == 0 for number in later)
    if case == "redirect":
        assert set(asked.values()) == {1}
        assert {path for path, _ in server.headers} == {"/v1/chat/completions"}


def test_a_program_is_a_child_of_the_rule_that_was_shown(good):
    config = fakes.small_config()
    found = rows(good, CALLS)
    proposals = {row["id"]: row for row in rows(good, "SELECT * FROM proposal")}
    for call in found:
        assert call["due"] == call["proposal"] + 1 + 6
        assert call["id"] * 4 == call["proposal"] + 1  # Two of four proposals are a model's.
        assert call["parent"] <= call["proposal"]
        for place in range(call["due"], call["due"] + call["programs"]):
            if place not in proposals:
                continue
            child = proposals[place]
            assert child["mutation"] == "llm m"
            assert child["parent"] == (None if call["parent"] == INITIAL else call["parent"])
            rate = proposals[call["parent"]]["learning_rate"] if call["parent"] >= 0 else 3e-3
            assert child["learning_rate"] == rate
            dataflow.check(program := Program.parse(child["program"]))
            assert len(program.slots) == config.num_slots
            texts = [Program.parse(text) for text in suggested(call["answer"])]
            assert any(same(program, text) for text in texts)
    others = [row for row in proposals.values() if row["mutation"] != "llm m"]
    assert len(others) >= 10


def suggested(answer):
    return [part.split("```")[0] for part in answer.split("```python\n")[1:]]


def same(ours, theirs):
    """Whether two programs are the same but for names and unused slots."""
    return dataflow.lower(ours).structural_hash == dataflow.lower(theirs).structural_hash


def test_steps_are_matched_where_the_config_says_so(tmp_path):
    from veldt.search.config.evolution_config import MutationConfig

    with chat_server.Scripted() as server:
        searches.search(
            tmp_path, searches.llm(server.url), mutation=MutationConfig(match_steps=True)
        )
    rates = rows(tmp_path, "SELECT learning_rate FROM proposal WHERE mutation = 'llm m'")
    assert len({row["learning_rate"] for row in rates}) > 3


def test_without_models_the_search_is_what_it_was(tmp_path, good):
    searches.search(tmp_path / "none", None)
    assert rows(tmp_path / "none", CALLS) == []
    first = "SELECT * FROM proposal WHERE id < 10 ORDER BY id"
    ours, theirs = rows(tmp_path / "none", first), rows(good, first)
    for row in (*ours, *theirs):
        del row["told_s"]
    assert ours == theirs  # The first call's programs are proposals 10 and 11.


def test_timing_changes_nothing(tmp_path, good):
    """A server that is slow, with more workers, some requests at a time, and helpers."""
    rng = random.Random(5)
    script = {}

    def sometimes(number, prompt):
        return script.setdefault(prompt, rng.choice(["good", "good", "slow"]))

    for name, num_workers, proposers in (("one", 3, 0), ("two", 2, 1)):
        with chat_server.Scripted(sometimes) as server:
            config = searches.llm(server.url, parallel=2)
            directory = tmp_path / name
            pool = PoolConfig(num_workers=num_workers)
            searches.search(directory, config, pool=pool, proposers=proposers)
        assert contents(directory, skip=["meta"]) == contents(good, skip=["meta"])


class Delayed:
    """A source that gives each answer after so many looks, whatever was asked first."""

    def __init__(self, delays):
        self.delays = itertools.cycle(delays)
        self.open = []

    def ask(self, request):
        self.open.append([next(self.delays), request])

    def arrived(self):
        found = []
        for entry in list(self.open):
            entry[0] -= 1
            if entry[0] < 0:
                self.open.remove(entry)
                request, text = entry[1], chat_server.good(entry[1].user)
                asked = (request.call, request.round, request.digest, "ok", text, 1000, 200)
                found.append(Answer(*asked, tries=1))
        return found[::-1]

    def need(self, request):
        assert any(request == each for _, each in self.open)

    def awaits(self):
        return ""

    def close(self):
        pass


@settings(max_examples=4, phases=(Phase.explicit, Phase.generate))
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(0, 60))
def test_answers_in_any_order_give_the_same_store(good, tmp_path_factory, delays, lifetime):
    directory = tmp_path_factory.mktemp("delayed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llm_source, "opened", lambda *_: contextlib.nullcontext(Delayed(delays)))
        config = searches.llm("http://127.0.0.1:9")
        with contextlib.suppress(Death):
            searches.search(directory, config, worker=MortalWorker(lifetime))
        searches.search(directory, config, resume=True)
    assert contents(directory, skip=["meta"]) == contents(good, skip=["meta"])


@settings(max_examples=5, phases=(Phase.explicit, Phase.generate))
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_a_search_that_dies_anywhere_reaches_the_same_store(good, tmp_path_factory, lifetimes):
    directory = tmp_path_factory.mktemp("mortal")
    with chat_server.Scripted() as server:
        config = searches.llm(server.url)
        for lifetime in lifetimes:
            try:
                searches.search(directory, config, worker=MortalWorker(lifetime), resume=True)
            except Death:
                continue
        searches.search(directory, config, resume=True)
    assert contents(directory, skip=["meta"]) == contents(good, skip=["meta"])


def test_a_search_that_was_grown_asks_for_nothing_again(tmp_path, good):
    with chat_server.Scripted() as server:
        config = searches.llm(server.url)
        searches.search(tmp_path, config, max_evaluations=12)
        before = dict(server.requests)
        searches.search(tmp_path, config, resume=True)
        stored = {row["prompt"] for row in rows(tmp_path, CALLS)}
    assert set(before) <= stored and max(server.requests.values()) <= 2
    for table in ("proposal", "llm_call"):
        assert contents(tmp_path)[table] == contents(good)[table]


SCRIPT = """
import json
import sys
from pathlib import Path
from tests.search.evolution.llm import searches
from tests.search import fakes
from veldt.search.evolution.llm import endpoints
endpoints.FIRST_PAUSE_S = 0.01
config = searches.llm(sys.argv[2], **json.loads(sys.argv[3]))
searches.search(Path(sys.argv[1]), config, worker=fakes.FakeWorker(0.01), resume=True)
"""


def killed_often(directory, server, rng, *, num_kills, changes):
    """Runs a search in a process that is killed; checks that what is stored is not asked again."""
    root = Path(__file__).parents[4]
    output = ""
    for kills in range(num_kills + 1):
        counted = answered(directory, server)
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(directory), server.url, json.dumps(changes)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if kills < num_kills:
            deadline = time.monotonic() + 120
            seen = sum(server.requests.values()) + rng.randrange(1, 6)
            while sum(server.requests.values()) < seen and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(rng.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
        said, _ = process.communicate(timeout=240)
        output += said
        expected = 0 if kills == num_kills else -signal.SIGKILL
        assert process.returncode in (0, expected), said
        assert {prompt: server.requests[prompt] for prompt in counted} == counted
    return output


def answered(directory, server):
    """How often was asked what the store has an answer to."""
    query = "SELECT prompt FROM llm_call WHERE id IN (SELECT call FROM llm_answer)"
    return {row["prompt"]: server.requests[row["prompt"]] for row in rows(directory, query)}


def same_when_killed(case, tmp_path, num_kills):
    script, status = CASES[case]
    changes = SETTINGS.get(case, {})
    with chat_server.Scripted(script) as server:
        searches.search(tmp_path / "whole", searches.llm(server.url, **changes))
    with chat_server.Scripted(script) as server:
        rng = random.Random(case)
        output = killed_often(tmp_path / "run", server, rng, num_kills=num_kills, changes=changes)
    checked(tmp_path / "run", status)
    assert contents(tmp_path / "run", skip=["meta"]) == contents(tmp_path / "whole", skip=["meta"])
    assert searches.files_with(tmp_path, chat_server.KEY) == []
    assert chat_server.KEY not in output


@pytest.mark.parametrize("case", ["slow", "broken"])
def test_kill_9_loses_and_repeats_nothing(tmp_path, case):
    same_when_killed(case, tmp_path, num_kills=2)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_kill_9_in_every_case_loses_and_repeats_nothing(tmp_path, case):
    same_when_killed(case, tmp_path, num_kills=4)


def test_a_run_is_found_again_from_its_own_answers(good, tmp_path):
    """By replaying training runs and answers, with no server at all."""
    assert rerun.replay(good, tmp_path / "again") == []


def test_a_run_is_resumed_and_replayed_without_a_network(good, tmp_path):
    url = "http://127.0.0.1:9/v1"  # Nobody is there.
    searches.search(tmp_path / "copy", searches.llm(url, replay=str(good)))
    assert contents(tmp_path / "copy", skip=["meta"]) == contents(good, skip=["meta"])
    before = contents(good, skip=["meta"])
    searches.search(good, searches.llm(url, offline=True), resume=True)
    assert contents(good, skip=["meta"]) == before
    assert {row["tries"] for row in rows(tmp_path / "copy", "SELECT tries FROM llm_answer")} == {0}


def test_offline_what_is_not_stored_is_an_error(good, tmp_path):
    url = "http://127.0.0.1:9/v1"
    with pytest.raises(SearchError, match=r"llm\.offline: the answer to call 1 of model m is not"):
        searches.search(tmp_path / "new", searches.llm(url, offline=True))
    with pytest.raises(SearchError, match=r"call 1 has another prompt .*quadratic"):
        from veldt.search.config.proxy_config import ProxyConfig

        searches.search(
            tmp_path / "other",
            searches.llm(url, replay=str(good)),
            tasks=(ProxyConfig("quadratic", 10, 1),),
            meta_validation=(),
        )
    with pytest.raises(SearchError, match=r"replay: .* has no answer to call \d+"):
        searches.search(
            tmp_path / "longer", searches.llm(url, replay=str(good)), max_evaluations=60
        )
    # With a server the search goes on from where it was.
    with chat_server.Scripted() as server:
        searches.search(tmp_path / "new", searches.llm(server.url), resume=True)
    assert contents(tmp_path / "new", skip=["meta"]) == contents(good, skip=["meta"])


def test_what_may_differ_when_a_run_is_resumed(good, tmp_path):
    import shutil

    shutil.copytree(good, tmp_path / "run")
    with pytest.raises(FileError, match=r"llm\.models\.0\.temperature = 1.0, not 0.5"):
        models = (ModelConfig("m", "http://127.0.0.1:9", temperature=0.5),)
        searches.search(tmp_path / "run", searches.llm(models=models), resume=True)
    with pytest.raises(FileError, match=r"llm\.share = 0.5, not 0.25"):
        searches.search(tmp_path / "run", searches.llm("http://a/", share=0.25), resume=True)
    with pytest.raises(FileError, match=r"llm = .*, not null"):
        searches.search(tmp_path / "run", None, resume=True)
    models = (ModelConfig("m", "http://127.0.0.1:9", input_price=1.0),)
    searches.search(tmp_path / "run", searches.llm(models=models, max_calls=500), resume=True)


def test_a_lot_chooses_models_by_their_shares(tmp_path):
    with chat_server.Scripted() as server:
        models = tuple(
            ModelConfig(name, server.url, model=f"{name}-1", share=share)
            for name, share in (("large", 1.0), ("small", 4.0))
        )
        searches.search(tmp_path, searches.llm(models=models), max_evaluations=60)
        asked = {body["model"] for body in server.bodies}
    assert asked == {"large-1", "small-1"}
    names = [row["model"] for row in rows(tmp_path, CALLS)]
    assert 0 < names.count("large") < names.count("small")
    made = rows(tmp_path, "SELECT DISTINCT mutation FROM proposal WHERE mutation LIKE 'llm %'")
    assert {row["mutation"] for row in made} == {"llm large", "llm small"}


def test_the_bandit_asks_who_gains_and_is_the_same_when_killed(tmp_path):
    found = []
    for name in ("whole", "mortal"):
        with chat_server.Scripted(lambda number, prompt: "good") as server:
            models = (
                ModelConfig("one", server.url),
                ModelConfig("two", server.url),
            )
            config = searches.llm(models=models, choice="bandit", steps_per_token=0.01)
            if name == "mortal":
                with pytest.raises(Death):
                    worker = MortalWorker(25)
                    searches.search(tmp_path / name, config, worker=worker, max_evaluations=50)
            searches.search(tmp_path / name, config, max_evaluations=50, resume=name == "mortal")
        found.append(contents(tmp_path / name, skip=["meta"]))
    assert found[0] == found[1]
    statuses = {row["status"] for row in rows(tmp_path / "whole", CALLS)}
    assert {"ok", "not chosen"} <= statuses
    assert {row["model"] for row in rows(tmp_path / "whole", CALLS)} == {"one", "two", ""}


def test_calls_beyond_the_budget_are_not_made(tmp_path):
    with chat_server.Scripted() as server:
        config = searches.llm(server.url, max_calls=3)
        searches.search(tmp_path / "calls", config)
        assert sum(server.requests.values()) == 3
        models = (
            ModelConfig("m", server.url, max_tokens=300, input_price=10.0, output_price=20.0),
        )
        view = fakes.View()
        config = searches.llm(models=models, max_tokens_total=12_000)
        searches.search(tmp_path / "tokens", config, view=view)
        config = searches.llm(models=models, max_cost=0.1)
        searches.search(tmp_path / "money", config, view=view)
    made = [row for row in rows(tmp_path / "calls", CALLS) if row["digest"]]
    assert len(made) == 3
    refused = [row["status"] for row in rows(tmp_path / "calls", CALLS)][3:]
    assert refused and {*refused} == {"refused: budget"}
    sums = "SELECT SUM(prompt_tokens) AS asked, SUM(completion_tokens) AS written FROM llm_answer"
    spent = rows(tmp_path / "tokens", sums)[0]
    assert 0 < spent["asked"] + spent["written"] <= 12_000
    assert "refused: budget" in {row["status"] for row in rows(tmp_path / "tokens", CALLS)}
    spent = rows(tmp_path / "money", sums)[0]
    assert 0 < spent["asked"] * 10e-6 + spent["written"] * 20e-6 <= 0.1
    lines = [note for note in view.notes if note.startswith("language models: ")]
    assert "more were beyond the budget" in lines[0] and "at a price of" in lines[0]


def test_a_resumed_run_may_have_more_calls(tmp_path):
    with chat_server.Scripted() as server:
        searches.search(tmp_path, searches.llm(server.url, max_calls=1), max_evaluations=10)
        searches.search(tmp_path, searches.llm(server.url, max_calls=9), resume=True)
    statuses = [row["status"] for row in rows(tmp_path, CALLS)]
    assert statuses.count("ok") > 1 and statuses[1] == "refused: budget"


def test_founders_keep_their_places(tmp_path):
    names = ("lion", "sgd", "momentum", "rmsprop", "adabelief", "signum", "nesterov")
    founders = tuple(
        FounderConfig(name, learning_rate=1e-3, rate_factors=(1.0, 0.5)) for name in names
    )
    with chat_server.Scripted() as server:
        config = searches.llm(server.url, lead=4)
        searches.search(tmp_path, config, founders=founders)
    made = [row["mutation"] for row in rows(tmp_path, "SELECT mutation FROM proposal ORDER BY id")]
    assert all(name.startswith("founder ") for name in made[:14])
    assert not any(name.startswith("founder ") for name in made[14:])
    found = rows(tmp_path, CALLS)
    assert [row["status"] for row in found[:3]] == ["not chosen", "not chosen", "ok"]
    assert [row["due"] for row in found[:3]] == [8, 12, 16]
    assert made[16:18] == ["llm m", "llm m"]


def test_ctrl_c_does_not_wait_for_an_answer(tmp_path):
    """The test would take an hour if it did."""

    class View(fakes.View):
        def doing(self, text):
            if text == "waiting for the answer of m to call 1":
                os.kill(os.getpid(), signal.SIGINT)

    with chat_server.Scripted(always("hang")) as server:
        config = searches.llm(server.url, timeout_s=3600.0, patience_s=3600.0)
        with pytest.raises(KeyboardInterrupt):
            searches.search(tmp_path, config, view=View())
    assert {row["status"] for row in rows(tmp_path, CALLS)} == {"under way"}
    assert rows(tmp_path, "SELECT * FROM llm_answer") == []
    with Store.open(tmp_path, read_only=True) as store:
        assert integrity.problems(store) == []


def test_an_answer_that_came_too_late_is_kept_and_not_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr(llm_source, "opened", lambda *_: contextlib.nullcontext(Delayed([0])))
    searches.search(tmp_path, searches.llm("http://127.0.0.1:9", lead=30))
    found = rows(tmp_path, CALLS)
    late = [row for row in found if row["status"] == "under way"]
    assert len(late) > 3 and not any(row["answer"] or row["programs"] for row in late)
    arrived = {row["call"] for row in rows(tmp_path, "SELECT call FROM llm_answer")}
    assert arrived == {row["id"] for row in found}


def test_helpers_and_workers_do_not_see_the_key(tmp_path):
    seen = []

    class Worker:
        def __init__(self):
            self.worker = fakes.FakeWorker()

        def __call__(self, payload):
            seen.append(os.environ.get(searches.VARIABLE))
            return self.worker(payload)

    with chat_server.Scripted() as server, searches.environment():
        searches.search(tmp_path, searches.llm(server.url), worker=Worker(), max_evaluations=8)
        assert os.environ[searches.VARIABLE] == chat_server.KEY
    assert len(seen) > 8 and set(seen) == {None}
    assert all(
        headers["Authorization"] == f"Bearer {chat_server.KEY}" for _, headers in server.headers
    )


def test_samples_and_restarts_go_with_models(tmp_path, good):
    found = []
    for name in ("whole", "mortal"):
        with chat_server.Scripted() as server:
            config = searches.llm(server.url)
            changes = {"samples": 3, "restart_after": 15, "max_evaluations": 50}
            if name == "mortal":
                with pytest.raises(Death):
                    searches.search(tmp_path / name, config, worker=MortalWorker(40), **changes)
            searches.search(tmp_path / name, config, resume=name == "mortal", **changes)
        found.append(contents(tmp_path / name, skip=["meta"]))
    assert found[0] == found[1]
    assert [row for row in found[0]["proposal"] if "llm m" in row]


def test_the_parameters_of_a_call_are_stored(tmp_path):
    with chat_server.Scripted() as server:
        models = (
            ModelConfig(
                "m",
                server.url,
                temperature=0.2,
                params={"top_p": 0.9, "max_tokens": None, "stop": ("END",), "extra": {"a": 1}},
                grammar="vllm",
            ),
        )
        searches.search(tmp_path, searches.llm(models=models), max_evaluations=8)
        body = server.bodies[0]
    stored = json.loads(rows(tmp_path, CALLS)[0]["params"])
    assert stored["temperature"] == body["temperature"] == 0.2
    assert stored["top_p"] == body["top_p"] == 0.9 and body["stop"] == ["END"]
    assert body["extra"] == {"a": 1} and "max_tokens" not in body
    assert stored["grammar"].startswith("vllm ") and body["structured_outputs"]["grammar"]
