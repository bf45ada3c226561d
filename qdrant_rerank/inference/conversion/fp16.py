"""An fp32 graph -> fp16, inputs and outputs and what follows the last normalisation kept in fp32.

The layers before it take the time; what comes after, a pooler and a classifier or the scalars of a
head, takes almost none, but whatever is rounded there stays in the score. Of the bundled model the
largest error of a logit is halved so: benchmarks/README.md.

https://onnxruntime.ai/docs/performance/model-optimizations/float16.html
"""

import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from qdrant_rerank.errors import MissingDependencyError, ModelFileError
from qdrant_rerank.inference.conversion.graph import Graph, inputs_of, load_whole, tensors_of
from qdrant_rerank.inference.gpu.devices import INSTALL_GPU

__all__ = ["halve", "join_casts", "kept_operators", "name_head", "quiet", "widen"]

FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto's; onnx is imported on use
CAST_AFTER = "_cast_to_fp16_node"  # the converter's name for the cast after a node left in fp32
# Ends of the names of what each layer ends with; exporters spelt it out before opset 17.
NORMALIZATIONS = ("LayerNormalization", "ReduceMean")
# Weights of a product that takes time even once a pair; a language model's vocabulary has more.
LARGEST_HEAD = 1 << 22


def halve(model: Path, target: Path, room: Path, *, large: bool) -> None:
    """Write a model in fp16.

    Args:
        model: an fp32 ONNX file.
        target: the file to write, in a folder of its own.
        room: an empty folder, for what is in between.
        large: whether its weights are more than protobuf holds.

    Raises:
        MissingDependencyError: onnx is not installed.
        ModelFileError: it cannot be converted.
    """
    float16 = _import_float16(model)
    import onnx

    try:
        with quiet():
            source = load_whole(model)
            if any(tensor.data_type == FLOAT16 for tensor in source.graph.initializer):
                raise ValueError("it is fp16 already, which model_fp16.onnx would be the name for")
            head = name_head(source.graph)
            if large:  # too large to be inferred in memory: from a file, with its data beside it
                path = room / "source.onnx"
                onnx.save(source, path, save_as_external_data=True, location="source.data")
                source = str(path)
            half = float16.convert_float_to_float16(
                source, keep_io_types=True, op_block_list=kept_operators(), node_block_list=head
            )
            join_casts(half.graph)
    except (OSError, ModelFileError):
        raise
    except Exception as error:  # of protobuf, onnx or the converter
        raise ModelFileError(
            f"{model} cannot be converted to fp16: {error}. Use precision='auto'."
        ) from error
    onnx.save(half, target, save_as_external_data=large, location="model.onnx_data")


def kept_operators() -> list[str]:
    """Kinds of operators that stay in fp32: the converter's, and one whose scales have to."""
    from onnxruntime.transformers import float16

    return [*float16.DEFAULT_OP_BLOCK_LIST, "DequantizeLinear"]


def widen(model: Path, target: Path) -> None:
    """Write an fp16 model in fp32, with the same weights, inputs and outputs in fp32 too.

    Args:
        model: an fp16 ONNX file, or one that is fp16 in part.
        target: the file to write; its data comes beside it.
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


def name_head(graph: Any) -> list[str]:
    """Names of the nodes that nothing normalises after, given to those that have none.

    Args:
        graph: an ``onnx.GraphProto``.

    Returns:
        Those of the head, without products with more than 4 million weights; none where nothing is
        normalised at all.
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
    """Let fp32 nodes read each other's results without rounding them to fp16 in between.

    Args:
        graph: an ``onnx.GraphProto`` as onnxruntime's converter leaves it, of which a node that
            stays in fp32 has a cast before and after.
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
    for _ in range(2):  # the second cast of a pair was all that took the first one's result
        used = outputs.union(*map(inputs_of, graph.node))
        kept = [n for n in graph.node if n.op_type != "Cast" or used.intersection(n.output)]
        del graph.node[:]
        graph.node.extend(kept)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the optimizer's remarks on each weight that fp16 rounds, and each fusion.

    Those of this thread alone: what others log meanwhile is logged.
    """
    # Once and for good: warnings cannot be set aside for one thread.
    warnings.filterwarnings("ignore", module=r"(onnxruntime\.transformers\.)?float16")
    own = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != own

    handlers = [one for one in (*logging.root.handlers, logging.lastResort) if one is not None]
    for handler in handlers:
        handler.addFilter(of_others)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(of_others)


def _import_float16(model: Path) -> ModuleType:
    try:
        import onnx  # noqa: F401
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise MissingDependencyError(
            f"precision='fp16' of {model} means to convert it, since it has no fp16 file, which "
            f'needs onnx: {INSTALL_GPU}, or on a CPU pip install "qdrant-rerank[quantize]".'
        ) from error
    module: ModuleType = float16
    return module
