"""Precisions: of a file, by its name, and of a model that is made of it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from qdrant_rerank.errors import InvalidInputError

__all__ = [
    "MADE_OF",
    "Conversion",
    "FilePrecision",
    "Precision",
    "RunPrecision",
    "choose_conversion",
    "choose_file",
    "precision_of",
    "usual_names",
]

#: Precision of a file's weights.
FilePrecision = Literal["fp32", "fp16", "int8", "q4f16"]

#: Precision of the file to load; "auto" is the file that the model is registered with.
Precision = Literal["auto", "fp32", "fp16", "int8", "q4f16"]

#: Precision that a model computes in; "bf16" is only arithmetic, on an fp32 file.
RunPrecision = Literal["auto", "fp32", "bf16", "fp16", "int8", "q4f16"]

#: Precision -> precisions of the files that it can be made of, best first.
MADE_OF: Mapping[RunPrecision, tuple[FilePrecision, ...]] = {
    "int8": ("fp32",),
    "fp16": ("fp32", "int8"),
    "fp32": ("int8",),
}

# File names under which exporters publish each precision, best known first: transformers.js and
# optimum, then sentence-transformers.
NAMES: Mapping[FilePrecision, tuple[str, ...]] = {
    "fp32": ("model.onnx",),
    "int8": (
        "model_int8.onnx",
        "model_quantized.onnx",
        "model_qint8_avx512_vnni.onnx",
        "model_qint8_avx512.onnx",
        "model_quint8_avx2.onnx",
        "model_qint8_arm64.onnx",
        "model_uint8.onnx",
    ),
    "fp16": ("model_fp16.onnx",),
    "q4f16": ("model_q4f16.onnx",),
}


def usual_names(precision: Precision) -> tuple[str, ...]:
    """Return the file names that exporters give to a precision, best known first."""
    if precision == "auto":
        return tuple(name for names in NAMES.values() for name in names)
    return NAMES[precision]


def choose_file(files: Iterable[str], precision: Precision) -> str | None:
    """Return the ONNX file of a precision among the files of a repository or a directory.

    Args:
        files: relative paths with forward slashes.
        precision: "auto" takes fp32 if it exists, else int8, fp16, q4f16, else the only ONNX file.

    Returns:
        A file with a usual name, at the top or under ``onnx/``; or the only ONNX file; or None.
    """
    present = {file for file in files if file.endswith(".onnx")}
    for name in usual_names(precision):
        for path in (name, f"onnx/{name}"):
            if path in present:
                return path
    return present.pop() if precision == "auto" and len(present) == 1 else None


def precision_of(path: str) -> FilePrecision:
    """Return the precision that a file's name tells; fp32 if it tells none."""
    name = PurePosixPath(path).name
    return next((precision for precision, names in NAMES.items() if name in names), "fp32")


@dataclass(frozen=True, slots=True)
class Conversion:
    """The step from a file to the model that runs.

    Attributes:
        source: precision of the file.
        precision: precision that the model computes in.
    """

    source: FilePrecision
    precision: RunPrecision

    @property
    def quantizes(self) -> bool:
        """Whether fp32 weights become int8."""
        return self.precision == "int8" and self.source == "fp32"

    @property
    def dequantizes(self) -> bool:
        """Whether int8 weights become floats."""
        return self.source == "int8" and self.precision != "int8"


def choose_conversion(
    source: FilePrecision, asked: RunPrecision, *, for_gpu: bool = False
) -> Conversion:
    """Choose what is made of a file.

    Args:
        source: precision of the file.
        asked: precision that the user asks for.
        for_gpu: whether the model runs on a GPU, which does not compute in int8: "auto" is then
            fp32.

    Raises:
        InvalidInputError: int8 is asked for on a GPU, or the precision cannot be made of the file.

    >>> choose_conversion("int8", "auto").precision
    'int8'
    >>> choose_conversion("int8", "auto", for_gpu=True).precision
    'fp32'
    """
    if for_gpu and asked == "int8":
        raise InvalidInputError(
            "precision is 'int8', in which a GPU does not compute. Pass precision='fp16', which is "
            "made of the fp32 or int8 file if there is no fp16 file, or device='cpu'."
        )
    if asked == "auto":
        return Conversion(source, "fp32" if for_gpu and source == "int8" else source)
    if asked in {"bf16", source} or source in MADE_OF.get(asked, ()):
        return Conversion(source, asked)
    raise InvalidInputError(
        f"precision is {asked!r}, but the file is {source}, which it cannot be made of. Pass "
        "precision='auto', or the directory or name of a model that has such a file."
    )
