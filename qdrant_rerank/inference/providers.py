"""Which of onnxruntime's execution providers run a model, on the CPU or on which cards."""

import difflib
import functools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.inference.gpu.devices import (
    CUDA,
    INSTALL_GPU,
    CudaReport,
    Provider,
    cuda_report,
    name_of,
)
from qdrant_rerank.utils.validation import require_positive
from qdrant_rerank.utils.warn import warn_caller

__all__ = [
    "CPU",
    "CUDA",
    "Placement",
    "choose_providers",
    "gpu_facts",
    "provider_failed",
    "runs_on_gpu",
]

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
# TF32 keeps 10 bits of a mantissa, so that fp32 scores would differ from a CPU's by 1e-2; and in
# fp16 a normalisation would add up in fp16, with twice the error.
EXACT = {"use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1"}
CUDA_CHOICES = {True, False, "auto", "cuda", "cpu"}  # the words are fastembed's
DEVICE = re.compile(r"(auto|cpu|cuda)(?::(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a model is to run, as it was asked for; what contradicts itself is refused.

    Attributes:
        providers: onnxruntime's execution providers, in order; excludes all others. The CPU's among
            them allows a model to run there where a card cannot be used, with a warning.
        cuda: True, False, or "auto": where a card can be used.
        device_ids: numbers of cards, one session each.
        device: the same in a word: "auto", "cpu", "cuda" or "cuda:1".
        gpu_mem_limit: most bytes that a session's arena may take of its card; None for all.

    Raises:
        InvalidInputError: an argument is wrong, or two contradict each other.
    """

    providers: Sequence[Provider] | None = None
    cuda: bool | str = "auto"
    device_ids: Sequence[int] | None = None
    device: str | None = None
    gpu_mem_limit: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cuda, bool | str) or self.cuda not in CUDA_CHOICES:
            raise InvalidInputError(f"cuda is {self.cuda!r}; expected True, False or 'auto'.")
        require_positive("gpu_mem_limit", self.gpu_mem_limit)
        self._require_device_ids()
        kind, number = self._named
        if self.providers is not None and (
            self.cuda in {True, "cuda"}
            or self.device_ids is not None
            or self.device is not None
            or self.gpu_mem_limit is not None
        ):
            raise InvalidInputError(
                "providers excludes cuda=True, device_ids, device and gpu_mem_limit. Leave it out, "
                'or say so inside providers: [("CUDAExecutionProvider", {"device_id": 1})].'
            )
        if number is not None and self.device_ids is not None:
            raise InvalidInputError(
                f"device is {self.device!r} and device_ids is {list(self.device_ids)}. Pass one of "
                "them."
            )
        if (kind == "cpu" and (self.cuda in {True, "cuda"} or self.device_ids is not None)) or (
            self.cuda in {False, "cpu"} and (kind == "cuda" or self.device_ids is not None)
        ):
            raise InvalidInputError(
                f"cuda={self.cuda!r}, device={self.device!r} and device_ids={self.device_ids!r} "
                "contradict each other: both the CPU and a card. Leave one out."
            )

    @property
    def wants_gpu(self) -> bool:
        """Whether running anywhere else would be an error."""
        return (
            self.cuda in {True, "cuda"} or self.device_ids is not None or self._named[0] == "cuda"
        )

    @property
    def allows_cpu(self) -> bool:
        """Whether a card that does not start is no error."""
        if self.providers is not None:
            return CPU in map(name_of, self.providers)
        return not self.wants_gpu

    @property
    def may_use_gpu(self) -> bool:
        """Whether a card is taken where there is one."""
        if self.providers is not None or self.cuda in {False, "cpu"}:
            return False
        return self._named[0] != "cpu"

    @property
    def asks_for_provider(self) -> bool:
        """Whether it is said which of onnxruntime's providers to use."""
        return self.providers is not None or self.wants_gpu

    @property
    def names_gpu(self) -> bool:
        """Whether the first of the providers is a card's."""
        return CUDA in map(name_of, (self.providers or ())[:1])

    @property
    def numbers(self) -> list[int]:
        """Of the cards to use, if any is used."""
        if self.device_ids is not None:
            return list(self.device_ids)
        return [self._named[1] or 0]

    @property
    def _named(self) -> tuple[str, int | None]:
        """What ``device`` says: the kind, and the card's number."""
        if self.device is None:
            return "auto", None
        found = DEVICE.fullmatch(self.device) if isinstance(self.device, str) else None
        if found is None or (found[2] is not None and found[1] != "cuda"):
            raise InvalidInputError(
                f"device is {self.device!r}; expected 'auto', 'cpu', 'cuda' or 'cuda:1'."
            )
        return found[1], None if found[2] is None else int(found[2])

    def _require_device_ids(self) -> None:
        ids = self.device_ids
        if ids is None:
            return
        fits = isinstance(ids, list | tuple) and len(ids) > 0
        if not fits or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in ids):
            raise InvalidInputError(
                f"device_ids is {ids!r}; expected numbers of cards, such as [0] or [0, 1]."
            )
        if len(set(ids)) < len(ids):
            raise InvalidInputError(f"device_ids is {list(ids)!r}; each card may be there once.")


def choose_providers(
    ort: ModuleType, asked: Placement, *, report: CudaReport | None = None
) -> list[list[Provider]]:
    """The providers of each session to open: one session, or one a card.

    Args:
        ort: onnxruntime.
        asked: where to run.
        report: what cards there are; None to look.

    Raises:
        InvalidInputError: what is asked for is not there.
    """
    if asked.providers is not None:
        _require_providers(ort, asked.providers)
        names = [name_of(item) for item in asked.providers]
        if CUDA in names:
            report = report or cuda_report(ort)  # which loads its libraries, too
            if names[0] == CUDA and not report.usable:
                if CPU not in names:
                    raise _cannot_be_used(report)
                warn_caller(f"{_cannot_be_used(report)} It runs on the CPU.", RuntimeWarning)
                return [list(asked.providers[1:])]
        return [[_exact(one) for one in asked.providers]]
    if not asked.may_use_gpu or (CUDA not in ort.get_available_providers() and not asked.wants_gpu):
        return [[CPU]]
    report = report or cuda_report(ort)
    if not report.usable:
        if asked.wants_gpu:
            raise _cannot_be_used(report)
        _say_once(" ".join(map(str, report.problems)))
        return [[CPU]]
    there = [card.number for card in report.driver.gpus]
    if absent := [number for number in asked.numbers if number not in there]:
        raise InvalidInputError(
            f"No card {', '.join(map(str, absent))}; the cards here are "
            f"{'; '.join(map(str, report.driver.gpus))}."
        )
    return [[(CUDA, cuda_options(number, asked.gpu_mem_limit))] for number in asked.numbers]


def runs_on_gpu(ort: ModuleType, placement: Placement) -> bool:
    """Whether onnxruntime would run on a card, asked for or not.

    Raises:
        InvalidInputError: a card is asked for that cannot be used, and the CPU is not allowed.
    """
    if not placement.allows_cpu:
        choose_providers(ort, placement)
    if placement.providers is not None:
        return placement.names_gpu and cuda_report(ort).usable
    return placement.wants_gpu or (
        placement.may_use_gpu and CUDA in ort.get_available_providers() and cuda_report(ort).usable
    )


def gpu_facts(ort: ModuleType, placement: Placement) -> tuple[object, ...]:
    """What decides, beside the model, how much a run on a card should hold."""
    if not placement.may_use_gpu:
        return (repr(placement.providers),)
    cards = [
        (card.name, card.memory)
        for card in cuda_report(ort).driver.gpus
        if card.number in placement.numbers
    ]
    return (*cards, placement.gpu_mem_limit)


def cuda_options(number: int, gpu_mem_limit: int | None = None) -> dict[str, str]:
    """Options of the CUDA provider for one card.

    https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html

    Args:
        number: of the card.
        gpu_mem_limit: in bytes.
    """
    options = {
        "device_id": str(number),
        # The arena grows by what is asked for, not by powers of two, which would take up to twice.
        "arena_extend_strategy": "kSameAsRequested",
        **EXACT,
    }
    if gpu_mem_limit is not None:
        options["gpu_mem_limit"] = str(gpu_mem_limit)
    return options


def _exact(provider: Provider) -> Provider:
    """A provider that was asked for, CUDA's with what keeps scores unless that is said too."""
    if name_of(provider) != CUDA:
        return provider
    given = {} if isinstance(provider, str) else provider[1]
    return (CUDA, {**EXACT, **given})


def provider_failed(asked: str, version: str, reason: str = "") -> InvalidInputError:
    """The error of a session that was to run on a provider and does not.

    Args:
        asked: name of the provider.
        version: of onnxruntime.
        reason: what onnxruntime said; "" if it said so on stderr alone.
    """
    told = f"It said: {reason}" if reason else "Its reason is on stderr"
    if asked != CUDA:
        return InvalidInputError(
            f"{asked} was asked for and did not start in onnxruntime {version}. {told}. Install "
            f"what it needs, or allow the CPU: providers=[{asked!r}, {CPU!r}]."
        )
    return InvalidInputError(
        f"CUDA was asked for and did not start in onnxruntime {version}, though its libraries load "
        f"and a card is there. {told}; usually the card is too old or its memory is taken. To mend "
        f"libraries: {INSTALL_GPU}"
    )


def _cannot_be_used(report: CudaReport) -> InvalidInputError:
    missing = " ".join(map(str, report.problems))
    return InvalidInputError(f"CUDA was asked for and cannot be used here. {missing}")


@functools.cache
def _say_once(missing: str) -> None:
    """A GPU build without its card may be meant so: one image on all machines."""
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
