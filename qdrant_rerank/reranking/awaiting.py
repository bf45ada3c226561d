"""Queries and documents -> scores, by a reranker that an event loop awaits."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.options import OnRerankError
from qdrant_rerank.reranking.adapters import PeerReranker
from qdrant_rerank.reranking.late_interaction import MaxSim
from qdrant_rerank.reranking.remote import RemoteReranker
from qdrant_rerank.reranking.scored import Answer, Scored, failure, joined
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = [
    "AwaitedCascade",
    "AwaitedReranker",
    "Compute",
    "awaited",
    "given_scores_async",
    "score_async",
]

QUERIES_AT_ONCE = 8  # that an awaited reranker is asked at the same time

#: Calls a function in a thread, and is awaited: (function, *arguments) -> its answer.
Compute = Callable[..., Awaitable[Any]]


@runtime_checkable
class AwaitedCascade(Protocol):
    """A cascade, which has to be awaited if one of its stages has to be."""

    @property
    def asynchronous(self) -> bool:
        """Whether it has to be awaited."""
        ...

    def awaited_only(self) -> str:
        """Return the message for a caller that cannot await it."""
        ...

    async def rerank_until_async(
        self,
        query: str,
        documents: Sequence[str],
        deadline: Deadline,
        *,
        first: NDArray[np.float64] | None,
        compute: Compute,
    ) -> tuple[Sequence[float], int]:
        """Return what ``rerank_until`` or ``rerank_after`` returns."""
        ...


#: Rerankers that an event loop can await.
AwaitedReranker = PeerReranker | RemoteReranker | AwaitedCascade


def awaited(reranker: Any) -> TypeGuard[AwaitedReranker]:
    """Whether a caller with an event loop awaits the reranker, instead of calling it in a thread.

    An awaited cascade calls those of its stages that need a thread in one.
    """
    if isinstance(reranker, RemoteReranker):
        return True
    return isinstance(reranker, PeerReranker | AwaitedCascade) and reranker.asynchronous


async def given_scores_async(
    reranker: AwaitedCascade,
    work: Sequence[tuple[str, Sequence[str]]],
    first: Sequence[NDArray[np.float64]],
    max_sim: MaxSim,
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
    *,
    compute: Compute = asyncio.to_thread,
) -> Scored:
    """Return what :func:`given_scores` returns, by a cascade that is awaited."""
    if max_sim.cause is not None:
        scored = joined(work, [Answer(cause=max_sim.cause)] * len(work), time.perf_counter())
    else:
        scored = await score_async(reranker, work, deadline, on_error, first=first, compute=compute)
    return replace(scored, engine=max_sim.engine)


async def score_async(
    reranker: AwaitedReranker,
    work: Sequence[tuple[str, Sequence[str]]],
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
    *,
    first: Sequence[NDArray[np.float64]] | None = None,
    compute: Compute = asyncio.to_thread,
) -> Scored:
    """Score as :func:`score` does, by a reranker that is awaited in the running event loop.

    At the deadline it is no longer waited for. Several queries are asked at the same time.

    Args:
        reranker: the reranker.
        work: as of :func:`score`.
        deadline: as of :func:`score`.
        on_error: as of :func:`score`.
        first: scores of the first stage of a cascade, for each query; None if it has none yet.
        compute: calls the stages of a cascade that are not awaited.
    """
    began = time.perf_counter()
    turns = asyncio.Semaphore(QUERIES_AT_ONCE)

    async def ask(
        query: str, documents: Sequence[str], given: NDArray[np.float64] | None
    ) -> Answer:
        async with turns:
            try:
                if isinstance(reranker, AwaitedCascade):
                    ordered, late = await reranker.rerank_until_async(
                        query, documents, deadline, first=given, compute=compute
                    )
                    return Answer(np.asarray(ordered, dtype=np.float64), late)
                if isinstance(reranker, RemoteReranker):
                    done, late = await reranker.rerank_until_async(query, documents, deadline)
                    return Answer(np.asarray(done, dtype=np.float64), late)
                if deadline.passed:
                    return Answer()
                async with asyncio.timeout(deadline.remaining) as limit:
                    scores = await reranker.rerank_async(query, documents)
                return Answer(np.asarray(scores, dtype=np.float64))
            except TimeoutError as error:
                if isinstance(reranker, PeerReranker) and limit.expired():
                    return Answer()
                return Answer(cause=failure(error, on_error))
            except Exception as error:
                return Answer(cause=failure(error, on_error))

    before = [None] * len(work) if first is None else first
    asking = [
        asyncio.ensure_future(ask(*one, given)) for one, given in zip(work, before, strict=True)
    ]
    try:
        answers = await asyncio.gather(*asking)
    finally:
        for one in asking:  # after an error, or where nobody waits any more
            one.cancel()
    return joined(work, answers, began)
