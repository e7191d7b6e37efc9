"""A scripted server on loopback that speaks OpenAI's chat API, well or badly.

It runs in a thread of the tests' process, so it lives on when a search that asks it is killed. What
it answers is a function of the prompt, so the same search gets the same answers whenever it asks.
"""

import contextlib
import hashlib
import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-canary-4f0c11d2e9"
RULES = (
    "    m = interp(g, m, {b})\n    return sign(m), m",
    "    c = interp(g, m, {b})\n    m = interp(g, m, 0.99)\n    update = sign(c) + {a} * w\n"
    "    return update, m",
    "    v = interp(square(g), m, {b})\n    return divide(g, add(sqrt(v), {a})), v",
)


def program(text: str) -> str:
    """A well-formed rule that depends on the text alone."""
    rng = random.Random(hashlib.sha256(text.encode()).hexdigest())
    body = rng.choice(RULES).format(a=round(rng.uniform(0.01, 0.5), 3), b=round(rng.random(), 3))
    # Not parsed here: Python 3.11 cannot parse in two threads at once (python/cpython#106905).
    return f'def rule(w, g, m):\n    """Idea {rng.randrange(1000)}: smooth."""\n{body}\n'


def good(prompt: str) -> str:
    """Two programs in fences, with prose around."""
    texts = [program(f"{prompt}{number}") for number in range(2)]
    return "Here are two rules.\n" + "\n".join(f"```python\n{text}```\nand" for text in texts)


def reply(text, *, finish="stop", usage=True):
    found = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]
    }
    if usage:
        found["usage"] = {"prompt_tokens": 1000, "completion_tokens": 200}
    return json.dumps(found).encode()


class Scripted:
    """The server, while the block runs.

    `script(number, prompt)` names what the `number`th request of a prompt gets: one of the methods
    of `_Handler` named `give_...`. With a TLS context the server is a safe one.
    """

    def __init__(self, script=lambda number, prompt: "good", context=None):
        self.script = script
        self.lock = threading.Lock()
        self.requests = Counter()  # By the prompt.
        self.bodies = []
        self.headers = []
        self.open = 0
        self.released = threading.Event()
        server = self

        class Handler(_Handler):
            scripted = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        if context is not None:
            self.url = f"https://localhost:{self.port}/v1"
            # The handshake is made in the thread of the connection.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    scripted: Scripted
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size))
        prompt = body["messages"][-1]["content"]
        server = self.scripted
        with server.lock:
            number = server.requests[prompt]
            server.requests[prompt] += 1
            server.bodies.append(body)
            server.headers.append((self.path, dict(self.headers)))
        self.close_connection = True
        with contextlib.suppress(OSError):  # The other side has gone.
            getattr(self, f"give_{server.script(number, prompt)}")(prompt)

    def give(self, content, *, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def give_good(self, prompt):
        self.give(reply(good(prompt)))

    def give_slow(self, prompt):
        time.sleep(0.3)
        self.give_good(prompt)

    def give_prose(self, prompt):
        self.give(reply("I would rather talk about momentum."))

    def give_broken(self, prompt):
        """Like a program, with what the language does not have; the repair gets a good one."""
        is_repair = "return fft(g)" in prompt
        self.give(reply(good(prompt) if is_repair else "def rule(w, g):\n    return fft(g)\n"))

    def give_cut(self, prompt):
        text = good(prompt)
        self.give(reply(text[: text.rindex("return")], finish="length"))

    def give_empty(self, prompt):
        self.give(reply(""))

    def give_wrong(self, prompt):
        self.give(b"<html>It works!</html>")

    def give_no_choices(self, prompt):
        self.give(b'{"object": "error", "message": "no"}')

    def give_busy(self, prompt):
        self.give(b'{"error": {"message": "slow down"}}', status=429, Retry_After="0.05")

    def give_down(self, prompt):
        self.give(b'{"error": "internal"}', status=500, Retry_After="0.05")

    def give_refused(self, prompt):
        said = self.headers.get("Authorization", "")
        error = {"error": {"message": f"Incorrect API key provided: {said}"}}
        self.give(json.dumps(error).encode(), status=401)

    def give_hang(self, prompt):
        self.scripted.released.wait()

    def give_drip(self, prompt):
        """One byte at a time, for ever, with no length announced."""
        self.send_response(200)
        self.end_headers()
        while not self.scripted.released.wait(0.02):
            self.wfile.write(b" ")
            self.wfile.flush()

    def give_ended(self, prompt):
        """Less than was announced."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices"')

    def give_large(self, prompt):
        self.give(reply("x" * 10 * 2**20))

    def give_redirect(self, prompt):
        port = self.scripted.port
        to = f"http://localhost:{port}/elsewhere"
        self.give(b"", status=307, Location=to)

    def give_no_usage(self, prompt):
        self.give(reply(good(prompt), usage=False))
