"""The bytes of what is written: requests are cut where a server would refuse them as too large."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from pydantic import BaseModel

from qdrant_rerank.errors import QdrantError, QdrantRequestError
from qdrant_rerank.qdrant.transport.client_errors import is_too_large
from qdrant_rerank.types import PointId

__all__ = ["cut_by_size", "named_if_too_large"]

#: Bytes of one request. A server's REST takes 32 MiB, unless it is set otherwise; the rest of the
#: request is small.
LARGEST_REQUEST = 30 * 2**20
Written = TypeVar("Written", bound=BaseModel)


def cut_by_size(batch: Iterable[Written]) -> Iterator[list[Written]]:
    """Yield the parts of a batch that one request can hold each; what is too large is alone."""
    part: list[Written] = []
    size = 0
    for one in batch:
        own = _bytes(one)
        if part and size + own > LARGEST_REQUEST:
            yield part
            part, size = [], 0
        part.append(one)
        size += own
    if part:
        yield part


def named_if_too_large(point_id: PointId, written: BaseModel, error: QdrantError) -> QdrantError:
    """Return the error of a request that wrote one document; one over its size names it."""
    if not is_too_large(error.__cause__):
        return error
    named = QdrantRequestError(
        f"Document {point_id!r} has {_bytes(written):,} bytes, which the server refuses: {error} "
        "Store less in its payload, or raise the server's service.max_request_size_mb in its "
        "configuration."
    )
    named.__cause__ = error.__cause__
    return named


def _bytes(written: BaseModel) -> int:
    """The size of a model as the body of a request has it, with the comma after it."""
    return len(written.model_dump_json(exclude_unset=True, exclude_none=True).encode()) + 1
