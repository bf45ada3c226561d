"""Reading from the embedded engine's collections: the Query API, groups, scroll, count."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.http.models import QueryResponse

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.payload import lookup_ids, whole_field
from qdrant_rerank.qdrant.embedded.checks import (
    as_list,
    as_model,
    require_finite,
    require_names,
    require_one,
)
from qdrant_rerank.qdrant.embedded.filters import excluding, to_filter
from qdrant_rerank.qdrant.embedded.groups import complete, grouped, with_prefetch_limit
from qdrant_rerank.qdrant.embedded.points import (
    point_id,
    record,
    scored_point,
    to_id,
    to_payload_selector,
    to_vector,
    to_vector_selector,
)
from qdrant_rerank.qdrant.embedded.queries import (
    PREFETCH_LIMIT,
    VectorOf,
    to_order,
    to_params,
    to_query,
)
from qdrant_rerank.qdrant.embedded.shards import Shards
from qdrant_rerank.types import in_retrieval_order

__all__ = ["PointSearch"]

LIMIT = 10  # of a query that does not say, as on a server
# Hits that are read first per wanted hit of a group, so that one pass mostly fills the groups. Each
# further pass reads this many times as many.
GROUP_READ = 4
# Hits that are read beyond a fused page. Two branches give one score to their hits of one rank, and
# which of equals the engine puts first changes from call to call.
TIES = 8
EVERY = 2**31  # more than there are values


class PointSearch:
    """Searches in the collections of an engine.

    Args:
        shards: the collections.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def query(
        self, collection: str, requests: Sequence[models.QueryRequest]
    ) -> list[QueryResponse]:
        """Return the hits of each request; hits of equal score come by id.

        Raises:
            CollectionNotFoundError: no such collection.
            QdrantRequestError: a request is wrong, or a number in it is not finite.
        """
        if not requests:
            self._shards.shard(collection)
            return []
        for request in requests:
            require_one("limit", _limit(request))
            require_finite(request, "The query")
        answers = self._answers(collection, [_beyond(request, TIES) for request in requests])
        return [
            QueryResponse(points=self._page(collection, request, hits))
            for request, hits in zip(requests, answers, strict=True)
        ]

    def _page(
        self, collection: str, request: models.QueryRequest, hits: list[models.ScoredPoint]
    ) -> list[models.ScoredPoint]:
        """Return the hits that a request wants, of those and some further ones."""
        if not _is_fused(request):
            return in_retrieval_order(hits) if _by_score(request.query) else hits
        if _ends_within_ties(hits, request):
            [hits] = self._answers(collection, [_beyond(request, _most(request.prefetch))])
        return in_retrieval_order(hits)[request.offset or 0 :][: _limit(request)]

    def _answers(
        self, collection: str, requests: Sequence[models.QueryRequest]
    ) -> list[list[models.ScoredPoint]]:
        """Return the hits of each request, as the engine orders them."""
        shard = self._shards.shard(collection)
        with self._shards.errors(collection):
            asked = [self._request(collection, request) for request in requests]
            if len(asked) == 1:
                found = [shard.query(asked[0])]
            else:
                found = shard.query_batch(edge.QueryBatchRequest(asked))
            return [
                [scored_point(hit, to_vector_selector(request.with_vector)) for hit in hits]
                for request, hits in zip(requests, found, strict=True)
            ]

    def groups(
        self,
        collection: str,
        request: models.QueryRequest,
        *,
        group_by: str,
        limit: int,
        group_size: int,
    ) -> list[models.PointGroup]:
        """Return the best groups with their best points.

        Args:
            collection: name of the collection.
            request: how to search, without a limit.
            group_by: path of the payload field.
            limit: groups to return.
            group_size: points per group.
        """
        for name, value in (("limit", limit), ("group_size", group_size)):
            require_one(name, value)
        every = self.count(collection, None).count
        keys = {
            "prefetch": with_prefetch_limit(request.prefetch, max(every, 1)),
            "with_payload": [whole_field(group_by)],
            "with_vector": False,
        }
        reads = min(limit * group_size * GROUP_READ, max(every, 1))
        while True:
            page = request.model_copy(update={**keys, "limit": reads})
            [answer] = self.query(collection, [page])
            groups = grouped(answer.points, group_by, group_size)
            if reads >= every or len(answer.points) < reads:
                break
            if complete(groups, limit, group_size):
                break
            reads = min(reads * GROUP_READ, every)
        first = list(groups.items())[:limit]
        ids = {hit.id: None for _, hits in first for hit in hits}
        records = {
            one.id: one
            for one in self.retrieve(
                collection, list(ids), request.with_payload, request.with_vector
            )
        }
        return [
            models.PointGroup(id=value, hits=[_complete(hit, records.get(hit.id)) for hit in hits])
            for value, hits in first
        ]

    def look_up(self, groups: Sequence[models.PointGroup], wanted: models.WithLookup) -> None:
        """Attach to each group the point of another collection with the group's id."""
        ids = lookup_ids(groups)
        payload = True if wanted.with_payload is None else wanted.with_payload
        found = self.retrieve(wanted.collection, list(ids.values()), payload, wanted.with_vectors)
        by_id = {one.id: one for one in found}
        for group in groups:
            group.lookup = by_id.get(ids[group.id]) if group.id in ids else None

    def scroll(
        self,
        collection: str,
        given: models.Filter | None,
        *,
        limit: int,
        order_by: Any,
        offset: Any,
        with_payload: Any,
        with_vectors: Any,
    ) -> tuple[list[models.Record], int | str | None]:
        """Return a page of points, and where the next page starts."""
        require_one("limit", limit)
        shard = self._shards.shard(collection)
        with self._shards.errors(collection):
            found, following = shard.scroll(
                edge.ScrollRequest(
                    offset=None if offset is None else to_id(offset),
                    limit=limit,
                    filter=to_filter(given, self._shards.text_fields(collection)),
                    with_payload=to_payload_selector(with_payload),
                    with_vector=to_vector_selector(with_vectors),
                    order_by=None if order_by is None else to_order(order_by),
                )
            )
            records = [record(one) for one in found]
        return records, None if following is None else point_id(following)

    def retrieve(
        self, collection: str, ids: Sequence[Any], with_payload: Any, with_vectors: Any
    ) -> list[models.Record]:
        """Return points by id, in the order asked for, without those that do not exist."""
        shard = self._shards.shard(collection)
        wanted: list[Any] = list(dict.fromkeys(to_id(one) for one in ids))
        with self._shards.errors(collection):
            found = shard.retrieve(
                wanted, to_payload_selector(with_payload), to_vector_selector(with_vectors)
            )
            by_id = {str(one.id): record(one) for one in found}
        return [by_id[str(one)] for one in wanted if str(one) in by_id]

    def require_vector(self, collection: str, using: str | None) -> None:
        """Raise QdrantRequestError unless the collection has the vector."""
        require_names([using or ""], self._shards.entry(collection).config.params, "The search")

    def count(self, collection: str, given: models.Filter | None) -> models.CountResult:
        """Count the points that pass a filter."""
        shard = self._shards.shard(collection)
        with self._shards.errors(collection):
            return models.CountResult(
                count=shard.count(
                    edge.CountRequest(
                        exact=True,
                        filter=to_filter(given, self._shards.text_fields(collection)),
                    )
                )
            )

    def facet(
        self, collection: str, key: str, given: models.Filter | None, *, limit: int
    ) -> models.FacetResponse:
        """Return the most frequent values of an indexed payload field, of equals the least."""
        require_one("limit", limit)
        shard = self._shards.shard(collection)
        indexed = self._shards.text_fields(collection)
        with self._shards.errors(collection):
            # All of them, since which of equals the engine puts first changes from call to call.
            found = shard.facet(
                edge.FacetRequest(key, limit=EVERY, exact=True, filter=to_filter(given, indexed))
            )
        # An index may still name values that no point has any more.
        there = [hit for hit in found if hit.count]
        hits = sorted(there, key=lambda hit: (-hit.count, hit.value))[:limit]
        return models.FacetResponse(
            hits=[models.FacetValueHit(value=hit.value, count=hit.count) for hit in hits]
        )

    def _request(self, collection: str, request: models.QueryRequest) -> edge.QueryRequest:
        limit = _limit(request)
        query, conditions = self._query(collection, request, limit)
        return edge.QueryRequest(
            limit=limit,
            offset=request.offset,
            query=query,
            prefetches=self._prefetches(collection, request.prefetch),
            filter=conditions,
            params=to_params(request.params, self._shards.text_fields(collection)),
            score_threshold=request.score_threshold,
            with_payload=to_payload_selector(request.with_payload),
            with_vector=to_vector_selector(request.with_vector),
        )

    def _prefetches(self, collection: str, given: Any) -> list[edge.Prefetch]:
        every = [as_model(models.Prefetch, one) for one in as_list(given)]
        return [self._prefetch(collection, one) for one in every]

    def _prefetch(self, collection: str, given: models.Prefetch) -> edge.Prefetch:
        limit = PREFETCH_LIMIT if given.limit is None else given.limit
        query, conditions = self._query(collection, given, limit)
        return edge.Prefetch(
            limit=limit,
            query=query,
            prefetches=self._prefetches(collection, given.prefetch),
            filter=conditions,
            params=to_params(given.params, self._shards.text_fields(collection)),
            score_threshold=given.score_threshold,
        )

    def _query(
        self, collection: str, asked: models.QueryRequest | models.Prefetch, limit: int
    ) -> tuple[Any, edge.Filter | None]:
        """Convert the query, and the filter without the points that the query names."""
        named: list[Any] = []
        find = self._finder(collection, asked.using, asked.lookup_from, named)
        indexed = self._shards.text_fields(collection)
        query = to_query(asked.query, asked.using, limit, find, indexed)
        conditions = as_model(models.Filter, asked.filter)
        return query, to_filter(excluding(conditions, named), indexed)

    def _finder(
        self,
        collection: str,
        using: str | None,
        lookup: models.LookupLocation | None,
        named: list[Any],
    ) -> VectorOf:
        """Return what finds the vectors of points that a query names; it adds ids to ``named``."""
        source = collection if lookup is None else lookup.collection
        name = using if lookup is None or lookup.vector is None else lookup.vector

        def vector_of(given: Any) -> Any:
            if not isinstance(given, int | str | UUID):
                return to_vector(given)
            found = self._shards.shard(source).retrieve([to_id(given)], False, True)
            vectors: Any = found[0].vector if found else None
            if isinstance(vectors, dict):
                vectors = vectors.get(name or "")
            if vectors is None:
                raise QdrantRequestError(
                    f"{source!r} has no point {given!r} with a vector {name or '(unnamed)'!r}."
                )
            if source == collection:
                named.append(given)
            return vectors

        return vector_of


def _limit(request: models.QueryRequest) -> int:
    return LIMIT if request.limit is None else request.limit


def _is_fused(request: models.QueryRequest) -> bool:
    return isinstance(request.query, models.FusionQuery | models.RrfQuery)


def _beyond(request: models.QueryRequest, further: int) -> models.QueryRequest:
    """Return a fused request from the first hit to some behind its page; others as they are.

    A sample has no first hit. The engine takes its offset off its limit; a server ignores it.
    """
    if isinstance(request.query, models.SampleQuery):
        return request.model_copy(update={"offset": None})
    if not _is_fused(request):
        return request
    end = (request.offset or 0) + _limit(request)
    return request.model_copy(update={"offset": 0, "limit": end + further})


def _ends_within_ties(points: Sequence[models.ScoredPoint], request: models.QueryRequest) -> bool:
    """Return whether hits that were not read may have the score of the page's last hit."""
    end = (request.offset or 0) + _limit(request)
    return len(points) == end + TIES and points[-1].score == points[end - 1].score


def _most(prefetch: Any) -> int:
    """Return how many hits the prefetches can give."""
    every = [as_model(models.Prefetch, one) for one in as_list(prefetch)]
    return sum(PREFETCH_LIMIT if one.limit is None else one.limit for one in every)


def _by_score(query: Any) -> bool:
    """Return whether hits are in the order of their scores."""
    if isinstance(query, models.NearestQuery):
        return query.mmr is None
    return query is not None and not isinstance(query, models.OrderByQuery | models.SampleQuery)


def _complete(hit: models.ScoredPoint, found: models.Record | None) -> models.ScoredPoint:
    return hit.model_copy(
        update={"payload": found and found.payload, "vector": found and found.vector}
    )
