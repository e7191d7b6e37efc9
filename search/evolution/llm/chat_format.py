"""OpenAI's chat format: the body of a request, and what a reply holds.

Servers differ in what they leave out and what they add, so a reply is read with little faith: the
first choice's text is all that is needed. Counts of tokens that are missing or absurd are estimated
as a quarter of the bytes, and said to be.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from veldt.search.config.llm_config import ModelConfig
from veldt.search.evolution.llm.answer_source import Request
from veldt.search.storage import llm_calls
from veldt.search.storage.llm_calls import Answer

PATH: Final = "/chat/completions"
BYTES_PER_TOKEN: Final = 4
_MOST_TOKENS: Final = 10**9
_MOST_LETTERS: Final = 200


class ReplyError(Exception):
    """A reply that is none of a chat."""


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply holds.

    Attributes:
      text: Text of the first choice.
      is_cut_off: Whether the text ended at the limit of tokens.
      prompt_tokens: Number of tokens of the prompt; None where the server does not say.
      completion_tokens: Number of tokens of the answer; None where the server does not say.
    """

    text: str
    is_cut_off: bool
    prompt_tokens: int | None
    completion_tokens: int | None


def address(url: str) -> str:
    """Return the address of an endpoint's chats, from the base of its addresses."""
    base, mark, query = url.partition("?")
    base = base.rstrip("/")
    return f"{base if base.endswith(PATH) else base + PATH}{mark}{query}"


def params(model: ModelConfig, grammar: str) -> dict[str, Any]:
    """Return what is asked beside the prompt, as it is stored with a call.

    Args:
      model: Model that is asked.
      grammar: Digest of the grammar; empty for none.
    """
    found: dict[str, Any] = {
        "model": model.model or model.name,
        "temperature": model.temperature,
        "max_tokens": model.max_tokens,
        **model.params,
    }
    return {**found, "grammar": f"{model.grammar} {grammar}"} if grammar else found


def grammar_digest(grammar: str) -> str:
    """Return a short digest of a grammar's text, which would fill the store."""
    return hashlib.sha256(grammar.encode()).hexdigest()[:16]


def body(model: ModelConfig, request: Request, grammar: str) -> bytes:
    """Return the body of a request; `grammar` is the grammar's text, empty for none."""
    fields: dict[str, Any] = {
        "model": model.model or model.name,
        "messages": [
            {"role": "system", "content": request.system},
            {"role": "user", "content": request.user},
        ],
        "max_tokens": model.max_tokens,
    }
    if model.temperature is not None:
        fields["temperature"] = model.temperature
    if grammar and model.grammar == "llama_cpp":
        fields["grammar"] = grammar
    elif grammar and model.grammar == "vllm":
        fields["structured_outputs"] = {"grammar": grammar}
    fields |= model.params
    left_out = [name for name, value in model.params.items() if value is None]
    return json.dumps({k: v for k, v in fields.items() if k not in left_out}).encode()


def read(content: bytes) -> Reply:
    """Read a reply.

    Raises:
      ReplyError: It is no JSON, or none of a chat.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise ReplyError("the answer is no JSON") from None
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ReplyError("the answer has no choices, as a chat's has")
    choice, usage = choices[0], found.get("usage")
    message = choice.get("message")
    text = _text(message.get("content") if isinstance(message, dict) else choice.get("text"))
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        text,
        choice.get("finish_reason") == "length",
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
    )


def answer(request: Request, reply: Reply) -> Answer:
    """Return a reply as an answer, with its tokens counted or estimated."""
    # A model that thinks may reach the limit before it has written a word.
    status = llm_calls.OK if reply.text.strip() else llm_calls.EMPTY
    is_counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
    asked = reply.prompt_tokens
    written = reply.completion_tokens
    return Answer(
        request.call,
        request.round,
        request.digest,
        llm_calls.CUT_OFF if reply.is_cut_off else status,
        reply.text,
        estimate(request.system, request.user) if asked is None else asked,
        estimate(reply.text) if written is None else written,
        estimated=not is_counted,
    )


def estimate(*texts: str) -> int:
    """Return about how many tokens texts have."""
    return math.ceil(sum(len(text.encode()) for text in texts) / BYTES_PER_TOKEN)


def error_text(content: bytes) -> str:
    """Return what the content of an error says, on one line; empty where it says nothing."""
    text = content.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        error = found.get("error", found)
        if isinstance(error, dict):
            error = error.get("message", "")
        text = error if isinstance(error, str) else ""
    elif text.lstrip().startswith("<"):
        return ""  # A page for people.
    line = " ".join(_clean(text).split())
    return line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]} ..."


def _text(content: object) -> str:
    """Return the text of a message's content: a string, or a list of parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return _clean(content) if isinstance(content, str) else ""


def _clean(text: str) -> str:
    """Return a text that any file and any database can hold."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
        return value
    return None
