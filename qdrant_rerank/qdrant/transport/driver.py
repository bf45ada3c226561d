"""Does the steps of one call: requests to Qdrant, and the work between them.

A search and an ``add`` are each one coroutine, written once. It awaits a driver for every step:
:class:`Driver` does the step at once in the calling thread, so that the coroutine never waits and
:func:`run` brings it to its end; :class:`AsyncDriver` waits for it in an event loop.
"""

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar

from qdrant_client import QdrantClient

from qdrant_rerank.errors import CollectionNotFoundError, QdrantConnectionError, QdrantError
from qdrant_rerank.qdrant.transport.client import AnyClient, exclusive, is_local
from qdrant_rerank.qdrant.transport.client_errors import not_found, translate
from qdrant_rerank.qdrant.transport.deadlines import Exchange, watched
from qdrant_rerank.qdrant.transport.forks import own_connections
from qdrant_rerank.qdrant.transport.retries import seconds_to_wait
from qdrant_rerank.utils.deadline import LONGEST_S, NO_DEADLINE, Cancellation, Deadline, within

__all__ = ["AsyncDriver", "CallLimits", "Driver", "run"]

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
#: Calls the client, to the same effect if it is called twice. It is given the client and the
#: timeout in whole seconds, or None; an ``AsyncQdrantClient`` has the same calls, and returns an
#: awaitable.
Send = Callable[[QdrantClient, int | None], Answer]


@dataclass(slots=True)
class CallLimits:
    """Limits of one call, and how often its requests were sent again.

    Attributes:
        timeout_s: whole seconds that a request may take; None for the client's own.
        retries: times that a request is sent again if its failure is transient.
        deadline: when all must be done, retries and the waits before them included.
        consistency: replicas that must agree on a read, for messages.
        retried: requests that were sent again so far.
        began: when the call began, on the clock of ``time.perf_counter``.
    """

    timeout_s: int | None = None
    retries: int = 0
    deadline: Deadline = NO_DEADLINE
    consistency: Any = None
    retried: int = 0
    began: float = field(default_factory=time.perf_counter)


def run(steps: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine that never waits to its end, in the calling thread."""
    try:
        steps.send(None)
    except StopIteration as done:
        result: Answer = done.value
        return result
    steps.close()
    raise AssertionError("The coroutine waits for an event loop, which only an AsyncDriver has.")


class Driver:
    """Does the steps of one search, or of one ``add``, in the calling thread.

    Args:
        client: the client to ask; one of the async kind only if it is an embedded engine.
        collection: the name that errors have.
        limits: what to keep to; it counts the requests that are sent again.

    Raises:
        QdrantConnectionError: the client is of the process that this one was forked from, and
            cannot be given connections of its own.
    """

    #: Whether there is an event loop, so that coroutines of encoders and rerankers can be awaited.
    awaits = False

    def __init__(self, client: AnyClient, collection: str, limits: CallLimits) -> None:
        own_connections(client)
        self.limits = limits
        self._client = client
        self.collection = collection

    @property
    def embedded(self) -> bool:
        """Whether an embedded engine is asked, and no server."""
        return is_local(self._client)

    async def request(self, send: Send[Answer], *, retries: int = 0) -> Answer:
        """Send one request, and again if its failure is transient.

        Args:
            send: calls the client; see ``Send``.
            retries: times to send it again, if the limits have fewer.

        Raises:
            CollectionNotFoundError: no such collection; the message lists those that exist.
            QdrantConnectionError: no answer, too late, or not one that Qdrant gives.
            QdrantRequestError: Qdrant refused.
        """
        limits = self.limits
        retries = max(retries, limits.retries)
        failures = 0
        while True:
            timeout = self._timeout()
            exchange = Exchange(limits.deadline.sooner(limits.timeout_s))
            try:
                answer: Answer = await self._send(send, timeout, exchange)
                return answer
            except CollectionNotFoundError as error:  # of an embedded engine
                raise error.with_traceback(None) from None  # its own frames tell nothing
            except Exception as error:
                failures += 1
                ours = translate(
                    error,
                    self._client,
                    self.collection,
                    sent=exchange.sent,
                    consistency=limits.consistency,
                )
                if ours is None:
                    raise
                wait_s = seconds_to_wait(error, failures, retries, limits.deadline)
                if wait_s is None:
                    if isinstance(ours, CollectionNotFoundError):
                        ours = not_found(self._client, self.collection, await self._names())
                    try:
                        raise ours from error
                    finally:
                        del ours  # its traceback holds this frame
            limits.retried += 1
            await self.sleep(wait_s)

    def ask(self, send: Send[Answer]) -> Answer:
        """Send one request for a caller that has no steps, and return its answer."""
        return run(self.request(send))

    async def request_many(self, sends: Sequence[Send[Any]], *, retries: int = 0) -> list[Any]:
        """Send requests that do not wait for each other.

        Args:
            sends: see ``Send``.
            retries: as in :meth:`request`.

        Returns:
            For each its answer, or the ``QdrantError`` that it ended with.
        """
        if len(sends) <= 1:  # no thread for one
            return [await self._outcome(send, retries) for send in sends]
        with ThreadPoolExecutor(len(sends)) as threads:
            return list(threads.map(lambda send: run(self._outcome(send, retries)), sends))

    async def compute(
        self,
        function: Callable[Arguments, Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Call a function that keeps a processor busy, or reads files."""
        return function(*args, **kwargs)

    async def encode(
        self,
        function: Callable[Arguments, Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Call a function that makes what is asked of Qdrant.

        An event loop waits for it until the deadline at most; a thread cannot leave its own work.

        Raises:
            QdrantConnectionError: the deadline has passed.
        """
        return await self.encode_awaited(self.compute(function, *args, **kwargs))

    async def encode_awaited(self, steps: Coroutine[Any, Any, Answer]) -> Answer:
        """Await an encoder's coroutine, which waits only if ``awaits``.

        Raises:
            QdrantConnectionError: the deadline has passed; an event loop cancels the coroutine.
        """
        try:
            with within(self.limits.deadline):
                return await self._in_time(steps)
        except TimeoutError as error:
            if not self.limits.deadline.passed:  # of the function's own
                raise
            raise QdrantConnectionError(
                f"No time was left to ask Qdrant for {self.collection!r}: encoding the query took "
                "all of it. Give it longer: deadline_s."
            ) from error

    async def _in_time(self, steps: Coroutine[Any, Any, Answer]) -> Answer:
        return await steps

    async def _outcome(self, send: Send[Answer], retries: int) -> Answer | QdrantError:
        try:
            return await self.request(send, retries=retries)
        except QdrantError as error:
            return error

    async def _send(self, send: Send[Any], timeout: int | None, exchange: Exchange) -> Any:
        return self._send_now(send, timeout, exchange)

    def _send_now(self, send: Send[Any], timeout: int | None, exchange: Exchange) -> Any:
        client: Any = self._client
        if is_local(client):
            with exclusive(client):
                answer = send(client, timeout)
                # An embedded engine never waits, whatever the kind of its client.
                return run(answer) if inspect.iscoroutine(answer) else answer
        with watched(client, exchange):
            return send(client, timeout)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def _timeout(self) -> int | None:
        """Whole seconds that the next request may take, as the client takes them."""
        remaining = self.limits.deadline.remaining
        if remaining == 0:
            raise QdrantConnectionError(
                f"No time was left to ask Qdrant for {self.collection!r}. Give it longer: "
                "deadline_s."
            )
        timeouts = [self.limits.timeout_s, None if remaining is None else math.ceil(remaining)]
        shortest = min((value for value in timeouts if value is not None), default=None)
        return None if shortest is None else min(shortest, LONGEST_S)

    async def _names(self) -> list[str] | None:
        limits = self.limits
        exchange = Exchange(limits.deadline.sooner(limits.timeout_s))
        try:
            answer = await self._send(
                lambda client, timeout: client.get_collections(), None, exchange
            )
        except Exception:  # the names are a courtesy; their failure must not hide the error
            return None
        return sorted(item.name for item in answer.collections)


class AsyncDriver(Driver):
    """Awaits the steps: work, and the calls of embedded engines, are done in threads.

    Args:
        client: an ``AsyncQdrantClient``, or an embedded engine of either kind.
        collection: as of ``Driver``.
        limits: as of ``Driver``.
        threads: where the work is done.
    """

    awaits = True

    def __init__(
        self, client: AnyClient, collection: str, limits: CallLimits, threads: ThreadPoolExecutor
    ) -> None:
        super().__init__(client, collection, limits)
        self._threads = threads
        self._cancellation = Cancellation()

    def cancel(self) -> None:
        """Stop the work in the threads, within one batch of a model: its caller has gone."""
        self._cancellation.cancel()

    async def request_many(self, sends: Sequence[Send[Any]], *, retries: int = 0) -> list[Any]:
        """As of ``Driver``."""
        outcomes = await asyncio.gather(
            *(self._outcome(send, retries) for send in sends),
            return_exceptions=True,  # so that none is still under way afterwards
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, QdrantError):
                raise outcome
        return outcomes

    async def compute(
        self,
        function: Callable[Arguments, Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """As of ``Driver``, in a thread."""
        work = self._cancellation.bind(partial(function, *args, **kwargs))
        try:
            doing = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:  # its threads have ended
            raise QdrantConnectionError(
                f"The searcher of {self.collection!r} was closed. Make another, or search within "
                "its 'async with' block."
            ) from error
        return await doing

    async def _in_time(self, steps: Coroutine[Any, Any, Answer]) -> Answer:
        async with asyncio.timeout(self.limits.deadline.remaining):
            return await steps

    async def _send(self, send: Send[Any], timeout: int | None, exchange: Exchange) -> Any:
        # Covers the whole request, which the client's own timeout does not.
        async with asyncio.timeout(exchange.deadline.remaining):
            if is_local(self._client):
                return await self.compute(self._send_now, send, timeout, exchange)
            client: Any = self._client
            # The client first waits when the request is on its way, and then the loop runs this.
            first_wait = asyncio.get_running_loop().call_soon(exchange.note_sent)
            try:
                return await send(client, timeout)
            finally:
                first_wait.cancel()

    async def sleep(self, seconds: float) -> None:
        """Wait, while the event loop goes on."""
        await asyncio.sleep(seconds)
