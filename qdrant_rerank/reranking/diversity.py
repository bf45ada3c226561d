"""Maximal marginal relevance: hits that are relevant and differ from each other."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.payload import PayloadText
from qdrant_rerank.types import UNSCORED, Embedder, RerankedPoint

__all__ = ["diversified", "mmr_order", "one_vector", "without_vectors"]


def mmr_order(
    relevance: NDArray[np.floating[Any]],
    vectors: NDArray[np.float32],
    diversity: float,
    limit: int | None = None,
) -> list[int]:
    """Choose rows by maximal marginal relevance.

    The first row is the most relevant one. Each next row has the highest
    ``(1 - diversity) * relevance - diversity * similarity``, where relevance is scaled to 0..1 over
    all rows, and similarity is the highest cosine to a row that was chosen before (Carbonell and
    Goldstein, The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries, SIGIR 1998; their lambda is ``1 - diversity``).

    Args:
        relevance: shape (n,), finite, any scale; higher is better.
        vectors: shape (n, d), not necessarily of unit length. A zero vector is similar to nothing.
        diversity: 0 orders by relevance; 1 orders by dissimilarity alone, after the first row.
        limit: number of rows to choose; None for all.

    Returns:
        Distinct rows, at most ``limit``; of equal rows the earlier one comes first.
    """
    count = len(relevance)
    most = count if limit is None else min(limit, count)
    scores = np.asarray(relevance, dtype=np.float64)
    if diversity == 0 or most == 0:
        ranked: list[int] = np.argsort(-scores, kind="stable")[:most].tolist()
        return ranked
    low, high = scores.min(), scores.max()
    gain = (1 - diversity) * (scores - low) / (high - low) if high > low else np.zeros(count)
    units = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    units = np.divide(units, lengths, out=np.zeros_like(units), where=lengths > 0)
    chosen = [int(np.argmax(scores))]
    remaining = np.ones(count, dtype=bool)
    remaining[chosen[0]] = False
    nearest = units @ units[chosen[0]]
    while len(chosen) < most:
        # Rounded, so that equal rows stay equal, whatever the order of a sum inside BLAS.
        marginal = np.where(remaining, np.round(gain - diversity * nearest, 12), -np.inf)
        best = int(np.argmax(marginal))
        chosen.append(best)
        remaining[best] = False
        nearest = np.maximum(nearest, units @ units[best])
    return chosen


def one_vector(vector: Any, name: str) -> Sequence[float] | None:
    """Return one dense vector of a point.

    Args:
        vector: the point's vectors as Qdrant returns them: a list, a dict by name, or None.
        name: name of the vector; "" for the unnamed one.

    Returns:
        The vector, or the mean of the rows of a multivector; None if the point has none.
    """
    if isinstance(vector, dict):
        vector = vector.get(name)
    if not isinstance(vector, list) or not vector:
        return None
    if isinstance(vector[0], list):
        mean: list[float] = np.mean(np.asarray(vector, dtype=np.float32), axis=0).tolist()
        return mean
    return vector


def diversified(
    orders: Sequence[Sequence[RerankedPoint]],
    diversity: float,
    *,
    using: str | None,
    text: PayloadText,
    embedder: Any,
    limit: int | None,
) -> list[list[RerankedPoint]]:
    """Order the hits of each query by maximal marginal relevance of their ``score``.

    Hits that were not scored follow in the order that they had.

    Args:
        orders: hits of each query by score, with their stored dense vectors, if any.
        diversity: see :func:`mmr_order`.
        using: name of the stored vector; None if none is stored.
        text: reads the text of hits that have no vector.
        embedder: embeds these texts, if it is an ``Embedder``.
        limit: number of hits to keep per query; None for all.

    Raises:
        InvalidInputError: a hit has no vector, and there is no embedder to make one.
    """
    diverse = []
    for points in orders:
        scored = [point for point in points if point.score > UNSCORED]
        rest = [point for point in points if point.score <= UNSCORED]
        if scored:
            vectors = _vectors(scored, using, text, embedder)
            relevance = np.array([point.score for point in scored])
            scored = [scored[row] for row in mmr_order(relevance, vectors, diversity, limit)]
        diverse.append([*scored, *rest][:limit])
    return diverse


def without_vectors(points: Iterable[RerankedPoint]) -> list[RerankedPoint]:
    """Remove the vectors, which were only needed for the order."""
    return [point.model_copy(update={"vector": None}) for point in points]


def _vectors(
    points: Sequence[RerankedPoint], using: str | None, text: PayloadText, embedder: Any
) -> NDArray[np.float32]:
    """Return stored vectors, or those of the texts for points without one; shape (n, d)."""
    found = [None if using is None else one_vector(point.vector, using) for point in points]
    missing = [row for row, vector in enumerate(found) if vector is None]
    if missing:
        if not isinstance(embedder, Embedder):
            raise InvalidInputError(
                f"diversity compares dense vectors, but point {points[missing[0]].id!r} has none, "
                "and there is no embedder to make one. Pass embedder=..., or diversity=0."
            )
        texts = [text(points[row].payload) or "" for row in missing]
        made = np.asarray(embedder.embed_documents(texts), dtype=np.float32)
        for row, vector in zip(missing, made, strict=True):
            found[row] = vector.tolist()
    return np.array(found, dtype=np.float32)
