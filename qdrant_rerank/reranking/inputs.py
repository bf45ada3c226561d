"""What ``rerank_points`` takes, as scored points. Frameworks' objects are known by their shape."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import numpy as np
from pydantic import ValidationError
from qdrant_client.http.models import QueryResponse
from qdrant_client.models import Record, ScoredPoint

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.types import PointId
from qdrant_rerank.utils.validation import a_type, require_several

__all__ = ["Rerankable", "as_points"]

#: Fields of a point as a dict, as the REST interface and ``SearchResults.to_dicts`` have them.
POINT_FIELDS = frozenset(
    {"id", "payload", "score", "vector", "version", "shard_key", "order_value"}
    | {"rank", "rerank_score", "retrieval_score", "retrieval_rank", "snippet"}
)


class LangChainDocument(Protocol):
    """A LangChain ``Document``."""

    @property
    def page_content(self) -> str:
        """The text."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else is known of it."""
        ...


class HaystackDocument(Protocol):
    """A Haystack ``Document``."""

    @property
    def content(self) -> str | None:
        """The text."""
        ...

    @property
    def meta(self) -> Mapping[str, Any]:
        """What else is known of it."""
        ...

    @property
    def score(self) -> float | None:
        """Its retrieval score."""
        ...


class LlamaIndexNode(Protocol):
    """A LlamaIndex node, such as a ``TextNode``."""

    @property
    def node_id(self) -> str:
        """Its id."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else is known of it."""
        ...

    def get_content(self) -> str:
        """Return the text, maybe with metadata in it."""
        ...


class LlamaIndexHit(Protocol):
    """A LlamaIndex ``NodeWithScore``."""

    @property
    def node(self) -> LlamaIndexNode:
        """What was found."""
        ...

    @property
    def score(self) -> float | None:
        """Its retrieval score."""
        ...


#: One hit: a point, a dict, an (id, text) pair, a document of LangChain or Haystack, or a
#: LlamaIndex node.
Rerankable: TypeAlias = (
    ScoredPoint
    | Record
    | Mapping[str, Any]
    | tuple[PointId, str]
    | LangChainDocument
    | HaystackDocument
    | LlamaIndexNode
    | LlamaIndexHit
)


def as_points(points: Iterable[Rerankable] | QueryResponse) -> list[ScoredPoint]:
    """Return hits as scored points, in their order.

    Args:
        points: see :func:`~qdrant_rerank.rerank_points`.

    Raises:
        InvalidInputError: one of them is none of these.
    """
    found = points.points if isinstance(points, QueryResponse) else points
    require_several("points", found)
    return [_as_point(place, point) for place, point in enumerate(found)]


def _as_point(place: int, point: Any) -> ScoredPoint:
    if isinstance(point, ScoredPoint):
        return point
    if isinstance(point, Record):
        return _point(place, point.id, point.payload, vector=point.vector)
    if isinstance(point, Mapping):
        payload = point.get("payload", "")  # a text would be a field of the payload itself
        if isinstance(payload, Mapping | None) and point.keys() <= POINT_FIELDS:
            return _point(place, point.get("id"), payload, point.get("score"), point.get("vector"))
        return _point(place, point.get("id", point.get("_id")), point)
    if isinstance(point, tuple) and len(point) == 2 and isinstance(point[1], str):
        if isinstance(point[0], bool) or not isinstance(point[0], int | np.integer | str | UUID):
            raise InvalidInputError(
                f"Pair {place} of points has the id {point[0]!r:.80}; expected (id, text) with a "
                "whole number, a str or a UUID."
            )
        return _point(place, point[0], {"text": point[1]})
    payload, known = _of_framework(point)
    if payload is not None:
        return _point(place, known.get("id"), payload, known.get("score"))
    advice = ""
    if isinstance(point, list | tuple) and point and isinstance(point[0], Record):
        advice = " What scroll(...) returns is (records, next page): pass the records."
    elif isinstance(point, tuple) and hasattr(point[:1][0] if point else None, "page_content"):
        advice = " Of (document, score) pairs, pass the documents."
    elif hasattr(point, "groups"):
        advice = " Of groups, pass the hits of one: groups[0].hits."
    elif isinstance(point, QueryResponse):
        advice = " Pass the answers to several queries one by one."
    raise InvalidInputError(
        f"points holds {a_type(point)} at {place}; expected ScoredPoints, as query_points(...)"
        ".points returns them, Records, dicts, (id, text) pairs, documents of LangChain or "
        f"Haystack, or LlamaIndex nodes.{advice}"
    )


def _of_framework(point: Any) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the payload, and the id and the score, of a framework's object; None if it is none."""
    meta, content = getattr(point, "meta", None), getattr(point, "content", 0)
    if isinstance(meta, Mapping) and isinstance(content, str | None):  # Haystack
        known = {"id": getattr(point, "id", None), "score": getattr(point, "score", None)}
        return {"content": content, "meta": dict(meta)}, known
    node, score = point, None
    if hasattr(point, "node") and hasattr(point, "score"):
        node, score = point.node, point.score
    metadata = getattr(node, "metadata", None)
    if not isinstance(metadata, Mapping):
        return None, {}
    if isinstance(getattr(node, "page_content", None), str):  # LangChain
        known = {"id": getattr(node, "id", None) or metadata.get("_id")}
        return {"page_content": node.page_content, "metadata": dict(metadata)}, known
    if callable(getattr(node, "get_content", None)):  # LlamaIndex
        known = {"id": getattr(node, "node_id", None), "score": score}
        return {"text": _node_text(node), "metadata": dict(metadata)}, known
    return None, {}


def _point(
    place: int, point_id: Any, payload: Any, score: Any = None, vector: Any = None
) -> ScoredPoint:
    """Return a point; its id is its place if it has none of a kind that Qdrant knows.

    Raises:
        InvalidInputError: a key of its payload is not a str, or its vector is none.
    """
    if isinstance(point_id, UUID):
        point_id = str(point_id)
    elif isinstance(point_id, np.integer):
        point_id = int(point_id)
    if isinstance(point_id, bool) or not isinstance(point_id, int | str):
        point_id = place
    is_number = isinstance(score, int | float | np.number) and not isinstance(score, bool)
    try:
        return ScoredPoint(
            id=point_id,
            version=0,
            score=float(score) if is_number else 0.0,
            payload=None if payload is None else dict(payload),
            vector=vector,
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InvalidInputError(
            f"points holds at {place} a point whose {'.'.join(map(str, wrong['loc']))} is wrong "
            f"({wrong['msg']}); expected the fields of a ScoredPoint, and keys of the payload that "
            "are str."
        ) from error


def _node_text(node: Any) -> str:
    """Return the text of a LlamaIndex node without its metadata."""
    resource = getattr(getattr(node, "text_resource", None), "text", None)
    for text in (getattr(node, "text", None), resource):
        if isinstance(text, str):
            return text
    return str(node.get_content())
