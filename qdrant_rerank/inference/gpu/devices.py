"""NVIDIA GPUs of this machine, and what is missing before onnxruntime can use them.

The driver lists its GPUs (https://docs.nvidia.com/cuda/cuda-driver-api), so their numbers are those
of CUDA, also under ``CUDA_VISIBLE_DEVICES``. No session is opened.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

__all__ = [
    "CPU",
    "CUDA",
    "INSTALL_GPU",
    "CudaReport",
    "Gpu",
    "Problem",
    "Provider",
    "cuda_report",
    "installed_wheels",
    "name_of",
]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
#: Installs the CUDA wheel of onnxruntime with NVIDIA's libraries.
INSTALL_GPU = 'pip install "qdrant-rerank[gpu]"'
WHEELS = ("onnxruntime", "onnxruntime-gpu")
SUCCESS = 0  # CUresult
NAME_BYTES = 256
# What onnxruntime.preload_dlls prints of a library that it cannot load, on stdout.
NOT_LOADED = re.compile(r"^Failed to load (\S+?):", re.MULTILINE)

# A provider's name, or its name and options, as onnxruntime takes them.
Provider = str | tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its number, its name, and its memory in bytes."""

    number: int
    name: str
    memory: int

    def __str__(self) -> str:
        return f"{self.number}: {self.name}, {self.memory / 1e9:.0f} GB"


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason why onnxruntime cannot use the GPUs, and how to fix it."""

    seen: str
    fix: str

    def __str__(self) -> str:
        return f"{self.seen} {self.fix}"


@dataclass(frozen=True, slots=True)
class NvidiaDriver:
    """Answers of NVIDIA's driver.

    Attributes:
        gpus: in CUDA's order.
        cuda: the newest CUDA that it supports, major and minor; None without a driver.
        error: why it lists no GPU, or "".
    """

    gpus: tuple[Gpu, ...] = ()
    cuda: tuple[int, int] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class CudaReport:
    """Facts that decide whether onnxruntime can use a GPU here.

    Attributes:
        onnxruntime: its version.
        wheels: distributions of it that are installed; they share one directory.
        providers: its execution providers.
        built_for: the CUDA version that its wheel needs, or "".
        driver: see :class:`NvidiaDriver`.
        problems: what is missing; empty if GPUs can be used.
    """

    onnxruntime: str
    wheels: tuple[str, ...]
    providers: tuple[str, ...]
    built_for: str
    driver: NvidiaDriver
    problems: tuple[Problem, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether nothing is missing, as far as can be known without a session."""
        return not self.problems


def cuda_report(ort: ModuleType) -> CudaReport:
    """Look at the installed onnxruntime, its CUDA libraries, the driver and the GPUs.

    Args:
        ort: onnxruntime.
    """
    report = CudaReport(
        onnxruntime=ort.__version__,
        wheels=installed_wheels(),
        providers=tuple(ort.get_available_providers()),
        built_for=str(getattr(ort, "cuda_version", None) or ""),
        driver=_driver(),
    )
    not_loaded = _preload(ort) if CUDA in report.providers else ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return replace(report, problems=tuple(find_problems(report, not_loaded, visible)))


def find_problems(
    report: CudaReport, not_loaded: Sequence[str], visible: str | None
) -> Iterator[Problem]:
    """Find what keeps onnxruntime from using the GPUs. Pure.

    Args:
        report: the other facts.
        not_loaded: names of libraries that could not be loaded.
        visible: the environment's CUDA_VISIBLE_DEVICES.
    """
    version, built_for, driver = report.onnxruntime, report.built_for, report.driver
    if CUDA not in report.providers:
        wheels = report.wheels
        both = f" {' and '.join(wheels)} are both installed." if len(wheels) > 1 else ""
        # If both are installed, both: the files that one leaves of the other do not run.
        remove = " ".join(wheels or WHEELS[:1])
        yield Problem(
            f"onnxruntime {version} is a build without CUDA (it has {', '.join(report.providers)})."
            f"{both}",
            f"Install the GPU build in its place: pip uninstall -y {remove} && {INSTALL_GPU}",
        )
    if not_loaded:
        of_cuda = f" of CUDA {built_for}" if built_for else ""
        yield Problem(
            f"onnxruntime {version} cannot load {', '.join(not_loaded)}{of_cuda}.",
            f"Install NVIDIA's libraries: {INSTALL_GPU}",
        )
    if driver.cuda is None:
        yield Problem(
            f"No NVIDIA driver: {driver.error}.",
            "Install the driver; in a container, start it with --gpus all.",
        )
        return
    if built_for and driver.cuda[0] < int(built_for.split(".", maxsplit=1)[0]):
        yield Problem(
            f"The NVIDIA driver supports CUDA up to {driver.cuda[0]}.{driver.cuda[1]}, and "
            f"onnxruntime {version} is built for CUDA {built_for}.",
            "Update the driver, or install an older onnxruntime-gpu.",
        )
    if not driver.gpus:
        hidden = "" if visible is None else f" CUDA_VISIBLE_DEVICES is {visible!r}."
        yield Problem(
            f"The NVIDIA driver lists no GPU ({driver.error or 'it counts none'}).{hidden}",
            "Unset CUDA_VISIBLE_DEVICES; in a container, start it with --gpus all.",
        )


@functools.cache
def _preload(ort: ModuleType) -> tuple[str, ...]:
    """Load the CUDA and cuDNN libraries of the nvidia-* wheels; return the names of missing ones.

    Once per process. What onnxruntime prints on stdout meanwhile is read and not shown.
    """
    preload = getattr(ort, "preload_dlls", None)
    if preload is None:  # before onnxruntime 1.21
        return ()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        preload()
    return tuple(dict.fromkeys(NOT_LOADED.findall(said.getvalue())))


@functools.cache
def _driver() -> NvidiaDriver:
    """Ask the driver. Its library is loaded, and no context is made on any GPU."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        return NvidiaDriver(error=str(error))
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    supported = (version.value // 1000, version.value % 1000 // 10)
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status != SUCCESS:
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(status, ctypes.byref(name))
        return NvidiaDriver(cuda=supported, error=(name.value or b"an unknown error").decode())
    return NvidiaDriver(tuple(_gpu(cuda, number) for number in range(count.value)), supported)


def _gpu(cuda: ctypes.CDLL, number: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(NAME_BYTES)
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, NAME_BYTES, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(number, name.value.decode(errors="replace"), memory.value)


def installed_wheels() -> tuple[str, ...]:
    """Return the installed distributions of onnxruntime: none, one, or both."""
    return tuple(name for name in WHEELS if any(importlib.metadata.distributions(name=name)))


def name_of(provider: Provider) -> str:
    """Return a provider's name."""
    return provider if isinstance(provider, str) else provider[0]
