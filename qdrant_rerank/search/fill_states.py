"""Adds states to the documents of a collection, a page of points at a time, while it is searched.

A page is written before the next one is read, so that whoever comes after an interruption goes on
where it ended. Nothing else of a point is touched. A text that changes meanwhile keeps states of
what it was, which nothing uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from qdrant_client import models

from qdrant_rerank.cross_encoder.document_states import is_current
from qdrant_rerank.errors import InvalidInputError, QdrantRequestError
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import TextChoice
from qdrant_rerank.qdrant.lookups import retrieve_points, text_payload
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.request_sizes import cut_by_size, named_if_too_large
from qdrant_rerank.qdrant.schema import STATES_FIELD, STATES_KEY, CollectionStates, are_states
from qdrant_rerank.qdrant.stored_states import (
    StatesEncoder,
    states_payload,
    stored_record,
)
from qdrant_rerank.qdrant.text_source import settle_for_add
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.qdrant.upload import BATCH_RETRIES
from qdrant_rerank.types import PointId, StatesPrecision
from qdrant_rerank.utils.progress import tqdm

__all__ = ["FilledStates", "fill_states"]


@dataclass(slots=True)
class FilledStates:
    """What became of the points of a collection.

    Attributes:
        points: points that were read.
        current: those that had current states already.
        made: those that got states now.
        without_text: those that have no text.
    """

    points: int = 0
    current: int = 0
    made: int = 0
    without_text: int = 0


async def fill_states(
    driver: Driver,
    first: FirstStage,
    choice: TextChoice,
    encoder: StatesEncoder,
    *,
    precision: StatesPrecision | None,
    batch_size: int,
    progress: bool | None,
) -> FilledStates:
    """Record whose states a collection stores, and add those that are not there or not current.

    Args:
        driver: asks Qdrant.
        first: knows the collection.
        choice: where a payload's text is.
        encoder: makes the states.
        precision: of the states; None for what the collection records, or else int8.
        batch_size: points that are read, and written, at a time.
        progress: shows a progress bar on stderr; None shows one if stderr is a terminal.

    Raises:
        InvalidInputError: the lower layers of the model do not see each text alone, or the
            collection has data of its own in the field of the states. Nothing was written.
        QdrantError: Qdrant failed; what was written stays.
    """
    first.forget()
    schema = await first.schema(driver)
    recorded = schema.states
    chosen = precision or (recorded.precision if recorded is not None else "int8")
    maker = await driver.compute(encoder.states, chosen)
    states = CollectionStates(chosen, encoder.states_models[chosen], encoder.model_name)
    await settle_for_add(driver, choice, schema)
    if recorded is None:
        await _require_free(driver, first.collection, batch_size)
    if states != recorded:
        metadata = {STATES_KEY: states.describe()}
        await driver.request(
            lambda client, _: client.update_collection(first.collection, metadata=metadata)
        )
        first.forget()
    fields = text_payload(choice.text)
    wanted = fields if isinstance(fields, bool) else [*fields, STATES_FIELD]
    filled = FilledStates()
    offset: Any = None
    total = (await driver.request(lambda c, _: c.get_collection(first.collection))).points_count
    hide = None if progress is None else not progress
    with tqdm(total=total, unit="doc", desc="states", disable=hide) as bar:
        while True:
            page, offset = await driver.request(
                partial(_scroll, first.collection, batch_size, offset, wanted),
                retries=BATCH_RETRIES,
            )
            texts, todo = await driver.compute(_to_make, page, choice, states)
            filled.without_text += len(page) - len(texts)
            filled.current += len(texts) - len(todo)
            if todo:
                records = await driver.compute(maker.encode, [texts[one] for one in todo], chosen)
                payloads = dict(zip(todo, map(states_payload, records), strict=True))
                filled.made += await _write(driver, first.collection, payloads)
            filled.points += len(page)
            bar.update(len(page))
            if offset is None:
                return filled


async def _require_free(driver: Driver, collection: str, batch_size: int) -> None:
    """Raise InvalidInputError if points have other data than states in the field of the states."""
    offset: Any = None
    while True:
        page, offset = await driver.request(
            partial(_scroll, collection, batch_size, offset, [STATES_FIELD]), retries=BATCH_RETRIES
        )
        for point in page:
            payload = point.payload or {}
            if STATES_FIELD in payload and not are_states(payload[STATES_FIELD]):
                raise InvalidInputError(
                    f"Point {point.id} of {collection!r} has a field {STATES_FIELD!r} of its own, "
                    "which its states would take the place of. Rename it in the collection."
                )
        if offset is None:
            return


def _to_make(
    page: Sequence[models.Record], choice: TextChoice, states: CollectionStates
) -> tuple[dict[PointId, str], list[PointId]]:
    """Return the texts of points by their ids, and the ids of those without current states."""
    texts: dict[PointId, str] = {}
    todo = []
    for point in page:
        text = choice.text(_without_states(point.payload))
        if not text:
            continue
        texts[point.id] = text
        record = stored_record(point.payload)
        if record is None or not is_current(record, text, states.model, states.precision):
            todo.append(point.id)
    return texts, todo


def _scroll(
    collection: str, limit: int, offset: Any, wanted: Any, client: Any, timeout: int | None
) -> Any:
    return client.scroll(
        collection,
        limit=limit,
        offset=offset,
        with_payload=wanted,
        with_vectors=False,
        timeout=timeout,
    )


def _without_states(payload: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (payload or {}).items() if name != STATES_FIELD}


async def _write(driver: Driver, collection: str, payloads: dict[PointId, dict[str, Any]]) -> int:
    """Set one field of each point; returns how many points there were."""
    writes = [
        models.SetPayloadOperation(set_payload=models.SetPayload(payload=own, points=[point]))
        for point, own in payloads.items()
    ]
    return sum([await _write_part(driver, collection, part) for part in cut_by_size(writes)])


async def _write_part(
    driver: Driver, collection: str, part: list[models.SetPayloadOperation]
) -> int:
    try:
        await driver.request(partial(_set, collection, part), retries=BATCH_RETRIES)
    except QdrantRequestError as error:  # one of them may have been deleted meanwhile
        ids = [_point(one) for one in part]
        there = await retrieve_points(driver, collection, ids, SearchOptions(), with_payload=False)
        if len(there) == len(part):
            if len(part) == 1:
                raise named_if_too_large(ids[0], part[0], error) from error.__cause__
            raise
        part = [one for one in part if _point(one) in there]
        if part:
            await driver.request(partial(_set, collection, part), retries=BATCH_RETRIES)
    return len(part)


def _point(write: models.SetPayloadOperation) -> PointId:
    """The point that an operation writes to."""
    [point] = write.set_payload.points or []
    return point


def _set(
    collection: str, part: list[models.SetPayloadOperation], client: Any, timeout: int | None
) -> Any:
    return client.batch_update_points(collection, part, wait=True)
