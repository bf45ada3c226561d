"""OpenVINO behind the calls of an onnxruntime session.

The only module that imports openvino, and only where the engine is asked for and installed. Its
kernels are made anew for each shape, so runs should be padded to few widths.
"""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError, ModelFileError
from qdrant_rerank.hub.onnx_files import is_quantized
from qdrant_rerank.hub.precision import RunPrecision

__all__ = ["WIDTH_MULTIPLE", "OpenVinoSession", "is_installed", "open_session"]

logger = logging.getLogger(__name__)

NAME = "OpenVINO"
# Widths that are multiples of this have kernels to reuse: 143 pairs/s, and 137 without.
WIDTH_MULTIPLE = 16
# OpenVINO's element types, in onnxruntime's words.
TYPES = {"i64": "int64", "i32": "int32", "f32": "float", "f16": "float16"}
# Arithmetic inside the model. OpenVINO's own choice would be bf16 wherever the CPU has it.
HINTS = {"fp32": "f32", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class Node:
    """An input or output: its name, type and shape, as onnxruntime describes them."""

    name: str
    type: str
    shape: Sequence[int | None]


class OpenVinoSession:
    """An ONNX file, compiled. Safe to use from as many threads as it has streams.

    Args:
        path: the ``.onnx`` file, not quantised.
        precision: of its arithmetic.
        streams: runs at once, on one core each.

    Raises:
        MissingDependencyError: openvino is not installed.
        ModelFileError: OpenVINO cannot read or compile the file.
    """

    def __init__(self, path: Path, *, precision: Literal["fp32", "bf16"], streams: int) -> None:
        openvino = _import_openvino()
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
        self._provider = f"{NAME} {precision}"
        self._free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._free.put(compiled.create_infer_request())

    def run(
        self, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        """The arrays of these outputs; waits where all streams are at work."""
        request = self._free.get()
        try:
            request.infer(dict(feed), share_inputs=True)
            # A copy: the next run of the request writes to the same memory.
            return [
                np.array(request.get_output_tensor(self._outputs[name]).data) for name in outputs
            ]
        finally:
            self._free.put(request)

    def get_inputs(self) -> list[Node]:
        """What it is fed."""
        return self._inputs

    def get_outputs(self) -> list[Node]:
        """What it returns."""
        return [Node(name, "", ()) for name in self._outputs]

    def get_providers(self) -> list[str]:
        """Its name and the precision of its arithmetic."""
        return [self._provider]


def open_session(
    path: Path,
    precision: RunPrecision,
    streams: int,
    *,
    required: bool,
    provider_asked_for: bool = False,
) -> OpenVinoSession | None:
    """A session, or None where it is not required and would change scores or fail.

    Args:
        path: the ``.onnx`` file.
        precision: "auto" is fp32.
        streams: runs at once.
        required: an error where there can be none.
        provider_asked_for: whether one of onnxruntime's is.

    Raises:
        InvalidInputError: it is required, and does not do what is asked.
        MissingDependencyError: it is required, and openvino is not installed.
        ModelFileError: it is required, and OpenVINO cannot load the file.
    """
    refused = None
    if provider_asked_for:
        refused = "providers, device_ids and cuda=True are onnxruntime's; leave them out"
    elif is_quantized(path):
        refused = (
            f"{path} is quantised, which OpenVINO computes otherwise, so that scores would differ; "
            "pass the fp32 file"
        )
    elif precision not in {"auto", "fp32", "bf16"}:
        refused = f"precision is {precision!r}; with OpenVINO it is fp32 or bf16"
    if refused:
        if required:
            raise InvalidInputError(
                f"engine is 'openvino', but {refused}. Or engine='onnxruntime'."
            )
        return None
    arithmetic: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" else "fp32"
    try:
        return OpenVinoSession(path, precision=arithmetic, streams=streams)
    except ModelFileError as error:
        if required:
            raise
        logger.info("onnxruntime runs the model: %s", error)
        return None


def is_installed() -> bool:
    """Whether openvino can be imported; does not import it."""
    return importlib.util.find_spec("openvino") is not None


def _import_openvino() -> ModuleType:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            "engine='openvino' needs OpenVINO, which is not installed: "
            'pip install "qdrant-rerank[cpu,openvino]".'
        ) from error
    module: ModuleType = openvino
    return module


def _node(port: Any) -> Node:
    shape = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    kind = port.get_element_type().get_type_name()
    return Node(port.get_any_name(), f"tensor({TYPES.get(kind, kind)})", shape)
