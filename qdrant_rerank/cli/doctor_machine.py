"""The checks of this machine: its user account, packages and GPUs."""

from collections.abc import Iterable, Iterator

from qdrant_rerank.cli.doctor_finding import Finding
from qdrant_rerank.inference.gpu.devices import CUDA, CudaReport

__all__ = [
    "check_environment",
    "check_gpus",
    "check_packages",
]


def check_environment(*, has_home: bool, temporary: str | None) -> Iterator[Finding]:
    """Check that the user has a home directory, and that there is a place for temporary files.

    Args:
        has_home: whether downloads have a folder: a home directory, or one that is set.
        temporary: directory for temporary files; None if no usual one can be written.
    """
    if not has_home:
        yield Finding(
            "environment",
            True,
            "There is no home directory: HOME is not set, and the user has no passwd entry. So "
            "models cannot be downloaded.",
            "Set HOME, or QDRANT_RERANK_CACHE to a folder for models.",
        )
    if temporary is None:
        yield Finding(
            "environment",
            True,
            "No directory for temporary files can be written, so an embedded Qdrant in memory "
            "cannot start.",
            "Set TMPDIR to a directory that can be written.",
        )


def check_packages(installed: Iterable[str]) -> Iterator[Finding]:
    """Check for packages that break each other.

    Args:
        installed: names of the installed distributions.
    """
    runtimes = sorted(name for name in installed if name in {"onnxruntime", "onnxruntime-gpu"})
    if len(runtimes) > 1:
        yield Finding(
            "packages",
            True,
            "onnxruntime and onnxruntime-gpu are both installed; they share a directory.",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install the one you want.",
        )


def check_gpus(report: CudaReport) -> Iterator[Finding]:
    """Check versions, execution providers and GPUs: what keeps a GPU from being used is wrong.

    An onnxruntime for CPUs on a machine without a GPU is as it should be.

    Args:
        report: what this machine has.
    """
    wheels = " and ".join(report.wheels) or "built here"
    cuda = f", for CUDA {report.built_for}" if report.built_for else ""
    yield Finding(
        "packages",
        False,
        f"onnxruntime {report.onnxruntime} ({wheels}{cuda}) with {', '.join(report.providers)}.",
    )
    for gpu in report.driver.gpus:
        yield Finding("gpus", False, f"GPU {gpu}.")
    if report.driver.cuda is not None:
        major, minor = report.driver.cuda
        yield Finding("gpus", False, f"The NVIDIA driver supports CUDA up to {major}.{minor}.")
    if CUDA not in report.providers and not report.driver.gpus:
        yield Finding("gpus", False, "No GPU, and an onnxruntime for CPUs.")
        return
    for problem in report.problems:
        yield Finding("gpus", True, problem.seen, problem.fix)
