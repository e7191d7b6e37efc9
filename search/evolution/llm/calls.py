"""The calls of a search: begun with a proposal, asked ahead, learnt in the order of proposals.

Call `k` begins in the transaction that records proposal `k * every - 1`, and its prompt shows what
was recorded by then. Its programs are the proposals `k * every + lead`, and the following ones as
far as it has programs; other proposals of its places are ordinary children. A search that needs a
program of a call that has not ended waits, and learns nothing meanwhile. So what it proposes is a
function of what was recorded and of the answers, and not of when they came, as with letters
(`storage/mail.py`).

Answers are stored as soon as they have arrived, in transactions of their own, and requests are sent
when the rows that they follow from are on disk (`tend`). An answer without any program leads to one
further request with the parser's words, the repair.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, final

import numpy as np

from veldt.search.config.llm_config import BLIND, LlmConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution.llm import arm_choice, chat_format, token_budget
from veldt.search.evolution.llm.answer_source import AnswerSource, Request
from veldt.search.evolution.llm.program_limits import ProgramLimits
from veldt.search.evolution.llm.token_budget import Spent
from veldt.search.llm_text import prompts
from veldt.search.llm_text.answers import Suggested
from veldt.search.llm_text.prompts import Prompt
from veldt.search.storage import llm_calls
from veldt.search.storage.llm_calls import Answer, Call, Learnt
from veldt.search.storage.store import Store

# A model that is down would cost the search all its patience with each call.
FAILURES: Final = 3
ASKED_AGAIN: Final = 10
MAX_NOTES: Final = 20
_LOT: Final = 0x6C6C6D  # Random draws of calls are apart from those of proposals.


class Suggestion(NamedTuple):
    """A program of a model: the call that it comes from, and the program."""

    call: Call
    suggested: Suggested


class Prepared(NamedTuple):
    """A prompt, and the proposal of the parent that it shows, -1 for the initial rule."""

    prompt: Prompt
    parent: int


@final
class _Open:
    """A call some of whose programs are not recorded yet."""

    def __init__(self, call: Call, worst: Spent):
        self.call = call
        self.worst = worst
        self.is_learnt = call.status != llm_calls.UNDER_WAY
        self.answers: list[Answer] = []
        self.programs: tuple[Suggested, ...] = ()
        self.status = ""
        self.repair_prompt = ""
        self.awaited: Request | None = Request(
            call.id, 0, call.model, call.system, call.prompt, call.digest
        )

    def take(self, answer: Answer, limits: ProgramLimits, templates: Path | None) -> None:
        """Take the answer to what is awaited; it ends the call or leads to the repair."""
        self.awaited = None
        self.answers.append(answer)
        reading = limits.read(answer.answer)
        if reading.programs or answer.round == 0:
            self.programs = reading.programs
            self.status = answer.status
        if answer.round == 0 and not reading.programs and answer.status == llm_calls.OK:
            self.status = llm_calls.UNREADABLE
            asked = Prompt(self.call.system, self.call.prompt)
            problem = "\n".join(reading.problems)
            repair = prompts.repair(asked, answer.answer, problem, templates)
            self.repair_prompt = repair.user
            self.awaited = Request(
                self.call.id, 1, self.call.model, repair.system, repair.user, repair.digest
            )

    @property
    def learnt(self) -> Learnt:
        """What the search learns of the call when it has ended."""
        return Learnt(self.status, len(self.programs), tuple(self.answers), self.repair_prompt)


@final
class Calls:
    """The calls of one search that are under way, and their rows."""

    def __init__(
        self,
        config: SearchConfig,
        store: Store,
        source: AnswerSource,
        limits: ProgramLimits,
        elapsed_s: Callable[[], float],
        *,
        first: int = 0,
    ):
        """Read what is under way from the store.

        Args:
          config: Config of the search, with language models.
          store: Store of the search.
          source: Source of answers that the store does not have.
          limits: Limits of programs.
          elapsed_s: Function that returns the seconds of search.
          first: First proposal that may be a model's; those before are founders.
        """
        assert config.llm is not None
        self._llm: LlmConfig = config.llm
        self._seed = config.seed
        self._lead = config.llm.lead_of(config.window)
        self._store = store
        self._source = source
        self._limits = limits
        self._elapsed_s = elapsed_s
        self._first = first
        self._templates = None if self._llm.templates is None else Path(self._llm.templates)
        self._grammars = {
            model.name: chat_format.grammar_digest(limits.grammar())
            for model in self._llm.asked
            if model.grammar != "none"
        }
        self._open: dict[int, _Open] = {}
        self._unsent: list[Request] = []
        self._needed: Request | None = None
        self._notes: dict[str, bool] = {}  # By text, whether it was taken.
        self._spent = token_budget.learnt(store, self._llm)
        query = "SELECT COUNT(*) FROM llm_call WHERE digest <> ''"
        self._num_calls = int(store.first(query))
        num_told = int(store.first("SELECT COUNT(*) FROM proposal"))
        for call in llm_calls.since(store, num_told - self._llm.num_programs + 1):
            if call.is_made:
                self._add(call)
                for answer in llm_calls.answers(store, call.id):
                    self._take(answer)

    # ------------------------------------------------------------------ beginning

    def begin(self, index: int, prepare: Callable[[np.random.Generator], Prepared]) -> None:
        """Begin a call, where it is time for one, in the transaction that records a proposal.

        Args:
          index: Number of the proposal.
          prepare: Function that makes the prompt, from what is recorded.
        """
        if (index + 1) % self._llm.every:
            return
        number = (index + 1) // self._llm.every
        name = self._choose(number) if index + 1 + self._lead >= self._first else BLIND
        blank = Call(
            number, index, index + 1 + self._lead, name, {}, "", "", "", -1, llm_calls.NOT_CHOSEN
        )
        if name == BLIND:
            llm_calls.insert(self._store, dataclasses.replace(blank, model=""))
            return
        prompt, parent = prepare(np.random.default_rng((self._seed, number, _LOT + 1)))
        model = self._llm.model(name)
        call = dataclasses.replace(
            blank,
            params=chat_format.params(model, self._grammars.get(name, "")),
            system=prompt.system,
            prompt=prompt.user,
            digest=prompt.digest,
            parent=parent,
            status=llm_calls.UNDER_WAY,
        )
        if not self._may_spend(call):
            refused = dataclasses.replace(blank, status=llm_calls.REFUSED)
            llm_calls.insert(self._store, refused)
            return
        llm_calls.insert(self._store, call)
        self._num_calls += 1
        self._add(call)

    def _choose(self, number: int) -> str:
        """Return the name of the model that a call asks, or `BLIND`."""
        if self._llm.choice == "bandit":
            name = arm_choice.best(arm_choice.arms(self._store, self._llm, self._under_way()))
        else:
            lots = np.random.default_rng((self._seed, number, _LOT))
            name = arm_choice.by_lot(lots, self._llm)
        return BLIND if number % ASKED_AGAIN and self._is_down(name) else name

    def _is_down(self, name: str) -> bool:
        """Return whether the last few calls of a model that were learnt have all failed."""
        last = self._store.rows(
            "SELECT status FROM llm_call WHERE model = ? AND digest <> '' AND status <> ? "
            "ORDER BY id DESC LIMIT ?",
            (name, llm_calls.UNDER_WAY, FAILURES),
        )
        num_failed = sum(row["status"].startswith(llm_calls.FAILED) for row in last)
        if num_failed == FAILURES:
            self._note(
                f"{name}: the last {FAILURES} calls have failed; it is asked for one call in "
                f"{ASKED_AGAIN} until one succeeds"
            )
        return num_failed == FAILURES

    def _under_way(self) -> Mapping[str, int]:
        """Return the number of programs asked for that are not recorded, by model."""
        found: dict[str, int] = {}
        for each in self._open.values():
            if not each.is_learnt:
                name = each.call.model
                found[name] = found.get(name, 0) + self._llm.num_programs
        return found

    def _may_spend(self, call: Call) -> bool:
        return token_budget.allows(
            self._llm,
            self._num_calls,
            self._spent,
            [each.worst for each in self._open.values() if not each.is_learnt],
            self._worst(call),
        )

    def _worst(self, call: Call) -> Spent:
        return token_budget.worst(self._llm.model(call.model), call.system, call.prompt)

    def _add(self, call: Call) -> None:
        self._open[call.id] = opened = _Open(call, self._worst(call))
        assert opened.awaited is not None
        self._unsent.append(opened.awaited)

    # ------------------------------------------------------------------ answers

    def tend(self) -> None:
        """Store the answers that have arrived, and send requests; outside of transactions.

        Raises:
          StoreError: The store cannot be written.
        """
        while True:
            arrived = self._source.arrived()
            if arrived:
                now = self._elapsed_s()
                arrived = [dataclasses.replace(answer, arrived_s=now) for answer in arrived]
                with self._store.transaction():
                    for answer in arrived:
                        llm_calls.insert_answer(self._store, answer)
                for answer in arrived:
                    self._take(answer)
            sent, self._unsent = self._unsent, []
            for request in sent:
                self._source.ask(request)
            if not sent:
                return

    def _take(self, answer: Answer) -> None:
        opened = self._open[answer.call]
        self._unsent = [each for each in self._unsent if each != opened.awaited]
        opened.take(answer, self._limits, self._templates)
        if opened.awaited is not None:
            self._unsent.append(opened.awaited)

    # ------------------------------------------------------------------ proposals

    def _place(self, index: int) -> tuple[int, int] | None:
        """Return the call and the position in it of a proposal's place; None for other places."""
        number, position = divmod(index - self._lead, self._llm.every)
        return (number, position) if number >= 1 and position < self._llm.num_programs else None

    def awaits(self, index: int) -> bool:
        """Return whether a proposal needs an answer that has not come yet.

        Raises:
          SearchError: It will never come.
        """
        self._needed = None
        place = self._place(index)
        opened = None if place is None else self._open.get(place[0])
        if opened is None or opened.awaited is None:
            return False
        self._needed = opened.awaited
        if opened.awaited not in self._unsent:
            self._source.need(opened.awaited)
        return True

    def suggestion(self, index: int) -> Suggestion | None:
        """Return the program of a model that a proposal is; None where it is an ordinary child."""
        place = self._place(index)
        if place is None or (opened := self._open.get(place[0])) is None:
            return None
        programs = opened.programs
        return Suggestion(opened.call, programs[place[1]]) if place[1] < len(programs) else None

    def tell(self, index: int) -> None:
        """Learn what a proposal's place was about, in the transaction that records it."""
        place = self._place(index)
        if place is None or (opened := self._open.get(place[0])) is None:
            return
        if place[1] == 0:
            learnt = opened.learnt
            llm_calls.complete(self._store, opened.call.id, learnt)
            opened.is_learnt = True
            self._spent += token_budget.spent(learnt, self._llm.model(opened.call.model))
            if not learnt.programs:
                self._note_trouble(opened.call.model, learnt.status)
        if place[1] == self._llm.num_programs - 1:
            del self._open[place[0]]

    # ------------------------------------------------------------------ for people

    def _note_trouble(self, name: str, status: str) -> None:
        """Note that a call has brought no program, and why."""
        text = f"{name}: a call has brought no program ({status})"
        if status.startswith(llm_calls.FAILED):
            text = f"{name}: a call has {status}"
        elif status == llm_calls.CUT_OFF:
            limit = self._llm.model(name).max_tokens
            text = f"{name}: an answer was cut off before any program, at max_tokens {limit:,}"
        self._note(text)

    def _note(self, text: str) -> None:
        if len(self._notes) < MAX_NOTES:  # Some servers give each failure a number.
            self._notes.setdefault(text, False)

    @property
    def num_under_way(self) -> int:
        """The number of calls that wait for an answer."""
        return sum(each.awaited is not None for each in self._open.values())

    @property
    def awaited(self) -> str:
        """What the search waits for; empty where it waits for no answer."""
        if self._needed is None:
            return ""
        file = self._source.awaits()
        where = f" as {file}" if file else ""
        return f"the answer of {self._needed.model} to call {self._needed.call}{where}"

    def take_notes(self) -> list[str]:
        """Return what has failed since the last call, each failure once."""
        found = [text for text, is_taken in self._notes.items() if not is_taken]
        self._notes |= dict.fromkeys(found, True)
        return found
