"""A middleware for a server under test: it tells the routes of the app that it is in."""

from __future__ import annotations

import json
from typing import Any

PATH = "/routes-of-this-test"


class TellRoutes:
    """Answers PATH with [path, methods] of every route; a mount, which takes any method, has none."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        routes = [[route.path, sorted(getattr(route, "methods", None) or ())] for route in walk(scope["app"])]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(routes).encode()})


def walk(app: Any) -> list[Any]:
    """Return the routes of an app."""
    return [route for route in app.routes if hasattr(route, "path")]
