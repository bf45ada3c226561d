"""What Qdrant refuses: whose mistake it was, and what of it a client may read."""

import re

import grpc
from qdrant_client.http.exceptions import UnexpectedResponse

from qdrant_rerank.errors import QdrantRequestError

__all__ = ["is_clients_mistake", "without_address"]

MISTAKES = frozenset({400, 404, 413, 422})  # of HTTP; others are of keys, of rights or of load
ADDRESS = re.compile(r"^(?:The embedded )?Qdrant at .+? (?=cannot|refused|answered|is asked)")


def is_clients_mistake(error: QdrantRequestError) -> bool:
    """Whether the search itself was wrong, such as its filter; not this server's key or rights."""
    cause = error.__cause__
    if isinstance(cause, UnexpectedResponse):
        return cause.status_code in MISTAKES
    if isinstance(cause, grpc.RpcError):
        return cause.code() is grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(cause, UnicodeError):  # of a key that no header can hold
        return False
    return cause is None or isinstance(cause, ValueError | TypeError | OverflowError)


def without_address(error: QdrantRequestError) -> str:
    """Return the message without the URL or the directory of Qdrant."""
    return ADDRESS.sub("It ", str(error))
