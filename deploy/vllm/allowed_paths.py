"""Middleware of the server: paths that Freshet does not use do not exist.

vLLM's API key guards /v1 alone: /invocations and /tokenize, which do the same work, answer anyone.
Here they answer nobody, and neither do the other ways in (loading adapters, rendering templates).
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health", "/metrics", "/version"})
"""Without a key: numbers for probes and Prometheus, no text."""

GUARDED = frozenset({"/v1/models", "/v1/chat/completions", "/v1/completions"})
"""With the key, which vLLM itself asks for."""


class AllowedPaths:
    """An ASGI application in front of another."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on when its path is allowed, answer 404 otherwise."""
        if scope["type"] == "lifespan" or (
            scope["type"] == "http" and scope["path"] in OPEN | GUARDED
        ):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})
