"""What this CPU can do: the matrix products of a BERT's weights, and nothing else.

For each pair one run of a graph that is a chain of products of the model's shapes: of a layer Q, K,
V and the output (each width x width), up and down. Each has weights of its own, so that as much is
read from memory as by the model. One thread a core, each with runs of one intra-op thread, longest
pairs first. ONNX Runtime's products, since on an AVX-512 CPU with AMX they were the fastest of what
was at hand, billions of operations a second on one core: fp32 195 (torch's MKL 188, numpy's
OpenBLAS 148), int8 991.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Limit"]

OPSET = 17
IR_VERSION = 8
SCALE = 0.02  # of every tensor, in the int8 graph


class Limit:
    """The products of one model in one precision.

    Args:
        folder: of the model; its ``config.json`` has the shapes.
        precision: "fp32" (MatMul) or "int8" (QLinearMatMul, unsigned activations, signed weights).
        attention: of fp32, also the two products of each layer's attention.
        threads: runs at once, one core each.
    """

    packages: tuple[str, ...] = ("onnxruntime",)

    def __init__(
        self, folder: Path, precision: str, threads: int, *, attention: bool = False
    ) -> None:
        import onnxruntime as ort

        config = json.loads((folder / "config.json").read_text())
        self.heads = int(config["num_attention_heads"])
        self.width = int(config["hidden_size"])
        shapes = [
            *[(self.width, self.width)] * 4,
            (self.width, int(config["intermediate_size"])),
            (int(config["intermediate_size"]), self.width),
        ] * int(config["num_hidden_layers"])
        self.dtype = np.uint8 if precision == "int8" else np.float32
        graphs = [_int8_chain(shapes) if precision == "int8" else _fp32_chain(shapes)]
        if attention:
            graphs.append(_attention(int(config["num_hidden_layers"]), self.width // self.heads))
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.sessions = [
            ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for graph in graphs
        ]
        self.ort = ort
        self.pool = ThreadPoolExecutor(threads)

    def run(self, lengths: Sequence[int]) -> None:
        """Do the products of pairs of so many tokens."""
        list(self.pool.map(self._pair, sorted(lengths, reverse=True)))

    def _pair(self, length: int) -> None:
        value = self.ort.OrtValue.ortvalue_from_numpy
        weights, *attention = self.sessions
        states = np.ones((length, self.width), dtype=self.dtype)
        # OrtValues: the result is not copied to numpy.
        weights.run_with_ort_values(["y"], {"x": value(states)})
        for session in attention:
            head = np.full((self.heads, length, self.width // self.heads), 1 / length, np.float32)
            feed = {"q": value(head), "k": value(head.transpose(0, 2, 1).copy()), "v": value(head)}
            session.run_with_ort_values(["y"], feed)


def _fp32_chain(shapes: Sequence[tuple[int, int]]) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for row, shape in enumerate(shapes):
        weight = rng.standard_normal(shape, dtype=np.float32) / np.float32(shape[0] ** 0.5)
        weights.append(numpy_helper.from_array(weight, f"w{row}"))
        nodes.append(helper.make_node("MatMul", [f"x{row}", f"w{row}"], [f"x{row + 1}"]))
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    return _model(nodes, weights, {"x": ["n", shapes[0][0]]}, TensorProto.FLOAT)


def _int8_chain(shapes: Sequence[tuple[int, int]]) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes = []
    weights = [
        numpy_helper.from_array(np.array(SCALE, np.float32), "scale"),
        numpy_helper.from_array(np.array(128, np.uint8), "zero_x"),
        numpy_helper.from_array(np.array(0, np.int8), "zero_w"),
    ]
    for row, shape in enumerate(shapes):
        weight = rng.integers(-127, 128, shape, dtype=np.int8)
        weights.append(numpy_helper.from_array(weight, f"w{row}"))
        inputs = [f"x{row}", "scale", "zero_x", f"w{row}", "scale", "zero_w", "scale", "zero_x"]
        nodes.append(helper.make_node("QLinearMatMul", inputs, [f"x{row + 1}"]))
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    return _model(nodes, weights, {"x": ["n", shapes[0][0]]}, TensorProto.UINT8)


def _attention(layers: int, head: int) -> bytes:
    from onnx import TensorProto, helper

    nodes = []
    for row in range(layers):
        nodes.append(helper.make_node("MatMul", [f"x{row}", "k"], [f"a{row}"]))
        nodes.append(helper.make_node("MatMul", [f"a{row}", "v"], [f"x{row + 1}"]))
    nodes[0].input[0], nodes[-1].output[0] = "q", "y"
    inputs: dict[str, list[str | int]] = {
        "q": ["heads", "n", head],
        "k": ["heads", head, "n"],
        "v": ["heads", "n", head],
    }
    return _model(nodes, [], inputs, TensorProto.FLOAT)


def _model(
    nodes: list[Any], weights: list[Any], inputs: dict[str, list[str | int]], kind: int
) -> bytes:
    from onnx import helper

    graph = helper.make_graph(
        nodes,
        "limit",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", kind, None)],
        weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    made: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION
    ).SerializeToString()
    return made
