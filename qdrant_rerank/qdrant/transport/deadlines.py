"""One request of a blocking client under way: when it ends, and whether it was sent."""

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import grpc
import httpcore
import httpx
from qdrant_client import QdrantClient

from qdrant_rerank.qdrant.transport.internals import intercept_grpc, wrap_network
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.fork import ForkLock

__all__ = ["Exchange", "watched"]

PIECE = 2**16  # bytes that are written between two looks at the clock
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
                wrap_network(client, _TimedBackend, _TimedStream)
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
    """Give each step of a request what remains, as far as httpx itself can."""
    deadline = _deadline()
    if deadline is not NO_DEADLINE:
        given: dict[str, float | None] = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            step: _shorter(given.get(step), deadline)
            for step in ("connect", "read", "write", "pool")
        }
    return send(request)


def _shorter(timeout: float | None, deadline: Deadline) -> float | None:
    """Return a timeout that ends at the deadline at the latest."""
    remaining = deadline.remaining
    if remaining is None:
        return timeout
    remaining = max(SHORTEST, remaining)
    return remaining if timeout is None else min(timeout, remaining)


class _TimedBackend(httpcore.NetworkBackend):
    """Opens connections whose every read and write ends at the deadline of the exchange.

    A timeout of httpx's counts from byte to byte, so a server that sends one now and then would be
    waited for without end.
    """

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *rest: Any, **options: Any
    ) -> httpcore.NetworkStream:
        timeout = _shorter(timeout, _deadline())
        return _TimedStream(self._inner.connect_tcp(host, port, timeout, *rest, **options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, *rest: Any, **options: Any
    ) -> httpcore.NetworkStream:
        timeout = _shorter(timeout, _deadline())
        return _TimedStream(self._inner.connect_unix_socket(path, timeout, *rest, **options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _TimedStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = _deadline()
        if deadline.passed:
            raise httpcore.ReadTimeout("the deadline passed during the answer")
        return self._inner.read(max_bytes, _shorter(timeout, deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        deadline = _deadline()
        for start in range(0, len(buffer), PIECE):
            if deadline.passed:
                raise httpcore.WriteTimeout("the deadline passed during the request")
            self._inner.write(buffer[start : start + PIECE], _shorter(timeout, deadline))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        timeout = _shorter(timeout, _deadline())
        return _TimedStream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


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
