"""The bundled models give the same scores on every CPU, with VNNI and without."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from qdrant_rerank.hub.locate import locate
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.inference.batching import pad
from qdrant_rerank.inference.sessions import EXACT_INT8
from qdrant_rerank.inference.tokenization import PairTokenizer

BUNDLED = [DEFAULT_RERANKER, "grown-e5-small-cross-v1", "grown-e5-small-l6-v1"]
# Without VNNI, two products of an activation (0 to 255) and a weight are added in 16 bits.
LARGEST = (2**15 - 1) // (2 * 255)
PAIRS = [
    ("who wrote it?", "She wrote it."),
    ("how hot must it be for iron to melt", "Iron melts at 1538 degrees. " * 12),
    ("", "🙂 Größe"),
]


@pytest.mark.parametrize("name", BUNDLED)
def test_no_sum_of_two_products_overflows_16_bits(name):
    """Weights have seven bits and are symmetric, in all products of integers."""
    graph = onnx.load(locate(name).model).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(products) > 15
    for node in products:
        weights = numpy_helper.to_array(tensors[node.input[1]])
        assert weights.dtype == np.int8
        assert len(node.input) == 3  # no zero point: it is 0
        assert np.abs(weights.astype(np.int16)).max() <= LARGEST == 64


@pytest.mark.parametrize("name", BUNDLED)
def test_the_scores_are_those_of_kernels_that_cannot_overflow(name):
    """The switch that is set on CPUs without VNNI changes no bit of a score."""
    files = locate(name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    usual = onnxruntime.InferenceSession(files.model, options)
    options.add_session_config_entry(*EXACT_INT8)
    exact = onnxruntime.InferenceSession(files.model, options)
    for pair in PairTokenizer.from_directory(files.tokenizer)(PAIRS):
        ids, mask, types = pad([pair], pad_id=0, pad_type_id=0, side="right")
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        assert np.array_equal(*(each.run(["logits"], inputs)[0] for each in (usual, exact)))
