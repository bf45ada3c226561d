"""A deadline for the gRPC calls of a qdrant-client, in fractions of a second.

Its own timeouts are in whole seconds, and some calls, such as that for a collection's schema, take
the client's alone.
"""

from collections.abc import Callable
from typing import Any

import grpc
from qdrant_client import QdrantClient
from qdrant_client.qdrant_remote import QdrantRemote

from qdrant_rerank.deadline import request_deadline

__all__ = ["limit_grpc"]


def limit_grpc(client: QdrantClient) -> None:
    """Let calls of this client end by ``request_deadline``; once a client.

    One that does not use gRPC is left as it is.
    """
    remote = client._client  # qdrant-client has no public way to its channels
    if not isinstance(remote, QdrantRemote) or not remote._prefer_grpc:
        return
    remote._init_grpc_channel()
    limited = [grpc.intercept_channel(one, _InTime()) for one in remote._grpc_channel_pool]
    remote._grpc_channel_pool = limited
    # Made anew, on these channels; calls that are under way keep the old ones.
    remote._init_grpc_points_client()
    remote._init_grpc_collections_client()
    remote._init_grpc_root_client()


class _InTime(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc] # grpcio has no types
    """Gives a call what is left, if that is less than it was given."""

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], details: Any, request: Any
    ) -> Any:
        left = request_deadline.get().left
        if left is not None:
            given = details.timeout
            details = details._replace(timeout=left if given is None else min(given, left))
        return continuation(details, request)
