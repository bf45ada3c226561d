"""Texts of hits with the states that their collection stores of them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_rerank.cross_encoder.document_states import is_current
from qdrant_rerank.cross_encoder.state_scorer import StoredText
from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.qdrant.schema import CollectionStates
from qdrant_rerank.types import PointId

__all__ = ["LateText", "Stored", "StoredLater", "fetch_late", "states_encoder"]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a collection stores of the candidates.

    Attributes:
        states: the collection's record of them.
        records: of the candidates that have one, by their ids.
    """

    states: CollectionStates
    records: Mapping[PointId, bytes]

    def text(self, point_id: PointId, text: str) -> StoredText:
        """Return a text with its record, if that is of this very text."""
        states = self.states
        record = self.record(point_id, text)
        return StoredText.of(text, states.model, states.precision, record)

    def record(self, point_id: PointId, text: str) -> bytes | None:
        """Return the record of a text; None if there is none of this very text."""
        states, record = self.states, self.records.get(point_id)
        if record is None or not is_current(record, text, states.model, states.precision):
            return None
        return record


@dataclass(frozen=True, slots=True)
class StoredLater:
    """What a collection stores of those candidates that reach a stage of a cascade.

    Attributes:
        states: the collection's record of its states.
        fetch: awaited with ids of points; None if states are no longer stored.
        compute: calls a function that keeps a processor busy: in a thread if there is an event
            loop.
    """

    states: CollectionStates
    fetch: Callable[[Sequence[PointId]], Awaitable[Stored | None]]
    compute: Callable[..., Awaitable[Any]]

    def text(self, point_id: PointId, text: str) -> StoredText:
        """Return a text whose record is fetched when the stage is to score it."""
        made = LateText.of(text, self.states.model, self.states.precision, None)
        made.point_id, made.later = point_id, self
        return made


class LateText(StoredText):
    """A text whose record :func:`fetch_late` puts into it.

    Attributes:
        by_states: whether the stage whose states are stored scores it.
    """

    point_id: PointId
    later: StoredLater
    by_states = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out the search that fetches: a stage of the user's may send texts to a process."""
        return StoredText.of, (str(self), self.model, self.precision, self.record)

    def take(self, stored: Stored | None) -> None:
        """Take what is stored of it."""
        self.by_states = True
        if stored is None:
            self.model = b""
            return
        self.model, self.precision = stored.states.model, stored.states.precision
        self.record = stored.record(self.point_id, self)


async def fetch_late(stage: Any, texts: Sequence[str]) -> list[LateText]:
    """Fetch the states of texts that a stage of a cascade is about to score, if they are its own.

    Nothing waits if the driver of the search never does.

    Returns:
        The texts, all of them, in order; none if nothing was fetched.
    """
    late = [text for text in texts if isinstance(text, LateText) and not text.by_states]
    encoder = states_encoder(stage)
    if not late or encoder is None:
        return []
    if late[0].model != encoder.states_models.get(late[0].precision):
        return []
    later = late[0].later
    stored = await later.fetch([text.point_id for text in late])
    await later.compute(_take_all, late, stored)
    return late


def _take_all(texts: Sequence[LateText], stored: Stored | None) -> None:
    for text in texts:  # the checksum of a record reads all of it
        text.take(stored)


def states_encoder(reranker: Any) -> TextCrossEncoder | None:
    """Return the cross-encoder of a reranker, which may make states; None without one.

    A peer may name one that it runs, as ``states_encoder``; it gets texts with their states.

    Whether one can is known when it is asked for its states.
    """
    if isinstance(reranker, TextCrossEncoder):
        return reranker
    encoder: TextCrossEncoder | None = getattr(reranker, "states_encoder", None)
    return encoder
