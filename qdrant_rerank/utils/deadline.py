"""When work ends early: at a deadline, or when nobody waits for its result any more."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from qdrant_rerank.errors import InvalidInputError

__all__ = [
    "LONGEST_S",
    "NO_DEADLINE",
    "Cancellation",
    "Deadline",
    "cancellation",
]

#: Seconds, three years; more is no deadline. Timeouts of sockets and locks end at some 1e10.
LONGEST_S = 10**8

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time, on the clock of ``time.monotonic``.

    Attributes:
        at: seconds on that clock; infinity for no deadline.
    """

    at: float = math.inf

    @classmethod
    def after(cls, deadline_s: Any) -> "Deadline":
        """So many seconds from now; none for None, and for more than ``LONGEST_S``.

        Raises:
            InvalidInputError: not a number above 0.
        """
        if deadline_s is None:
            return NO_DEADLINE
        if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float | np.number):
            raise InvalidInputError(
                f"deadline_s is {deadline_s!r:.80}; expected seconds, such as 0.2, or None."
            )
        if not deadline_s > 0:
            raise InvalidInputError(
                f"deadline_s is {deadline_s}; expected seconds above 0, or None for no deadline."
            )
        return NO_DEADLINE if deadline_s > LONGEST_S else cls(time.monotonic() + float(deadline_s))

    @property
    def remaining(self) -> float | None:
        """Seconds left, 0 or more, as a timeout takes them; None for no deadline."""
        if self.at == math.inf:
            return None
        return max(0.0, self.at - time.monotonic())

    def sooner(self, seconds: float | None) -> "Deadline":
        """This, or so many seconds from now if that is earlier; None for this."""
        if seconds is None or seconds > LONGEST_S:
            return self
        return Deadline(min(self.at, time.monotonic() + seconds))

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at


NO_DEADLINE = Deadline()


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Stops work in other threads whose caller has gone.

    It reaches all that is called by work that it is bound to, code of others in between included,
    and is looked at between two runs of a model.
    """

    _event: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise asyncio.CancelledError once nobody waits any more."""
        if self._event.is_set():
            raise asyncio.CancelledError

    def bind(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """The same work for another thread, in the caller's context, and stopped by this."""
        context = copy_context()
        context.run(_current.set, self)

        def bound() -> Result:
            self.check()
            return context.run(work)

        return bound


_current: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)


def cancellation() -> Cancellation | None:
    """What may stop the work that this is called from; None where nothing may."""
    return _current.get()
