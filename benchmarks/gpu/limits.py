"""The limit of a GPU: the fp16 matrix products of a BERT's weights, and nothing else."""

import json
from pathlib import Path

import numpy as np

__all__ = ["GpuLimit", "flops_a_token"]

TOKENS = 32_768  # of a product, at most: enough to fill any GPU
OPSET = 17
IR_VERSION = 8


def shapes(folder: Path) -> list[tuple[int, int]]:
    """Of a model's weights: of a layer Q, K, V and the output, up and down."""
    config = json.loads((folder / "config.json").read_text())
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    layer = [*[(width, width)] * 4, (width, inner), (inner, width)]
    return layer * int(config["num_hidden_layers"])


def flops_a_token(folder: Path) -> int:
    """Operations of these products for one token, a product and a sum being two."""
    return sum(2 * rows * columns for rows, columns in shapes(folder))


class GpuLimit:
    """A chain of products, its weights and its input on the GPU.

    Args:
        folder: of the model; its ``config.json`` has the shapes.
        device: "cuda", or "cpu" to try it.
    """

    def __init__(self, folder: Path, device: str) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        if device == "cuda":
            ort.preload_dlls()
        found = shapes(folder)
        self.session = ort.InferenceSession(_chain(found), options, providers=[provider])
        if self.session.get_providers()[0] != provider:
            raise RuntimeError(f"it runs on {self.session.get_providers()[0]}")
        self.device, self.width = device, found[0][0]
        # Random numbers, since a GPU clocks higher on zeros; on the GPU before anything is timed.
        states = np.random.default_rng(0).standard_normal((TOKENS, self.width), dtype=np.float32)
        self.states = ort.OrtValue.ortvalue_from_numpy(states.astype(np.float16), device, 0)

    def run(self, tokens: int) -> None:
        """Products for so many tokens; input and results stay on the GPU."""
        for start in range(0, tokens, TOKENS):
            shape = (min(TOKENS, tokens - start), self.width)
            binding = self.session.io_binding()
            place = self.states.data_ptr()
            binding.bind_input("x", self.device, 0, np.float16, shape, place)
            binding.bind_output("y", self.device)
            self.session.run_with_iobinding(binding)


def _chain(found: list[tuple[int, int]]) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for row, (rows, columns) in enumerate(found):
        weight = rng.standard_normal((rows, columns), dtype=np.float32) / rows**0.5
        weights.append(numpy_helper.from_array(weight.astype(np.float16), f"w{row}"))
        nodes.append(helper.make_node("MatMul", [f"x{row}", f"w{row}"], [f"x{row + 1}"]))
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    kind = TensorProto.FLOAT16
    graph = helper.make_graph(
        nodes,
        "limit",
        [helper.make_tensor_value_info("x", kind, ["n", found[0][0]])],
        [helper.make_tensor_value_info("y", kind, ["n", found[-1][1]])],
        weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    made: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION
    ).SerializeToString()
    return made
