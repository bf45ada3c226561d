"""AsyncHybridSearcher: the same searches for an event loop.

Its calls are those of :mod:`~qdrant_rerank.search.searcher`, whose steps an
:class:`~qdrant_rerank.qdrant.transport.driver.AsyncDriver` awaits.
"""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_rerank.embedders import ForeignEmbedder, ForeignSparse
from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, DEFAULT_RERANKER
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import TextSource
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder
from qdrant_rerank.qdrant.transport.client import connect_async, require_async_client
from qdrant_rerank.qdrant.transport.driver import AsyncDriver, CallLimits
from qdrant_rerank.search.base import SearchCore
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankerLike
from qdrant_rerank.utils.validation import require_positive

__all__ = ["AsyncHybridSearcher"]

# Threads per call at a time. More than one is needed only where a call was cancelled, or has ended
# at its deadline, while its encoder, which cannot be stopped, still has a thread.
ABANDONED = 4

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def awaited(
    method: Callable[Concatenate[Any, Arguments], Result],
) -> Callable[Concatenate[Any, Arguments], Coroutine[Any, Any, Result]]:
    """The coroutine method that a method of ``HybridSearcher`` runs to its end."""
    coroutine_method: Any = inspect.unwrap(method)
    return coroutine_method  # type: ignore[no-any-return]


class AsyncHybridSearcher(SearchCore):
    """:class:`~qdrant_rerank.HybridSearcher` for an event loop, with the same arguments.

    The event loop waits for sockets only: embedding, reranking and embedded engines run in
    threads. An async reranker, such as a ``ClientReranker`` of an async client, and a
    ``RemoteReranker`` are awaited. A task that is cancelled gives up its requests at once, and its
    reranking within one batch of the model. An embedder, another kind of reranker or an embedded
    engine cannot be stopped: it finishes in its thread, and its result is dropped.

    Use it in one event loop, and close it there, best with ``async with``.

    Args:
        collection: name of the collection. Arguments that are not named here are as of
            ``HybridSearcher``.
        client: an ``AsyncQdrantClient``, or an embedded engine of either kind; None for
            ``QDRANT_URL`` (and ``QDRANT_API_KEY``) if set, else an embedded engine at
            ``QDRANT_PATH``, else one in memory.
        concurrency: calls at work at a time; the others wait their turn, in order. Up to four
            times as many threads do what calls that have ended cannot stop.
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

    _in_event_loop = True

    def __init__(
        self,
        collection: str,
        *,
        reranker: RerankerLike | None = DEFAULT_RERANKER,
        client: AsyncQdrantClient | QdrantClient | None = None,
        embedder: DenseEncoder | ForeignEmbedder | str | Path | None = DEFAULT_EMBEDDER,
        sparse: LexicalEncoder | ForeignSparse | str | Path | None = "auto",
        text: TextSource = "auto",
        candidates: int = 100,
        options: SearchOptions | None = None,
        language: str | None = None,
        concurrency: int = 8,
    ) -> None:
        super().__init__(
            collection, reranker, embedder, sparse, text, candidates, options, language
        )
        require_positive("concurrency", concurrency, optional=False)
        require_async_client(client)
        self.concurrency = concurrency
        self._start_threads()
        self._owns_client = client is None
        self.client = connect_async() if client is None else client

    search = awaited(HybridSearcher.search)
    """Search as :meth:`HybridSearcher.search` does, which describes the arguments.

    With ``deadline_s``, an embedded engine is no longer waited for either.
    """

    search_batch = awaited(HybridSearcher.search_batch)
    """Search as :meth:`HybridSearcher.search_batch` does, which describes the arguments."""

    search_groups = awaited(HybridSearcher.search_groups)
    """Search as :meth:`HybridSearcher.search_groups` does, which describes the arguments."""

    add = awaited(HybridSearcher.add)
    """Store documents as :meth:`HybridSearcher.add` does, which describes the arguments.

    ``documents`` is read in a thread, a batch at a time. A task that is cancelled leaves the
    batches that were stored; adding them again does not duplicate.
    """

    fill_states = awaited(HybridSearcher.fill_states)
    """Store states as :meth:`HybridSearcher.fill_states` does, which describes the arguments."""

    is_hybrid = awaited(HybridSearcher.is_hybrid)
    """Read the schema as :meth:`HybridSearcher.is_hybrid` does."""

    async def close(self) -> None:
        """Wait for the threads to finish, and close the client, if the searcher made it.

        A call that is not done ends with a ``QdrantConnectionError``.
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

    def _start_threads(self) -> None:
        self._process = os.getpid()
        self._turns = asyncio.Semaphore(self.concurrency)
        self._threads = ThreadPoolExecutor(
            ABANDONED * self.concurrency, thread_name_prefix="qdrant-rerank-async"
        )

    @asynccontextmanager
    async def _driver(self, limits: CallLimits) -> AsyncIterator[AsyncDriver]:
        """Wait for one of ``concurrency`` places; a task that is cancelled stops its work."""
        if self._process != os.getpid():
            self._start_threads()  # a forked child has none of its parent's
        try:
            async with asyncio.timeout(limits.deadline.remaining):
                await self._turns.acquire()
        except TimeoutError as error:
            raise QdrantConnectionError(
                f"No time was left to ask Qdrant for {self.collection!r}: {self.concurrency} calls "
                "were at work all the while. Give it longer (deadline_s), or allow more at a time "
                "(concurrency)."
            ) from error
        driver = AsyncDriver(self.client, self.collection, limits, self._threads)
        try:
            yield driver
        except asyncio.CancelledError:
            driver.cancel()
            raise
        finally:
            self._turns.release()
