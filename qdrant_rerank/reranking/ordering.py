"""Points and scores -> ordered points. Pure: no I/O, no model."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client.models import ScoredPoint

from qdrant_rerank.options import Blend
from qdrant_rerank.types import UNSCORED, RerankedPoint, Snippet

__all__ = [
    "blend_scores",
    "keep_order",
    "order_by_score",
]

# Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009, found that 60 works well. The
# higher it is, the less the first place counts against the second.
RRF_K = 60
NO_SNIPPETS: Mapping[int, Snippet] = MappingProxyType({})


def blend_scores(
    retrieval: Sequence[float],
    rerank: NDArray[np.float64],
    blend: Blend,
    logits: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Mix the retrieval scores and the rerank scores of one query's hits.

    A blend of 0 < share <= 1 is the weight of the retrieval score in a sum of the two scores, each
    scaled to 0..1 by its lowest and highest value (Bruch, Gai and Ingber, An Analysis of Fusion
    Functions for Hybrid Retrieval, TOIS 2023). "rrf" sums 1 / (60 + rank) over the two orders.

    Args:
        retrieval: shape (n,), of the scored hits in retrieval order.
        rerank: shape (n,), of the same hits.
        blend: the share, or "rrf"; 0 returns the rerank scores as they are.
        logits: shape (n,), orders hits with equal rerank scores; None for the retrieval order.

    Returns:
        Shape (n,), float64; higher is better.
    """
    if blend == 0 or not len(rerank):
        return rerank
    if blend == "rrf":
        first = np.arange(len(rerank))
        second = np.empty_like(first)
        second[np.lexsort((-(rerank if logits is None else logits), -rerank))] = first
        fused: NDArray[np.float64] = 1 / (RRF_K + 1 + first) + 1 / (RRF_K + 1 + second)
        return fused
    share = float(blend)
    return share * _scaled(np.asarray(retrieval)) + (1 - share) * _scaled(rerank)


def _scaled(scores: NDArray[Any]) -> NDArray[np.float64]:
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        return np.zeros(len(scores))
    return (scores.astype(np.float64) - low) / (high - low)


def order_by_score(
    points: Sequence[ScoredPoint],
    scored: Sequence[int],
    scores: NDArray[np.float64],
    *,
    logits: NDArray[np.float64] | None = None,
    keep_unscored: bool,
    late: Collection[int] = (),
    limit: int | None = None,
    score_threshold: float | None = None,
    blend: Blend = 0.0,
    snippets: Mapping[int, Snippet] = NO_SNIPPETS,
) -> list[RerankedPoint]:
    """Order points by rerank score, or its blend, highest first; ties by logit, then rank.

    Args:
        points: points in retrieval order.
        scored: rows of ``points`` that have a score, ascending.
        scores: their scores, shape (len(scored),), finite.
        logits: what orders points with equal scores, of the same shape; None for nothing. An
            activation such as sigmoid may give one score for several logits.
        keep_unscored: whether the other rows follow, in retrieval order.
        late: rows without a score because the time was up or the reranker failed. They follow in
            retrieval order, whatever the threshold. If nothing was scored, they keep their
            retrieval score.
        limit: number of points to keep; None for all.
        score_threshold: lowest score to keep. It also removes the points without a score, except
            the late ones.
        blend: see :func:`blend_scores`.
        snippets: the part of the text that the score comes from, by row of ``points``.
    """
    rerank_score = dict(zip(scored, scores.tolist(), strict=True))
    logits = scores if logits is None else logits
    blended = blend_scores([points[row].score for row in scored], scores, blend, logits)
    by_row = dict(zip(scored, blended.tolist(), strict=True))
    ties = logits if blend == 0 else np.zeros(len(scored))  # a blend has its say in the logits
    ranked = [scored[place] for place in np.lexsort((-ties, -blended)).tolist()]
    waiting = frozenset(late)
    if score_threshold is not None:
        ranked = [row for row in ranked if by_row[row] >= score_threshold]
        keep_unscored = False
    ranked += [
        row for row in range(len(points)) if row not in by_row and (keep_unscored or row in waiting)
    ]
    if late and not by_row:
        by_row = {row: points[row].score for row in late}
    return [
        _reranked(
            points[row],
            row,
            rerank_score.get(row),
            by_row.get(row, UNSCORED),
            snippets.get(row),
        )
        for row in ranked[:limit]
    ]


def keep_order(
    points: Sequence[ScoredPoint],
    *,
    limit: int | None = None,
    score_threshold: float | None = None,
    skipped: int = 0,
) -> list[RerankedPoint]:
    """Keep points in retrieval order, without a rerank score, for a search without a reranker.

    Args:
        points: points in retrieval order.
        limit: number of points to keep; None for all.
        score_threshold: lowest retrieval score to keep.
        skipped: number of points before the first one, which Qdrant skipped.
    """
    kept = [
        (row, point)
        for row, point in enumerate(points, skipped)
        if score_threshold is None or point.score >= score_threshold
    ]
    return [_reranked(point, row, None, point.score) for row, point in kept[:limit]]


def _reranked(
    point: ScoredPoint,
    row: int,
    rerank_score: float | None,
    score: float,
    snippet: Snippet | None = None,
) -> RerankedPoint:
    # Every field is valid already; validating vectors again would cost more than ordering.
    return RerankedPoint.model_construct(
        id=point.id,
        version=point.version,
        score=score,
        payload=point.payload,
        vector=point.vector,
        shard_key=point.shard_key,
        order_value=point.order_value,
        rerank_score=rerank_score,
        retrieval_score=point.score,
        retrieval_rank=row + 1,
        snippet=snippet,
    )
