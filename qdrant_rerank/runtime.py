"""ONNX sessions: which device, and how many runs at once.

The only module that imports onnxruntime, and it does so on first use.

On a CPU one session with one intra-op thread serves all workers: ``InferenceSession.run`` is
thread-safe and releases the GIL, and one run a core beats one run over all cores by half,
because nothing waits at the barriers inside an operator. On a GPU there is one session a card.
"""

import importlib.metadata
import mmap
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.batching import TOKENS_PER_RUN
from qdrant_rerank.deadline import NEVER, Deadline, cancellation
from qdrant_rerank.errors import (
    InvalidInputError,
    MissingDependencyError,
    ModelFileError,
    ModelOutputError,
)
from qdrant_rerank.feeds import Feed

__all__ = ["Provider", "Runtime", "available_cores", "import_onnxruntime"]

# A provider's name, or its name and options, as onnxruntime takes them.
Provider = str | tuple[str, Mapping[str, Any]]
Item = TypeVar("Item")

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# On a GPU a batch is a tensor: padded tokens that keep a card busy within 2 GB for 12 x 768.
GPU_TOKENS_PER_RUN = 16_384
# Operators that take their scale from the whole run, so that batch-mates change a score.
DYNAMIC_QUANTIZATION = (b"DynamicQuantizeLinear", b"DynamicQuantizeMatMul")
# Reads lengths from the sum of the mask, as if all padding were on the right.
IGNORES_LEFT_PADDING = (b"GroupQueryAttention",)


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime, or say how to install it.

    Raises:
        MissingDependencyError: neither the CPU nor the GPU wheel is installed.
    """
    installed = [
        name for name in ("onnxruntime", "onnxruntime-gpu") if _version_of(name) is not None
    ]
    if len(installed) == 2:
        warnings.warn(
            "onnxruntime and onnxruntime-gpu are both installed; they share one directory, so "
            "which of them runs depends on the order of installation. Mend it with: "
            'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "qdrant-rerank[gpu]" '
            "(or [cpu]).",
            RuntimeWarning,
            stacklevel=2,
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "Running a model needs ONNX Runtime, which is not installed. "
            'For a CPU: pip install "qdrant-rerank[cpu]". '
            'For an NVIDIA GPU: pip install "qdrant-rerank[gpu]". Install one, not both.'
        ) from error
    module: ModuleType = onnxruntime
    return module


def available_cores() -> int:
    """Cores this process may use: its CPU affinity, cut by its cgroup's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


class Runtime:
    """An ONNX file, loaded, with the threads that drive it. Safe to use from many threads.

    Args:
        path: the ``.onnx`` file.
        threads: runs at once on a CPU; None for one a core.
        providers: onnxruntime's execution providers, in order; excludes ``cuda=True``.
        cuda: True, False, or "auto" (CUDA where onnxruntime has it).
        device_ids: CUDA devices, one session each.
        first_position: position of the first token, where the file takes position_ids.

    Attributes:
        inputs: names of the inputs that the file takes.
        workers: runs that go on at once.
        tokens_per_run: padded tokens that a run should hold.
        pairs_per_run: 1 where batch-mates would change a score, else None.
        provider: name of the execution provider that runs the model.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        ModelFileError: the file is missing, truncated, or not a text encoder.
        InvalidInputError: an argument is wrong, or a provider is not available.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        cuda: bool | str = "auto",
        device_ids: Sequence[int] | None = None,
        first_position: int = 0,
    ) -> None:
        ort = import_onnxruntime()
        choices = _provider_choices(ort, providers, cuda, device_ids)
        self.path = path
        self._first_position = first_position
        self._sessions = [_open_session(ort, path, choice) for choice in choices]
        session = self._sessions[0]
        self.provider: str = session.get_providers()[0]
        on_cpu = self.provider == CPU
        cores = available_cores() if threads is None else threads
        self.workers = cores if on_cpu else len(self._sessions)
        self.tokens_per_run = TOKENS_PER_RUN if on_cpu else GPU_TOKENS_PER_RUN

        self._feed = Feed(session.get_inputs(), path)
        self.inputs = self._feed.names
        outputs = [node.name for node in session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]
        alone = self._feed.one_row or _names(path, DYNAMIC_QUANTIZATION + IGNORES_LEFT_PADDING)
        self.pairs_per_run = 1 if alone else None

        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="qdrant-rerank")
        # A CPU session serves all threads at once; a card's session, one at a time.
        self._free: SimpleQueue[Any] | None = None
        if not on_cpu:
            self._free = SimpleQueue()
            for item in self._sessions:
                self._free.put(item)

    def run(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        token_type_ids: NDArray[np.int64],
        *,
        last_position: bool = False,
    ) -> NDArray[np.float32]:
        """Run the model once.

        Args:
            input_ids: shape (n, width), int64.
            attention_mask: same shape, 1 on tokens and 0 on padding.
            token_type_ids: same shape; left out where the model has no such input.
            last_position: of an output (n, width, size), keep only the last position.

        Returns:
            The output ``logits``, or the first where none has that name; float32, shape (n, ...).

        Raises:
            ModelOutputError: the run failed.
        """
        feed = self._feed(input_ids, attention_mask, token_type_ids, self._first_position)
        session = self._sessions[0] if self._free is None else self._free.get()
        try:
            output = session.run([self._output], feed)[0]
        except Exception as error:  # onnxruntime's errors share no base
            raise ModelOutputError(
                f"{self.path} failed on {input_ids.shape[0]} pair(s) of {input_ids.shape[1]} "
                f"tokens: {error}. If an index is out of bounds, the tokenizer beside the model is "
                "another model's (token ids beyond its embeddings), or max_length is more than "
                "its positions."
            ) from error
        finally:
            if self._free is not None:
                self._free.put(session)
        array = np.asarray(output)
        if last_position and array.ndim == 3:
            array = array[:, -1]  # before the copy: a vocabulary's logits are large
        return array.astype(np.float32, copy=False)

    def for_each(
        self,
        function: Callable[[Item], None],
        items: Iterable[Item],
        pool: ThreadPoolExecutor | None = None,
        deadline: Deadline = NEVER,
    ) -> int:
        """Call ``function`` on each item, ``workers`` at a time; the first error stops the rest.

        So does a :class:`~qdrant_rerank.deadline.Cancellation` of the calling context.

        Args:
            function: called from worker threads.
            items: begun in order. Of a sequence, one item is done in the calling thread; from an
                iterator the next is drawn there while the workers run.
            pool: other threads to use than the runtime's own.
            deadline: no item is begun after it; those under way are finished.

        Returns:
            The number of items done: always the first of them.
        """
        if isinstance(items, Sequence) and len(items) == 1:
            function(items[0])
            return 1
        stop = cancellation()

        def begin(item: Item) -> None:
            if stop is not None:
                stop.check()
            function(item)

        pool = pool or self._pool
        futures: list[Future[None]] = []
        try:
            for item in items:
                if deadline.passed or (stop is not None and stop.cancelled):
                    break
                futures.append(pool.submit(begin, item))
            done, _ = wait(futures, timeout=deadline.left, return_when=FIRST_EXCEPTION)
        finally:  # an interrupt stops within one run, too
            # The last first: what a worker takes in the meantime then still follows on the others.
            for future in reversed(futures):
                future.cancel()
        begun = [future for future in futures if not future.cancelled()]
        for future in [*done, *begun]:  # a failure that is known comes first
            future.result()
        if stop is not None:
            stop.check()
        return len(begun)

    def __repr__(self) -> str:
        return f"Runtime({str(self.path)!r}, {self.provider}, workers={self.workers})"


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _provider_choices(
    ort: ModuleType,
    providers: Sequence[Provider] | None,
    cuda: bool | str,
    device_ids: Sequence[int] | None,
) -> list[list[Provider]]:
    """The providers of each session to open: one session, or one a device."""
    available: list[str] = ort.get_available_providers()
    if providers is not None:
        if cuda in {True, "cuda"} or device_ids is not None:
            raise InvalidInputError(
                "providers excludes cuda=True and device_ids. Pass device_ids alone, or the "
                'device inside providers: [("CUDAExecutionProvider", {"device_id": 1})].'
            )
        names = [item if isinstance(item, str) else item[0] for item in providers]
        missing = [name for name in names if name not in available]
        if missing or not names:
            raise InvalidInputError(
                f"providers={names}: {', '.join(missing) or 'none named'}; this onnxruntime has "
                f"{available}."
            )
        return [list(providers)]
    wants_cuda = cuda in {True, "cuda"} or (device_ids is not None and cuda != "cpu" and cuda)
    if CUDA in available and (wants_cuda or cuda == "auto"):
        _preload_cuda_libraries(ort)
        return [[(CUDA, {"device_id": device})] for device in device_ids or [0]]
    if wants_cuda:
        raise InvalidInputError(
            f"CUDA was asked for, but this onnxruntime has only {available}. Install the GPU "
            'build: pip uninstall -y onnxruntime && pip install "qdrant-rerank[gpu]".'
        )
    return [[CPU]]


def _preload_cuda_libraries(ort: ModuleType) -> None:
    # Finds the CUDA and cuDNN libraries of the nvidia-* wheels; older versions have no such call.
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()


def _open_session(ort: ModuleType, path: Path, providers: Iterable[Provider]) -> Any:
    if not path.is_file():
        raise ModelFileError(f"No ONNX file at {path}. Fetch the model again, or mend the path.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors arrive as exceptions
    wanted = [item if isinstance(item, str) else (item[0], dict(item[1])) for item in providers]
    try:
        session = ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's errors share no base
        raise ModelFileError(
            f"{path} ({path.stat().st_size:,} bytes) is not a model that this onnxruntime "
            f"{ort.__version__} can load: {error}. It may be truncated or not an ONNX file; fetch "
            "it again."
        ) from error
    first = wanted[0] if isinstance(wanted[0], str) else wanted[0][0]
    if session.get_providers()[0] != first:
        warnings.warn(
            f"{first} could not start, so the model runs on {session.get_providers()[0]}. "
            "Check the driver and that the CUDA and cuDNN libraries match this onnxruntime "
            f"({ort.__version__}).",
            RuntimeWarning,
            stacklevel=2,
        )
    return session


def _names(path: Path, operators: Iterable[bytes]) -> bool:
    """Whether the graph names one of these operators."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(name) >= 0 for name in operators)
