"""Put a model beside the finished one that it was grown on, with their common weights stored once.

    python training/beside.py OUT_DIR/int8 qdrant_rerank/bundled/FINISHED NAME [--share 0.75]

``FINISHED/onnx/NAME.onnx`` becomes the graph of ``OUT_DIR/int8``, as ``reader_train.py`` or
``transplant.py`` writes it, and ``NAME.bin`` the weights that the finished model lacks. The others
lie in its ``weights.bin``, which stays as it is. With ``--share``, both have the same trunk. Each
export smooths weights on other pairs, so a node that both graphs have takes those of the finished
one: its trunk and its scalars then give the same to the bit. Without, the layers are the model's
own (``transplant.py``), and word vectors are what both have.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from arguments import existing_path
from export import ALIGNMENT, LEAST_MOVED
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data
from onnx.numpy_helper import from_array, to_array
from simplify import simplify

SHARED = "weights.bin"
SHARE = "branches.share"  # of the reader


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("exported", "finished"):
        parser.add_argument(name, type=existing_path)
    parser.add_argument("name", help="of the two files")
    parser.add_argument("--share", type=float, help="of the reader, 0 to 1, on the same trunk")
    given = parser.parse_args()
    for folder in (given.exported, given.finished):
        if not (folder / "onnx" / "model.onnx").is_file():
            parser.error(f"{folder} has no onnx/model.onnx; expected the folder of a model")
    if given.share is not None and not 0 <= given.share <= 1:
        parser.error(f"--share is {given.share}; expected 0 to 1")
    put_beside(given.exported, given.finished / "onnx", given.name, given.share)


def put_beside(exported: Path, folder: Path, name: str, share: float | None) -> None:
    """Write ``NAME.onnx`` and ``NAME.bin`` into the finished model's folder."""
    model = onnx.load(exported / "onnx" / "model.onnx")
    if share is not None:
        _take_weights(model.graph, onnx.load(folder / "model.onnx").graph)
    places = _places(folder)
    own: dict[bytes, int] = {}
    with (folder / f"{name}.bin").open("wb") as out:
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if tensor.name == SHARE:
                tensor.CopyFrom(from_array(np.array(share, np.float32), SHARE))
            if len(raw) < LEAST_MOVED:
                continue
            digest = hashlib.sha256(raw).digest()
            if digest in places:
                set_external_data(tensor, SHARED, places[digest], len(raw))
            else:
                if digest not in own:
                    out.write(b"\0" * (-out.tell() % ALIGNMENT))
                    own[digest] = out.tell()
                    out.write(raw)
                set_external_data(tensor, f"{name}.bin", own[digest], len(raw))
            tensor.ClearField("raw_data")
    onnx.save(model, folder / f"{name}.onnx")
    simplify(folder / f"{name}.onnx")


def _places(folder: Path) -> dict[bytes, int]:
    """Return where the finished model's weights begin, by their digest."""
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    infos = [ExternalDataInfo(tensor) for tensor in graph.initializer if uses_external_data(tensor)]
    content = (folder / SHARED).read_bytes()
    places = {}
    for info in infos:
        start, length = int(info.offset), int(info.length)
        places[hashlib.sha256(content[start : start + length]).digest()] = start
    return places


def _take_weights(graph: Any, other: Any) -> None:
    """Give nodes that both graphs have the other one's weights."""
    ours, theirs = ({tensor.name: tensor for tensor in g.initializer} for g in (graph, other))
    known = {node.name: node for node in other.node}
    for node in graph.node:
        same = known.get(node.name)
        if same is None or same.op_type != node.op_type or len(same.input) != len(node.input):
            continue
        for name, its in zip(node.input, same.input, strict=True):
            if name in ours and its in theirs and ours[name].dims == theirs[its].dims:
                ours[name].raw_data = to_array(theirs[its]).tobytes()


if __name__ == "__main__":
    main()
