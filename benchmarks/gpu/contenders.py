"""The contenders: each library on the GPU in its own documented way, with its defaults."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import Contender
from benchmarks.peers.engines import ENGINES, Engine, Fastembed, FlashRank, Ours
from benchmarks.peers.engines import SentenceTransformersTorch as Torch

__all__ = ["CONTENDERS", "LIMIT", "register"]


class FastembedCuda(Fastembed):
    """fastembed with ``cuda=True``; it only warns where CUDA does not start, so that is checked."""

    packages = ("fastembed", "onnxruntime-gpu", "tokenizers")

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        super().__init__(folder, threads, {})  # which registers the model
        if options["device"] == "cpu":
            return
        import onnxruntime

        onnxruntime.preload_dlls()
        found: Any = TextCrossEncoder(self.NAME, specific_model_path=str(folder), cuda=True)
        self.model = found
        provider = found.model.model.get_providers()[0]
        if provider != "CUDAExecutionProvider":
            raise RuntimeError(f"it runs on {provider}")


class TorchHalf(Torch):
    """sentence-transformers in fp16."""

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        self.model = CrossEncoder(
            str(folder),
            device=options["device"],
            local_files_only=True,
            activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": torch.float16},
        )


class OursOnGpu(Ours):
    """qdrant-rerank; the versions are those of the GPU build."""

    packages = ("qdrant-rerank", "onnxruntime-gpu", "onnxruntime", "tokenizers")


class FlashRankAsItComes(FlashRank):
    """FlashRank, which has no option for a device."""

    packages = ("FlashRank", "onnxruntime-gpu", "tokenizers")

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        super().__init__(folder, None, {})


class Limit(Engine):
    """The GPU's own fp16 matrix products; scores nothing."""

    packages = ("onnxruntime-gpu", "onnxruntime")

    def __init__(self, folder: Path, threads: int | None, options: Mapping[str, str]) -> None:
        from benchmarks.gpu.limits import GpuLimit

        self.limit = GpuLimit(folder, options["device"])

    def rerank(self, query: str, documents: list[str], batch_size: int | None) -> list[float]:
        """Products for as many tokens as the pairs have: a word is a token."""
        words = len(query.split()) * len(documents) + sum(len(text.split()) for text in documents)
        self.limit.run(words + 3 * len(documents))
        return []

    def pooled(self, requests: Any, batch_size: int | None) -> list[float]:
        """All at once."""
        documents = [text for _, texts in requests for text in texts]
        return self.rerank(requests[0][0], documents, batch_size)


LIMIT = "limit, fp16"
#: Label in tables -> the contender, whose model and device are chosen later. The first one's scores
#: are what the others' are compared with.
CONTENDERS = {
    "ours, fp32": Contender("ours on a GPU", "", {"precision": "fp32", "engine": "onnxruntime"}),
    "ours, fp16": Contender("ours on a GPU", "", {"precision": "fp16", "engine": "onnxruntime"}),
    "fastembed, fp32": Contender("fastembed CUDA", ""),
    "sentence-transformers, fp16": Contender("torch fp16", ""),
    "FlashRank, fp32, on the CPU": Contender("FlashRank as it comes", ""),
    LIMIT: Contender("GPU limit", ""),
}


def register() -> None:
    """Make the adapters known to the workers of ``benchmarks.peers``."""
    engines: dict[str, Any] = ENGINES
    engines.update(
        {
            "ours on a GPU": OursOnGpu,
            "fastembed CUDA": FastembedCuda,
            "torch fp16": TorchHalf,
            "FlashRank as it comes": FlashRankAsItComes,
            "GPU limit": Limit,
        }
    )
