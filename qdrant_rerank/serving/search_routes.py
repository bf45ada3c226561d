"""The calls that search the collections of the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qdrant_rerank.errors import DeadlineError, QdrantError
from qdrant_rerank.serving.collections import SEARCH_DEADLINE, Collections
from qdrant_rerank.serving.facts import note
from qdrant_rerank.serving.http_errors import HttpError, Json, answering
from qdrant_rerank.serving.limits import BodyReader, deadline_of
from qdrant_rerank.serving.scoring import unless_gone
from qdrant_rerank.serving.settings import ServeSettings
from qdrant_rerank.serving.wire import Body, parse
from qdrant_rerank.types import Results
from qdrant_rerank.utils.deadline import Deadline

__all__ = ["GroupsBody", "SearchBody", "SearchRoutes"]

LIMIT = 10


class SearchBody(Body):
    """A search; its fields are arguments of ``HybridSearcher.search``."""

    query: str
    collection: str | None = Field(default=None, description="None for the server's first.")
    limit: int = Field(default=LIMIT, ge=1)
    offset: int = Field(default=0, ge=0)
    candidates: int | None = Field(default=None, ge=1)
    filter: dict[str, Any] | None = Field(default=None, description="In Qdrant's own JSON.")
    score_threshold: float | None = None
    with_payload: bool | list[str] = True


class GroupsBody(SearchBody):
    """A search whose hits come in groups."""

    group_by: str
    group_size: int = Field(default=3, ge=1)


class SearchRoutes:
    """The handlers, with what they share.

    Args:
        settings: have the limits.
        collections: are searched.
        bodies: reads requests.
    """

    def __init__(
        self, settings: ServeSettings, collections: Collections, bodies: BodyReader
    ) -> None:
        self._settings = settings
        self._collections = collections
        self._bodies = bodies

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/search", answering(self.search), methods=["POST"]),
            Route("/v1/search/groups", answering(self.search_groups), methods=["POST"]),
        ]

    async def search(self, request: Request) -> Response:
        """Search, and answer with points."""
        async with self._bodies.json_of(request) as content:
            body = parse(SearchBody, content)
            searcher = self._collections.find(body.collection)
            options = self._options(body, searcher.candidates)
            deadline = deadline_of(request, self._settings)
            with _in_time(deadline) as seconds:
                work = searcher.search(body.query, deadline_s=seconds, **options)
                found = await unless_gone(request, work)
            return self._answer(request, searcher.collection, "points", found)

    async def search_groups(self, request: Request) -> Response:
        """Search, and answer with groups of points."""
        async with self._bodies.json_of(request) as content:
            body = parse(GroupsBody, content)
            searcher = self._collections.find(body.collection)
            options = self._options(body, searcher.candidates)
            deadline = deadline_of(request, self._settings)
            with _in_time(deadline) as seconds:
                work = searcher.search_groups(
                    body.query,
                    group_by=body.group_by,
                    group_size=body.group_size,
                    deadline_s=seconds,
                    **options,
                )
                found = await unless_gone(request, work)
            return self._answer(request, searcher.collection, "groups", found)

    def _options(self, body: SearchBody, candidates: int) -> dict[str, Any]:
        most = self._settings.max_documents
        wanted = max(body.offset + body.limit, body.candidates or candidates)
        if wanted > most:
            raise HttpError(
                422,
                f"The search reranks {wanted:,} candidates; this server takes {most:,} per request "
                "(max_documents). Ask for fewer candidates, or a lower limit and offset.",
            )
        return {
            "limit": body.limit,
            "offset": body.offset,
            "candidates": body.candidates,
            "query_filter": body.filter,
            "score_threshold": body.score_threshold,
            "with_payload": body.with_payload,
        }

    def _answer(self, request: Request, collection: str, key: str, found: Results[Any]) -> Json:
        trace = found.trace
        note(request, collection=collection, documents=trace.pairs, search=trace.status)
        return Json({"collection": collection, key: found.to_dicts(), "trace": asdict(trace)})


@contextmanager
def _in_time(deadline: Deadline) -> Iterator[float | None]:
    """Give a search the seconds that remain; what Qdrant fails at after them is a DeadlineError."""
    seconds = deadline.remaining
    if seconds == 0:
        raise DeadlineError("The time was up before the search.")
    token = SEARCH_DEADLINE.set(deadline)
    try:
        yield seconds
    except QdrantError as error:
        if deadline.passed:
            raise DeadlineError("The time was up before Qdrant answered.") from error
        raise
    finally:
        SEARCH_DEADLINE.reset(token)
