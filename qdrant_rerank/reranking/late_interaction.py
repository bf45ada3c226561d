"""Late interaction as a second stage: MaxSim of multivectors, computed inside Qdrant.

One batch holds two queries: the first stage, for its hits, payloads and scores; and the multivector
over the points that the first stage prefetches, for the MaxSim scores (Khattab and Zaharia,
ColBERT, SIGIR 2020). Both scores of a hit come by one round trip.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_rerank.embedders.checks import dense_output, require_finite
from qdrant_rerank.embedders.qdrant import QdrantInference
from qdrant_rerank.errors import InvalidInputError, ModelOutputError, SchemaMismatchError
from qdrant_rerank.qdrant.lookups import Query
from qdrant_rerank.qdrant.schema import CollectionSchema
from qdrant_rerank.types import PointId
from qdrant_rerank.utils.validation import a_type, require_call

__all__ = ["LateInteraction", "MaxSim", "QueryVectors", "late_interaction_of"]

#: What makes the multivector of a query: shape (tokens, dimension).
QueryVectors = Callable[[str], Any] | Mapping[str, Any] | QdrantInference | Any
# Distances whose scores are smaller for nearer points.
FARTHER_IS_MORE = frozenset({models.Distance.EUCLID, models.Distance.MANHATTAN})


class LateInteraction:
    """A reranker that scores the multivectors of a collection by MaxSim, in Qdrant's request.

    MaxSim is the sum, over the vectors of the query's tokens, of the highest similarity to any
    vector of the document. No text is read. In a ``Cascade`` it is the first stage, and a
    cross-encoder reads the texts of its best documents.

    Args:
        vector: name of the multivector, whose comparator is ``max_sim``.
        embedder: makes the multivector of a query, shape (tokens, dimension): fastembed's
            ``LateInteractionTextEmbedding``, an object with ``embed_query(text)``, a function of
            the text, or a dict of them by text, computed before; or ``QdrantInference`` for a
            model that Qdrant runs.

    Raises:
        InvalidInputError: an argument is of the wrong kind.

    Examples:
        >>> late = LateInteraction("colbert", {"iron": [[1.0, 0.0], [0.0, 1.0]]})
        >>> late
        LateInteraction('colbert', embedder=dict)
    """

    def __init__(self, vector: str, embedder: QueryVectors) -> None:
        if not isinstance(vector, str):
            raise InvalidInputError(
                f"vector is {a_type(vector)}; expected the name of a multivector of the collection."
            )
        self.vector = vector
        self.embedder = embedder
        self._embed = _embedding(embedder)

    @property
    def engine(self) -> str:
        """What computes the scores, for the trace."""
        return f"Qdrant, MaxSim of {self.vector!r}"

    def require(self, schema: CollectionSchema) -> None:
        """Check that the collection has the multivector.

        Raises:
            SchemaMismatchError: it has no such vector, or that is not a multivector.
        """
        params = schema.dense.get(self.vector)
        seen = f"Collection {schema.collection!r} has {schema}"
        several = [name for name, one in schema.dense.items() if one.multivector_config]
        if params is None:
            advice = f" Pass LateInteraction({several[0]!r}, ...)." if several else ""
            raise SchemaMismatchError(f"{seen}; there is no vector {self.vector!r}.{advice}")
        if params.multivector_config is None:
            advice = (
                f"Pass LateInteraction({several[0]!r}, ...)."
                if several
                else "Make the collection with multivector_config=models.MultiVectorConfig("
                "comparator='max_sim'), and index into it."
            )
            raise SchemaMismatchError(
                f"{seen}; {self.vector!r} holds one vector per point and is no multivector, so "
                f"there is no MaxSim. {advice}"
            )

    def embed(
        self, schema: CollectionSchema, queries: Sequence[Query], texts: Sequence[str]
    ) -> list[Any]:
        """Return what the multivector is searched with, for each query.

        Args:
            schema: schema of the collection.
            queries: texts; or ids of points, whose own multivectors are searched with.
            texts: the queries as texts.

        Raises:
            SchemaMismatchError: the vectors have another length than the collection's.
            ModelOutputError: the embedder did not return finite numbers of shape (tokens,
                dimension).
        """
        return [
            self._vectors(schema, text) if isinstance(query, str) else query
            for query, text in zip(queries, texts, strict=True)
        ]

    def _vectors(self, schema: CollectionSchema, text: str) -> Any:
        made = self._embed(text)
        if isinstance(made, models.Document):
            return models.NearestQuery(nearest=made)
        name = f"of LateInteraction({self.vector!r})"
        vectors = dense_output(name, made)
        if vectors.ndim == 3 and len(vectors) == 1:  # a batch of one query
            vectors = vectors[0]
        if vectors.ndim != 2 or not len(vectors):
            raise ModelOutputError(
                f"The embedder {name} returned shape {vectors.shape} for a query; expected "
                "(tokens, dimension), with one vector per token."
            )
        size = schema.dense[self.vector].size
        if vectors.shape[1] != size:
            raise SchemaMismatchError(
                f"The embedder {name} returned vectors of {vectors.shape[1]}, but collection "
                f"{schema.collection!r} has {schema}. Pass the embedder that filled "
                f"{self.vector!r}."
            )
        require_finite(name, vectors, f"the query {text!r:.60}")
        return vectors.tolist()

    def request(self, first: models.QueryRequest, query: Any) -> models.QueryRequest:
        """Write the request for the MaxSim scores of a first stage's hits.

        Args:
            first: the request of the first stage.
            query: what :meth:`embed` returned for its query.

        Raises:
            InvalidInputError: the first stage takes points by chance.
        """
        if isinstance(first.query, models.SampleQuery):
            raise InvalidInputError(
                "recall is a SampleQuery, whose points change from request to request, so their "
                "MaxSim cannot be asked for. Use another reranker, or none."
            )
        by_id = isinstance(query, int | str | UUID)
        limit = (first.limit or 0) + (first.offset or 0)
        branch = models.Prefetch(
            prefetch=first.prefetch,
            query=first.query,
            using=first.using,
            filter=first.filter,
            params=first.params,
            score_threshold=first.score_threshold,
            limit=limit,
            lookup_from=first.lookup_from,
        )
        return models.QueryRequest(
            prefetch=branch,
            query=query,
            using=self.vector or None,
            limit=limit,
            with_payload=False,
            with_vector=False,
            shard_key=first.shard_key,
            lookup_from=first.lookup_from if by_id else None,
        )

    def scores(
        self, schema: CollectionSchema, hits: Sequence[models.ScoredPoint]
    ) -> dict[PointId, float]:
        """Return the MaxSim scores by id; higher is more relevant, whatever the distance."""
        away = schema.dense[self.vector].distance in FARTHER_IS_MORE
        return {hit.id: -hit.score if away else hit.score for hit in hits}

    def __repr__(self) -> str:
        return f"LateInteraction({self.vector!r}, embedder={type(self.embedder).__name__})"


@dataclass(frozen=True, slots=True)
class MaxSim:
    """The MaxSim scores of the candidates of several queries.

    Attributes:
        scores: by id, for each query. A point without the multivector has none.
        cause: type and message of the embedder's error, if it failed; then there are no scores.
        engine: what computed them.
    """

    scores: Sequence[Mapping[PointId, float]]
    engine: str
    cause: str | None = None


def late_interaction_of(reranker: Any) -> LateInteraction | None:
    """Return the LateInteraction that a reranker is, or begins with; else None."""
    if isinstance(reranker, LateInteraction):
        return reranker
    stages = getattr(reranker, "stages", None)
    if isinstance(stages, list) and stages and isinstance(stages[0], tuple):
        first = stages[0][0]
        return first if isinstance(first, LateInteraction) else None
    return None


def _embedding(embedder: Any) -> Callable[[str], Any]:
    """Return a function from a text to its multivector, or to a ``Document``."""
    if isinstance(embedder, QdrantInference):
        return embedder.document
    if isinstance(embedder, Mapping):
        return lambda text: _known(embedder, text)
    if callable(getattr(embedder, "query_embed", None)):
        require_call("embedder", embedder, "query_embed", "text")
        return lambda text: next(iter(embedder.query_embed(text)))
    if callable(getattr(embedder, "embed_query", None)):
        require_call("embedder", embedder, "embed_query", "text")
        method: Callable[[str], Any] = embedder.embed_query
        return method
    if callable(embedder):
        require_call("embedder", embedder, "", "text")
        function: Callable[[str], Any] = embedder
        return function
    raise InvalidInputError(
        f"embedder is {a_type(embedder)}; expected fastembed's LateInteractionTextEmbedding, an "
        "object with embed_query(text), a function of the text, a dict of multivectors by text, or "
        "QdrantInference."
    )


def _known(vectors: Mapping[str, NDArray[np.float32]], text: str) -> Any:
    if text not in vectors:
        raise InvalidInputError(
            f"LateInteraction has no multivector for the query {text!r:.80}; it has those of "
            f"{len(vectors)} texts. Add it, or pass an embedder."
        )
    return vectors[text]
