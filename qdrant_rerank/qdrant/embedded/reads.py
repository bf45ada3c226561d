"""The embedded engine's calls that read points, with the arguments of qdrant-client."""

from collections.abc import Sequence
from typing import Any

from qdrant_client import models
from qdrant_client.http.models import QueryResponse

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.matrix import nearest_of_sample
from qdrant_rerank.qdrant.embedded.search import PointSearch
from qdrant_rerank.utils.validation import shown

__all__ = ["ReadCalls"]


class ReadCalls:
    """Searches of :class:`~qdrant_rerank.qdrant.embedded.engine.EmbeddedEngine`."""

    _search: PointSearch

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        lookup_from: models.LookupLocation | None = None,
        **kwargs: Any,
    ) -> QueryResponse:
        """Search, recommend, discover, fuse, order, sample or rescore: the Query API."""
        # Not validated again: a vector of 1,000 numbers takes longer to check than to search.
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vector=with_vectors,
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )
        [answer] = self._search.query(collection_name, [request])
        return answer

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **kwargs: Any
    ) -> list[QueryResponse]:
        """Answer several queries in one pass."""
        return self._search.query(collection_name, requests)

    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        with_lookup: Any = None,
        lookup_from: models.LookupLocation | None = None,
        **kwargs: Any,
    ) -> models.GroupsResult:
        """Return the best groups, each with its best points."""
        if not isinstance(group_by, str):
            raise QdrantRequestError(
                f"group_by is {shown(group_by)}; expected the name or path of a payload field."
            )
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            score_threshold=score_threshold,
            lookup_from=lookup_from,
            with_payload=with_payload,
            with_vector=with_vectors,
        )
        groups = self._search.groups(
            collection_name, request, group_by=group_by, limit=limit, group_size=group_size
        )
        if with_lookup is not None:
            lookup = (
                models.WithLookup(collection=with_lookup)
                if isinstance(with_lookup, str)
                else with_lookup
            )
            self._search.look_up(groups, lookup)
        return models.GroupsResult(groups=groups)

    def scroll(
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        order_by: Any = None,
        offset: Any = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> tuple[list[models.Record], Any]:
        """Return a page of points by id or by a payload field, and where the next page starts."""
        return self._search.scroll(
            collection_name,
            scroll_filter,
            limit=limit,
            order_by=order_by,
            offset=offset,
            with_payload=with_payload,
            with_vectors=with_vectors,
        )

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[Any],
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> list[models.Record]:
        """Return points by id, in the order asked for, without those that do not exist."""
        return self._search.retrieve(collection_name, ids, with_payload, with_vectors)

    def count(
        self,
        collection_name: str,
        count_filter: Any = None,
        exact: bool = True,
        **kwargs: Any,
    ) -> models.CountResult:
        """Count the points that pass a filter."""
        return self._search.count(collection_name, count_filter)

    def facet(
        self,
        collection_name: str,
        key: str,
        facet_filter: models.Filter | None = None,
        limit: int = 10,
        exact: bool = False,
        **kwargs: Any,
    ) -> models.FacetResponse:
        """Return the most frequent values of an indexed payload field, with their counts."""
        return self._search.facet(collection_name, key, facet_filter, limit=limit)

    def search_matrix_pairs(
        self,
        collection_name: str,
        query_filter: models.Filter | None = None,
        limit: int = 3,
        sample: int = 10,
        using: str | None = None,
        **kwargs: Any,
    ) -> models.SearchMatrixPairsResponse:
        """Return how near the points of a random sample are to each other, as pairs."""
        found = nearest_of_sample(
            self._search, collection_name, query_filter, limit=limit, sample=sample, using=using
        )
        return models.SearchMatrixPairsResponse(
            pairs=[
                models.SearchMatrixPair(a=point_id, b=hit.id, score=hit.score)
                for point_id, hits in found.items()
                for hit in hits
            ]
        )

    def search_matrix_offsets(
        self,
        collection_name: str,
        query_filter: models.Filter | None = None,
        limit: int = 3,
        sample: int = 10,
        using: str | None = None,
        **kwargs: Any,
    ) -> models.SearchMatrixOffsetsResponse:
        """Return how near the points of a random sample are, as rows and columns of a matrix."""
        found = nearest_of_sample(
            self._search, collection_name, query_filter, limit=limit, sample=sample, using=using
        )
        row = {point_id: number for number, point_id in enumerate(found)}
        cells = [(row[point_id], hit) for point_id, hits in found.items() for hit in hits]
        return models.SearchMatrixOffsetsResponse(
            offsets_row=[number for number, _ in cells],
            offsets_col=[row[hit.id] for _, hit in cells],
            scores=[hit.score for _, hit in cells],
            ids=list(found),
        )
