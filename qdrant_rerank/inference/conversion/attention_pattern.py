"""Finds softmax(scale * Q K^T + mask) V in an ONNX graph, by any exporter."""

from dataclasses import dataclass
from typing import Any

from qdrant_rerank.inference.conversion.graph import Graph

__all__ = ["Site", "find_sites"]


@dataclass(frozen=True, slots=True)
class Site:
    """Names of one attention's tensors.

    Attributes:
        query: (batch, heads, tokens, size).
        key: transposed, (batch, heads, size, tokens).
        value: as the query.
        mask: added to the scores; None without a mask.
        scale: factor of the scores.
        result: as the query.
    """

    query: str
    key: str
    value: str
    mask: str | None
    scale: float
    result: str


def find_sites(graph: Graph) -> list[Site]:
    """Return every attention of a graph, found by its softmax."""
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
    """Return the possible scores, each with the mask that is added to them."""
    added = graph.maker(name, "Add")
    if added is None:
        return [(name, None)]
    one, other = added.input
    return [(one, other), (other, one)]


def _past_guard(graph: Graph, weights: str) -> str:
    """Skip Where(IsNaN(weights), 0, weights), torch's guard for rows that are wholly masked."""
    takers = graph.takers(weights)
    tests = [node for node in takers if node.op_type == "IsNaN"]
    guards = [node for node in takers if node.op_type == "Where"]
    if len(takers) == 2 and len(tests) == len(guards) == 1:
        condition, zero, kept = guards[0].input
        if condition == tests[0].output[0] and graph.number(zero) == 0 and kept == weights:
            return str(guards[0].output[0])
    return weights
