"""What a search and an ``add`` do, as flows: the core that both searchers share.

The request is built by :mod:`~qdrant_rerank.recall`, the order by
:mod:`~qdrant_rerank.reranking`; what is here is their sequence and their times. Nothing is asked
or computed here: :mod:`~qdrant_rerank.flow` says who does.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from qdrant_client import models

from qdrant_rerank.arguments import require_blend, require_choice, require_positive, require_query
from qdrant_rerank.deadline import NEVER, Deadline
from qdrant_rerank.embedders import load_embedder, load_sparse
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.first_stage import FirstStage, WithPayload, WithVectors, completed
from qdrant_rerank.flow import Flow, Terms, compute
from qdrant_rerank.indexing import Document, PointId, add_in_batches
from qdrant_rerank.models import DEFAULT_EMBEDDER
from qdrant_rerank.ordering import keep_order
from qdrant_rerank.reranking import SecondStage, load_reranker
from qdrant_rerank.text import PayloadText, TextSource
from qdrant_rerank.types import (
    Embedder,
    Fusion,
    OnMissingText,
    OnRerankError,
    RerankedPoint,
    Reranker,
    SearchOptions,
    SearchResults,
    SearchTrace,
    SparseEncoder,
    Status,
)

__all__ = ["SearchCore", "SearchRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """The arguments of a search; see :meth:`HybridSearcher.search`."""

    limit: int
    candidates: int | None
    query_filter: models.Filter | None
    score_threshold: float | None
    with_payload: WithPayload
    with_vectors: WithVectors
    options: SearchOptions | None
    deadline_s: float | None


class SearchCore:
    """The parts of a searcher, checked, and the flows of its calls. A base of both searchers.

    Args:
        collection: name of the collection.
        reranker: second stage, or None.
        embedder: dense encoder, or None.
        sparse: sparse encoder, or None.
        text: where a payload's text is.
        candidates: hits that recall hands to the reranker.
        options: see :class:`SearchOptions`.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: a model cannot be found or loaded.
    """

    def __init__(
        self,
        collection: str,
        *,
        reranker: Reranker | str | Path | None,
        embedder: Embedder | str | Path | None,
        sparse: SparseEncoder | str | None,
        text: TextSource,
        candidates: int,
        options: SearchOptions | None,
    ) -> None:
        if not isinstance(collection, str) or not collection:
            raise InvalidInputError(
                f"collection is {collection!r}; expected the name of a collection."
            )
        require_positive("candidates", candidates)
        self.options = options or SearchOptions()
        _require_options(self.options)
        self.text = PayloadText(text)
        self.candidates = candidates
        if embedder is None and sparse is None:
            raise InvalidInputError("embedder and sparse are both None; recall needs one of them.")
        self.reranker = None if reranker is None else load_reranker(reranker)
        self._first = FirstStage(
            collection,
            None if embedder is None else load_embedder(embedder),
            None if sparse is None else load_sparse(sparse),
            dense_optional=embedder == DEFAULT_EMBEDDER,
            sparse_optional=sparse == "auto",
        )

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._first.collection

    @property
    def embedder(self) -> Embedder | None:
        """The dense encoder, or None."""
        return self._first.embedder

    @property
    def sparse(self) -> SparseEncoder | None:
        """The sparse encoder, or None."""
        return self._first.sparse

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.collection!r}, reranker={self.reranker!r}, "
            f"embedder={self.embedder!r}, sparse={self.sparse!r})"
        )

    def _terms(self, queries: Sequence[str], request: SearchRequest) -> Terms:
        """Check the arguments of a search, before anything is asked.

        Raises:
            InvalidInputError: one of them is wrong.
        """
        deadline = Deadline.after(request.deadline_s)
        for query in queries:
            require_query(query)
        for name in ("with_payload", "with_vectors"):
            value = getattr(request, name)
            if isinstance(value, str):
                raise InvalidInputError(f"{name} is one str; expected names. Pass [{value!r}].")
        self._depth(request)
        options = request.options or self.options
        _require_options(options)
        return Terms(options.timeout_s, options.retries, deadline)

    def _add_terms(self) -> Terms:
        return Terms(self.options.timeout_s, self.options.retries)

    def _fuses_flow(self) -> Flow[bool]:
        plan = yield from self._first.plan(self.options)
        return plan.dense is not None and plan.sparse is not None

    def _add_flow(
        self,
        documents: Iterable[Document],
        ids: Iterable[PointId] | None,
        batch_size: int,
        progress: bool | None,
    ) -> Flow[int]:
        require_positive("batch_size", batch_size)
        builder = yield from self._first.point_builder(self.text, self.options)
        return (
            yield from add_in_batches(
                documents,
                ids,
                builder=builder,
                store=self._first.store,
                batch_size=batch_size,
                progress=progress,
            )
        )

    def _search_flow(
        self, queries: Sequence[str], request: SearchRequest, terms: Terms
    ) -> Flow[list[SearchResults]]:
        """Recall, rerank, complete the hits; one request to Qdrant for all queries each time."""
        if not queries:
            return []
        options = request.options or self.options
        plan = yield from self._first.plan(options)
        embed_at = time.perf_counter()
        vectors = yield from self._first.embed(queries, plan)
        recall_at = time.perf_counter()
        reranks = self.reranker is not None
        two_requests = reranks and (request.with_payload is not True or bool(request.with_vectors))
        depth = self._depth(request)
        hits = yield from self._first.recall(
            vectors,
            plan,
            options,
            limit=depth if reranks else request.limit,
            candidates=depth,
            query_filter=request.query_filter,
            with_payload=self._text_fields() if two_requests else request.with_payload,
            with_vectors=False if two_requests else request.with_vectors,
        )
        records: Mapping[PointId, models.Record] = {}
        # What is still to be fetched must not wait for a reranker that takes all of the time.
        fetch_first = two_requests and terms.deadline is not NEVER
        if fetch_first:
            records = yield from self._fetch(hits, request)
        trace = SearchTrace(embed_s=recall_at - embed_at, recall_s=time.perf_counter() - recall_at)
        orders, traces = yield from self._second_stage(queries, hits, request, terms, trace)
        fetch_s = 0.0
        if two_requests:
            fetched_at = time.perf_counter()
            if not fetch_first:
                records = yield from self._fetch(orders, request)
            orders = [completed(order, records) for order in orders]
            fetch_s = time.perf_counter() - fetched_at
        total_s = time.perf_counter() - terms.began
        return [
            SearchResults(
                order,
                query=query,
                trace=replace(
                    trace,
                    recall_s=trace.recall_s + fetch_s,
                    total_s=total_s,
                    candidates=len(found),
                    retries=terms.retried,
                    status=_status(found, trace if reranks else None),
                ),
            )
            for query, found, order, trace in zip(queries, hits, orders, traces, strict=True)
        ]

    def _second_stage(
        self,
        queries: Sequence[str],
        hits: Sequence[Sequence[models.ScoredPoint]],
        request: SearchRequest,
        terms: Terms,
        trace: SearchTrace,
    ) -> Flow[tuple[list[list[RerankedPoint]], list[SearchTrace]]]:
        """The hits of each query in their final order, and what it took."""
        if self.reranker is None:
            orders = [
                keep_order(found, limit=request.limit, score_threshold=request.score_threshold)
                for found in hits
            ]
            return orders, [trace] * len(hits)
        options = request.options or self.options
        stage = SecondStage(
            self.reranker, self.text, options.on_missing_text, options.on_rerank_error
        )
        orders, scored = yield from compute(
            partial(
                stage.run,
                list(zip(queries, hits, strict=True)),
                limit=request.limit,
                score_threshold=request.score_threshold,
                blend=options.blend,
                deadline=terms.deadline,
            )
        )
        return orders, [replace(trace, **scored.trace(row)) for row in range(len(hits))]

    def _fetch(
        self, found: Iterable[Iterable[models.ScoredPoint]], request: SearchRequest
    ) -> Flow[dict[PointId, models.Record]]:
        """What the caller wants to see of these points."""
        return (
            yield from self._first.fetch(
                (hit.id for hits in found for hit in hits),
                with_payload=request.with_payload,
                with_vectors=request.with_vectors,
            )
        )

    def _depth(self, request: SearchRequest) -> int:
        require_positive("limit", request.limit)
        require_positive("candidates", request.candidates)
        if request.candidates is None:
            return max(self.candidates, request.limit)
        if request.candidates < request.limit:
            raise InvalidInputError(
                f"candidates is {request.candidates} and limit {request.limit}; expected "
                "candidates of at least limit, since only candidates can be returned."
            )
        return request.candidates

    def _text_fields(self) -> bool | list[str]:
        """The payload that the reranker needs; all of it where only a function knows."""
        return True if self.text.fields is None else list(self.text.fields)


def _require_options(options: SearchOptions) -> None:
    require_choice("on_missing_text", options.on_missing_text, OnMissingText)
    require_choice("fusion", options.fusion, Fusion)
    require_choice("on_rerank_error", options.on_rerank_error, OnRerankError)
    require_blend(options.blend)
    if options.retries != 0:
        require_positive("retries", options.retries)


def _status(found: Sequence[models.ScoredPoint], reranked: SearchTrace | None) -> Status:
    if not found:
        return "no candidates"
    return "recall only" if reranked is None else reranked.status
