"""The sparse encoder of a collection: as it was recorded, and whether a searcher's fits it. No I/O.

Words that are stemmed in one language are not found in another, and no error tells.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.errors import InvalidInputError, SchemaMismatchError
from qdrant_rerank.qdrant.recall_plan import LexicalEncoder
from qdrant_rerank.qdrant.schema import CollectionSchema

__all__ = ["asked_encoder", "description", "recorded_encoder", "require_same_weights"]

logger = logging.getLogger(__name__)

#: Parameters of BM25 that are in the weights of documents.
WEIGHTS = ("k", "b", "avg_len")


def description(encoder: Any) -> dict[str, Any]:
    """Return what a collection records of a sparse encoder: its own ``describe()``, or its name."""
    describe = getattr(encoder, "describe", None)
    return dict(describe()) if callable(describe) else {"model": encoder.name}


def recorded_encoder(
    schema: CollectionSchema,
    sparse: LexicalEncoder,
    *,
    by_name: bool,
    language: str | None = None,
) -> LexicalEncoder:
    """Return the sparse encoder to search and to add with.

    Args:
        schema: schema of the collection.
        sparse: the searcher's encoder.
        by_name: whether the searcher was given only the name of BM25, or "auto", so that what the
            collection records counts.
        language: the language that was given with the name; None for the recorded one.

    Raises:
        SchemaMismatchError: the collection was filled with another model, or in another language.
    """
    recorded = schema.encoder
    own = description(sparse)
    if recorded is None:
        if by_name and language is None and schema.sparse:
            logger.info(
                "Collection %r does not record the encoder of its sparse vectors; it is searched "
                "by BM25 in %s. For another language, pass language=...",
                schema.collection,
                own["language"],
            )
        return sparse
    same_model = _lower(recorded, "model") == _lower(own, "model")
    same_language = _lower(recorded, "language") == _lower(own, "language")
    if not same_model or not (same_language or (by_name and language is None)):
        raise _mismatch(schema, recorded, own)
    try:
        if by_name:
            return Bm25Encoder.from_description(recorded)
        if isinstance(sparse, Bm25Encoder) and sparse.avg_len is None:
            return sparse.with_avg_len(Bm25Encoder.from_description(recorded).avg_len)
    except (InvalidInputError, TypeError) as error:
        raise _mismatch(schema, recorded, own) from error
    return sparse


def asked_encoder(
    encoder: LexicalEncoder | None, language: str | None, avg_len: float | None
) -> LexicalEncoder | None:
    """Return the encoder of an ``add`` with a language or an average length of its own.

    Args:
        encoder: the searcher's.
        language: as ``add`` was given it; None for the encoder's.
        avg_len: as ``add`` was given it; None for the encoder's.

    Raises:
        InvalidInputError: the encoder is no BM25 that is computed here, or a value is wrong.
    """
    if language is None and avg_len is None:
        return encoder
    if not isinstance(encoder, Bm25Encoder):
        given = f"language={language!r:.80}" if avg_len is None else f"avg_len={avg_len!r:.80}"
        raise InvalidInputError(
            f"{given} is of BM25, and sparse is {encoder!r:.80}; expected a searcher with "
            "sparse='auto', 'Qdrant/bm25' or a Bm25Encoder."
        )
    return Bm25Encoder(
        encoder.k,
        encoder.b,
        encoder.avg_len if avg_len is None else avg_len,
        encoder.language if language is None else language,
        query_counts=encoder.query_counts,
    )


def require_same_weights(schema: CollectionSchema, encoder: LexicalEncoder) -> None:
    """Raise SchemaMismatchError unless documents get weights like those in the collection.

    Weights of two kinds in one collection would rank documents by when they were added.
    """
    recorded = schema.encoder or {}
    own = description(encoder)
    if _lower(recorded, "model") != _lower(own, "model"):
        return
    differing = [
        name
        for name in WEIGHTS
        if None not in (recorded.get(name), own.get(name))
        and not math.isclose(recorded[name], own[name], rel_tol=1e-9)
    ]
    if differing:
        stored = ", ".join(f"{name}={recorded[name]!r:.20}" for name in differing)
        new = ", ".join(f"{name}={own[name]!r:.20}" for name in differing)
        raise SchemaMismatchError(
            f"The documents in {schema.collection!r} have BM25 weights of {stored}; weights of "
            f"{new} do not compare with them. Leave {differing[0]} out to add with the recorded "
            "one, or index all documents into a new collection ('qdrant-rerank reindex')."
        )


def _lower(described: Mapping[str, Any], name: str) -> str:
    return str(described.get(name, "")).lower()


def _mismatch(
    schema: CollectionSchema, recorded: Mapping[str, Any], own: Mapping[str, Any]
) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"Collection {schema.collection!r} was filled with the sparse encoder {_shown(recorded)}; "
        f"{_shown(own)} does not fit its vectors. Pass the same one, or sparse='auto' without a "
        "language, which reads the language of a BM25 from the collection.",
        command=f"Collection {schema.collection!r} was filled with the sparse encoder "
        f"{_shown(recorded)}; {_shown(own)} does not fit its vectors. Leave --language out to "
        "use the recorded one, or index into a new collection.",
    )


def _shown(described: Mapping[str, Any]) -> str:
    language = described.get("language")
    return f"{described.get('model')!r}" + (f" in {language!r}" if language else "")
