"""Points whose ids are known: texts of queries, what is shown of hits, look-ups."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any
from uuid import UUID

from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import PayloadText, TextChoice, field_paths
from qdrant_rerank.qdrant.recall_request import Scope
from qdrant_rerank.qdrant.schema import STATES_FIELD, are_states
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.types import PointId, RerankedPoint
from qdrant_rerank.utils.validation import shown

__all__ = [
    "Query",
    "WithPayload",
    "WithVectors",
    "completed",
    "given",
    "hidden",
    "names",
    "read_consistency",
    "read_texts",
    "remove_states",
    "require_selected",
    "retrieve_points",
    "selector",
    "text_payload",
]

WithPayload = bool | Sequence[str] | models.PayloadSelector
WithVectors = bool | Sequence[str]
#: A text to search for, or the id of a point to find similar ones.
Query = str | int | UUID


async def read_texts(
    driver: Driver,
    collection: str,
    queries: Sequence[Query],
    choice: TextChoice,
    scope: Scope,
    options: SearchOptions,
    *,
    required: bool,
) -> list[str]:
    """Return the queries as texts: of a point's id, the point's own text.

    Args:
        driver: asks Qdrant.
        collection: name of the collection that is searched.
        queries: texts, or ids of points.
        choice: reads the texts of points; the points of the collection itself settle it.
        scope: where the points are looked up.
        options: options of the search.
        required: whether every point must have a text.

    Raises:
        InvalidInputError: there is no such point.
        MissingTextError: it has no text, where that is required.
    """
    ids = [query for query in queries if not isinstance(query, str)]
    lookup = scope.lookup_from
    home = collection if lookup is None else lookup.collection
    found: dict[str, models.Record] = {}
    text = choice.text
    if ids:
        records = await retrieve_points(
            driver,
            home,
            ids,
            options,
            with_payload=text_payload(text),
            shard_key=scope.shard_key_selector if lookup is None else lookup.shard_key,
        )
        found = {str(point_id): record for point_id, record in records.items()}
        if lookup is None and not choice.settled:
            choice.look(record.payload for record in records.values())
            text = choice.text
    texts = []
    for query in queries:
        if isinstance(query, str):
            texts.append(query)
            continue
        if str(query) not in found:
            raise InvalidInputError(
                f"query is the id {query}, but {home!r} has no such point. A text to search "
                "for is a str; put a space before one that looks like an id."
            )
        payload = found[str(query)].payload
        what = f"Point {query!r}, the query,"
        texts.append(text.require(payload, what) if required else text(payload) or "")
    return texts


async def retrieve_points(
    driver: Driver,
    collection: str,
    ids: Iterable[PointId],
    options: SearchOptions,
    *,
    with_payload: WithPayload,
    with_vectors: WithVectors = False,
    shard_key: Any = None,
) -> dict[PointId, models.Record]:
    """Return points that still exist by their ids, with the payload and vectors asked for."""
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return {}
    records = await driver.request(
        lambda client, timeout: client.retrieve(
            collection,
            wanted,
            with_payload=selector(with_payload),
            with_vectors=names(with_vectors),
            timeout=timeout,
            **given(consistency=read_consistency(options), shard_key_selector=shard_key),
        )
    )
    remove_states(record.payload for record in records)
    return {record.id: record for record in records}


def completed(
    order: Iterable[RerankedPoint], records: Mapping[PointId, models.Record]
) -> list[RerankedPoint]:
    """Return points with the payload and the vectors that were fetched for them.

    A point that has changed since it was retrieved keeps the text that its score is of. One that
    was deleted keeps its place, without a payload.
    """
    finished = []
    for point in order:
        record = records.get(point.id)
        payload = None if record is None else record.payload
        if payload and point.payload:
            payload = _as_recalled(payload, point.payload)
        vector = None if record is None else record.vector
        finished.append(point.model_copy(update={"payload": payload, "vector": vector}))
    return finished


def _as_recalled(fetched: Mapping[str, Any], recalled: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fetched payload, with the texts that both have as they were retrieved."""
    merged = dict(fetched)
    for name in merged.keys() & recalled.keys():
        ours, theirs = merged[name], recalled[name]
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            merged[name] = _as_recalled(ours, theirs)
        elif not isinstance(theirs, list):  # which is no text, and may have been retrieved in part
            merged[name] = theirs
    return merged


def text_payload(text: PayloadText) -> bool | list[str]:
    """Return the fields that hold the text; True, for all, where no path tells."""
    return (None if text.fields is None else field_paths(text.fields)) or True


def require_selected(name: str, value: Any) -> None:
    """Raise InvalidInputError unless a value selects payload, or vectors, to return."""
    kinds: Any = bool
    if name == "with_payload":
        kinds = bool | models.PayloadSelectorInclude | models.PayloadSelectorExclude
    if isinstance(value, str):
        raise InvalidInputError(f"{name} is one str; expected names. Pass [{value!r}].")
    several = isinstance(value, Sequence | Set)
    if not isinstance(value, kinds) and not (
        several and all(isinstance(item, str) for item in value)
    ):
        raise InvalidInputError(
            f"{name} is {shown(value)}; expected True, False or a list of names."
        )


def names(with_vectors: WithVectors) -> bool | list[str]:
    """Return ``with_vectors`` as the Query API takes it."""
    return with_vectors if isinstance(with_vectors, bool) else list(with_vectors)


def selector(with_payload: WithPayload) -> bool | list[str] | models.PayloadSelector:
    """Return ``with_payload`` as the Query API takes it."""
    if isinstance(
        with_payload, bool | models.PayloadSelectorInclude | models.PayloadSelectorExclude
    ):
        return with_payload
    return list(with_payload)


def hidden(
    payload: bool | Sequence[str] | models.PayloadSelector,
) -> bool | list[str] | models.PayloadSelector:
    """Return a choice of payload, as the Query API takes it, without the states of documents."""
    if payload is True:
        return models.PayloadSelectorExclude(exclude=[STATES_FIELD])
    if isinstance(payload, models.PayloadSelectorExclude):
        return models.PayloadSelectorExclude(exclude=[*payload.exclude, STATES_FIELD])
    named = payload.include if isinstance(payload, models.PayloadSelectorInclude) else payload
    if isinstance(named, bool):
        return named
    # No name at all would choose all of the payload in some clients.
    return [name for name in named if name.partition(".")[0] != STATES_FIELD] or False


def remove_states(payloads: Iterable[dict[str, Any] | None]) -> bool:
    """Take states out of payloads that came with them; returns whether any had.

    They come with the points of a collection that was not known to store states.
    """
    with_them = [each for each in payloads if each and are_states(each.get(STATES_FIELD))]
    for payload in with_them:
        del payload[STATES_FIELD]
    return bool(with_them)


def read_consistency(options: SearchOptions) -> models.ReadConsistency | None:
    """Return how many replicas must agree, as gRPC takes it: it knows no kind by name."""
    wanted = options.consistency
    return models.ReadConsistencyType(wanted) if isinstance(wanted, str) else wanted


def given(**arguments: Any) -> dict[str, Any]:
    """Return the arguments that are not None, so that a call without options has none."""
    return {name: value for name, value in arguments.items() if value is not None}
