"""OpenVINO with the methods of an onnxruntime session.

The only module that imports openvino, and only if the plan says so. OpenVINO makes new kernels for
each shape, so batches should be padded to few widths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import MissingDependencyError, ModelFileError
from qdrant_rerank.hub.precision import RunPrecision

__all__ = ["INSTALL_OPENVINO", "WIDTH_MULTIPLE", "OpenVinoSession"]

INSTALL_OPENVINO = (
    "engine='openvino' needs OpenVINO, which is not installed: "
    'pip install "qdrant-rerank[cpu,openvino]".'
)
# Widths that are multiples of this reuse kernels: 143 pairs/s, and 137 without.
WIDTH_MULTIPLE = 16
# OpenVINO's element types -> onnxruntime's names for them.
TYPES = {"i64": "int64", "i32": "int32", "f32": "float", "f16": "float16"}
# Arithmetic inside the model. OpenVINO's own choice is bf16 on every CPU that has it.
HINTS: dict[RunPrecision, str] = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class Node:
    """An input or output: name, type and shape, as onnxruntime describes them."""

    name: str
    type: str
    shape: Sequence[int | None]


class OpenVinoSession:
    """A compiled ONNX file. Safe to use from as many threads as it has streams.

    Args:
        path: the ``.onnx`` file, not quantised.
        precision: of its arithmetic, "fp32" or "bf16".
        streams: batches at the same time, each on one core.

    Raises:
        MissingDependencyError: openvino is not installed.
        ModelFileError: OpenVINO cannot read or compile the file.
    """

    def __init__(self, path: Path, *, precision: RunPrecision, streams: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingDependencyError(INSTALL_OPENVINO) from error
        try:
            core = openvino.Core()
            model = core.read_model(path)
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": HINTS[precision],
                    "NUM_STREAMS": streams,
                    "INFERENCE_NUM_THREADS": streams,
                    # Other work of the process, and other processes, need the cores as well.
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except Exception as error:  # RuntimeError, or whatever its frontend raises
            raise ModelFileError(
                f"OpenVINO {openvino.__version__} cannot load {path}: {error}. Pass "
                "engine='onnxruntime'."
            ) from error
        self._inputs = [_node(port) for port in compiled.inputs]
        self._outputs = {node.name: n for n, node in enumerate(map(_node, compiled.outputs))}
        self._provider = f"OpenVINO {precision}"
        self._free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._free.put(compiled.create_infer_request())

    def run(
        self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """Return the arrays of these outputs. Waits while all streams are busy."""
        request = self._free.get()
        try:
            request.infer(dict(inputs), share_inputs=True)
            # A copy: the next batch of the request writes to the same memory.
            return [
                np.array(request.get_output_tensor(self._outputs[name]).data) for name in outputs
            ]
        finally:
            self._free.put(request)

    def get_inputs(self) -> list[Node]:
        """Return the inputs of the file."""
        return self._inputs

    def get_outputs(self) -> list[Node]:
        """Return the outputs of the file, by name."""
        return [Node(name, "", ()) for name in self._outputs]

    def get_providers(self) -> list[str]:
        """Return the name and the precision of its arithmetic."""
        return [self._provider]


def _node(port: Any) -> Node:
    shape = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    kind = port.get_element_type().get_type_name()
    return Node(port.get_any_name(), f"tensor({TYPES.get(kind, kind)})", shape)
