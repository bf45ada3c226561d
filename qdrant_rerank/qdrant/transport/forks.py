"""A client in a forked child: it must not use the connections of its parent.

Two processes that write to one connection read each other's answers, without any error.
"""

import os
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient

from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.qdrant.transport.client import AnyClient, is_local
from qdrant_rerank.qdrant.transport.internals import renew_connections, set_channel_options
from qdrant_rerank.utils.fork import ForkLock, in_child

__all__ = ["own_connections"]

_owners: "WeakKeyDictionary[AnyClient, int]" = WeakKeyDictionary()  # ids of processes
_guard = ForkLock()
_forked = False
_awaited_grpc = 0  # the process that first awaited gRPC; 0 for none


@in_child
def _note_fork() -> None:
    global _forked  # noqa: PLW0603 - of this process
    _forked = True


def _require_awaited_grpc(process: int) -> None:
    """Raise QdrantConnectionError in a child of a process that has awaited gRPC."""
    global _awaited_grpc  # noqa: PLW0603 - of this process
    if _awaited_grpc not in {0, process}:
        raise QdrantConnectionError(
            f"Process {_awaited_grpc} used gRPC in an event loop before this process, {process}, "
            "was forked from it, and gRPC would hang here. Fork before the first search, start "
            "processes by 'spawn', or pass prefer_grpc=False."
        )
    _awaited_grpc = process


def own_connections(client: AnyClient) -> None:
    """Renew the connections of a server's client that another process has used.

    Call it before each request; the first call of a process remembers the client. A client that a
    forked child meets for the first time may have been used by its parent, so it is renewed too.

    Raises:
        QdrantConnectionError: the client is of the parent, and cannot be renewed; or it awaits
            gRPC, as the parent did.
    """
    process = os.getpid()
    if _owners.get(client) == process or is_local(client):
        return
    with _guard:
        owner = _owners.get(client)
        if owner == process:
            return
        if isinstance(client, AsyncQdrantClient) and client.init_options.get("prefer_grpc"):
            _require_awaited_grpc(process)
        of_parent = owner is not None
        own = not (of_parent or _forked) or renew_connections(client)
        if of_parent and not own:
            raise QdrantConnectionError(
                f"The client was made in process {owner}, of which this process, {process}, is a "
                "fork: the two would read each other's answers. Make a client in each process, "
                "after the fork."
            )
        if own and not of_parent:
            set_channel_options(client)
        _owners[client] = process
