"""The first stage: a searcher's calls to Qdrant, over one collection, as flows.

What to ask is decided by :mod:`~qdrant_rerank.recall`; here are the requests, and the collection
is made where ``add`` finds none. Who sends them is not known here: see
:mod:`~qdrant_rerank.flow`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from qdrant_client import models
from qdrant_client.http.models import QueryResponse

from qdrant_rerank.connection import is_local
from qdrant_rerank.embedders.qdrant import QdrantInference, TextIndex
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    QdrantConnectionError,
    QdrantError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.flow import Flow, ask, compute
from qdrant_rerank.indexing import PointBuilder, collection_config
from qdrant_rerank.ordering import PointId, in_retrieval_order
from qdrant_rerank.query_request import RecallQuery, Scope
from qdrant_rerank.recall import DenseEncoder, LexicalEncoder, RecallPlan, plan_recall
from qdrant_rerank.schema import CollectionSchema
from qdrant_rerank.server_version import FEATURES, Version, needs, parse_version, require_version
from qdrant_rerank.text import PayloadText
from qdrant_rerank.types import RerankedPoint, SearchOptions

__all__ = ["FirstStage", "WithPayload", "WithVectors", "completed", "names", "selector"]

WithPayload = bool | Sequence[str] | models.PayloadSelector
WithVectors = bool | Sequence[str]
#: A text to search for, or the id of a point whose like is searched.
Query = str | int | UUID


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
        embedder: DenseEncoder | None,
        sparse: LexicalEncoder | None,
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
        self._version: Version | None = None

    def plan(self, options: SearchOptions) -> Flow[RecallPlan]:
        """Which vectors to search; the collection's schema is read once.

        Raises:
            CollectionNotFoundError: no such collection.
            SchemaMismatchError: its vectors do not fit the encoders.
        """
        schema = yield from self.schema()
        return plan_recall(
            schema,
            self.embedder,
            self.sparse,
            dense_vector=options.dense_vector,
            sparse_vector=options.sparse_vector,
            dense_optional=self._dense_optional,
            sparse_optional=self._sparse_optional,
        )

    def embed(
        self, queries: Sequence[Query], texts: Sequence[str], plan: RecallPlan
    ) -> Flow[list[RecallQuery]]:
        """What the plan's branches are asked with, for each query.

        Args:
            queries: texts, or ids of points, whose stored vectors are searched with.
            texts: the queries as texts.
            plan: what is searched.
        """
        return (
            yield from compute(
                lambda: [
                    self._embed(query, text, plan)
                    for query, text in zip(queries, texts, strict=True)
                ]
            )
        )

    def _embed(self, query: Query, text: str, plan: RecallPlan) -> RecallQuery:
        if not isinstance(query, str):
            by_text = isinstance(self.sparse, TextIndex)
            return RecallQuery(query, self._sparse_query(text) if by_text else query, query)
        dense = plan.dense is not None
        sparse = any(not branch.dense for branch in plan.branches)
        return RecallQuery(
            self._dense_query(text, plan) if dense else None,
            self._sparse_query(text) if sparse else None,
        )

    def _dense_query(self, text: str, plan: RecallPlan) -> Any:
        if isinstance(self.embedder, QdrantInference) or self.embedder is None:
            return None if self.embedder is None else self.embedder.document(text)
        vector = np.asarray(self.embedder.embed_query(text), dtype=np.float32)
        for branch in plan.branches:
            fits = vector.ndim == 1 or (vector.ndim == 2 and branch.multivector)
            if branch.dense and not (fits and vector.shape[-1] == branch.dimension):
                raise SchemaMismatchError(
                    f"The embedder {self.embedder.name!r} returned shape {vector.shape} for a "
                    f"query, but {self.collection!r} has {'multi' * branch.multivector}vectors of "
                    f"{branch.dimension}."
                )
        return vector

    def _sparse_query(self, text: str) -> Any:
        if isinstance(self.sparse, QdrantInference):
            return self.sparse.document(text)
        if isinstance(self.sparse, TextIndex):
            return self.sparse.query(text)
        return None if self.sparse is None else self.sparse.embed_query(text)

    def recall(
        self, requests: Sequence[models.QueryRequest], options: SearchOptions
    ) -> Flow[list[list[models.ScoredPoint]]]:
        """The hits of each request in retrieval order, by one request to Qdrant.

        Raises:
            QdrantRequestError: the server is too old for it, or refused.
        """
        yield from self._require_version(requests)
        answers = yield from self._query(list(requests), options)
        if len(answers) != len(requests):
            raise QdrantConnectionError(
                f"Qdrant answered {len(answers)} of {len(requests)} queries of one request; "
                "expected one answer each. Is a proxy in between?"
            )
        return [in_retrieval_order(answer.points) for answer in answers]

    def _query(
        self, requests: list[models.QueryRequest], options: SearchOptions
    ) -> Flow[list[QueryResponse]]:
        consistency = _given(consistency=options.consistency)

        def send(client: Any, timeout: int | None) -> Any:
            self._require_inference(client)
            if len(requests) > 1:
                return client.query_batch_points(
                    self.collection, requests, timeout=timeout, **consistency
                )
            [request] = requests
            return client.query_points(
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
                **_given(
                    offset=request.offset,
                    score_threshold=request.score_threshold,
                    lookup_from=request.lookup_from,
                    shard_key_selector=request.shard_key,
                ),
                **consistency,
            )

        answer = yield from ask(send)
        return answer if len(requests) > 1 else [answer]

    def has(self, feature: type[Any]) -> Flow[bool]:
        """Whether the server has a query of the Query API; True where its version is not told."""
        version = yield from self._server_version()
        return version is None or version >= FEATURES[feature].since

    def _require_version(self, requests: Sequence[models.QueryRequest]) -> Flow[None]:
        features = needs(requests)
        if features:
            version = yield from self._server_version()
            if version is not None:
                require_version(features, version, f"The Qdrant server of {self.collection!r}")

    def _server_version(self) -> Flow[Version | None]:
        """Asked for once; None where it is not told, and then the server decides."""
        if self._version is None:
            try:
                info = yield from ask(lambda client, timeout: client.info())
            except QdrantError:
                return None
            self._version = parse_version(info.version)
        return self._version

    def _require_inference(self, client: Any) -> None:
        for encoder in (self.embedder, self.sparse):
            if not isinstance(encoder, QdrantInference):
                continue
            if is_local(client):
                raise QdrantRequestError(
                    f"The embedded engine runs no models, so not {encoder.name!r}. Use a server, "
                    "or an encoder that computes here, such as sparse='Qdrant/bm25'."
                )
            if not encoder.built_in and not client.cloud_inference:
                raise QdrantRequestError(
                    f"{encoder.name!r} is run by Qdrant Cloud alone, and the client does not ask "
                    "it to. Pass QdrantClient(..., cloud_inference=True), or a fastembed model to "
                    "compute here."
                )

    def read_texts(
        self,
        queries: Sequence[Query],
        text: PayloadText,
        scope: Scope,
        options: SearchOptions,
        *,
        required: bool,
    ) -> Flow[list[str]]:
        """The queries as texts: of a point's id, the point's own text.

        Raises:
            InvalidInputError: there is no such point.
            MissingTextError: it has no text, where that is required.
        """
        ids = [query for query in queries if not isinstance(query, str)]
        if not ids:
            return [query for query in queries if isinstance(query, str)]
        lookup = scope.lookup_from
        home = self.collection if lookup is None else lookup.collection
        key = scope.shard_key_selector if lookup is None else lookup.shard_key
        records = yield from self._retrieve(
            home, ids, options, text_payload(text), False, shard_key=key
        )
        found = {str(record.id): record for record in records}
        texts = []
        for query in queries:
            if isinstance(query, str):
                texts.append(query)
                continue
            if str(query) not in found:
                raise InvalidInputError(
                    f"query is the id {query!r}, but {home!r} has no such point. A text to search "
                    "for is a str."
                )
            payload = found[str(query)].payload
            what = f"Point {query!r}, the query,"
            texts.append(text.require(payload, what) if required else text(payload) or "")
        return texts

    def fetch(
        self,
        ids: Iterable[PointId],
        options: SearchOptions,
        *,
        with_payload: WithPayload,
        with_vectors: WithVectors,
        shard_key: Any = None,
    ) -> Flow[dict[PointId, models.Record]]:
        """Payload and vectors of these points, as far as they were asked for and still exist."""
        wanted = list(dict.fromkeys(ids))
        if not wanted or not (with_payload is not False or with_vectors):
            return {}
        records = yield from self._retrieve(
            self.collection,
            wanted,
            options,
            selector(with_payload),
            names(with_vectors),
            shard_key=shard_key,
        )
        return {record.id: record for record in records}

    def look_up(
        self, ids: Sequence[PointId], lookup: models.WithLookup, options: SearchOptions
    ) -> Flow[dict[PointId, models.Record]]:
        """Points of another collection, as ``with_lookup`` asks for them."""
        if not ids:
            return {}
        records = yield from self._retrieve(
            lookup.collection,
            list(ids),
            options,
            True if lookup.with_payload is None else lookup.with_payload,
            lookup.with_vectors or False,
        )
        return {record.id: record for record in records}

    def _retrieve(
        self,
        collection: str,
        ids: Sequence[PointId],
        options: SearchOptions,
        with_payload: Any,
        with_vectors: Any,
        *,
        shard_key: Any = None,
    ) -> Flow[list[models.Record]]:
        return (
            yield from ask(
                lambda client, timeout: client.retrieve(
                    collection,
                    ids,
                    with_payload=with_payload,
                    with_vectors=with_vectors,
                    timeout=timeout,
                    **_given(consistency=options.consistency, shard_key_selector=shard_key),
                )
            )
        )

    def point_builder(self, text: PayloadText, options: SearchOptions) -> Flow[PointBuilder]:
        """What makes points for the collection, which is created where there is none."""
        try:
            plan = yield from self.plan(options)
        except CollectionNotFoundError:
            yield from self._create()
            plan = yield from self.plan(options)
        if sum(branch.dense for branch in plan.branches) > 1 or (
            sum(not branch.dense for branch in plan.branches) > 1
        ):
            raise InvalidInputError(
                "The options name several vectors of one kind, and add embeds a text once. Add "
                "with a searcher whose options name one."
            )
        schema = yield from self.schema()
        return PointBuilder(schema, plan, self.embedder, self.sparse, text)

    def store(self, points: list[models.PointStruct]) -> Flow[None]:
        """Upsert points and wait until they can be found; again is no harm, since ids are given."""

        def send(client: Any, timeout: int | None) -> Any:
            self._require_inference(client)
            return client.upsert(self.collection, points, wait=True)

        yield from ask(send)

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
        if isinstance(self.sparse, TextIndex):
            field = self.sparse.field
            yield from ask(
                lambda client, timeout: client.create_payload_index(
                    self.collection,
                    field,
                    models.TextIndexParams(type=models.TextIndexType.TEXT, scoring=True),
                    wait=True,
                )
            )

    def schema(self) -> Flow[CollectionSchema]:
        """What the collection has; read once."""
        # Several first searches at once may each read it; they read the same.
        if self._schema is None:
            info = yield from ask(lambda client, timeout: client.get_collection(self.collection))
            self._schema = CollectionSchema.from_info(self.collection, info)
        return self._schema


def completed(
    order: Iterable[RerankedPoint], records: Mapping[PointId, models.Record]
) -> list[RerankedPoint]:
    """Points with the payload and the vectors that were fetched for them.

    A point that was changed since recall keeps the text that its score is of; one that was deleted
    keeps its place, without a payload.
    """
    finished = []
    for point in order:
        record = records.get(point.id)
        payload = None if record is None else record.payload
        if payload and point.payload:
            payload = _as_recalled(payload, point.payload)
        vector = None if record is None else record.vector
        finished.append(point.model_copy(update={"payload": payload, "vector": vector}))
    return finished


def _as_recalled(fetched: Mapping[str, Any], recalled: Mapping[str, Any]) -> dict[str, Any]:
    """The fetched payload, with the fields that both have as they were at recall."""
    merged = dict(fetched)
    for name in merged.keys() & recalled.keys():
        ours, theirs = merged[name], recalled[name]
        both = isinstance(ours, Mapping) and isinstance(theirs, Mapping)
        merged[name] = _as_recalled(ours, theirs) if both else theirs
    return merged


def text_payload(text: PayloadText) -> bool | list[str]:
    """The payload that holds the text; all of it where only a function knows."""
    return True if text.fields is None else list(text.fields)


def names(with_vectors: WithVectors) -> bool | list[str]:
    """Vectors to return, as the Query API takes them."""
    return with_vectors if isinstance(with_vectors, bool) else list(with_vectors)


def selector(with_payload: WithPayload) -> bool | list[str] | models.PayloadSelector:
    """Payload to return, as the Query API takes it."""
    if isinstance(
        with_payload, bool | models.PayloadSelectorInclude | models.PayloadSelectorExclude
    ):
        return with_payload
    return list(with_payload)


def _given(**arguments: Any) -> dict[str, Any]:
    """Those that are not None: a call without options is the same as ever."""
    return {name: value for name, value in arguments.items() if value is not None}
