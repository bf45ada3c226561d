"""Settings of a collection that ``add`` creates, in qdrant-client's own models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.types import StatesPrecision
from qdrant_rerank.utils.validation import (
    a_type,
    require_choice,
    require_flag,
    require_positive,
    shown,
)

__all__ = ["CollectionSettings", "PayloadIndex"]

PayloadIndex = models.PayloadSchemaType | models.PayloadSchemaParams | str

INT8 = models.ScalarQuantization(
    scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSettings:
    """Settings of a new collection; None leaves a setting to Qdrant.

    An embedded engine has no shards and no replicas, and ignores their numbers.

    Attributes:
        shard_number: shards, which a cluster spreads over its nodes.
        replication_factor: copies of each shard.
        write_consistency_factor: copies that must confirm a write before it succeeds.
        on_disk_vectors: whether dense vectors stay on disk, cached in memory as far as it is free.
        on_disk_payload: whether payload stays on disk.
        quantization: "int8" searches in a copy of a quarter of the size, kept in memory; or any
            other that qdrant-client knows.
        hnsw: parameters of the HNSW graph.
        optimizers: among others, when graphs are built.
        payload_indexes: types of the payload fields to index, which are those of filters.
        document_states: "int8" or "float16" stores the states of each document in the lower layers
            of the searcher's reranker, so that a search reads the query alone: 385 or 990 bytes
            per token with the default model, 554 or 1,830 with "grown-e5-small-cross-v1". "pq",
            product quantisation, takes 97, with the default model alone, and keeps the order
            less well. The reranker has to be a model whose lower layers see each text alone. None
            stores none.

    Raises:
        InvalidInputError: a number below 1, or an unknown quantisation or type of index.

    Examples:
        >>> settings = CollectionSettings(
        ...     shard_number=6, replication_factor=2, quantization="int8", on_disk_vectors=True,
        ...     payload_indexes={"year": "integer", "language": "keyword"},
        ... )
        >>> settings.arguments({"vectors_config": {}})["shard_number"]
        6
    """

    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    on_disk_vectors: bool | None = None
    on_disk_payload: bool | None = None
    quantization: Literal["int8"] | models.QuantizationConfig | None = None
    hnsw: models.HnswConfigDiff | None = None
    optimizers: models.OptimizersConfigDiff | None = None
    payload_indexes: Mapping[str, PayloadIndex] = field(default_factory=dict)
    document_states: StatesPrecision | None = None

    def __post_init__(self) -> None:
        for name in ("shard_number", "replication_factor", "write_consistency_factor"):
            require_positive(name, getattr(self, name))
        for name in ("on_disk_vectors", "on_disk_payload"):
            require_flag(name, getattr(self, name), optional=True)
        if not (isinstance(self.quantization, str) and self.quantization == "int8"):
            expected = "'int8' or a models.QuantizationConfig"
            _require("quantization", self.quantization, models.QuantizationConfig, expected)
        _require("hnsw", self.hnsw, models.HnswConfigDiff, "a models.HnswConfigDiff")
        expected = "a models.OptimizersConfigDiff"
        _require("optimizers", self.optimizers, models.OptimizersConfigDiff, expected)
        if not isinstance(self.payload_indexes, Mapping):
            raise InvalidInputError(
                f"payload_indexes is {a_type(self.payload_indexes)}; expected a mapping such as "
                "{'year': 'integer'}."
            )
        if self.document_states is not None:
            require_choice("document_states", self.document_states, StatesPrecision)
        known = {kind.value for kind in models.PayloadSchemaType}
        for name, kind in self.payload_indexes.items():
            if not isinstance(name, str) or not isinstance(kind, str | models.PayloadSchemaParams):
                raise InvalidInputError(
                    f"payload_indexes has {shown(kind)} for {shown(name)}; expected the type of an "
                    "index, such as 'integer', for the name of a field."
                )
            if isinstance(kind, str) and kind not in known:
                raise InvalidInputError(
                    f"The index of {name!r} is of type {kind!r}; expected one of "
                    f"{', '.join(sorted(known))}, or models.TextIndexParams and the like."
                )

    def arguments(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``create_collection``: those of the encoders and these."""
        quantization: Any = INT8 if self.quantization == "int8" else self.quantization
        vectors = config.get("vectors_config", {})
        if self.on_disk_vectors is not None:
            vectors = {
                name: params.model_copy(update={"on_disk": self.on_disk_vectors})
                for name, params in vectors.items()
            }
        added = {
            "shard_number": self.shard_number,
            "replication_factor": self.replication_factor,
            "write_consistency_factor": self.write_consistency_factor,
            "on_disk_payload": self.on_disk_payload,
            "quantization_config": quantization,
            "hnsw_config": self.hnsw,
            "optimizers_config": self.optimizers,
        }
        given = {name: value for name, value in added.items() if value is not None}
        return {**config, "vectors_config": vectors, **given}


def _require(name: str, value: Any, kind: Any, expected: str) -> None:
    """Raise InvalidInputError unless the value is a model of qdrant-client's, or None."""
    if not isinstance(value, kind | None):
        raise InvalidInputError(f"{name} is {shown(value)}; expected {expected}.")
