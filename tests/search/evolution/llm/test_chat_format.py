"""OpenAI's chat format: what is sent, and whatever comes back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veldt.search.config.llm_config import ModelConfig
from veldt.search.evolution.llm import chat_format
from veldt.search.evolution.llm.answer_source import Request
from veldt.search.evolution.llm.chat_format import ReplyError

REQUEST = Request(3, 0, "m", "You write rules.", "Improve this.", "abc")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "text", "usage", "prompt_tokens", "finish_reason"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("http://localhost:1/v1", "http://localhost:1/v1/chat/completions"),
        ("http://localhost:1/v1/", "http://localhost:1/v1/chat/completions"),
        ("https://a.b/c/chat/completions", "https://a.b/c/chat/completions"),
        ("https://a.b/c?api-version=1", "https://a.b/c/chat/completions?api-version=1"),
    ],
)
def test_the_address_of_chats(base, address):
    assert chat_format.address(base) == address


def test_a_request_has_what_the_config_says():
    model = ModelConfig("m", model="big-1", temperature=None, max_tokens=7)
    assert json.loads(chat_format.body(model, REQUEST, "")) == {
        "model": "big-1",
        "messages": [
            {"role": "system", "content": "You write rules."},
            {"role": "user", "content": "Improve this."},
        ],
        "max_tokens": 7,
    }
    params = {"max_tokens": None, "max_completion_tokens": 9, "reasoning": {"effort": "low"}}
    model = ModelConfig("m", temperature=0.5, params=params)
    found = json.loads(chat_format.body(model, REQUEST, ""))
    assert found["temperature"] == 0.5 and "max_tokens" not in found
    assert found["max_completion_tokens"] == 9 and found["reasoning"] == {"effort": "low"}


GRAMMARS = {
    "none": {},
    "llama_cpp": {"grammar": "G"},
    "vllm": {"structured_outputs": {"grammar": "G"}},
}


@pytest.mark.parametrize("kind", GRAMMARS)
def test_a_grammar_goes_where_the_server_takes_it(kind):
    plain = json.loads(chat_format.body(ModelConfig("m"), REQUEST, ""))
    found = json.loads(chat_format.body(ModelConfig("m", grammar=kind), REQUEST, "G"))
    assert found == plain | GRAMMARS[kind]


def reply(**choice):
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5}}).encode()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (reply(message={"content": "hello"}), "hello"),
        (reply(message={"content": [{"type": "text", "text": "a"}, {"text": "b"}, 3]}), "ab"),
        (reply(text="plain"), "plain"),
        (reply(message={"content": None, "reasoning_content": "hm"}), ""),
        (reply(message="?"), ""),
        (reply(message={"content": "a\0b\ud800c"}), "ab?c"),
    ],
)
def test_the_text_of_a_reply(content, text):
    assert chat_format.read(content).text == text


def test_an_answer_that_was_cut_off_before_a_word_is_no_empty_one():
    content = reply(message={"content": ""}, finish_reason="length")
    assert chat_format.answer(REQUEST, chat_format.read(content)).status == "cut off"


@settings(max_examples=60)
@given(JSON)
def test_any_json_is_a_reply_or_an_error(value):
    try:
        found = chat_format.read(json.dumps(value).encode())
    except ReplyError:
        return
    answer = chat_format.answer(REQUEST, found)
    answer.answer.encode()  # Without lone surrogates, which no database takes.
    assert answer.status in ("ok", "cut off", "empty")
    assert answer.prompt_tokens >= 0 and answer.completion_tokens >= 0


@given(st.binary(max_size=60))
def test_any_bytes_are_a_reply_or_an_error(content):
    try:
        chat_format.read(content)
    except ReplyError as error:
        assert "the answer" in str(error)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b"\xff\xfe"])
def test_what_no_parser_likes_is_an_error(content):
    with pytest.raises(ReplyError):
        chat_format.read(content)


@pytest.mark.parametrize(
    ("usage", "estimated", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2}, False, (7, 2)),
        ({"prompt_tokens": 7}, True, (7, 2)),
        (None, True, (8, 2)),
        ({"prompt_tokens": -1, "completion_tokens": 1e9}, True, (8, 2)),
        ({"prompt_tokens": True, "completion_tokens": 10**12}, True, (8, 2)),
    ],
)
def test_tokens_are_those_counted_or_a_quarter_of_the_bytes(usage, estimated, tokens):
    content = {"choices": [{"message": {"content": "12345"}}], "usage": usage}
    answer = chat_format.answer(REQUEST, chat_format.read(json.dumps(content).encode()))
    assert (answer.prompt_tokens, answer.completion_tokens) == tokens  # 29 bytes and 5.
    assert answer.estimated == estimated


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"error": {"message": "no\\n such model"}}', "no such model"),
        (b'{"error": "overloaded"}', "overloaded"),
        (b'{"message": "hm"}', "hm"),
        (b"<html><body>Bad gateway</body></html>", ""),
        (b"plain words", "plain words"),
        (b'{"error": 3}', ""),
        (b"x" * 500, "x" * 200 + " ..."),
        (b"\xff", "\ufffd"),
    ],
)
def test_what_an_error_says_fits_a_line(content, text):
    assert chat_format.error_text(content) == text
