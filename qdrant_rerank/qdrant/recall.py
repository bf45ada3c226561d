"""The first stage: retrieves the candidates from one collection.

:mod:`~qdrant_rerank.qdrant.recall_plan` decides what to search, and
:mod:`~qdrant_rerank.qdrant.recall_request` writes the request; here it is sent.
"""

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from qdrant_client import models

from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.embedders.batched import AsyncEmbedder, BatchedEmbedder
from qdrant_rerank.embedders.checks import dense_output, require_finite, sparse_output
from qdrant_rerank.embedders.qdrant import QdrantInference, TextIndex
from qdrant_rerank.errors import (
    QdrantConnectionError,
    QdrantError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.qdrant.encoders import recorded_encoder
from qdrant_rerank.qdrant.lookups import Query, given, read_consistency
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder, RecallPlan, plan_recall
from qdrant_rerank.qdrant.recall_request import RecallQuery
from qdrant_rerank.qdrant.schema import CollectionSchema
from qdrant_rerank.qdrant.server_version import (
    TEXT_INDEX,
    Version,
    needs,
    parse_version,
    require_version,
)
from qdrant_rerank.qdrant.transport.client import is_local
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.types import Embedder, in_retrieval_order
from qdrant_rerank.utils.warn import warn_caller

__all__ = ["FirstStage"]


class FirstStage:
    """Retrieves candidates from one collection.

    Args:
        collection: name of the collection.
        embedder: dense encoder, or None.
        sparse: sparse encoder, or None.
        dense_optional: whether a collection without dense vectors will do.
        sparse_optional: whether one without sparse vectors of Qdrant's IDF will do.
        sparse_by_name: whether the sparse encoder was given by name, so that it is a BM25 as the
            collection records it.
        language: language of that BM25; None for the one that the collection records.

    Attributes:
        sparse: the sparse encoder of the collection, or None: the given one until its schema is
            read.
        given_sparse: the sparse encoder as given.
        language: the language that the searcher was given for BM25; None if the collection's
            counts.
        known: schema of the collection as it was last read; None if it has to be read.
        read_at: when that was, by the clock of ``time.monotonic``.
    """

    def __init__(
        self,
        collection: str,
        embedder: DenseEncoder | None,
        sparse: LexicalEncoder | None,
        *,
        dense_optional: bool,
        sparse_optional: bool,
        sparse_by_name: bool = False,
        language: str | None = None,
    ) -> None:
        self.collection = collection
        self.embedder = embedder
        self.sparse = self.given_sparse = sparse
        self.known: CollectionSchema | None = None
        self._dense_optional = dense_optional
        self._sparse_optional = sparse_optional
        self._sparse_by_name = sparse_by_name
        self.language = language
        if isinstance(sparse, Bm25Encoder) and not sparse_by_name:
            self.language = sparse.language
        self._version: Version | None = None
        self._told: set[str] = set()  # warnings
        self._seen_states = False
        self.read_at = 0.0

    async def schema(self, driver: Driver) -> CollectionSchema:
        """Return what the collection has; it is read once, until it is forgotten.

        Raises:
            CollectionNotFoundError: no such collection.
        """
        # Several first searches at once may each read it; they read the same.
        known = self.known
        if known is None:
            info = await driver.request(lambda client, _: client.get_collection(self.collection))
            known = CollectionSchema.from_info(self.collection, info)
            if isinstance(self.sparse, TextIndex) and self.sparse.field not in known.scored:
                await self.require_text_index(driver)
            self.sparse = self._encoder_of(known)
            self.known, self.read_at = known, time.monotonic()
        return known

    def _encoder_of(self, schema: CollectionSchema) -> LexicalEncoder | None:
        """Return the sparse encoder as the collection records it."""
        given = self.given_sparse
        if given is None or isinstance(given, TextIndex):
            return given
        # "auto" searches no sparse vectors but those of BM25.
        recorded = (schema.encoder or {}).get("model", given.name)
        if self._sparse_optional and str(recorded).lower() != given.name.lower():
            return given
        return recorded_encoder(schema, given, by_name=self._sparse_by_name, language=self.language)

    async def require_text_index(self, driver: Driver) -> None:
        """Raise QdrantRequestError where the server ranks by no text index, and the encoder is one.

        Such a server makes the index without a word, and without scores.
        """
        if isinstance(self.sparse, TextIndex) and not driver.embedded:
            version = await self._server_version(driver)
            if version is not None:
                require_version([TEXT_INDEX], version, f"The Qdrant server of {self.collection!r}")

    @property
    def has_states(self) -> bool:
        """Whether the collection is known to store states of its documents."""
        return self._seen_states or (self.known is not None and self.known.states is not None)

    def learn_states(self) -> None:
        """Note that points have states, though the schema as it is known records none."""
        self._seen_states = True
        self.forget()

    def tell_once(self, kind: str, message: str) -> None:
        """Warn of a kind of thing once."""
        if kind not in self._told:
            self._told.add(kind)
            warn_caller(message)

    def forget(self) -> None:
        """Read the schema again the next time: the collection may be another one by now."""
        self.known = None

    async def changed(self, driver: Driver, known: CollectionSchema) -> bool:
        """Read the schema again, and return whether the collection has other vectors by now."""
        if self.known is known:
            self.forget()
        return await self.schema(driver) != known

    def plan(self, schema: CollectionSchema, options: SearchOptions) -> RecallPlan:
        """Choose which vectors to search.

        Raises:
            SchemaMismatchError: the vectors do not fit the encoders.
        """
        plan = plan_recall(
            schema,
            self.embedder,
            self.sparse,
            dense_vector=options.dense_vector,
            sparse_vector=options.sparse_vector,
            dense_optional=self._dense_optional,
            sparse_optional=self._sparse_optional,
        )
        if plan.warning:
            self.tell_once(plan.warning, plan.warning)
        return plan

    async def learn_dimension(self, driver: Driver) -> None:
        """Learn the length of the embedder's vectors, where only a vector tells it."""
        embedder = self.embedder
        if not isinstance(embedder, BatchedEmbedder | AsyncEmbedder):
            return
        if embedder.known_dimension is not None:
            return
        if isinstance(embedder, AsyncEmbedder) and driver.awaits:
            await driver.encode_awaited(embedder.learn_dimension())
        else:
            await driver.encode(lambda: embedder.dimension)

    async def embed(
        self, driver: Driver, queries: Sequence[Query], texts: Sequence[str], plan: RecallPlan
    ) -> list[RecallQuery]:
        """Make what the plan's branches search with, for each query.

        Args:
            driver: awaits the embedder, or calls it.
            queries: texts, or ids of points, whose stored vectors are searched with.
            texts: the queries as texts.
            plan: which vectors are searched.

        Raises:
            ModelOutputError: an encoder did not return finite numbers.
            SchemaMismatchError: its vectors do not fit the collection.
        """
        by_text = [
            text for query, text in zip(queries, texts, strict=True) if isinstance(query, str)
        ]
        vectors = None
        if plan.dense is not None and isinstance(self.embedder, AsyncEmbedder) and driver.awaits:
            vectors = await driver.encode_awaited(self.embedder.aembed_queries(by_text))
        return await driver.encode(self._embed_now, queries, texts, by_text, plan, vectors)

    def _embed_now(
        self,
        queries: Sequence[Query],
        texts: Sequence[str],
        by_text: Sequence[str],
        plan: RecallPlan,
        vectors: Any,
    ) -> list[RecallQuery]:
        """Make what is searched with, of the vectors of ``by_text`` if they are made already."""
        sparse = any(not branch.dense for branch in plan.branches)
        if plan.dense is None:
            vectors = [None] * len(by_text)
        elif vectors is None:
            vectors = self._dense_vectors(by_text)
        dense = iter(vectors)
        made = []
        for query, text in zip(queries, texts, strict=True):
            if isinstance(query, str):
                vector = self._fitting(next(dense), text, plan)
                made.append(RecallQuery(vector, self._sparse_query(text) if sparse else None))
            else:
                by_index = isinstance(self.sparse, TextIndex)
                entries = self._sparse_query(text) if by_index else query
                made.append(RecallQuery(query, entries, query))
        return made

    def _dense_vectors(self, texts: Sequence[str]) -> Sequence[Any]:
        embedder = self.embedder
        if isinstance(embedder, BatchedEmbedder):
            return list(embedder.embed_queries(texts))
        if isinstance(embedder, QdrantInference):
            return [embedder.document(text) for text in texts]
        own = cast("Embedder", embedder)
        return [dense_output(own.name, own.embed_query(text)) for text in texts]

    def _fitting(self, vector: Any, text: str, plan: RecallPlan) -> Any:
        """Return the vector of a query, checked; what is no array as it is."""
        if self.embedder is None or not isinstance(vector, np.ndarray):
            return vector
        for branch in plan.branches:
            fits = vector.ndim == 1 or (vector.ndim == 2 and branch.multivector)
            if branch.dense and not (fits and vector.shape[-1] == branch.dimension):
                raise SchemaMismatchError(
                    f"The embedder {self.embedder.name!r} returned shape {vector.shape} for a "
                    f"query, but {self.collection!r} has {'multi' * branch.multivector}vectors of "
                    f"{branch.dimension}."
                )
        require_finite(self.embedder.name, vector, f"the query {text!r:.60}")
        return vector

    def _sparse_query(self, text: str) -> Any:
        if isinstance(self.sparse, QdrantInference):
            return self.sparse.document(text)
        if isinstance(self.sparse, TextIndex):
            return self.sparse.query(text)
        if self.sparse is None:
            return None
        entries = sparse_output(self.sparse.name, self.sparse.embed_query(text))
        require_finite(self.sparse.name, entries, f"the query {text!r:.60}")
        return entries

    async def retrieve(
        self,
        driver: Driver,
        requests: Sequence[models.QueryRequest],
        options: SearchOptions,
        encoders: Sequence[Any] = (),
    ) -> list[list[models.ScoredPoint]]:
        """Return the hits of each request in retrieval order, by one request to Qdrant.

        Args:
            driver: asks Qdrant.
            requests: what is asked.
            options: options of the search.
            encoders: what made the requests' vectors, beside the encoders of this stage.

        Raises:
            QdrantRequestError: the server is too old for it, or refused.
        """
        features = needs(requests)
        if features:
            version = await self._server_version(driver)
            if version is not None:
                require_version(features, version, f"The Qdrant server of {self.collection!r}")
        consistency = given(consistency=read_consistency(options))

        def send(client: Any, timeout: int | None) -> Any:
            self.require_inference(client, encoders)
            if len(requests) > 1:
                return client.query_batch_points(
                    self.collection, list(requests), timeout=timeout, **consistency
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
                **given(
                    offset=request.offset,
                    score_threshold=request.score_threshold,
                    lookup_from=request.lookup_from,
                    shard_key_selector=request.shard_key,
                ),
                **consistency,
            )

        answer = await driver.request(send)
        answers = answer if len(requests) > 1 else [answer]
        if len(answers) != len(requests):
            raise QdrantConnectionError(
                f"Qdrant answered {len(answers)} of {len(requests)} queries of one request; "
                "expected one answer each. Is a proxy in between?"
            )
        return [in_retrieval_order(answer.points) for answer in answers]

    async def _server_version(self, driver: Driver) -> Version | None:
        """Ask for it once; None where it is not told, and then the server decides."""
        if self._version is None:
            try:
                info = await driver.request(lambda client, _: client.info())
            except QdrantError:
                return None
            self._version = parse_version(info.version)
        return self._version

    def require_inference(self, client: Any, encoders: Sequence[Any] = ()) -> None:
        """Raise QdrantRequestError where the client runs no model that an encoder needs."""
        for encoder in (self.embedder, self.sparse, *encoders):
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
