"""Everything of qdrant-client that has no public name.

A release may rename any of it. Then a deadline is as precise as the client's own timeouts, which
are whole seconds between two pieces of an answer, and gRPC waits longer for a server that was
lost; a warning is logged once, and searches go on.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import grpc
import httpcore
import httpx
from qdrant_client import AsyncQdrantClient, QdrantClient

__all__ = [
    "intercept_grpc",
    "renew_connections",
    "set_channel_options",
    "uncompressed_points",
    "wrap_network",
]

logger = logging.getLogger(__name__)

_missing: set[str] = set()  # what was warned of
# Connections of a parent process. Never closed: gRPC may wait for threads that only the parent has.
_of_parents: list[Any] = []
# Channels that a client had before. Calls may be under way on them, which closing would end.
_replaced: "WeakKeyDictionary[QdrantClient | AsyncQdrantClient, Any]" = WeakKeyDictionary()
# Milliseconds between two tries to connect; gRPC's own grow from one second to two minutes, in
# which each call fails without a look at the network, though the server is back.
_RECONNECT = {"grpc.initial_reconnect_backoff_ms": 100, "grpc.max_reconnect_backoff_ms": 500}
# Answers as they are: a server takes 36 ms to compress a megabyte of states, and gains nothing. A
# call cannot say so, only a channel.
_UNCOMPRESSED = {"grpc.compression_enabled_algorithms_bitset": 1}


def wrap_network(
    client: QdrantClient,
    backend: Callable[[httpcore.NetworkBackend], httpcore.NetworkBackend],
    stream: Callable[[httpcore.NetworkStream], httpcore.NetworkStream],
) -> None:
    """Put wrappers around what opens the client's HTTP connections, and around open ones."""
    try:
        http: Any = client.http.client._client
        for transport in {http._transport, *http._mounts.values()} - {None}:
            pool = transport._pool
            pool._network_backend = backend(pool._network_backend)
            for connection in pool.connections:
                inner = connection._connection
                connection._network_backend = pool._network_backend
                if inner is not None:
                    inner._network_stream = stream(inner._network_stream)
    except (AttributeError, TypeError) as error:
        _warn("HTTP", error)


def intercept_grpc(client: QdrantClient, interceptor: grpc.UnaryUnaryClientInterceptor) -> None:
    """Let an interceptor see each gRPC call of the client; one that uses REST is left as it is."""
    if not client.init_options.get("prefer_grpc"):
        return
    try:
        remote: Any = client._client
        remote._init_grpc_channel()
        pool = [grpc.intercept_channel(one, interceptor) for one in remote._grpc_channel_pool]
        make_stubs = (
            remote._init_grpc_points_client,
            remote._init_grpc_collections_client,
            remote._init_grpc_root_client,
        )
    except (AttributeError, TypeError) as error:
        _warn("gRPC", error)
        return
    remote._grpc_channel_pool = pool
    for make in make_stubs:  # on these channels; calls that are under way keep the old ones
        make()


class _Uncompressed:
    """What sends requests for a part of the client, asking for answers that are not compressed."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def request(self, **arguments: Any) -> Any:
        headers = {**(arguments.pop("headers", None) or {}), "Accept-Encoding": "identity"}
        return self._sender.request(headers=headers, **arguments)


def uncompressed_points(client: Any) -> Any:
    """Return the part of a REST client that reads points, asking for answers as they are.

    A server takes a third of a second to compress states of a hundred documents, to 85 %.

    Returns:
        None where this release of qdrant-client has other internals, or the client uses gRPC.
    """
    if client.init_options.get("prefer_grpc"):
        return None
    try:
        points = copy.copy(client.http.points_api)
        points.api_client = _Uncompressed(points.api_client)
    except AttributeError:
        return None
    return points


def set_channel_options(client: QdrantClient | AsyncQdrantClient) -> None:
    """Let gRPC look soon, not after minutes, for a server that was lost, and take plain answers.

    What the caller has set stays, and with ``grpc_compression`` answers are compressed, too.
    Channels that are open already are made anew at the next call; calls that are under way keep the
    old ones.
    """
    if not client.init_options.get("prefer_grpc"):
        return
    try:
        remote: Any = client._client
        plain = _UNCOMPRESSED if remote._grpc_compression is None else {}
        remote._grpc_options = {**_RECONNECT, **plain, **remote._grpc_options}
        _replaced[client] = _forget_channels(remote)
    except (AttributeError, TypeError) as error:
        _warn("gRPC", error)


def _forget_channels(remote: Any) -> list[Any]:
    """Have the channels of a client and the stubs on them made again; return the old ones."""
    stubs = [f"_grpc_{api}_client_pool" for api in ("points", "collections", "snapshots", "root")]
    old = [remote._grpc_channel_pool, *(getattr(remote, stub) for stub in stubs)]
    remote._grpc_channel_pool = []
    for stub in stubs:
        setattr(remote, stub, None)
    return old


def renew_connections(client: QdrantClient | AsyncQdrantClient) -> bool:
    """Give a client of a server connections of its own, in place of those of a parent process.

    Returns:
        Whether it has them now; False where the client was made with a ``transport`` of the
        caller's, or where this release of qdrant-client has other internals.
    """
    try:
        remote: Any = client._client
        apis, given = remote.openapi_client.client, remote._rest_args
        if {"transport", "mounts"} & set(given):
            return False
        name, kind = "_client", httpx.Client
        if isinstance(client, AsyncQdrantClient):
            name, kind = "_async_client", httpx.AsyncClient  # type: ignore[assignment]
        old = getattr(apis, name)
        _of_parents.extend([old, *_forget_channels(remote)])
        setattr(apis, name, kind(**given))
    except (AttributeError, TypeError):
        return False
    return True


def _warn(transport: str, error: Exception) -> None:
    if transport not in _missing:
        _missing.add(transport)
        logger.warning(
            "This release of qdrant-client has other internals over %s (%s); a deadline is kept "
            "to about a second only. Upgrade qdrant-rerank, or install qdrant-client 1.20.",
            transport,
            error,
        )
