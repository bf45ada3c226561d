"""Settings of collections and payload indexes: qdrant-client's models to qdrant-edge's."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.utils.client_models import TextScoringParams, TurboQuantization, optional_field

__all__ = [
    "full_config",
    "index_info",
    "same_name",
    "to_config",
    "to_index",
]

# Qdrant's settings for a collection that is created without any.
HNSW = models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000, max_indexing_threads=0)
OPTIMIZERS = models.OptimizersConfig(
    deleted_threshold=0.2,
    vacuum_min_vector_number=1000,
    default_segment_number=0,
    indexing_threshold=10_000,
    flush_interval_sec=5,
)

#: A vector of collections without any, which the engine does not make.
UNUSED = "unused"
INDEX_PARAMS: Mapping[str, Any] = {
    "keyword": edge.KeywordIndexParams,
    "integer": edge.IntegerIndexParams,
    "float": edge.FloatIndexParams,
    "geo": edge.GeoIndexParams,
    "text": edge.TextIndexParams,
    "bool": edge.BoolIndexParams,
    "datetime": edge.DatetimeIndexParams,
    "uuid": edge.UuidIndexParams,
}
# Enumerations among the parameters of an index.
INDEX_ENUMS: Mapping[str, Any] = {"memory": edge.Memory, "tokenizer": edge.TokenizerType}


def full_config(
    vectors: Any,
    sparse_vectors: Any,
    *,
    hnsw: models.HnswConfigDiff | None,
    optimizers: models.OptimizersConfigDiff | None,
    quantization: models.QuantizationConfig | None,
    metadata: dict[str, Any] | None,
    params: Mapping[str, Any],
) -> models.CollectionConfig:
    """Return the settings of a collection that is created with these arguments.

    Args:
        vectors: dense ones, by name or the unnamed one.
        sparse_vectors: by name.
        hnsw: of all vectors.
        optimizers: what differs from Qdrant's defaults.
        quantization: of all vectors.
        metadata: recorded with the collection.
        params: further ``CollectionParams``.
    """
    return models.CollectionConfig(
        params=models.CollectionParams(
            vectors={} if vectors is None else vectors,
            sparse_vectors=None if sparse_vectors is None else dict(sparse_vectors),
            **{name: value for name, value in params.items() if value is not None},
        ),
        hnsw_config=HNSW.model_copy(update=_given(hnsw)),
        optimizer_config=OPTIMIZERS.model_copy(update=_given(optimizers)),
        quantization_config=quantization,
        metadata=metadata,
    )


def to_config(config: models.CollectionConfig, *, durable: bool) -> edge.EdgeConfig:
    """Convert the settings of a collection.

    Args:
        config: of the collection.
        durable: whether every write is logged before it is applied.
    """
    params, optimizers = config.params, config.optimizer_config
    dense, sparse = params.vectors or {}, params.sparse_vectors or {}
    if not dense and not sparse:  # such as a collection that is searched by a text index alone
        sparse = {UNUSED: models.SparseVectorParams()}
    return edge.EdgeConfig(
        vectors=_vectors(dense)
        if isinstance(dense, models.VectorParams)
        else {name: _vectors(one) for name, one in dense.items()},
        sparse_vectors={name: _sparse_vectors(one) for name, one in sparse.items()},
        on_disk_payload=params.on_disk_payload,
        hnsw_config=_hnsw(config.hnsw_config),
        quantization_config=_quantization(config.quantization_config),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizers.deleted_threshold,
            vacuum_min_vector_number=optimizers.vacuum_min_vector_number,
            default_segment_number=optimizers.default_segment_number,
            max_segment_size=optimizers.max_segment_size,
            indexing_threshold=optimizers.indexing_threshold,
        ),
        payload_memory=_memory(optional_field(params, "payload")),
        id_tracker_memory=_memory(optional_field(params, "id_tracker")),
        wal_enabled=durable,
    )


def _vectors(params: models.VectorParams) -> edge.EdgeVectorParams:
    multi = params.multivector_config
    own_hnsw = None
    if params.hnsw_config is not None:
        own_hnsw = _hnsw(HNSW.model_copy(update=_given(params.hnsw_config)))
    return edge.EdgeVectorParams(
        size=params.size,
        distance=same_name(edge.Distance, params.distance),
        on_disk=params.on_disk,
        multivector_config=None
        if multi is None
        else edge.MultiVectorConfig(same_name(edge.MultiVectorComparator, multi.comparator)),
        datatype=same_name(edge.VectorStorageDatatype, params.datatype),
        quantization_config=_quantization(params.quantization_config),
        hnsw_config=own_hnsw,
        memory=_memory(params),
    )


def _sparse_vectors(params: models.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    index = params.index or models.SparseIndexParams()
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.full_scan_threshold,
        on_disk=index.on_disk,
        # "none" is the engine's None
        modifier=edge.Modifier.Idf if params.modifier == models.Modifier.IDF else None,
        datatype=same_name(edge.VectorStorageDatatype, index.datatype),
        memory=_memory(index),
    )


def _memory(settings: Any) -> Any:
    """Return where the engine keeps what the settings are about."""
    return same_name(edge.Memory, optional_field(settings, "memory"))


def _hnsw(config: models.HnswConfig) -> edge.HnswIndexConfig:
    return edge.HnswIndexConfig(
        m=config.m,
        ef_construct=config.ef_construct,
        full_scan_threshold=config.full_scan_threshold,
        max_indexing_threads=config.max_indexing_threads or 0,
        on_disk=config.on_disk,
        payload_m=config.payload_m,
        inline_storage=config.inline_storage,
        memory=_memory(config),
    )


def _quantization(given: Any) -> Any:
    match given:
        case models.ScalarQuantization(scalar=wanted):
            return edge.ScalarQuantizationConfig(
                same_name(edge.ScalarType, wanted.type),
                quantile=wanted.quantile,
                always_ram=wanted.always_ram,
                memory=_memory(wanted),
            )
        case models.ProductQuantization(product=wanted):
            return edge.ProductQuantizationConfig(
                same_name(edge.CompressionRatio, wanted.compression),
                always_ram=wanted.always_ram,
                memory=_memory(wanted),
            )
        case models.BinaryQuantization(binary=wanted):
            return edge.BinaryQuantizationConfig(
                always_ram=wanted.always_ram,
                encoding=same_name(edge.BinaryQuantizationEncoding, wanted.encoding),
                query_encoding=same_name(
                    edge.BinaryQuantizationQueryEncoding, wanted.query_encoding
                ),
                memory=_memory(wanted),
            )
        case TurboQuantization(turbo=wanted):
            return edge.TurboQuantQuantizationConfig(
                always_ram=wanted.always_ram,
                bits=same_name(edge.TurboQuantBitSize, wanted.bits),
                memory=_memory(wanted),
            )
        case None | "Disabled":
            return None
        case _:
            raise QdrantRequestError(
                f"The embedded Qdrant does not know the quantization {type(given).__name__}."
            )


def index_info(schema: Any, points: int = 0) -> models.PayloadIndexInfo:
    """Return what ``get_collection`` says of an index.

    Args:
        schema: type of the index, or parameters that name it.
        points: points in the index.
    """
    if isinstance(schema, models.PayloadSchemaType | str):
        return models.PayloadIndexInfo(data_type=models.PayloadSchemaType(schema), points=points)
    return models.PayloadIndexInfo(data_type=schema.type.value, params=schema, points=points)


def to_index(info: models.PayloadIndexInfo) -> Any:
    """Convert the settings of an index."""
    if info.params is None:
        return same_name(edge.PayloadSchemaType, info.data_type)
    given = {
        name: getattr(info.params, name)
        for name in type(info.params).model_fields
        if name != "type" and getattr(info.params, name) is not None
    }
    for name, enumeration in INDEX_ENUMS.items():
        if name in given:
            given[name] = same_name(enumeration, given[name])
    if "stopwords" in given:
        given["stopwords"] = _stopwords(given["stopwords"])
    if "stemmer" in given:
        stemmer = given["stemmer"]
        given["stemmer"] = (
            edge.SnowballParams(same_name(edge.SnowballLanguage, stemmer.language))
            if isinstance(stemmer, models.SnowballParams)
            else edge.DisabledStemmer()
        )
    if isinstance(given.get("scoring"), TextScoringParams):
        given["scoring"] = True  # BM25 is the one kind
    return INDEX_PARAMS[info.data_type.value](**given)


def _stopwords(given: Any) -> Any:
    if isinstance(given, models.StopwordsSet):
        languages = {same_name(edge.Language, language) for language in given.languages or []}
        return edge.StopwordsSet(languages=languages, custom=set(given.custom or []))
    return same_name(edge.Language, given)


def _given(diff: Any) -> dict[str, Any]:
    """Return what a diff changes."""
    return {} if diff is None else dict(diff.model_dump(exclude_none=True))


def same_name(wanted: Any, given: Enum | str | None) -> Any:
    """Return the member of an enumeration that has the name ``given``; None for None.

    qdrant-client writes ``max_sim`` where qdrant-edge writes ``MaxSim``.

    Raises:
        ValueError: it has no such member.
    """
    if given is None:
        return None
    said = given.value if isinstance(given, Enum) else given
    for name in dir(wanted):
        if not name.startswith("_") and _plain(name) == _plain(said):
            return getattr(wanted, name)
    raise ValueError(f"{wanted.__name__} has no {said!r}")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
