"""The Qdrant client: which one, and one call at a time where it needs that."""

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_rerank.errors import InvalidInputError, QdrantRequestError
from qdrant_rerank.qdrant.embedded.choice import embedded_client
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.validation import a_type, clean_key

__all__ = [
    "AnyClient",
    "connect",
    "connect_async",
    "exclusive",
    "is_local",
    "require_async_client",
    "require_client",
]

AnyClient = QdrantClient | AsyncQdrantClient
ClientOfAServer = TypeVar("ClientOfAServer", QdrantClient, AsyncQdrantClient)

# Concurrent writes corrupt local mode, so it gets one call at a time. Every searcher on a client
# shares its lock.
_locks: "WeakKeyDictionary[AnyClient, threading.RLock]" = WeakKeyDictionary()
_locks_guard = ForkLock()


def connect(url: str | None = None, path: str | None = None) -> QdrantClient:
    """Make a client for callers who have none.

    Args:
        url: URL of a server, whose key is ``QDRANT_API_KEY``.
        path: directory of an embedded engine. Without both: ``QDRANT_URL`` if set, else
            ``QDRANT_PATH``, else an engine in memory, whose data goes with the client.

    Raises:
        QdrantConnectionError: the directory cannot be used, or another process has it open.
        QdrantRequestError: the URL is not one.
    """
    if url is None and path is None:
        url, path = os.environ.get("QDRANT_URL"), os.environ.get("QDRANT_PATH")
    return _at(QdrantClient, url) if url else embedded_client(path or None)


def connect_async(url: str | None = None) -> AnyClient:
    """Make one for an event loop; embedded engines are those of :func:`connect`.

    Args:
        url: URL of a server; None for ``QDRANT_URL``.

    Raises:
        QdrantConnectionError: as :func:`connect`.
        QdrantRequestError: as :func:`connect`.
    """
    url = url or os.environ.get("QDRANT_URL")
    return _at(AsyncQdrantClient, url) if url else connect()


def _at(kind: type[ClientOfAServer], url: str) -> ClientOfAServer:
    key = clean_key("QDRANT_API_KEY", os.environ.get("QDRANT_API_KEY"))
    try:
        return kind(url=url, api_key=key)
    except ValueError as error:
        raise QdrantRequestError(
            f"{url!r} is not the URL of a Qdrant server: {error} Expected something like "
            "http://localhost:6333."
        ) from None  # the client's own error shows the password of the URL


def require_client(client: object) -> None:
    """Raise InvalidInputError unless it is a client whose calls block, or None."""
    if isinstance(client, AsyncQdrantClient):
        raise InvalidInputError(
            "client is an AsyncQdrantClient, whose calls need an event loop; expected a "
            "QdrantClient. Pass QdrantClient with the same arguments, or use AsyncHybridSearcher."
        )
    if client is not None and not callable(getattr(client, "query_points", None)):
        raise InvalidInputError(
            f"client is {a_type(client)}; expected a QdrantClient. Pass QdrantClient(url=...)."
        )


def require_async_client(client: object) -> None:
    """Raise InvalidInputError unless it is a client for an event loop, or None."""
    if isinstance(client, QdrantClient) and not is_local(client):
        raise InvalidInputError(
            "client is a QdrantClient of a server, whose calls would block the event loop; "
            "expected an AsyncQdrantClient. Pass AsyncQdrantClient with the same arguments."
        )
    if client is not None and not callable(getattr(client, "query_points", None)):
        raise InvalidInputError(
            f"client is {a_type(client)}; expected an AsyncQdrantClient. Pass "
            "AsyncQdrantClient(url=...)."
        )


def is_local(client: AnyClient) -> bool:
    """Whether the client is an embedded engine, without a server."""
    options = client.init_options
    return options.get("location") == ":memory:" or options.get("path") is not None


def exclusive(client: AnyClient) -> AbstractContextManager[object]:
    """Return a context for one call of an embedded engine.

    For local mode it is a lock, which all searchers on the client share. The real engine takes
    many calls at once.
    """
    if getattr(client, "concurrent", False):
        return nullcontext()
    with _locks_guard:
        return _locks.setdefault(client, threading.RLock())
