"""Bases of the embedders that other packages bring: checked output, and a dimension that is learnt.

Neither packages nor functions say reliably how long their vectors are. The first vector shows it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.embedders.checks import dense_output
from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.utils.validation import as_texts

__all__ = ["AsyncEmbedder", "BatchedEmbedder"]

SAMPLE = "a"  # embedded to learn the length of a vector


class _Named:
    """A name, and the length of a vector as far as it is known.

    Args:
        name: name of the model, which a collection records.
        dimension: length of a vector; None to learn it from the first vector.

    Attributes:
        name: as given.
    """

    def __init__(self, name: str, dimension: int | None = None) -> None:
        self.name = name
        self._dimension = dimension

    @property
    def known_dimension(self) -> int | None:
        """Length of a vector; None as long as no vector has shown it."""
        return self._dimension

    def _checked(self, made: Any, count: int) -> NDArray[np.float32]:
        """Return the vectors of ``count`` texts as float32.

        Raises:
            ModelOutputError: they are not one vector per text, all of the known length.
        """
        vectors = dense_output(self.name, made)
        expected = f"one vector per text: shape ({count}, {self._dimension or 'dimension'})"
        if vectors.ndim == 3:
            expected += ". A late-interaction model returns a vector per token"
        fits = vectors.ndim == 2 and len(vectors) == count and vectors.shape[1] > 0
        if not fits or vectors.shape[1] != (self._dimension or vectors.shape[1]):
            raise ModelOutputError(
                f"The embedder {self.name!r} returned shape {vectors.shape} for {count} texts; "
                f"expected {expected}."
            )
        self._dimension = vectors.shape[1]
        return vectors

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, dimension={self._dimension})"


class BatchedEmbedder(_Named, ABC):
    """An ``Embedder`` that embeds several queries at a time."""

    @abstractmethod
    def _queries(self, texts: list[str]) -> Any:
        """Return the vectors of one or more queries, in any form that numpy reads."""

    @abstractmethod
    def _documents(self, texts: list[str]) -> Any:
        """Return the vectors of one or more documents, in any form that numpy reads."""

    @property
    def dimension(self) -> int:
        """Length of a vector. If it is not known, a text is embedded to learn it."""
        return self._dimension or len(self.embed_query(SAMPLE))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query: shape (dimension,), float32."""
        vector: NDArray[np.float32] = self.embed_queries([text])[0]
        return vector

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of n queries: shape (n, dimension), float32, input order."""
        if not (given := as_texts("texts", texts)):
            return np.empty((0, self.dimension), dtype=np.float32)
        return self._checked(self._queries(given), len(given))

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of n texts: shape (n, dimension), float32, input order."""
        if not (given := as_texts("texts", texts)):
            return np.empty((0, self.dimension), dtype=np.float32)
        return self._checked(self._documents(given), len(given))


class AsyncEmbedder(_Named, ABC):
    """An embedder whose calls are awaited, as ``AsyncHybridSearcher`` does."""

    @abstractmethod
    async def _aqueries(self, texts: list[str]) -> Any:
        """Return the vectors of one or more queries, in any form that numpy reads."""

    @abstractmethod
    async def _adocuments(self, texts: list[str]) -> Any:
        """Return the vectors of one or more documents, in any form that numpy reads."""

    @property
    def dimension(self) -> int | None:
        """Length of a vector; None before :meth:`learn_dimension`."""
        return self._dimension

    async def learn_dimension(self) -> None:
        """Embed a text to learn the length of a vector, unless it is known."""
        if self._dimension is None:
            await self.aembed_queries([SAMPLE])

    async def aembed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query: shape (dimension,), float32."""
        vector: NDArray[np.float32] = (await self.aembed_queries([text]))[0]
        return vector

    async def aembed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of n queries: shape (n, dimension), float32, input order."""
        if not (given := as_texts("texts", texts)):
            return np.empty((0, self._dimension or 0), dtype=np.float32)
        return self._checked(await self._aqueries(given), len(given))

    async def aembed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of n texts: shape (n, dimension), float32, input order."""
        if not (given := as_texts("texts", texts)):
            return np.empty((0, self._dimension or 0), dtype=np.float32)
        return self._checked(await self._adocuments(given), len(given))
