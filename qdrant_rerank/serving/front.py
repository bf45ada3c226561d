"""What every request passes: the check of its key, the log and the metrics."""

import logging
import time
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qdrant_rerank.serving.http_errors import HttpError, error_answer
from qdrant_rerank.serving.keys import Keys
from qdrant_rerank.serving.metrics import Metrics
from qdrant_rerank.utils.spans import span_of_request

__all__ = ["OPEN_PATHS", "Front", "access_logger"]

access_logger = logging.getLogger("qdrant_rerank.serving.access")

#: Paths that need no key: they tell nothing of a collection, a model or a client.
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})
UNKNOWN_ROUTE = "unknown"  # one label, whatever paths a client makes up


class Front:
    """An ASGI application around the routes.

    Args:
        app: the routes.
        keys: who may ask.
        metrics: counts requests.
        paths: of the routes, as labels.
    """

    def __init__(self, app: ASGIApp, keys: Keys, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        facts: dict[str, Any] = {}
        scope.setdefault("state", {})["facts"] = facts
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"]
        route = path if path in self._paths else UNKNOWN_ROUTE
        is_open = path in OPEN_PATHS and scope["method"] in {"GET", "HEAD"}
        app: ASGIApp = self._app
        if not is_open and not self._keys.allow(_header(scope, b"authorization")):
            app = _unauthorized()
        try:
            with span_of_request(scope["method"], route, _texts(scope)) as noted:
                try:
                    await app(scope, receive, sending)
                finally:
                    noted.note(http__route=route, http__response__status_code=status)
        finally:
            seconds = time.perf_counter() - began
            self._metrics.request(route, status, seconds)
            told = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "seconds": round(seconds, 6),
                "client": (scope.get("client") or ["unknown"])[0],
                **facts,
            }
            access_logger.info("request", extra={"facts": told})


def _unauthorized() -> Response:
    error = HttpError(
        401,
        "The key is missing or wrong; expected the header 'Authorization: Bearer KEY'.",
        headers={"WWW-Authenticate": "Bearer"},
    )
    return error_answer(error)


def _header(scope: Scope, name: bytes) -> bytes | None:
    """Return the only header of that name; None if there is none, or several."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0] if len(found) == 1 else None


def _texts(scope: Scope) -> dict[str, str]:
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
