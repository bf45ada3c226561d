"""The first stage: a searcher's calls to Qdrant, over one collection.

What to ask is decided by :mod:`~qdrant_rerank.recall`; here it is asked, and the collection is
made where ``add`` finds none.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.http.models import QueryResponse

from qdrant_rerank.conversation import Conversation
from qdrant_rerank.deadline import NEVER, Deadline
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    SchemaMismatchError,
)
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
        client: of the collection.
        collection: its name.
        embedder: dense encoder, or None.
        sparse: sparse encoder, or None.
        dense_optional: whether a collection without dense vectors will do.
        sparse_optional: whether one without sparse vectors of Qdrant's IDF will do.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        embedder: Embedder | None,
        sparse: SparseEncoder | None,
        *,
        dense_optional: bool,
        sparse_optional: bool,
    ) -> None:
        self.client = client
        self.collection = collection
        self.embedder = embedder
        self.sparse = sparse
        self._dense_optional = dense_optional
        self._sparse_optional = sparse_optional
        self._lock = threading.Lock()
        self._schema: CollectionSchema | None = None

    def converse(self, options: SearchOptions, deadline: Deadline = NEVER) -> Conversation:
        """What the requests of one call go through."""
        return Conversation(
            self.client,
            self.collection,
            timeout_s=options.timeout_s,
            deadline=deadline,
            retries=options.retries,
        )

    def plan(self, options: SearchOptions, talk: Conversation) -> RecallPlan:
        """Which vectors to search; the collection's schema is read once.

        Raises:
            CollectionNotFoundError: no such collection.
            SchemaMismatchError: its vectors do not fit the encoders.
        """
        return plan_recall(
            self._read_schema(talk),
            self.embedder,
            self.sparse,
            dense_vector=options.dense_vector,
            sparse_vector=options.sparse_vector,
            dense_optional=self._dense_optional,
            sparse_optional=self._sparse_optional,
        )

    def embed(self, query: str, plan: RecallPlan) -> QueryVectors:
        """The dense and the sparse vector of a query, as the plan needs them."""
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
        talk: Conversation,
        *,
        limit: int,
        candidates: int,
        query_filter: models.Filter | None,
        with_payload: WithPayload,
        with_vectors: WithVectors,
    ) -> list[list[models.ScoredPoint]]:
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
        answers = talk.ask(lambda timeout: self._query(requests, timeout))
        if len(answers) != len(requests):
            raise QdrantConnectionError(
                f"Qdrant answered {len(answers)} of {len(requests)} queries of one request; "
                "expected one answer each. Is a proxy in between?"
            )
        return [in_retrieval_order(answer.points) for answer in answers]

    def _query(
        self, requests: list[models.QueryRequest], timeout: int | None
    ) -> list[QueryResponse]:
        if len(requests) > 1:
            return self.client.query_batch_points(self.collection, requests, timeout=timeout)
        [request] = requests
        return [
            self.client.query_points(
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
        ]

    def fetch(
        self,
        ids: Iterable[PointId],
        talk: Conversation,
        *,
        with_payload: WithPayload,
        with_vectors: WithVectors,
    ) -> dict[PointId, models.Record]:
        """Payload and vectors of these points, as far as they were asked for and still exist."""
        wanted = list(dict.fromkeys(ids))
        if not wanted or not (with_payload is not False or with_vectors):
            return {}
        records = talk.ask(
            lambda timeout: self.client.retrieve(
                self.collection,
                wanted,
                with_payload=_selector(with_payload),
                with_vectors=_names(with_vectors),
                timeout=timeout,
            )
        )
        return {record.id: record for record in records}

    def point_builder(self, text: PayloadText, options: SearchOptions) -> PointBuilder:
        """What makes points for the collection, which is created where there is none."""
        talk = self.converse(options)
        try:
            plan = self.plan(options, talk)
        except CollectionNotFoundError:
            self._create(talk)
            plan = self.plan(options, talk)
        return PointBuilder(self._read_schema(talk), plan, self.embedder, self.sparse, text)

    def store(self, points: list[models.PointStruct], options: SearchOptions) -> None:
        """Upsert points and wait until they can be found; again is no harm, since ids are given."""
        self.converse(options).ask(
            lambda timeout: self.client.upsert(self.collection, points, wait=True)
        )

    def _create(self, talk: Conversation) -> None:
        config = collection_config(self.embedder, self.sparse)
        try:
            talk.ask(lambda timeout: self.client.create_collection(self.collection, **config))
        except QdrantRequestError as error:
            # Another process may have created it in between; then its schema decides.
            if "exist" not in str(error):
                raise

    def _read_schema(self, talk: Conversation) -> CollectionSchema:
        with self._lock:
            if self._schema is None:
                info = talk.ask(lambda timeout: self.client.get_collection(self.collection))
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
