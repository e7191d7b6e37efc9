"""Requests over HTTP: tries, pauses, limits, and an end at once."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from email.utils import formatdate

import pytest

from tests.search import chat_server
from veldt.search.config.llm_config import LlmConfig, ModelConfig
from veldt.search.errors import SearchError
from veldt.search.evolution.llm import endpoint_keys, endpoints, http_post
from veldt.search.evolution.llm.answer_source import Request
from veldt.search.evolution.llm.endpoint_keys import Keys
from veldt.search.evolution.llm.endpoints import Endpoints
from veldt.search.evolution.llm.http_post import Line, PostError

KEYS = Keys({"A": chat_server.KEY})


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    monkeypatch.setattr(endpoints, "FIRST_PAUSE_S", 0.01)


def config(url, **changes):
    model = ModelConfig("m", url, key_env="A", headers_env={"X-Team": "A"})
    return LlmConfig(models=(model,), **{"max_tries": 3, "timeout_s": 30.0, **changes})


def request(number=1, user="hello"):
    return Request(number, 0, "m", "be brief", user, f"digest {number}")


def answers(source, number):
    """The next answers of a source, by call."""
    found = []
    while len(found) < number:
        found += source.arrived()
        time.sleep(0.005)
    return {answer.call: answer for answer in found}


def ask(url, *requests, **changes):
    source = Endpoints(config(url, **changes), KEYS, 0, {})
    try:
        for each in requests:
            source.ask(each)
        return answers(source, len(requests))
    finally:
        source.close()


def test_a_busy_server_is_asked_again_as_it_wishes():
    with chat_server.Scripted(lambda n, _: "busy" if n < 2 else "good") as server:
        found = ask(server.url, request())[1]
        assert (found.status, found.tries) == ("ok", 3)
        assert found.latency_s >= 0.1  # Retry-After is 0.05 s, twice.
        found = ask(server.url, request(user="another"), max_tries=2)[1]
        assert (found.status, found.tries) == ("failed: 429 Too Many Requests: slow down", 2)


def test_a_pause_beyond_patience_is_not_waited_for():
    class Patient(chat_server._Handler):
        pass

    with chat_server.Scripted(lambda *_: "later") as server:
        server._server.RequestHandlerClass.give_later = lambda self, _: self.give(
            b"", status=503, Retry_After="3600"
        )
        found = ask(server.url, request(), patience_s=100.0)[1]
    assert (found.status, found.tries) == ("failed: 503 Service Unavailable", 1)


def test_what_no_try_mends_is_tried_once():
    for kind in ("refused", "redirect", "large"):
        with chat_server.Scripted(lambda *_, kind=kind: kind) as server:
            assert ask(server.url, request())[1].tries == 1


def test_no_more_requests_are_under_way_than_allowed():
    most, lock = [0, 0], threading.Lock()

    def counted(*_):
        with lock:
            most[0] += 1
            most[1] = max(most)
        time.sleep(0.05)
        with lock:
            most[0] -= 1
        return "good"

    with chat_server.Scripted(counted) as server:
        found = ask(server.url, *(request(n, f"{n}") for n in range(8)), parallel=3)
    assert sorted(found) == [*range(8)] and most[1] == 3
    assert {answer.digest for answer in found.values()} == {f"digest {n}" for n in range(8)}


def test_an_end_comes_at_once_whatever_is_under_way():
    """Threads that wait for a server, or pause, or have not begun."""
    kinds = {"0": "hang", "1": "drip", "2": "down"}
    with chat_server.Scripted(lambda _, prompt: kinds.get(prompt, "hang")) as server:
        source = Endpoints(config(server.url, parallel=3, max_tries=1000), KEYS, 0, {})
        for number in range(6):
            source.ask(request(number, f"{number}"))
        while len(server.requests) < 3:
            time.sleep(0.005)
        source.close()
        assert not any(thread.is_alive() for thread in source._threads)
        assert source.arrived() == []


def test_no_server_and_no_host_are_failures():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        found = ask(url, request())[1]
    assert (found.status, found.tries) == ("failed: the connection was refused", 3)
    found = ask("http://nowhere.invalid/v1", request(), max_tries=1)[1]
    assert found.status in ("failed: the host was not found", "failed: the connection broke")


def test_what_is_no_http_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        status = ask(url, request(), max_tries=1)[1].status
        thread.join()
    assert status in ("failed: the answer is no HTTP", "failed: the connection broke")


def test_a_plain_server_is_no_safe_one():
    with chat_server.Scripted() as server:
        url = server.url.replace("http:", "https:")
        status = ask(url, request(), max_tries=1)[1].status
    assert status.startswith(("failed: no safe connection", "failed: the connection broke"))
    assert not server.headers


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A TLS context for "localhost", and the file with the certificate."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def test_a_safe_connection_is_checked_and_used(certified, monkeypatch):
    context, certificate = certified
    with chat_server.Scripted(context=context) as server:
        status = ask(server.url, request(), max_tries=1)[1].status
        assert status == "failed: no safe connection: CERTIFICATE_VERIFY_FAILED"
        assert not server.headers  # The key was not sent.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ask(server.url, request())[1].status == "ok"
        wrong = server.url.replace("localhost", "127.0.0.1")
        assert "CERTIFICATE_VERIFY_FAILED" in ask(wrong, request(), max_tries=1)[1].status


def test_a_safe_connection_ends_at_once_too(certified, monkeypatch):
    context, certificate = certified
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with chat_server.Scripted(lambda *_: "hang", context) as server:
        found = ask(server.url, request(), max_tries=1, timeout_s=0.3)[1]
        assert found.status == "failed: no whole answer within the time limit"
        source = Endpoints(config(server.url), KEYS, 0, {})
        source.ask(request(user="another"))
        while "another" not in server.requests:
            time.sleep(0.005)
        source.close()
        assert not any(thread.is_alive() for thread in source._threads)


def test_keys_go_to_the_endpoint_and_nowhere_else():
    with chat_server.Scripted(lambda *_: "refused") as server:
        found = ask(server.url, request())[1]
        _, headers = server.headers[0]
    assert headers["Authorization"] == f"Bearer {chat_server.KEY}"
    assert headers["X-Team"] == chat_server.KEY
    assert chat_server.KEY not in found.status and "[hidden]" in found.status


def test_keys_in_answers_are_hidden():
    with chat_server.Scripted(lambda *_: "echo") as server:
        server._server.RequestHandlerClass.give_echo = lambda self, _: self.give(
            chat_server.reply(f"the key is {chat_server.KEY}")
        )
        found = ask(server.url, request())[1]
    assert found.answer == "the key is [hidden]"


def test_keys_are_out_of_the_environment_for_as_long_as_they_are_used(monkeypatch):
    import os

    monkeypatch.setenv("A", f" {chat_server.KEY}\n")
    with pytest.raises(RuntimeError), endpoint_keys.taken(config("http://a")) as keys:
        assert "A" not in os.environ and chat_server.KEY not in repr(keys)
        model = config("http://a").models[0]
        assert keys.headers(model)["Authorization"] == f"Bearer {chat_server.KEY}"
        raise RuntimeError
    assert os.environ["A"] == f" {chat_server.KEY}\n"
    for wrong, words in (("", "A, which model m needs, is not set"), ("k\u00e4y", "letters")):
        monkeypatch.setenv("A", wrong)
        with pytest.raises(SearchError, match=words), endpoint_keys.taken(config("http://a")):
            pass
    monkeypatch.delenv("A")
    with pytest.raises(SearchError, match="is not set"), endpoint_keys.taken(config("http://a")):
        pass


def test_a_stand_in_for_a_key_is_no_secret():
    assert Keys({"A": "x"}).hide("exp(x)") == "exp(x)"
    odd = 'a"b/c d-secret'
    hidden = Keys({"A": odd}).hide(f'{odd} a%22b%2Fc%20d-secret a\\"b/c d-secret')
    assert hidden == "[hidden] [hidden] [hidden]"


def test_a_line_may_be_cut_before_it_is_made():
    with chat_server.Scripted() as server:
        line = Line()
        line.cut()
        with pytest.raises(PostError):
            http_post.post(server.url, {}, b"{}", timeout_s=5.0, max_bytes=100, line=line)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        (None, None, None),
        ("3", 3, 3),
        ("0.5", 0.5, 0.5),
        ("-4", 0, 0),
        ("soon", None, None),
        ("nan", None, None),
        ("inf", None, None),
        pytest.param(formatdate(time.time() + 1e6, usegmt=True), 1, 1e6 + 1, id="a date to come"),
        (formatdate(0, usegmt=True), 0, 0),
    ],
)
def test_how_long_a_server_wants_a_pause(header, low, high):
    found = http_post._seconds(header)
    assert found is None if low is None else low <= found <= high
