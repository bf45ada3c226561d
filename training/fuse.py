"""Give a bundled model's attention the form that is fastest for one pair, in place.

    python training/fuse.py MODEL.onnx ...

The trunk attends inside each segment. As exported, each layer makes the scores of all pairs of
tokens and adds a large negative number to those across segments. Of one text, or of one query with
the document behind it, neither padded, nothing has to be masked: the tokens are cut where the
document begins, and each part goes through ONNX Runtime's MultiHeadAttention, which without a mask
works block by block (flash attention, https://arxiv.org/abs/2205.14135). Any other batch takes the
form that was exported. In another precision it is all that is left
(``qdrant_rerank.inference.conversion.dequantize``).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from qdrant_rerank.inference.conversion.attention_pattern import Site, find_sites
from qdrant_rerank.inference.conversion.graph import Graph, keep_needed

DOMAIN = "com.microsoft"
TRUNK = "/trunk/"  # whose nodes' names begin so
MASK, TYPES = "attention_mask", "token_type_ids"
# Made once for all layers: whether there is one text or one pair, and which; the pair's tokens.
SEGMENTS = "/trunk/segments/"
SINGLE, ONE, PAIR, SIZES = (SEGMENTS + name for name in ("single", "one", "pair", "sizes"))


def fuse(path: Path) -> None:
    """Rewrite an int8 ONNX file in place; its external data stays as it is.

    Args:
        path: as ``export`` writes it, or with its weights moved. Fused already, it stays the same.
    """
    model = onnx.load(path, load_external_data=False)
    graph = Graph(model.graph)
    constants: dict[str, Any] = {}
    made, moved = {}, set()
    for site in find_sites(graph):
        masked, choice = _choice(graph, site, constants)
        made[choice.output[0]] = choice
        moved.update(node.output[0] for node in masked)
    if not made:
        return
    nodes = _segments(constants)
    for node in graph.nodes:
        if node.output[0] not in moved:
            nodes.append(made.get(node.output[0], node))
    _leave_out_zeros(path.parent, model.graph, nodes)
    model.graph.initializer.extend(
        tensor for name, tensor in constants.items() if graph.constant(name) is None
    )
    keep_needed(model.graph, nodes)
    del model.graph.value_info[:]  # shapes, which ONNX Runtime infers
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, path)


def _choice(graph: Graph, site: Site, constants: dict[str, Any]) -> tuple[list[Any], Any]:
    """Return the nodes of an attention, and the node that takes their place."""
    inner = [graph.maker(name, "Transpose") for name in (site.query, site.key, site.value)]
    apart = [graph.maker(node.input[0], "Reshape") for node in inner]
    queries, keys, values = (node.input[0] for node in apart)
    heads = _heads(graph, apart[0].input[1])
    [back] = graph.takers(site.result)
    [joined] = [node for node in graph.takers(back.output[0]) if node.op_type == "Reshape"]
    place, result = joined.name.rpartition("/")[0], joined.output[0]

    for node in apart:
        node.input[1] = _constant(constants, "/shapes/heads_apart", [0, 0, heads, -1])
    masked = [*apart, *inner]
    while masked[-1] is not back:
        [taker] = graph.takers(site.query if masked[-1] is inner[-1] else masked[-1].output[0])
        masked.append(taker)
    shape = _constant(constants, "/shapes/heads_together", [0, 0, -1])
    end = helper.make_node("Reshape", [back.output[0], shape], [f"{place}/masked"], joined.name)

    def attend(inputs: list[str], name: str) -> Any:
        return helper.make_node(
            "MultiHeadAttention",
            inputs,
            [f"{place}/{name}"],
            f"{place}/{name}",
            domain=DOMAIN,
            num_heads=heads,
            scale=site.scale,
        )

    def choose(condition: str, then: list[Any], otherwise: list[Any], output: str) -> Any:
        forms = {"then_branch": then, "else_branch": otherwise}
        graphs = {key: _body(form) for key, form in forms.items()}
        return helper.make_node("If", [condition], [output], f"{place}/{condition[1:]}", **graphs)

    one = [attend([queries, keys, values], "one")]
    if not joined.name.startswith(TRUNK):  # across the pair, where only padding is masked
        return masked, choose(SINGLE, one, [*masked, end], result)
    cut, parts = [], []
    for name, part in ((queries, "query"), (keys, "key"), (values, "value")):
        parts.append([f"{place}/{part}_asked", f"{place}/{part}_read"])
        cut.append(helper.make_node("Split", [name, SIZES], parts[-1], f"{place}/{part}", axis=1))
    asked, read = (
        attend([part[at] for part in parts], name) for at, name in enumerate(("asked", "read"))
    )
    both = [asked.output[0], read.output[0]]
    two = [*cut, asked, read, helper.make_node("Concat", both, [f"{place}/two"], axis=1)]
    alone = choose(ONE, one, [*masked, end], f"{place}/alone")
    return masked, choose(PAIR, two, [alone], result)


def _heads(graph: Graph, shape: str) -> int:
    """The third size of a shape: (batch, tokens), joined with (heads, size), or all in one."""
    joined = graph.maker(shape, "Concat")
    sizes = graph.constant(joined.input[1] if joined is not None else shape)
    return int(sizes[-2])


def _body(nodes: list[Any]) -> Any:
    output = helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)
    return helper.make_graph(nodes, nodes[-1].output[0], [], [output])


def _segments(constants: dict[str, Any]) -> list[Any]:
    """Return the nodes that say whether there is one text or one pair, and how it is cut."""
    nodes = []

    def add(kind: str, inputs: list[str], output: str, **options: Any) -> str:
        output = SEGMENTS + output.removeprefix(SEGMENTS)
        nodes.append(helper.make_node(kind, inputs, [output], output, **options))
        return output

    none, one, flat = (_constant(constants, f"{SEGMENTS}{n}", [n]) for n in (0, 1, -1))
    rows = add("Shape", [TYPES], "rows", end=1)
    width = add("Shape", [TYPES], "width", start=1)
    # The query is followed by the document if as many tokens are the document's as come after the
    # query's last one.
    last = add("ArgMin", [TYPES], "last_asked", axis=1, keepdims=1, select_last_index=1)
    asked = add("Add", [last, one], "asked")
    read = add("ReduceSum", [TYPES, one], "read", keepdims=1)
    add("Reshape", [add("Concat", [asked, read], "both", axis=1), flat], SIZES)
    total = add("ReduceMin", [add("Add", [asked, read], "sum")], "total", keepdims=0)
    in_order = add("Equal", [total, width], "in_order")
    least = add("ReduceMin", [MASK], "least", keepdims=0)
    unpadded = add("Equal", [least, one], "unpadded")
    alone = add("And", [add("Equal", [rows, one], "one_row"), unpadded], "alone")
    add("And", [alone, in_order], SINGLE)
    fewest = add("ReduceMin", [read], "fewest", keepdims=0)
    empty = add("Equal", [fewest, none], "no_document")
    add("And", [SINGLE, empty], ONE)
    add("And", [SINGLE, add("Not", [empty], "document")], PAIR)
    return nodes


def _leave_out_zeros(folder: Path, graph: Any, nodes: list[Any]) -> None:
    """Leave out the zero points of weights that are all 0, which cost time."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in nodes:
        if node.op_type == "MatMulInteger" and len(node.input) == 4:
            tensor = known.get(node.input[3])
            if tensor is not None and not _value(folder, tensor).any():
                del node.input[3]


def _value(folder: Path, tensor: Any) -> NDArray[Any]:
    if not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    info = ExternalDataInfo(tensor)
    data = np.memmap(folder / info.location, np.uint8, "r", int(info.offset), int(info.length))
    return np.asarray(data)


def _constant(constants: dict[str, Any], name: str, value: ArrayLike) -> str:
    constants[name] = numpy_helper.from_array(np.array(value, dtype=np.int64), name)
    return name


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        fuse(Path(argument))
