"""AsyncHybridSearcher: the same two stages for an event loop.

A thin shell: what a search does is in :mod:`~qdrant_rerank.search.pipeline`; here an
:class:`~qdrant_rerank.qdrant.transport.driver.AsyncDriver` does it, models and embedded
engines in threads.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank.errors import InvalidInputError, QdrantConnectionError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, DEFAULT_RERANKER
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import TextSource
from qdrant_rerank.qdrant.documents import Document, PointId
from qdrant_rerank.qdrant.lookups import Query, WithPayload, WithVectors
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder
from qdrant_rerank.qdrant.recall_request import Prefetches, RecallBy
from qdrant_rerank.qdrant.settings import CollectionSettings
from qdrant_rerank.qdrant.transport.client import connect_async, is_local
from qdrant_rerank.qdrant.transport.driver import AsyncDriver
from qdrant_rerank.qdrant.transport.steps import CallLimits, Flow
from qdrant_rerank.qdrant.upload import Upload
from qdrant_rerank.reranking.grouping import GroupedResults
from qdrant_rerank.search.base import SearchCore
from qdrant_rerank.search.request import SearchRequest
from qdrant_rerank.types import Reranker, SearchResults
from qdrant_rerank.utils.deadline import Deadline
from qdrant_rerank.utils.validation import require_positive, require_several

__all__ = ["AsyncHybridSearcher"]

Result = TypeVar("Result")


class AsyncHybridSearcher(SearchCore):
    """:class:`~qdrant_rerank.HybridSearcher` for an event loop, with the same arguments.

    The event loop waits for sockets alone: embedding, reranking and embedded engines run in
    threads. A task that is cancelled gives up its request at once and its reranking within one
    run of the model; an embedder, a foreign reranker or an embedded engine that has been asked
    finishes in its thread, unheard.

    Use it in one event loop, and close it there, best with ``async with``.

    Args:
        collection: as of ``HybridSearcher``, as are all others that are not named here.
        client: an ``AsyncQdrantClient``, or an embedded engine of either kind; None for
            ``QDRANT_URL`` (and ``QDRANT_API_KEY``) if set, else an embedded engine at
            ``QDRANT_PATH``, else one in memory.
        concurrency: calls at work at a time, and threads; the others wait their turn, in order.
            ``deadline_s`` counts from the call.

    Attributes:
        client: the client in use.
        concurrency: as given.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: a model cannot be found or loaded.

    Examples:
        >>> import asyncio
        >>> async def main():
        ...     async with AsyncHybridSearcher("docs") as searcher:
        ...         await searcher.add(["Bread is baked in an oven.", "Iron melts at 1538 C."])
        ...         questions = ["How hot must it be to melt iron?", "What is baked?"]
        ...         return await asyncio.gather(*map(searcher.search, questions))
        >>> [results[0].payload["text"] for results in asyncio.run(main())]
        ['Iron melts at 1538 C.', 'Bread is baked in an oven.']
    """

    def __init__(
        self,
        collection: str,
        *,
        reranker: Reranker | str | Path | None = DEFAULT_RERANKER,
        client: AsyncQdrantClient | QdrantClient | None = None,
        embedder: DenseEncoder | str | Path | None = DEFAULT_EMBEDDER,
        sparse: LexicalEncoder | str | None = "auto",
        text: TextSource = "text",
        candidates: int = 100,
        options: SearchOptions | None = None,
        concurrency: int = 8,
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
        require_positive("concurrency", concurrency, optional=False)
        if isinstance(client, QdrantClient) and not is_local(client):
            raise InvalidInputError(
                "client is a QdrantClient of a server, whose calls would block the event loop; "
                "expected an AsyncQdrantClient. Pass AsyncQdrantClient with the same arguments."
            )
        self.concurrency = concurrency
        self._turns = asyncio.Semaphore(concurrency)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="qdrant-rerank-async")
        self._owns_client = client is None
        self.client = connect_async() if client is None else client

    async def search(
        self,
        query: Query,
        limit: int = 10,
        *,
        offset: int = 0,
        candidates: int | None = None,
        query_filter: models.Filter | None = None,
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
        """What ``HybridSearcher.search`` returns and raises, for the same arguments.

        With ``deadline_s``, an embedded engine is no longer waited for either.
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
        [results] = await self._search([query], request)
        return results

    async def search_batch(
        self,
        queries: Iterable[Query],
        limit: int = 10,
        *,
        offset: int = 0,
        candidates: int | None = None,
        query_filter: models.Filter | None = None,
        score_threshold: float | None = None,
        with_payload: WithPayload = True,
        with_vectors: WithVectors = False,
        lookup_from: models.LookupLocation | None = None,
        shard_key_selector: models.ShardKeySelector | None = None,
        options: SearchOptions | None = None,
        deadline_s: float | None = None,
        progress: bool | None = None,
    ) -> list[SearchResults]:
        """What ``HybridSearcher.search_batch`` returns and raises, for the same arguments."""
        require_several("queries", queries)
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
        return await self._search(list(queries), request)

    async def search_groups(
        self,
        query: Query,
        *,
        group_by: str,
        group_size: int = 3,
        limit: int = 10,
        offset: int = 0,
        candidates: int | None = None,
        query_filter: models.Filter | None = None,
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
        """What ``HybridSearcher.search_groups`` returns and raises, for the same arguments."""
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
        terms = self._terms([query], request)
        return await self._run(self._groups_flow(query, request, terms), terms)

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
    ) -> int:
        """What ``HybridSearcher.add`` does; ``documents`` is read in a thread, a batch at a time.

        Cancelled, it leaves the batches that were stored; adding them again does not duplicate.
        """
        flow = self._add_flow(
            documents, ids, Upload(batch_size, parallel, resume, progress), settings
        )
        return await self._run(flow, self._add_terms())

    async def close(self) -> None:
        """Wait for what the threads are at, and close the client, if the searcher made it.

        A call that is on its way ends with a ``QdrantConnectionError``.
        """
        await asyncio.to_thread(self._threads.shutdown)
        if self._owns_client:
            if isinstance(self.client, AsyncQdrantClient):
                await self.client.close()
            else:
                self.client.close()

    async def __aenter__(self) -> "AsyncHybridSearcher":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _search(self, queries: list[Query], request: SearchRequest) -> list[SearchResults]:
        terms = self._terms(queries, request)
        return await self._run(self._search_flow(queries, request, terms), terms)

    async def _run(self, flow: Flow[Result], terms: CallLimits) -> Result:
        async with self._turn(terms.deadline):
            talk = AsyncDriver(self.client, self.collection, terms, self._threads)
            return await talk.run(flow)

    @asynccontextmanager
    async def _turn(self, deadline: Deadline) -> AsyncIterator[None]:
        """One of ``concurrency`` places, as soon as there is one."""
        try:
            async with asyncio.timeout(deadline.remaining):
                await self._turns.acquire()
        except TimeoutError as error:
            raise QdrantConnectionError(
                f"No time was left to ask Qdrant for {self.collection!r}: {self.concurrency} calls "
                "were at work all the while. Give it longer (deadline_s), or allow more at a time "
                "(concurrency)."
            ) from error
        try:
            yield
        finally:
            self._turns.release()
