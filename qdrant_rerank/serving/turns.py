"""Which request has the next turn at a model.

The shortest requests go first, so that one with 20 documents does not wait for one with 1,000.
Among those of about the same length the first goes first: were it the shortest to the token, the
longest of them would wait until nobody else does, and at a load of 70 % that takes ten times as
long as the slowest hundredth of the others.

The request that came first of all is owed an eighth of the model, from the moment at which it is
the first, so that shorter requests without end do not hold it up for ever. The eighth is counted in
tokens, since the batches of a long request may be long ones, too. What it had beyond its eighth
while nobody else wanted a turn counts: it is not owed again as soon as others come.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

__all__ = ["SIMILAR", "Turns", "in_order"]

SIMILAR = 2  # times as many tokens as the shortest request has: about the same length
SHARE = 1 / 8  # of the tokens, which the first request is owed


class Waiting(Protocol):
    """A request that wants a turn."""

    @property
    def number(self) -> int:
        """Place in the order of arrival."""

    @property
    def size(self) -> int:
        """Tokens that it came with."""


One = TypeVar("One", bound=Waiting)


def in_order(waiting: Iterable[One]) -> Iterator[One]:
    """Yield requests as they would be done if no other came, and the first were owed nothing."""
    by_size = sorted(waiting, key=lambda one: one.size)
    done: set[int] = set()
    able: list[tuple[int, int]] = []  # numbers of requests, and their places in by_size
    shortest = seen = 0
    for _ in by_size:
        while by_size[shortest].number in done:
            shortest += 1
        most = SIMILAR * by_size[shortest].size
        while seen < len(by_size) and by_size[seen].size <= most:
            heapq.heappush(able, (by_size[seen].number, seen))
            seen += 1
        number, place = heapq.heappop(able)
        done.add(number)
        yield by_size[place]


class Turns:
    """The order of turns, and what the first request is owed."""

    def __init__(self) -> None:
        self._first = -1
        self._owed = 0.0  # tokens
        self._last_batch = 0  # tokens

    def next(self, able: Sequence[One], first: int) -> One:
        """Choose whose turn it is.

        Args:
            able: requests that can use a turn, in the order of arrival; at least one.
            first: number of the request that came first, whether or not it can use a turn.
        """
        if first != self._first:
            self._first, self._owed = first, 0.0
        if able[0].number == first and self._owed > 0:
            return able[0]
        most = SIMILAR * min(one.size for one in able)
        return next(one for one in able if one.size <= most)

    def took(self, number: int, tokens: int | None = None) -> None:
        """Count a turn.

        Args:
            number: of the request that has it.
            tokens: of its batch; None for a turn in which it is tokenised, which takes as long as
                a batch at most, and counts as the last one.
        """
        if tokens is None:
            tokens = self._last_batch
        else:
            self._last_batch = tokens
        self._owed += SHARE * tokens
        if number == self._first:
            self._owed -= tokens
