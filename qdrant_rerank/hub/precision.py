"""What is made of a model's file, for the precision asked for and for where it runs. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qdrant_rerank.errors import InvalidInputError

__all__ = [
    "MADE_OF",
    "Conversion",
    "FilePrecision",
    "Precision",
    "RunPrecision",
    "choose_conversion",
]

#: Of a file's weights.
FilePrecision = Literal["fp32", "fp16", "int8", "q4f16"]

#: What a file may be asked for in; "auto" is the file that the model is registered with.
Precision = Literal["auto", "fp32", "fp16", "int8", "q4f16"]

#: What a model may be run in: "bf16" is arithmetic alone, on an fp32 file.
RunPrecision = Literal["auto", "fp32", "bf16", "fp16", "int8", "q4f16"]

#: A precision -> those of the files that it can be made of, best first.
MADE_OF: Mapping[RunPrecision, tuple[FilePrecision, ...]] = {
    "int8": ("fp32",),
    "fp16": ("fp32", "int8"),
    "fp32": ("int8",),
}


@dataclass(frozen=True, slots=True)
class Conversion:
    """A file, and what it is run in.

    Attributes:
        source: precision of the file.
        precision: what it is run in.
    """

    source: FilePrecision
    precision: RunPrecision

    @property
    def quantizes(self) -> bool:
        """Whether its weights become int8."""
        return self.precision == "int8" and self.source == "fp32"

    @property
    def dequantizes(self) -> bool:
        """Whether its int8 weights become floats."""
        return self.source == "int8" and self.precision != "int8"


def choose_conversion(
    source: FilePrecision, asked: RunPrecision, *, for_gpu: bool = False
) -> Conversion:
    """What to make of a file.

    Args:
        source: precision of the file.
        asked: precision that is asked for.
        for_gpu: whether a card is asked for, which computes no int8: "auto" is then fp32.

    Raises:
        InvalidInputError: int8 is asked for on a card, or what cannot be made of the file.

    >>> choose_conversion("int8", "auto").precision
    'int8'
    >>> choose_conversion("int8", "auto", for_gpu=True).precision
    'fp32'
    """
    if for_gpu and asked == "int8":
        raise InvalidInputError(
            "precision is 'int8', which a card does not compute. Pass precision='fp16', which is "
            "made of the fp32 or int8 file where there is no other, or device='cpu'."
        )
    if asked == "auto" and for_gpu and source == "int8":
        return Conversion(source, "fp32")
    if asked == "auto":
        return Conversion(source, source)
    if asked in {"bf16", source} or source in MADE_OF.get(asked, ()):
        return Conversion(source, asked)
    raise InvalidInputError(
        f"precision is {asked!r} and the file is {source}, which it cannot be made of. Pass "
        "precision='auto', or the directory or name of a model that has such a file."
    )
