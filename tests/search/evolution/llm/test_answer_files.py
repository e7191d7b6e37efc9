"""Answers by hand and from stores: what counts as one, and what is refused."""

import os
import threading
import time

import pytest

from tests.search import chat_server, fakes
from tests.search.evolution.llm import searches
from veldt.search.errors import SearchError
from veldt.search.evolution.llm import manual_files
from veldt.search.evolution.llm.answer_source import Request
from veldt.search.evolution.llm.manual_files import ManualFiles


def request(number=7, round=0, user="Improve this."):
    return Request(number, round, "manual", "You write rules.", user, "digest")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(manual_files, "CHECK_S", 0.0)
    monkeypatch.setattr(manual_files, "STILL_S", 0.05)


def polled(source, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := source.arrived():
            return list(found)
        time.sleep(0.01)
    return []


def test_a_prompt_is_a_file_and_so_is_its_answer(tmp_path, quick):
    source = ManualFiles(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    source.ask(request())
    text = (folder / "call_0007.prompt.md").read_text()
    assert "You write rules." in text and "Improve this." in text
    assert source.awaits() == str(folder / "call_0007.answer.md")
    assert source.arrived() == []
    (folder / "call_0007.answer.md").write_text("")  # As an editor may begin.
    assert polled(source, 0.2) == []
    (folder / "call_0007.answer.md").write_text("an answer")
    (found,) = polled(source)
    assert (found.call, found.status, found.answer) == (7, "ok", "an answer")
    assert found.estimated and found.completion_tokens == 3
    assert source.awaits() == ""
    source.ask(request(round=1, user="Again."))
    assert (folder / "call_0007.repair.prompt.md").exists()


def test_a_file_that_grows_is_not_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(manual_files, "CHECK_S", 0.0)
    monkeypatch.setattr(manual_files, "STILL_S", 1000.0)
    now = [0.0]
    monkeypatch.setattr(manual_files.time, "monotonic", lambda: now[0])
    source = ManualFiles(tmp_path)
    source.ask(request())
    answer = tmp_path / "call_0007.answer.md"
    for size in range(1, 4):
        answer.write_text("x" * size)
        assert source.arrived() == []
        now[0] += 999.0  # It changes before it has been still for long enough.
        assert source.arrived() == [] or size == 0
    now[0] += 1000.0
    (found,) = source.arrived()
    assert found.answer == "xxx"


def test_an_answer_that_is_too_large_or_no_text_is_no_exception(tmp_path, quick):
    source = ManualFiles(tmp_path)
    for number, content in ((1, b"x" * (2**20 + 1)), (2, b"\xff\0\xfe"), (3, b"  \n")):
        source.ask(request(number))
        (tmp_path / f"call_{number:04d}.answer.md").write_bytes(content)
    found = {}
    while len(found) < 3:
        found |= {answer.call: answer for answer in polled(source)}
    assert found[1].status == "failed: the answer has more than 1,048,576 bytes"
    assert found[2].answer == "\ufffd\ufffd" and found[3].status == "empty"


def test_an_answer_to_another_prompt_is_refused(tmp_path, quick):
    first = ManualFiles(tmp_path)
    first.ask(request())
    (tmp_path / "call_0007.answer.md").write_text("an answer")
    ManualFiles(tmp_path).ask(request())  # The same run, resumed.
    with pytest.raises(SearchError, match=r"call_0007.answer.md answers another prompt"):
        ManualFiles(tmp_path).ask(request(user="Another."))


class Agent(threading.Thread):
    """Answers prompts as they come, by files that are renamed."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder = folder
        self.ended = threading.Event()

    def run(self):
        while not self.ended.wait(0.01):
            for prompt in sorted(self.folder.glob("*.prompt.md")):
                answer = prompt.with_name(prompt.name.replace(".prompt.", ".answer."))
                if not answer.exists():
                    draft = answer.with_suffix(".new")
                    draft.write_text(chat_server.good(prompt.read_text()))
                    draft.rename(answer)


def test_a_search_by_hand_waits_and_resumes(tmp_path, quick):
    (tmp_path / "files").mkdir()
    config = searches.llm(models=(), manual=str(tmp_path / "files"))
    seen = []

    class Impatient(fakes.View):
        def doing(self, text):
            if text.startswith("waiting for the answer"):
                seen.append(text)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searches.search(tmp_path / "run", config, view=Impatient())
    file = tmp_path / "files" / "call_0001.answer.md"
    assert seen[0].startswith(f"waiting for the answer of manual to call 1 as {file}")
    assert not file.exists()
    agent = Agent(tmp_path / "files")
    agent.start()
    searches.search(tmp_path / "run", config, resume=True)
    agent.ended.set()
    agent.join()
    statuses = searches.rows(tmp_path / "run", "SELECT DISTINCT model, status FROM llm_call")
    assert {("manual", "ok")} <= {(row["model"], row["status"]) for row in statuses}
    made = searches.rows(tmp_path / "run", "SELECT DISTINCT mutation FROM proposal")
    assert "llm manual" in {row["mutation"] for row in made}
    assert not [name for name in os.listdir(tmp_path / "run") if "call_" in name]
    # What an agent answered is replayed by anyone.
    replayed = searches.llm(models=(), manual=str(tmp_path / "none"), replay=str(tmp_path / "run"))
    searches.search(tmp_path / "copy", replayed)
    assert searches.contents(tmp_path / "copy", skip=["meta"]) == searches.contents(
        tmp_path / "run", skip=["meta"]
    )
