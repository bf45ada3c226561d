"""Scores of documents, and how they were made: what every way to score returns."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import redact
from qdrant_rerank.options import OnRerankError
from qdrant_rerank.types import Status

__all__ = ["NO_SCORES", "Answer", "Scored", "failure", "joined"]

logger = logging.getLogger(__name__)

NO_SCORES: NDArray[np.float64] = np.empty(0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reranker that scores one query at a time gave for one.

    Attributes:
        scores: of the first documents.
        late: documents that a stage had no time for.
        cause: type and message of its error, or None.
    """

    scores: NDArray[np.float64] = field(default_factory=lambda: NO_SCORES)
    late: int = 0
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the documents of several queries, and how they were made.

    Where an attribute may be None, None means that the reranker does not report it.

    Attributes:
        scores: one array per query, shape (documents of the query,), float64, finite. With a
            deadline, maybe only the scores of its first documents.
        logits: arrays of the same shapes, which order documents with equal scores: an activation
            such as sigmoid may give one score for several logits.
        waiting: documents of each query that were not scored, or not by all stages of a cascade:
            the time was up, or the reranker failed.
        causes: type and message of the error that reading the texts or the reranker raised for
            each query; None for a query without error.
        tokenize_s: seconds.
        infer_s: seconds.
        tokens: tokens per query, rounded.
        padding_share: share of padding in the model's inputs, 0 to 1.
        truncated: documents of each query that were cut to the max length.
        windows: rows of the model's inputs, for each query.
        spans: start and end character of the best passage of each scored document; None if the
            reranker does not read documents in passages.
        activation: function that turned logits into scores.
        engine: what ran the model.
        precision: precision of the model's weights.
        cache_hit_rates: share of each query's pairs that came from the score cache; None without
            a cache.
        missing: hits of each query that have no text; empty if no hits were read.
        text: name of the text source.
        stored: of each query, the documents that were scored by stored states, and those that were
            read; None for a query whose collection stores none.
    """

    scores: list[NDArray[np.float64]]
    logits: list[NDArray[np.float64]]
    waiting: list[int]
    causes: list[str | None]
    tokenize_s: float
    infer_s: float
    tokens: int | None = None
    padding_share: float | None = None
    truncated: list[int] | None = None
    windows: list[int] | None = None
    spans: list[list[tuple[int, int]]] | None = None
    activation: str | None = None
    engine: str | None = None
    precision: str | None = None
    cache_hit_rates: list[float] | None = None
    missing: list[int] = field(default_factory=list)
    text: str | None = None
    stored: list[tuple[int, int] | None] = field(default_factory=list)

    def trace(self, query: int) -> dict[str, Any]:
        """Return the fields of one query's ``SearchTrace``. Times are those of all queries."""
        counts = self.stored[query] if self.stored else None
        stored, read = (None, None) if counts is None else counts
        return {
            "tokenize_s": self.tokenize_s,
            "infer_s": self.infer_s,
            "pairs": len(self.scores[query]),
            "tokens": self.tokens,
            "padding_share": self.padding_share,
            "truncated": None if self.truncated is None else self.truncated[query],
            "windows": None if self.windows is None else self.windows[query],
            "activation": self.activation,
            "engine": self.engine,
            "precision": self.precision,
            "cache_hit_rate": None if self.cache_hit_rates is None else self.cache_hit_rates[query],
            "status": self._status(query),
            "cause": self.causes[query],
            "text": self.text,
            "missing_text": self.missing[query] if self.missing else 0,
            "documents_stored": stored,
            "documents_read": read,
        }

    def _status(self, query: int) -> Status:
        if self.causes[query] is not None:
            return "degraded"
        if self.waiting[query]:
            return "partial"
        unread = self.missing and self.missing[query] and not len(self.scores[query])
        return "no text" if unread else "reranked"


def joined(
    work: Sequence[tuple[str, Sequence[str]]], answers: Sequence[Answer], began: float
) -> Scored:
    """Return the answers of several queries as one; the seconds are those since ``began``."""
    scores = [answer.scores for answer in answers]
    waiting = [
        max(len(documents) - len(answer.scores), answer.late)
        for (_, documents), answer in zip(work, answers, strict=True)
    ]
    causes = [answer.cause for answer in answers]
    return Scored(scores, scores, waiting, causes, 0.0, time.perf_counter() - began)


def failure(error: Exception, on_error: OnRerankError) -> str:
    """Describe an error in the log and the trace; raise it if that is what was asked for."""
    if on_error == "raise":
        raise error
    cause = redact(f"{type(error).__name__}: {error}")
    logger.warning("The reranker failed, so the hits stay in retrieval order: %s", cause)
    return cause
