"""Facts about an ONNX file without loading it: its operators, and which further files it reads.

Weights of more than 2 GB lie in files beside the ONNX file, which names them. The names are found
by a walk over protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) in a
memory map: nothing is executed and no weight is read.
"""

import mmap
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.integrity import stays_inside

__all__ = [
    "DYNAMIC_QUANTIZATION",
    "external_array",
    "external_data",
    "external_files",
    "how_to_export",
    "input_width",
    "is_quantized",
    "listed",
    "names_any",
]

# Operators that quantise activations at run time, with one scale for the whole batch.
DYNAMIC_QUANTIZATION = (b"DynamicQuantizeLinear", b"DynamicQuantizeMatMul")
# With those: the operators of every int8 export that onnxruntime and optimum make.
QUANTIZATION = (*DYNAMIC_QUANTIZATION, b"QLinearMatMul", b"MatMulInteger", b"QuantizeLinear")

# onnx.proto: message -> field number -> message in it, for all messages that lead to a tensor.
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
# onnx.proto: the way from a model to the sizes of its inputs.
TO_INPUTS, NAME, TO_SIZES = (7, 11), 1, (2, 1, 2, 1)
# The way to its weights, and of a weight the number of its name.
TO_WEIGHTS, WEIGHT_NAME, ENTRY = (7, 5), 8, 13
DEEPEST = 100  # levels of nested messages, protobuf's own limit
LONGEST_VARINT = 10  # bytes
MOST_NAMES_LISTED = 20


def names_any(model: Path, operators: Iterable[bytes]) -> bool:
    """Return whether an ONNX file names one of these operators; False if it cannot be read."""
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(name) >= 0 for name in operators)
    except (OSError, ValueError):  # absent or empty: loading it raises the error
        return False


def listed(names: Sequence[str]) -> str:
    """Join the names of files for an error, not more than 20."""
    more = ", ..." if len(names) > MOST_NAMES_LISTED else ""
    return f"{', '.join(names[:MOST_NAMES_LISTED]) or 'none'}{more}"


def how_to_export(model: object, files: Iterable[str], task: str = "text-classification") -> str:
    """Say how to make the ONNX file of a model whose files hold none."""
    weights = ("safetensors", "bin", "pt")
    if not any(name.rpartition(".")[2] in weights for name in files):
        return "Pass a directory or a repository with an ONNX export of the model."
    if task != "text-classification":
        return (
            "Its weights are for PyTorch. Export them to ONNX, and pass the new directory: in an "
            'environment of its own, pip install "optimum[onnxruntime]", then optimum-cli export '
            f"onnx --task {task} --model {shlex.quote(str(model))} NEW_DIRECTORY"
        )
    return (
        "Its weights are for PyTorch. Export them to ONNX, and pass the new directory: pip install "
        f'"qdrant-rerank[export]", then qdrant-rerank models export {shlex.quote(str(model))} '
        "NEW_DIRECTORY"
    )


def is_quantized(model: Path) -> bool:
    """Return whether an ONNX file computes in int8."""
    return names_any(model, QUANTIZATION)


def input_width(model: Path, name: str = "input_ids") -> int | None:
    """Return the second size of an ONNX file's input, if the file fixes it.

    Returns:
        None if the size is not fixed, or the file cannot be read: loading it raises the error.
    """
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for start, stop in _inside(data, [(0, len(data))], TO_INPUTS):
                names = _inside(data, [(start, stop)], (NAME,))
                if [data[a:b] for a, b in names] != [name.encode()]:
                    continue
                sizes = list(_inside(data, [(start, stop)], TO_SIZES))
                if len(sizes) < 2:
                    return None
                at, end = sizes[1]
                tag, at = _varint(data, at, end) if at < end else (0, at)
                return (_varint(data, at, end)[0] or None) if tag == 1 << 3 else None
    except (OSError, ValueError):
        pass
    return None


def _inside(
    data: mmap.mmap, places: Iterable[tuple[int, int]], path: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Yield the places of the messages that a path of field numbers leads to."""
    if not path:
        yield from places
        return
    for at, end in places:
        found = ((a, b) for number, a, b in _fields(data, at, end) if number == path[0])
        yield from _inside(data, found, path[1:])


def external_files(model: Path, *, trusted: Sequence[Path] = ()) -> list[Path]:
    """Return the files that an ONNX file reads its weights from, all in the model's own directory.

    Args:
        model: the ONNX file.
        trusted: directories that links may lead to, such as the blob folders of the hub's cache.

    Raises:
        ModelFileError: the file is damaged, or a file that it names is missing or lies outside.
    """
    # A link may lead where the ONNX file's own link leads, as it does in the hub's cache.
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
    """Return the places of the external data that an ONNX file names, relative to its directory.

    Raises:
        ModelFileError: the file is not an ONNX file, is cut off, or names a file elsewhere.
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
        if not stays_inside(location):
            raise ModelFileError(
                f"{model} reads its weights from {location!r}, outside its own directory. It is "
                "not loaded: take the model from a source that you trust."
            )
    return found


def external_array(model: Path, name: str, dtype: DTypeLike) -> NDArray[Any]:
    """Map a weight that an ONNX file keeps as external data into memory.

    Returns:
        Its numbers, one after the other.

    Raises:
        ModelFileError: the file is damaged, or has no such weight.
    """
    inside = external_data(model)
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for start, stop in _inside(data, [(0, len(data))], TO_WEIGHTS):
                fields = list(_fields(data, start, stop))
                names = [data[a:b] for number, a, b in fields if number == WEIGHT_NAME]
                if names != [name.encode()]:
                    continue
                entries = dict(_entry(data, a, b) for number, a, b in fields if number == ENTRY)
                location, length = entries["location"], int(entries["length"])
                if location in inside:
                    size = length // np.dtype(dtype).itemsize
                    place = int(entries.get("offset", 0))
                    return np.memmap(model.parent / location, dtype, "r", place, (size,))
    except (OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"{name} of {model} cannot be read: {error}.") from error
    raise ModelFileError(f"{model} has no weight {name} in a file beside it.")


def _entry(data: mmap.mmap, at: int, end: int) -> tuple[str, str]:
    """Return the key and the value of a piece of information on external data."""
    entry = {number: data[a:b].decode() for number, a, b in _fields(data, at, end)}
    return entry[1], entry.get(2, "")


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
    """Yield (number, start, stop) of each length-delimited field, and skip the other fields."""
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
                raise ValueError("it ends inside a field")
            yield tag >> 3, at, at + length
            at += length
        else:
            raise ValueError(f"unknown wire type {kind}")
    if at > end:
        raise ValueError("it ends inside a field")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(LONGEST_VARINT):
        if at >= end:
            raise ValueError("it ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, at
    raise ValueError("a number is too long")
