"""Drives the steps of one call: requests to Qdrant, and the work in between.

In time, one caller at a time where the engine needs that, and failing with our errors alone.
``Driver`` does the steps in the calling thread, ``AsyncDriver`` awaits them.
"""

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from qdrant_client import QdrantClient

from qdrant_rerank.errors import CollectionNotFoundError, QdrantConnectionError, QdrantError
from qdrant_rerank.qdrant.transport.client import AnyClient, exclusive, is_local
from qdrant_rerank.qdrant.transport.client_errors import not_found, translate
from qdrant_rerank.qdrant.transport.deadlines import requests_end_by
from qdrant_rerank.qdrant.transport.retries import async_retrying_within, retrying_within
from qdrant_rerank.qdrant.transport.steps import Ask, AskMany, CallLimits, Flow, Step
from qdrant_rerank.utils.deadline import LONGEST_S, Cancellation

__all__ = ["AsyncDriver", "Driver"]

Answer = TypeVar("Answer")
Send = Callable[[Any, int | None], Any]


class Driver:
    """Does the steps of one search, or of one ``add``, in the calling thread.

    Args:
        client: to ask; one of the async kind only if it is an embedded engine.
        collection: named in errors.
        terms: what to keep to; counts what is sent again.
    """

    def __init__(self, client: AnyClient, collection: str, terms: CallLimits) -> None:
        self._client = client
        self._collection = collection
        self._terms = terms

    def run(self, flow: Flow[Answer]) -> Answer:
        """Do the steps of a flow, and return its result.

        Raises:
            QdrantRerankError: what a step raised, unless the flow deals with it.
        """
        advance: Callable[[], Step] | None = partial(next, flow)
        try:
            while advance is not None:
                try:
                    step = advance()
                except StopIteration as done:
                    result: Answer = done.value
                    return result
                try:
                    answer = self._do(step)
                except BaseException as error:
                    advance = partial(flow.throw, error)
                else:
                    advance = partial(flow.send, answer)
        finally:
            advance = None  # it may hold an error whose traceback holds this frame
        raise AssertionError("a flow ends by returning")

    def _do(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return self.ask(step.send)
        if not isinstance(step, AskMany):
            return step.work()
        outcome = partial(self._outcome, retries=step.retries)
        if len(step.sends) == 1:  # no thread for one
            return [outcome(step.sends[0])]
        with ThreadPoolExecutor(max(len(step.sends), 1)) as threads:
            return list(threads.map(outcome, step.sends))

    def _outcome(self, send: Send, retries: int) -> Any:
        try:
            return self.ask(send, at_least=retries)
        except QdrantError as error:
            return error

    def ask(self, send: Send, *, at_least: int = 0) -> Any:
        """Send one request, and again if need be.

        Args:
            send: see :class:`~qdrant_rerank.qdrant.transport.steps.Ask`.
            at_least: times to send it again, if the terms have fewer.

        Raises:
            CollectionNotFoundError: no such collection; the message lists those that exist.
            QdrantConnectionError: no answer, too late, or not one that Qdrant gives.
            QdrantRequestError: Qdrant refused.
        """
        retries = max(self._terms.retries, at_least)
        retrying = retrying_within(retries, self._terms.deadline)
        try:
            return retrying(self.ask_once, send)
        finally:
            self._terms.retried += retrying.statistics["attempt_number"] - 1

    def ask_once(self, send: Send) -> Any:
        """The same without asking again."""
        timeout = _timeout(self._terms, self._collection)
        try:
            return self._send(send, timeout)
        except Exception as error:
            ours = translate(error, self._client, self._collection)
            if ours is None:
                raise
            if isinstance(ours, CollectionNotFoundError):
                ours = not_found(self._client, self._collection, self._names())
            raise ours from error

    def _send(self, send: Send, timeout: int | None) -> Any:
        if is_local(self._client):
            with exclusive(self._client):
                answer = send(self._client, timeout)
                return _finished(answer) if inspect.iscoroutine(answer) else answer
        assert isinstance(self._client, QdrantClient)
        until = self._terms.deadline.sooner(self._terms.timeout_s)
        with requests_end_by(self._client, until):
            return send(self._client, timeout)

    def _names(self) -> list[str] | None:
        try:
            answer = self._send(lambda client, timeout: client.get_collections(), None)
        except Exception:  # the list is a courtesy; its failure must not hide the error
            return None
        return sorted(item.name for item in answer.collections)


class AsyncDriver:
    """Awaits the steps of one search, or of one ``add``: work, and embedded engines, in threads.

    A task that is cancelled stops its work within one run of a model.

    Args:
        client: to ask: an ``AsyncQdrantClient``, or an embedded engine of either kind.
        collection: named in errors.
        terms: what to keep to; counts what is sent again.
        threads: where the work is done.
    """

    def __init__(
        self, client: AnyClient, collection: str, terms: CallLimits, threads: ThreadPoolExecutor
    ) -> None:
        self._client = client
        self._collection = collection
        self._terms = terms
        self._threads = threads
        self._cancellation = Cancellation()
        # Its calls block, whatever their kind.
        self._blocking = Driver(client, collection, terms) if is_local(client) else None

    async def run(self, flow: Flow[Answer]) -> Answer:
        """Do the steps of a flow, and return its result.

        Raises:
            QdrantRerankError: what a step raised, unless the flow deals with it.
        """
        advance: Callable[[], Step] | None = partial(next, flow)
        try:
            while advance is not None:
                try:
                    step = advance()
                except StopIteration as done:
                    result: Answer = done.value
                    return result
                try:
                    answer = await self._do(step)
                except BaseException as error:
                    advance = partial(flow.throw, error)
                else:
                    advance = partial(flow.send, answer)
        except asyncio.CancelledError:
            self._cancellation.cancel()
            raise
        finally:
            advance = None  # it may hold an error whose traceback holds this frame
        raise AssertionError("a flow ends by returning")

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return await self.ask(step.send)
        if not isinstance(step, AskMany):
            return await self._thread(step.work)
        doing = (self._outcome(send, step.retries) for send in step.sends)
        outcomes = await asyncio.gather(*doing, return_exceptions=True)  # none is left at work
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, QdrantError):
                raise outcome
        return outcomes

    async def _outcome(self, send: Send, retries: int) -> Any:
        try:
            return await self.ask(send, at_least=retries)
        except QdrantError as error:
            return error

    async def ask(self, send: Send, *, at_least: int = 0) -> Any:
        """Send one request, and again if need be; see :meth:`Driver.ask`."""
        retries = max(self._terms.retries, at_least)
        retrying = async_retrying_within(retries, self._terms.deadline)
        try:
            return await retrying(self._ask_once, send)
        finally:
            self._terms.retried += retrying.statistics["attempt_number"] - 1

    async def _ask_once(self, send: Send) -> Any:
        timeout = _timeout(self._terms, self._collection)
        try:
            return await self._send(send, timeout)
        except Exception as error:
            ours = translate(error, self._client, self._collection)
            if ours is None:
                raise
            if isinstance(ours, CollectionNotFoundError):
                ours = not_found(self._client, self._collection, await self._names())
            raise ours from error

    async def _send(self, send: Send, timeout: int | None) -> Any:
        blocking = self._blocking
        # Covers the whole request, which the client's own timeout does not.
        async with asyncio.timeout(self._terms.deadline.sooner(self._terms.timeout_s).remaining):
            if blocking is not None:
                return await self._thread(lambda: blocking.ask_once(send))
            return await send(self._client, timeout)

    async def _thread(self, work: Callable[[], Answer]) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            doing = loop.run_in_executor(self._threads, self._cancellation.bind(work))
        except RuntimeError as error:  # its threads have ended
            raise QdrantConnectionError(
                f"The searcher of {self._collection!r} was closed. Make another, or search within "
                "its 'async with' block."
            ) from error
        return await doing

    async def _names(self) -> list[str] | None:
        try:
            answer = await self._send(lambda client, timeout: client.get_collections(), None)
        except Exception:  # the list is a courtesy; its failure must not hide the error
            return None
        return sorted(item.name for item in answer.collections)


def _timeout(terms: CallLimits, collection: str) -> int | None:
    """Whole seconds that the next request may take, as the client takes them."""
    left = terms.deadline.remaining
    if left == 0:
        raise QdrantConnectionError(
            f"No time was left to ask Qdrant for {collection!r}. Give it longer: deadline_s."
        )
    timeouts = [terms.timeout_s, None if left is None else math.ceil(left)]
    shortest = min((value for value in timeouts if value is not None), default=None)
    return None if shortest is None else min(shortest, LONGEST_S)


def _finished(answer: Coroutine[Any, Any, Answer]) -> Answer:
    """What an embedded engine's coroutine returns: it never waits, so it needs no event loop."""
    try:
        answer.send(None)
    except StopIteration as done:
        result: Answer = done.value
        return result
    answer.close()
    raise AssertionError("the embedded engine waits for something, which it never did")
