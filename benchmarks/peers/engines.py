"""One adapter a contender: how it loads a local model and scores, by its own documented means.

Each imports its library when it is made, so that a process holds one library. All read up to 512
tokens a pair. ``threads`` and ``batch_size`` are None for what the library does unasked.
"""

import inspect
import logging
import math
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ENGINES", "Engine", "Request"]

Request = tuple[str, list[str]]


class Engine(ABC):
    """A loaded model.

    Attributes:
        packages: distributions whose versions are recorded.
    """

    packages: tuple[str, ...] = ()

    @abstractmethod
    def rerank(self, query: str, documents: list[str], batch_size: int | None) -> list[float]:
        """Raw logits, in input order."""

    def pooled(self, requests: Sequence[Request], batch_size: int | None) -> list[float]:
        """Raw logits of all pairs of all requests, in input order; one by one unless overridden."""
        return [
            score
            for query, documents in requests
            for score in self.rerank(query, documents, batch_size)
        ]


class Ours(Engine):
    """qdrant-rerank; ``options`` go to ``TextCrossEncoder``."""

    packages = ("qdrant-rerank", "onnxruntime", "openvino", "tokenizers")

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        from qdrant_rerank import TextCrossEncoder

        chosen: dict[str, Any] = dict(options)
        unknown = set(chosen) - set(inspect.signature(TextCrossEncoder).parameters)
        if unknown:
            raise ValueError(f"this version has no option {', '.join(sorted(unknown))}")
        self.model = TextCrossEncoder(folder, threads=threads, **chosen)

    def rerank(self, query: str, documents: list[str], batch_size: int | None) -> list[float]:
        """Raw logits, in input order."""
        return self.model.rerank(query, documents, batch_size)

    def pooled(self, requests: Sequence[Request], batch_size: int | None) -> list[float]:
        """Raw logits of all pairs, in input order."""
        scores: list[float] = self.model.score_pairs(_pairs(requests), batch_size).scores.tolist()
        return scores


class Fastembed(Engine):
    """fastembed: a custom model with a local path; ``parallel`` of ``options`` starts processes."""

    packages = ("fastembed", "onnxruntime", "tokenizers")
    NAME = "local/model"

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        known = {model["model"] for model in TextCrossEncoder.list_supported_models()}
        if self.NAME not in known:
            TextCrossEncoder.add_custom_model(self.NAME, ModelSource(hf=self.NAME))
        self.model = TextCrossEncoder(self.NAME, specific_model_path=str(folder), threads=threads)
        self.parallel = int(options["parallel"]) if "parallel" in options else None

    def rerank(self, query: str, documents: list[str], batch_size: int | None) -> list[float]:
        """Raw logits, in input order."""
        if self.parallel is not None:
            return self.pooled([(query, documents)], batch_size)
        return list(self.model.rerank(query, documents, **_given(batch_size=batch_size)))

    def pooled(self, requests: Sequence[Request], batch_size: int | None) -> list[float]:
        """Raw logits of all pairs, in input order."""
        return list(
            self.model.rerank_pairs(
                _pairs(requests), parallel=self.parallel, **_given(batch_size=batch_size)
            )
        )


class SentenceTransformersTorch(Engine):
    """sentence-transformers on torch."""

    packages = ("sentence-transformers", "transformers", "torch", "tokenizers")

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        if threads is not None:
            torch.set_num_threads(threads)
        self.model = CrossEncoder(
            str(folder),
            device="cpu",
            local_files_only=True,
            activation_fn=torch.nn.Identity(),
            **self.backend(folder, threads),
        )

    def backend(self, folder: Path, threads: int | None) -> dict[str, Any]:
        """What the constructor is told about the backend."""
        return {}

    def rerank(self, query: str, documents: list[str], batch_size: int | None) -> list[float]:
        """Raw logits, in input order."""
        return self.pooled([(query, documents)], batch_size)

    def pooled(self, requests: Sequence[Request], batch_size: int | None) -> list[float]:
        """Raw logits of all pairs, in input order."""
        scores: list[float] = self.model.predict(
            _pairs(requests), show_progress_bar=False, **_given(batch_size=batch_size)
        ).tolist()
        return scores


class SentenceTransformersOnnx(SentenceTransformersTorch):
    """sentence-transformers with its ONNX backend."""

    packages = ("sentence-transformers", "optimum-onnx", "transformers", "onnxruntime")

    def backend(self, folder: Path, threads: int | None) -> dict[str, Any]:
        """ONNX, the file, the provider, and a thread count if there is one."""
        kwargs: dict[str, Any] = {"provider": "CPUExecutionProvider", "file_name": "model.onnx"}
        if threads is not None:
            import onnxruntime

            kwargs["session_options"] = onnxruntime.SessionOptions()
            kwargs["session_options"].intra_op_num_threads = threads
        return {"backend": "onnx", "model_kwargs": kwargs}


class FlashRank(Engine):
    """FlashRank: our file under the name of a model that it knows, in a cache folder.

    It puts all passages into one batch; a ``batch_size`` is slices that its caller gives it. Its
    scores are sigmoids, which are turned back into logits.
    """

    packages = ("FlashRank", "onnxruntime", "tokenizers")
    NAME = "ms-marco-MiniLM-L-12-v2"

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        from flashrank import Ranker
        from flashrank.Config import model_file_map

        if threads is not None:
            raise ValueError("FlashRank has no option for threads")
        # It lives as long as the process: external data is read from it.
        self.cache = tempfile.TemporaryDirectory(prefix="flashrank-")
        target = Path(self.cache.name) / self.NAME
        target.mkdir()
        for file in (*folder.glob("*.json"), *(folder / "onnx").iterdir()):
            name = model_file_map[self.NAME] if file.name == "model.onnx" else file.name
            shutil.copy(file, target / name)
        self.model = Ranker(self.NAME, cache_dir=self.cache.name, max_length=512)
        logging.getLogger().setLevel(logging.WARNING)  # it sets the root logger to INFO

    def rerank(self, query: str, documents: list[str], batch_size: int | None) -> list[float]:
        """Raw logits, in input order."""
        from flashrank import RerankRequest

        scores = [math.nan] * len(documents)
        size = batch_size or len(documents)
        for start in range(0, len(documents), size):
            passages = [
                {"id": row, "text": documents[row]}
                for row in range(start, min(start + size, len(documents)))
            ]
            for found in self.model.rerank(RerankRequest(query=query, passages=passages)):
                probability = float(found["score"])
                scores[found["id"]] = math.log(probability / (1 - probability))
        return scores


class Rerankers(Engine):
    """rerankers: its cross-encoder on torch."""

    packages = ("rerankers", "transformers", "torch", "tokenizers")

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        import torch
        from rerankers import Reranker

        if threads is not None:
            torch.set_num_threads(threads)
        self.model = Reranker(str(folder), model_type="cross-encoder", device="cpu", verbose=0)

    def rerank(self, query: str, documents: list[str], batch_size: int | None) -> list[float]:
        """Raw logits, in input order."""
        scores = [math.nan] * len(documents)
        for found in self.model.rank(query, documents, **_given(batch_size=batch_size)).results:
            scores[found.document.doc_id] = float(found.score)
        return scores


ENGINES: dict[str, type[Ours | Fastembed | SentenceTransformersTorch | FlashRank | Rerankers]] = {
    "ours": Ours,
    "fastembed": Fastembed,
    "sentence-transformers torch": SentenceTransformersTorch,
    "sentence-transformers ONNX": SentenceTransformersOnnx,
    "FlashRank": FlashRank,
    "rerankers": Rerankers,
}


def _pairs(requests: Sequence[Request]) -> list[tuple[str, str]]:
    return [(query, document) for query, documents in requests for document in documents]


def _given(batch_size: int | None) -> dict[str, int]:
    return {} if batch_size is None else {"batch_size": batch_size}
