"""Adapters that make fastembed's models an ``Embedder`` or a ``SparseEncoder``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qdrant_rerank.embedders.batched import BatchedEmbedder
from qdrant_rerank.embedders.checks import sparse_output

if TYPE_CHECKING:
    from qdrant_client.models import SparseVector

__all__ = ["FastembedDense", "FastembedSparse"]


class FastembedDense(BatchedEmbedder):
    """A ``fastembed.TextEmbedding`` as an ``Embedder``.

    Args:
        model: the loaded model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.model_name, model.embedding_size)
        self._model = model

    def _queries(self, texts: list[str]) -> Any:
        return list(self._model.query_embed(texts))

    def _documents(self, texts: list[str]) -> Any:
        return list(self._model.passage_embed(texts))


class FastembedSparse:
    """A ``fastembed.SparseTextEmbedding`` as a ``SparseEncoder``.

    Args:
        model: the loaded model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.name: str = model.model_name

    def describe(self) -> dict[str, Any]:
        """Return what a collection records of this encoder, ready for JSON.

        Of a BM25 the language and the parameters, as ``Bm25Encoder.describe`` gives them.
        """
        inner = getattr(self._model, "model", None)
        names = ("language", "k", "b", "avg_len")
        return {"model": self.name} | {n: getattr(inner, n) for n in names if hasattr(inner, n)}

    def embed_query(self, text: str) -> "SparseVector":
        """Return the vector of a query: the indices and values that are not zero."""
        return sparse_output(self.name, next(iter(self._model.query_embed(text))))

    def embed_documents(self, texts: Sequence[str]) -> "list[SparseVector]":
        """Return one vector per text, in input order."""
        return [sparse_output(self.name, one) for one in self._model.passage_embed(list(texts))]
