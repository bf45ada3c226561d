"""A deadline for the HTTP requests of a qdrant-client, in fractions of a second.

Its own timeout is in whole seconds and starts anew with each piece of an answer, so a server that
drips could hold a search for hours. Here every step of a request (connect, send, headers, body)
gets what is left, and a body is given up at the first piece that comes too late.
"""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
from qdrant_client import QdrantClient

from qdrant_rerank.deadline import NEVER, Deadline, request_deadline

__all__ = ["limit_http"]

SHORTEST = 1e-3  # seconds; a timeout of 0 would make a socket non-blocking


def limit_http(client: QdrantClient) -> None:
    """Let requests of this client end by ``request_deadline``, as httpx timeouts; once a client."""
    api = client.http.client
    api.add_middleware(_limit_steps)
    api._client.event_hooks["response"].append(_limit_body)


def _limit_steps(
    request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]
) -> httpx.Response:
    deadline = request_deadline.get()
    if deadline.left is None:
        return send(request)
    given: dict[str, float | None] = dict(request.extensions.get("timeout", {}))
    timeouts = request.extensions["timeout"] = dict(given)

    def refresh(event: str = "", info: Any = None) -> None:
        left = max(SHORTEST, deadline.left or 0)
        for step in ("connect", "read", "write", "pool"):
            own = given.get(step)
            timeouts[step] = left if own is None else min(own, left)

    refresh()
    request.extensions["trace"] = refresh  # httpcore calls it before each step
    return send(request)


def _limit_body(response: httpx.Response) -> None:
    deadline = request_deadline.get()
    if deadline is not NEVER and isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _InTime(response.stream, response.request, deadline)


class _InTime(httpx.SyncByteStream):
    """A body that ends with a timeout at the first piece after the deadline."""

    def __init__(
        self, stream: httpx.SyncByteStream, request: httpx.Request, deadline: Deadline
    ) -> None:
        self._stream = stream
        self._request = request
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            if self._deadline.passed:
                raise httpx.ReadTimeout("the deadline passed amid the body", request=self._request)
            yield piece

    def close(self) -> None:
        self._stream.close()
