"""The processes of the server on Ray Serve: replicas with the models, and gateways before them."""

import asyncio
import gc
import math
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayActorError
from starlette.requests import Request
from starlette.responses import Response

from qdrant_rerank.serving.app import load_app
from qdrant_rerank.serving.http_errors import HttpError, error_answer
from qdrant_rerank.serving.limits import require_room
from qdrant_rerank.serving.settings import ServeSettings

__all__ = ["TOKENS_PER_REPLICA", "Gateway", "Replica", "WaitingTokens"]

WAITING_TOKENS = "waiting_tokens"
#: Tokens that may wait at each replica before another one is started: some 10 seconds of work of
#: one core with the bundled model.
TOKENS_PER_REPLICA = 50_000
TRIES = 2


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way to a replica."""

    scope: dict[str, Any]
    body: bytes


class Replica:
    """The application in a process of its own.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._app, self._models = load_app(settings)
        gc.freeze()  # as in qdrant_rerank.serving.run: a full collection would stop every thread

    async def answer(self, call: Call) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Return the status, the headers and the body of the answer."""
        unread = [{"type": "http.request", "body": call.body, "more_body": False}]
        status, headers, parts = 500, list[tuple[bytes, bytes]](), list[bytes]()

        async def receive() -> dict[str, Any]:
            if unread:
                return unread.pop()
            await asyncio.Event().wait()  # this task is cancelled when the client hangs up
            raise AssertionError("unreachable")

        async def send(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", ()))
            else:
                parts.append(message.get("body", b""))

        await self._app({**call.scope, "state": {}}, receive, send)
        return status, headers, b"".join(parts)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve how many tokens wait here."""
        waiting = sum(model.scheduler.waiting_tokens for model in self._models.served)
        return {WAITING_TOKENS: float(waiting)}


class Gateway:
    """Hands requests to replicas.

    Args:
        replicas: Ray Serve's handle of them.
        settings: have the limits of bytes.
    """

    def __init__(self, replicas: Any, settings: ServeSettings) -> None:
        self._replicas = replicas
        self._settings = settings
        self._held = 0  # bytes of the bodies of requests without an answer

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        body = bytearray()
        taken = 0
        try:
            async for chunk in request.stream():
                taken += len(chunk)
                self._held += len(chunk)
                require_room(taken, self._held - taken, self._settings)
                body += chunk
            return await self._answer(Call(_plain(request.scope), bytes(body)))
        except HttpError as error:
            return error_answer(error)
        finally:
            self._held -= taken

    async def _answer(self, call: Call) -> Response:
        for _ in range(TRIES):
            try:
                status, headers, content = await self._replicas.answer.remote(call)
            except RayActorError:
                continue
            made = Response(content, status)
            made.raw_headers = headers
            return made
        raise HttpError(
            503,
            f"{TRIES} replicas died one after the other on this request. Try again in 1 s.",
            headers={"Retry-After": "1"},
        )


class WaitingTokens:
    """Ray Serve's policy for the number of replicas: by the tokens that wait at them.

    Args:
        tokens_per_replica: that may wait at each.
    """

    def __init__(self, tokens_per_replica: int = TOKENS_PER_REPLICA) -> None:
        self._tokens = tokens_per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return how many replicas there should be; Ray Serve applies limits and delays."""
        found = context.aggregated_metrics.get(WAITING_TOKENS, {})
        wanted = math.ceil(sum(found.values()) / self._tokens)
        return max(1, context.capacity_adjusted_min_replicas, wanted), {}


def _plain(scope: Any) -> dict[str, Any]:
    """Return the part of an ASGI scope that can be sent to another process."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": scope["method"],
        "scheme": scope.get("scheme", "http"),
        "path": scope["path"],
        "raw_path": scope["path"].encode(),
        "root_path": "",
        "query_string": bytes(scope.get("query_string", b"")),
        "headers": [(bytes(name), bytes(value)) for name, value in scope["headers"]],
        "client": tuple(scope["client"]) if scope.get("client") else None,
        "server": tuple(scope["server"]) if scope.get("server") else None,
    }
