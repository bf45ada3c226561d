"""How the user asks for a model to be run; what contradicts itself is refused."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.precision import RunPrecision
from qdrant_rerank.inference.gpu.devices import CPU, Provider, name_of
from qdrant_rerank.utils.validation import require_choice, require_positive, shown

__all__ = ["Engine", "Request"]

#: Library that runs a model.
Engine = Literal["auto", "onnxruntime", "openvino"]

CUDA_CHOICES = {True, False, "auto", "cuda", "cpu"}  # the words are fastembed's
DEVICE = re.compile(r"(auto|cpu|cuda)(?::(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How the user asks for a model to be run. Contradictions are refused at construction.

    Attributes:
        threads: batches at the same time on a CPU; None for one per core.
        providers: onnxruntime's execution providers, in order. They exclude the other options for
            a device. If the CPU's provider is among them, the model may run there instead of on a
            GPU that cannot be used, with a warning.
        cuda: True, False, or "auto": CUDA if a GPU can be used.
        device_ids: numbers of GPUs; one session per GPU. Without ``cuda=True``, the model runs on
            the CPU of a machine without a GPU, as in fastembed.
        device_id: the same for one GPU.
        device: the same as one word: "auto", "cpu", "cuda" or "cuda:1".
        gpu_mem_limit: bytes that a session's arena may take on its GPU; None for no limit.
        engine: "onnxruntime"; "openvino" for a CPU; "auto" for OpenVINO if it is installed and
            keeps the precision, no GPU can be used, and no provider is asked for.
        precision: what the model computes in; "auto" is the precision of its file.
        enable_cpu_mem_arena: whether onnxruntime keeps memory of the CPU for the next batch.

    Raises:
        InvalidInputError: an argument is wrong, or two arguments contradict each other.
    """

    threads: int | None = None
    providers: Sequence[Provider] | None = None
    cuda: bool | str = "auto"
    device_ids: Sequence[int] | None = None
    device_id: int | None = None
    device: str | None = None
    gpu_mem_limit: int | None = None
    engine: Engine = "auto"
    precision: RunPrecision = "auto"
    enable_cpu_mem_arena: bool = True

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, RunPrecision)
        require_choice("engine", self.engine, Engine)
        require_positive("threads", self.threads)
        if not isinstance(self.cuda, bool | str) or self.cuda not in CUDA_CHOICES:
            raise InvalidInputError(f"cuda is {shown(self.cuda)}; expected True, False or 'auto'.")
        require_positive("gpu_mem_limit", self.gpu_mem_limit)
        if not isinstance(self.enable_cpu_mem_arena, bool):
            raise InvalidInputError(
                f"enable_cpu_mem_arena is {shown(self.enable_cpu_mem_arena)}; expected True or "
                "False."
            )
        self._require_device_ids()
        kind, number = self._parsed_device
        cuda, ids = self.cuda in {True, "cuda"}, self.named_gpus
        self._require_providers()
        if self.providers is not None and (
            cuda or ids or self.device is not None or self.gpu_mem_limit is not None
        ):
            raise InvalidInputError(
                "providers excludes cuda=True, device_ids, device and gpu_mem_limit. Leave it out, "
                'or say so inside providers: [("CUDAExecutionProvider", {"device_id": 1})].'
            )
        if number is not None and ids:
            raise InvalidInputError(
                f"device is {self.device!r} and device_ids is {ids}. Pass one of them."
            )
        if (kind == "cpu" and (cuda or ids)) or (self.cuda in {False, "cpu"} and kind == "cuda"):
            raise InvalidInputError(
                f"cuda={self.cuda!r}, device={self.device!r} and device_ids={ids!r} contradict "
                "each other: both the CPU and a GPU. Leave one out."
            )

    @property
    def requires_gpu(self) -> bool:
        """Whether it is an error to run anywhere but on a GPU."""
        return self.cuda in {True, "cuda"} or self._parsed_device[0] == "cuda"

    @property
    def allows_cpu(self) -> bool:
        """Whether the model may run on a CPU if a GPU does not start."""
        if self.providers is not None:
            return CPU in map(name_of, self.providers)
        return not self.requires_gpu

    @property
    def allows_gpu(self) -> bool:
        """Whether a GPU is used if there is one, without a provider that names it."""
        if self.providers is not None or self.cuda in {False, "cpu"}:
            return False
        return self._parsed_device[0] != "cpu"

    @property
    def names_provider(self) -> bool:
        """Whether the user says which of onnxruntime's providers to use."""
        return self.providers is not None or self.requires_gpu or bool(self.named_gpus)

    @property
    def named_gpus(self) -> list[int]:
        """The numbers in ``device_ids`` or ``device_id``; empty without them."""
        if self.device_id is not None:
            return [self.device_id]
        return list(self.device_ids or ())

    @property
    def gpu_numbers(self) -> list[int]:
        """Numbers of the GPUs to use, if any is used."""
        return self.named_gpus or [self._parsed_device[1] or 0]

    @property
    def _parsed_device(self) -> tuple[str, int | None]:
        """The kind that ``device`` says, and the number of the GPU."""
        if self.device is None:
            return "auto", None
        found = DEVICE.fullmatch(self.device) if isinstance(self.device, str) else None
        if found is None or (found[2] is not None and found[1] != "cuda"):
            raise InvalidInputError(
                f"device is {shown(self.device)}; expected 'auto', 'cpu', 'cuda' or 'cuda:1'."
            )
        return found[1], None if found[2] is None else int(found[2])

    def _require_providers(self) -> None:
        if self.providers is None:
            return
        for one in self.providers if isinstance(self.providers, list | tuple) else [None]:
            named = isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], Mapping)
            if not isinstance(one[0] if named and one else one, str):
                raise InvalidInputError(
                    f"providers is {shown(self.providers)}; expected a list of names, such as "
                    '["CPUExecutionProvider"], or of (name, options).'
                )

    def _require_device_ids(self) -> None:
        ids = self.device_ids
        if self.device_id is not None:
            if ids is not None:
                raise InvalidInputError(
                    f"device_id is {shown(self.device_id)} and device_ids is {shown(ids)}. Pass "
                    "one of them."
                )
            if isinstance(self.device_id, bool) or not isinstance(self.device_id, int):
                raise InvalidInputError(
                    f"device_id is {shown(self.device_id)}; expected a GPU's number."
                )
            ids = [self.device_id]
        if ids is None:
            return
        fits = isinstance(ids, list | tuple) and len(ids) > 0
        if not fits or any(
            isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 2**31 for n in ids
        ):
            raise InvalidInputError(
                f"device_ids is {shown(ids)}; expected numbers of GPUs, such as [0] or [0, 1]."
            )
        if len(set(ids)) < len(ids):
            raise InvalidInputError(f"device_ids is {list(ids)!r}; each GPU may be there once.")
