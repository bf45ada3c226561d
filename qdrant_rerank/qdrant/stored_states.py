"""States of documents, stored in the payload beside their vectors, in a field of our own.

In the payload, since a multivector is sent as one text, or one float, for each of its numbers: see
``benchmarks/results/states_place.md``. The field is never returned with a hit; it is fetched for
the hits that are scored.
"""

import binascii
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from qdrant_client import models

from qdrant_rerank.errors import QdrantError
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.qdrant.lookups import retrieve_points
from qdrant_rerank.qdrant.schema import STATES_FIELD, CollectionStates
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.types import PointId, StatesPrecision

__all__ = [
    "AddStates",
    "StatesEncoder",
    "encoded",
    "fetch_states",
    "shown_states",
    "stored_record",
    "with_states",
]

logger = logging.getLogger(__name__)

#: Returns points with the states of their texts.
AddStates = Callable[[Sequence[models.PointStruct], Sequence[str]], list[models.PointStruct]]


class RecordEncoder(Protocol):
    """Makes the records of documents."""

    def encode(self, texts: Sequence[str], precision: StatesPrecision) -> list[bytes]:
        """Return the record of each text, in order."""
        ...


@runtime_checkable
class StatesEncoder(Protocol):
    """A cross-encoder whose lower layers may see each text alone."""

    @property
    def model_name(self) -> str:
        """Its name."""
        ...

    @property
    def states_model(self) -> bytes:
        """Digest of what decides a state."""
        ...

    def states(self) -> RecordEncoder:
        """Return what makes the records; raises InvalidInputError for another kind of model."""
        ...


def encoded(record: bytes) -> str:
    """Return a record as the payload holds it."""
    return b64encode(record).decode("ascii")


def stored_record(payload: Any) -> bytes | None:
    """Return the record of a payload; None if it has none, or something else."""
    kept = payload.get(STATES_FIELD) if isinstance(payload, dict) else None
    if not isinstance(kept, str):
        return None
    try:
        return b64decode(kept, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None


def with_states(
    points: Sequence[models.PointStruct],
    texts: Sequence[str],
    encoder: StatesEncoder,
    states: CollectionStates,
) -> list[models.PointStruct]:
    """Return points with the states of their texts; a point without text has none."""
    rows = [row for row, text in enumerate(texts) if text]
    records = encoder.states().encode([texts[row] for row in rows], states.precision)
    made = list(points)
    for row, record in zip(rows, records, strict=True):
        payload = {**(points[row].payload or {}), STATES_FIELD: encoded(record)}
        made[row] = points[row].model_copy(update={"payload": payload})
    return made


def shown_states(payloads: Iterable[dict[str, Any] | None]) -> bool:
    """Take the states out of payloads that have come with them; returns whether any had."""
    taken = [payload.pop(STATES_FIELD, None) for payload in payloads if payload]
    return any(states is not None for states in taken)


async def fetch_states(
    driver: Driver,
    collection: str,
    ids: Iterable[PointId],
    options: SearchOptions,
    shard_key: Any = None,
) -> dict[PointId, bytes]:
    """Return the records of points that have one, by their ids.

    If Qdrant does not answer, there are none: then their texts are read.
    """
    try:
        found = await retrieve_points(
            driver,
            collection,
            ids,
            options,
            with_payload=[STATES_FIELD],
            shard_key=shard_key,
        )
    except QdrantError as error:
        logger.warning("The states of %r could not be fetched: %s", collection, error)
        return {}
    return {
        point_id: record
        for point_id, point in found.items()
        if (record := stored_record(point.payload)) is not None
    }
