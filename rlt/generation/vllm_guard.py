"""The door of our vLLM servers (`--middleware`): without the key every path but /health answers 401.

vLLM's own `--api-key` leaves the development endpoints open, which run any method in its workers. Imported
by vLLM, not by us.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from rlt.config.server_key import VARIABLE

GUARD = "rlt.generation.vllm_guard.RequireKey"
OPEN = "/health"
"""The one path that reveals nothing and changes nothing."""
_REFUSAL = b'{"error":"Unauthorized"}'

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequireKey:
    """An ASGI middleware, to be the outermost one."""

    def __init__(self, app: App) -> None:
        """Raise ValueError, which ends the server, where there is no key to ask for."""
        key = os.environ.get(VARIABLE)
        if not key:
            raise ValueError(f"the environment variable {VARIABLE} holds no key to ask for")
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what carries the key, is a question for health, or comes from the server itself."""
        kind = scope["type"]
        if kind not in ("http", "websocket") or self._may_pass(scope):
            await self._app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403
        else:
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": _REFUSAL})

    def _may_pass(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"] == OPEN:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)
