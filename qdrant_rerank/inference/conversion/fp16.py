"""An fp32 graph -> fp16, with inputs, outputs and the head in fp32.

The head is all that follows the last normalisation: a pooler and a classifier, or the scalars of a
head. It takes almost no time, but its rounding stays in the score: in fp32 it halves the largest
error of a logit of the bundled model (benchmarks/README.md).

https://onnxruntime.ai/docs/performance/model-optimizations/float16.html
"""

import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qdrant_rerank.errors import MissingDependencyError, ModelFileError
from qdrant_rerank.inference.conversion.graph import Graph, inputs_of, load_whole, tensors_of
from qdrant_rerank.inference.gpu.devices import INSTALL_GPU

__all__ = ["converter_options", "halve", "join_casts", "quiet", "widen"]

FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto's; onnx is imported on use
CAST_AFTER = "_cast_to_fp16_node"  # the converter's name for the cast after a node in fp32
# Ends of the names of a layer's last operator; exporters wrote it as several before opset 17.
NORMALIZATIONS = ("LayerNormalization", "ReduceMean")
# Weights of a product that takes time even once per pair; a language model's vocabulary has more.
LARGEST_HEAD = 1 << 22


def halve(model: Path, target: Path, room: Path, *, large: bool) -> None:
    """Write a model in fp16.

    Args:
        model: an fp32 ONNX file.
        target: the file to write, in a folder of its own.
        room: an empty folder, for a file in between.
        large: whether its weights are more than protobuf holds.

    Raises:
        MissingDependencyError: onnx is not installed.
        ModelFileError: it cannot be converted.
    """
    try:
        import onnx
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise MissingDependencyError(
            f"precision='fp16' of {model} means to convert it, since it has no fp16 file; that "
            f'needs onnx: {INSTALL_GPU}, or on a CPU pip install "qdrant-rerank[quantize]".'
        ) from error
    try:
        with quiet():
            source = load_whole(model)
            if any(tensor.data_type == FLOAT16 for tensor in source.graph.initializer):
                raise ValueError("it is fp16 already, which model_fp16.onnx would be the name for")
            options = converter_options(source.graph)
            if large:  # too large to be inferred in memory: from a file, with its data beside it
                path = room / "source.onnx"
                onnx.save(source, path, save_as_external_data=True, location="source.data")
                source = str(path)
            half = float16.convert_float_to_float16(source, **options)
            join_casts(half.graph)
    except (OSError, ModelFileError):
        raise
    except Exception as error:  # of protobuf, onnx or the converter
        raise ModelFileError(
            f"{model} cannot be converted to fp16: {error}. Use precision='auto'."
        ) from error
    onnx.save(half, target, save_as_external_data=large, location="model.onnx_data")


def converter_options(graph: Any) -> dict[str, Any]:
    """Return the converter's options: what stays in fp32. Nodes of the head get names.

    Args:
        graph: an ``onnx.GraphProto`` in fp32.
    """
    from onnxruntime.transformers import float16

    return {
        "keep_io_types": True,
        # The scales of the last one have to stay in fp32.
        "op_block_list": [*float16.DEFAULT_OP_BLOCK_LIST, "DequantizeLinear"],
        "node_block_list": _name_head(graph),
    }


def widen(model: Path, target: Path) -> None:
    """Write an fp16 model in fp32: its weights, inputs and outputs.

    Args:
        model: an ONNX file that is fp16 in whole or in part.
        target: the file to write; its data is written beside it.
    """
    import onnx
    from onnx import numpy_helper

    whole = load_whole(model)
    for tensor in tensors_of(whole.graph):
        if tensor.data_type == FLOAT16:
            full = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(full, tensor.name))
    for node in whole.graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == FLOAT16:
            node.attribute[0].i = FLOAT
    for value in (*whole.graph.input, *whole.graph.output):
        if value.type.tensor_type.elem_type == FLOAT16:
            value.type.tensor_type.elem_type = FLOAT
    del whole.graph.value_info[:]
    onnx.save(whole, target, save_as_external_data=True, location=f"{target.name}_data")


def _name_head(graph: Any) -> list[str]:
    """Return the names of the nodes after the last normalisation; nodes without a name get one.

    Products of more than 4 million weights are left out. Without a normalisation there are none.
    """
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    wanted: set[str] = set()
    head = []
    for number, node in reversed(list(enumerate(graph.node))):
        if node.op_type.endswith(NORMALIZATIONS) or wanted.intersection(node.output):
            wanted.update(node.input)
        elif max((sizes.get(name, 0) for name in node.input), default=0) <= LARGEST_HEAD:
            node.name = node.name or f"head_{number}"
            head.append(node.name)
    return head if wanted else []


def join_casts(graph: Any) -> None:
    """Let fp32 nodes read one another's results without a rounding to fp16 in between.

    Args:
        graph: an ``onnx.GraphProto`` from onnxruntime's converter, with a cast before and after
            each node that stays in fp32.
    """
    found = Graph(graph)
    exact: dict[str, str] = {}
    for node in found.nodes:
        if node.op_type == "Cast" and node.attribute[0].i == FLOAT:
            before = found.maker(node.input[0], "Cast")
            if before is not None and before.name.endswith(CAST_AFTER):
                exact[node.output[0]] = before.input[0]
    outputs = {node.name for node in graph.output}
    for node in found.nodes:
        if node.op_type == "Cast" and node.output[0] in exact.keys() & outputs:
            node.input[0] = exact[node.output[0]]  # fp32 to fp32: the output keeps its name
        node.input[:] = [exact.get(name, name) for name in node.input]
    for _ in range(2):  # only the second cast of a pair took the first one's result
        used = outputs.union(*map(inputs_of, graph.node))
        kept = [n for n in graph.node if n.op_type != "Cast" or used.intersection(n.output)]
        del graph.node[:]
        graph.node.extend(kept)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the optimizer's remarks on each weight that fp16 rounds, and on each fusion.

    Only those of this thread: what other threads log meanwhile is logged.
    """
    # Once and for good: warnings cannot be hidden for one thread.
    warnings.filterwarnings("ignore", module=r"(onnxruntime\.transformers\.)?float16")
    own = threading.get_ident()

    def by_others(record: logging.LogRecord) -> bool:
        return record.thread != own

    handlers = [one for one in (*logging.root.handlers, logging.lastResort) if one is not None]
    for handler in handlers:
        handler.addFilter(by_others)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(by_others)
