"""The Qdrant client: which one, one caller at a time where it needs that, and its errors as ours.

qdrant-client raises a different family of exceptions for each way to fail (four over HTTP,
another over gRPC, bare ``ValueError`` and ``RuntimeError`` in local mode). ``translated`` turns
them into the tree of :mod:`qdrant_rerank.errors`, with the cause attached.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantError,
    QdrantRequestError,
)

__all__ = ["connect", "exclusive", "is_local", "translated"]

LONGEST_ANSWER = 300  # characters of a server's answer quoted in an error

# Local mode is corrupted by concurrent writes, so one call at a time; one lock a client, shared
# by every searcher on it.
_locks: "WeakKeyDictionary[QdrantClient, threading.RLock]" = WeakKeyDictionary()
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
    if url:
        try:
            return QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY") or None)
        except ValueError as error:
            raise QdrantRequestError(
                f"{url!r} is not the URL of a Qdrant server: {error} Expected something like "
                "http://localhost:6333."
            ) from error
    if not path:
        return QdrantClient(location=":memory:")
    try:
        return QdrantClient(path=path)
    except RuntimeError as error:
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: {error} Close the other process, or "
            "use a server (QDRANT_URL), which both can."
        ) from error
    except (OSError, ValueError) as error:
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: {error}. Expected a directory to "
            "write to."
        ) from error


def is_local(client: QdrantClient) -> bool:
    """Whether the client is an embedded engine (local mode), without a server."""
    options = client.init_options
    return options.get("location") == ":memory:" or options.get("path") is not None


@contextmanager
def translated(client: QdrantClient, collection: str) -> Iterator[None]:
    """The client's errors as ours, with the cause attached.

    Raises:
        CollectionNotFoundError: no such collection; the message lists those that exist.
        QdrantConnectionError: no answer, too late, or not one that Qdrant gives.
        QdrantRequestError: Qdrant refused.
    """
    try:
        yield
    except QdrantError:
        raise
    except Exception as error:
        ours = _translate(error, client, collection)
        if ours is None:
            raise
        raise ours from error


def exclusive(client: QdrantClient) -> threading.RLock:
    """The lock that a caller of an embedded engine holds, shared by every searcher on it."""
    with _locks_guard:
        return _locks.setdefault(client, threading.RLock())


def _translate(error: Exception, client: QdrantClient, collection: str) -> Exception | None:
    """Our error for one of the client's; None for what is not the client's."""
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
    if isinstance(error, QdrantException):
        return QdrantRequestError(f"{where} refused: {error}.")
    if type(error).__module__.split(".")[0] == "grpc" and hasattr(error, "code"):
        return _from_grpc(error, client, collection)
    if is_local(client) and isinstance(error, OSError | sqlite3.Error):
        return QdrantConnectionError(
            f"{where} cannot read or write its files: {error}. Is the disk full, or the directory "
            "not writable?"
        )
    if is_local(client) and isinstance(error, ValueError | RuntimeError | TypeError | KeyError):
        if isinstance(error, ValueError) and f"Collection {collection} not found" in str(error):
            return _not_found(client, collection)
        return QdrantRequestError(f"{where} cannot do that with {collection!r}: {error}")
    if isinstance(error, ValueError):  # pydantic could not read the answer, or write the request
        return QdrantRequestError(f"{where}, collection {collection!r}: {error}")
    return None


def _from_status(status: int, said: str, client: QdrantClient, collection: str) -> Exception:
    where = _address(client)
    if status == 404 and collection in said:
        return _not_found(client, collection)
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
        return QdrantConnectionError(
            f"{where} did not answer in time ({name}). Give it longer with "
            "QdrantClient(timeout=seconds), SearchOptions(timeout_s=...) or deadline_s, or ask for "
            "less."
        )
    if isinstance(source, ValueError):
        return _nonsense(where, source)
    return QdrantConnectionError(
        f"{where} cannot be reached: {source or name}. Is Qdrant running there? "
        "To start one: docker compose up."
    )


def _from_grpc(error: Any, client: QdrantClient, collection: str) -> Exception:
    where, code, said = _address(client), error.code().name, error.details()
    if code == "NOT_FOUND":
        return _not_found(client, collection)
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


def _not_found(client: QdrantClient, collection: str) -> Exception:
    try:
        names = sorted(item.name for item in client.get_collections().collections)
    except Exception:  # the list is a courtesy; its failure must not hide the error
        names = []
    existing = f"It has {', '.join(map(repr, names))}." if names else "It has no collections."
    return CollectionNotFoundError(
        f"{_address(client)} has no collection {collection!r}. {existing} "
        "HybridSearcher.add(documents) creates it."
    )


def _said(content: bytes) -> str:
    """What the server said: Qdrant's own message if there is one."""
    try:
        return str(json.loads(content)["status"]["error"])[:LONGEST_ANSWER]
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip()[:LONGEST_ANSWER] or "nothing"


def _address(client: QdrantClient) -> str:
    options = client.init_options
    if is_local(client):
        return f"The embedded Qdrant at {options.get('path') or ':memory:'}"
    host = options.get("url") or options.get("location") or options.get("host")
    return f"Qdrant at {host or 'localhost'}"
