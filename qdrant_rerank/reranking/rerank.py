"""Hits -> hits in the order of a reranker's scores.

``SecondStage`` reads the texts, gets their scores and orders the hits. ``rerank_points`` and
``HybridSearcher`` both use it.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from qdrant_client.http.models import QueryResponse
from qdrant_client.models import ScoredPoint

from qdrant_rerank.errors import InvalidInputError, MissingTextError, MissingTextWarning
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.options import Blend, OnMissingText, OnRerankError
from qdrant_rerank.payload import PayloadText, TextChoice, TextSource
from qdrant_rerank.reranking.inputs import Rerankable, as_points
from qdrant_rerank.reranking.ordering import order_by_score
from qdrant_rerank.reranking.scoring import Scored, cause_of, load_reranker, score
from qdrant_rerank.types import RerankedPoint, Reranker, SearchResults, SearchTrace
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
    reranker: Reranker | str | Path = DEFAULT_RERANKER,
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
            - a dict with "payload", and "id" and "score" if it has them;
            - any other dict, which is the payload; its "id" or "_id" is the id;
            - an (id, text) pair, whose payload is ``{"text": text}``;
            - a LangChain ``Document``, whose payload is ``{"page_content": ..., "metadata": ...}``;
            - a LlamaIndex ``NodeWithScore`` or node, whose payload is
              ``{"text": ..., "metadata": ...}``.

            What has no id gets its place, from 0. What has no score has the retrieval score 0.
        reranker: a model name, a path, or an object with ``rerank(query, documents)``.
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
        The hits by rerank score, highest first; ties by retrieval rank. A hit's
        ``retrieval_rank - 1`` is its place in ``points``.

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


class SecondStage:
    """Reads the texts of hits, gets their scores, and orders the hits.

    Args:
        reranker: scores the texts.
        choice: reads the texts; is settled by the first hits.
        on_missing_text: what happens to a hit without text.
        on_rerank_error: what happens if the reranker fails.
    """

    def __init__(
        self,
        reranker: Reranker,
        choice: TextChoice,
        on_missing_text: OnMissingText,
        on_rerank_error: OnRerankError = "raise",
    ) -> None:
        self._reranker = reranker
        self._choice = choice
        self._on_missing = on_missing_text
        self._on_error = on_rerank_error

    def run(
        self,
        hits_of_queries: Sequence[tuple[str, Sequence[ScoredPoint]]],
        *,
        limit: int | None,
        score_threshold: float | None,
        blend: Blend = 0.0,
        deadline: Deadline = NO_DEADLINE,
    ) -> tuple[list[list[RerankedPoint]], Scored]:
        """Order the hits of each query. The pairs of all queries are scored together.

        All texts are read before anything is scored, so a missing text costs no work.
        """
        causes: list[str | None] = [None] * len(hits_of_queries)
        text = self._choice.text
        texts: list[dict[int, str]] = [{} for _ in hits_of_queries]
        try:
            text = self._choice.choose(hit.payload for _, hits in hits_of_queries for hit in hits)
        except InvalidInputError as error:
            if any(hits for _, hits in hits_of_queries):
                causes = [cause_of(error, self._on_error)] * len(causes)
        for place, (_, hits) in enumerate(hits_of_queries):
            if causes[place] is None:
                texts[place], causes[place] = self._texts(text, hits)
        work = [
            (query, list(found.values()))
            for (query, _), found in zip(hits_of_queries, texts, strict=True)
        ]
        scored = score(self._reranker, work, deadline, self._on_error)
        scored = replace(
            scored,
            causes=[mine or its for mine, its in zip(causes, scored.causes, strict=True)],
            missing=[
                len(hits) - len(found) if cause is None else 0
                for (_, hits), found, cause in zip(hits_of_queries, texts, causes, strict=True)
            ],
            text=text.name if self._choice.settled else None,
        )
        ordered = []
        for place, ((_, hits), found) in enumerate(zip(hits_of_queries, texts, strict=True)):
            rows = list(found) if causes[place] is None else list(range(len(hits)))
            done = rows[: len(scored.scores[place])]
            spans = [] if scored.spans is None else scored.spans[place]
            ordered.append(
                order_by_score(
                    hits,
                    done,
                    scored.scores[place],
                    logits=scored.logits[place],
                    keep_unscored=self._on_missing != "drop",
                    late=rows[len(done) :],
                    limit=limit,
                    score_threshold=score_threshold,
                    blend=blend,
                    snippets={
                        row: text.locate(hits[row].payload, *span)
                        for row, span in zip(done, spans, strict=False)
                    },
                )
            )
        return ordered, scored

    def _texts(
        self, text: PayloadText, hits: Sequence[ScoredPoint]
    ) -> tuple[dict[int, str], str | None]:
        """Return the text of each hit that has one, by its row; or why no text can be read."""
        found = {}
        for row, hit in enumerate(hits):
            what = f"Point {hit.id!r}"
            try:
                read = text.read(hit.payload, what)
            except InvalidInputError as error:
                return {}, cause_of(error, self._on_error)
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
