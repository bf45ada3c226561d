"""The collections of a server: found by name, reranked in turn with all other requests."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar

from qdrant_client import AsyncQdrantClient

from qdrant_rerank.errors import InvalidInputError, QdrantRerankError
from qdrant_rerank.qdrant.embedded.choice import holds_collections
from qdrant_rerank.qdrant.transport.client import AnyClient, connect, connect_async
from qdrant_rerank.search.async_searcher import AsyncHybridSearcher
from qdrant_rerank.serving.metrics import Metrics
from qdrant_rerank.serving.models import ServedModel
from qdrant_rerank.serving.not_served import NotServedError
from qdrant_rerank.serving.scoring import score
from qdrant_rerank.serving.settings import ServeSettings
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = ["SEARCH_DEADLINE", "Collections"]

CANDIDATES = 100  # that a search reranks if it names no number; fewer if the limit is lower
#: When the search that is at work must have its answer; of the task that does it.
SEARCH_DEADLINE: ContextVar[Deadline] = ContextVar("SEARCH_DEADLINE", default=NO_DEADLINE)
READY_S = 2.0  # seconds that Qdrant has to answer whether it is there


class TurnTaking:
    """A reranker for searches, which take turns at a model as all other requests do.

    Args:
        model: scores.
        metrics: counts pairs.

    Attributes:
        states_encoder: the model, whose stored states the documents may come with.
    """

    def __init__(self, model: ServedModel, metrics: Metrics) -> None:
        self.states_encoder = model.encoder
        self._model = model
        self._metrics = metrics

    async def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        """Score documents; a task that is cancelled at its deadline gives up its turns."""
        pairs = [(query, document) for document in documents]
        found = await score(self._model, pairs, SEARCH_DEADLINE.get(), self._metrics)
        scores: list[float] = found.scores.tolist()
        return scores


def _client(settings: ServeSettings) -> AnyClient:
    url, path = settings.url, settings.path
    if url and path:
        raise InvalidInputError("url and path are both given; expected one of them.")
    if not (url or path):
        url = os.environ.get("QDRANT_URL")
        path = None if url else os.environ.get("QDRANT_PATH")
    if url:
        return connect_async(url)
    if not path:
        raise InvalidInputError(
            "There are collections to search, but no Qdrant that has them. Pass --path or --url, "
            "or set QDRANT_PATH or QDRANT_URL."
        )
    if not holds_collections(path):
        raise InvalidInputError(
            f"There is no Qdrant at {path}; expected a directory with collections. Pass another "
            "--path, or --url of a server."
        )
    return connect(path=path)


class Collections:
    """The collections of a server; none, if the settings name none.

    Args:
        settings: name them, and their Qdrant.
        model: reranks.
        metrics: counts pairs.

    Raises:
        InvalidInputError: an option is wrong.
        QdrantError: the directory of an embedded engine cannot be used.
        ModelError: the embedder cannot be found or loaded.
    """

    def __init__(self, settings: ServeSettings, model: ServedModel, metrics: Metrics) -> None:
        self._client: AnyClient | None = None
        self._searchers: dict[str, AsyncHybridSearcher] = {}
        if not settings.collections:
            return
        self._client = _client(settings)
        text = list(settings.text)
        for name in settings.collections:
            self._searchers[name] = AsyncHybridSearcher(
                name,
                client=self._client,
                reranker=TurnTaking(model, metrics),
                embedder=None if settings.embedder == "none" else settings.embedder,
                text=text[0] if len(text) == 1 else text,
                language=settings.language,
                candidates=min(CANDIDATES, settings.max_documents),
            )

    @property
    def names(self) -> list[str]:
        """The names, in the order of the settings."""
        return list(self._searchers)

    def find(self, name: str | None) -> AsyncHybridSearcher:
        """Return the searcher of a collection; without a name, of the first one.

        Raises:
            NotServedError: the server was not started with it.
        """
        if name is None and self._searchers:
            return next(iter(self._searchers.values()))
        found = self._searchers.get(name or "")
        if found is None:
            if not self._searchers:
                raise NotServedError("No collection is served here. Start with --collection NAME.")
            names = ", ".join(map(repr, self._searchers))
            raise NotServedError(
                f"The collection {name!r:.80} is not served here; expected one of {names}."
            )
        return found

    async def problem(self) -> str | None:
        """Return why searches cannot be answered now; None if they can."""
        for name, searcher in self._searchers.items():
            try:
                async with asyncio.timeout(READY_S):
                    await searcher.is_hybrid()
            except TimeoutError:
                return f"Qdrant did not answer within {READY_S:g} s about the collection {name!r}."
            except QdrantRerankError as error:
                return str(error)
        return None

    async def close(self) -> None:
        """Close the searchers and their client."""
        for searcher in self._searchers.values():
            await searcher.close()
        if isinstance(self._client, AsyncQdrantClient):
            with suppress(Exception):  # a server that has gone
                await self._client.close()
        elif self._client is not None:
            self._client.close()
