"""The models that are known by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from qdrant_rerank.hub.specs import (
    DEFAULT_RERANKER,
    TRUNK_EMBEDDER,
    ModelFile,
    ModelSource,
    ModelSpec,
)

__all__ = ["BUILT_IN", "MULTILINGUAL_EMBEDDER", "MULTILINGUAL_RERANKER", "REPLACED"]

ENGLISH = ("en",)
MULTILINGUAL = ("multilingual",)
#: Models to name where a text is in a language that the bundled ones do not know: both have ONNX
#: files on the hub, an Apache licence, and dozens of languages.
MULTILINGUAL_RERANKER = "BAAI/bge-reranker-v2-m3"
MULTILINGUAL_EMBEDDER = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
#: Lower-case names of models that were bundled once -> the one that is bundled instead.
REPLACED: Mapping[str, str] = MappingProxyType(
    {
        "grown-minilm-l6-v1": DEFAULT_RERANKER,
        "grown-minilm-l6-v2": DEFAULT_RERANKER,
        "grown-minilm-l3-v2": "grown-e5-small-l6-v1",
    }
)


def _hub(
    model: str,
    description: str,
    *files: ModelFile,
    max_length: int,
    repository: str | None = None,
    license: str = "apache-2.0",
    activation: Literal["identity", "sigmoid"] = "identity",
    template: Literal["pair", "qwen3"] = "pair",
    languages: tuple[str, ...] = ENGLISH,
) -> ModelSpec:
    return ModelSpec(
        model=model,
        sources=ModelSource(hf=repository or model),
        description=description,
        license=license,
        files=files,
        max_length=max_length,
        activation=activation,
        template=template,
        languages=languages,
    )


def _fp32(size_in_gb: float, *additional_files: str) -> ModelFile:
    return ModelFile("onnx/model.onnx", "fp32", size_in_gb, additional_files)


def _fp16(size_in_gb: float) -> ModelFile:
    return ModelFile("onnx/model_fp16.onnx", "fp16", size_in_gb)


def _int8(
    size_in_gb: float, path: str = "onnx/model_quantized.onnx", *, repository: str | None = None
) -> ModelFile:
    source = ModelSource(hf=repository) if repository else None
    return ModelFile(path, "int8", size_in_gb, source=source)


def _ettin(size: str, *files: ModelFile) -> ModelSpec:
    """An ettin-reranker: a modular model, whose ONNX file holds the transformer alone."""
    # Licence and architecture: https://huggingface.co/blog/ettin-reranker. Language, max length
    # and numbers of parameters, by 4 bytes: mteb's models/model_implementations of
    # https://github.com/embeddings-benchmark/mteb.
    return _hub(
        f"cross-encoder/ettin-reranker-{size}-v1",
        f"ModernBERT of {size.upper()} parameters, long texts, English.",
        *files,
        max_length=7999,
    )


# Sizes are those of the hub's pages. No commit is pinned: the default branch is resolved when a
# model is first fetched, and that commit is kept.
#: Lower-case name -> model.
BUILT_IN: Mapping[str, ModelSpec] = MappingProxyType(
    {
        spec.model.lower(): spec
        for spec in (
            ModelSpec(
                model=DEFAULT_RERANKER,
                sources=None,
                description="Bundled, grown from e5-small-v2, English, late interaction.",
                license="mit",
                files=(ModelFile("onnx/model.onnx", "int8", 0.034, ("onnx/weights.bin",)),),
                max_length=512,
                languages=ENGLISH,
                bi_encoder="/branches/Squeeze_7_output_0",
                trunk=TRUNK_EMBEDDER,
            ),
            ModelSpec(
                model="grown-e5-small-cross-v1",
                sources=None,
                description="Bundled, the default with layers that attend across the pair.",
                license="mit",
                files=(
                    ModelFile(
                        "onnx/cross.onnx", "int8", 0.042, ("onnx/weights.bin", "onnx/cross.bin")
                    ),
                ),
                max_length=512,
                languages=ENGLISH,
                bi_encoder="/branches/Squeeze_7_output_0",
                trunk=TRUNK_EMBEDDER,
                folder=DEFAULT_RERANKER,
            ),
            ModelSpec(
                model="grown-e5-small-l6-v1",
                sources=None,
                description="Bundled, the default in six layers, for half of its time.",
                license="mit",
                files=(
                    ModelFile("onnx/l6.onnx", "int8", 0.023, ("onnx/weights.bin", "onnx/l6.bin")),
                ),
                max_length=512,
                languages=ENGLISH,
                bi_encoder="/branches/Squeeze_7_output_0",
                folder=DEFAULT_RERANKER,
            ),
            _hub(
                "Xenova/ms-marco-TinyBERT-L-2-v2",
                "2 layers, on MS MARCO, English.",
                _fp32(0.018),
                _int8(0.0045),
                max_length=512,
            ),
            _hub(
                "Xenova/ms-marco-MiniLM-L-6-v2",
                "6 layers, on MS MARCO, English.",
                _fp32(0.091),
                _fp16(0.046),
                _int8(0.023),
                max_length=512,
            ),
            _hub(
                "Xenova/ms-marco-MiniLM-L-12-v2",
                "12 layers, on MS MARCO, English.",
                _fp32(0.134),
                _fp16(0.067),
                _int8(0.034),
                max_length=512,
            ),
            _hub(
                "BAAI/bge-reranker-base",
                "XLM-R base, Chinese and English.",
                _fp32(1.11),
                _int8(0.279, repository="Xenova/bge-reranker-base"),
                max_length=512,
                license="mit",
                activation="sigmoid",
                languages=("zh", "en"),
            ),
            _hub(
                "BAAI/bge-reranker-large",
                "XLM-R large, Chinese and English.",
                _fp32(2.24, "onnx/model.onnx_data"),
                _int8(0.563, repository="Xenova/bge-reranker-large"),
                max_length=512,
                license="mit",
                activation="sigmoid",
                languages=("zh", "en"),
            ),
            _hub(
                "BAAI/bge-reranker-v2-m3",
                "BGE-M3 as a reranker, multilingual.",
                _fp32(2.27, "onnx/model.onnx_data"),
                _int8(0.57, "onnx/model_int8.onnx"),
                max_length=8192,
                repository="onnx-community/bge-reranker-v2-m3-ONNX",
                activation="sigmoid",
                languages=MULTILINGUAL,
            ),
            _hub(
                "BAAI/bge-reranker-v2-m3-int8",
                "BGE-M3 as a reranker, int8.",
                _int8(0.57, "onnx/model_int8.onnx"),
                max_length=8192,
                repository="onnx-community/bge-reranker-v2-m3-ONNX",
                activation="sigmoid",
                languages=MULTILINGUAL,
            ),
            _hub(
                "jinaai/jina-reranker-v1-tiny-en",
                "Small, fast, long texts, English.",
                _fp32(0.132),
                _fp16(0.066),
                _int8(0.033),
                max_length=8192,
            ),
            _hub(
                "jinaai/jina-reranker-v1-turbo-en",
                "Fast, long texts, English.",
                _fp32(0.151),
                _fp16(0.076),
                _int8(0.038),
                max_length=8192,
            ),
            _hub(
                "jinaai/jina-reranker-v2-base-multilingual",
                "Multilingual, not for commercial use.",
                _fp32(1.11),
                _fp16(0.557),
                _int8(0.28),
                max_length=1024,
                license="cc-by-nc-4.0",
                languages=MULTILINGUAL,
            ),
            _hub(
                "mixedbread-ai/mxbai-rerank-xsmall-v1",
                "DeBERTa-v2 xsmall, English.",
                _fp32(0.284),
                _int8(0.087),
                max_length=512,
                activation="sigmoid",
            ),
            _hub(
                "mixedbread-ai/mxbai-rerank-base-v1",
                "DeBERTa-v2 base, English.",
                _fp32(0.739),
                _int8(0.244),
                max_length=512,
                activation="sigmoid",
            ),
            _hub(
                "mixedbread-ai/mxbai-rerank-large-v1",
                "DeBERTa-v2 large, English.",
                _fp32(1.74),
                _int8(0.643),
                max_length=512,
                activation="sigmoid",
            ),
            _hub(
                "Alibaba-NLP/gte-reranker-modernbert-base",
                "ModernBERT base, long texts, English.",
                _fp32(0.599),
                _fp16(0.3),
                _int8(0.151),
                max_length=8192,
                activation="sigmoid",
            ),
            _ettin("17m", _fp32(0.067)),
            _ettin("32m", _fp32(0.128)),
            _ettin("68m", _fp32(0.273)),
            _ettin("150m", _fp32(0.596)),
            # No page says which ONNX files these have: any that is there loads.
            _ettin("400m"),
            _ettin("1b"),
            _hub(
                "Alibaba-NLP/gte-multilingual-reranker-base",
                "Long texts, 70 languages.",
                _fp32(1.26),
                _fp16(0.629),
                _int8(0.341),
                max_length=8192,
                repository="onnx-community/gte-multilingual-reranker-base",
                languages=MULTILINGUAL,
            ),
            _hub(
                "Qwen/Qwen3-Reranker-0.6B",
                "A language model that answers yes or no.",
                _int8(0.573),
                ModelFile("onnx/model_q4f16.onnx", "q4f16", 0.518),
                max_length=40960,
                repository="n24q02m/Qwen3-Reranker-0.6B-ONNX",
                activation="sigmoid",
                template="qwen3",
                languages=MULTILINGUAL,
            ),
        )
    }
)
