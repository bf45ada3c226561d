"""Sessions of onnxruntime: int8 sums are exact on every CPU; the memory arena is a choice."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.inference.gpu.devices import CPU
from qdrant_rerank.inference.sessions import (
    import_onnxruntime,
    open_plain_session,
    open_session,
)

WIDTH = 96  # of a sum; pairs of products of 255 and 127 do not fit 16 bits


def product(path, weights, zero):
    """A file that multiplies uint8 numbers by constant weights, less a zero point per column."""
    nodes = [helper.make_node("MatMulInteger", ["numbers", "weights", "", "zero"], ["sums"])]
    if zero is None:
        nodes = [helper.make_node("MatMulInteger", ["numbers", "weights"], ["sums"])]
    constants = {"weights": weights} | ({} if zero is None else {"zero": zero})
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("numbers", TensorProto.UINT8, ["n", WIDTH])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, ["n", weights.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("zeros", [False, True])
def test_sums_that_do_not_fit_16_bits_are_exact(kind, zeros, tmp_path):
    """As numpy's integers, with the largest weights, the smallest ones and any between."""
    draw = np.random.default_rng(0)
    bounds = np.iinfo(kind)
    weights = draw.integers(bounds.min, bounds.max + 1, (WIDTH, 20)).astype(kind)
    weights[:, 0], weights[:, 1] = bounds.max, bounds.min
    zero = draw.integers(bounds.min, bounds.max + 1, 20).astype(kind) if zeros else None
    numbers = draw.integers(0, 256, (5, WIDTH)).astype(np.uint8)
    numbers[0], numbers[1] = 255, 0
    path = product(tmp_path / "product.onnx", weights, zero)
    expected = numbers.astype(np.int64) @ (weights.astype(np.int64) - (0 if zero is None else zero))
    assert np.abs(expected).max() > 1 << 15
    ort = import_onnxruntime()
    for session in (open_session(ort, path, [CPU]), open_plain_session(ort, path)):
        np.testing.assert_array_equal(session.run(None, {"numbers": numbers})[0], expected)


@pytest.mark.parametrize("options", [{}, {"enable_cpu_mem_arena": False}])
def test_every_session_has_the_arena_that_was_asked_for(tiny_bert, options):
    """The one on one core, and the one on several for a long pair; on by default."""
    encoder = TextCrossEncoder(tiny_bert, threads=2, **options)
    runtime = encoder._model.scorer().runtime
    for session in (runtime._session, runtime._spread()):
        found = session.get_session_options()
        assert found.enable_cpu_mem_arena == options.get("enable_cpu_mem_arena", True)
