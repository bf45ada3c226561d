"""The bundled graphs are simpler than the exporter's, and give the same scores to the bit."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from qdrant_rerank import DEFAULT_RERANKER
from qdrant_rerank.hub.locate import locate
from qdrant_rerank.hub.onnx_files import external_files
from qdrant_rerank.inference.conversion.graph import Graph

BUNDLED = [DEFAULT_RERANKER, "grown-e5-small-cross-v1", "grown-e5-small-l6-v1"]
TRAINING = Path(__file__).parents[3] / "training"
LENGTHS = ((3, 2), (8, 40), (12, 124), (60, 340))  # tokens of query and document


def simplify(path):
    """What ``training/simplify.py`` does to a file."""
    subprocess.run([sys.executable, TRAINING / "simplify.py", path], check=True)


def write_as_exported(source, target):
    """A graph with a zero point per column, and sizes of heads computed by each attention."""
    model = onnx.load(source, load_external_data=False)
    graph = Graph(model.graph)
    columns = {tensor.name: tensor.dims[-1:] for tensor in model.graph.initializer}
    constants = {"first": [0], "third": [2], "heads": [12, 32], "width": [384]}
    nodes, added = [], [numpy_helper.from_array(np.array(v), k) for k, v in constants.items()]
    for node in graph.nodes:
        if node.op_type == "MatMulInteger":
            node.input.append(f"{node.input[1]}_zero")
            zeros = np.zeros(columns[node.input[1]], dtype=np.int8)
            added.append(numpy_helper.from_array(zeros, node.input[3]))
        if node.op_type == "Reshape" and node.input[1].startswith("/sizes"):
            sizes = ["heads" if "12" in node.input[1] else "width"]
            shape, start, whole = (f"{node.name}_{kind}" for kind in ("shape", "start", "whole"))
            nodes += [
                helper.make_node("Shape", [node.input[0]], [shape], shape),
                helper.make_node("Slice", [shape, "first", "third"], [start], start),
                helper.make_node("Concat", [start, *sizes], [whole], whole, axis=0),
            ]
            node.input[1] = whole
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(added)
    onnx.save(model, target)


@pytest.fixture(params=BUNDLED)
def files(request, tmp_path):
    """A bundled graph, and the same as exported; the weights are beside both."""
    bundled = locate(request.param).model
    for path in external_files(bundled):
        shutil.copy(path, tmp_path)
    write_as_exported(bundled, tmp_path / "model.onnx")
    return bundled, tmp_path / "model.onnx"


def logits(path):
    """Of pairs of several lengths."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    found = []
    for asked, read in LENGTHS:
        shape = (1, asked + read)
        ids = np.random.default_rng(read).integers(1000, 20000, shape, dtype=np.int64)
        types = (np.arange(asked + read)[None] >= asked).astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
        found.append(session.run(["logits"], inputs)[0])
    return np.concatenate(found)


def test_no_bit_of_a_score_changes(files):
    """As exported and as bundled."""
    bundled, exported = files
    before = logits(exported)
    assert np.array_equal(before, logits(bundled))
    simplify(exported)
    assert np.array_equal(before, logits(exported))


def test_what_costs_time_is_gone(files):
    """Zero points, and what computes sizes."""
    bundled, exported = files
    simplify(exported)
    made, shipped = (
        onnx.load(path, load_external_data=False).graph for path in (exported, bundled)
    )
    kinds, expected = ([node.op_type for node in graph.node] for graph in (made, shipped))
    assert kinds == expected
    assert all(len(node.input) == 3 for node in made.node if node.op_type == "MatMulInteger")


def test_a_simple_graph_stays_as_it_is(files, tmp_path):
    """To the byte."""
    bundled, other = files
    shutil.copy(bundled, other)
    simplify(other)
    assert other.read_bytes() == bundled.read_bytes()
