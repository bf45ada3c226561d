"""The Qdrant client: which one, and one caller at a time where it needs that."""

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.choice import embedded_client
from qdrant_rerank.utils.validation import clean_key

__all__ = ["AnyClient", "connect", "connect_async", "exclusive", "is_local"]

AnyClient = QdrantClient | AsyncQdrantClient
ClientOfAServer = TypeVar("ClientOfAServer", QdrantClient, AsyncQdrantClient)

# Local mode is corrupted by concurrent writes, so one call at a time; one lock a client, shared
# by every searcher on it.
_locks: "WeakKeyDictionary[AnyClient, threading.RLock]" = WeakKeyDictionary()
_locks_guard = threading.Lock()


def connect(url: str | None = None, path: str | None = None) -> QdrantClient:
    """A client for callers who bring none.

    Args:
        url: of a server; its key is ``QDRANT_API_KEY``.
        path: directory of an embedded engine. With neither: ``QDRANT_URL`` if set, else
            ``QDRANT_PATH``, else an engine in memory that is gone with the client.

    Raises:
        QdrantConnectionError: the directory cannot be used, or another process has it open.
        QdrantRequestError: the URL is none.
    """
    if url is None and path is None:
        url, path = os.environ.get("QDRANT_URL"), os.environ.get("QDRANT_PATH")
    return _at(QdrantClient, url) if url else embedded_client(path or None)


def connect_async() -> AnyClient:
    """The same for an event loop; embedded engines are those of :func:`connect`.

    Raises:
        QdrantConnectionError: the directory cannot be used, or another process has it open.
        QdrantRequestError: the URL is none.
    """
    url = os.environ.get("QDRANT_URL")
    return _at(AsyncQdrantClient, url) if url else connect()


def _at(kind: type[ClientOfAServer], url: str) -> ClientOfAServer:
    key = clean_key("QDRANT_API_KEY", os.environ.get("QDRANT_API_KEY"))
    try:
        return kind(url=url, api_key=key)
    except ValueError as error:
        raise QdrantRequestError(
            f"{url!r} is not the URL of a Qdrant server: {error} Expected something like "
            "http://localhost:6333."
        ) from error


def is_local(client: AnyClient) -> bool:
    """Whether the client is an embedded engine, without a server."""
    options = client.init_options
    return options.get("location") == ":memory:" or options.get("path") is not None


def exclusive(client: AnyClient) -> AbstractContextManager[object]:
    """What a caller of an embedded engine holds while it calls.

    Of local mode, a lock that all searchers on it share. The real engine takes many calls at once.
    """
    if getattr(client, "concurrent", False):
        return nullcontext()
    with _locks_guard:
        return _locks.setdefault(client, threading.RLock())
