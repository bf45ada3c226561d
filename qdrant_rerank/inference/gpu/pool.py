"""Sessions on cards, behind one queue: whichever card is free takes the next run.

On a card a batch is a tensor, so a run holds as many tokens as the card computes best (see
:mod:`~qdrant_rerank.inference.gpu.token_budget`). A run that the card has no memory for is tried
again once the
arena has given back what it does not use, and then halved until it fits, the budget with it; a
single pair that does not fit is run on the CPU.

Nothing here imports onnxruntime: see :mod:`~qdrant_rerank.inference.gpu.io_binding` for what a
session does.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.inference.gpu.token_budget import FIRST_TOKENS, LEAST_TOKENS, Budget

__all__ = [
    "WIDTH_MULTIPLE",
    "CardSession",
    "GpuPool",
    "HostSession",
    "Inputs",
    "Ran",
    "is_out_of_memory",
    "seconds_of",
]

logger = logging.getLogger(__name__)

Inputs = Mapping[str, NDArray[Any]]

# Padded widths are multiples of this: matrix products of fp16 want eights, and few shapes are few
# plans for the libraries to make. At 182 tokens a pair it costs 4 %, less where pairs are sorted.
WIDTH_MULTIPLE = 16
# Runs that are prepared at once for each card: one is padded and copied while another computes.
RUNS_A_CARD = 2
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
    # What their handles say on a card that is full.
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "bad allocation",
    "std::bad_alloc",
)
TIMINGS = 3  # of which the fastest counts


class HostSession(Protocol):
    """A session on the CPU, which runs any number of feeds at a time."""

    def run(self, feed: Inputs) -> NDArray[Any]:
        """The one output."""
        ...


class CardSession(Protocol):
    """A session that runs one feed at a time."""

    def run(self, feed: Inputs) -> NDArray[Any]:
        """The one output, in memory of the host."""
        ...

    def give_back(self, feed: Inputs) -> None:
        """Run a small feed, and return to the card what memory is then not used."""
        ...


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run gave.

    Attributes:
        output: shape (rows, ...).
        on_cpu: rows that did not fit the card.
    """

    output: NDArray[Any]
    on_cpu: int = 0


class GpuPool:
    """Sessions of one model on one or several cards. Safe to use from many threads.

    Args:
        sessions: one a card.
        open_fallback: opens a session of the same model on the CPU, when it is first needed.
        budget: where the padded tokens of a run are remembered.

    Attributes:
        workers: threads that keep all cards busy.
    """

    def __init__(
        self,
        sessions: Sequence[CardSession],
        *,
        open_fallback: Callable[[], HostSession],
        budget: Budget,
    ) -> None:
        self.workers = RUNS_A_CARD * len(sessions)
        self._free: SimpleQueue[CardSession] = SimpleQueue()
        for session in sessions:
            self._free.put(session)
        self._open_fallback = open_fallback
        self._fallback: HostSession | None = None
        self._budget = budget
        self._lock = threading.Lock()
        # Width of the narrowest pair that did not fit alone; such pairs do not try again.
        self._too_wide: int | None = None

    @property
    def tokens_per_batch(self) -> int:
        """Padded tokens that a run should hold."""
        return self._budget.tokens

    def run(self, feed: Inputs) -> Ran:
        """Run a feed on the card that is free first, in parts if it does not fit.

        Args:
            feed: arrays whose first dimension is pairs, ``input_ids`` among them.

        Raises:
            Exception: onnxruntime's own, of anything but a lack of memory.
        """
        rows, width = feed["input_ids"].shape
        if rows == 1 and self._too_wide is not None and width >= self._too_wide:
            return Ran(self._on_cpu(feed), 1)
        output = self._on_card(feed)
        if output is not None:
            return Ran(output)
        if rows == 1:
            with self._lock:
                self._too_wide = min(width, self._too_wide or width)
            return Ran(self._on_cpu(feed), 1)
        self._lower_budget(rows, width)
        parts = [self.run(part) for part in _halves(feed)]
        return Ran(
            np.concatenate([part.output for part in parts]), sum(part.on_cpu for part in parts)
        )

    def _on_card(self, feed: Inputs) -> NDArray[Any] | None:
        """The output, of a second try where memory was short; None where it is short again."""
        session = self._free.get()
        try:
            try:
                return session.run(feed)
            except Exception as error:  # onnxruntime's errors share no base
                if not is_out_of_memory(error):
                    raise
            try:
                with suppress(Exception):  # no room for a single row either, or no arena
                    session.give_back(_rows(feed, slice(1)))
                return session.run(feed)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            return None
        finally:
            self._free.put(session)

    def _lower_budget(self, rows: int, width: int) -> None:
        """To half of a run that did not fit, and remember it.

        A small one fails for want of what others use just now, which says nothing of the budget.
        """
        size = rows * width
        with self._lock:
            before = self._budget.tokens
            tokens = max(LEAST_TOKENS, size // 2)
            # The other half of a run has said the same, or it was a small one.
            if tokens >= before or (size < FIRST_TOKENS and size <= before // 2):
                return
            self._budget.set(tokens, self._budget.way)
        logger.warning(
            "A run of %d pairs of %d tokens did not fit the card; runs hold %d tokens from now on.",
            rows,
            width,
            tokens,
        )

    def _on_cpu(self, feed: Inputs) -> NDArray[Any]:
        with self._lock:
            if self._fallback is None:
                self._fallback = self._open_fallback()
        return self._fallback.run(feed)


def seconds_of(session: CardSession, feed: Inputs) -> float | None:
    """The shortest of some runs; None where it does not fit, or the model refuses it."""
    taken = []
    try:
        for _ in range(TIMINGS):
            began = time.perf_counter()
            session.run(feed)
            taken.append(time.perf_counter() - began)
    except Exception as error:  # an odd model is no reason to fail: the default budget serves
        logger.info("A run of shape %s failed: %s", feed["input_ids"].shape, error)
        return None
    return min(taken)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether onnxruntime failed for want of memory."""
    return any(text in str(error) for text in OUT_OF_MEMORY)


def _rows(feed: Inputs, at: slice) -> Inputs:
    """Some pairs; what is not by pair, such as a number of logits, as it is."""
    rows = len(feed["input_ids"])
    return {
        name: array[at] if array.ndim > 1 and len(array) == rows else array
        for name, array in feed.items()
    }


def _halves(feed: Inputs) -> tuple[Inputs, Inputs]:
    """The first and the last rows, each without the columns that are padding in all of them."""
    rows = len(feed["input_ids"])

    def part(at: slice) -> Inputs:
        half = _rows(feed, at)
        if "attention_mask" not in half:
            return half
        kept = half["attention_mask"].any(axis=0)
        shape = half["input_ids"].shape
        return {
            name: array[:, kept] if array.shape == shape else array for name, array in half.items()
        }

    return part(slice(None, rows // 2)), part(slice(rows // 2, None))
