"""Where in an ONNX graph softmax(scale * Q K^T + mask) V is, whoever exported it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Graph", "Site", "find_sites"]


@dataclass(frozen=True, slots=True)
class Site:
    """Names of one attention's tensors.

    Attributes:
        query: (batch, heads, tokens, size).
        key: transposed, (batch, heads, size, tokens).
        value: as the query.
        mask: what is added to the scores, or None.
        scale: what they are multiplied by.
        result: as the query.
    """

    query: str
    key: str
    value: str
    mask: str | None
    scale: float
    result: str


class Graph:
    """Who makes and who takes each tensor.

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
        """The node that makes a tensor, if it is of one of these kinds."""
        node = self._makers.get(name)
        return node if node is not None and node.op_type in kinds else None

    def takers(self, name: str) -> list[Any]:
        """The nodes that take a tensor."""
        return self._takers.get(name, [])

    def number(self, name: str) -> float | None:
        """The only element of a constant tensor; None for another one."""
        from onnx import numpy_helper

        node = self.maker(name, "Constant")
        tensor = self._weights.get(name)
        if node is not None and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
        if tensor is None or int(np.prod(tensor.dims)) != 1:
            return None
        return float(numpy_helper.to_array(tensor).reshape(()))

    def order(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """Of a transposed tensor, what was transposed, and how."""
        node = self.maker(name, "Transpose")
        if node is None or not node.attribute:
            return None
        return node.input[0], tuple(node.attribute[0].ints)


def find_sites(graph: Graph) -> list[Site]:
    """Every attention of a graph, by its softmax."""
    found = [_site(graph, node) for node in graph.nodes if node.op_type == "Softmax"]
    return [site for site in found if site is not None]


def _site(graph: Graph, softmax: Any) -> Site | None:
    weights = _past_guard(graph, softmax.output[0])
    takers = graph.takers(weights)
    if len(takers) != 1 or takers[0].op_type != "MatMul" or takers[0].input[0] != weights:
        return None
    for term, mask in _sums(graph, softmax.input[0]):
        scores, scale = term, 1.0
        scaled = graph.maker(term, "Mul", "Div")
        if scaled is not None:
            number = graph.number(scaled.input[1])
            if not number:
                continue
            scale = number if scaled.op_type == "Mul" else 1 / number
            scores = scaled.input[0]
        product = graph.maker(scores, "MatMul")
        if product is not None:
            query, key = product.input
            return Site(query, key, takers[0].input[1], mask, scale, takers[0].output[0])
    return None


def _sums(graph: Graph, name: str) -> list[tuple[str, str | None]]:
    """What may be the scores, and the mask that is added to them."""
    added = graph.maker(name, "Add")
    if added is None:
        return [(name, None)]
    one, other = added.input
    return [(one, other), (other, one)]


def _past_guard(graph: Graph, weights: str) -> str:
    """Past Where(IsNaN(weights), 0, weights), torch's guard of rows that are wholly masked."""
    takers = graph.takers(weights)
    tests = [node for node in takers if node.op_type == "IsNaN"]
    guards = [node for node in takers if node.op_type == "Where"]
    if len(takers) == 2 and len(tests) == len(guards) == 1:
        condition, zero, kept = guards[0].input
        if condition == tests[0].output[0] and graph.number(zero) == 0 and kept == weights:
            return str(guards[0].output[0])
    return weights
