"""Put a model beside the one that it was grown on, with the weights that both have stored once.

    python training/beside.py EXPORTED_DIR BUNDLED_DIR NAME

``BUNDLED_DIR/onnx/NAME.onnx`` is the graph of ``EXPORTED_DIR`` (int8, as ``export.py`` writes it);
``NAME.bin`` has what the bundled model lacks. The rest lies in the bundled model's ``weights.bin``,
which stays as it is. Nodes of the same name are the same layer: where the bundled one was smoothed
on other pairs, its weights are taken, so that the trunk and the scalars give the same to the bit.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import onnx
from export import ALIGNMENT, LEAST_MOVED
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data
from onnx.numpy_helper import to_array

SHARED = "weights.bin"


def put_beside(exported: Path, bundled: Path, name: str) -> None:
    """Write ``NAME.onnx`` and ``NAME.bin`` into the bundled model's folder."""
    folder = bundled / "onnx"
    model, other = (onnx.load(place / "onnx" / "model.onnx") for place in (exported, bundled))
    _take_weights(model.graph, other.graph)
    places = {}
    for tensor in onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer:
        if uses_external_data(tensor):
            info = ExternalDataInfo(tensor)
            content = (folder / SHARED).open("rb")
            with content:
                content.seek(int(info.offset))
                places[_digest(content.read(int(info.length)))] = int(info.offset)
    own: dict[bytes, int] = {}
    with (folder / f"{name}.bin").open("wb") as out:
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < LEAST_MOVED:
                continue
            digest = _digest(raw)
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


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _take_weights(graph: Any, other: Any) -> None:
    """Give nodes of the same name the other graph's weights, and check that they are near."""
    ours, theirs = ({t.name: t for t in g.initializer} for g in (graph, other))
    known = {node.name: node for node in other.node}
    for node in graph.node:
        same = known.get(node.name)
        if same is None or same.op_type != node.op_type or len(same.input) != len(node.input):
            continue
        for name, its in zip(node.input, same.input, strict=True):
            if name in ours and its in theirs and ours[name].dims == theirs[its].dims:
                tensor = theirs[its]
                ours[name].raw_data = to_array(tensor).tobytes()


if __name__ == "__main__":
    put_beside(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
