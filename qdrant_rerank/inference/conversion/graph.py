"""An ONNX graph in memory, to be rewritten: its tensors, and the nodes that make and take them."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from qdrant_rerank.errors import ModelFileError

__all__ = ["Graph", "inputs_of", "keep_needed", "load_whole", "tensors_of"]


def load_whole(path: Path, *, largest: int | None = None) -> Any:
    """Read an ``onnx.ModelProto`` with its external data, which may be links as in the hub's cache.

    ``onnx.load`` refuses links. The files were checked before:
    see :func:`~qdrant_rerank.hub.onnx_files.external_files`.

    Args:
        path: the ONNX file.
        largest: elements of a tensor beyond which its data is not read; None for no limit.

    Raises:
        ModelFileError: its external data is shorter than it says.
        OSError: a file cannot be read.
        Exception: protobuf's own, where the file is no ONNX file.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    model = onnx.load(path, load_external_data=False)
    for tensor in tensors_of(model.graph):
        if uses_external_data(tensor) and (largest is None or math.prod(tensor.dims) <= largest):
            info = ExternalDataInfo(tensor)
            data, start = path.parent / info.location, info.offset or 0
            there = data.stat().st_size
            end = there if info.length is None else start + info.length
            if end > there:
                raise ModelFileError(
                    f"{path} reads {tensor.name!r} from {data}, up to byte {end:,}, and the file "
                    f"has {there:,}. It is cut off: fetch the model again."
                )
            with data.open("rb") as file:
                file.seek(start)
                tensor.raw_data = file.read(end - start)
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return model


def tensors_of(graph: Any) -> Iterator[Any]:
    """Yield every tensor of a graph: weights, and constants inside nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from tensors_of(inner)


class Graph:
    """The nodes that make and take each tensor.

    Args:
        graph: an ``onnx.GraphProto``.

    Attributes:
        nodes: in order.
    """

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self._makers = {name: node for node in graph.node for name in node.output}
        self._takers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._takers.setdefault(name, []).append(node)
        self._weights = {tensor.name: tensor for tensor in graph.initializer}

    def maker(self, name: str, *kinds: str) -> Any | None:
        """Return the node that makes a tensor, if it is of one of these kinds."""
        node = self._makers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def takers(self, name: str) -> list[Any]:
        """Return the nodes that take a tensor."""
        return self._takers.get(name, [])

    def only_taker(self, name: str, kind: str) -> Any | None:
        """Return the node that takes a tensor, if it is the only one, and of this kind."""
        takers = self.takers(name)
        return takers[0] if len(takers) == 1 and takers[0].op_type == kind else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the value of a constant tensor; None for another one."""
        node = self.maker(name, "Constant")
        tensor = self._weights.get(name)
        if node is not None and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
        if tensor is None:
            return None
        from onnx import numpy_helper

        value: NDArray[Any] = numpy_helper.to_array(tensor)
        return value

    def number(self, name: str) -> float | None:
        """Return the only element of a constant tensor; None for another one."""
        value = self.constant(name)
        return None if value is None or value.size != 1 else float(value.reshape(()))

    def order(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """Return the tensor that was transposed into this one, and how; None if none was."""
        node = self.maker(name, "Transpose")
        if node is None or not node.attribute:
            return None
        return node.input[0], tuple(node.attribute[0].ints)


def keep_needed(graph: Any, nodes: Sequence[Any]) -> None:
    """Give a graph other nodes, without nodes and weights that its outputs do not need.

    Args:
        graph: an ``onnx.GraphProto``.
        nodes: in order.
    """
    wanted = {node.name for node in graph.output}
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(inputs_of(node))
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept[::-1])
    graph.initializer.extend(weights)


def inputs_of(node: Any) -> Iterator[str]:
    """Yield the inputs of a node and of the graphs inside it."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (output.name for output in graph.output)  # it may be from outside
            for inner in graph.node:
                yield from inputs_of(inner)
