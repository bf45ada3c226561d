"""Maximal marginal relevance: results that are relevant and unlike each other. Pure: no I/O."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mmr_order", "one_vector"]


def mmr_order(
    relevance: NDArray[np.floating[Any]],
    vectors: NDArray[np.float32],
    diversity: float,
    limit: int | None = None,
) -> list[int]:
    """Rows in the order that maximal marginal relevance chooses them.

    Each next row is the one with the greatest ``(1 - diversity) * relevance - diversity *
    similarity``, where relevance is scaled to 0..1 over all rows and similarity is the greatest
    cosine to a row chosen before (Carbonell and Goldstein, The Use of MMR, Diversity-Based
    Reranking for Reordering Documents and Producing Summaries, SIGIR 1998; their lambda is
    ``1 - diversity``). Nothing is chosen before the first, so it is the most relevant.

    Args:
        relevance: shape (n,), finite, any unit; higher is better.
        vectors: shape (n, d); of any length, the zero vector is like nothing.
        diversity: 0 for the order by relevance, 1 for dissimilarity alone after the first.
        limit: rows to choose; None for all.

    Returns:
        Distinct rows, at most ``limit``; of equals the earlier row comes first.
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
    left = np.ones(count, dtype=bool)
    left[chosen[0]] = False
    nearest = units @ units[chosen[0]]
    while len(chosen) < most:
        # Rounded, so that equals stay equal whatever the order of a sum inside BLAS.
        marginal = np.where(left, np.round(gain - diversity * nearest, 12), -np.inf)
        best = int(np.argmax(marginal))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, units @ units[best])
    return chosen


def one_vector(vector: Any, name: str) -> Sequence[float] | None:
    """The dense vector of that name in what Qdrant returns with a point.

    Args:
        vector: a bare vector, a mapping of names to vectors, or None.
        name: "" for the unnamed one.

    Returns:
        The vector, of a multivector the mean of its rows; None where the point has none.
    """
    if isinstance(vector, dict):
        vector = vector.get(name)
    if not isinstance(vector, list) or not vector:
        return None
    if isinstance(vector[0], list):
        mean: list[float] = np.mean(np.asarray(vector, dtype=np.float32), axis=0).tolist()
        return mean
    return vector
