"""A model with int8 weights -> the same weights in fp32, made once, for a GPU or on request.

Dynamic quantisation computes x W as (x / s_x) (W / s_w) in integers, times s_x s_w, with s_x found
again for each batch (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
Here s_w (W - zero point) is computed once, and the product is one of floats. Weights stay as
coarse as they were; activations are no longer rounded, so a score differs from that of the int8
file as an fp32 file's does, and does not depend on the other pairs of a batch.

Some products may stay in integers, for their speed. Then each token is divided by its largest
number before, so that all use the whole range of a byte, and its product is multiplied by it.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qdrant_rerank.errors import MissingDependencyError, ModelFileError
from qdrant_rerank.hub.onnx_files import is_quantized
from qdrant_rerank.inference.conversion.artifact_cache import artifact
from qdrant_rerank.inference.conversion.graph import Graph, keep_needed, load_whole
from qdrant_rerank.inference.conversion.int8 import LARGE

__all__ = ["dequantized"]

logger = logging.getLogger(__name__)

FORMAT = 1  # of the files made here; another number makes another artifact
SMALLEST, SMALLEST_NAME = np.array(1e-6, np.float32), "least_divisor"  # of a token of zeros


@contextmanager
def dequantized(
    model: Path, data: Sequence[Path], cache: Path, *, kept: str | None = None
) -> Iterator[Path]:
    """Give the same model with its int8 weights in fp32, from the cache or made now.

    Args:
        model: an int8 ONNX file.
        data: its external data, in or below its folder.
        cache: directory to keep the other file in.
        kept: pattern of the names of products that stay in integers; None for none.

    Yields:
        The ONNX file, to be loaded inside the ``with`` block.

    Raises:
        MissingDependencyError: onnx is not installed, and the file is not in the cache.
        ModelFileError: it is quantised in another way than onnxruntime's dynamic quantisation, or
            there is no room.
    """

    def build(folder: Path) -> None:
        _dequantize(model, folder / "model.onnx", kept)

    options = {"format": FORMAT, "kept": kept}
    with artifact(cache, "dequantized", [model, *data], options, build) as folder:
        yield folder / "model.onnx"


def _dequantize(source: Path, target: Path, kept: str | None) -> None:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingDependencyError(
            f"{source} has int8 weights, and floats are asked for; making them, once, needs onnx: "
            'pip install "qdrant-rerank[gpu]", or on a CPU pip install "qdrant-rerank[cpu]".'
        ) from error
    logger.info("Making fp32 weights of the int8 weights of %s in %s.", source, target.parent)
    try:
        model = load_whole(source)
    except (OSError, ModelFileError):
        raise
    except Exception as error:  # protobuf's
        raise ModelFileError(f"{source} is not an ONNX file that can be read: {error}") from error
    graph = Graph(model.graph)
    made: dict[str, list[Any]] = {}  # by the first output of the node that they replace
    for node in graph.nodes:
        product = _product(graph, node) if node.op_type == "MatMulInteger" else None
        if product is None:
            continue
        weights, replacement = product
        if kept and re.search(kept, node.name):
            made |= _by_token(graph, node, replacement.output[0])
        else:
            made[replacement.output[0]] = [replacement]
            model.graph.initializer.append(weights)
    if kept:
        model.graph.initializer.append(numpy_helper.from_array(SMALLEST, SMALLEST_NAME))
    nodes = [one for node in graph.nodes for one in made.get(next(iter(node.output), ""), [node])]
    keep_needed(model.graph, nodes)
    large = sum(tensor.ByteSize() for tensor in model.graph.initializer) >= LARGE
    onnx.save(model, target, save_as_external_data=large, location="model.onnx_data")
    if kept is None and is_quantized(target):
        raise ModelFileError(
            f"{source} is quantised in a way that is not undone here (other operators than "
            "onnxruntime's dynamic quantisation makes). Take the model's fp32 or fp16 file for a "
            "GPU, or run this one on a CPU: device='cpu'."
        )


def _product(graph: Graph, node: Any) -> tuple[Any, Any] | None:
    """Return the weights, and the node that replaces a product of integers with its scaling.

    These are MatMulInteger -> Cast -> Mul(s_x s_w), after a DynamicQuantizeLinear.
    """
    from onnx import helper, numpy_helper

    quantizer = graph.maker(node.input[0], "DynamicQuantizeLinear")
    cast = graph.only_taker(node.output[0], "Cast")
    if quantizer is None or cast is None:
        return None
    scaled = graph.only_taker(cast.output[0], "Mul")
    if scaled is None:
        return None
    [scale_name] = [name for name in scaled.input if name != cast.output[0]]
    scale = graph.maker(scale_name, "Mul")
    if scale is None or quantizer.output[1] not in scale.input:
        return None
    [of_weights] = [name for name in scale.input if name != quantizer.output[1]]
    integers, factor = graph.constant(node.input[1]), graph.constant(of_weights)
    zero = graph.constant(node.input[3]) if len(node.input) > 3 else np.zeros((), np.int32)
    if integers is None or factor is None or zero is None:
        return None
    floats = (integers.astype(np.float32) - zero.astype(np.float32)) * factor
    weights = numpy_helper.from_array(floats.astype(np.float32), f"{scaled.output[0]}_weights")
    product = helper.make_node(
        "MatMul", [quantizer.input[0], weights.name], list(scaled.output), scaled.name
    )
    return weights, product


def _by_token(graph: Graph, node: Any, result: str) -> dict[str, list[Any]]:
    """Return what replaces the quantizer of a product, and the node that makes its result."""
    from onnx import helper

    quantizer = graph.maker(node.input[0], "DynamicQuantizeLinear")
    scaled = graph.maker(result, "Mul")
    assert quantizer is not None
    assert scaled is not None
    [states], own = quantizer.input, f"{quantizer.name}_token_"
    names = [f"{own}{name}" for name in ("sizes", "largest", "divisor", "divided")]
    sizes, largest, divisor, divided = names
    nodes = [
        helper.make_node("Abs", [states], [sizes], sizes),
        helper.make_node("ReduceMax", [sizes], [largest], largest, axes=[-1]),
        helper.make_node("Max", [largest, SMALLEST_NAME], [divisor], divisor),
        helper.make_node("Div", [states, divisor], [divided], divided),
        helper.make_node(
            "DynamicQuantizeLinear", [divided], list(quantizer.output), quantizer.name
        ),
    ]
    small = f"{result}_small"
    product = helper.make_node("Mul", list(scaled.input), [small], scaled.name)
    back = helper.make_node("Mul", [small, divisor], [result], f"{scaled.name}_token")
    return {quantizer.output[0]: nodes, result: [product, back]}
