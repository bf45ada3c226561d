"""What ``qdrant-rerank doctor`` says of onnxruntime, the driver and the cards. Pure: no I/O."""

from collections.abc import Iterator

from qdrant_rerank.cards import CUDA, CudaReport
from qdrant_rerank.doctor import Finding

__all__ = ["check_cards"]


def check_cards(report: CudaReport) -> Iterator[Finding]:
    """Versions, providers and cards; what keeps a card from being used is wrong.

    A build for CPUs where there is no card is as it should be.

    Args:
        report: of this machine.
    """
    wheels = " and ".join(report.wheels) or "built here"
    cuda = f", for CUDA {report.built_for}" if report.built_for else ""
    yield Finding(
        "packages",
        False,
        f"onnxruntime {report.onnxruntime} ({wheels}{cuda}) with {', '.join(report.providers)}.",
    )
    for card in report.driver.cards:
        yield Finding("cards", False, f"Card {card}.")
    if report.driver.cuda is not None:
        major, minor = report.driver.cuda
        yield Finding("cards", False, f"The NVIDIA driver serves CUDA up to {major}.{minor}.")
    if CUDA not in report.providers and not report.driver.cards:
        yield Finding("cards", False, "No card, and an onnxruntime for CPUs.")
        return
    for problem in report.problems:
        yield Finding("cards", True, problem.seen, problem.mend)
