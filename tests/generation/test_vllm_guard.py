"""The guard before vLLM's app: what passes, what is refused; test_launched_server.py walks a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlt.config.server_key import VARIABLE
from rlt.generation.vllm_guard import RequireKey

KEY = "0123456789abcdef"


def first_answer(kind: str, path: str, *authorization: bytes) -> dict[str, Any]:
    """Return the first message that a guarded app sends back; the app itself says `passed`."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "passed"})

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", value) for value in authorization]
    scope = {"type": kind, "path": path, "method": "GET", "headers": headers}
    asyncio.run(RequireKey(app)(scope, receive, send))
    return sent[0]


def test_what_passes(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    right = f"Bearer {KEY}".encode()
    for kind, path, *authorization in (
        ("http", "/collective_rpc", right),
        ("websocket", "/v1/realtime", right),
        ("http", "/health"),
        ("lifespan", ""),
    ):
        assert first_answer(kind, path, *authorization) == {"type": "passed"}


@pytest.mark.parametrize(
    ("kind", "path", "authorization"),
    [
        ("http", "/collective_rpc", []),
        ("http", "/collective_rpc", [f"Bearer {KEY}x".encode()]),
        ("http", "/collective_rpc", [f"Bearer {KEY[:-1]}".encode()]),
        ("http", "/collective_rpc", [KEY.encode()]),
        ("http", "/collective_rpc", [b"Bearer \xff"]),
        ("http", "/collective_rpc", [b"Bearer x", f"Bearer {KEY}".encode()]),  # which one would vLLM take?
        ("http", "/healthy", []),
        ("http", "/health/", []),
    ],
)
def test_what_is_refused(monkeypatch, kind, path, authorization):
    monkeypatch.setenv(VARIABLE, KEY)
    answer = first_answer(kind, path, *authorization)
    assert (answer["type"], answer["status"]) == ("http.response.start", 401)


def test_a_websocket_is_closed_and_a_guard_without_a_key_ends_the_server(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    assert first_answer("websocket", "/health") == {"type": "websocket.close", "code": 1008}
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ValueError, match="holds no key"):
        first_answer("http", "/health")
