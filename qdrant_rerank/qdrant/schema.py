"""The vectors and text indexes of a collection. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from qdrant_client import models

from qdrant_rerank.errors import SchemaMismatchError
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.client_models import optional_field

__all__ = [
    "DENSE_NAME",
    "EMBEDDER_KEY",
    "IDS_KEY",
    "IDS_VERSION",
    "SPARSE_KEY",
    "SPARSE_NAME",
    "STATES",
    "STATES_FIELD",
    "STATES_KEY",
    "TEXT_KEY",
    "Branch",
    "CollectionSchema",
    "CollectionStates",
    "are_states",
]

#: Names of the vectors in a collection that ``add`` creates.
DENSE_NAME = "dense"
SPARSE_NAME = "bm25"
#: Key of a collection's metadata under which ``add`` records the embedder's name.
EMBEDDER_KEY = "qdrant_rerank_embedder"
#: Key under which ``add`` records the sparse encoder, as its ``describe()`` gives it.
SPARSE_KEY = "qdrant_rerank_sparse"
#: Key under which ``add`` records the text source, unless that is a function.
TEXT_KEY = "qdrant_rerank_text"
#: Key under which ``add`` records how it makes ids, and the way of new collections. Collections
#: without it have way 1: of the text alone. Way 2: of the text and all the payload.
IDS_KEY = "qdrant_rerank_ids"
IDS_VERSION = 2
#: Key under which a collection records whose states its documents have.
STATES_KEY = "qdrant_rerank_states"
#: Payload field of a document's states, which is never returned with a hit, and the key inside it.
STATES_FIELD = "qdrant_rerank_states"
STATES = "states"
MODEL_DIGEST_BYTES = 16


def are_states(value: Any) -> bool:
    """Whether what a payload holds in :data:`STATES_FIELD` is ours, and not data of its writer."""
    return isinstance(value, dict) and value.keys() == {STATES}


@dataclass(frozen=True, slots=True)
class CollectionStates:
    """The states that a collection stores of its documents.

    Attributes:
        precision: of their numbers.
        model: digest of what decides a state, 16 bytes.
        name: name of the model, for messages.
    """

    precision: StatesPrecision
    model: bytes
    name: str

    @classmethod
    def read(cls, recorded: Any) -> Self | None:
        """Make it from a collection's metadata; None if it records none that are known here."""
        if not isinstance(recorded, Mapping):
            return None
        precision: Any = recorded.get("precision")
        model = recorded.get("model")
        try:
            digest = bytes.fromhex(model if isinstance(model, str) else "")
        except ValueError:
            return None
        if precision not in get_args(StatesPrecision) or len(digest) != MODEL_DIGEST_BYTES:
            return None
        return cls(precision, digest, str(recorded.get("name", "")))

    def describe(self) -> dict[str, str]:
        """Return what a collection's metadata records."""
        return {"precision": self.precision, "model": self.model.hex(), "name": self.name}


@dataclass(frozen=True, slots=True)
class Branch:
    """One search of a request, of one vector or text index.

    Attributes:
        using: name of the vector ("" is the unnamed one), or the payload field of a text index.
        dense: whether the dense encoder makes its query, else the sparse one.
        dimension: length of a dense vector; 0 for a sparse one.
        multivector: whether a point has several such vectors.
        text_index: whether it ranks by a payload field's text index and has no vector.
    """

    using: str
    dense: bool
    dimension: int = 0
    multivector: bool = False
    text_index: bool = False

    def __str__(self) -> str:
        kind = "dense" if self.dense else "text index" if self.text_index else "sparse"
        return f"{kind} {self.using or '(unnamed)'!r}"


@dataclass(frozen=True, slots=True)
class CollectionSchema:
    """The vectors of a collection.

    Attributes:
        collection: its name.
        dense: dense vectors by name; "" is the unnamed one.
        sparse: sparse vectors by name.
        embedder: name of the embedder that filled it, if ``add`` recorded it.
        encoder: description of the sparse encoder that filled it, if ``add`` recorded it.
        text: text source that ``add`` read the texts by, if it recorded it.
        ids: how the ids of documents are made; see ``IDS_KEY``.
        indexed: payload fields that have an index.
        scored: those of them whose text index ranks by BM25.
        points: number of points when it was read.
        states: the states that it stores of its documents, or None.
    """

    collection: str
    dense: Mapping[str, models.VectorParams]
    sparse: Mapping[str, models.SparseVectorParams]
    embedder: str | None = None
    encoder: Mapping[str, Any] | None = None
    text: str | tuple[str, ...] | None = None
    ids: int = 1
    indexed: frozenset[str] = frozenset()
    scored: frozenset[str] = frozenset()
    points: int = field(default=0, compare=False)
    states: CollectionStates | None = None

    @classmethod
    def from_info(cls, collection: str, info: models.CollectionInfo) -> "CollectionSchema":
        """Make it from what ``get_collection`` returns.

        Raises:
            SchemaMismatchError: a newer version of this package has made the collection.
        """
        vectors = info.config.params.vectors or {}
        if isinstance(vectors, models.VectorParams):
            vectors = {"": vectors}
        metadata = info.config.metadata or {}
        recorded = metadata.get(EMBEDDER_KEY)
        described = metadata.get(SPARSE_KEY)
        ids = metadata.get(IDS_KEY, 1)
        if ids not in range(1, IDS_VERSION + 1):
            raise SchemaMismatchError(
                f"Collection {collection!r} has ids of kind {ids!r:.40} (metadata {IDS_KEY!r}); "
                f"this qdrant-rerank knows 1 to {IDS_VERSION}. Upgrade qdrant-rerank."
            )
        return cls(
            collection=collection,
            dense=dict(vectors),
            sparse=dict(info.config.params.sparse_vectors or {}),
            embedder=recorded if isinstance(recorded, str) else None,
            encoder=described if isinstance(described, dict) else None,
            text=_text_source(metadata.get(TEXT_KEY)),
            ids=ids,
            indexed=frozenset(info.payload_schema or {}),
            scored=frozenset(
                name
                for name, index in (info.payload_schema or {}).items()
                if isinstance(index.params, models.TextIndexParams)
                and optional_field(index.params, "scoring")
            ),
            points=info.points_count or 0,
            states=CollectionStates.read(metadata.get(STATES_KEY)),
        )

    @classmethod
    def planned(
        cls, collection: str, config: Mapping[str, Any], indexes: Mapping[str, Any]
    ) -> "CollectionSchema":
        """Make that of a collection of ours before it is created.

        Args:
            collection: its name.
            config: the other arguments of ``create_collection``.
            indexes: its payload indexes, by field.
        """
        metadata = config["metadata"]
        return cls(
            collection=collection,
            dense=config["vectors_config"],
            sparse=config.get("sparse_vectors_config", {}),
            embedder=metadata.get(EMBEDDER_KEY),
            encoder=metadata.get(SPARSE_KEY),
            text=_text_source(metadata.get(TEXT_KEY)),
            ids=metadata[IDS_KEY],
            indexed=frozenset(indexes),
            scored=frozenset(
                name for name, kind in indexes.items() if getattr(kind, "scoring", None)
            ),
            states=CollectionStates.read(metadata.get(STATES_KEY)),
        )

    @property
    def is_ours(self) -> bool:
        """Whether ``add`` created it."""
        return self.ids > 1 or self.embedder is not None or self.encoder is not None

    def dense_branch(self, name: str) -> Branch:
        """Return the search of one dense vector."""
        params = self.dense[name]
        return Branch(name, True, params.size, params.multivector_config is not None)

    def has_idf(self, name: str) -> bool:
        """Return whether Qdrant multiplies a sparse vector by the inverse document frequency."""
        return self.sparse[name].modifier == models.Modifier.IDF

    def __str__(self) -> str:
        dense = [
            f"{name or '(unnamed)'} of {one.size}{' (multivector)' * bool(one.multivector_config)}"
            for name, one in self.dense.items()
        ]
        return (
            f"dense vectors {', '.join(dense) or 'none'}; sparse {', '.join(self.sparse) or 'none'}"
        )


def _text_source(recorded: Any) -> str | tuple[str, ...] | None:
    if isinstance(recorded, list) and recorded and all(isinstance(one, str) for one in recorded):
        return tuple(recorded)
    return recorded if isinstance(recorded, str) and recorded else None
