"""Points between qdrant-client's models and qdrant-edge's, both ways. Pure: no I/O."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import qdrant_edge as edge
from pydantic_core import to_jsonable_python
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.checks import require_sparse, require_vectors
from qdrant_rerank.utils.validation import shown

__all__ = [
    "DEEPEST",
    "DONE",
    "point_id",
    "record",
    "scored_point",
    "shallow_json",
    "to_id",
    "to_payload_selector",
    "to_point_vectors",
    "to_points",
    "to_vector",
    "to_vector_selector",
    "vector_rows",
]

#: The answer to a change.
DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
#: Levels of objects and arrays in a payload. The engine logs deeper ones, but with 124 levels or
#: more it cannot read its log again, nor open the collection.
DEEPEST = 100


def to_id(given: Any) -> int | str:
    """Convert a point's id.

    Raises:
        QdrantRequestError: it is neither an integer from 0 to 2**64 - 1 nor a UUID.
    """
    if hasattr(given, "__index__") and not isinstance(given, bool) and 0 <= given < 2**64:
        return int(given)
    try:
        return str(given if isinstance(given, uuid.UUID) else uuid.UUID(given))
    except (ValueError, AttributeError, TypeError):
        raise QdrantRequestError(
            f"{shown(given)} is no id of a point; expected an integer from 0 to 2**64 - 1 or a "
            "UUID. uuid.uuid5(uuid.NAMESPACE_URL, text) makes one from any text."
        ) from None


def point_id(found: Any) -> int | str:
    """Return a point's id as qdrant-client gives it."""
    return str(found) if isinstance(found, uuid.UUID) else found


def to_vector(vector: Any) -> Any:
    """Convert one vector: dense, sparse or a multivector."""
    if isinstance(vector, models.SparseVector):
        require_sparse(vector, "A sparse vector")
        return edge.SparseVector(indices=vector.indices, values=vector.values)
    if isinstance(vector, models.Document | models.Image | models.InferenceObject):
        raise QdrantRequestError(
            f"The embedded Qdrant makes no vectors of a {type(vector).__name__}; expected a "
            "vector. Pass embedder=..., or use a server that does inference."
        )
    return vector


def to_vectors(given: Any) -> Any:
    """Convert a point's vectors: a mapping by name, or the unnamed vector."""
    if isinstance(given, Mapping):
        return {name: to_vector(vector) for name, vector in given.items()}
    return to_vector(given)


def to_points(
    points: models.Batch | Iterable[models.PointStruct], params: models.CollectionParams
) -> list[edge.Point]:
    """Convert points to store in a collection with these parameters.

    Raises:
        QdrantRequestError: the collection cannot hold one of them.
    """
    return [
        edge.Point(
            to_id(point.id),
            _checked_vectors(point, params),
            shallow_json(point.payload or {}, f"The payload of point {shown(point.id)}"),
        )
        for point in (_rows(points) if isinstance(points, models.Batch) else points)
    ]


def to_point_vectors(
    points: Iterable[models.PointVectors], params: models.CollectionParams
) -> list[edge.PointVectors]:
    """Convert vectors to store with points that exist.

    Raises:
        QdrantRequestError: the collection cannot hold one of them.
    """
    return [edge.PointVectors(to_id(point.id), _checked_vectors(point, params)) for point in points]


def _checked_vectors(point: Any, params: models.CollectionParams) -> Any:
    require_vectors(point.vector, params, f"Point {shown(point.id)}")
    return to_vectors({} if point.vector is None else point.vector)


def shallow_json(value: Any, what: str, *, above: int = 0, deepest: int = DEEPEST) -> Any:
    """Return a value as JSON has it. Dates and UUIDs become text, as on a server.

    Args:
        value: value to store.
        what: name of the value in errors.
        above: levels of the payload that will be above the value.
        deepest: levels allowed.

    Raises:
        QdrantRequestError: the value is nested too deeply, or JSON cannot hold it.
    """
    try:
        made = to_jsonable_python(value)
    except ValueError as error:  # a circle, too, and what is deeper than Python can follow
        raise QdrantRequestError(
            f"{what} cannot be stored: {error}; expected JSON of at most {deepest} levels."
        ) from error
    levels, level = above, [made] if isinstance(made, dict | list) else []
    while level:
        levels += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    if levels > deepest:
        raise QdrantRequestError(
            f"{what} is nested {levels} levels deep; the embedded Qdrant takes {deepest} levels of "
            "objects and arrays. It was not written. Flatten it, or keep the inner part of a "
            "payload as text: json.dumps(part)."
        )
    return made


def _rows(batch: models.Batch) -> list[models.PointStruct]:
    payloads: Sequence[Any] = batch.payloads or [None] * len(batch.ids)
    try:
        return [
            models.PointStruct.model_construct(id=found, vector=vector, payload=payload)
            for found, vector, payload in zip(
                batch.ids, vector_rows(batch.vectors), payloads, strict=True
            )
        ]
    except ValueError as error:
        raise QdrantRequestError(
            f"The columns of the batch have different lengths: {error}. Nothing was done."
        ) from error


def vector_rows(given: Any) -> Iterable[Any]:
    """Return the vectors of each point, from columns by name or one row per point."""
    if not isinstance(given, Mapping):
        return given  # type: ignore[no-any-return]
    columns = zip(*given.values(), strict=True)
    return (dict(zip(given, column, strict=True)) for column in columns)


def vectors(found: Any) -> Any:
    """Return the vectors of an answer as qdrant-client's models."""
    if isinstance(found, Mapping):
        return {name: _vector(vector) for name, vector in found.items()}
    return None if found is None else _vector(found)


def _vector(found: Any) -> Any:
    if isinstance(found, edge.SparseVector):
        return models.SparseVector(indices=found.indices, values=found.values)
    return found


def record(found: edge.Record) -> models.Record:
    """Convert a stored point of an answer."""
    return models.Record(
        id=point_id(found.id),
        payload=found.payload,
        vector=vectors(found.vector),
        order_value=found.order_value,
    )


def scored_point(found: edge.ScoredPoint, wanted: bool | list[str]) -> models.ScoredPoint:
    """Convert a hit of an answer, with the wanted vectors; MMR brings all of them."""
    vector = vectors(found.vector) if wanted else None
    if isinstance(wanted, list) and isinstance(vector, dict):
        vector = {name: one for name, one in vector.items() if name in wanted}
    return models.ScoredPoint(
        id=point_id(found.id),
        version=found.version,
        score=found.score,
        payload=found.payload,
        vector=vector,
        order_value=found.order_value,
    )


def to_payload_selector(wanted: Any) -> Any:
    """Convert the choice of payload fields to return."""
    if isinstance(wanted, models.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(wanted.include)
    if isinstance(wanted, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(wanted.exclude)
    return list(wanted) if isinstance(wanted, Sequence) else bool(wanted)


def to_vector_selector(wanted: Any) -> bool | list[str]:
    """Convert the choice of vectors to return."""
    return list(wanted) if isinstance(wanted, Sequence) else bool(wanted)
