"""How long a call may take: a point in time that all of its steps look at."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from qdrant_rerank.errors import InvalidInputError

__all__ = ["NEVER", "Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time, on the clock of ``time.monotonic``.

    Attributes:
        at: seconds on that clock; infinity for no deadline.
    """

    at: float = math.inf

    @classmethod
    def after(cls, deadline_s: Any) -> "Deadline":
        """So many seconds from now; None for no deadline.

        Raises:
            InvalidInputError: not a number above 0.
        """
        if deadline_s is None:
            return NEVER
        if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float | np.number):
            raise InvalidInputError(
                f"deadline_s is {deadline_s!r:.80}; expected seconds, such as 0.2, or None."
            )
        if not deadline_s > 0:
            raise InvalidInputError(
                f"deadline_s is {deadline_s}; expected seconds above 0, or None for no deadline."
            )
        return cls(time.monotonic() + float(deadline_s))

    @property
    def left(self) -> float | None:
        """Seconds left, 0 or more, as a timeout takes them; None for no deadline."""
        if self.at == math.inf:
            return None
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at


NEVER = Deadline()
