"""Drives the steps of one call: requests to Qdrant, and the work in between.

In time, one caller at a time where the engine needs that, and failing with our errors alone.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from qdrant_client import QdrantClient

from qdrant_rerank.connection import exclusive, is_local, translated
from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.flow import Ask, Flow, Step, Terms
from qdrant_rerank.http_deadline import http_deadline
from qdrant_rerank.retries import retrying_within

__all__ = ["Conversation"]

Answer = TypeVar("Answer")


class Conversation:
    """Does the steps of one search, or of one ``add``, in the calling thread.

    Args:
        client: to ask.
        collection: named in errors.
        terms: what to keep to; counts what is sent again.
    """

    def __init__(self, client: QdrantClient, collection: str, terms: Terms) -> None:
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
                    answer = self.ask(step.send) if isinstance(step, Ask) else step.work()
                except BaseException as error:
                    advance = partial(flow.throw, error)
                else:
                    advance = partial(flow.send, answer)
        finally:
            advance = None  # it may hold an error whose traceback holds this frame
        raise AssertionError("a flow ends by returning")

    def ask(self, send: Callable[[QdrantClient, int | None], Answer]) -> Answer:
        """Send one request, and again if need be.

        Args:
            send: see :class:`~qdrant_rerank.flow.Ask`.

        Raises:
            CollectionNotFoundError: no such collection; the message lists those that exist.
            QdrantConnectionError: no answer, too late, or not one that Qdrant gives.
            QdrantRequestError: Qdrant refused.
        """
        retrying = retrying_within(self._terms.retries, self._terms.deadline)
        try:
            answer: Answer = retrying(self._ask_once, send)
            return answer
        finally:
            self._terms.retried += retrying.statistics["attempt_number"] - 1

    def _ask_once(self, send: Callable[[QdrantClient, int | None], Answer]) -> Answer:
        left = self._terms.deadline.left
        if left == 0:
            raise QdrantConnectionError(
                f"No time was left to ask Qdrant for {self._collection!r}. Give it longer: "
                "deadline_s."
            )
        timeouts = [self._terms.timeout_s, None if left is None else math.ceil(left)]
        timeout = min((value for value in timeouts if value is not None), default=None)
        with translated(self._client, self._collection):
            if is_local(self._client):
                with exclusive(self._client):
                    return send(self._client, timeout)
            with http_deadline(self._client, self._terms.deadline):
                return send(self._client, timeout)
