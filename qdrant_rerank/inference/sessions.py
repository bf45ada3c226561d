"""onnxruntime: imported on first use, and its sessions opened.

The only module that imports onnxruntime itself. The package's ``__init__`` has switched off its
telemetry before.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from weakref import WeakValueDictionary

from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError, ModelFileError
from qdrant_rerank.hub.onnx_files import external_data
from qdrant_rerank.inference.cpu import int8_weights
from qdrant_rerank.inference.gpu.devices import (
    CPU,
    CUDA,
    INSTALL_GPU,
    Provider,
    installed_wheels,
    name_of,
)
from qdrant_rerank.inference.gpu.pool import is_out_of_memory
from qdrant_rerank.utils.fork import ForkLock, in_child
from qdrant_rerank.utils.warn import warn_caller

__all__ = [
    "Session",
    "import_onnxruntime",
    "open_plain_session",
    "open_session",
    "provider_failed",
    "shared_session",
    "size_of",
    "state_of",
]

# Not used on a CPU: Add and LayerNormalization as one operator take longer than one by one, 15 %
# of an int8 model's time (benchmarks/README.md).
SLOWER_TOGETHER = ["SkipLayerNormFusion"]
SILENT, ERRORS = 4, 3  # log severities; errors arrive as exceptions
# On an x86 CPU without VNNI, products with signed int8 weights are added up in 16 bits, which
# overflows. This has onnxruntime run such weights as unsigned with the zero point moved: the same
# integers, so the same scores on every CPU. Elsewhere the scores are the same without it, and with
# it the bundled model takes twice as long (measured with AMX).
EXACT_INT8 = ("session.x64quantprecision", "1")


class Session(Protocol):
    """The part of an ``onnxruntime.InferenceSession`` that is used."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> Sequence[Any]:
        """Return the arrays of these outputs."""

    def get_inputs(self) -> Sequence[Any]:
        """Return nodes with name, type and shape."""

    def get_outputs(self) -> Sequence[Any]:
        """Return nodes with name, type and shape."""

    def get_providers(self) -> list[str]:
        """Return the names of the providers, first choice first."""


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime, or raise an error that says how to install it.

    Raises:
        MissingDependencyError: neither the CPU nor the GPU wheel is installed.
    """
    if len(installed_wheels()) > 1:
        warn_caller(
            "onnxruntime and onnxruntime-gpu are both installed, as 'pip list' shows; they share "
            "one directory, so which of them runs depends on the order of installation. Fix it "
            "with: pip uninstall -y onnxruntime onnxruntime-gpu && "
            'pip install "qdrant-rerank[gpu]" (or [cpu]).',
            RuntimeWarning,
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


def open_session(
    ort: ModuleType,
    path: Path,
    providers: Sequence[Provider],
    intra_op_threads: int = 1,
    *,
    required: bool = False,
    cpu_arena: bool = True,
) -> Any:
    """Open an ``onnxruntime.InferenceSession`` on the first of the providers.

    Args:
        ort: onnxruntime.
        path: the ``.onnx`` file.
        providers: in order.
        intra_op_threads: threads that one batch may use on a CPU.
        required: whether a provider that does not start is an error; else a warning is given.
        cpu_arena: whether memory of the CPU is kept for the next batch.

    Raises:
        ModelFileError: the file is missing, damaged, or too large for the memory.
        InvalidInputError: a provider that is required did not start.
    """
    if not path.is_file():
        raise ModelFileError(f"No ONNX file at {path}. Fetch the model again, or fix the path.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _keep_int8_exact(options)
    # A pattern is kept of each shape that was ever run, and few batches have the same shape. Two
    # batches of 512 tokens took 100 MB with patterns and 74 without, in the same time:
    # benchmarks/memory.py.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = cpu_arena
    options.log_severity_level = ERRORS
    wanted = [item if isinstance(item, str) else (item[0], dict(item[1])) for item in providers]
    first, failure = name_of(wanted[0]), ""
    session = None
    while session is None:
        try:
            session = ort.InferenceSession(
                str(path),
                options,
                providers=wanted,
                disabled_optimizers=SLOWER_TOGETHER if wanted == [CPU] else None,
                enable_fallback=0,  # it would print to stdout, and open the CPU unasked
            )
        except (RuntimeError, ValueError) as error:  # of a provider, not of the model
            failure = failure or " ".join(str(error).split())
            if required or len(wanted) == 1:
                raise provider_failed(first, ort.__version__, failure) from error
            wanted = wanted[1:]
        except Exception as error:  # onnxruntime's errors share no base
            if is_out_of_memory(error):
                raise ModelFileError(
                    f"There is no memory for the weights of {path} ({size_of(path):,} bytes): "
                    f"{error}. Free some, raise gpu_mem_limit, or pass precision='fp16' or "
                    "cuda=False."
                ) from error
            raise ModelFileError(
                f"{path} ({path.stat().st_size:,} bytes) is not a model that this onnxruntime "
                f"{ort.__version__} can load: {error}. It may be truncated or not an ONNX file"
                f"{_weights_beside(path)}; fetch it again."
            ) from error
    got = session.get_providers()[0]
    if got != first:
        if required:
            raise provider_failed(first, ort.__version__, failure)
        warn_caller(
            f"{first} could not start, so the model runs on {got}. Check the driver and that the "
            f"CUDA and cuDNN libraries match this onnxruntime ({ort.__version__})."
            f"{f' It said: {failure}' if failure else ''}",
            RuntimeWarning,
        )
    return session


def shared_session(
    ort: ModuleType, path: Path, providers: Sequence[Provider], *, required: bool, cpu_arena: bool
) -> Any:
    """Open a session as :func:`open_session` does, or give one that is open already.

    On a CPU, one session serves any number of threads. So what reads the same file in one process,
    such as the bundled reranker and its trunk as an embedder, has one copy of the weights.
    """
    key = _key(path, cpu_arena) if [*providers] == [CPU] else None
    session = None if key is None else _open.get(key)
    if session is None:
        session = open_session(ort, path, providers, required=required, cpu_arena=cpu_arena)
        if key is not None:
            with _keeping:  # another thread may have opened it meanwhile
                session = _open.setdefault(key, session)
    return session


def _key(path: Path, cpu_arena: bool) -> tuple[Any, ...] | None:
    """What a session on a CPU is known by; None for a file that cannot be read."""
    try:
        return path.absolute(), tuple(map(state_of, _files_of(path))), cpu_arena
    except (ModelFileError, OSError):  # opening it says what is wrong
        return None


_keeping = ForkLock()
_open: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


@in_child
def _forget_sessions() -> None:
    """A forked child opens its own: the parent's threads may have been inside of one."""
    _open.clear()


def _keep_int8_exact(options: Any) -> None:
    if not int8_weights().signed:
        options.add_session_config_entry(*EXACT_INT8)


def open_plain_session(ort: ModuleType, model: Path | bytes) -> Any:
    """Open a session on one core of the CPU, to compare a file that was made with its source."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    _keep_int8_exact(options)
    options.log_severity_level = SILENT
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=[CPU])


def provider_failed(asked: str, version: str, reason: str = "") -> InvalidInputError:
    """Return the error of a session that should run on a provider and does not.

    Args:
        asked: name of the provider.
        version: of onnxruntime.
        reason: what onnxruntime said; "" if it said so only on stderr.
    """
    told = f"It said: {reason}" if reason else "Its reason is on stderr"
    if asked != CUDA:
        return InvalidInputError(
            f"{asked} was asked for and did not start in onnxruntime {version}. {told}. Install "
            f"what it needs, or allow the CPU: providers=[{asked!r}, {CPU!r}]."
        )
    return InvalidInputError(
        f"CUDA was asked for and did not start in onnxruntime {version}, though its libraries load "
        f"and a GPU is there. {told}; usually the GPU is too old or its memory is taken. To fix "
        f"libraries: {INSTALL_GPU}"
    )


def size_of(path: Path) -> int:
    """Return the bytes of an ONNX file and its external data."""
    return sum(each.stat().st_size for each in _files_of(path))


def state_of(path: Path) -> tuple[int, int] | None:
    """The size and the time of a file, which change with it; None if there is no file."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def _weights_beside(path: Path) -> str:
    """Tell an ONNX file's external data and its sizes, for an error; "" if it names none."""
    try:
        files = _files_of(path)[1:]
        sizes = [f"{file.name} ({file.stat().st_size:,} bytes)" for file in files]
    except (ModelFileError, OSError):  # the ONNX file itself is damaged
        return ""
    return f", or so may its weights be, in {' and '.join(sizes)}" if sizes else ""


def _files_of(path: Path) -> list[Path]:
    return [path, *(path.parent / name for name in external_data(path))]
