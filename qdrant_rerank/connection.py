"""The Qdrant client: which one, one caller at a time where it needs that, and its errors as ours.

qdrant-client raises a different family of exceptions for each way to fail (four over HTTP,
another over gRPC, bare ``ValueError`` and ``RuntimeError`` in local mode). ``translate`` turns
them into the tree of :mod:`qdrant_rerank.errors`.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_rerank.engines.choice import embedded_client
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    QdrantRerankError,
)

__all__ = [
    "AnyClient",
    "connect",
    "connect_async",
    "exclusive",
    "is_local",
    "is_throttled",
    "not_found",
    "translate",
]

AnyClient = QdrantClient | AsyncQdrantClient
ClientOfAServer = TypeVar("ClientOfAServer", QdrantClient, AsyncQdrantClient)

LONGEST_ANSWER = 300  # characters of a server's answer quoted in an error

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
    try:
        return kind(url=url, api_key=os.environ.get("QDRANT_API_KEY") or None)
    except ValueError as error:
        raise QdrantRequestError(
            f"{url!r} is not the URL of a Qdrant server: {error} Expected something like "
            "http://localhost:6333."
        ) from error


def is_local(client: AnyClient) -> bool:
    """Whether the client is an embedded engine, without a server."""
    options = client.init_options
    return options.get("location") == ":memory:" or options.get("path") is not None


def is_throttled(error: Exception) -> bool:
    """Whether this is a 429 with a Retry-After that qdrant-client cannot read, such as a date."""
    return isinstance(error, ResourceExhaustedResponse) or (
        isinstance(error, QdrantException) and "Retry-After" in str(error)
    )


def exclusive(client: AnyClient) -> AbstractContextManager[object]:
    """What a caller of an embedded engine holds while it calls.

    Of local mode, a lock that all searchers on it share. The real engine takes many calls at once.
    """
    if getattr(client, "concurrent", False):
        return nullcontext()
    with _locks_guard:
        return _locks.setdefault(client, threading.RLock())


def translate(error: Exception, client: AnyClient, collection: str) -> Exception | None:
    """Our error for one of the client's; None for one that is ours already, or nobody's."""
    if isinstance(error, QdrantRerankError):
        return None
    where = _address(client)
    if isinstance(error, UnexpectedResponse):
        return _from_status(error.status_code or 0, _said(error.content), client, collection)
    if isinstance(error, ResourceExhaustedResponse):
        return QdrantRequestError(
            f"{where} is asked too often: {error}. Try again in {error.retry_after_s} s."
        )
    if isinstance(error, ResponseHandlingException):
        return _from_source(error.source, where)
    if isinstance(
        error, json.JSONDecodeError | AssertionError
    ):  # it asserts that a result is there
        return _nonsense(where, error)
    if isinstance(error, TimeoutError):  # of ours, around a request
        return _too_late(where, "the deadline passed")
    if isinstance(error, QdrantException):
        if is_throttled(error):
            return QdrantRequestError(f"{where} is asked too often (429): {error}.")
        return QdrantRequestError(f"{where} refused: {error}.")
    if type(error).__module__.split(".")[0] == "grpc" and hasattr(error, "code"):
        return _from_grpc(error, client, collection)
    if is_local(client):
        return _from_local(error, client, collection)
    if isinstance(error, ValueError):  # pydantic could not read the answer, or write the request
        return QdrantRequestError(f"{where}, collection {collection!r}: {error}")
    return None


def _from_local(error: Exception, client: AnyClient, collection: str) -> Exception | None:
    where = _address(client)
    if isinstance(error, OSError | sqlite3.Error):
        return QdrantConnectionError(
            f"{where} cannot read or write its files: {error}. Is the disk full, or the directory "
            "not writable?"
        )
    if isinstance(error, ValueError | RuntimeError | TypeError | KeyError):
        if isinstance(error, ValueError) and f"Collection {collection} not found" in str(error):
            return not_found(client, collection)
        return QdrantRequestError(f"{where} cannot do that with {collection!r}: {error}")
    return None


def _from_status(status: int, said: str, client: AnyClient, collection: str) -> Exception:
    where = _address(client)
    if status == 404 and collection in said:
        return not_found(client, collection)
    if status in {401, 403}:
        return QdrantRequestError(
            f"{where} refused access ({status}): {said}. Check the API key (QDRANT_API_KEY) and "
            "its rights."
        )
    if status == 429:
        return QdrantRequestError(f"{where} is asked too often (429): {said}. Try again later.")
    if 400 <= status < 500 and status != 404:
        return QdrantRequestError(
            f"{where} refused the request for {collection!r} ({status}): {said}"
        )
    advice = "Is that a Qdrant server?" if status == 404 else "Check the server's log."
    return QdrantConnectionError(f"{where} answered {status}: {said}. {advice}")


def _from_source(source: Exception, where: str) -> Exception:
    name = type(source).__name__
    if "Timeout" in name:
        return _too_late(where, name)
    if isinstance(source, ValueError):
        return _nonsense(where, source)
    return QdrantConnectionError(
        f"{where} cannot be reached: {source or name}. Is Qdrant running there? "
        "To start one: docker compose up."
    )


def _too_late(where: str, what: str) -> Exception:
    return QdrantConnectionError(
        f"{where} did not answer in time ({what}). Give it longer with "
        "QdrantClient(timeout=seconds), SearchOptions(timeout_s=...) or deadline_s, or ask for "
        "less."
    )


def _from_grpc(error: Any, client: AnyClient, collection: str) -> Exception:
    where, code, said = _address(client), error.code().name, error.details()
    if code == "NOT_FOUND":
        return not_found(client, collection)
    if code == "DEADLINE_EXCEEDED":
        return QdrantConnectionError(f"{where} did not answer in time: {said}.")
    if code in {"UNAVAILABLE", "INTERNAL", "UNKNOWN"}:
        return QdrantConnectionError(f"{where} cannot be reached ({code}): {said}.")
    return QdrantRequestError(f"{where} refused the request for {collection!r} ({code}): {said}")


def _nonsense(where: str, error: Exception) -> Exception:
    return QdrantConnectionError(
        f"{where} answered what is no Qdrant answer: {str(error)[:LONGEST_ANSWER]}. Is the address "
        "that of a Qdrant server, and not of a proxy's error page?"
    )


def not_found(
    client: AnyClient, collection: str, names: Sequence[str] | None = None
) -> CollectionNotFoundError:
    """The error for a collection that is not there.

    Args:
        client: that was asked.
        collection: that is not there.
        names: of those that are; None if that is not known.
    """
    existing = "" if names is None else "It has no collections. "
    if names:
        existing = f"It has {', '.join(map(repr, names))}. "
    return CollectionNotFoundError(
        f"{_address(client)} has no collection {collection!r}. {existing}"
        "HybridSearcher.add(documents) creates it."
    )


def _said(content: bytes) -> str:
    """What the server said: Qdrant's own message if there is one."""
    try:
        return str(json.loads(content)["status"]["error"])[:LONGEST_ANSWER]
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip()[:LONGEST_ANSWER] or "nothing"


def _address(client: AnyClient) -> str:
    options = client.init_options
    if is_local(client):
        return f"The embedded Qdrant at {options.get('path') or ':memory:'}"
    host = options.get("url") or options.get("location") or options.get("host")
    return f"Qdrant at {host or 'localhost'}"
