"""A model as it is known before anything is read: frozen data, no I/O."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qdrant_rerank.errors import MissingPrecisionError
from qdrant_rerank.hub.precision import FilePrecision, Precision

__all__ = [
    "BUNDLED_DIRECTORY",
    "DEFAULT_EMBEDDER",
    "DEFAULT_RERANKER",
    "TRUNK_EMBEDDER",
    "ModelFile",
    "ModelSource",
    "ModelSpec",
]

BUNDLED_DIRECTORY = Path(__file__).parent.parent / "bundled"
#: The reranker that ships with the package: 34 MB, English. It loads without a network.
DEFAULT_RERANKER = "grown-e5-small-v1"
#: The static embedder that ships with the package: 256 dimensions. It loads without a network.
DEFAULT_EMBEDDER = "static-minilm-l6-v1"
#: The transformer inside ``DEFAULT_RERANKER``, which embeds as well: 384 dimensions, English.
TRUNK_EMBEDDER = "e5-small-v2"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The place where a model's files are published.

    Attributes:
        hf: a Hugging Face hub repository, "owner/name".
        url: is kept for fastembed's signature; an archive is not fetched from it.
        revision: the commit to load; None means the default branch as it was when first fetched.
    """

    hf: str | None = None
    url: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One ONNX file of a model.

    Attributes:
        path: place in the repository, with forward slashes.
        precision: precision of its weights.
        size_in_gb: size with its external data, in decimal gigabytes; 0 if unknown.
        additional_files: further files to fetch, by their place in the repository. External data
            that the ONNX file itself names need not be listed.
        sha256: hex digest; it is checked in addition to the one that the hub reports.
        source: where this file is published, if not with the model's other files.
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

    When a model is loaded, its own configuration files win over the numbers here.

    Attributes:
        model: its name, unique in any case of letters.
        sources: where the files are; None for a bundled model.
        description: one sentence.
        license: SPDX-like identifier, lower case.
        files: one file per precision; precision "auto" loads the first. Without any, what the
            repository has is loaded.
        max_length: tokens of a pair, special tokens included, as published.
        labels: number of outputs of its head.
        activation: turns its logit into the score that its authors publish.
        template: how it reads a pair: "pair" is the tokenizer's own pair template, "qwen3" a chat
            prompt that the model answers with yes or no.
        languages: ISO 639-1 codes of the languages that it knows; "multilingual" stands for some
            dozens, such as those of XLM-R. Empty if not known.
        bi_encoder: tensor of the ONNX file, of shape (pairs, 1), that holds the cosine of query and
            document by the bi-encoder that the model was grown on, times any number above 0; None
            if it was not.
        trunk: the transformer that gives the vectors of that bi-encoder; models with the same one
            have the same cosines. "" if it is the model's own.
        folder: of a bundled model, below ``BUNDLED_DIRECTORY``; "" if it has the model's name.
            Models that have weights in common lie in one.
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
    languages: tuple[str, ...] = ()
    bi_encoder: str | None = None
    trunk: str = ""
    folder: str = ""

    @property
    def directory(self) -> Path:
        """The folder of a bundled model."""
        return BUNDLED_DIRECTORY / (self.folder or self.model)

    def file(self, precision: Precision = "auto") -> ModelFile:
        """Return the file of a precision; "auto" is the first file.

        Raises:
            MissingPrecisionError: the model has no such file; the message lists what it has.
        """
        for file in self.files:
            if precision in {"auto", file.precision}:
                return file
        known = ", ".join(dict.fromkeys(file.precision for file in self.files))
        raise MissingPrecisionError(
            f"{self.model} has no {precision} file; its precisions are auto, {known}."
        )
