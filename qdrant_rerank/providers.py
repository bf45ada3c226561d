"""Which of onnxruntime's execution providers run a model, on the CPU or on which cards."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from qdrant_rerank.errors import InvalidInputError

__all__ = ["CPU", "Provider", "provider_choices", "uses_cuda"]

# A provider's name, or its name and options, as onnxruntime takes them.
Provider = str | tuple[str, Mapping[str, Any]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def provider_choices(
    ort: ModuleType,
    providers: Sequence[Provider] | None,
    cuda: bool | str,
    device_ids: Sequence[int] | None,
) -> list[list[Provider]]:
    """The providers of each session to open: one session, or one a device.

    Args:
        ort: onnxruntime.
        providers: as asked for.
        cuda: True, False, or "auto": where there is a card.
        device_ids: of cards.

    Raises:
        InvalidInputError: what is asked for contradicts itself or is not there.
    """
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


def uses_cuda(ort: ModuleType, cuda: bool | str) -> bool:
    """Whether onnxruntime would take a card of its own accord."""
    return cuda == "auto" and CUDA in ort.get_available_providers()


def _preload_cuda_libraries(ort: ModuleType) -> None:
    # Finds the CUDA and cuDNN libraries of the nvidia-* wheels; older versions have no such call.
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
