"""Requests of a blocking client end by a deadline, over HTTP and gRPC."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from qdrant_client import QdrantClient

from qdrant_rerank.deadline import NEVER, Deadline, request_deadline
from qdrant_rerank.grpc_deadline import limit_grpc
from qdrant_rerank.http_deadline import limit_http

__all__ = ["requests_end_by"]

_prepared: "WeakSet[QdrantClient]" = WeakSet()
_prepared_guard = threading.Lock()


@contextmanager
def requests_end_by(client: QdrantClient, deadline: Deadline) -> Iterator[None]:
    """Requests of this client and this thread are given up at the deadline.

    Args:
        client: of a server. It is given middleware once, which does nothing outside of this.
        deadline: when to give up.
    """
    if deadline is NEVER:
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
