"""sentence-transformers' models as ``Embedder`` or ``SparseEncoder``; torch is not imported."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from qdrant_rerank.embedders.batched import BatchedEmbedder
from qdrant_rerank.embedders.model_names import model_name
from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.signatures import takes

if TYPE_CHECKING:
    from qdrant_client.models import SparseVector

__all__ = ["SentenceTransformerDense", "SentenceTransformerSparse"]

# Names of prompts, in the order in which sentence-transformers 5 looks for them.
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class _Model:
    """A model with its prompts. Its tokenizer serves one thread at a time.

    Args:
        model: the loaded model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lock = ForkLock()

    @property
    def name(self) -> str:
        """The repository, or the name of the directory; else the name of the class."""
        card = getattr(self._model, "model_card_data", None)
        transformer = getattr(self._model, "transformers_model", None)
        if transformer is None:  # before sentence-transformers 5
            first = next(iter(getattr(self._model, "_modules", {}).values()), None)
            transformer = getattr(first, "auto_model", None)
        config = getattr(transformer, "config", None)
        for holder, attribute in ((card, "model_id"), (config, "_name_or_path")):
            if getattr(holder, attribute, None):
                return model_name(holder, attribute)
        return model_name(self._model)

    @property
    def dimension(self) -> int | None:
        """Length of a vector as the model tells it; None if it does not."""
        for method in ("get_embedding_dimension", "get_sentence_embedding_dimension"):
            if takes(self._model, method):
                size = getattr(self._model, method)()
                return size if isinstance(size, int) else None
        return None

    def queries(self, texts: list[str], **options: Any) -> Any:
        """Return what the model makes of queries."""
        return self._encode("encode_query", QUERY_PROMPTS, texts, options)

    def documents(self, texts: list[str], **options: Any) -> Any:
        """Return what the model makes of documents."""
        return self._encode("encode_document", DOCUMENT_PROMPTS, texts, options)

    def _encode(
        self, method: str, prompts: Sequence[str], texts: list[str], options: dict[str, Any]
    ) -> Any:
        options = {"show_progress_bar": False} | options
        if not takes(self._model, method, texts, keywords=tuple(options)):  # before version 5
            known = getattr(self._model, "prompts", None) or {}
            method, named = "encode", next((name for name in prompts if name in known), None)
            if named is not None:
                options["prompt_name"] = named
        with self._lock:
            return getattr(self._model, method)(texts, **options)


class SentenceTransformerDense(BatchedEmbedder):
    """A ``SentenceTransformer`` as an ``Embedder``, with its prompts for queries and documents.

    Args:
        model: the loaded model.
    """

    def __init__(self, model: Any) -> None:
        self._model = _Model(model)
        super().__init__(self._model.name, self._model.dimension)

    def _queries(self, texts: list[str]) -> Any:
        return self._model.queries(texts, convert_to_numpy=True)

    def _documents(self, texts: list[str]) -> Any:
        return self._model.documents(texts, convert_to_numpy=True)


class SentenceTransformerSparse:
    """A ``SparseEncoder`` of sentence-transformers as a ``SparseEncoder`` of this package.

    Args:
        model: the loaded model.

    Attributes:
        name: name of the model.
        needs_idf: False; the weights hold all that the model knows of a term.
    """

    needs_idf = False

    def __init__(self, model: Any) -> None:
        self._model = _Model(model)
        self.name = self._model.name

    def embed_query(self, text: str) -> "SparseVector":
        """Return the vector of a query: the indices and values that are not zero."""
        [vector] = self._vectors(self._model.queries([text], save_to_cpu=True), 1)
        return vector

    def embed_documents(self, texts: Sequence[str]) -> "list[SparseVector]":
        """Return one vector per text, in input order."""
        if not texts:
            return []
        return self._vectors(self._model.documents(list(texts), save_to_cpu=True), len(texts))

    def _vectors(self, made: Any, count: int) -> "list[SparseVector]":
        """Return the rows of a torch sparse tensor of shape (count, vocabulary)."""
        from qdrant_client.models import SparseVector

        shape = tuple(getattr(made, "shape", ()))
        if len(shape) != 2 or shape[0] != count or not hasattr(made, "coalesce"):
            raise ModelOutputError(
                f"The encoder {self.name!r} returned {type(made).__name__} of shape {shape} for "
                f"{count} texts; expected a sparse tensor with one row per text."
            )
        made = made.coalesce()  # indices in order, rows first
        rows, columns = made.indices().numpy()
        weights = made.values().numpy().astype(np.float32)
        kept = weights != 0
        rows, columns, weights = rows[kept], columns[kept], weights[kept]
        ends = np.searchsorted(rows, np.arange(count + 1))
        return [
            SparseVector(
                indices=columns[start:end].tolist(),
                values=weights[start:end].tolist(),
            )
            for start, end in pairwise(ends)
        ]

    def __repr__(self) -> str:
        return f"SentenceTransformerSparse({self.name!r})"
