"""The first stage: a searcher's calls to Qdrant, over one collection, as flows.

What to ask is decided by :mod:`~qdrant_rerank.recall`; here are the requests, and the collection
is made where ``add`` finds none. Who sends them is not known here: see
:mod:`~qdrant_rerank.flow`.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models
from qdrant_client.http.models import QueryResponse

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.flow import Flow, ask, compute
from qdrant_rerank.indexing import PointBuilder, collection_config
from qdrant_rerank.ordering import PointId, in_retrieval_order
from qdrant_rerank.recall import CollectionSchema, RecallPlan, plan_recall, recall_request
from qdrant_rerank.text import PayloadText
from qdrant_rerank.types import Embedder, RerankedPoint, SearchOptions, SparseEncoder

__all__ = ["FirstStage", "WithPayload", "WithVectors", "completed"]

WithPayload = bool | Sequence[str] | models.PayloadSelector
WithVectors = bool | Sequence[str]
QueryVectors = tuple[NDArray[np.float32] | None, models.SparseVector | None]


class FirstStage:
    """Recall from one collection.

    Args:
        collection: its name.
        embedder: dense encoder, or None.
        sparse: sparse encoder, or None.
        dense_optional: whether a collection without dense vectors will do.
        sparse_optional: whether one without sparse vectors of Qdrant's IDF will do.
    """

    def __init__(
        self,
        collection: str,
        embedder: Embedder | None,
        sparse: SparseEncoder | None,
        *,
        dense_optional: bool,
        sparse_optional: bool,
    ) -> None:
        self.collection = collection
        self.embedder = embedder
        self.sparse = sparse
        self._dense_optional = dense_optional
        self._sparse_optional = sparse_optional
        self._schema: CollectionSchema | None = None

    def plan(self, options: SearchOptions) -> Flow[RecallPlan]:
        """Which vectors to search; the collection's schema is read once.

        Raises:
            CollectionNotFoundError: no such collection.
            SchemaMismatchError: its vectors do not fit the encoders.
        """
        schema = yield from self._read_schema()
        return plan_recall(
            schema,
            self.embedder,
            self.sparse,
            dense_vector=options.dense_vector,
            sparse_vector=options.sparse_vector,
            dense_optional=self._dense_optional,
            sparse_optional=self._sparse_optional,
        )

    def embed(self, queries: Sequence[str], plan: RecallPlan) -> Flow[list[QueryVectors]]:
        """The dense and the sparse vector of each query, as the plan needs them."""
        return (yield from compute(lambda: [self._embed(query, plan) for query in queries]))

    def _embed(self, query: str, plan: RecallPlan) -> QueryVectors:
        dense = sparse = None
        if plan.dense is not None and self.embedder is not None:
            dense = np.asarray(self.embedder.embed_query(query), dtype=np.float32)
            if dense.shape != (plan.dimension,):
                raise SchemaMismatchError(
                    f"The embedder {self.embedder.name!r} returned shape {dense.shape} for a "
                    f"query, but {self.collection!r} has vectors of {plan.dimension}."
                )
        if plan.sparse is not None and self.sparse is not None:
            sparse = self.sparse.embed_query(query)
        return dense, sparse

    def recall(
        self,
        queries: Sequence[QueryVectors],
        plan: RecallPlan,
        options: SearchOptions,
        *,
        limit: int,
        candidates: int,
        query_filter: models.Filter | None,
        with_payload: WithPayload,
        with_vectors: WithVectors,
    ) -> Flow[list[list[models.ScoredPoint]]]:
        """The hits of each query in retrieval order, by one request."""
        requests = [
            recall_request(
                plan,
                dense,
                sparse,
                limit=limit,
                candidates=candidates,
                query_filter=query_filter,
                with_payload=_selector(with_payload),
                with_vectors=_names(with_vectors),
                params=options.search_params,
                fusion=options.fusion,
            )
            for dense, sparse in queries
        ]
        answers = yield from self._query(requests)
        if len(answers) != len(requests):
            raise QdrantConnectionError(
                f"Qdrant answered {len(answers)} of {len(requests)} queries of one request; "
                "expected one answer each. Is a proxy in between?"
            )
        return [in_retrieval_order(answer.points) for answer in answers]

    def _query(self, requests: list[models.QueryRequest]) -> Flow[list[QueryResponse]]:
        if len(requests) > 1:
            return (
                yield from ask(
                    lambda client, timeout: client.query_batch_points(
                        self.collection, requests, timeout=timeout
                    )
                )
            )
        [request] = requests
        answer = yield from ask(
            lambda client, timeout: client.query_points(
                self.collection,
                prefetch=request.prefetch,
                query=request.query,
                using=request.using,
                query_filter=request.filter,
                search_params=request.params,
                limit=request.limit or 0,
                with_payload=request.with_payload or False,
                with_vectors=request.with_vector or False,
                timeout=timeout,
            )
        )
        return [answer]

    def fetch(
        self,
        ids: Iterable[PointId],
        *,
        with_payload: WithPayload,
        with_vectors: WithVectors,
    ) -> Flow[dict[PointId, models.Record]]:
        """Payload and vectors of these points, as far as they were asked for and still exist."""
        wanted = list(dict.fromkeys(ids))
        if not wanted or not (with_payload is not False or with_vectors):
            return {}
        records = yield from ask(
            lambda client, timeout: client.retrieve(
                self.collection,
                wanted,
                with_payload=_selector(with_payload),
                with_vectors=_names(with_vectors),
                timeout=timeout,
            )
        )
        return {record.id: record for record in records}

    def point_builder(self, text: PayloadText, options: SearchOptions) -> Flow[PointBuilder]:
        """What makes points for the collection, which is created where there is none."""
        try:
            plan = yield from self.plan(options)
        except CollectionNotFoundError:
            yield from self._create()
            plan = yield from self.plan(options)
        schema = yield from self._read_schema()
        return PointBuilder(schema, plan, self.embedder, self.sparse, text)

    def store(self, points: list[models.PointStruct]) -> Flow[None]:
        """Upsert points and wait until they can be found; again is no harm, since ids are given."""
        yield from ask(lambda client, timeout: client.upsert(self.collection, points, wait=True))

    def _create(self) -> Flow[None]:
        config = collection_config(self.embedder, self.sparse)
        try:
            yield from ask(
                lambda client, timeout: client.create_collection(self.collection, **config)
            )
        except QdrantRequestError as error:
            # Another process may have created it in between; then its schema decides.
            if "exist" not in str(error):
                raise

    def _read_schema(self) -> Flow[CollectionSchema]:
        # Several first searches at once may each read it; they read the same.
        if self._schema is None:
            info = yield from ask(lambda client, timeout: client.get_collection(self.collection))
            self._schema = CollectionSchema.from_info(self.collection, info)
        return self._schema


def completed(
    order: Iterable[RerankedPoint], records: Mapping[PointId, models.Record]
) -> list[RerankedPoint]:
    """Points with the payload and the vectors that were fetched for them.

    A point that was deleted since recall keeps its place, without a payload.
    """
    return [
        point.model_copy(
            update={
                "payload": getattr(records.get(point.id), "payload", None),
                "vector": getattr(records.get(point.id), "vector", None),
            }
        )
        for point in order
    ]


def _names(with_vectors: WithVectors) -> bool | list[str]:
    return with_vectors if isinstance(with_vectors, bool) else list(with_vectors)


def _selector(with_payload: WithPayload) -> bool | list[str] | models.PayloadSelector:
    if isinstance(
        with_payload, bool | models.PayloadSelectorInclude | models.PayloadSelectorExclude
    ):
        return with_payload
    return list(with_payload)
