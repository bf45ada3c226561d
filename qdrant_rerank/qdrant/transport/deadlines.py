"""One request of a blocking client under way: when it ends, and whether it was sent."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import grpc
import httpx
from qdrant_client import QdrantClient

from qdrant_rerank.qdrant.transport.internals import add_response_hook, intercept_grpc
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.fork import ForkLock

__all__ = ["Exchange", "watched"]

SHORTEST = 1e-3  # seconds; a timeout of 0 would make a socket non-blocking


@dataclass(slots=True)
class Exchange:
    """One request, once.

    Attributes:
        deadline: when it is given up.
        sent: whether it was written and sent, over gRPC or by an async client; what fails then
            without an error of the transport is the answer.
    """

    deadline: Deadline = NO_DEADLINE
    sent: bool = False

    def note_sent(self) -> None:
        """Remember that it was sent."""
        self.sent = True


_exchange: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
# The process that prepared each; a forked child has connections of its own.
_prepared: "WeakKeyDictionary[QdrantClient, int]" = WeakKeyDictionary()
_prepared_guard = ForkLock()


@contextmanager
def watched(client: QdrantClient, exchange: Exchange) -> Iterator[None]:
    """Within this, a request of this client and this thread is given up at its deadline.

    Args:
        client: client of a server. It is given middleware once, which does nothing outside of this.
        exchange: the request.
    """
    process = os.getpid()
    if _prepared.get(client) != process:
        with _prepared_guard:
            if client not in _prepared:  # middleware stays when connections are renewed
                client.http.client.add_middleware(_limit_steps)
            if _prepared.get(client) != process:
                add_response_hook(client, _limit_body)
                intercept_grpc(client, _WatchedCalls())
                _prepared[client] = process
    token = _exchange.set(exchange)
    try:
        yield
    finally:
        _exchange.reset(token)


def _deadline() -> Deadline:
    exchange = _exchange.get()
    return NO_DEADLINE if exchange is None else exchange.deadline


def _limit_steps(
    request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]
) -> httpx.Response:
    deadline = _deadline()
    if deadline is NO_DEADLINE:
        return send(request)
    given: dict[str, float | None] = dict(request.extensions.get("timeout", {}))
    timeouts = request.extensions["timeout"] = dict(given)

    def refresh(event: str = "", info: Any = None) -> None:
        remaining = max(SHORTEST, deadline.remaining or 0)
        for step in ("connect", "read", "write", "pool"):
            own = given.get(step)
            timeouts[step] = remaining if own is None else min(own, remaining)

    refresh()
    request.extensions["trace"] = refresh  # httpcore calls it before each step
    return send(request)


def _limit_body(response: httpx.Response) -> None:
    deadline = _deadline()
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
                raise httpx.ReadTimeout(
                    "the deadline passed during the body", request=self._request
                )
            yield piece

    def close(self) -> None:
        self._stream.close()


class _WatchedCalls(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpcio has no types
    """Gives a call what remains, if that is less than it was given; notes that it was sent."""

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        exchange = _exchange.get()
        if exchange is not None:
            exchange.note_sent()
            remaining, given = exchange.deadline.remaining, details.timeout
            if remaining is not None:
                timeout = remaining if given is None else min(given, remaining)
                details = details._replace(timeout=timeout)
        return continuation(details, request)
