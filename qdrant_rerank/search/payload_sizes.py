"""Decides whether to fetch texts first and the rest later, which may send less. No I/O."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from qdrant_rerank.payload import TextChoice

__all__ = ["PayloadSizes"]

# Payloads of a collection that are measured; they tell the average well enough.
SAMPLE = 32
# Bytes that the second request must save. At 100 Mbit/s that is 1.3 ms, about a round trip.
WORTH_A_REQUEST = 16 * 1024


class PayloadSizes:
    """Sizes of the payloads of one collection, learned from the first answers with whole ones.

    Args:
        choice: reads the part that a reranker needs.
    """

    def __init__(self, choice: TextChoice) -> None:
        self._choice = choice
        self._count = 0
        self._whole = 0
        self._needed = 0

    @property
    def known(self) -> bool:
        """Whether nothing more has to be learned."""
        return self._choice.text.fields is None or self._count >= SAMPLE

    def learn(self, payloads: Iterable[Mapping[str, Any] | None]) -> None:
        """Measure whole payloads, until enough are known."""
        for payload in payloads:
            if self._count >= SAMPLE:
                return
            self._count += 1
            self._whole += _bytes(payload)
            self._needed += _bytes(self._choice.text(payload))

    def saved(self, candidates: int, limit: int) -> int:
        """Return the bytes that two requests save on average; negative if they cost more.

        Args:
            candidates: points whose text is needed.
            limit: points whose payload is returned.
        """
        if self._count == 0:
            return 0
        spared = candidates * (self._whole - self._needed) - limit * self._whole
        return round(spared / self._count)

    def pays(self, candidates: int, limit: int) -> bool:
        """Whether two requests are better than one; False until something is known."""
        return (
            self._choice.text.fields is not None and self.saved(candidates, limit) > WORTH_A_REQUEST
        )


def _bytes(value: Any) -> int:
    """Length as JSON; what JSON cannot hold counts as its text."""
    return len(json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace"))
