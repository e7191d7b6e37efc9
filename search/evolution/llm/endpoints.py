"""Models behind endpoints: requests in threads of this process, tried again where that may help.

Each thread has one request at a time, with its pauses, so there are never more under way than the
config allows. Pauses are what the server asks for, or grow from try to try. What fails in the end
is an answer too: the search goes on without it.
"""

import queue
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, final

from veldt.search.config.llm_config import LlmConfig
from veldt.search.evolution.llm import chat_format, http_post
from veldt.search.evolution.llm.answer_source import Request
from veldt.search.evolution.llm.chat_format import ReplyError
from veldt.search.evolution.llm.endpoint_keys import Keys
from veldt.search.evolution.llm.http_post import Line, PostError
from veldt.search.storage.llm_calls import FAILED, Answer

MAX_BYTES: Final = 2**20
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0


@final
class Endpoints:
    """Endpoints as a source of answers, until it is closed."""

    def __init__(self, config: LlmConfig, keys: Keys, seed: int, grammars: Mapping[str, str]):
        """Prepare to ask; threads start with the first requests.

        Args:
          config: Config of the models.
          keys: Keys of the endpoints.
          seed: Seed of the pauses' random parts.
          grammars: Texts of grammars by the model's name; empty for none.
        """
        self._config = config
        self._keys = keys
        self._seed = seed
        self._grammars = grammars
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._num_open = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._lines: set[Line] = set()

    def ask(self, request: Request) -> None:
        """Take a request, without waiting for its answer."""
        self._num_open += 1
        self._waiting.put(request)
        if len(self._threads) < min(self._num_open, self._config.parallel):
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()

    def arrived(self) -> Sequence[Answer]:
        """Return the answers that have arrived since the last call, without waiting."""
        found: list[Answer] = []
        while not self._answers.empty():
            found.append(self._answers.get())
        self._num_open -= len(found)
        return found

    def need(self, request: Request) -> None:
        """Take notice that the search waits for an answer, which may take its time."""

    def awaits(self) -> str:
        """Return that nothing is awaited from people."""
        return ""

    def close(self) -> None:
        """Cut all requests under way, and end the threads."""
        self._closed.set()
        with self._lock:
            for line in self._lines:
                line.cut()
        for _ in self._threads:
            self._waiting.put(None)
        end = time.monotonic() + 1.0  # One that looks for a host's address cannot be cut.
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))

    def _work(self) -> None:
        while (request := self._waiting.get()) is not None and not self._closed.is_set():
            if (answer := self._answer(request)) is not None:
                self._answers.put(answer)

    def _answer(self, request: Request) -> Answer | None:
        """Return the answer to a request, after as many tries as it takes; None if closed."""
        began, tries = time.monotonic(), 0
        while True:
            tries += 1
            passed_s = time.monotonic() - began
            left_s = max(self._config.patience_s - passed_s, 0.001)
            try:
                answer = self._try(request, min(self._config.timeout_s, left_s))
            except PostError as error:
                if self._closed.is_set():
                    return None
                passed_s = time.monotonic() - began
                pause_s = self._pause_s(request, tries, error)
                ends = tries >= self._config.max_tries or not error.transient
                if ends or passed_s + pause_s >= self._config.patience_s:
                    status = f"{FAILED}{self._keys.hide(str(error))}"
                    answer = Answer(request.call, request.round, request.digest, status)
                elif self._closed.wait(pause_s):
                    return None
                else:
                    continue
            return replace(answer, tries=tries, latency_s=time.monotonic() - began)

    def _try(self, request: Request, timeout_s: float) -> Answer:
        """Make one try.

        Raises:
          PostError: It has failed.
        """
        model, line = self._config.model(request.model), Line()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "veldt",
            **self._keys.headers(model),
        }
        with self._lock:
            self._lines.add(line)
            if self._closed.is_set():
                line.cut()
        try:
            response = http_post.post(
                chat_format.address(model.url),
                headers,
                chat_format.body(model, request, self._grammars.get(model.name, "")),
                timeout_s=timeout_s,
                max_bytes=MAX_BYTES,
                line=line,
            )
        finally:
            with self._lock:
                self._lines.discard(line)
        if not 200 <= response.status < 300:
            said = chat_format.error_text(response.content)
            raise PostError(
                f"{response.status} {response.reason}{f': {said}' if said else ''}",
                transient=response.status in http_post.TRANSIENT,
                retry_after_s=response.retry_after_s,
            )
        try:
            reply = chat_format.read(response.content)
        except ReplyError as error:
            raise PostError(str(error), transient=True) from None
        return chat_format.answer(request, replace(reply, text=self._keys.hide(reply.text)))

    def _pause_s(self, request: Request, tries: int, error: PostError) -> float:
        """Return the pause before the next try."""
        if error.retry_after_s is not None:
            return error.retry_after_s
        part = random.Random(f"{self._seed}/{request.call}/{request.round}/{tries}").random()
        return min(FIRST_PAUSE_S * 2.0 ** (tries - 1), LONGEST_PAUSE_S) * (0.5 + part / 2)
