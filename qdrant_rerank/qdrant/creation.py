"""Creates a collection for the encoders of a searcher."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from qdrant_client import models

from qdrant_rerank.embedders import needs_idf
from qdrant_rerank.embedders.checks import checked_dimension
from qdrant_rerank.embedders.qdrant import QdrantInference, TextIndex
from qdrant_rerank.errors import InvalidInputError, QdrantRequestError
from qdrant_rerank.payload import PayloadText
from qdrant_rerank.qdrant.encoders import description
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder
from qdrant_rerank.qdrant.schema import (
    DENSE_NAME,
    EMBEDDER_KEY,
    IDS_KEY,
    IDS_VERSION,
    SPARSE_KEY,
    SPARSE_NAME,
    STATES_KEY,
    TEXT_KEY,
    CollectionSchema,
    CollectionStates,
)
from qdrant_rerank.qdrant.settings import CollectionSettings
from qdrant_rerank.qdrant.transport.client import is_local
from qdrant_rerank.qdrant.transport.driver import Driver

__all__ = ["NewCollection"]


@dataclass(frozen=True, slots=True)
class NewCollection:
    """A collection that is to be created, with its payload indexes.

    Attributes:
        name: its name.
        config: the other arguments of ``create_collection``.
        indexes: its payload indexes, by field.
    """

    name: str
    config: Mapping[str, Any]
    indexes: Mapping[str, Any]

    @classmethod
    def for_encoders(
        cls,
        name: str,
        embedder: DenseEncoder | None,
        sparse: LexicalEncoder | None,
        settings: CollectionSettings,
        text: PayloadText,
        states: CollectionStates | None = None,
    ) -> "NewCollection":
        """Plan it for these encoders.

        Args:
            name: name of the collection.
            embedder: the dense encoder, or None.
            sparse: the sparse encoder, or None.
            settings: how the collection is laid out.
            text: where the texts of its payloads are.
            states: the states of documents that it will store, or None.

        Raises:
            InvalidInputError: there is neither encoder, or the length of the dense vectors is not
                known.
        """
        config = settings.arguments(_encoders_config(embedder, sparse))
        if not callable(text.source):
            source = text.source if isinstance(text.source, str) else list(text.source)
            config["metadata"][TEXT_KEY] = source
        if states is not None:
            config["metadata"][STATES_KEY] = states.describe()
        indexes: dict[str, Any] = dict(settings.payload_indexes)
        if isinstance(sparse, TextIndex):
            kind = models.TextIndexType.TEXT
            indexes[sparse.field] = models.TextIndexParams(type=kind, scoring=True)
        return cls(name, config, indexes)

    @property
    def schema(self) -> CollectionSchema:
        """The schema that it will have."""
        return CollectionSchema.planned(self.name, self.config, self.indexes)

    async def create(self, driver: Driver) -> None:
        """Create it, unless another process has done so in the meantime.

        Raises:
            QdrantRequestError: Qdrant refused.
        """
        name, config = self.name, self.config
        try:
            await driver.request(lambda client, _: client.create_collection(name, **config))
        except QdrantRequestError:
            # Another process may have created it in the meantime; then its schema decides.
            if not await driver.request(lambda client, _: client.collection_exists(name)):
                raise
        for field, kind in self.indexes.items():
            await driver.request(partial(_index, name, field, kind))


def _index(collection: str, name: str, kind: Any, client: Any, timeout: int | None) -> Any:
    local_mode = is_local(client) and not getattr(client, "concurrent", False)
    if local_mode and getattr(kind, "scoring", None) is None:
        return None  # it has no other indexes, and warns
    return client.create_payload_index(collection, name, kind, wait=True)


def _encoders_config(
    embedder: DenseEncoder | None, sparse: LexicalEncoder | None
) -> dict[str, Any]:
    """Return the arguments of ``create_collection`` for these encoders.

    Raises:
        InvalidInputError: there is neither, or the length of the dense vectors is not known.
    """
    if embedder is None and sparse is None:
        raise InvalidInputError(
            "A collection needs vectors, but embedder and sparse are both None. Pass one of them."
        )
    config: dict[str, Any] = {"vectors_config": {}, "metadata": {IDS_KEY: IDS_VERSION}}
    if embedder is not None:
        if isinstance(embedder, QdrantInference) and embedder.dimension is None:
            raise InvalidInputError(
                f"The length of {embedder.name!r}'s vectors is not known, and a collection needs "
                "it. Pass QdrantInference(name, dimension=...)."
            )
        size = checked_dimension(embedder.name, embedder.dimension)
        config["vectors_config"] = {
            DENSE_NAME: models.VectorParams(size=size, distance=models.Distance.COSINE)
        }
        config["metadata"][EMBEDDER_KEY] = embedder.name
    if sparse is not None and not isinstance(sparse, TextIndex):
        modifier = models.Modifier.IDF if needs_idf(sparse) else None
        config["sparse_vectors_config"] = {
            SPARSE_NAME: models.SparseVectorParams(modifier=modifier)
        }
        config["metadata"][SPARSE_KEY] = description(sparse)
    return config
