"""Dense vectors from an ONNX transformer such as all-MiniLM-L6-v2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.embedders.text_batches import run_on_texts
from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.hub.locate import ModelFiles, locate_embedder
from qdrant_rerank.inference.plan import make_plan
from qdrant_rerank.inference.request import Request
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.tokenization import PairTokenizer
from qdrant_rerank.utils.validation import require_positive

__all__ = ["OnnxEmbedder"]


class OnnxEmbedder:
    """Mean-pooled, unit-length sentence vectors, as sentence-transformers computes them.

    For models with mean pooling (all-MiniLM, E5 without prefixes, paraphrase-*). For other models
    pass fastembed's ``TextEmbedding``, or an ``Embedder`` of your own. Safe to call from many
    threads.

    Args:
        model_name: "all-MiniLM-L6-v2" or a hub repository with ``onnx/model.onnx``, which is
            downloaded once; or a directory with ``model.onnx`` or ``onnx/model.onnx`` and
            ``tokenizer.json``.
        cache_dir: where downloads are kept; None for ``QDRANT_RERANK_CACHE``, or else the hub's
            own cache.
        threads: batches that run at the same time on a CPU; None for one per core.
        max_length: longest text in tokens; longer texts are cut. None for the model's own limit.
        local_files_only: whether to never use the network.

    Attributes:
        name: the hub repository, or the name of the directory.
        dimension: length of a vector.

    Raises:
        ModelFileError: a file is missing, damaged, or cannot be downloaded.
        ModelOutputError: the model does not return token or sentence vectors.
        InvalidInputError: an argument is of a wrong kind, or too small.
    """

    def __init__(
        self,
        model_name: str | Path = "all-MiniLM-L6-v2",
        *,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        max_length: int | None = None,
        local_files_only: bool = False,
    ) -> None:
        require_positive("max_length", max_length)
        request = Request(threads=threads, engine="onnxruntime")
        files: ModelFiles = locate_embedder(
            model_name, cache_dir=cache_dir, local_files_only=local_files_only
        )
        self.name = files.name
        self._tokenizer = PairTokenizer.from_directory(files.tokenizer, max_length=max_length)
        files.require_own_data()
        self._runtime = Runtime(files.model, make_plan(request, files.precision))
        self.dimension = 0  # until the first vector shows it
        self.dimension = len(self.embed_query("a"))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query: shape (dimension,), float32, unit length."""
        vector: NDArray[np.float32] = self.embed_documents([text])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of n texts: shape (n, dimension), float32, unit length, input order.

        A text that exceeds the max length is cut.
        """
        vectors: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(texts)

        def take(rows: NDArray[Any], output: NDArray[np.float32], mask: NDArray[np.int64]) -> None:
            for row, vector in zip(rows, self._pool(output, mask), strict=True):
                vectors[row] = vector

        run_on_texts(self._runtime, self._tokenizer, texts, take)
        if not vectors:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.stack(vectors)

    def _pool(self, output: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        if output.ndim == 3:  # token vectors
            weights = mask[:, :, None].astype(np.float32)
            output = (output * weights).sum(axis=1) / weights.sum(axis=1)
        if output.ndim != 2 or output.shape[1] < 2 or not np.isfinite(output).all():
            raise ModelOutputError(
                f"{self._runtime.path} returned shape {output.shape}; an embedding model returns "
                "finite token vectors (n, tokens, dimension) or sentence vectors (n, dimension). "
                "Is it a cross-encoder?"
            )
        norms = np.linalg.norm(output, axis=1, keepdims=True)
        unit: NDArray[np.float32] = output / np.maximum(norms, 1e-12)
        return unit

    def __repr__(self) -> str:
        return f"OnnxEmbedder({self.name!r}, dimension={self.dimension})"
