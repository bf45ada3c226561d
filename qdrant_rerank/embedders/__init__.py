"""Texts -> vectors, dense and sparse, that a search retrieves by.

Takes a name, a directory or an encoder of the caller's, and gives an ``Embedder`` or a
``SparseEncoder``; an encoder that Qdrant runs itself stays as it is.
"""

import os.path
from functools import lru_cache
from pathlib import Path
from typing import Any

from qdrant_rerank.embedders.adapters import (
    ForeignEmbedder,
    ForeignSparse,
    LangChainSparse,
    adapted_embedder,
    embeds_async,
)
from qdrant_rerank.embedders.batched import AsyncEmbedder, BatchedEmbedder
from qdrant_rerank.embedders.bm25 import Bm25Encoder
from qdrant_rerank.embedders.fastembed_adapters import FastembedSparse
from qdrant_rerank.embedders.model2vec import (
    Model2VecEmbedder,
    fetched_model2vec,
    is_model2vec,
)
from qdrant_rerank.embedders.onnx import OnnxEmbedder
from qdrant_rerank.embedders.openai import OpenAIEmbedder
from qdrant_rerank.embedders.qdrant import QdrantInference, TextIndex
from qdrant_rerank.embedders.sentence_transformers_adapters import SentenceTransformerSparse
from qdrant_rerank.embedders.splade import SpladeEncoder
from qdrant_rerank.embedders.static import StaticEmbedder
from qdrant_rerank.embedders.trunk import TrunkEmbedder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.cache import expanded
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, TRUNK_EMBEDDER
from qdrant_rerank.types import Embedder, SparseEncoder
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.signatures import takes
from qdrant_rerank.utils.validation import a_type, require_call, shown

__all__ = [
    "AsyncEmbedder",
    "BatchedEmbedder",
    "Bm25Encoder",
    "ForeignEmbedder",
    "ForeignSparse",
    "OnnxEmbedder",
    "OpenAIEmbedder",
    "QdrantInference",
    "SpladeEncoder",
    "StaticEmbedder",
    "TextIndex",
    "TrunkEmbedder",
    "load_embedder",
    "load_sparse",
    "needs_idf",
]

#: Models, in lower case, whose weights lack the inverse document frequency.
IDF_MODELS = frozenset(
    {"qdrant/bm25", "qdrant/bm42-all-minilm-l6-v2-attentions", "qdrant/minicoil-v1"}
)

_loading = ForkLock()


def load_embedder(
    embedder: Any, *, in_event_loop: bool = False
) -> Embedder | AsyncEmbedder | QdrantInference:
    """Return the dense encoder that an ``embedder=`` argument stands for.

    Args:
        embedder: an ``Embedder`` or a ``QdrantInference`` (returned as it is); an object of another
            package or a function (see :mod:`~qdrant_rerank.embedders.adapters`); or a bundled
            name, a hub name or a directory (loaded once per process).
        in_event_loop: whether its calls can be awaited.

    Raises:
        ModelFileError: files of the model are missing, damaged, or cannot be downloaded.
        InvalidInputError: the value does not embed, or is async and cannot be awaited.
    """
    if isinstance(embedder, str | Path):
        with _loading:  # otherwise two threads would both load the model
            return _shared(str(embedder))
    if isinstance(embedder, QdrantInference | BatchedEmbedder):
        return embedder
    if isinstance(embedder, Embedder) and not embeds_async(embedder):
        if not isinstance(embedder.name, str) or not embedder.name.strip():
            raise InvalidInputError(
                f"embedder is {a_type(embedder)} with the name {embedder.name!r:.80}; expected the "
                "name of its model, which a collection records."
            )
        require_call("embedder", embedder, "embed_query", "text")
        require_call("embedder", embedder, "embed_documents", "texts")
        return embedder
    return adapted_embedder(embedder, in_event_loop=in_event_loop)


@lru_cache(maxsize=4)
def _shared(name: str) -> Embedder:
    if name == DEFAULT_EMBEDDER:
        return StaticEmbedder.bundled()
    if name == TRUNK_EMBEDDER:
        return TrunkEmbedder()
    directory = expanded(Path(name))
    if is_model2vec(directory):
        return Model2VecEmbedder.from_directory(directory)
    return (None if os.path.lexists(directory) else fetched_model2vec(name)) or OnnxEmbedder(name)


def load_sparse(
    sparse: Any, language: str | None = None
) -> SparseEncoder | QdrantInference | TextIndex:
    """Return the sparse encoder that a ``sparse=`` argument stands for.

    Args:
        sparse: "auto" or "Qdrant/bm25" for BM25; a ``SparseEncoder``, a ``QdrantInference`` or a
            ``TextIndex`` (returned as it is); fastembed's ``SparseTextEmbedding``,
            sentence-transformers' ``SparseEncoder`` or langchain-qdrant's ``SparseEmbeddings``
            (wrapped); or a hub name ("owner/name") or a
            directory of a SPLADE model (loaded once per process).
        language: language of a BM25 that is given by name; None for English.

    Raises:
        InvalidInputError: the value does not encode, or has a language of its own.
        ModelFileError: files of the model are missing, damaged, or cannot be downloaded.
    """
    if isinstance(sparse, str) and sparse.lower() in {"auto", "qdrant/bm25"}:
        return Bm25Encoder() if language is None else Bm25Encoder(language=language)
    if language is not None:
        raise InvalidInputError(
            f"language is {shown(language)}, which is of BM25 by name, but sparse is "
            f"{shown(sparse)}; expected sparse='auto' or 'Qdrant/bm25'. Or leave language out, and "
            "pass sparse=Bm25Encoder(language=...)."
        )
    if isinstance(sparse, QdrantInference | TextIndex):
        return sparse
    if isinstance(sparse, Path) or (isinstance(sparse, str) and _names_a_model(sparse)):
        with _loading:
            return _shared_sparse(str(sparse))
    if callable(getattr(sparse, "query_embed", None)):
        require_call("sparse", sparse, "query_embed", "text")
        return FastembedSparse(sparse)
    if takes(sparse, "encode", [""], keywords=("convert_to_sparse_tensor", "save_to_cpu")):
        return SentenceTransformerSparse(sparse)
    if not isinstance(sparse, str) and isinstance(sparse, SparseEncoder):
        require_call("sparse", sparse, "embed_query", "text")
        require_call("sparse", sparse, "embed_documents", "texts")
        return sparse
    if takes(sparse, "embed_query", "") and takes(sparse, "embed_documents", [""]):
        return LangChainSparse(sparse)
    raise InvalidInputError(
        f"sparse is {shown(sparse)}; expected 'Qdrant/bm25', None, a hub name ('owner/name') or a "
        "directory of a SPLADE model, a fastembed SparseTextEmbedding, a SparseEncoder of "
        "sentence-transformers, langchain-qdrant's SparseEmbeddings, or an object with name, "
        "embed_query and embed_documents."
    )


def needs_idf(sparse: SparseEncoder | QdrantInference) -> bool:
    """Return whether Qdrant has to multiply an encoder's weights by the inverse document frequency.

    BM25's weights lack it; those of SPLADE and other learned models do not. An encoder says so by
    an attribute ``needs_idf``; without it, the name of its model does.
    """
    own = getattr(sparse, "needs_idf", None)
    return own if isinstance(own, bool) else sparse.name.lower() in IDF_MODELS


def _names_a_model(name: str) -> bool:
    """Return whether a text is a directory that exists, or may be a repository of the hub."""
    return "/" in name or expanded(Path(name)).is_dir()


@lru_cache(maxsize=4)
def _shared_sparse(name: str) -> SparseEncoder:
    return SpladeEncoder(name)
