"""An address where something else than Ray listens is an error in words, within seconds."""

import contextlib
import socket
import threading

import pytest

from veldt.tasks.pool import base, ray_cluster

SETTINGS = b"\0\0\6\4\0\0\0\0\0\0\4\0\0\xff\xff"
ANSWERS = {
    "http": b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "short": b"ok",
    "closes at once": b"",
    "says nothing": None,
}


@contextlib.contextmanager
def listening(answer):
    """A server on this machine that gives one answer, whatever it is asked; its port."""
    done = threading.Event()

    def serve():
        connection, _ = server.accept()
        with connection:
            if answer is None:
                done.wait(30)
            else:
                connection.recv(1)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join()


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_something_else(kind, scheme, monkeypatch):
    monkeypatch.setattr(ray_cluster, "ANSWER_S", 0.2)
    with listening(ANSWERS[kind]) as port, pytest.raises(base.PoolError) as caught:
        ray_cluster._check_reachable(f"{scheme}127.0.0.1:{port}")
    assert f"there is no Ray cluster at {scheme}127.0.0.1:{port}" in str(caught.value)
    assert "something else listens there" in str(caught.value)
    if ANSWERS[kind]:
        assert repr(ANSWERS[kind][:9])[:-1] in str(caught.value)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_speaks_as_ray_does_is_tried(scheme):
    with listening(SETTINGS) as port:
        ray_cluster._check_reachable(f"{scheme}127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["local", "auto", "my-scheme://x"])
def test_what_is_no_host_and_port_is_left_to_ray(address):
    ray_cluster._check_reachable(address)


def test_a_port_that_cannot_be_is_an_error_too():
    with pytest.raises(base.PoolError, match="cannot connect"):
        ray_cluster._check_reachable("127.0.0.1:99999")
