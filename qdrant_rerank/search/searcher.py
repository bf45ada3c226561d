"""HybridSearcher: candidates from a Qdrant collection, in the order of a reranker.

Its methods are coroutines, which ``blocking`` runs in the calling thread;
:mod:`~qdrant_rerank.search.async_searcher` has the same ones for an event loop.
"""

import warnings
from collections.abc import Callable, Coroutine, Iterable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from qdrant_client import QdrantClient, models

from qdrant_rerank.embedders import ForeignEmbedder, ForeignSparse
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, DEFAULT_RERANKER
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import TextSource
from qdrant_rerank.qdrant.documents import Document
from qdrant_rerank.qdrant.lookups import Query, WithPayload, WithVectors
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder
from qdrant_rerank.qdrant.recall_request import FilterLike, Prefetches, RecallBy
from qdrant_rerank.qdrant.settings import CollectionSettings
from qdrant_rerank.qdrant.stored_states import required_encoder
from qdrant_rerank.qdrant.transport.client import connect, require_client
from qdrant_rerank.qdrant.transport.driver import CallLimits, Driver, run
from qdrant_rerank.qdrant.upload import Added, Upload, add_documents
from qdrant_rerank.reranking.grouping import GroupedResults
from qdrant_rerank.search.base import SearchCore
from qdrant_rerank.search.fill_states import FilledStates, fill_states
from qdrant_rerank.search.request import SearchRequest, read_query
from qdrant_rerank.types import PointId, RerankerLike, SearchResults, StatesPrecision
from qdrant_rerank.utils.validation import (
    require_choice,
    require_flag,
    require_positive,
    require_several,
    shown,
)

__all__ = ["HybridSearcher"]

Searcher = TypeVar("Searcher", bound=SearchCore)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def blocking(
    method: Callable[Concatenate[Searcher, Arguments], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[Searcher, Arguments], Result]:
    """Make a method that runs a coroutine method to its end in the calling thread."""

    @wraps(method)
    def call(self: Searcher, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return run(method(self, *args, **kwargs))

    return call


class HybridSearcher(SearchCore):
    r"""Searches a Qdrant collection in two stages: retrieval, then a cross-encoder's order.

    Many threads may call it at once. It is a context manager, too: leaving it closes the client,
    if the searcher made it.

    Args:
        collection: name of the collection; ``add`` creates it where there is none.
        reranker: a model name or path; any object with ``rerank(query, documents)`` (fastembed's
            ``TextCrossEncoder`` is one); a function of them; an object of sentence-transformers,
            FlashRank or ``rerankers``; a ``ClientReranker``, ``RemoteReranker``,
            ``LateInteraction`` or ``Cascade``; or None for the retrieval order.
        client: a ``QdrantClient``; None for ``QDRANT_URL`` (and ``QDRANT_API_KEY``) if set, else
            an embedded engine at ``QDRANT_PATH``, else one in memory.
        embedder: the dense encoder that the collection was, or will be, filled with: a name, a
            directory (of ONNX or model2vec), an ``Embedder``, a model of sentence-transformers,
            model2vec, fastembed, LangChain or LlamaIndex, a function of a list of texts,
            ``QdrantInference`` for a model that Qdrant runs, or None for sparse retrieval alone.
            The default one is not used where a collection has no dense vectors.
        sparse: "auto" uses BM25 where the collection has a sparse vector with Qdrant's IDF;
            "Qdrant/bm25" requires it; or a hub name or directory of a SPLADE model, a
            ``SparseEncoder`` of this package or of sentence-transformers, a fastembed
            ``SparseTextEmbedding``, ``QdrantInference("Qdrant/bm25")`` for the server's own,
            ``TextIndex(field)`` for a payload index, or None for dense retrieval alone.
        text: where a payload's text is. "auto" looks at the first hits and chooses once. Else a
            payload field, a path such as ``chunks[].text``, several fields, a template such as
            ``"{title}\n{body}"``, a preset ("langchain", "llama-index", "haystack", "mcp"), or a
            function of the payload.
        candidates: hits that the reranker reads.
        options: see :class:`SearchOptions`.
        language: language of the BM25 that ``sparse`` names, such as "german", see
            ``Bm25Encoder``; None for the one that the collection records, else English.

    Attributes:
        text: reads the texts of payloads. Its ``source`` says where: with "auto", what was chosen,
            or "auto" before the first search.
        client: the ``QdrantClient`` in use.
        collection: name of the collection.
        embedder: the dense encoder, or None.
        sparse: the sparse encoder, or None.
        reranker: the second stage, or None.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: a model cannot be found or loaded.

    Examples:
        >>> with HybridSearcher("docs") as searcher:
        ...     added = searcher.add(["Bread is baked in an oven.", "Iron melts at 1538 C."])
        ...     results = searcher.search("How hot must it be to melt iron?", limit=1)
        >>> added, results[0].payload["text"]
        (2, 'Iron melts at 1538 C.')
    """

    def __init__(
        self,
        collection: str,
        *,
        reranker: RerankerLike | None = DEFAULT_RERANKER,
        client: QdrantClient | None = None,
        embedder: DenseEncoder | ForeignEmbedder | str | Path | None = DEFAULT_EMBEDDER,
        sparse: LexicalEncoder | ForeignSparse | str | Path | None = "auto",
        text: TextSource = "auto",
        candidates: int = 100,
        options: SearchOptions | None = None,
        language: str | None = None,
    ) -> None:
        super().__init__(
            collection, reranker, embedder, sparse, text, candidates, options, language
        )
        require_client(client)
        self._owns_client = client is None
        self.client = connect() if client is None else client

    @blocking
    async def is_hybrid(self) -> bool:
        """Read the collection's schema, and return whether dense and sparse hits are fused.

        Raises:
            CollectionNotFoundError: no such collection.
            SchemaMismatchError: its vectors do not fit the encoders.
        """
        async with self._driver(self._own_limits()) as driver:
            self._first.forget()
            schema = await self._first.schema(driver)
            await self._first.learn_dimension(driver)
            return len(self._first.plan(schema, self.options).branches) > 1

    @property
    def fuses(self) -> bool:
        """The former name of :meth:`is_hybrid`."""
        warnings.warn(
            "HybridSearcher.fuses is deprecated, since it asks the server: call is_hybrid().",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.is_hybrid()

    @blocking
    async def search(
        self,
        query: Query,
        limit: int = 10,
        *,
        offset: int = 0,
        candidates: int | None = None,
        query_filter: FilterLike | None = None,
        score_threshold: float | None = None,
        with_payload: WithPayload = True,
        with_vectors: WithVectors = False,
        recall: RecallBy | None = None,
        prefetch: Prefetches | None = None,
        lookup_from: models.LookupLocation | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        options: SearchOptions | None = None,
        deadline_s: float | None = None,
    ) -> SearchResults:
        """Retrieve candidates, rerank them, and return the best.

        Args:
            query: a text; or the id of a point, for points like it: a whole number, a ``UUID``, or
                a str that is a UUID as in ``hit.id``. Then its vectors are searched with, the
                reranker compares with its text, and the point itself is not among the hits. To
                search for a UUID as a text, put a space before it.
            limit: hits to return; fewer if the collection or the filter has fewer.
            offset: hits to skip, of the order after reranking.
            candidates: hits to rerank, ``offset + limit`` or more; None for the searcher's own
                number, or for that sum if it is larger.
            query_filter: which points to consider; a ``models.Filter``, or a dict such as
                ``{"must": [{"key": "year", "range": {"gte": 2010}}]}``.
            score_threshold: lowest ``score`` to return: of the reranker, or, without one, of
                Qdrant.
            with_payload: payload of the returned hits. With a selection, the first request
                fetches only the text, and a second one the rest.
            with_vectors: vectors of the returned hits, which a second request fetches.
            recall: searched with instead of the query's vectors: a vector, a ``SparseVector``, a
                ``Document``, a query such as ``models.RecommendQuery``, or a whole
                ``models.QueryRequest``, of which only payload and vectors are changed. The
                reranker still compares with ``query``.
            prefetch: sub-requests, fused by ``options.fusion`` or searched by ``recall``;
                ``query_filter`` holds in each.
            lookup_from: where the point is stored whose id is the query, or is in ``recall``.
            shard_key_selector: the shards to ask.
            options: used instead of the searcher's own.
            deadline_s: seconds that the whole search may take; None for no limit. A
                ``TextCrossEncoder`` then scores candidates in retrieval order and stops in time,
                at most one batch late. The scored ones come first, by score; the others follow in
                retrieval order, whatever the threshold, and ``trace.status`` is "partial". Each
                stage of a ``Cascade`` does the same; what a later stage does not reach keeps the
                order of the stage before. Any other reranker is called if time remains, and
                cannot be stopped. Neither can an encoder or an embedded engine.

        Returns:
            The hits by score, highest first; ties by retrieval rank, then id; with
            ``options.diversity`` in the order that it makes. There may be fewer hits than asked
            for, or none.

        Raises:
            InvalidInputError: an empty query, or an argument out of range.
            CollectionNotFoundError: no such collection.
            SchemaMismatchError: its vectors do not fit the encoders.
            MissingTextError: a hit without text, if ``on_missing_text="raise"``; with
                ``text="auto"``, no text in any hit, or several fields that may be meant.
            QdrantConnectionError: Qdrant is down, or too slow (for ``deadline_s``, too), or its
                answer cannot be read.
            QdrantRequestError: Qdrant refused the request, or is too old for it.
            ModelOutputError: the reranker failed.
        """
        request = SearchRequest(
            limit=limit,
            offset=offset,
            candidates=candidates,
            query_filter=query_filter,
            score_threshold=score_threshold,
            with_payload=with_payload,
            with_vectors=with_vectors,
            recall=recall,
            prefetch=prefetch,
            lookup_from=lookup_from,
            shard_key_selector=shard_key_selector,
            options=options,
            deadline_s=deadline_s,
        )
        query = read_query(query)
        async with self._driver(self._limits([query], request)) as driver:
            [results] = await self._pipeline(driver, request).search([query])
            return results

    @blocking
    async def search_batch(  # noqa: D417 - the others are described in search
        self,
        queries: Iterable[Query],
        limit: int = 10,
        *,
        offset: int = 0,
        candidates: int | None = None,
        query_filter: FilterLike | None = None,
        score_threshold: float | None = None,
        with_payload: WithPayload = True,
        with_vectors: WithVectors = False,
        lookup_from: models.LookupLocation | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        options: SearchOptions | None = None,
        deadline_s: float | None = None,
        progress: bool | None = None,
    ) -> list[SearchResults]:
        """Search for several queries: one request to Qdrant, and all pairs scored together.

        Thousands of queries go some hundred at a time, which limits the candidates in memory.

        Args:
            queries: texts, or ids of points. Arguments that are not named here are as in
                :meth:`search`.
            limit: hits to return per query.
            deadline_s: seconds that the whole batch may take. The first candidates of each query
                are scored before the second ones of any.
            progress: shows a progress bar on stderr after a second; None shows one if stderr is a
                terminal.

        Returns:
            For each query, in order, what :meth:`search` returns. The times of each trace are
            those of the queries that went together; ``total_s`` counts from the call.

        Raises:
            QdrantRerankError: as :meth:`search`.
        """
        require_several("queries", queries)
        listed = list(map(read_query, queries))
        request = SearchRequest(
            limit=limit,
            offset=offset,
            candidates=candidates,
            query_filter=query_filter,
            score_threshold=score_threshold,
            with_payload=with_payload,
            with_vectors=with_vectors,
            lookup_from=lookup_from,
            shard_key_selector=shard_key_selector,
            options=options,
            deadline_s=deadline_s,
            progress=progress,
        )
        async with self._driver(self._limits(listed, request)) as driver:
            return await self._search_parts(driver, listed, request)

    @blocking
    async def search_groups(  # noqa: D417 - the others are described in search
        self,
        query: Query,
        *,
        group_by: str,
        group_size: int = 3,
        limit: int = 10,
        offset: int = 0,
        candidates: int | None = None,
        query_filter: FilterLike | None = None,
        score_threshold: float | None = None,
        with_payload: WithPayload = True,
        with_vectors: WithVectors = False,
        with_lookup: str | models.WithLookup | None = None,
        recall: RecallBy | None = None,
        prefetch: Prefetches | None = None,
        lookup_from: models.LookupLocation | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        options: SearchOptions | None = None,
        deadline_s: float | None = None,
    ) -> GroupedResults:
        """Retrieve and rerank chunks, and return them in groups, such as by document.

        Args:
            query: a text, or the id of a point. Arguments that are not named here are as in
                :meth:`search`, for chunks.
            group_by: payload field, or path, that chunks of one group share. Chunks without it, or
                with a value there that is neither a whole number nor a text, are left out. A
                chunk with several values is in several groups, as in Qdrant.
            group_size: chunks per group at most, its best ones.
            limit: groups to return; fewer if the candidates have fewer.
            offset: groups to skip.
            candidates: chunks to rerank; many of them may belong to one group.
            with_lookup: name of a collection whose points have the groups' ids, or a
                ``models.WithLookup``; its points are returned with the groups.

        Returns:
            The groups in the order of their best chunks, each a ``models.PointGroup``.

        Raises:
            QdrantRerankError: as :meth:`search`.

        Examples:
            >>> searcher = HybridSearcher("chunks")
            >>> added = searcher.add(
            ...     [
            ...         {"text": "Iron melts at 1538 degrees.", "book": "metals"},
            ...         {"text": "Bread is baked in an oven.", "book": "baking"},
            ...         {"text": "Copper melts at 1085 degrees.", "book": "metals"},
            ...     ]
            ... )
            >>> groups = searcher.search_groups("When does iron melt?", group_by="book")
            >>> [(group.id, len(group.hits)) for group in groups]
            [('metals', 2), ('baking', 1)]
        """
        request = SearchRequest(
            limit=limit,
            offset=offset,
            candidates=candidates,
            query_filter=query_filter,
            score_threshold=score_threshold,
            with_payload=with_payload,
            with_vectors=with_vectors,
            recall=recall,
            prefetch=prefetch,
            lookup_from=lookup_from,
            shard_key_selector=shard_key_selector,
            group_by=group_by,
            group_size=group_size,
            with_lookup=with_lookup,
            options=options,
            deadline_s=deadline_s,
        )
        query = read_query(query)
        limits = self._limits([query], request)
        if not isinstance(group_by, str) or not group_by:
            raise InvalidInputError(f"group_by is {shown(group_by)}; expected a payload field.")
        async with self._driver(limits) as driver:
            return await self._pipeline(driver, request).search_groups(query, group_by)

    @blocking
    async def add(
        self,
        documents: Iterable[Document],
        *,
        ids: Iterable[PointId] | None = None,
        batch_size: int = 256,
        parallel: int = 1,
        resume: bool = False,
        settings: CollectionSettings | None = None,
        progress: bool | None = None,
        id_field: str | None = None,
        language: str | None = None,
        avg_len: float | None = None,
    ) -> Added:
        """Embed documents and store them; create the collection where there is none.

        Args:
            documents: texts, mappings (the payload), or ``PointStruct``s, whose missing vectors
                are embedded. Any iterable. All documents of a list, or of anything else with a
                length, are checked before one is stored. An iterator is read once, a batch at a
                time, and a batch with a wrong document is not stored.
            ids: one per document, whole numbers or UUIDs; None for the points' own, or a UUIDv5 of
                the text and the payload, so that adding twice does not duplicate. (In a collection
                that version 0.1 created: of the text alone.)
            batch_size: documents per request, fewer where they would be too large for it.
            parallel: requests at a time; memory holds as many batches.
            resume: skip documents whose ids are in the collection already, without embedding
                them, such as after an ``add`` that was interrupted.
            settings: settings of a collection that has to be created: shards, replicas,
                quantisation, payload indexes. Of one that is there, only ``document_states`` is
                compared.
            progress: shows a progress bar on stderr; None shows one if stderr is a terminal.
            id_field: payload field, or path, whose value tells documents apart, such as "url":
                ids are made of it alone, so that a changed document takes the place of its former
                self.
            language: language of BM25 in a new collection, which records it; None for the
                searcher's. Another one than the collection records is refused.
            avg_len: average length of the documents for BM25, in terms, stop words not counted,
                which a new collection records. None measures it before a collection's first vectors
                are made: over all documents of a list, which is read twice then, or over the first
                1,024 of an iterator. A collection that was filled without such a record keeps 256.

        Returns:
            The number of documents stored by this call. Its attribute ``overwritten`` is the number
            of those that took the place of another document of this call: one with the same id and
            another payload, which is also logged as a warning.

        If an error is no ``IncompleteAddError``, the batches before the one that failed are stored;
        the error has the number of their documents, and ``resume=True`` goes on from there.

        Raises:
            InvalidInputError: not a document, a wrong id, or not one id per document; or a
                collection that is there stores no states as ``settings`` say.
            MissingTextError: a document without text.
            SchemaMismatchError: the collection's vectors do not fit the encoders, or it records
                another language or average length.
            QdrantConnectionError: Qdrant is down or too slow, or its answer cannot be read.
            QdrantRequestError: Qdrant refused.
            IncompleteAddError: some batches were not stored, but others after them were; the error
                has the ids. A batch is sent up to three times if its failure is transient.
        """
        upload = Upload(batch_size, parallel, resume, progress, id_field, language, avg_len)
        async with self._driver(self._own_limits()) as driver:
            return await add_documents(
                driver,
                self._first,
                documents,
                ids,
                choice=self._choice,
                options=self.options,
                settings=settings,
                upload=upload,
                look_at=self._look_at,
                reranker=self._states_encoder(),
            )

    @blocking
    async def fill_states(
        self,
        *,
        precision: StatesPrecision | None = None,
        batch_size: int = 64,
        progress: bool | None = None,
    ) -> FilledStates:
        """Store the states of all documents that have no current ones; see ``docs/states.md``.

        The collection may be searched meanwhile. A call that was interrupted is continued by the
        next one. Nothing else of a point is touched.

        Args:
            precision: "int8", "float16" or "pq"; None for what the collection records, or else
                int8.
            batch_size: documents per request.
            progress: shows a progress bar on stderr; None shows one if stderr is a terminal.

        Returns:
            How many points there are, and how many got states.

        Raises:
            InvalidInputError: an argument is wrong, the lower layers of the reranker do not see
                each text alone, it has no quantizer for "pq", or the collection has data of its own
                in the field of the states. Nothing was written.
            CollectionNotFoundError: there is no such collection.
            QdrantError: Qdrant failed. What was written stays.
        """
        if precision is not None:
            require_choice("precision", precision, StatesPrecision)
        require_positive("batch_size", batch_size, optional=False)
        require_flag("progress", progress, optional=True)
        encoder = required_encoder(self._states_encoder())
        async with self._driver(self._own_limits()) as driver:
            return await fill_states(
                driver,
                self._first,
                self._choice,
                encoder,
                precision=precision,
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

    def _driver(self, limits: CallLimits) -> nullcontext[Driver]:
        return nullcontext(Driver(self.client, self.collection, limits))
