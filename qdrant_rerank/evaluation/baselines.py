"""What a reranker has to beat: BM25 on the same candidates, and the bi-encoder inside it.

A cross-encoder that does not beat the cosine of its own trunk's vectors reads no pair: an embedder
would do as well.
"""

import math
from collections.abc import Hashable, Iterable
from shutil import copy
from typing import Any

import numpy as np

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.errors import MissingDependencyError
from qdrant_rerank.hub.catalog import BUILT_IN
from qdrant_rerank.utils.fork import temporary_directory

__all__ = ["BM25_NAME", "Bm25Baseline", "bi_encoder_inside", "bi_encoder_key", "inside_name"]

#: Name of the baseline in tables and files.
BM25_NAME = "BM25"


class Bm25Baseline:
    """Scores documents by BM25, with the statistics of a given set of documents.

    The inverse document frequency is that of Qdrant: ln(1 + (N - n + 0.5) / (n + 0.5)) for a term
    that is in n of N documents.

    Args:
        documents: the texts that may be scored, each once; a pool is a small corpus.
        language: language of the stemmer and the stop words.

    Examples:
        >>> baseline = Bm25Baseline(["Bread is baked.", "Iron melts.", "Iron is a metal."])
        >>> [round(score, 2) for score in baseline.rerank("melting iron", ["Iron melts.", "Bread"])]
        [1.45, 0.0]
    """

    model_name = BM25_NAME

    def __init__(self, documents: Iterable[str], language: str = "english") -> None:
        texts = list(documents)
        plain = Bm25Encoder(language=language)
        self._encoder = plain.with_avg_len(plain.average_length(texts))
        self._count = len(texts)
        vectors = self._encoder.embed_documents(texts)
        indices = np.array([index for vector in vectors for index in vector.indices], np.int64)
        terms, counts = np.unique(indices, return_counts=True)
        self._holding = dict(zip(terms.tolist(), counts.tolist(), strict=True))

    def rerank(self, query: str, documents: Iterable[str]) -> list[float]:
        """Return one score per document, in input order; 0 where no term occurs."""
        asked = self._encoder.embed_query(query)
        weights = {
            index: value * self._idf(index)
            for index, value in zip(asked.indices, asked.values, strict=True)
        }
        return [
            math.fsum(
                weights.get(index, 0.0) * value
                for index, value in zip(vector.indices, vector.values, strict=True)
            )
            for vector in self._encoder.embed_documents(list(documents))
        ]

    def _idf(self, index: int) -> float:
        holding = self._holding.get(index, 0)
        return math.log1p((self._count - holding + 0.5) / (holding + 0.5))

    def __repr__(self) -> str:
        return f"Bm25Baseline({self._count} documents, {self._encoder!r})"


def inside_name(name: str) -> str:
    """Return the name of the bi-encoder inside a reranker, in tables and files."""
    return f"bi-encoder in {name}"


def bi_encoder_key(reranker: Any) -> Hashable | None:
    """Return what rerankers have in common that hold the same bi-encoder; None if there is none."""
    spec = BUILT_IN.get(str(getattr(reranker, "model_name", "")).lower())
    if spec is None or spec.bi_encoder is None:
        return None
    return spec.trunk or spec.model, reranker.max_length


def bi_encoder_inside(reranker: Any) -> TextCrossEncoder | None:
    """Return a reranker that scores by the cosine of a model's own vectors; None if it has none.

    Args:
        reranker: a ``TextCrossEncoder`` of a bundled model, which is grown on a bi-encoder; any
            other has none.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    spec = BUILT_IN.get(str(getattr(reranker, "model_name", "")).lower())
    if spec is None or spec.bi_encoder is None:
        return None
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            'A bi-encoder inside a reranker needs onnx: pip install "qdrant-rerank[cpu]".'
        ) from error
    file = spec.file()
    model = onnx.load(spec.directory / file.path, load_external_data=False)
    del model.graph.output[:]
    for node in model.graph.node:  # what is not needed for the new output, onnxruntime leaves out
        node.output[:] = [
            f"{name} of the model" if name == "logits" else name for name in node.output
        ]
    model.graph.node.append(onnx.helper.make_node("Identity", [spec.bi_encoder], ["logits"]))
    shape = [model.graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch", 1]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)
    )
    # A loaded model may still have its files open, and some systems do not remove these.
    with temporary_directory() as folder:
        (folder / "onnx").mkdir()
        for path in spec.directory.glob("*.json"):
            copy(path, folder)
        for name in file.additional_files:
            copy(spec.directory / name, folder / name)
        onnx.save(model, str(folder / "onnx" / "model.onnx"))
        return TextCrossEncoder(folder, max_length=reranker.max_length)
