"""The scores of a request, unless its deadline passes or its client hangs up before."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.serving.http_errors import GONE, HttpError
from qdrant_rerank.serving.metrics import Metrics
from qdrant_rerank.serving.models import ServedModel
from qdrant_rerank.utils.deadline import Deadline
from qdrant_rerank.utils.spans import span

__all__ = ["score", "unless_gone"]

Answer = TypeVar("Answer")


async def score(
    model: ServedModel,
    pairs: Sequence[tuple[str, str]],
    deadline: Deadline,
    metrics: Metrics,
    document_tokens: int | None = None,
) -> PairScores:
    """Score pairs when it is their turn. A task that is cancelled gives up its turns at once.

    Args:
        model: scores them.
        pairs: (query, document) texts; at least one.
        deadline: when the scores must be there.
        metrics: counts the pairs.
        document_tokens: tokens of a document that are read; None for the model's limit.

    Raises:
        QueueFullError: too much work waits.
        DeadlineError: the time was up.
        ModelOutputError: the model failed.
    """
    tokens = model.estimate(pairs, document_tokens)
    job = model.scheduler.submit(pairs, tokens, deadline, document_tokens=document_tokens)
    try:
        with span("rerank") as noted:
            noted.note(model=model.name, pairs=len(pairs))
            async with asyncio.timeout(deadline.remaining):
                found = await asyncio.wrap_future(job.future)
            noted.note(tokens=found.tokens)
    finally:
        model.scheduler.cancel(job)
    metrics.scored(found, job.waited_s or 0.0)
    return found


async def client_gone(request: Request) -> None:
    """Wait until the client has hung up; for a request whose body was read."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


async def unless_gone(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Do work for a client, and stop it when the client hangs up.

    Raises:
        HttpError: the client has hung up.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(client_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HttpError(GONE, "The client has gone.")
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)
