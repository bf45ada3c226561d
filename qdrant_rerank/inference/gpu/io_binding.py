"""An onnxruntime session on a GPU, whose inputs and output are bound.

https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html. On a CPU the same calls
work.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoundSession"]

SHRINKAGE = "memory.enable_memory_arena_shrinkage"  # of RunOptions
SILENT = 4  # of RunOptions: failures arrive as exceptions, and some are expected


class BoundSession:
    """One session, one batch at a time: callers take turns, as ``GpuPool`` makes them.

    Args:
        ort: onnxruntime.
        session: its ``InferenceSession``.
        output: name of the output to return.
        arena: where the session's memory is, in onnxruntime's words: "gpu:0" or "cpu:0".
    """

    def __init__(self, ort: ModuleType, session: Any, output: str, arena: str = "gpu:0") -> None:
        self._session = session
        self._output = output
        self._plain, self._shrinking = ort.RunOptions(), ort.RunOptions()
        for options in (self._plain, self._shrinking):
            options.log_severity_level = SILENT
        self._shrinking.add_run_config_entry(SHRINKAGE, arena)

    def run(self, inputs: Mapping[str, NDArray[Any]], *, shrink: bool = False) -> NDArray[Any]:
        """Return the output of one batch, in the host's memory.

        Args:
            inputs: every input, of the types that the model declares.
            shrink: whether to return unused memory to the GPU afterwards.

        Raises:
            Exception: onnxruntime's own.
        """
        binding = self._session.io_binding()
        arrays = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding, self._shrinking if shrink else self._plain)
        found: NDArray[Any] = binding.copy_outputs_to_cpu()[0]
        return found
