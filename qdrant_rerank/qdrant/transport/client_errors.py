"""qdrant-client's errors as ours.

It raises a different family of exceptions for each way to fail: four over HTTP, another over
gRPC, bare ``ValueError`` and ``RuntimeError`` in local mode. ``translate`` turns them into the
tree of :mod:`qdrant_rerank.errors`.
"""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import grpc
import httpx
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    QdrantRerankError,
)
from qdrant_rerank.qdrant.transport.advice import (
    full_url,
    missing_replicas,
    strict_mode,
    unreachable,
)
from qdrant_rerank.qdrant.transport.client import AnyClient, is_local
from qdrant_rerank.utils.terminal import one_line

__all__ = ["is_throttled", "is_too_large", "not_found", "translate"]

LONGEST_ANSWER = 300  # characters of a server's answer quoted in an error
# In the words of httpx, qdrant-client over gRPC, gRPC, gRPC awaited, local mode, and of an event
# loop that is not the one in which an awaited gRPC client made its first call.
CLOSED = (
    "client has been closed",
    "Client was closed",
    "closed channel",
    "Channel is closed",
    "instance is closed",
    "Event loop is closed",
    "attached to a different loop",
)
# In the words of h11, and of gRPC.
BROKEN_HEADER = ("Illegal header value", "nvalid metadata", "metadata was invalid", "execute_batch")
# A message that is too long for gRPC, or for Qdrant; it stays so when it is sent again.
TOO_LARGE = ("message larger than max", "message length too large")


def is_throttled(error: BaseException | None) -> bool:
    """Whether this is a 429 with a Retry-After, even one that qdrant-client cannot read."""
    return isinstance(error, QdrantException)  # it raises no other kind


def is_too_large(error: BaseException | None) -> bool:
    """Whether a request failed over its size."""
    if isinstance(error, UnexpectedResponse):
        said = error.content.decode("utf-8", "replace")
        return error.status_code == 413 or "is larger than allowed" in said
    if not isinstance(error, grpc.RpcError):
        return False
    return any(words in str(error.details()) for words in TOO_LARGE)


def translate(
    error: Exception, client: AnyClient, collection: str, *, sent: bool, consistency: Any = None
) -> Exception | None:
    """Return our error for one of the client's; None if it is ours, or not the client's.

    Args:
        error: the exception that the request ended with.
        client: the client that was asked.
        collection: the collection that the request is about.
        sent: whether the request was sent over gRPC; see ``Exchange``.
        consistency: how many replicas had to agree, if the request said so.
    """
    if isinstance(error, QdrantRerankError):
        return None
    where = _address(client)
    if _says_closed(error):
        return QdrantConnectionError(
            f"The client of {where} was closed, or the event loop that it was used in. Make "
            "another."
        )
    if any(words in str(error) for words in BROKEN_HEADER):
        return QdrantRequestError(
            f"{where} cannot be asked: the API key, or another header, holds a character that no "
            "header can hold, often a newline at its end. Pass key.strip()."
        )
    if isinstance(error, UnexpectedResponse):
        return _from_status(error, client, collection, consistency)
    if isinstance(error, ResponseHandlingException):
        return _from_source(error.source, client)
    if isinstance(error, json.JSONDecodeError | AssertionError):  # that a result is there
        return _unreadable(where, error)
    if isinstance(error, TimeoutError):  # of ours, around a request
        return _too_late(where, "the deadline passed")
    if is_throttled(error):
        return _too_often(where, 429, str(error), getattr(error, "retry_after_s", None))
    if isinstance(error, grpc.RpcError):
        return _from_grpc(error, client, collection, consistency)
    if is_local(client):
        return _from_local(error, client, collection)
    if sent and isinstance(error, ValueError | TypeError | AttributeError | LookupError):
        return _unreadable(where, error)  # qdrant-client reads gRPC answers without looking
    if isinstance(error, ValueError | TypeError):
        # It could not write the request: over gRPC, types are checked then.
        return QdrantRequestError(f"{where} cannot be asked that of {collection!r}: {error}")
    return None


def _says_closed(error: Exception) -> bool:
    """Whether the client had been closed: exceptions of many kinds, most of them bare."""
    source = error.source if isinstance(error, ResponseHandlingException) else error
    return any(words in str(source) for words in CLOSED)


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


def _from_status(
    error: UnexpectedResponse, client: AnyClient, collection: str, consistency: Any
) -> Exception:
    status, content = error.status_code or 0, error.content
    where, said, by_qdrant = _address(client), _said(content), _words(content) is not None
    if 300 <= status < 400:
        target = error.headers.get("Location", "")
        return QdrantConnectionError(
            f"{where} answered {status}: it points to {target!r:.300}, and redirects are not "
            "followed. Pass the URL that it points to."
        )
    if status == 404 and f"`{collection}`" in said:
        return not_found(client, collection)
    if status in {401, 403}:
        return _no_access(where, status, said)
    if status == 429:
        return _too_often(where, status, said)
    # A 404 of Qdrant's is about a point, or another collection; any other about the address.
    if 400 <= status < 500 and (status != 404 or by_qdrant):
        return _refused(where, status, said, collection)
    if short := missing_replicas(said, consistency):
        return _too_few(where, status, collection, short)
    advice = "Is that a Qdrant server?" if status == 404 else "Check the server's log."
    return QdrantConnectionError(f"{where} answered {status}: {said}. {advice}")


def _no_access(where: str, code: object, said: str) -> QdrantRequestError:
    return QdrantRequestError(
        f"{where} refused access ({code}): {said}. Check the API key (QDRANT_API_KEY) and its "
        "rights."
    )


def _too_often(
    where: str, code: object, said: str, after_s: int | None = None
) -> QdrantRequestError:
    if strict := strict_mode(said):
        return QdrantRequestError(f"{where} refused the request ({code}): {strict}. {said}")
    when = "later" if after_s is None else f"in {after_s} s"
    return QdrantRequestError(f"{where} is asked too often ({code}): {said}. Try again {when}.")


def _too_few(where: str, code: object, collection: str, short: str) -> QdrantConnectionError:
    return QdrantConnectionError(f"{where} cannot answer for {collection!r} ({code}): {short}.")


def _refused(where: str, code: object, said: str, collection: str) -> QdrantRequestError:
    if strict := strict_mode(said):
        said = f"{strict}. Its words: {said}"
    return QdrantRequestError(f"{where} refused the request for {collection!r} ({code}): {said}")


def _from_source(source: Exception, client: AnyClient) -> Exception:
    where, name = _address(client), type(source).__name__
    if isinstance(source, httpx.TimeoutException):
        return _too_late(where, name)
    if isinstance(source, ValueError):
        return _unreadable(where, source)
    said = (str(source) or name).rstrip(".")
    if isinstance(source, httpx.ProxyError):
        return QdrantConnectionError(
            f"The proxy on the way to {where} answered: {said}. Check HTTP_PROXY and HTTPS_PROXY, "
            "or name the host in NO_PROXY."
        )
    return QdrantConnectionError(
        f"{where} cannot be reached: {said}. {unreachable(source, *_given_url(client))}"
    )


def _too_late(where: str, what: str) -> Exception:
    seen = f"{where} did not answer in time ({what})."
    return QdrantConnectionError(
        f"{seen} Give it longer with QdrantClient(timeout=seconds), SearchOptions(timeout_s=...) "
        "or deadline_s, or ask for less.",
        command=f"{seen} Ask for less, such as a smaller --candidates or --batch-size.",
    )


def _from_grpc(
    error: grpc.RpcError, client: AnyClient, collection: str, consistency: Any
) -> Exception:
    where, code = _address(client), error.code().name
    said = one_line(str(error.details() or "nothing"))[:LONGEST_ANSWER].rstrip(".")
    if code == "NOT_FOUND" and f"`{collection}`" in said:
        return not_found(client, collection)
    if is_too_large(error):
        return QdrantRequestError(
            f"{where} takes no message of this size ({code}): {said}. Send less at a time: "
            "add(batch_size=...), or fewer queries."
        )
    if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return _no_access(where, code, said)
    if code == "RESOURCE_EXHAUSTED":
        return _too_often(where, code, said)
    if code == "DEADLINE_EXCEEDED":
        return _too_late(where, code)
    if code == "UNAVAILABLE":
        return QdrantConnectionError(
            f"{where} cannot be reached ({code}): {said}. Is that its gRPC port? "
            f"{unreachable(error, *_given_url(client))}"
        )
    if code == "UNIMPLEMENTED":
        return QdrantConnectionError(
            f"{where} does not know this call ({code}): {said}. Is that a Qdrant server's gRPC "
            "port, and the server no older than qdrant-client?"
        )
    if short := missing_replicas(str(error.details()), consistency):
        return _too_few(where, code, collection, short)
    if code in {"INTERNAL", "UNKNOWN", "DATA_LOSS", "ABORTED", "CANCELLED"}:
        return QdrantConnectionError(
            f"{where} answered {code}: {said}. Check the server's log, and that of a proxy in "
            "between."
        )
    return _refused(where, code, said, collection)


def _unreadable(where: str, error: Exception) -> Exception:
    return QdrantConnectionError(
        f"{where} sent an answer that is not Qdrant's: {str(error)[:LONGEST_ANSWER]}. Is the "
        "address that of a Qdrant server, and not of a proxy?"
    )


def not_found(
    client: AnyClient, collection: str, names: Sequence[str] | None = None
) -> CollectionNotFoundError:
    """Make the error for a collection that does not exist.

    Args:
        client: the client that was asked.
        collection: name of the collection.
        names: names of the collections that exist; None if they are not known.
    """
    existing = "" if names is None else "It has no collections. "
    if names:
        existing = f"It has {', '.join(map(repr, names))}. "
    seen = f"{_address(client)} has no collection {collection!r}. {existing}"
    return CollectionNotFoundError(
        f"{seen}HybridSearcher.add(documents) creates it.",
        command=f"{seen}'qdrant-rerank index' creates it.",
    )


def _said(content: bytes) -> str:
    """Return the server's text: Qdrant's own message if there is one."""
    said = _words(content) or content.decode("utf-8", "replace").strip()
    return one_line(said)[:LONGEST_ANSWER] or "nothing"


def _words(content: bytes) -> str | None:
    """Return Qdrant's own message; None where another server has answered."""
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _address(client: AnyClient) -> str:
    options = client.init_options
    if is_local(client):
        return f"The embedded Qdrant at {options.get('path') or ':memory:'}"
    host = full_url(*_given_url(client))
    port = f", gRPC port {options.get('grpc_port')}" * bool(options.get("prefer_grpc"))
    return f"Qdrant at {host}{port}"


def _given_url(client: AnyClient) -> tuple[str, int | None]:
    """Return a client's URL or host as it was given, and the port that it adds."""
    options = client.init_options
    given = options.get("url") or options.get("location") or options.get("host") or "localhost"
    return str(given), options.get("port")
