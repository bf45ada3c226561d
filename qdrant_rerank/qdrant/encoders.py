"""The sparse encoder of a collection: as it was recorded, and whether a searcher's fits it. No I/O.

Words that are stemmed in one language are not found in another, and no error tells.
"""

import logging
from collections.abc import Mapping
from typing import Any

from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.errors import InvalidInputError, SchemaMismatchError
from qdrant_rerank.qdrant.recall_plan import LexicalEncoder
from qdrant_rerank.qdrant.schema import CollectionSchema

__all__ = ["description", "recorded_encoder"]

logger = logging.getLogger(__name__)


def description(encoder: Any) -> dict[str, Any]:
    """Return what a collection records of a sparse encoder: its own ``describe()``, or its name."""
    describe = getattr(encoder, "describe", None)
    return dict(describe()) if callable(describe) else {"model": encoder.name}


def recorded_encoder(
    schema: CollectionSchema, sparse: LexicalEncoder, *, by_name: bool
) -> LexicalEncoder:
    """Return the sparse encoder to search with.

    Args:
        schema: schema of the collection.
        sparse: the searcher's encoder.
        by_name: whether the searcher was given only the name of BM25, or "auto", so that the
            recorded language counts.

    Raises:
        SchemaMismatchError: the collection was filled with another model, or in another language.
    """
    recorded = schema.encoder
    own = description(sparse)
    if recorded is None:
        if by_name and schema.sparse:
            logger.info(
                "Collection %r does not record the encoder of its sparse vectors; it is searched "
                "by BM25 in %s. For another language, pass sparse=Bm25Encoder(language=...).",
                schema.collection,
                own["language"],
            )
        return sparse
    same_model = _lower(recorded, "model") == _lower(own, "model")
    if same_model and by_name:
        try:
            return Bm25Encoder.from_description(recorded)
        except (InvalidInputError, TypeError) as error:
            raise _mismatch(schema, recorded, own) from error
    if not same_model or _lower(recorded, "language") != _lower(own, "language"):
        raise _mismatch(schema, recorded, own)
    return sparse


def _lower(described: Mapping[str, Any], name: str) -> str:
    return str(described.get(name, "")).lower()


def _mismatch(
    schema: CollectionSchema, recorded: Mapping[str, Any], own: Mapping[str, Any]
) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"Collection {schema.collection!r} was filled with the sparse encoder {_shown(recorded)}; "
        f"{_shown(own)} does not fit its vectors. Pass the same one, or sparse='auto', which reads "
        "the language of a BM25 from the collection."
    )


def _shown(described: Mapping[str, Any]) -> str:
    language = described.get("language")
    return f"{described.get('model')!r}" + (f" in {language!r}" if language else "")
