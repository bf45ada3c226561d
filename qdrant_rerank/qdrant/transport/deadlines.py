"""Requests of a blocking client end by a deadline, over HTTP and gRPC."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import grpc
import httpx
from qdrant_client import QdrantClient
from qdrant_client.qdrant_remote import QdrantRemote

from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline, request_deadline

__all__ = [
    "SHORTEST",
    "limit_grpc",
    "limit_http",
    "requests_end_by",
]

_prepared: "WeakSet[QdrantClient]" = WeakSet()
_prepared_guard = threading.Lock()

SHORTEST = 1e-3  # seconds; a timeout of 0 would make a socket non-blocking


@contextmanager
def requests_end_by(client: QdrantClient, deadline: Deadline) -> Iterator[None]:
    """Requests of this client and this thread are given up at the deadline.

    Args:
        client: of a server. It is given middleware once, which does nothing outside of this.
        deadline: when to give up.
    """
    if deadline is NO_DEADLINE:
        yield
        return
    with _prepared_guard:
        if client not in _prepared:
            limit_http(client)
            limit_grpc(client)
            _prepared.add(client)
    token = request_deadline.set(deadline)
    try:
        yield
    finally:
        request_deadline.reset(token)


def limit_http(client: QdrantClient) -> None:
    """Let requests of this client end by ``request_deadline``, as httpx timeouts; once a client."""
    api = client.http.client
    api.add_middleware(_limit_steps)
    api._client.event_hooks["response"].append(_limit_body)


def _limit_steps(
    request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]
) -> httpx.Response:
    deadline = request_deadline.get()
    if deadline.remaining is None:
        return send(request)
    given: dict[str, float | None] = dict(request.extensions.get("timeout", {}))
    timeouts = request.extensions["timeout"] = dict(given)

    def refresh(event: str = "", info: Any = None) -> None:
        left = max(SHORTEST, deadline.remaining or 0)
        for step in ("connect", "read", "write", "pool"):
            own = given.get(step)
            timeouts[step] = left if own is None else min(own, left)

    refresh()
    request.extensions["trace"] = refresh  # httpcore calls it before each step
    return send(request)


def _limit_body(response: httpx.Response) -> None:
    deadline = request_deadline.get()
    if deadline is not NO_DEADLINE and isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _TimedBody(response.stream, response.request, deadline)


class _TimedBody(httpx.SyncByteStream):
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


def limit_grpc(client: QdrantClient) -> None:
    """Let calls of this client end by ``request_deadline``; once a client.

    One that does not use gRPC is left as it is.
    """
    remote = client._client  # qdrant-client has no public way to its channels
    if not isinstance(remote, QdrantRemote) or not remote._prefer_grpc:
        return
    remote._init_grpc_channel()
    limited = [grpc.intercept_channel(one, _TimedCalls()) for one in remote._grpc_channel_pool]
    remote._grpc_channel_pool = limited
    # Made anew, on these channels; calls that are under way keep the old ones.
    remote._init_grpc_points_client()
    remote._init_grpc_collections_client()
    remote._init_grpc_root_client()


class _TimedCalls(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpcio has no types
    """Gives a call what is left, if that is less than it was given."""

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        left = request_deadline.get().remaining
        if left is not None:
            given = details.timeout
            details = details._replace(timeout=left if given is None else min(given, left))
        return continuation(details, request)
