"""The second stage alone: hits that the caller already has, in a better order.

``SecondStage`` reads the texts, has them scored and orders the hits; ``rerank_points`` and
``HybridSearcher`` both go through it.
"""

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client.http.models import QueryResponse
from qdrant_client.models import ScoredPoint

from qdrant_rerank.arguments import require_choice, require_positive, require_query
from qdrant_rerank.cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, MissingTextError, ModelOutputError
from qdrant_rerank.models import DEFAULT_RERANKER
from qdrant_rerank.ordering import order_by_score
from qdrant_rerank.text import PayloadText, TextSource
from qdrant_rerank.types import (
    Blend,
    OnMissingText,
    RerankedPoint,
    Reranker,
    SearchResults,
    SearchTrace,
    Snippet,
)

__all__ = ["load_reranker", "rerank_points"]


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the documents of several queries, and what they cost.

    Attributes:
        scores: one array a query, shape (documents of the query,), float32, finite.
        tokens: tokens a query; None where the reranker does not tell.
        tokenize_s: seconds.
        infer_s: seconds.
        padding_share: padding in what the model read, 0 to 1; None likewise.
        truncated: documents of a query that did not fit the window; None likewise.
        windows: rows that the model read for a query; None likewise.
        spans: a query's documents' parts that speak for them, start and end character; None where
            the reranker does not read in parts.
        activation: what made the scores of logits; None where the reranker does not tell.
    """

    scores: list[NDArray[np.float32]]
    tokenize_s: float
    infer_s: float
    tokens: int | None = None
    padding_share: float | None = None
    truncated: list[int] | None = None
    windows: list[int] | None = None
    spans: list[list[tuple[int, int]]] | None = None
    activation: str | None = None

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
        }


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
    require_query(query)
    require_positive("limit", limit)
    require_choice("on_missing_text", on_missing_text, OnMissingText)
    second_stage = SecondStage(load_reranker(reranker), PayloadText(text), on_missing_text)
    hits = list(points.points if isinstance(points, QueryResponse) else points)
    for hit in hits:
        if not isinstance(hit, ScoredPoint):
            raise InvalidInputError(
                f"points holds a {type(hit).__name__}; expected ScoredPoints, as query_points(...) "
                ".points returns them."
            )
    [ordered], scored = second_stage.run(
        [(query, hits)], limit=limit, score_threshold=score_threshold
    )
    return SearchResults(
        ordered,
        query=query,
        trace=SearchTrace(
            **scored.trace(0),
            total_s=time.perf_counter() - began,
            candidates=len(hits),
            status="reranked" if hits else "no candidates",
        ),
    )


class SecondStage:
    """Texts of hits, their scores, and the order that follows.

    Args:
        reranker: scores the texts.
        text: reads them.
        on_missing_text: what becomes of a hit without one.
    """

    def __init__(
        self, reranker: Reranker, text: PayloadText, on_missing_text: OnMissingText
    ) -> None:
        self._reranker = reranker
        self._text = text
        self._on_missing = on_missing_text

    def run(
        self,
        hits_of_queries: Sequence[tuple[str, Sequence[ScoredPoint]]],
        *,
        limit: int | None,
        score_threshold: float | None,
        blend: Blend = 0.0,
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
                    stacklevel=4,
                )
            rows.append(kept)
            work.append((query, [text for text in texts if text is not None]))
        scored = score(self._reranker, work)
        ordered = [
            order_by_score(
                hits,
                kept,
                scored.scores[query],
                keep_unscored=self._on_missing != "drop",
                limit=limit,
                score_threshold=score_threshold,
                blend=blend,
                snippets={}
                if scored.spans is None
                else self._snippets(hits, kept, scored.spans[query]),
            )
            for query, ((_, hits), kept) in enumerate(zip(hits_of_queries, rows, strict=True))
        ]
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


def score(reranker: Reranker, work: Sequence[tuple[str, Sequence[str]]]) -> Scored:
    """Score the documents of several queries.

    Args:
        reranker: a ``TextCrossEncoder`` scores all pairs in one pool; any other is asked once a
            query.
        work: (query, documents) each.

    Raises:
        ModelOutputError: not one finite score a document.
    """
    began = time.perf_counter()
    if isinstance(reranker, TextCrossEncoder):
        pairs = [(query, document) for query, documents in work for document in documents]
        pooled = reranker.score_pairs(pairs)
        ends = np.cumsum([0, *(len(documents) for _, documents in work)])
        parts = [slice(start, end) for start, end in pairwise(ends)]
        padded = pooled.padded_tokens
        return Scored(
            scores=[pooled.scores[part] for part in parts],
            tokenize_s=pooled.tokenize_s,
            infer_s=pooled.infer_s,
            tokens=pooled.tokens,
            padding_share=1 - pooled.tokens / padded if padded else 0.0,
            truncated=[int(pooled.truncated[part].sum()) for part in parts],
            windows=[int(pooled.windows[part].sum()) for part in parts],
            spans=None if pooled.spans is None else [pooled.spans[part] for part in parts],
            activation=pooled.activation,
        )
    scores = [_ask(reranker, query, documents) for query, documents in work]
    return Scored(scores, 0.0, time.perf_counter() - began)


def _ask(reranker: Reranker, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
    name = type(reranker).__name__
    if not documents:
        return np.empty(0, dtype=np.float32)
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
