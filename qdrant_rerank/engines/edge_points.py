"""Points between qdrant-client's models and qdrant-edge's, both ways. Pure: no I/O."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import qdrant_edge as edge
from pydantic_core import to_jsonable_python
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError

__all__ = [
    "DONE",
    "edge_id",
    "edge_payload_selector",
    "edge_points",
    "edge_vector",
    "edge_vectors",
    "point_id",
    "record",
    "scored_point",
    "vector_selector",
    "vectors",
]

#: What a change answers.
DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


def edge_id(given: Any) -> int | str:
    """A point's id as the engine takes it."""
    return str(given) if isinstance(given, uuid.UUID) else given


def point_id(found: Any) -> int | str:
    """A point's id as qdrant-client gives it."""
    return str(found) if isinstance(found, uuid.UUID) else found


def edge_vector(vector: Any) -> Any:
    """One vector: dense, multi or sparse."""
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(indices=vector.indices, values=vector.values)
    if isinstance(vector, models.Document | models.Image | models.InferenceObject):
        raise QdrantRequestError(
            f"The embedded Qdrant makes no vectors of a {type(vector).__name__}; expected a "
            "vector. Pass embedder=..., or use a server that does inference."
        )
    return vector


def edge_vectors(given: Any) -> Any:
    """A point's vectors: by name, or the unnamed one."""
    if isinstance(given, Mapping):
        return {name: edge_vector(vector) for name, vector in given.items()}
    return edge_vector(given)


def edge_points(points: models.Batch | Iterable[models.PointStruct]) -> list[edge.Point]:
    """Points to store."""
    if isinstance(points, models.Batch):
        points = _rows(points)
    return [
        edge.Point(
            edge_id(point.id),
            edge_vectors({} if point.vector is None else point.vector),
            # As the server does: dates and UUIDs become text.
            to_jsonable_python(point.payload or {}),
        )
        for point in points
    ]


def _rows(batch: models.Batch) -> list[models.PointStruct]:
    given: Any = batch.vectors
    rows: Iterable[Any] = given
    if isinstance(given, Mapping):
        columns = zip(*given.values(), strict=True)
        rows = (dict(zip(given, column, strict=True)) for column in columns)
    payloads: Sequence[Any] = batch.payloads or [None] * len(batch.ids)
    return [
        models.PointStruct(id=found, vector=vector, payload=payload)
        for found, vector, payload in zip(batch.ids, rows, payloads, strict=True)
    ]


def vectors(found: Any) -> Any:
    """Vectors of an answer."""
    if isinstance(found, Mapping):
        return {name: _vector(vector) for name, vector in found.items()}
    return None if found is None else _vector(found)


def _vector(found: Any) -> Any:
    if isinstance(found, edge.SparseVector):
        return models.SparseVector(indices=found.indices, values=found.values)
    return found


def record(found: edge.Record) -> models.Record:
    """A stored point."""
    return models.Record(
        id=point_id(found.id),
        payload=found.payload,
        vector=vectors(found.vector),
        order_value=found.order_value,
    )


def scored_point(found: edge.ScoredPoint) -> models.ScoredPoint:
    """A hit."""
    return models.ScoredPoint(
        id=point_id(found.id),
        version=found.version,
        score=found.score,
        payload=found.payload,
        vector=vectors(found.vector),
        order_value=found.order_value,
    )


def edge_payload_selector(wanted: Any) -> Any:
    """Which payload to return."""
    if isinstance(wanted, models.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(wanted.include)
    if isinstance(wanted, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(wanted.exclude)
    return list(wanted) if isinstance(wanted, Sequence) else bool(wanted)


def vector_selector(wanted: Any) -> bool | list[str]:
    """Which vectors to return."""
    return list(wanted) if isinstance(wanted, Sequence) else bool(wanted)
