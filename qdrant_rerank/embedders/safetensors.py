"""Arrays of a ``.safetensors`` file, read by numpy alone.

The format is a length (8 bytes, little-endian), a JSON header with the type, the shape and the
place of each array, and the arrays (https://huggingface.co/docs/safetensors). So reading it takes
no package, and executes nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import ModelFileError

__all__ = ["read_safetensors"]

LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
}


def read_safetensors(path: Path) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of a file by name, mapped into memory and not writable.

    An array of bfloat16, which numpy does not have, becomes float32.

    Raises:
        ModelFileError: the file is missing, cut off or damaged, or has a type that is not known.
    """
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        length = int(content[:8].view("<u8")[0])
        if length > min(LONGEST_HEADER, len(content) - 8):
            raise ValueError(f"its header of {length} bytes does not fit into {len(content)} bytes")
        header = json.loads(content[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        data = content[8 + length :]
        return {name: _array(data, about) for name, about in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelFileError(
            f"{path} is not a safetensors file that can be read ({type(error).__name__}: {error}). "
            "Fetch it again."
        ) from error


def _array(data: NDArray[np.uint8], about: Mapping[str, Any]) -> NDArray[Any]:
    start, end = about["data_offsets"]
    if not 0 <= start <= end <= len(data):
        raise ValueError(f"an array ends at byte {end} of {len(data)}")
    part = data[start:end]
    if about["dtype"] == "BF16":  # the upper half of a float32
        values: NDArray[Any] = (part.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = part.view(TYPES[about["dtype"]])
    return values.reshape(about["shape"])
