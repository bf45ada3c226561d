"""Where a model runs, decided once: what the user asks for and what the machine has -> a plan.

The loader, the runtime and ``qdrant-rerank doctor`` read the plan; none of them decides again.
"""

import difflib
import functools
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Literal

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError
from qdrant_rerank.hub.precision import Conversion, FilePrecision, RunPrecision, choose_conversion
from qdrant_rerank.inference.cpu import Int8Weights, available_cores, int8_weights
from qdrant_rerank.inference.gpu.devices import (
    CPU,
    CUDA,
    INSTALL_GPU,
    CudaReport,
    Provider,
    cuda_report,
    name_of,
)
from qdrant_rerank.inference.openvino import INSTALL_OPENVINO
from qdrant_rerank.inference.request import Request
from qdrant_rerank.inference.sessions import import_onnxruntime
from qdrant_rerank.utils.warn import warn_caller

__all__ = ["Machine", "Plan", "make_plan"]

logger = logging.getLogger(__name__)

# TF32 keeps 10 bits of a mantissa: fp32 scores would differ from a CPU's by 1e-2. Without the
# strict mode, an fp16 normalisation adds up in fp16, with twice the error.
EXACT = {"use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1"}


class Machine:
    """Parts of this machine. Each one is looked up when a plan first needs it."""

    @cached_property
    def onnxruntime(self) -> ModuleType:
        """The module.

        Raises:
            MissingDependencyError: it is not installed.
        """
        return import_onnxruntime()

    @cached_property
    def cuda(self) -> CudaReport:
        """The GPUs, and what keeps onnxruntime from using them. Loads the CUDA libraries."""
        return cuda_report(self.onnxruntime)

    @cached_property
    def has_openvino(self) -> bool:
        """Whether OpenVINO is installed; it is not imported."""
        return importlib.util.find_spec("openvino") is not None

    @cached_property
    def cores(self) -> int:
        """Cores that this process may use."""
        return available_cores()

    @cached_property
    def int8_weights(self) -> Int8Weights:
        """The int8 weights that this CPU multiplies without overflow."""
        return int8_weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where and how a model runs.

    Attributes:
        engine: "onnxruntime" or "openvino".
        required: whether it is an error if the engine or the first provider does not start; else
            the next one is taken, with a warning or a line in the log.
        providers: of each onnxruntime session: one session, or one per GPU.
        conversion: the precision of the model's file, and the precision that it computes in.
        threads: batches at the same time on a CPU.
        int8: the int8 weights that the CPU multiplies without overflow, if it computes in int8.
        cpu_arena: whether onnxruntime keeps memory of the CPU for the next batch.
    """

    engine: Literal["onnxruntime", "openvino"]
    required: bool
    providers: tuple[tuple[Provider, ...], ...]
    conversion: Conversion
    threads: int
    int8: Int8Weights | None = None
    cpu_arena: bool = True

    @property
    def precision(self) -> RunPrecision:
        """Precision that the model computes in."""
        return self.conversion.precision

    @property
    def on_gpu(self) -> bool:
        """Whether the model runs on an NVIDIA GPU."""
        return name_of(self.providers[0][0]) == CUDA

    @property
    def fuses_on_cpu(self) -> bool:
        """Whether attention is fused for onnxruntime on a CPU."""
        return self.engine == "onnxruntime" and self.providers == ((CPU,),)

    @property
    def weights(self) -> str:
        """The precision in words, with what was made of the file's weights."""
        if self.conversion.dequantizes:
            return f"{self.precision} (int8 weights)"
        # A published file's signed weights are run as unsigned where they would overflow.
        if self.int8 is not None and (self.conversion.quantizes or not self.int8.signed):
            return f"{self.precision} ({self.int8})"
        return self.precision

    def without_openvino(self) -> "Plan":
        """Return the plan for a file that OpenVINO cannot load: onnxruntime on the CPU."""
        return replace(self, engine="onnxruntime")


def make_plan(request: Request, source: FilePrecision, machine: Machine | None = None) -> Plan:
    """Decide where and how a model runs.

    Args:
        request: what the user asks for.
        source: precision of the model's file.
        machine: what there is; None for this machine.

    Raises:
        InvalidInputError: what is asked for is not there, or cannot be done with this file.
        MissingDependencyError: onnxruntime or OpenVINO is needed and not installed.
    """
    machine = machine or Machine()
    conversion = choose_conversion(source, request.precision, for_gpu=request.requires_gpu)
    with_openvino = request.engine == "openvino"
    providers: list[tuple[Provider, ...]] = [(CPU,)]
    if with_openvino:
        _require_openvino(request, conversion.precision, machine)
    elif request.names_provider or conversion.precision != "int8":  # int8 belongs on a CPU
        providers = _choose_providers(request, machine)
    if name_of(providers[0][0]) == CUDA:
        conversion = choose_conversion(source, request.precision, for_gpu=True)
    elif request.engine == "auto" and request.providers is None:
        with_openvino = conversion.precision in {"fp32", "bf16"} and machine.has_openvino
    if conversion.precision == "bf16" and not with_openvino:
        raise InvalidInputError(
            "precision is 'bf16', which onnxruntime does not run on a CPU. Pass engine='openvino' "
            'with pip install "qdrant-rerank[openvino]", or another precision.'
        )
    named = bool(request.named_gpus) and name_of(providers[0][0]) == CUDA
    return Plan(
        engine="openvino" if with_openvino else "onnxruntime",
        required=request.engine == "openvino" or not request.allows_cpu or named,
        providers=tuple(providers),
        conversion=conversion,
        threads=machine.cores if request.threads is None else request.threads,
        int8=machine.int8_weights if conversion.precision == "int8" else None,
        cpu_arena=request.enable_cpu_mem_arena,
    )


def _require_openvino(request: Request, precision: RunPrecision, machine: Machine) -> None:
    if request.names_provider:
        refused = "providers, device_ids and cuda=True are onnxruntime's; leave them out"
    elif precision == "int8":
        refused = (
            "the file is quantised, which OpenVINO computes otherwise, so that scores would "
            "differ; pass the fp32 file"
        )
    elif precision not in {"fp32", "bf16"}:
        refused = f"precision is {precision!r}; with OpenVINO it is fp32 or bf16"
    elif not machine.has_openvino:
        raise MissingDependencyError(INSTALL_OPENVINO)
    else:
        return
    raise InvalidInputError(f"engine is 'openvino', but {refused}. Or engine='onnxruntime'.")


def _choose_providers(request: Request, machine: Machine) -> list[tuple[Provider, ...]]:
    """Choose onnxruntime's providers for each session to open."""
    if request.providers is not None:
        return [_named_providers(request.providers, machine)]
    available = machine.onnxruntime.get_available_providers() if request.allows_gpu else ()
    if not request.requires_gpu and CUDA not in available:
        if request.named_gpus and request.allows_gpu:
            _log_once(f"GPU {request.named_gpus} is named, and this onnxruntime has no CUDA.")
        return [(CPU,)]
    report = machine.cuda
    if not report.usable:
        if request.requires_gpu or (request.named_gpus and report.driver.gpus):
            raise _cannot_be_used(report)
        _log_once(" ".join(map(str, report.problems)))
        return [(CPU,)]
    there = [gpu.number for gpu in report.driver.gpus]
    if absent := [number for number in request.gpu_numbers if number not in there]:
        raise InvalidInputError(
            f"No GPU {', '.join(map(str, absent))}; the GPUs here are "
            f"{'; '.join(map(str, report.driver.gpus))}."
        )
    # https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    limit = request.gpu_mem_limit
    options = {
        # The arena grows by what is asked for, not by powers of two, which would take up to twice.
        "arena_extend_strategy": "kSameAsRequested",
        **EXACT,
        **({} if limit is None else {"gpu_mem_limit": str(limit)}),
    }
    return [((CUDA, {"device_id": str(number), **options}),) for number in request.gpu_numbers]


def _named_providers(asked: Sequence[Provider], machine: Machine) -> tuple[Provider, ...]:
    """The providers that the user names, without a GPU that cannot be used if a CPU may be."""
    _require_providers(machine.onnxruntime, asked)
    names = [name_of(item) for item in asked]
    # The report loads CUDA's libraries, which a provider that is not the first needs, too.
    if CUDA in names and not machine.cuda.usable and names[0] == CUDA:
        if CPU not in names:
            raise _cannot_be_used(machine.cuda)
        warn_caller(f"{_cannot_be_used(machine.cuda)} It runs on the CPU.", RuntimeWarning)
        return tuple(asked[1:])
    return tuple(
        (CUDA, {**EXACT, **({} if isinstance(item, str) else item[1])})
        if name_of(item) == CUDA
        else item
        for item in asked
    )


def _cannot_be_used(report: CudaReport) -> InvalidInputError:
    missing = " ".join(map(str, report.problems))
    return InvalidInputError(f"CUDA was asked for and cannot be used here. {missing}")


@functools.cache
def _log_once(missing: str) -> None:
    """Log why no GPU is used. One image on all machines may have a GPU build without a GPU."""
    logger.warning("The model runs on the CPU. %s cuda=False says that this is meant.", missing)


def _require_providers(ort: ModuleType, providers: Sequence[Provider]) -> None:
    available: list[str] = ort.get_available_providers()
    names = [name_of(item) for item in providers]
    if not names:
        raise InvalidInputError(
            f"providers is [], none named; this onnxruntime has {', '.join(available)}."
        )
    for name in names:
        if name in available:
            continue
        known = {one.lower(): one for one in [*available, *ort.get_all_providers()]}
        near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.3)
        guess = f" Did you mean {known[near[0]]!r}?" if near else ""
        if name in known.values():
            guess = f" It is part of other builds. For CUDA: {INSTALL_GPU}"
        raise InvalidInputError(
            f"providers names {name!r}; this onnxruntime has {', '.join(available)}.{guess}"
        )
