"""Queries and documents -> scores, by any reranker.

A reranker is a ``TextCrossEncoder`` (or the name of one), a ``Cascade``, or an object of the
user's. :func:`score` calls all of them, and checks what they return.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import redact
from qdrant_rerank.options import OnRerankError
from qdrant_rerank.reranking.adapters import PeerReranker
from qdrant_rerank.reranking.answers import scores_of
from qdrant_rerank.reranking.late_interaction import MaxSim
from qdrant_rerank.reranking.remote import RemoteReranker
from qdrant_rerank.types import Reranker, Status
from qdrant_rerank.utils.background import run_in_background
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = [
    "AwaitedReranker",
    "Scored",
    "awaited",
    "failure",
    "given_scores",
    "score",
    "score_async",
]

logger = logging.getLogger(__name__)

NO_SCORES: NDArray[np.float64] = np.empty(0)
QUERIES_AT_ONCE = 8  # that an awaited reranker is asked at the same time


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


#: Rerankers that an event loop can await.
AwaitedReranker = PeerReranker | RemoteReranker


def awaited(reranker: Any) -> TypeGuard[AwaitedReranker]:
    """Whether a caller with an event loop awaits the reranker, and needs no thread for it."""
    if isinstance(reranker, RemoteReranker):
        return True
    return isinstance(reranker, PeerReranker) and reranker.asynchronous


@runtime_checkable
class TimedReranker(Reranker, Protocol):
    """A reranker that can stop at a deadline, such as a ``Cascade``."""

    def rerank_until(
        self, query: str, documents: Sequence[str], deadline: Deadline
    ) -> tuple[Sequence[float], int]:
        """Return the scores of the first documents, and how many documents are not finished."""
        ...


class LateCascade(Protocol):
    """A cascade whose first stage has scored in Qdrant."""

    def rerank_after(
        self, query: str, documents: Sequence[str], deadline: Deadline, first: NDArray[np.float64]
    ) -> tuple[Sequence[float], int]:
        """Return what ``rerank_until`` returns, given the scores of the first stage."""
        ...


def given_scores(
    reranker: LateCascade | None,
    work: Sequence[tuple[str, Sequence[str]]],
    first: Sequence[NDArray[np.float64]],
    max_sim: MaxSim,
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
) -> Scored:
    """Return the scores that Qdrant has computed, and those of a cascade's later stages.

    Args:
        reranker: the cascade; None if there are no later stages.
        work: (query, documents) for each query; the documents are only read by a cascade.
        first: the scores of these documents.
        max_sim: where they are from.
        deadline: as in :func:`score`.
        on_error: as in :func:`score`.
    """
    began = time.perf_counter()
    answers = []
    for (query, documents), scores in zip(work, first, strict=True):
        if max_sim.cause is not None:
            answers.append(Answer(cause=max_sim.cause))
        elif reranker is None:
            answers.append(Answer(scores))
        else:
            try:
                done, late = reranker.rerank_after(query, documents, deadline, scores)
                answers.append(Answer(np.asarray(done, dtype=np.float64), late))
            except Exception as error:
                answers.append(Answer(cause=failure(error, on_error)))
    return replace(_scored(work, answers, began), engine=max_sim.engine)


def score(
    reranker: Reranker,
    work: Sequence[tuple[str, Sequence[str]]],
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
) -> Scored:
    """Score the documents of several queries.

    Args:
        reranker: a ``TextCrossEncoder`` scores all pairs together; any other reranker is called
            once per query, a ``RemoteReranker`` for several queries at the same time.
        work: (query, documents) for each query.
        deadline: a ``TextCrossEncoder`` stops at it after the first documents of each query, and
            so do a ``Cascade`` and a ``RemoteReranker``. Any other reranker cannot be stopped; it
            is called if there is time left.
        on_error: "raise" raises the reranker's error; "recall" returns no scores for a query
            whose scoring failed.

    Raises:
        ModelOutputError: the reranker did not return one finite score per document.
    """
    began = time.perf_counter()
    if isinstance(reranker, RemoteReranker) and len(work) > 1:  # all at the same time
        return run_in_background(score_async(reranker, work, deadline, on_error))
    if isinstance(reranker, TextCrossEncoder):
        try:
            return _pooled(reranker, work, deadline)
        except Exception as error:  # whatever it is, there is still the retrieval order
            answers = [Answer(cause=failure(error, on_error))] * len(work)
    else:
        answers = []
        for query, documents in work:
            try:
                if isinstance(reranker, TimedReranker):
                    done, late = reranker.rerank_until(query, documents, deadline)
                    answers.append(Answer(np.asarray(done, dtype=np.float64), late))
                else:
                    found = _ask(reranker, query, [] if deadline.passed else documents)
                    answers.append(Answer(found))
            except Exception as error:
                answers.append(Answer(cause=failure(error, on_error)))
    return _scored(work, answers, began)


async def score_async(
    reranker: AwaitedReranker,
    work: Sequence[tuple[str, Sequence[str]]],
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
) -> Scored:
    """Score as :func:`score` does, by a reranker that is awaited in the running event loop.

    At the deadline it is no longer waited for. Several queries are asked at the same time.
    """
    began = time.perf_counter()
    turns = asyncio.Semaphore(QUERIES_AT_ONCE)

    async def ask(query: str, documents: Sequence[str]) -> Answer:
        async with turns:
            try:
                if isinstance(reranker, RemoteReranker):
                    done, late = await reranker.rerank_until_async(query, documents, deadline)
                    return Answer(np.asarray(done, dtype=np.float64), late)
                if deadline.passed:
                    return Answer()
                async with asyncio.timeout(deadline.remaining) as limit:
                    scores = await reranker.rerank_async(query, documents)
                return Answer(np.asarray(scores, dtype=np.float64))
            except TimeoutError as error:
                if isinstance(reranker, PeerReranker) and limit.expired():
                    return Answer()
                return Answer(cause=failure(error, on_error))
            except Exception as error:
                return Answer(cause=failure(error, on_error))

    asking = [asyncio.ensure_future(ask(*one)) for one in work]
    try:
        answers = await asyncio.gather(*asking)
    finally:
        for one in asking:  # after an error, or where nobody waits any more
            one.cancel()
    return _scored(work, answers, began)


def _scored(
    work: Sequence[tuple[str, Sequence[str]]], answers: Sequence[Answer], began: float
) -> Scored:
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
    answer = reranker.rerank(query, list(documents))
    return scores_of(answer, len(documents), f"{type(reranker).__name__}.rerank")
