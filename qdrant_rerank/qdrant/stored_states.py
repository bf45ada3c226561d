"""States of documents, stored in the payload beside their vectors, in a field of our own.

In the payload, as base64: a multivector is sent as one text, or one float, for each of its numbers,
and takes many times as long (``benchmarks/stored_states.py --only place``). The field is never
returned with a hit; it is fetched for the hits that are scored.
"""

import logging
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError, QdrantError
from qdrant_rerank.hub.registry import supported_models
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.qdrant.lookups import given, read_consistency
from qdrant_rerank.qdrant.schema import (
    STATES,
    STATES_FIELD,
    CollectionStates,
)
from qdrant_rerank.qdrant.transport.client import is_local
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.qdrant.transport.internals import uncompressed_points
from qdrant_rerank.types import PointId, StatesPrecision

__all__ = [
    "AddStates",
    "StatesEncoder",
    "encoded",
    "fetch_states",
    "required_encoder",
    "states_payload",
    "stored_record",
    "with_states",
]

logger = logging.getLogger(__name__)

RECORD = f"{STATES_FIELD}.{STATES}"

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
    def states_models(self) -> Mapping[StatesPrecision, bytes]:
        """Digests of what decides a state, by the precisions of states that it makes."""
        ...

    def states(self, precision: StatesPrecision | None = None) -> RecordEncoder:
        """Return what makes records in a precision, or in any.

        Raises:
            InvalidInputError: the model makes none, or none of the precision.
        """
        ...


def required_encoder(encoder: StatesEncoder | None) -> StatesEncoder:
    """Return what makes the states.

    Raises:
        InvalidInputError: there is none.
    """
    if encoder is None:
        grown = ", ".join(spec.model for spec in supported_models() if spec.bi_encoder)
        raise InvalidInputError(
            "The searcher's reranker is no TextCrossEncoder, and no Cascade of one, so it makes no "
            "states of documents. Pass a reranker whose lower layers see each text alone, one of "
            f"{grown}, or leave document_states out."
        )
    return encoder


def encoded(record: bytes) -> str:
    """Return a record as the payload holds it."""
    return b64encode(record).decode("ascii")


def stored_record(payload: Any) -> bytes | None:
    """Return the record of a payload; None if it has none, or something else."""
    kept = payload.get(STATES_FIELD) if isinstance(payload, dict) else None
    kept = kept.get(STATES) if isinstance(kept, dict) else None
    if not isinstance(kept, str):
        return None
    try:
        return a2b_base64(kept)  # its checksum tells whether it is whole
    except ValueError:
        return None


def states_payload(record: bytes) -> dict[str, Any]:
    """Return the payload that stores a record."""
    return {STATES_FIELD: {STATES: encoded(record)}}


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
        payload = {**(points[row].payload or {}), **states_payload(record)}
        made[row] = points[row].model_copy(update={"payload": payload})
    return made


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
    wanted = list(dict.fromkeys(ids))

    def send(client: Any, timeout: int | None) -> Any:
        points = None if is_local(client) else uncompressed_points(client)
        if points is None:
            return client.retrieve(
                collection,
                wanted,
                with_payload=[RECORD],
                with_vectors=False,
                timeout=timeout,
                **given(consistency=read_consistency(options), shard_key_selector=shard_key),
            )
        return points.get_points(
            collection_name=collection,
            consistency=read_consistency(options),
            point_request=models.PointRequest(
                ids=wanted, with_payload=[RECORD], with_vector=False, shard_key=shard_key
            ),
            timeout=timeout,
        )

    try:
        answer = await driver.request(send) if wanted else []
    except QdrantError as error:
        logger.warning("The states of %r could not be fetched: %s", collection, error)
        return {}
    return await driver.compute(_records, getattr(answer, "result", answer))


def _records(points: Iterable[models.Record]) -> dict[PointId, bytes]:
    found = ((point.id, stored_record(point.payload)) for point in points)
    return {point_id: record for point_id, record in found if record is not None}
