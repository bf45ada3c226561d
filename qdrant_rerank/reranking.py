"""The second stage alone: hits that the caller already has, in a better order.

``SecondStage`` reads the texts, has them scored and orders the hits; ``rerank_points`` and
``HybridSearcher`` both go through it.
"""

import logging
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from qdrant_client.http.models import QueryResponse
from qdrant_client.models import ScoredPoint

from qdrant_rerank.arguments import require_choice, require_positive, require_query
from qdrant_rerank.cross_encoder import TextCrossEncoder
from qdrant_rerank.deadline import NEVER, Deadline
from qdrant_rerank.errors import InvalidInputError, MissingTextError, ModelOutputError
from qdrant_rerank.models import DEFAULT_RERANKER
from qdrant_rerank.ordering import order_by_score
from qdrant_rerank.text import PayloadText, TextSource
from qdrant_rerank.types import (
    Blend,
    OnMissingText,
    OnRerankError,
    RerankedPoint,
    Reranker,
    SearchResults,
    SearchTrace,
    Snippet,
    Status,
)

__all__ = ["load_reranker", "rerank_points"]

logger = logging.getLogger(__name__)

NO_SCORES: NDArray[np.float32] = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the documents of several queries, and what they cost.

    Attributes:
        scores: one array a query, shape (documents of the query,), float32, finite; with a
            deadline maybe only of its first documents.
        waiting: documents of a query that were not scored, or not by all stages of a cascade: time
            was up, or the reranker failed.
        causes: what made the reranker fail for a query; None where nothing did.
        tokens: tokens a query; None where the reranker does not tell.
        tokenize_s: seconds.
        infer_s: seconds.
        padding_share: padding in what the model read, 0 to 1; None likewise.
        truncated: documents of a query that did not fit the window; None likewise.
        windows: rows that the model read for a query; None likewise.
        spans: the parts that speak for a query's scored documents, start and end character; None
            where the reranker does not read in parts.
        activation: what made the scores of logits; None where the reranker does not tell.
        engine: what ran the model; None likewise.
        precision: of the model's weights; None likewise.
        cache_hit_rates: share of a query's pairs that the score cache held; None without one.
    """

    scores: list[NDArray[np.float32]]
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

    def trace(self, query: int) -> dict[str, Any]:
        """What a trace tells of one query's second stage; times are of all queries."""
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
        }

    def _status(self, query: int) -> Status:
        if self.causes[query] is not None:
            return "degraded"
        return "partial" if self.waiting[query] else "reranked"


def load_reranker(reranker: Reranker | str | Path) -> Reranker:
    """A reranker from what a caller may pass: an object as it is, a name or a path loaded.

    A named model is loaded once a process and shared.

    Raises:
        UnknownModelError: no such name or path.
        ModelFileError: its files are missing or damaged.
        InvalidInputError: not something that reranks.
    """
    if isinstance(reranker, str | Path):
        return _shared(str(reranker))
    if not callable(getattr(reranker, "rerank", None)):
        raise InvalidInputError(
            f"reranker is a {type(reranker).__name__}; expected a model name, a path, an object "
            "with rerank(query, documents), or None for the recall order."
        )
    return reranker


@lru_cache(maxsize=4)
def _shared(name: str) -> Reranker:
    return TextCrossEncoder(name)


def rerank_points(
    query: str,
    points: Iterable[ScoredPoint] | QueryResponse,
    *,
    reranker: Reranker | str | Path = DEFAULT_RERANKER,
    text: TextSource = "text",
    limit: int | None = None,
    score_threshold: float | None = None,
    on_missing_text: OnMissingText = "last",
    deadline_s: float | None = None,
    on_rerank_error: OnRerankError = "raise",
) -> SearchResults:
    r"""Put hits in the order a cross-encoder chooses.

    Args:
        query: what the hits should answer.
        points: hits of any query of any client, with the payload that holds their text; their
            order is the retrieval order.
        reranker: a model name, a path, or an object with ``rerank(query, documents)``.
        text: where the text is: a payload field, a dotted path, several fields, a template such
            as ``"{title}\n{body}"``, or a function of the payload.
        limit: hits to keep; None for all.
        score_threshold: lowest rerank score to keep, in the reranker's own unit.
        on_missing_text: a hit without text raises, follows the others, or is dropped.
        deadline_s: seconds that this may take; None for no limit. See
            :meth:`HybridSearcher.search`.
        on_rerank_error: a reranker that fails raises, or ("recall") the hits stay as they are and
            ``trace.status`` is "degraded".

    Returns:
        The hits by rerank score, highest first; ties by retrieval rank, then id.

    Raises:
        InvalidInputError: an empty query, or an argument out of range.
        MissingTextError: a hit without text, if ``on_missing_text="raise"``.
        ModelOutputError: the reranker failed, or did not return one finite score a document.

    Examples:
        >>> from qdrant_client.models import ScoredPoint
        >>> hits = [
        ...     ScoredPoint(id=1, version=0, score=0.9, payload={"text": "Bread is baked."}),
        ...     ScoredPoint(id=2, version=0, score=0.8, payload={"text": "Iron melts at 1538 C."}),
        ... ]
        >>> [hit.id for hit in rerank_points("melting point of iron", hits)]
        [2, 1]
    """
    began = time.perf_counter()
    deadline = Deadline.after(deadline_s)
    require_query(query)
    require_positive("limit", limit)
    require_choice("on_missing_text", on_missing_text, OnMissingText)
    require_choice("on_rerank_error", on_rerank_error, OnRerankError)
    second_stage = SecondStage(
        load_reranker(reranker), PayloadText(text), on_missing_text, on_rerank_error
    )
    hits = list(points.points if isinstance(points, QueryResponse) else points)
    for hit in hits:
        if not isinstance(hit, ScoredPoint):
            raise InvalidInputError(
                f"points holds a {type(hit).__name__}; expected ScoredPoints, as query_points(...) "
                ".points returns them."
            )
    [ordered], scored = second_stage.run(
        [(query, hits)], limit=limit, score_threshold=score_threshold, deadline=deadline
    )
    trace = SearchTrace(
        **scored.trace(0), total_s=time.perf_counter() - began, candidates=len(hits)
    )
    if not hits:
        trace = replace(trace, status="no candidates")
    return SearchResults(ordered, query=query, trace=trace)


class SecondStage:
    """Texts of hits, their scores, and the order that follows.

    Args:
        reranker: scores the texts.
        text: reads them.
        on_missing_text: what becomes of a hit without one.
        on_rerank_error: what becomes of hits that the reranker fails on.
    """

    def __init__(
        self,
        reranker: Reranker,
        text: PayloadText,
        on_missing_text: OnMissingText,
        on_rerank_error: OnRerankError = "raise",
    ) -> None:
        self._reranker = reranker
        self._text = text
        self._on_missing = on_missing_text
        self._on_error = on_rerank_error

    def run(
        self,
        hits_of_queries: Sequence[tuple[str, Sequence[ScoredPoint]]],
        *,
        limit: int | None,
        score_threshold: float | None,
        blend: Blend = 0.0,
        deadline: Deadline = NEVER,
    ) -> tuple[list[list[RerankedPoint]], Scored]:
        """Order the hits of each query; the pairs of all queries are scored together.

        All texts are read before anything is scored, so a missing one costs no work.
        """
        rows: list[list[int]] = []
        work: list[tuple[str, list[str]]] = []
        for query, hits in hits_of_queries:
            texts = [self._text(hit.payload) for hit in hits]
            if self._on_missing == "raise":
                self._require(hits)
            kept = [row for row, text in enumerate(texts) if text is not None]
            if hits and not kept:
                warnings.warn(
                    f"None of the {len(hits)} hits has text to rerank, so their order stays. "
                    + self._text.missing(hits[0].payload, f"Point {hits[0].id!r}"),
                    UserWarning,
                    stacklevel=5,  # the caller of HybridSearcher.search
                )
            rows.append(kept)
            work.append((query, [text for text in texts if text is not None]))
        scored = score(self._reranker, work, deadline, self._on_error)
        ordered = []
        for place, ((_, hits), kept) in enumerate(zip(hits_of_queries, rows, strict=True)):
            done = kept[: len(scored.scores[place])]
            ordered.append(
                order_by_score(
                    hits,
                    done,
                    scored.scores[place],
                    keep_unscored=self._on_missing != "drop",
                    late=kept[len(done) :],
                    limit=limit,
                    score_threshold=score_threshold,
                    blend=blend,
                    snippets={}
                    if scored.spans is None
                    else self._snippets(hits, done, scored.spans[place]),
                )
            )
        return ordered, scored

    def _snippets(
        self, hits: Sequence[ScoredPoint], kept: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> dict[int, Snippet]:
        return {
            row: self._text.locate(hits[row].payload, *span)
            for row, span in zip(kept, spans, strict=True)
        }

    def _require(self, hits: Sequence[ScoredPoint]) -> None:
        for hit in hits:
            try:
                self._text.require(hit.payload, f"Point {hit.id!r}")
            except MissingTextError as error:
                raise MissingTextError(
                    f"{error} Or let such hits follow the others: on_missing_text='last'."
                ) from None


@runtime_checkable
class TimedReranker(Reranker, Protocol):
    """A reranker that keeps a deadline, as :class:`~qdrant_rerank.cascade.Cascade` does."""

    def rerank_until(
        self, query: str, documents: Sequence[str], deadline: Deadline
    ) -> tuple[Sequence[float], int]:
        """Scores of the first documents, and how many documents were not read to the end."""
        ...


def score(
    reranker: Reranker,
    work: Sequence[tuple[str, Sequence[str]]],
    deadline: Deadline = NEVER,
    on_error: OnRerankError = "raise",
) -> Scored:
    """Score the documents of several queries.

    Args:
        reranker: a ``TextCrossEncoder`` scores all pairs in one pool; any other is asked once a
            query.
        work: (query, documents) each.
        deadline: a ``TextCrossEncoder`` stops at it, having scored the first documents of each
            query; a ``Cascade`` passes it on. Any other cannot be stopped: it is asked if there is
            time left.
        on_error: with "recall", nothing is scored where the reranker fails.

    Raises:
        ModelOutputError: not one finite score a document.
    """
    began = time.perf_counter()
    scores: list[NDArray[np.float32]] = []
    causes: list[str | None] = [None] * len(work)
    late = [0] * len(work)
    if isinstance(reranker, TextCrossEncoder):
        try:
            return _pooled(reranker, work, deadline)
        except Exception as error:  # whatever it is, the first stage's order is left
            causes = [_cause(error, on_error)] * len(work)
            scores = [NO_SCORES] * len(work)
    else:
        for place, (query, documents) in enumerate(work):
            try:
                if isinstance(reranker, TimedReranker):
                    done, late[place] = reranker.rerank_until(query, documents, deadline)
                    scores.append(np.asarray(done, dtype=np.float32))
                else:
                    scores.append(_ask(reranker, query, [] if deadline.passed else documents))
            except Exception as error:  # as above
                causes[place] = _cause(error, on_error)
                scores.append(NO_SCORES)
    waiting = [
        max(len(documents) - len(done), behind)
        for (_, documents), done, behind in zip(work, scores, late, strict=True)
    ]
    return Scored(scores, waiting, causes, 0.0, time.perf_counter() - began)


def _cause(error: Exception, on_error: OnRerankError) -> str:
    """What to say of an error that is not to be raised."""
    if on_error == "raise":
        raise error
    cause = f"{type(error).__name__}: {error}"
    logger.warning("The reranker failed, so the first stage's order is kept: %s", cause)
    return cause


def _pooled(
    encoder: TextCrossEncoder, work: Sequence[tuple[str, Sequence[str]]], deadline: Deadline
) -> Scored:
    """All pairs at once."""
    places = [
        (rank, query) for query, (_, documents) in enumerate(work) for rank in range(len(documents))
    ]
    if deadline is not NEVER:
        places.sort()  # the first document of each query, then the second of each, and so on
    left = deadline.left
    pairs = [(work[query][0], work[query][1][rank]) for rank, query in places]
    pooled = encoder.score_pairs([] if left == 0 else pairs, deadline_s=left or None)
    # What was scored comes first, so of each query, too, the first documents were.
    rows: list[list[int]] = [[] for _ in work]
    for row in np.flatnonzero(pooled.scored).tolist():
        rows[places[row][1]].append(row)
    padded, spans = pooled.padded_tokens, pooled.spans
    return Scored(
        scores=[pooled.scores[part] for part in rows],
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


def _ask(reranker: Reranker, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
    name = type(reranker).__name__
    if not documents:
        return NO_SCORES
    answer = list(reranker.rerank(query, documents))
    try:
        scores = np.asarray(answer, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelOutputError(
            f"{name}.rerank returned {answer[0]!r:.80} as a score; expected a float a document, in "
            "input order."
        ) from error
    if scores.shape != (len(documents),):
        raise ModelOutputError(
            f"{name}.rerank returned scores of shape {scores.shape} for {len(documents)} "
            "documents; expected one float a document, in input order."
        )
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        raise ModelOutputError(
            f"{name}.rerank returned {scores[broken[0]]} for document {broken[0]}; expected finite "
            "scores."
        )
    return scores
