"""Work that ends early: at a deadline, or when nobody waits for its result any more."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import shown

__all__ = [
    "LONGEST_S",
    "NO_DEADLINE",
    "Cancellation",
    "Deadline",
    "cancellation",
    "deadline_of_call",
    "within",
]

#: Seconds (three years). More counts as no deadline: sockets and locks take no timeout above 1e10.
LONGEST_S = 10**8

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time, on the clock of ``time.monotonic``.

    Attributes:
        at: seconds on that clock; infinity means no deadline.
    """

    at: float = math.inf

    @classmethod
    def after(cls, deadline_s: Any) -> "Deadline":
        """Return the deadline that is so many seconds from now.

        None, and more than ``LONGEST_S`` seconds, mean no deadline.

        Raises:
            InvalidInputError: ``deadline_s`` is not a number above 0.
        """
        if deadline_s is None:
            return NO_DEADLINE
        if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float | np.number):
            raise InvalidInputError(
                f"deadline_s is {shown(deadline_s)}; expected seconds, such as 0.2, or None."
            )
        if not deadline_s > 0:
            raise InvalidInputError(
                f"deadline_s is {shown(deadline_s)}; expected seconds above 0, or None for no "
                "deadline."
            )
        return NO_DEADLINE if deadline_s > LONGEST_S else cls(time.monotonic() + float(deadline_s))

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; None for no deadline."""
        if self.at == math.inf:
            return None
        return max(0.0, self.at - time.monotonic())

    def sooner(self, seconds: float | None) -> "Deadline":
        """Return the earlier of this deadline and so many seconds from now; None means this."""
        if seconds is None or seconds > LONGEST_S:
            return self
        return Deadline(min(self.at, time.monotonic() + seconds))

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at


NO_DEADLINE = Deadline()

_deadline: ContextVar[Deadline] = ContextVar("deadline", default=NO_DEADLINE)


@contextmanager
def within(deadline: Deadline) -> Iterator[None]:
    """Let the work inside know its deadline, through other people's code and threads too."""
    before = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(before)


def deadline_of_call() -> Deadline:
    """Return the deadline of the calling work; ``NO_DEADLINE`` if it has none."""
    return _deadline.get()


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Stops work in other threads after its caller has gone.

    It reaches everything that the bound work calls, through other people's code too. It is checked
    between two batches of a model.
    """

    _event: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop the work: nobody waits any more."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether the work was stopped."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise asyncio.CancelledError if the work was stopped."""
        if self._event.is_set():
            raise asyncio.CancelledError

    def bind(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Return the work for another thread: in the caller's context, and stopped by this."""
        context = copy_context()
        context.run(_current.set, self)

        def bound() -> Result:
            self.check()
            return context.run(work)

        return bound


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def cancellation() -> Cancellation | None:
    """Return the Cancellation of the calling work; None if it has none."""
    return _current.get()
