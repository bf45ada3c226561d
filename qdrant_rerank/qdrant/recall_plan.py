"""Chooses which vectors of a collection are searched, by its schema and the encoders. No I/O.

A search is dense, sparse, or several of them fused inside one request, whichever the collection
has and the encoders fit. :mod:`~qdrant_rerank.qdrant.recall_request` writes the request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qdrant_rerank.embedders import needs_idf
from qdrant_rerank.embedders.batched import AsyncEmbedder, BatchedEmbedder
from qdrant_rerank.embedders.checks import checked_dimension
from qdrant_rerank.embedders.qdrant import BM25_MODEL, QdrantInference, TextIndex
from qdrant_rerank.errors import SchemaMismatchError
from qdrant_rerank.qdrant.schema import SPARSE_NAME, Branch, CollectionSchema
from qdrant_rerank.types import Embedder, SparseEncoder

__all__ = [
    "DenseEncoder",
    "LexicalEncoder",
    "Names",
    "RecallPlan",
    "plan_given_vector",
    "plan_recall",
]

DenseEncoder = Embedder | AsyncEmbedder | QdrantInference
LexicalEncoder = SparseEncoder | QdrantInference | TextIndex
#: One or several names of vectors, in the order that they are searched; None to choose by size.
Names = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class RecallPlan:
    """The searches of one request.

    Attributes:
        branches: dense ones first, then sparse ones, each in the order of their names.
        warning: what the user should know of the sparse vectors, and what to do; "" for nothing.
    """

    branches: tuple[Branch, ...]
    warning: str = ""

    @property
    def dense(self) -> str | None:
        """Name of the first dense vector ("" is the unnamed one); None if there is none."""
        return next((branch.using for branch in self.branches if branch.dense), None)

    @property
    def dimension(self) -> int:
        """Length of the first dense vector; 0 if there is none."""
        return next((branch.dimension for branch in self.branches if branch.dense), 0)

    @property
    def sparse(self) -> str | None:
        """Name of the first sparse vector; None if there is none."""
        return next((b.using for b in self.branches if not b.dense and not b.text_index), None)


def plan_recall(
    schema: CollectionSchema,
    embedder: DenseEncoder | None,
    sparse: LexicalEncoder | None,
    *,
    dense_vector: Names = None,
    sparse_vector: Names = None,
    dense_optional: bool = False,
    sparse_optional: bool = False,
) -> RecallPlan:
    """Choose the vectors to search.

    Args:
        schema: schema of the collection.
        embedder: the dense encoder, or None for no dense search.
        sparse: the sparse encoder, or None for no sparse search.
        dense_vector: names of dense vectors; None takes the one of the embedder's size.
        sparse_vector: names of sparse vectors; None takes the only one.
        dense_optional: whether dense vectors may be missing if there is a sparse one.
        sparse_optional: whether a sparse vector with Qdrant's IDF may be missing if there is a
            dense one.

    Raises:
        SchemaMismatchError: a vector is missing, ambiguous or of another size.
    """
    sparse_branches: list[Branch] = []
    warning = ""
    if isinstance(sparse, TextIndex):
        sparse_branches = [_text_branch(schema, sparse)]
    elif sparse is not None:
        names = _sparse_names(schema, sparse, _listed(sparse_vector), sparse_optional)
        sparse_branches = [Branch(name, dense=False) for name in names]
        warning = _warning(schema, sparse, names)
    dense_branches: list[Branch] = []
    if embedder is not None and (schema.dense or not dense_optional or not sparse_branches):
        names = _dense_names(schema, embedder, _listed(dense_vector))
        dense_branches = [schema.dense_branch(name) for name in names]
    if not dense_branches and not sparse_branches:
        raise SchemaMismatchError(
            f"Nothing to search {schema.collection!r} with: embedder and sparse are both None. It "
            f"has {schema}."
        )
    return RecallPlan((*dense_branches, *sparse_branches), warning)


def plan_given_vector(
    schema: CollectionSchema, shape: tuple[int, ...], dense_vector: Names = None
) -> Branch:
    """Choose the dense vector that a caller's own vector searches.

    Args:
        schema: schema of the collection.
        shape: shape of the caller's vector: (d,), or (n, d) for a multivector.
        dense_vector: name of the dense vector; None takes the one that fits.

    Raises:
        SchemaMismatchError: none fits, or several do.
    """
    size = shape[-1]
    given = f"the vector given is of {size}"
    seen = f"Collection {schema.collection!r} has {schema}; {given}"
    names = _named(schema, _listed(dense_vector), size, given)
    if not names:
        names = _fitting(schema, size, multivector=len(shape) == 2)
    if not names:
        raise SchemaMismatchError(f"{seen}, which fits none of them.")
    if len(names) > 1:
        raise SchemaMismatchError(
            f"{seen}, which fits {len(names)} of them. Name one: "
            f"options=SearchOptions(dense_vector={names[0]!r})."
        )
    return schema.dense_branch(names[0])


def _listed(names: Names) -> list[str] | None:
    if names is None:
        return None
    return [names] if isinstance(names, str) else list(names)


def _fitting(schema: CollectionSchema, size: int | None, multivector: bool) -> list[str]:
    """Dense vectors of that size, or of any."""
    return [
        name
        for name, params in schema.dense.items()
        if size in {None, params.size} and (params.multivector_config is not None) == multivector
    ]


def _named(
    schema: CollectionSchema, wanted: list[str] | None, size: int | None, expected: str
) -> list[str]:
    """Return the names of dense vectors, checked; empty if there are none."""
    seen = f"Collection {schema.collection!r} has {schema}"
    for name in wanted or []:
        if name not in schema.dense:
            raise SchemaMismatchError(f"{seen}; there is no dense vector {name!r}.")
        if size not in {None, schema.dense[name].size}:
            raise SchemaMismatchError(
                f"{seen}; {expected}. Pass the embedder that filled {name!r}."
            )
    return wanted or []


def _dense_names(
    schema: CollectionSchema, embedder: DenseEncoder, wanted: list[str] | None
) -> list[str]:
    seen = f"Collection {schema.collection!r} has {schema}"
    # Of vectors that nothing was embedded to yet, any length fits.
    size = embedder.known_dimension if isinstance(embedder, BatchedEmbedder) else embedder.dimension
    if size is not None:
        size = checked_dimension(embedder.name, size)
    expected = f"the embedder {embedder.name!r} gives dense vectors" + (
        f" of {size}" if size else ""
    )
    if schema.embedder is not None and schema.embedder != embedder.name:
        filled = (
            f"Collection {schema.collection!r} was filled with the embedder {schema.embedder!r}; "
            f"{embedder.name!r} does not fit its vectors."
        )
        raise SchemaMismatchError(
            f"{filled} Pass embedder={schema.embedder!r}, or index into a new collection.",
            command=f"{filled} Pass --embedder {schema.embedder}, or index into a new collection.",
        )
    if wanted:
        return _named(schema, wanted, size, expected)
    fitting = _fitting(schema, size, multivector=False)
    if not fitting:
        several = _fitting(schema, None, multivector=True)
        raise SchemaMismatchError(
            f"{seen}; {expected}. Pass the embedder that filled the collection, or embedder=None "
            "for sparse retrieval alone."
            + (
                f" Of a multivector, also name it: SearchOptions(dense_vector={several[0]!r}); or "
                f"rerank by it: reranker=LateInteraction({several[0]!r}, ...)."
                if several
                else ""
            )
        )
    if len(fitting) > 1:
        raise SchemaMismatchError(
            f"{seen}; {expected}, which fits {len(fitting)} of them. Name one: "
            f"options=SearchOptions(dense_vector={fitting[0]!r})."
        )
    return fitting


def _sparse_names(
    schema: CollectionSchema,
    sparse: SparseEncoder | QdrantInference,
    wanted: list[str] | None,
    optional: bool,
) -> list[str]:
    seen = f"Collection {schema.collection!r} has {schema}"
    if wanted:
        for name in wanted:
            if name not in schema.sparse:
                raise SchemaMismatchError(f"{seen}; there is no sparse vector {name!r}.")
        return wanted
    names = list(schema.sparse)
    if optional:
        names = [name for name in names if _may_be_bm25(schema, name)]
        if not names and schema.dense:
            return []
    elif len(names) > 1:
        idf = needs_idf(sparse)
        names = [name for name in names if schema.has_idf(name) == idf] or names
    if not names and schema.sparse:
        raise SchemaMismatchError(
            f"{seen}. {_why_not(schema)} {_advice(schema, list(schema.sparse))}"
        )
    if not names:
        modifier = " with modifier IDF" if needs_idf(sparse) else ""
        raise SchemaMismatchError(
            f"{seen}; {sparse.name!r} needs a sparse vector{modifier}. Pass sparse=None for dense "
            "retrieval alone, or index into a new collection."
        )
    if len(names) > 1:
        raise SchemaMismatchError(
            f"{seen}; several fit {sparse.name!r}. Name one: "
            f"options=SearchOptions(sparse_vector={names[0]!r})."
        )
    return names


def _may_be_bm25(schema: CollectionSchema, name: str) -> bool:
    """Whether a sparse vector has Qdrant's IDF, and is not recorded as another model's."""
    recorded = (schema.encoder or {}).get("model", BM25_MODEL)
    others = name == SPARSE_NAME and str(recorded).lower() != BM25_MODEL
    return schema.has_idf(name) and not others


def _warning(
    schema: CollectionSchema, sparse: SparseEncoder | QdrantInference, searched: Sequence[str]
) -> str:
    """Return what to tell of sparse vectors that are left out, or searched without their IDF."""
    if not searched and schema.sparse:
        names = ", ".join(map(repr, schema.sparse))
        return (
            f"Sparse vectors of collection {schema.collection!r} are not searched: {names}. "
            f"{_why_not(schema)} {_advice(schema, list(schema.sparse))} sparse=None searches "
            "without them, and without this warning."
        )
    plain = [name for name in searched if not schema.has_idf(name)]
    if plain and needs_idf(sparse):
        return (
            f"{sparse.name!r} searches {plain[0]!r} of collection {schema.collection!r}, which has "
            "no modifier IDF, so that rare words count no more than frequent ones. Turn it on: "
            f"{_idf_call(schema, plain[0])}."
        )
    return ""


def _why_not(schema: CollectionSchema) -> str:
    recorded = (schema.encoder or {}).get("model")
    if recorded is not None and str(recorded).lower() != BM25_MODEL:
        return f"The collection was filled with {recorded!r}, and sparse='auto' is BM25."
    return "They have no modifier IDF, so sparse='auto', which is BM25, leaves them out."


def _advice(schema: CollectionSchema, names: Sequence[str]) -> str:
    name = names[0]
    recorded = (schema.encoder or {}).get("model")
    if recorded is not None and str(recorded).lower() != BM25_MODEL:
        return f"Pass the encoder {recorded!r} as sparse=."
    return (
        "If they hold the weights of another model, such as SPLADE (LlamaIndex's default), pass "
        f"that encoder as sparse=. If {name!r} holds BM25 (LangChain's default), turn IDF on: "
        f"{_idf_call(schema, name)}."
    )


def _idf_call(schema: CollectionSchema, name: str) -> str:
    return (
        f"client.update_collection({schema.collection!r}, sparse_vectors_config={{{name!r}: "
        "models.SparseVectorParams(modifier='idf')})"
    )


def _text_branch(schema: CollectionSchema, index: TextIndex) -> Branch:
    # The embedded engine does not tell its payload indexes; then it says itself what is missing.
    if schema.indexed and index.field not in schema.scored:
        raise SchemaMismatchError(
            f"Collection {schema.collection!r} has no text index with scoring on the payload field "
            f"{index.field!r}; it has indexes on {', '.join(sorted(schema.indexed))}. Make one: "
            f"client.create_payload_index({schema.collection!r}, {index.field!r}, "
            "models.TextIndexParams(type='text', scoring=True))."
        )
    return Branch(index.field, dense=False, text_index=True)
