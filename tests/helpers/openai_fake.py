"""A server that speaks OpenAI's completions API and does what a test tells it, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What is sent for one request."""

    body: Any = None
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Sent in place of the body as JSON."""
    reset: bool = False
    """End the connection without an answer."""


def text(said: str | None = "so it is 7", reason: str | None = "stop", **more: Any) -> Reply:
    return Reply({"choices": [{"index": 0, "text": said, "finish_reason": reason}], **more})


@dataclass
class Fake:
    """A running fake: every request is answered by `answer(number, body)`, numbers counted from 1."""

    answer: Callable[[int, dict[str, Any]], Reply]
    models: list[dict[str, Any]] | None
    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return [body["prompt"] for body in self.asked]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    fake: Fake
    lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        fake = self.server.fake
        fake.paths.append(self.path)
        fake.keys.append(self.headers.get("Authorization"))
        if self.path.endswith("/v1/models") and fake.models is not None and "/v1/v1" not in self.path:
            self._send(Reply({"object": "list", "data": fake.models}))
        else:
            self._send(Reply({"error": {"message": "Not Found"}}, 404))

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            fake.asked.append(body)
            fake.paths.append(self.path)
            number = len(fake.asked)
        is_known = self.path.endswith("/v1/completions") and "/v1/v1" not in self.path
        self._send(fake.answer(number, body) if is_known else Reply({"error": {"message": "no"}}, 404))

    def _send(self, reply: Reply) -> None:
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            self.close_connection = True
            return
        content = json.dumps(reply.body).encode() if reply.raw is None else reply.raw
        self.send_response(reply.code)
        for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        if int(reply.headers.get("Content-Length", len(content))) != len(content):
            self.close_connection = True  # promised more than it sends


@contextmanager
def running_fake(
    answer: Callable[[int, dict[str, Any]], Reply],
    models: list[dict[str, Any]] | None = None,
    *,
    has_list: bool = True,
    wrap: Callable[[socket.socket], socket.socket] | None = None,
) -> Iterator[Fake]:
    """Yield a server at 127.0.0.1; `wrap` makes its socket one of TLS."""
    server = Server(("127.0.0.1", 0), Handler)
    fake = Fake(answer, (models or [{"id": "my-student"}]) if has_list else None)
    server.fake = fake
    if wrap:
        server.socket = wrap(server.socket)
    fake.address = f"http{'s' if wrap else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
