"""A collection's vectors + query vectors -> a Query API request. Pure: no I/O.

Recall is dense, sparse, or both fused inside one request, whichever the collection has and the
encoders fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_rerank.errors import SchemaMismatchError
from qdrant_rerank.types import Embedder, Fusion, SparseEncoder

__all__ = ["CollectionSchema", "RecallPlan", "plan_recall", "recall_request"]

#: Names of the vectors in a collection that ``add`` creates.
DENSE_NAME = "dense"
SPARSE_NAME = "bm25"
#: Key of a collection's metadata under which ``add`` records the embedder's name.
EMBEDDER_KEY = "qdrant_rerank_embedder"


@dataclass(frozen=True, slots=True)
class CollectionSchema:
    """The vectors of a collection.

    Attributes:
        collection: its name.
        dense: dense vectors by name; "" is the unnamed one.
        sparse: sparse vectors by name.
        embedder: name of the embedder that filled it, where ``add`` recorded it.
    """

    collection: str
    dense: Mapping[str, models.VectorParams]
    sparse: Mapping[str, models.SparseVectorParams]
    embedder: str | None = None

    @classmethod
    def from_info(cls, collection: str, info: models.CollectionInfo) -> "CollectionSchema":
        """Read it from what ``get_collection`` returns."""
        vectors = info.config.params.vectors or {}
        if isinstance(vectors, models.VectorParams):
            vectors = {"": vectors}
        recorded = (info.config.metadata or {}).get(EMBEDDER_KEY)
        return cls(
            collection=collection,
            dense=dict(vectors),
            sparse=dict(info.config.params.sparse_vectors or {}),
            embedder=recorded if isinstance(recorded, str) else None,
        )

    def __str__(self) -> str:
        dense = [f"{name or '(unnamed)'} of {v.size}" for name, v in self.dense.items()]
        return (
            f"dense vectors {', '.join(dense) or 'none'}; sparse {', '.join(self.sparse) or 'none'}"
        )


@dataclass(frozen=True, slots=True)
class RecallPlan:
    """Which vectors of the collection are searched.

    Attributes:
        dense: name of the dense vector ("" is the unnamed one); None for no dense recall.
        dimension: its length; 0 for no dense recall.
        sparse: name of the sparse vector; None for no sparse recall.
    """

    dense: str | None
    dimension: int
    sparse: str | None


def plan_recall(
    schema: CollectionSchema,
    embedder: Embedder | None,
    sparse: SparseEncoder | None,
    *,
    dense_vector: str | None = None,
    sparse_vector: str | None = None,
    dense_optional: bool = False,
    sparse_optional: bool = False,
) -> RecallPlan:
    """Choose the vectors to search.

    Args:
        schema: what the collection has.
        embedder: dense encoder, or None for no dense recall.
        sparse: sparse encoder, or None for no sparse recall.
        dense_vector: name of the dense vector; None to take the one of the embedder's size.
        sparse_vector: name of the sparse vector; None to take the only one.
        dense_optional: no dense vector at all is fine if there is a sparse one.
        sparse_optional: no sparse vector with Qdrant's IDF is fine if there is a dense one.

    Raises:
        SchemaMismatchError: what is asked for is missing, ambiguous or of another size.
    """
    sparse_name = None
    if sparse is not None:
        sparse_name = _sparse_name(schema, sparse, sparse_vector, sparse_optional)
    dense_name = None
    if embedder is not None and (schema.dense or not dense_optional or sparse_name is None):
        dense_name = _dense_name(schema, embedder, dense_vector)
    if dense_name is None and sparse_name is None:
        raise SchemaMismatchError(
            f"Nothing to search {schema.collection!r} with: embedder and sparse are both None. It "
            f"has {schema}."
        )
    dimension = 0 if dense_name is None else schema.dense[dense_name].size
    return RecallPlan(dense_name, dimension, sparse_name)


def _dense_name(schema: CollectionSchema, embedder: Embedder, wanted: str | None) -> str:
    seen = f"Collection {schema.collection!r} has {schema}"
    expected = f"the embedder {embedder.name!r} gives dense vectors of {embedder.dimension}"
    if schema.embedder is not None and schema.embedder != embedder.name:
        raise SchemaMismatchError(
            f"Collection {schema.collection!r} was filled with the embedder {schema.embedder!r}; "
            f"{embedder.name!r} does not fit its vectors. Pass embedder={schema.embedder!r}, or "
            "index into a new collection."
        )
    if wanted is not None:
        if wanted not in schema.dense:
            raise SchemaMismatchError(f"{seen}; there is no dense vector {wanted!r}.")
        if schema.dense[wanted].size != embedder.dimension:
            raise SchemaMismatchError(
                f"{seen}; {expected}. Pass the embedder that filled {wanted!r}."
            )
        return wanted
    fitting = [
        name
        for name, params in schema.dense.items()
        if params.size == embedder.dimension and params.multivector_config is None
    ]
    if not fitting:
        raise SchemaMismatchError(
            f"{seen}; {expected}. Pass the embedder that filled the collection, or embedder=None "
            "for sparse recall alone."
        )
    if len(fitting) > 1:
        raise SchemaMismatchError(
            f"{seen}; {expected}, which fits {len(fitting)} of them. Name one: "
            f"options=SearchOptions(dense_vector={fitting[0]!r})."
        )
    return fitting[0]


def _sparse_name(
    schema: CollectionSchema, sparse: SparseEncoder, wanted: str | None, optional: bool
) -> str | None:
    seen = f"Collection {schema.collection!r} has {schema}"
    if wanted is not None:
        if wanted not in schema.sparse:
            raise SchemaMismatchError(f"{seen}; there is no sparse vector {wanted!r}.")
        return wanted
    names = list(schema.sparse)
    if optional:  # without IDF the vectors are not BM25's but, say, SPLADE's
        names = [n for n in names if schema.sparse[n].modifier == models.Modifier.IDF]
        if not names and schema.dense:
            return None
    if not names:
        raise SchemaMismatchError(
            f"{seen}; {sparse.name!r} needs a sparse vector with modifier IDF. Pass sparse=None "
            "for dense recall alone, or index into a new collection."
        )
    if len(names) > 1:
        raise SchemaMismatchError(
            f"{seen}; several fit {sparse.name!r}. Name one: "
            f"options=SearchOptions(sparse_vector={names[0]!r})."
        )
    return names[0]


def recall_request(
    plan: RecallPlan,
    dense: NDArray[np.float32] | None,
    sparse: models.SparseVector | None,
    *,
    limit: int,
    candidates: int,
    query_filter: models.Filter | None = None,
    with_payload: models.WithPayloadInterface = True,
    with_vectors: models.WithVector = False,
    params: models.SearchParams | None = None,
    fusion: Fusion = "rrf",
) -> models.QueryRequest:
    """The one request that recalls candidates.

    Args:
        plan: which vectors to search.
        dense: shape (dimension,), where the plan is dense.
        sparse: where the plan is sparse; without entries it is left out if the plan is dense too.
        limit: points to return.
        candidates: points that each branch of a fused search considers.
        query_filter: applied inside each branch.
        with_payload: which payload to return.
        with_vectors: which vectors to return.
        params: of the dense search.
        fusion: of the branches, where there are two.
    """
    branches: list[models.Prefetch] = []
    if plan.dense is not None and dense is not None:
        branches.append(
            models.Prefetch(
                query=dense.tolist(),
                using=plan.dense or None,
                filter=query_filter,
                params=params,
                limit=candidates,
            )
        )
    if plan.sparse is not None and sparse is not None and (sparse.indices or not branches):
        branches.append(
            models.Prefetch(query=sparse, using=plan.sparse, filter=query_filter, limit=candidates)
        )
    if len(branches) == 1:
        only = branches[0]
        return models.QueryRequest(
            query=only.query,
            using=only.using,
            filter=query_filter,
            params=only.params,
            limit=limit,
            with_payload=with_payload,
            with_vector=with_vectors,
        )
    return models.QueryRequest(
        prefetch=branches,
        query=models.FusionQuery(fusion=models.Fusion(fusion)),
        limit=limit,
        with_payload=with_payload,
        with_vector=with_vectors,
    )
