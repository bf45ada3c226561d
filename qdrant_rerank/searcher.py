"""HybridSearcher: recall from a Qdrant collection, then the reranker's order.

A thin shell: the request is built by :mod:`~qdrant_rerank.recall`, the order by
:mod:`~qdrant_rerank.reranking`; what is here is the sequence of the two, their times, and the
calls of the client in between.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from qdrant_client import QdrantClient, models

from qdrant_rerank.arguments import require_blend, require_choice, require_positive, require_query
from qdrant_rerank.connection import connect
from qdrant_rerank.deadline import NEVER, Deadline
from qdrant_rerank.embedders import load_embedder, load_sparse
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.first_stage import FirstStage, WithPayload, WithVectors, completed
from qdrant_rerank.indexing import Document, PointId, add_in_batches
from qdrant_rerank.models import DEFAULT_EMBEDDER, DEFAULT_RERANKER
from qdrant_rerank.ordering import keep_order
from qdrant_rerank.reranking import SecondStage, load_reranker
from qdrant_rerank.text import PayloadText, TextSource
from qdrant_rerank.types import (
    Embedder,
    Fusion,
    OnMissingText,
    OnRerankError,
    Reranker,
    SearchOptions,
    SearchResults,
    SearchTrace,
    SparseEncoder,
    Status,
)

__all__ = ["HybridSearcher"]


class HybridSearcher:
    r"""Searches a Qdrant collection in two stages: recall, then a cross-encoder's order.

    Safe to call from many threads. Also a context manager: leaving it closes the client, if the
    searcher made it.

    Args:
        collection: name of the collection; ``add`` creates it where there is none.
        reranker: a model name or path, any object with ``rerank(query, documents)``
            (fastembed's ``TextCrossEncoder`` is one), or None for the recall order.
        client: a ``QdrantClient``; None for ``QDRANT_URL`` (and ``QDRANT_API_KEY``) if set, else
            an embedded engine at ``QDRANT_PATH``, else one in memory.
        embedder: the dense encoder that the collection was, or will be, filled with: a name, a
            directory, a fastembed ``TextEmbedding``, an ``Embedder``, or None for sparse recall
            alone. The default one is left out where a collection has no dense vectors.
        sparse: "auto" takes BM25 where the collection has a sparse vector with Qdrant's IDF;
            "Qdrant/bm25" insists on it; or a ``SparseEncoder``, a fastembed
            ``SparseTextEmbedding``, or None for dense recall alone.
        text: where a payload's text is: a field, a dotted path, several fields, a template such
            as ``"{title}\n{body}"``, or a function of the payload.
        candidates: hits that recall hands to the reranker.
        options: see :class:`SearchOptions`.

    Attributes:
        client: the ``QdrantClient`` in use.
        collection: name of the collection.
        embedder: the dense encoder, or None.
        sparse: the sparse encoder, or None.
        reranker: the second stage, or None.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: a model cannot be found or loaded.

    Examples:
        >>> from qdrant_client import QdrantClient
        >>> with HybridSearcher("docs", client=QdrantClient(":memory:")) as searcher:
        ...     added = searcher.add(["Bread is baked in an oven.", "Iron melts at 1538 C."])
        ...     results = searcher.search("How hot must it be to melt iron?", limit=1)
        >>> added, results[0].payload["text"]
        (2, 'Iron melts at 1538 C.')
    """

    def __init__(
        self,
        collection: str,
        *,
        reranker: Reranker | str | Path | None = DEFAULT_RERANKER,
        client: QdrantClient | None = None,
        embedder: Embedder | str | Path | None = DEFAULT_EMBEDDER,
        sparse: SparseEncoder | str | None = "auto",
        text: TextSource = "text",
        candidates: int = 100,
        options: SearchOptions | None = None,
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
        dense = None if embedder is None else load_embedder(embedder)
        encoder = None if sparse is None else load_sparse(sparse)
        self._owns_client = client is None
        self._first = FirstStage(
            connect() if client is None else client,
            collection,
            dense,
            encoder,
            dense_optional=embedder == DEFAULT_EMBEDDER,
            sparse_optional=sparse == "auto",
        )

    @property
    def client(self) -> QdrantClient:
        """The client in use."""
        return self._first.client

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

    @property
    def fuses(self) -> bool:
        """Whether recall is dense and sparse, fused; the collection's schema says so.

        Raises:
            CollectionNotFoundError: no such collection.
            SchemaMismatchError: its vectors do not fit the encoders.
        """
        plan = self._first.plan(self.options, self._first.converse(self.options))
        return plan.dense is not None and plan.sparse is not None

    def search(
        self,
        query: str,
        limit: int = 10,
        *,
        candidates: int | None = None,
        query_filter: models.Filter | None = None,
        score_threshold: float | None = None,
        with_payload: WithPayload = True,
        with_vectors: WithVectors = False,
        options: SearchOptions | None = None,
        deadline_s: float | None = None,
    ) -> SearchResults:
        """Recall candidates, rerank them, return the best.

        Args:
            query: what to search for.
            limit: hits to return; fewer if the collection or the filter has fewer.
            candidates: hits to rerank, ``limit`` or more; None for the searcher's own, or
                ``limit`` if that is more.
            query_filter: which points to consider.
            score_threshold: lowest ``score`` to return: of the reranker, or, without one, of
                Qdrant.
            with_payload: payload of the returned hits. With a selection, recall fetches only the
                text and a second request the rest.
            with_vectors: vectors of the returned hits, fetched likewise.
            options: in place of the searcher's own.
            deadline_s: seconds that the whole search may take; None for no limit. A
                ``TextCrossEncoder`` then scores candidates in retrieval order and stops in time,
                at most one run late; the scored ones come first, by score, the others follow in
                retrieval order, whatever the threshold, and ``trace.status`` is "partial". Any
                other reranker is asked if there is time left, and cannot be stopped. Neither can
                an encoder or an embedded engine.

        Returns:
            The hits by score, highest first; ties by retrieval rank, then id. Fewer hits than
            asked for, and none, are normal results.

        Raises:
            InvalidInputError: an empty query, or an argument out of range.
            CollectionNotFoundError: no such collection.
            SchemaMismatchError: its vectors do not fit the encoders.
            MissingTextError: a hit without text, if ``on_missing_text="raise"``.
            QdrantConnectionError: Qdrant is down, too slow (for ``deadline_s``, too: then there is
                nothing to return), or answers nonsense.
            QdrantRequestError: Qdrant refused the request.
            ModelOutputError: the reranker failed.
        """
        [results] = self._search(
            [query],
            limit=limit,
            candidates=candidates,
            query_filter=query_filter,
            score_threshold=score_threshold,
            with_payload=with_payload,
            with_vectors=with_vectors,
            options=options,
            deadline_s=deadline_s,
        )
        return results

    def search_batch(
        self,
        queries: Sequence[str],
        limit: int = 10,
        *,
        candidates: int | None = None,
        query_filter: models.Filter | None = None,
        score_threshold: float | None = None,
        with_payload: WithPayload = True,
        with_vectors: WithVectors = False,
        options: SearchOptions | None = None,
        deadline_s: float | None = None,
    ) -> list[SearchResults]:
        """Search for several queries: one request to Qdrant, their pairs scored together.

        Args:
            queries: what to search for.
            limit: hits to return a query.
            candidates: as in :meth:`search`.
            query_filter: as in :meth:`search`.
            score_threshold: as in :meth:`search`.
            with_payload: as in :meth:`search`.
            with_vectors: as in :meth:`search`.
            options: as in :meth:`search`.
            deadline_s: seconds that the whole batch may take. Of each query the first candidates
                are scored before the second of any.

        Returns:
            What :meth:`search` returns, a query, in order. The times of each trace are those of
            the batch.

        Raises:
            QdrantRerankError: as :meth:`search`.
        """
        if isinstance(queries, str):
            raise InvalidInputError("queries is one str; expected several. Pass [query].")
        return self._search(
            list(queries),
            limit=limit,
            candidates=candidates,
            query_filter=query_filter,
            score_threshold=score_threshold,
            with_payload=with_payload,
            with_vectors=with_vectors,
            options=options,
            deadline_s=deadline_s,
        )

    def add(
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[PointId] | None = None,
        batch_size: int = 256,
        progress: bool | None = None,
    ) -> int:
        """Embed documents and store them, creating the collection where there is none.

        Args:
            documents: texts, mappings (the payload), or ``PointStruct``s, whose missing vectors
                are embedded. Any iterable: it is read once, a batch at a time.
            ids: one a document, whole numbers or UUIDs; None for the points' own, or a UUIDv5 of
                the text, so that adding twice does not duplicate.
            batch_size: documents a request.
            progress: a progress bar on stderr; None for one if stderr is a terminal.

        Returns:
            The number of documents stored.

        Raises:
            InvalidInputError: not a document, a wrong id, or not one id a document.
            MissingTextError: a document without text.
            SchemaMismatchError: the collection's vectors do not fit the encoders.
            QdrantConnectionError: Qdrant is down, too slow, or answers nonsense.
            QdrantRequestError: Qdrant refused.

            The documents before the one that failed are stored; a note on the error has their
            number.
        """
        require_positive("batch_size", batch_size)
        return add_in_batches(
            documents,
            ids,
            builder=self._first.point_builder(self.text, self.options),
            store=lambda points: self._first.store(points, self.options),
            batch_size=batch_size,
            progress=progress,
        )

    def close(self) -> None:
        """Close the client, if the searcher made it."""
        if self._owns_client:
            self.client.close()

    def __enter__(self) -> "HybridSearcher":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"HybridSearcher({self.collection!r}, reranker={self.reranker!r}, "
            f"embedder={self.embedder!r}, sparse={self.sparse!r})"
        )

    def _search(
        self,
        queries: list[str],
        *,
        limit: int,
        candidates: int | None,
        query_filter: models.Filter | None,
        score_threshold: float | None,
        with_payload: WithPayload,
        with_vectors: WithVectors,
        options: SearchOptions | None,
        deadline_s: float | None,
    ) -> list[SearchResults]:
        began = time.perf_counter()
        deadline = Deadline.after(deadline_s)
        for query in queries:
            require_query(query)
        for name, value in (("with_payload", with_payload), ("with_vectors", with_vectors)):
            if isinstance(value, str):
                raise InvalidInputError(f"{name} is one str; expected names. Pass [{value!r}].")
        depth = self._depth(limit, candidates)
        options = options or self.options
        _require_options(options)
        if not queries:
            return []
        talk = self._first.converse(options, deadline)
        plan = self._first.plan(options, talk)
        embed_at = time.perf_counter()
        vectors = [self._first.embed(query, plan) for query in queries]
        recall_at = time.perf_counter()
        reranks = self.reranker is not None
        two_requests = reranks and (with_payload is not True or bool(with_vectors))
        hits = self._first.recall(
            vectors,
            plan,
            options,
            talk,
            limit=depth if reranks else limit,
            candidates=depth,
            query_filter=query_filter,
            with_payload=self._text_fields() if two_requests else with_payload,
            with_vectors=False if two_requests else with_vectors,
        )
        records: Mapping[PointId, models.Record] = {}
        # What is still to be fetched must not wait for a reranker that takes all of the time.
        fetch_first = two_requests and deadline is not NEVER
        if fetch_first:
            ids = (hit.id for found in hits for hit in found)
            records = self._first.fetch(
                ids, talk, with_payload=with_payload, with_vectors=with_vectors
            )
        trace = SearchTrace(embed_s=recall_at - embed_at, recall_s=time.perf_counter() - recall_at)

        if self.reranker is None:
            orders = [
                keep_order(found, limit=limit, score_threshold=score_threshold) for found in hits
            ]
            traces = [trace] * len(hits)
        else:
            stage = SecondStage(
                self.reranker, self.text, options.on_missing_text, options.on_rerank_error
            )
            orders, scored = stage.run(
                list(zip(queries, hits, strict=True)),
                limit=limit,
                score_threshold=score_threshold,
                blend=options.blend,
                deadline=deadline,
            )
            traces = [replace(trace, **scored.trace(row)) for row in range(len(hits))]
        fetch_s = 0.0
        if two_requests:
            fetched_at = time.perf_counter()
            if not fetch_first:
                ids = (hit.id for order in orders for hit in order)
                records = self._first.fetch(
                    ids, talk, with_payload=with_payload, with_vectors=with_vectors
                )
            orders = [completed(order, records) for order in orders]
            fetch_s = time.perf_counter() - fetched_at
        total_s = time.perf_counter() - began
        return [
            SearchResults(
                order,
                query=query,
                trace=replace(
                    trace,
                    recall_s=trace.recall_s + fetch_s,
                    total_s=total_s,
                    candidates=len(found),
                    retries=talk.retried,
                    status=_status(found, trace if reranks else None),
                ),
            )
            for query, found, order, trace in zip(queries, hits, orders, traces, strict=True)
        ]

    def _depth(self, limit: int, candidates: int | None) -> int:
        require_positive("limit", limit)
        require_positive("candidates", candidates)
        if candidates is None:
            return max(self.candidates, limit)
        if candidates < limit:
            raise InvalidInputError(
                f"candidates is {candidates} and limit {limit}; expected candidates of at least "
                "limit, since only candidates can be returned."
            )
        return candidates

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
