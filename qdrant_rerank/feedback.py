"""Relevance feedback: the scores of a first page -> a second query. Pure: no I/O.

A reranker reads what an embedder cannot see. Its scores of a few hits say where in the vector
space the relevant documents are; a second recall from there finds those that the first one missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError

__all__ = ["Feedback", "feedback_query", "rocchio", "scaled"]

#: "rocchio" moves the query vector here; "qdrant" has the server weigh the feedback.
FeedbackMethod = Literal["auto", "rocchio", "qdrant"]


@dataclass(frozen=True, slots=True)
class Feedback:
    """How the first page's scores feed a second recall.

    Attributes:
        page: hits of the first recall that are scored for it; 2 or more.
        method: "qdrant" asks with a ``RelevanceFeedbackQuery`` (server 1.17 or newer), "rocchio"
            with a moved query vector; "auto" is "qdrant" where the server has it.
        alpha: Rocchio's weight of the query, above 0.
        beta: Rocchio's weight of what is relevant, 0 or more.
        gamma: Rocchio's weight of what is not, 0 or more.
        a: Qdrant's weight of the similarity to the query.
        b: Qdrant's exponent of a score difference, 0 or more.
        c: Qdrant's weight of the similarity to what is relevant, less that to what is not.
    """

    page: int = 10
    method: FeedbackMethod = "auto"
    # Manning, Raghavan and Schuetze, Introduction to Information Retrieval, 9.1.1.
    alpha: float = 1.0
    beta: float = 0.75
    gamma: float = 0.15
    a: float = 1.0
    b: float = 1.0
    c: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.page, bool) or not isinstance(self.page, int) or self.page < 2:
            raise InvalidInputError(
                f"page is {self.page!r}; expected a whole number of 2 or more, since feedback "
                "tells better hits from worse."
            )
        if self.method not in get_args(FeedbackMethod):
            raise InvalidInputError(
                f"method is {self.method!r}; expected one of "
                f"{', '.join(map(repr, get_args(FeedbackMethod)))}."
            )
        for name in ("alpha", "beta", "gamma", "a", "b", "c"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidInputError(f"{name} is {value!r}; expected a number.")
            if not np.isfinite(value) or value < 0 or (name == "alpha" and value == 0):
                raise InvalidInputError(
                    f"{name} is {value}; expected a finite number "
                    + ("above 0." if name == "alpha" else "of 0 or more.")
                )


def scaled(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Scores as shares of relevance: the worst 0, the best 1, equal ones all 0.5; shape (n,)."""
    values = np.asarray(scores, dtype=np.float64)
    low, high = values.min(), values.max()
    if low == high:
        return np.full(len(values), 0.5)
    shares: NDArray[np.float64] = (values - low) / (high - low)
    return shares


def rocchio(
    query: NDArray[np.float32],
    vectors: NDArray[np.float32],
    scores: NDArray[np.floating[Any]],
    feedback: Feedback,
) -> NDArray[np.float32]:
    """The query vector, moved towards what scored well and away from what did not.

    ``alpha q + beta mean(d, weight w) - gamma mean(d, weight 1 - w)``, where w is the score scaled
    to 0..1 over the page (Rocchio, Relevance Feedback in Information Retrieval, 1971, whose weights
    are judgments of 0 or 1). All vectors are taken at length 1.

    Args:
        query: shape (d,).
        vectors: shape (n, d), of the scored hits; n of 1 or more.
        scores: shape (n,), finite, any unit.
        feedback: the three weights.

    Returns:
        Shape (d,), float32, of length 1; the query where all cancel out.
    """
    shares = scaled(scores)
    units = _units(np.asarray(vectors, dtype=np.float64))
    start = _units(np.asarray(query, dtype=np.float64)[None])[0]
    moved = (
        feedback.alpha * start
        + feedback.beta * _mean(units, shares)
        - feedback.gamma * _mean(units, 1 - shares)
    )
    length = float(np.linalg.norm(moved))
    unit: NDArray[np.float32] = (moved / length if length > 1e-9 else start).astype(np.float32)
    return unit


def feedback_query(
    target: models.VectorInput,
    examples: Sequence[models.ExtendedPointId],
    scores: NDArray[np.floating[Any]],
    feedback: Feedback,
) -> models.RelevanceFeedbackQuery:
    """Qdrant's query of the same kind, for the dense vector.

    The points that it names are not among its answers; they were recalled already.

    Args:
        target: the query's vector, or what Qdrant makes one of.
        examples: ids of the scored hits.
        scores: shape (n,), any unit; sent scaled to 0..1, so that the weights suit any reranker.
        feedback: the three weights.
    """
    return models.RelevanceFeedbackQuery(
        relevance_feedback=models.RelevanceFeedbackInput(
            target=target,
            feedback=[
                models.FeedbackItem(example=example, score=float(share))
                for example, share in zip(examples, scaled(scores), strict=True)
            ],
            strategy=models.NaiveFeedbackStrategy(
                naive=models.NaiveFeedbackStrategyParams(a=feedback.a, b=feedback.b, c=feedback.c)
            ),
        )
    )


def _units(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: NDArray[np.float64] = np.divide(
        rows, lengths, out=np.zeros_like(rows), where=lengths > 0
    )
    return units


def _mean(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = float(weights.sum())
    mean: NDArray[np.float64] = weights @ rows / total if total > 0 else np.zeros(rows.shape[1])
    return mean
