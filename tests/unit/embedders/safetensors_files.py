"""Writes safetensors files, from the description of the format, for the tests that read them."""

import json

import numpy as np

NAMES = {"float32": "F32", "float16": "F16", "int8": "I8", "int64": "I64", "float64": "F64"}


def written(path, **arrays):
    """Write arrays under their names, and return the path."""
    header, data = {}, b""
    for name, given in arrays.items():
        array = np.ascontiguousarray(given)
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path
