"""What the files of a model are called, and which further files an ONNX file reads.

Weights of more than 2 GB lie in files beside the ONNX file, which names them. They are found by
walking the protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) over a
memory map: nothing is executed and no weight is read.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.precision import FilePrecision, Precision

__all__ = [
    "DYNAMIC_QUANTIZATION",
    "choose_file",
    "external_data",
    "external_files",
    "is_quantized",
    "names_any",
    "precision_of",
    "usual_names",
]

# Names under which exporters publish each precision, best known first: transformers.js and
# optimum, then sentence-transformers.
NAMES_OF_PRECISION: dict[FilePrecision, tuple[str, ...]] = {
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

# Operators that quantise activations as they come, with a scale of the whole run.
DYNAMIC_QUANTIZATION = (b"DynamicQuantizeLinear", b"DynamicQuantizeMatMul")
# With those, operators of every int8 export that onnxruntime and optimum make.
QUANTIZATION = (*DYNAMIC_QUANTIZATION, b"QLinearMatMul", b"MatMulInteger", b"QuantizeLinear")

# onnx.proto: message -> field number -> message in it. Tensors occur in all of these.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
DEEPEST = 100  # messages in messages, protobuf's own limit
LONGEST_VARINT = 10  # bytes


def choose_file(names: Iterable[str], precision: Precision) -> str | None:
    """The ONNX file of that precision among a repository's or a directory's files.

    Args:
        names: relative paths with forward slashes.
        precision: "auto" takes fp32 where it exists, else int8, fp16, q4f16.

    Returns:
        A file at the top or under ``onnx/``, or None.
    """
    present = set(names)
    for name in usual_names(precision):
        for path in (name, f"onnx/{name}"):
            if path in present:
                return path
    return None


def usual_names(precision: Precision) -> tuple[str, ...]:
    """File names that a model of that precision goes by, best known first."""
    if precision == "auto":
        return tuple(name for names in NAMES_OF_PRECISION.values() for name in names)
    return NAMES_OF_PRECISION[precision]


def precision_of(path: str) -> FilePrecision:
    """The precision that a file's name tells; fp32 where it tells none."""
    name = PurePosixPath(path).name
    for precision, names in NAMES_OF_PRECISION.items():
        if name in names:
            return precision
    return "fp32"


def names_any(model: Path, operators: Iterable[bytes]) -> bool:
    """Whether an ONNX file names one of these operators; False where it is not to be read."""
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(name) >= 0 for name in operators)
    except (OSError, ValueError):  # absent, or empty: what loads it says so
        return False


def is_quantized(model: Path) -> bool:
    """Whether an ONNX file computes in int8."""
    return names_any(model, QUANTIZATION)


def external_files(model: Path, *, trusted: Sequence[Path] = ()) -> list[Path]:
    """The files that an ONNX file reads its weights from, each in the model's own directory.

    Args:
        model: the ONNX file.
        trusted: directories that links may lead to, such as the hub cache's blobs.

    Raises:
        ModelFileError: the file is damaged, or one it names lies outside or is missing.
    """
    # A link may lead to where the ONNX file's own link leads, as it does in the hub's cache.
    homes = [model.parent.resolve(), model.resolve().parent, *(path.resolve() for path in trusted)]
    found = []
    for location in external_data(model):
        path = model.parent / location
        if not any(path.resolve().is_relative_to(home) for home in homes):
            raise ModelFileError(
                f"{model} reads its weights from {location!r}, a link to {path.resolve()}, outside "
                "its own directory. It is not loaded: put the file itself there."
            )
        if not path.is_file():
            raise ModelFileError(
                f"{model} reads its weights from {location!r}, which is not there. Put the file "
                "beside it, or fetch the model again."
            )
        found.append(path)
    return found


def external_data(model: Path) -> list[str]:
    """The locations of external data that an ONNX file names, relative to its directory.

    Raises:
        ModelFileError: the file is no ONNX file, is cut off, or names a file elsewhere.
    """
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = list(dict.fromkeys(_locations(data, 0, len(data), "model", 0)))
    except ValueError as error:  # an empty file cannot be mapped
        raise ModelFileError(
            f"{model} ({model.stat().st_size:,} bytes) is not a model that can be read: {error}. "
            "It may be truncated or not an ONNX file; fetch it again."
        ) from error
    for location in found:
        if not _stays_inside(location):
            raise ModelFileError(
                f"{model} reads its weights from {location!r}, outside its own directory. It is "
                "not loaded: take the model from a source that you trust."
            )
    return found


def _stays_inside(location: str) -> bool:
    windows = PureWindowsPath(location)  # its rules everywhere: one answer on every system
    return not (
        not location
        or "\0" in location
        or windows.drive
        or windows.root
        or ".." in windows.parts
        or PurePosixPath(location).is_absolute()
    )


def _locations(data: mmap.mmap, at: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        raise ValueError(f"messages are nested more than {DEEPEST} deep")
    for field, start, stop in _fields(data, at, end):
        inner = MESSAGES[message].get(field)
        if inner == "entry":
            entry = {number: data[a:b] for number, a, b in _fields(data, start, stop)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode()
        elif inner is not None:
            yield from _locations(data, start, stop, inner, depth + 1)


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, stop) of each length-delimited field; the others are passed over."""
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at, end)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind == 2:
            length, at = _varint(data, at, end)
            if at + length > end:
                raise ValueError("it ends amid a field")
            yield tag >> 3, at, at + length
            at += length
        else:
            raise ValueError(f"unknown wire type {kind}")
    if at > end:
        raise ValueError("it ends amid a field")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(LONGEST_VARINT):
        if at >= end:
            raise ValueError("it ends amid a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, at
    raise ValueError("a number is too long")
