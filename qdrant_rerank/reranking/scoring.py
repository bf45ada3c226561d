"""Queries and documents -> scores, by any reranker.

A reranker is a ``TextCrossEncoder`` (or the name of one), a ``Cascade``, or an object of the
user's. :func:`score` calls all of them, and checks what they return.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, ModelOutputError, redact
from qdrant_rerank.options import OnRerankError
from qdrant_rerank.types import Reranker, Status
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.validation import a_type, require_call

__all__ = ["Scored", "cause_of", "load_reranker", "score"]

logger = logging.getLogger(__name__)

_loading = ForkLock()

NO_SCORES: NDArray[np.float64] = np.empty(0)


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

    def trace(self, query: int) -> dict[str, Any]:
        """Return the fields of one query's ``SearchTrace``. Times are those of all queries."""
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
        }

    def _status(self, query: int) -> Status:
        if self.causes[query] is not None:
            return "degraded"
        if self.waiting[query]:
            return "partial"
        unread = self.missing and self.missing[query] and not len(self.scores[query])
        return "no text" if unread else "reranked"


def load_reranker(reranker: Reranker | str | Path) -> Reranker:
    """Load a reranker by its name or path; return an object that reranks as it is.

    A named model is loaded once per process and shared.

    Raises:
        UnknownModelError: there is no model of that name, or no such path.
        ModelFileError: the files of the model are missing or damaged.
        InvalidInputError: the value does not rerank, or its ``rerank`` cannot be called with a
            query and documents.
    """
    if isinstance(reranker, str | Path):
        with _loading:  # otherwise two threads would both load the model
            return _shared(str(reranker))
    if not hasattr(reranker, "rerank"):
        raise InvalidInputError(
            f"reranker is {a_type(reranker)}; expected a model name, a path, an object with "
            "rerank(query, documents), or None for the retrieval order."
        )
    require_call("reranker", reranker, "rerank", "query", "documents")
    return reranker


@lru_cache(maxsize=4)
def _shared(name: str) -> Reranker:
    return TextCrossEncoder(name)


@runtime_checkable
class TimedReranker(Reranker, Protocol):
    """A reranker that can stop at a deadline, such as a ``Cascade``."""

    def rerank_until(
        self, query: str, documents: Sequence[str], deadline: Deadline
    ) -> tuple[Sequence[float], int]:
        """Return the scores of the first documents, and how many documents are not finished."""
        ...


def score(
    reranker: Reranker,
    work: Sequence[tuple[str, Sequence[str]]],
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
) -> Scored:
    """Score the documents of several queries.

    Args:
        reranker: a ``TextCrossEncoder`` scores all pairs together; any other reranker is called
            once per query.
        work: (query, documents) for each query.
        deadline: a ``TextCrossEncoder`` stops at it after the first documents of each query, and
            so does a ``Cascade``. Any other reranker cannot be stopped; it is called if there is
            time left.
        on_error: "raise" raises the reranker's error; "recall" returns no scores for a query
            whose scoring failed.

    Raises:
        ModelOutputError: the reranker did not return one finite score per document.
    """
    began = time.perf_counter()
    scores: list[NDArray[np.float64]] = []
    causes: list[str | None] = [None] * len(work)
    late = [0] * len(work)
    if isinstance(reranker, TextCrossEncoder):
        try:
            return _pooled(reranker, work, deadline)
        except Exception as error:  # whatever it is, there is still the retrieval order
            causes = [cause_of(error, on_error)] * len(work)
            scores = [NO_SCORES] * len(work)
    else:
        for place, (query, documents) in enumerate(work):
            try:
                if isinstance(reranker, TimedReranker):
                    done, late[place] = reranker.rerank_until(query, documents, deadline)
                    scores.append(np.asarray(done, dtype=np.float64))
                else:
                    scores.append(_ask(reranker, query, [] if deadline.passed else documents))
            except Exception as error:
                causes[place] = cause_of(error, on_error)
                scores.append(NO_SCORES)
    waiting = [
        max(len(documents) - len(done), behind)
        for (_, documents), done, behind in zip(work, scores, late, strict=True)
    ]
    return Scored(scores, scores, waiting, causes, 0.0, time.perf_counter() - began)


def cause_of(error: Exception, on_error: OnRerankError) -> str:
    """Describe an error in the log and the trace; raise it if that is what was asked for."""
    if on_error == "raise":
        raise error
    cause = redact(f"{type(error).__name__}: {error}")
    logger.warning("The reranker failed, so the hits stay in retrieval order: %s", cause)
    return cause


def _pooled(
    encoder: TextCrossEncoder, work: Sequence[tuple[str, Sequence[str]]], deadline: Deadline
) -> Scored:
    """Score the pairs of all queries together."""
    places = [
        (rank, query) for query, (_, documents) in enumerate(work) for rank in range(len(documents))
    ]
    if deadline is not NO_DEADLINE:
        places.sort()  # the first document of every query, then the second ones, and so on
    remaining = deadline.remaining
    pairs = [(work[query][0], work[query][1][rank]) for rank, query in places]
    pooled = encoder.score_pairs([] if remaining == 0 else pairs, deadline_s=remaining or None)
    # The scored pairs are the first ones, so they are the first documents of each query.
    rows: list[list[int]] = [[] for _ in work]
    for row in np.flatnonzero(pooled.scored).tolist():
        rows[places[row][1]].append(row)
    padded, spans = pooled.padded_tokens, pooled.spans
    return Scored(
        scores=[pooled.scores[part] for part in rows],
        logits=[pooled.logits[part] for part in rows],
        waiting=[
            len(documents) - len(part) for (_, documents), part in zip(work, rows, strict=True)
        ],
        causes=[None] * len(work),
        tokenize_s=pooled.tokenize_s,
        infer_s=pooled.infer_s,
        tokens=pooled.tokens,
        padding_share=1 - pooled.tokens / padded if padded else 0.0,
        truncated=[int(pooled.truncated[part].sum()) for part in rows],
        windows=[int(pooled.windows[part].sum()) for part in rows],
        spans=None if spans is None else [[spans[row] for row in part] for part in rows],
        activation=pooled.activation,
        engine=pooled.engine,
        precision=pooled.precision,
        cache_hit_rates=None
        if pooled.cached is None
        else [float(pooled.cached[part].mean()) if part else 0.0 for part in rows],
    )


def _ask(reranker: Reranker, query: str, documents: Sequence[str]) -> NDArray[np.float64]:
    """Call a user's reranker, and check what it returns."""
    if not documents:
        return NO_SCORES
    name = f"{type(reranker).__name__}.rerank"
    expected = "expected one float per document, in input order."
    answer: Any = reranker.rerank(query, list(documents))
    try:
        answer = iter(answer)
    except TypeError as error:
        raise ModelOutputError(f"{name} returned {a_type(answer)}; {expected}") from error
    answer = list(answer)
    try:
        scores = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelOutputError(
            f"{name} returned {answer[0]!r:.80} as a score; {expected}"
        ) from error
    if scores.shape != (len(documents),):
        raise ModelOutputError(
            f"{name} returned scores of shape {scores.shape} for {len(documents)} documents; "
            f"{expected}"
        )
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        raise ModelOutputError(
            f"{name} returned {scores[broken[0]]} for document {broken[0]}; expected finite scores."
        )
    return scores
