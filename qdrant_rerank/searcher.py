"""HybridSearcher: recall from a Qdrant collection, then the reranker's order.

A thin shell: what a search does is in :mod:`~qdrant_rerank.search_flow`; here a
:class:`~qdrant_rerank.conversation.Conversation` does it, in the calling thread.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from qdrant_client import QdrantClient, models

from qdrant_rerank.connection import connect
from qdrant_rerank.conversation import Conversation
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.first_stage import WithPayload, WithVectors
from qdrant_rerank.flow import Terms
from qdrant_rerank.indexing import Document, PointId
from qdrant_rerank.models import DEFAULT_EMBEDDER, DEFAULT_RERANKER
from qdrant_rerank.search_flow import SearchCore, SearchRequest
from qdrant_rerank.text import TextSource
from qdrant_rerank.types import Embedder, Reranker, SearchOptions, SearchResults, SparseEncoder

__all__ = ["HybridSearcher"]


class HybridSearcher(SearchCore):
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
        super().__init__(
            collection,
            reranker=reranker,
            embedder=embedder,
            sparse=sparse,
            text=text,
            candidates=candidates,
            options=options,
        )
        self._owns_client = client is None
        self.client = connect() if client is None else client

    @property
    def fuses(self) -> bool:
        """Whether recall is dense and sparse, fused; the collection's schema says so.

        Raises:
            CollectionNotFoundError: no such collection.
            SchemaMismatchError: its vectors do not fit the encoders.
        """
        return self._converse(self._add_terms()).run(self._fuses_flow())

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
        request = SearchRequest(
            limit=limit,
            candidates=candidates,
            query_filter=query_filter,
            score_threshold=score_threshold,
            with_payload=with_payload,
            with_vectors=with_vectors,
            options=options,
            deadline_s=deadline_s,
        )
        [results] = self._search([query], request)
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
        request = SearchRequest(
            limit=limit,
            candidates=candidates,
            query_filter=query_filter,
            score_threshold=score_threshold,
            with_payload=with_payload,
            with_vectors=with_vectors,
            options=options,
            deadline_s=deadline_s,
        )
        return self._search(list(queries), request)

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
        flow = self._add_flow(documents, ids, batch_size, progress)
        return self._converse(self._add_terms()).run(flow)

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

    def _search(self, queries: list[str], request: SearchRequest) -> list[SearchResults]:
        terms = self._terms(queries, request)
        return self._converse(terms).run(self._search_flow(queries, request, terms))

    def _converse(self, terms: Terms) -> Conversation:
        return Conversation(self.client, self.collection, terms)
