"""Points and scores -> ordered points. Pure: no I/O, no model."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client.models import ScoredPoint

from qdrant_rerank.types import RerankedPoint

__all__ = ["in_retrieval_order", "keep_order", "order_by_score"]

PointId = int | str | UUID


def id_key(point_id: PointId) -> tuple[bool, str, int]:
    """Sorts ids: numbers by value, then UUIDs by text."""
    if isinstance(point_id, int):
        return (False, "", point_id)
    return (True, str(point_id), 0)


def in_retrieval_order(points: Iterable[ScoredPoint]) -> list[ScoredPoint]:
    """Points as Qdrant ordered them, neighbours of one score by id.

    Engines order ties differently, so the same data would rank differently from one to another.
    """
    ordered: list[ScoredPoint] = []
    for _, ties in groupby(points, key=lambda point: point.score):
        ordered.extend(sorted(ties, key=lambda point: id_key(point.id)))
    return ordered


def order_by_score(
    points: Sequence[ScoredPoint],
    scored: Sequence[int],
    scores: NDArray[np.float32],
    *,
    keep_unscored: bool,
    limit: int | None = None,
    score_threshold: float | None = None,
) -> list[RerankedPoint]:
    """Points by rerank score, highest first; ties by retrieval rank, then id.

    Args:
        points: in retrieval order.
        scored: rows of ``points`` that have a score.
        scores: shape (len(scored),), finite.
        keep_unscored: whether the other rows follow, in retrieval order.
        limit: points kept; None for all.
        score_threshold: lowest score kept; unscored points do not reach it.
    """
    by_row = dict(zip(scored, (float(score) for score in scores), strict=True))
    ranked = sorted(by_row, key=lambda row: (-by_row[row], row, id_key(points[row].id)))
    if score_threshold is not None:
        ranked = [row for row in ranked if by_row[row] >= score_threshold]
    elif keep_unscored:
        ranked += [row for row in range(len(points)) if row not in by_row]
    return [_reranked(points[row], row, by_row.get(row)) for row in ranked[:limit]]


def keep_order(
    points: Sequence[ScoredPoint],
    *,
    limit: int | None = None,
    score_threshold: float | None = None,
) -> list[RerankedPoint]:
    """Points in retrieval order, unscored: what a search without a reranker returns."""
    kept = [
        (row, point)
        for row, point in enumerate(points)
        if score_threshold is None or point.score >= score_threshold
    ]
    return [_reranked(point, row, None, point.score) for row, point in kept[:limit]]


def _reranked(
    point: ScoredPoint, row: int, rerank_score: float | None, score: float = -np.inf
) -> RerankedPoint:
    # Every field is valid already; validating vectors again would cost more than ordering.
    return RerankedPoint.model_construct(
        id=point.id,
        version=point.version,
        score=score if rerank_score is None else rerank_score,
        payload=point.payload,
        vector=point.vector,
        shard_key=point.shard_key,
        order_value=point.order_value,
        rerank_score=rerank_score,
        retrieval_score=point.score,
        retrieval_rank=row + 1,
    )
