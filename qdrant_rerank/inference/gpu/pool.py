"""The sessions of one model, one per GPU: the GPU that is free first takes the next batch.

On a GPU a batch is one tensor of up to ``DEFAULT_TOKENS`` padded tokens. If the GPU has no memory
for a batch, the batch is tried again after the arena has returned unused memory. Then it is halved
until it fits, and later batches are smaller, too. A single pair that does not fit runs on the CPU.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DEFAULT_TOKENS",
    "LEAST_TOKENS",
    "WIDTH_MULTIPLE",
    "BoundSession",
    "GpuPool",
    "PoolOutput",
    "is_out_of_memory",
]

logger = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]

# Padded tokens of a batch: keeps a large GPU busy, within 2 GB for 12 layers of 768. Not measured
# per GPU; a batch that does not fit lowers it.
DEFAULT_TOKENS = 16_384
# At least one pair of a usual length: below it, a batch is short of pairs, not of memory.
LEAST_TOKENS = 512
# A smaller batch that fails says nothing of the budget: others use the memory at that moment.
TELLING_TOKENS = 4_096
# Padded widths are multiples of this: matrix products of fp16 want eights, and few shapes are few
# plans for the libraries to make. At 182 tokens per pair it costs 4 %, less if pairs are sorted.
WIDTH_MULTIPLE = 16
# Batches that are prepared per GPU: one is padded and copied while another computes.
BATCHES_PER_GPU = 2
SHRINKAGE = "memory.enable_memory_arena_shrinkage"  # of RunOptions
SILENT = 4  # of RunOptions: failures arrive as exceptions, and some are expected
# What onnxruntime's arena, CUDA and cuBLAS say when memory is short.
OUT_OF_MEMORY = (
    "Failed to allocate memory",
    "Available memory of",
    "out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "Failed to find a free memory block",
    "ALLOC_FAILED",  # of cuBLAS and cuDNN
    "DEVICE_ALLOCATION_FAILED",
    "resource allocation failed",
    # What their handles say on a GPU that is full.
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "bad allocation",
    "std::bad_alloc",
)


class BoundSession:
    """An onnxruntime session whose inputs and output are bound; it runs one batch at a time.

    https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html. On a CPU the same calls
    work.

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

    def run(self, inputs: Arrays, *, shrink: bool = False) -> NDArray[Any]:
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


@dataclass(frozen=True, slots=True)
class PoolOutput:
    """The output of a batch.

    Attributes:
        array: shape (rows, ...).
        on_cpu: rows that did not fit the GPU and ran on a CPU.
    """

    array: NDArray[Any]
    on_cpu: int = 0


class GpuPool:
    """Sessions of one model on one or several GPUs. Safe to use from many threads.

    Args:
        sessions: one per GPU.
        open_fallback: opens the same model on the CPU, when it is first needed, and returns what
            runs it: inputs -> the one output.

    Attributes:
        workers: threads that keep all GPUs busy.
        tokens_per_batch: padded tokens that a batch should hold.
    """

    def __init__(
        self,
        sessions: Sequence[BoundSession],
        *,
        open_fallback: Callable[[], Callable[[Arrays], NDArray[Any]]],
    ) -> None:
        self.workers = BATCHES_PER_GPU * len(sessions)
        self.tokens_per_batch = DEFAULT_TOKENS
        self._free: SimpleQueue[BoundSession] = SimpleQueue()
        for session in sessions:
            self._free.put(session)
        self._open_fallback = open_fallback
        self._fallback: Callable[[Arrays], NDArray[Any]] | None = None
        self._lock = threading.Lock()
        # Width of the narrowest pair that did not fit alone; such pairs do not try again.
        self._too_wide: int | None = None

    def run(self, inputs: Arrays) -> PoolOutput:
        """Run a batch on the GPU that is free first, in parts if it does not fit.

        Args:
            inputs: arrays whose first dimension is pairs, ``input_ids`` among them.

        Raises:
            Exception: onnxruntime's own, of anything but a lack of memory.
        """
        rows, width = inputs["input_ids"].shape
        if rows == 1 and self._too_wide is not None and width >= self._too_wide:
            return PoolOutput(self._on_cpu(inputs), 1)
        output = self._on_gpu(inputs)
        if output is not None:
            return PoolOutput(output)
        if rows == 1:
            with self._lock:
                self._too_wide = min(width, self._too_wide or width)
            return PoolOutput(self._on_cpu(inputs), 1)
        self._lower_budget(rows, width)
        parts = [self.run(part) for part in _halves(inputs)]
        return PoolOutput(
            np.concatenate([part.array for part in parts]), sum(part.on_cpu for part in parts)
        )

    def _on_gpu(self, inputs: Arrays) -> NDArray[Any] | None:
        """Return the output, of a second try if memory was short; None if it is short again."""
        session = self._free.get()
        try:
            for again in (False, True):
                if again:
                    with suppress(Exception):  # no room for a single row either, or no arena
                        session.run(_rows(inputs, slice(1)), shrink=True)
                try:
                    return session.run(inputs)
                except Exception as error:  # onnxruntime's errors share no base
                    if not is_out_of_memory(error):
                        raise
            return None
        finally:
            self._free.put(session)

    def _lower_budget(self, rows: int, width: int) -> None:
        """Lower the budget to half of a batch that did not fit."""
        size = rows * width
        with self._lock:
            before = self.tokens_per_batch
            tokens = max(LEAST_TOKENS, size // 2)
            # The other half of a batch has said the same, or the batch was a small one.
            if tokens >= before or (size < TELLING_TOKENS and size <= before // 2):
                return
            self.tokens_per_batch = tokens
        logger.warning(
            "A batch of %d pairs of %d tokens did not fit the GPU's memory; batches hold %d tokens "
            "from now on.",
            rows,
            width,
            tokens,
        )

    def _on_cpu(self, inputs: Arrays) -> NDArray[Any]:
        with self._lock:
            if self._fallback is None:
                self._fallback = self._open_fallback()
        return self._fallback(inputs)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether onnxruntime failed because memory was short."""
    return any(text in str(error) for text in OUT_OF_MEMORY)


def _rows(inputs: Arrays, at: slice) -> Arrays:
    """Some of the pairs; an array that is not per pair, such as a number of logits, stays whole."""
    rows = len(inputs["input_ids"])
    return {
        name: array[at] if array.ndim > 1 and len(array) == rows else array
        for name, array in inputs.items()
    }


def _halves(inputs: Arrays) -> tuple[Arrays, Arrays]:
    """The first and the last rows, each without the columns that are padding in all of them."""
    middle = len(inputs["input_ids"]) // 2

    def part(at: slice) -> Arrays:
        half = _rows(inputs, at)
        if "attention_mask" not in half:
            return half
        kept = half["attention_mask"].any(axis=0)
        shape = half["input_ids"].shape
        return {
            name: array[:, kept] if array.shape == shape else array for name, array in half.items()
        }

    return part(slice(None, middle)), part(slice(middle, None))
