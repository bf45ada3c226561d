"""The cross-encoders known by name. Frozen data; no I/O.

A custom model is added beside them for the life of the process.
"""

import difflib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from qdrant_rerank.errors import InvalidInputError, UnknownModelError

__all__ = [
    "BUNDLED_DIRECTORY",
    "DEFAULT_EMBEDDER",
    "DEFAULT_RERANKER",
    "ModelSource",
    "ModelSpec",
    "find_model",
    "register_model",
    "supported_models",
]

BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"
#: The cross-encoder that ships with the package: 27 MB, English, loads with no network.
DEFAULT_RERANKER = "grown-minilm-l6-v1"
#: The static embedder that ships with the package: 256 dimensions, loads with no network.
DEFAULT_EMBEDDER = "static-minilm-l6-v1"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's files are.

    Attributes:
        hf: a Hugging Face hub repository, "owner/name".
        url: kept for fastembed's signature; a bare archive URL is not fetched.
    """

    hf: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One cross-encoder.

    Attributes:
        model: the name it goes by, unique without regard to case.
        sources: where the files are; None for a bundled model.
        model_file: the ONNX file, relative to the repository.
        description: one sentence.
        license: SPDX-like identifier, lower case.
        size_in_gb: of the ONNX file with its external data, decimal gigabytes.
        additional_files: files needed beside the ONNX file (external data).
        max_length: window in tokens.
        quantized_file: the int8 variant in the same repository, where there is one.
        fp16_file: the fp16 variant.
    """

    model: str
    sources: ModelSource | None
    model_file: str = "onnx/model.onnx"
    description: str = ""
    license: str = ""
    size_in_gb: float = 0.0
    additional_files: tuple[str, ...] = ()
    max_length: int | None = None
    quantized_file: str | None = None
    fp16_file: str | None = None


def _hub(
    model: str,
    description: str,
    size_in_gb: float,
    max_length: int,
    *,
    repository: str | None = None,
    license: str = "apache-2.0",
    model_file: str = "onnx/model.onnx",
    additional_files: tuple[str, ...] = (),
    quantized_file: str | None = "onnx/model_quantized.onnx",
    fp16_file: str | None = "onnx/model_fp16.onnx",
) -> ModelSpec:
    return ModelSpec(
        model=model,
        sources=ModelSource(hf=repository or model),
        model_file=model_file,
        description=description,
        license=license,
        size_in_gb=size_in_gb,
        additional_files=additional_files,
        max_length=max_length,
        quantized_file=quantized_file,
        fp16_file=fp16_file,
    )


_BUILT_IN = MappingProxyType(
    {
        spec.model.lower(): spec
        for spec in (
            ModelSpec(
                model=DEFAULT_RERANKER,
                sources=None,
                description="Bundled: MiniLM-L6 grown into a cross-encoder, int8, English.",
                license="apache-2.0",
                size_in_gb=0.027,
                max_length=512,
                quantized_file="onnx/model.onnx",
            ),
            _hub(
                "Xenova/ms-marco-MiniLM-L-6-v2",
                "MiniLM-L-6-v2 trained on MS MARCO passages, English.",
                0.09,
                512,
            ),
            _hub(
                "Xenova/ms-marco-MiniLM-L-12-v2",
                "MiniLM-L-12-v2 trained on MS MARCO passages, English.",
                0.13,
                512,
            ),
            _hub(
                "BAAI/bge-reranker-base",
                "BGE reranker base, Chinese and English.",
                1.11,
                512,
                license="mit",
                quantized_file=None,
                fp16_file=None,
            ),
            _hub(
                "BAAI/bge-reranker-v2-m3",
                "Multilingual BGE reranker based on BGE-M3.",
                2.27,
                8192,
                repository="onnx-community/bge-reranker-v2-m3-ONNX",
                additional_files=("onnx/model.onnx_data",),
                quantized_file="onnx/model_int8.onnx",
                fp16_file=None,
            ),
            _hub(
                "BAAI/bge-reranker-v2-m3-int8",
                "Multilingual BGE reranker based on BGE-M3, int8.",
                0.57,
                8192,
                repository="onnx-community/bge-reranker-v2-m3-ONNX",
                model_file="onnx/model_int8.onnx",
                quantized_file="onnx/model_int8.onnx",
                fp16_file=None,
            ),
            _hub(
                "jinaai/jina-reranker-v1-tiny-en",
                "Small and fast with an 8k context, English.",
                0.13,
                8192,
            ),
            _hub(
                "jinaai/jina-reranker-v1-turbo-en",
                "Fast with an 8k context, English.",
                0.15,
                8192,
            ),
            _hub(
                "jinaai/jina-reranker-v2-base-multilingual",
                "Multilingual with a 1k context. Not for commercial use.",
                1.11,
                1024,
                license="cc-by-nc-4.0",
            ),
        )
    }
)
_custom: dict[str, ModelSpec] = {}
_custom_lock = threading.Lock()


def supported_models() -> list[ModelSpec]:
    """Every model known by name: built in, then those added in this process."""
    with _custom_lock:
        return [*_BUILT_IN.values(), *_custom.values()]


def register_model(spec: ModelSpec) -> None:
    """Add a model for the life of this process.

    Raises:
        InvalidInputError: the name is taken, or the spec has no hub repository.
    """
    if spec.sources is None or not spec.sources.hf:
        raise InvalidInputError(
            f"Model {spec.model!r} has no hub repository. Pass sources=ModelSource(hf="
            '"owner/name"), or load local files with TextCrossEncoder("/path/to/directory").'
        )
    key = spec.model.lower()
    with _custom_lock:
        if key in _BUILT_IN or key in _custom:
            raise InvalidInputError(
                f"Model {spec.model!r} is already registered. Choose another name."
            )
        _custom[key] = spec


def find_model(name: str) -> ModelSpec:
    """The model of that name, in any case, with or without its owner.

    Raises:
        UnknownModelError: there is none; the message lists the nearest names.
    """
    specs = supported_models()
    wanted = name.lower()
    for matches in (
        [spec for spec in specs if spec.model.lower() == wanted],
        [spec for spec in specs if spec.model.lower().partition("/")[2] == wanted],
    ):
        if len(matches) == 1:
            return matches[0]
    raise UnknownModelError(
        f"No model named {name!r}, and no such file or directory. "
        f"{_nearest(wanted, [spec.model for spec in specs])}"
        "Pass a supported name, or the path of a directory with an ONNX file and tokenizer.json."
    )


def _nearest(wanted: str, names: Sequence[str]) -> str:
    by_key = {name.lower(): name for name in names}
    by_key |= {name.lower().rpartition("/")[2]: name for name in names}
    near = difflib.get_close_matches(wanted, by_key, n=3, cutoff=0.5)
    if not near:
        return f"Supported: {', '.join(names)}. "
    return f"Did you mean {' or '.join(dict.fromkeys(by_key[key] for key in near))}? "
