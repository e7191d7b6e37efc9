"""The rows of a search's calls of language models: what was asked, what came, what was learnt.

An answer has a row of its own as soon as it has arrived (`llm_answer`), whenever that is; so a
search that is killed asks nothing twice. The search learns answers in the order of its proposals:
the row of a call (`llm_call`) is completed with the first proposal that its programs are. So the
rows of calls are functions of the answers, and not of when they came.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from veldt.search.storage.store import Store

UNDER_WAY: Final = "under way"
OK: Final = "ok"
CUT_OFF: Final = "cut off"
EMPTY: Final = "empty"
UNREADABLE: Final = "unreadable"
FAILED: Final = "failed: "
"""First word of the status of a call that has no answer; why follows."""
REFUSED: Final = "refused: budget"
NOT_CHOSEN: Final = "not chosen"
NOT_MADE: Final = (REFUSED, NOT_CHOSEN)

MUTATION: Final = "llm "
"""First word of the mutation of a model's proposals; the model's name follows."""


@final
@dataclass(frozen=True, slots=True)
class Call:
    """A call as it is when it begins.

    Attributes:
      id: Number of the call, from 1.
      proposal: Proposal at whose recording it begins.
      due: First of the proposals that its programs are.
      model: Name of the model; empty where none was chosen.
      params: What is asked beside the prompt.
      system: System's part of the prompt.
      prompt: User's part of the prompt.
      digest: Digest of both parts; empty where nothing is asked.
      parent: Proposal of the parent shown; -1 for the initial rule.
      status: `UNDER_WAY`, or why nothing is asked.
    """

    id: int
    proposal: int
    due: int
    model: str
    params: Mapping[str, Any]
    system: str
    prompt: str
    digest: str
    parent: int
    status: str = UNDER_WAY

    @property
    def is_made(self) -> bool:
        """Whether a model is asked."""
        return self.status not in NOT_MADE


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request.

    Attributes:
      call: Number of the call.
      round: 0, or 1 for the repair.
      digest: Digest of the prompt answered.
      status: `OK`, `CUT_OFF`, `EMPTY`, or `FAILED` and why.
      answer: Text of the answer.
      prompt_tokens: Number of tokens of the prompt.
      completion_tokens: Number of tokens of the answer.
      estimated: Whether the numbers of tokens are estimates.
      tries: Number of requests made, failed ones included; 0 for an answer from another store.
      latency_s: Seconds until the answer was there, pauses included.
      arrived_s: Seconds of search when it arrived.
    """

    call: int
    round: int
    digest: str
    status: str
    answer: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    tries: int = 0
    latency_s: float = 0.0
    arrived_s: float = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether there is no answer."""
        return self.status.startswith(FAILED)


@final
@dataclass(frozen=True, slots=True)
class Learnt:
    """What a search learns of a call in the end.

    Attributes:
      status: Status of the call.
      programs: Number of programs read.
      answers: Answers, the repair's last.
      repair_prompt: Text that asked for the repair; empty where there was none.
    """

    status: str
    programs: int
    answers: tuple[Answer, ...]
    repair_prompt: str


def insert(store: Store, call: Call) -> None:
    """Store a call that begins, inside a transaction."""
    store.insert(
        "llm_call",
        id=call.id,
        proposal=call.proposal,
        due=call.due,
        model=call.model,
        params=json.dumps(call.params, sort_keys=True),
        system=call.system,
        prompt=call.prompt,
        digest=call.digest,
        parent=call.parent,
        status=call.status,
    )


def insert_answer(store: Store, answer: Answer) -> None:
    """Store an answer that has arrived, inside a transaction."""
    store.insert(
        "llm_answer",
        call=answer.call,
        round=answer.round,
        digest=answer.digest,
        status=answer.status,
        answer=answer.answer,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        estimated=int(answer.estimated),
        tries=answer.tries,
        latency_s=answer.latency_s,
        arrived_s=answer.arrived_s,
    )


def complete(store: Store, call: int, learnt: Learnt) -> None:
    """Store what was learnt of a call, inside a transaction."""
    answers = learnt.answers
    answered = [answer for answer in answers if not answer.has_failed]
    store.update(
        "llm_call",
        call,
        status=learnt.status,
        programs=learnt.programs,
        answer=answers[0].answer,
        repair_prompt=learnt.repair_prompt,
        repair_answer=answers[1].answer if len(answers) > 1 else "",
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        completion_tokens=sum(answer.completion_tokens for answer in answers),
        estimated=int(any(answer.estimated for answer in answers)),
        requests=len(answered),
        latency_s=sum(answer.latency_s for answer in answers),
        arrived_s=answers[-1].arrived_s,
    )


def since(store: Store, due: int) -> list[Call]:
    """Return the calls whose first proposal is `due` or a later one, in order."""
    names = "id, proposal, due, model, params, system, prompt, digest, parent, status"
    rows = store.rows(f"SELECT {names} FROM llm_call WHERE due >= ? ORDER BY id", (due,))
    return [Call(**{**row, "params": json.loads(row["params"])}) for row in rows]


def answers(store: Store, call: int) -> list[Answer]:
    """Return the answers of a call that have arrived, in order."""
    rows = store.rows("SELECT * FROM llm_answer WHERE call = ? ORDER BY round", (call,))
    return [Answer(**{**row, "estimated": bool(row["estimated"])}) for row in rows]


def prompt_of(store: Store, call: int) -> tuple[str, str] | None:
    """Return the two parts of a call's prompt; None where there is no such call, or none made."""
    query = "SELECT system, prompt FROM llm_call WHERE id = ? AND digest <> ''"
    rows = store.rows(query, (call,))
    return (rows[0]["system"], rows[0]["prompt"]) if rows else None
