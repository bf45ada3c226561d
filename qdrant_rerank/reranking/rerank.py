"""Hits -> hits in the order of a reranker's scores.

``SecondStage`` reads the texts, gets their scores and orders the hits. ``rerank_points`` and
``HybridSearcher`` both use it.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client.http.models import QueryResponse
from qdrant_client.models import ScoredPoint

from qdrant_rerank.cross_encoder.state_scorer import StoredText
from qdrant_rerank.errors import InvalidInputError, MissingTextError, MissingTextWarning
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.options import Blend, OnMissingText, OnRerankError
from qdrant_rerank.payload import TextChoice, TextSource
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.reranking.awaiting import awaited, given_scores_async, score_async
from qdrant_rerank.reranking.inputs import Rerankable, as_points
from qdrant_rerank.reranking.late_interaction import LateInteraction, MaxSim
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.reranking.ordering import order_by_score
from qdrant_rerank.reranking.scored import NO_SCORES, Scored, failure
from qdrant_rerank.reranking.scoring import given_scores, score
from qdrant_rerank.reranking.stored import LateText, Stored, StoredLater
from qdrant_rerank.types import (
    PointId,
    RerankedPoint,
    RerankerLike,
    SearchResults,
    SearchTrace,
)
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.validation import (
    require_choice,
    require_number,
    require_positive,
    require_query,
)
from qdrant_rerank.utils.warn import warn_caller

__all__ = ["SecondStage", "rerank_points"]


def rerank_points(
    query: str,
    points: Iterable[Rerankable] | QueryResponse,
    *,
    reranker: RerankerLike = DEFAULT_RERANKER,
    text: TextSource = "auto",
    limit: int | None = None,
    score_threshold: float | None = None,
    on_missing_text: OnMissingText = "last",
    deadline_s: float | None = None,
    on_rerank_error: OnRerankError = "raise",
) -> SearchResults:
    r"""Order hits by the scores of a reranker.

    Args:
        query: the question that the hits should answer.
        points: hits of any query of any client, in retrieval order, each one of:

            - a ``ScoredPoint`` or a ``Record``, with the payload that holds its text;
            - a dict with "payload", and "id" and "score" if it has them, as the REST interface and
              ``SearchResults.to_dicts`` write it;
            - any other dict, which is the payload; its "id" or "_id" is the id;
            - an (id, text) pair, whose payload is ``{"text": text}``;
            - a LangChain ``Document``, whose payload is ``{"page_content": ..., "metadata": ...}``;
            - a Haystack ``Document``, whose payload is ``{"content": ..., "meta": ...}``;
            - a LlamaIndex ``NodeWithScore`` or node, whose payload is
              ``{"text": ..., "metadata": ...}``.

            What has no id gets its place, from 0. What has no score has the retrieval score 0.
        reranker: a model name, a path, an object with ``rerank(query, documents)``, or another
            reranker that ``HybridSearcher`` takes.
        text: where the text is. "auto" looks at the hits. Else as of :class:`HybridSearcher`.
        limit: number of hits to keep; None for all.
        score_threshold: lowest rerank score to keep, on the reranker's own scale.
        on_missing_text: "raise" raises an error for a hit without text; "last" puts it after the
            others; "drop" leaves it out.
        deadline_s: seconds that the call may take; None for no limit. See
            :meth:`HybridSearcher.search`.
        on_rerank_error: what happens if the reranker fails: "raise" raises its error; "recall"
            keeps the hits as they are and sets ``trace.status`` to "degraded".

    Returns:
        The hits by rerank score, highest first; ties by retrieval rank.

    Raises:
        InvalidInputError: an empty query, or an argument out of range.
        MissingTextError: a hit has no text, and ``on_missing_text="raise"``; with ``text="auto"``,
            no hit has text, or several fields may be meant.
        ModelOutputError: the reranker failed, or did not return one finite score per document.

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
    if score_threshold is not None:
        require_number("score_threshold", score_threshold, "a score, or None for all")
    require_choice("on_missing_text", on_missing_text, OnMissingText)
    require_choice("on_rerank_error", on_rerank_error, OnRerankError)
    second_stage = SecondStage(
        load_reranker(reranker), TextChoice(text), on_missing_text, on_rerank_error
    )
    hits = as_points(points)
    [ordered], scored = second_stage.run(
        [(query, hits)], limit=limit, score_threshold=score_threshold, deadline=deadline
    )
    trace = SearchTrace(
        **scored.trace(0), total_s=time.perf_counter() - began, candidates=len(hits)
    )
    if not hits:
        trace = replace(trace, status="no candidates")
    return SearchResults(ordered, query=query, trace=trace)


@dataclass(frozen=True, slots=True)
class Work:
    """The hits of one query, and what is scored of them.

    Attributes:
        query: the query as text.
        hits: hits in retrieval order.
        texts: text of each hit that is scored, by its row; empty where no text is read.
        first: scores that Qdrant has computed of the same hits; None if it has computed none.
        cause: type and message of the error that reading the texts raised, or None.
    """

    query: str
    hits: Sequence[ScoredPoint]
    texts: dict[int, str]
    first: NDArray[np.float64] | None = None
    cause: str | None = None

    @property
    def pairs(self) -> tuple[str, list[str]]:
        """The query and the texts, as ``score`` takes them."""
        return self.query, list(self.texts.values())


class SecondStage:
    """Reads the texts of hits, gets their scores, and orders the hits.

    Args:
        reranker: scores the texts, or has Qdrant score the hits: a ``LateInteraction``.
        choice: reads the texts; is settled by the first hits.
        on_missing_text: what happens to a hit without text.
        on_rerank_error: what happens if the reranker fails.

    Attributes:
        awaited: whether :meth:`run_async` needs no thread for the reranker.
    """

    def __init__(
        self,
        reranker: Any,
        choice: TextChoice,
        on_missing_text: OnMissingText,
        on_rerank_error: OnRerankError = "raise",
    ) -> None:
        self._reranker = reranker
        self._choice = choice
        self._on_missing = on_missing_text
        self._on_error = on_rerank_error
        self.awaited = awaited(reranker)

    def run(
        self,
        hits_of_queries: Sequence[tuple[str, Sequence[ScoredPoint]]],
        *,
        limit: int | None,
        score_threshold: float | None,
        blend: Blend = 0.0,
        deadline: Deadline = NO_DEADLINE,
        max_sim: MaxSim | None = None,
        stored: Stored | StoredLater | None = None,
    ) -> tuple[list[list[RerankedPoint]], Scored]:
        """Order the hits of each query. The pairs of all queries are scored together.

        All texts are read before anything is scored, so a missing text costs no work.
        """
        works = self.read(hits_of_queries, max_sim, stored)
        pairs = [work.pairs for work in works]
        if max_sim is None:
            scored = score(self._reranker, pairs, deadline, self._on_error)
        else:
            cascade = None if isinstance(self._reranker, LateInteraction) else self._reranker
            scored = given_scores(cascade, pairs, _first(works), max_sim, deadline, self._on_error)
        scored = self._with_texts(works, scored)
        ordered = self.order(
            works, scored, limit=limit, score_threshold=score_threshold, blend=blend
        )
        return ordered, scored

    async def run_async(
        self,
        driver: Driver,
        hits_of_queries: Sequence[tuple[str, Sequence[ScoredPoint]]],
        *,
        limit: int | None,
        score_threshold: float | None,
        blend: Blend = 0.0,
        max_sim: MaxSim | None = None,
        stored: Stored | StoredLater | None = None,
    ) -> tuple[list[list[RerankedPoint]], Scored]:
        """Order the hits of each query as :meth:`run` does, by a reranker that is awaited."""
        works = await driver.compute(self.read, hits_of_queries, max_sim, stored)
        pairs = [work.pairs for work in works]
        limits = (driver.limits.deadline, self._on_error)
        if max_sim is None:
            scored = await score_async(self._reranker, pairs, *limits, compute=driver.compute)
        else:
            scored = await given_scores_async(
                self._reranker, pairs, _first(works), max_sim, *limits, compute=driver.compute
            )
        scored = self._with_texts(works, scored)
        ordered = await driver.compute(
            self.order, works, scored, limit=limit, score_threshold=score_threshold, blend=blend
        )
        return ordered, scored

    def read(
        self,
        hits_of_queries: Sequence[tuple[str, Sequence[ScoredPoint]]],
        max_sim: MaxSim | None,
        stored: Stored | StoredLater | None = None,
    ) -> list[Work]:
        """Return what is scored of the hits of each query.

        Raises:
            MissingTextError: a hit has none of it, and that was to be an error.
        """
        works = []
        reads = not isinstance(self._reranker, LateInteraction)
        unread = self._choose(hits_of_queries) if reads else None
        for place, (query, hits) in enumerate(hits_of_queries):
            texts, cause = dict.fromkeys(range(len(hits)), ""), unread
            if reads:
                texts, cause = self._texts(hits) if unread is None else ({}, unread)
                if stored is not None:
                    texts = {row: stored.text(hits[row].id, text) for row, text in texts.items()}
            if cause is not None or max_sim is None or max_sim.cause is not None:
                works.append(Work(query, hits, texts, cause=cause))
            else:
                works.append(self._scored_before(query, hits, texts, max_sim.scores[place]))
        return works

    def _choose(self, hits_of_queries: Sequence[tuple[str, Sequence[ScoredPoint]]]) -> str | None:
        """Settle where the texts are; returns why that cannot be told, or None."""
        try:
            self._choice.choose(hit.payload for _, hits in hits_of_queries for hit in hits)
        except InvalidInputError as error:
            if any(hits for _, hits in hits_of_queries):
                return failure(error, self._on_error)
        return None

    def _with_texts(self, works: Sequence[Work], scored: Scored) -> Scored:
        """Return the scores with what became of the texts."""
        if isinstance(self._reranker, LateInteraction):
            return scored
        return replace(
            scored,
            causes=[work.cause or its for work, its in zip(works, scored.causes, strict=True)],
            missing=[
                len(work.hits) - len(work.texts) if work.cause is None else 0 for work in works
            ],
            text=self._choice.text.name if self._choice.settled else None,
            stored=[
                _count_stored(work, len(its))
                for work, its in zip(works, scored.scores, strict=True)
            ],
        )

    def _scored_before(
        self,
        query: str,
        hits: Sequence[ScoredPoint],
        texts: dict[int, str],
        scores: Mapping[PointId, float],
    ) -> Work:
        """Return those of the hits that Qdrant has scored, too."""
        without = [row for row in texts if hits[row].id not in scores]
        if without and self._on_missing == "raise":
            raise MissingTextError(
                f"Point {hits[without[0]].id!r} has no multivector for the late interaction. To "
                "put such hits after the others, pass on_missing_text='last'."
            )
        texts = {row: text for row, text in texts.items() if hits[row].id in scores}
        return Work(query, hits, texts, np.array([scores[hits[row].id] for row in texts]))

    def order(
        self,
        works: Sequence[Work],
        scored: Scored,
        *,
        limit: int | None,
        score_threshold: float | None,
        blend: Blend,
    ) -> list[list[RerankedPoint]]:
        """Return the hits of each query in their order."""
        ordered = []
        for place, work in enumerate(works):
            rows = list(work.texts) if work.cause is None else list(range(len(work.hits)))
            done = rows[: len(scored.scores[place])]
            spans = [] if scored.spans is None else scored.spans[place]
            ordered.append(
                order_by_score(
                    work.hits,
                    done,
                    scored.scores[place],
                    logits=scored.logits[place],
                    keep_unscored=self._on_missing != "drop",
                    late=rows[len(done) :],
                    limit=limit,
                    score_threshold=score_threshold,
                    blend=blend,
                    snippets={
                        row: self._choice.text.locate(work.hits[row].payload, *span)
                        for row, span in zip(done, spans, strict=False)
                    },
                )
            )
        return ordered

    def _texts(self, hits: Sequence[ScoredPoint]) -> tuple[dict[int, str], str | None]:
        """Return the text of each hit that has one, by its row; or why no text can be read."""
        text = self._choice.text
        found = {}
        for row, hit in enumerate(hits):
            what = f"Point {hit.id!r}"
            try:
                read = text.read(hit.payload, what)
            except InvalidInputError as error:
                return {}, failure(error, self._on_error)
            if read is not None:
                found[row] = read
            elif self._on_missing == "raise":
                missing = text.missing(hit.payload, what)
                raise MissingTextError(
                    f"{missing.reason} To put such hits after the others, pass "
                    "on_missing_text='last'.",
                    missing.fields,
                )
        if hits and not found:
            missing = text.missing(hits[0].payload, f"Point {hits[0].id!r}")
            warn_caller(
                MissingTextWarning(
                    f"None of the {len(hits)} hits has text to rerank, so they stay in retrieval "
                    f"order. {missing.reason}",
                    missing.fields,
                )
            )
        return found, None


def _count_stored(work: Work, scored: int) -> tuple[int, int] | None:
    """Return how many of the scored texts had current states, and how many had not.

    Of a cascade, those count that the stage scored whose states are stored.
    """
    texts = list(work.texts.values())[:scored]
    if not any(isinstance(text, StoredText) for text in work.texts.values()):
        return None
    texts = [text for text in texts if not isinstance(text, LateText) or text.by_states]
    found = sum(isinstance(text, StoredText) and text.record is not None for text in texts)
    return found, len(texts) - found


def _first(works: Sequence[Work]) -> list[NDArray[np.float64]]:
    """Return the scores that Qdrant has computed, for each query."""
    return [NO_SCORES if work.first is None else work.first for work in works]
