"""The requests of one call of ours to Qdrant.

In time, one caller at a time where the engine needs that, and failing with our errors alone.
"""

import math
from collections.abc import Callable
from typing import TypeVar

from qdrant_client import QdrantClient

from qdrant_rerank.connection import exclusive, is_local, translated
from qdrant_rerank.deadline import NEVER, Deadline
from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.http_deadline import http_deadline
from qdrant_rerank.retries import retrying_within

__all__ = ["Conversation"]

Answer = TypeVar("Answer")


class Conversation:
    """The requests of one search, or of one ``add``.

    Args:
        client: to ask.
        collection: named in errors.
        timeout_s: whole seconds that a request may take; None for the client's own.
        deadline: when all of them must be done, retries and the waits before them included.
        retries: times that a request is sent again if its failure may pass.

    Attributes:
        retried: requests that were sent again so far.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        *,
        timeout_s: int | None = None,
        deadline: Deadline = NEVER,
        retries: int = 0,
    ) -> None:
        self._client = client
        self._collection = collection
        self._timeout_s = timeout_s
        self._deadline = deadline
        self._retries = retries
        self.retried = 0

    def ask(self, request: Callable[[int | None], Answer]) -> Answer:
        """Send one request, and again if need be.

        Args:
            request: calls the client, to the same effect if called twice; is given the timeout in
                whole seconds, or None.

        Raises:
            CollectionNotFoundError: no such collection; the message lists those that exist.
            QdrantConnectionError: no answer, too late, or not one that Qdrant gives.
            QdrantRequestError: Qdrant refused.
        """
        retrying = retrying_within(self._retries, self._deadline)
        try:
            answer: Answer = retrying(self._ask_once, request)
            return answer
        finally:
            self.retried += retrying.statistics["attempt_number"] - 1

    def _ask_once(self, request: Callable[[int | None], Answer]) -> Answer:
        left = self._deadline.left
        if left == 0:
            raise QdrantConnectionError(
                f"No time was left to ask Qdrant for {self._collection!r}. Give it longer: "
                "deadline_s."
            )
        timeouts = [self._timeout_s, None if left is None else math.ceil(left)]
        timeout = min((value for value in timeouts if value is not None), default=None)
        with translated(self._client, self._collection):
            if is_local(self._client):
                with exclusive(self._client):
                    return request(timeout)
            with http_deadline(self._client, self._deadline):
                return request(timeout)
