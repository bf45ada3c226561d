"""The cross-encoders that come with their facts. Frozen data; no I/O."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qdrant_rerank.errors import MissingPrecisionError
from qdrant_rerank.hub.precision import FilePrecision, Precision

__all__ = [
    "BUNDLED_DIRECTORY",
    "DEFAULT_EMBEDDER",
    "DEFAULT_RERANKER",
    "ModelFile",
    "ModelSource",
    "ModelSpec",
]

BUNDLED_DIRECTORY = Path(__file__).parent.parent / "bundled"
#: The cross-encoder that ships with the package: 29 MB, English, loads with no network.
DEFAULT_RERANKER = "grown-minilm-l6-v2"
#: The static embedder that ships with the package: 256 dimensions, loads with no network.
DEFAULT_EMBEDDER = "static-minilm-l6-v1"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's files are.

    Attributes:
        hf: a Hugging Face hub repository, "owner/name".
        url: kept for fastembed's signature; a bare archive URL is not fetched.
        revision: the commit to load; None for the default branch as it was when first fetched.
    """

    hf: str | None = None
    url: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One ONNX file of a model.

    Attributes:
        path: relative to the repository, with forward slashes.
        precision: of its weights.
        size_in_gb: with its external data, decimal gigabytes; 0 where unknown.
        additional_files: fetched with it, relative to the repository. External data that the ONNX
            file itself names need not be listed.
        sha256: hex digest, checked besides the one that the hub reports.
        source: where it is published, if not with the model's other files.
    """

    path: str = "onnx/model.onnx"
    precision: FilePrecision = "fp32"
    size_in_gb: float = 0.0
    additional_files: tuple[str, ...] = ()
    sha256: str | None = None
    source: ModelSource | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One cross-encoder.

    What a model's own configuration files say when it is loaded wins over the numbers here.

    Attributes:
        model: the name it goes by, unique without regard to case.
        sources: where the files are; None for a bundled model.
        description: one sentence.
        license: SPDX-like identifier, lower case.
        files: one a precision; the first is the one that is loaded unless asked otherwise.
        max_length: window in tokens, special tokens included, as published.
        labels: outputs of its head.
        activation: what turns its logit into the score that its authors publish.
        template: how it reads a pair: "pair" is the tokenizer's own pair template, "qwen3" a chat
            prompt that is answered by yes or no.
        bundled_with: of a bundled model, the one whose folder, tokenizer and weights it shares.
    """

    model: str
    sources: ModelSource | None
    description: str = ""
    license: str = ""
    files: tuple[ModelFile, ...] = (ModelFile(),)
    max_length: int | None = None
    labels: int = 1
    activation: Literal["identity", "sigmoid"] = "identity"
    template: Literal["pair", "qwen3"] = "pair"
    bundled_with: str | None = None

    @property
    def directory(self) -> Path:
        """The folder of a bundled model."""
        return BUNDLED_DIRECTORY / (self.bundled_with or self.model)

    def file(self, precision: Precision = "auto") -> ModelFile:
        """The file of that precision; "auto" is the first.

        Raises:
            MissingPrecisionError: there is none; the message lists those there are.
        """
        for file in self.files:
            if precision in {"auto", file.precision}:
                return file
        known = ", ".join(dict.fromkeys(file.precision for file in self.files))
        raise MissingPrecisionError(
            f"{self.model} has no {precision} file; its precisions are auto, {known}."
        )
