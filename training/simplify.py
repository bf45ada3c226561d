"""Take out of an int8 graph what costs time and changes no bit of a score, in place.

    python training/simplify.py MODEL.onnx ...

The quantiser gives every weight a zero point per column, and all of them are 0. The exporter lets
each attention compute the sizes that it reshapes to, by some thirty operators.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from arguments import existing_path
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from qdrant_rerank.inference.conversion.attention_pattern import Site, find_sites
from qdrant_rerank.inference.conversion.graph import Graph, keep_needed


def simplify(path: Path) -> None:
    """Rewrite an ONNX file; its external data stays as it is.

    Args:
        path: as ``export`` writes it, or with its weights moved. One that is simple stays the same.
    """
    model = onnx.load(path, load_external_data=False)
    graph = Graph(model.graph)
    for site in find_sites(graph):
        _fix_sizes(model.graph, graph, site)
    _leave_out_zeros(model.graph, path.parent)
    keep_needed(model.graph, graph.nodes)
    del model.graph.value_info[:]  # shapes, which ONNX Runtime infers
    onnx.save(model, path)


def _fix_sizes(graph: Any, found: Graph, site: Site) -> None:
    """Let an attention take its heads apart and together by sizes known beforehand."""
    [back] = found.takers(site.result)
    [joined] = [node for node in found.takers(back.output[0]) if node.op_type == "Reshape"]
    apart = []
    for name in (site.query, site.key, site.value):
        before = found.order(name)
        assert before is not None
        apart.append(found.maker(before[0], "Reshape"))
    computed = found.maker(apart[0].input[1], "Concat")  # batch, tokens; heads, size
    if computed is None:
        return
    heads = int(found.constant(computed.input[1])[0])
    for nodes, sizes in ((apart, [0, 0, heads, -1]), ([joined], [0, 0, -1])):  # 0: as before
        name = f"/sizes_{'_'.join(map(str, sizes))}"
        for node in nodes:
            node.input[1] = name
        if all(tensor.name != name for tensor in graph.initializer):
            graph.initializer.append(numpy_helper.from_array(np.array(sizes), name))


def _leave_out_zeros(graph: Any, folder: Path) -> None:
    """Leave out the zero points of weights that are all 0, as ONNX takes them if there are none."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMulInteger" and len(node.input) == 4:
            tensor = known.get(node.input[3])
            if tensor is not None and not _value(tensor, folder).any():
                del node.input[3]


def _value(tensor: Any, folder: Path) -> NDArray[Any]:
    if not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    info = ExternalDataInfo(tensor)
    return np.memmap(folder / info.location, np.uint8, "r", int(info.offset), int(info.length))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=existing_path)
    for file in parser.parse_args().files:
        simplify(file)
