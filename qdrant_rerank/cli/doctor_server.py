"""The checks of a server or an embedded engine, and of a collection."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

from qdrant_rerank.cli.doctor_finding import MANY, Finding, Kind, name_list
from qdrant_rerank.cross_encoder.document_states import is_current
from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.embedders.bm25 import DEFAULT_AVG_LEN
from qdrant_rerank.errors import MissingTextError
from qdrant_rerank.payload import AUTO, TextChoice
from qdrant_rerank.qdrant.schema import CollectionSchema
from qdrant_rerank.qdrant.server_version import Version, parse_version
from qdrant_rerank.types import StatesPrecision

__all__ = [
    "check_average_length",
    "check_collection",
    "check_filters",
    "check_schema",
    "check_states",
    "check_strict_mode",
    "check_texts",
    "check_versions",
    "key_finding",
    "list_collections",
]

#: Least number of points that make a server without a graph slow.
NEEDS_GRAPH = 20_000
LISTED = 50  # collections in the list of all
BATCH = 256  # documents per request of an ``add``
#: Ratio of the average lengths, true and recorded, from which ranking suffers.
FAR = 1.5


def check_versions(server: str, client: str) -> Iterator[Finding]:
    """Check the server's version against the client's: they may be one minor version apart.

    Args:
        server: version of the server.
        client: version of qdrant-client.
    """
    ours, theirs = parse_version(client), parse_version(server)
    seen = f"Qdrant {server}, qdrant-client {client}."
    if ours is None or theirs is None or _compatible(ours, theirs):
        yield Finding("server", False, seen)
        return
    fix = "Upgrade the server." if theirs < ours else "Upgrade qdrant-client."
    yield Finding("server", True, f"{seen} They are more than one minor version apart.", fix)


def key_finding(error: Exception, environment: Mapping[str, str]) -> Finding:
    """Return the finding for an answer of 401 or 403, which differs with a key and without one."""
    if environment.get("QDRANT_API_KEY"):
        fix = (
            "QDRANT_API_KEY has a key that the server does not accept for this. Set the right one."
        )
    else:
        fix = "Set QDRANT_API_KEY to a key of the server."
    return Finding("server", True, str(error), fix)


def list_collections(names: Sequence[str]) -> Finding:
    """Return the collections of a server or an engine as a finding."""
    if not names:
        fix = "'qdrant-rerank index' creates one."
        return Finding("server", False, "It has no collections.", fix)
    count = f"{len(names):,} collections" if len(names) > 1 else "1 collection"
    return Finding("server", False, f"It has {count}: {name_list(sorted(names), LISTED)}.")


def check_collection(info: models.CollectionInfo, *, embedded: bool) -> Iterator[Finding]:
    """Check the state, the size and the graph of a collection.

    Args:
        info: what ``get_collection`` returned.
        embedded: whether the engine runs in this process.
    """
    points = info.points_count or 0
    yield Finding("collection", False, f"{points:,} points, status {info.status.value}.")
    if info.status == models.CollectionStatus.RED:
        yield Finding(
            "collection",
            True,
            "Status red: operations of Qdrant failed.",
            "Read the server's log. The usual causes are a full disk and too little memory.",
        )
    if isinstance(info.optimizer_status, models.OptimizersStatusOneOf1):
        yield Finding(
            "collection",
            True,
            f"The optimiser failed: {info.optimizer_status.error}",
            "Fix what it names, then change any setting of the collection to start it again.",
        )
    if not points:
        fix = "Fill it: qdrant-rerank index FILE --collection ..."
        yield Finding("collection", True, "It has no points.", fix)
    if not embedded and points >= NEEDS_GRAPH and not info.indexed_vectors_count:
        yield Finding(
            "collection",
            True,
            f"No vector of its {points:,} points is in a graph, so each search reads all of them.",
            "Wait for the optimiser (status yellow or grey), or lower indexing_threshold.",
        )


def check_schema(schema: CollectionSchema, mismatch: str | None) -> Iterator[Finding]:
    """Check the vectors of a collection against the encoders.

    Args:
        schema: the collection's vectors and indexes.
        mismatch: why the encoders do not fit the collection; None if they do.
    """
    yield Finding("schema", False, f"It has {schema}.")
    if mismatch is not None:
        yield Finding("schema", True, mismatch, "Pass the encoders that filled the collection.")
    if schema.dense and schema.embedder is None:
        yield Finding(
            "schema",
            False,
            "It has no record of the embedder that filled it, so only the length of its vectors is "
            "checked.",
            "'qdrant-rerank index' and HybridSearcher.add record it when they create a collection.",
        )
    plain = [name for name in schema.sparse if not schema.has_idf(name)]
    if plain:
        call = f"client.update_collection({schema.collection!r}, sparse_vectors_config="
        yield Finding(
            "schema",
            False,
            f"Sparse vectors without the modifier IDF: {name_list(plain)}. BM25 does not use them.",
            f"If they hold BM25: {call}{{{plain[0]!r}: models.SparseVectorParams(modifier='idf')}})"
            ". If they hold another model's weights, such as SPLADE's: search from Python with "
            "sparse= that model.",
        )


def check_average_length(
    schema: CollectionSchema, encoder: Any, texts: Iterable[str]
) -> Iterator[Finding]:
    """Check the average length that BM25 weighs documents with against a sample of them.

    Args:
        schema: the collection's vectors, and what it records.
        encoder: the sparse encoder that searches it.
        texts: texts of the sample.
    """
    if not isinstance(encoder, Bm25Encoder) or not any(map(schema.has_idf, schema.sparse)):
        return
    sampled = encoder.average_length(texts)
    if sampled is None:
        return
    recorded = (schema.encoder or {}).get("avg_len")
    used = encoder.avg_len or DEFAULT_AVG_LEN
    far = not 1 / FAR < sampled / used < FAR
    source = "as the collection records" if recorded else "which is the default; none is recorded"
    yield Finding(
        "schema",
        far and recorded is not None,
        f"BM25 takes an average document length of {used:,.0f} terms, {source}. The sampled "
        f"documents have {sampled:,.0f}.",
        "Index all documents again, which measures it: qdrant-rerank reindex FILE --collection "
        f"{schema.collection}"
        if far
        else "",
    )


def check_texts(
    payloads: Sequence[Mapping[str, Any] | None], choice: TextChoice
) -> Iterator[Finding]:
    """Check that the reranker finds texts to read.

    Args:
        payloads: payloads of a sample of points.
        choice: reads the text of a payload; is settled by these if it is not yet.
    """
    if not payloads:
        return
    try:
        text = choice.choose(payloads)
    except MissingTextError as error:
        names = " or ".join(map(repr, error.fields)) or "the field that has the text"
        yield Finding("text", True, error.reason, f"Pass --text (in Python: text=...): {names}.")
        return
    missing = [payload or {} for payload in payloads if not text(payload)]
    having = len(payloads) - len(missing)
    seen = f"{having:,} of {len(payloads):,} sampled points have text at {text.name!r}"
    seen += ", which was found by itself." if choice.given == AUTO else "."
    if not missing:
        yield Finding("text", False, seen)
        return
    fields = sorted({name for payload in missing for name in payload})
    yield Finding(
        "text",
        len(missing) / len(payloads) >= MANY,
        f"{seen} Those without have {name_list(fields) if fields else 'no payload'}.",
        "Name the field with --text (in Python: text=...), or add the texts. Hits without text are "
        "not reranked.",
    )


def check_states(
    schema: CollectionSchema,
    models: Mapping[StatesPrecision, bytes],
    texts: Sequence[str],
    stored: Sequence[bytes | None],
) -> Iterator[Finding]:
    """Check how many documents have current states of the reranker, if the collection stores any.

    Args:
        schema: the collection's vectors, and what it records.
        models: digests of what decides a state of the reranker that searches, by precision.
        texts: texts of the sample.
        stored: for each text its stored record, or None.
    """
    states = schema.states
    if states is None or not texts:
        return
    command = f"qdrant-rerank states --collection {schema.collection}"
    if states.model != models.get(states.precision):
        options = "--reranker ..." + " --precision int8" * (states.precision not in models)
        yield Finding(
            "states",
            False,
            f"It stores states of {states.name}, which is not the reranker of this call, or not "
            "its revision, precision or max length. So each search reads the texts.",
            f"Search with that model, or store the states of this one: {command} {options}",
        )
        return
    current = sum(
        record is not None and is_current(record, text, states.model, states.precision)
        for text, record in zip(texts, stored, strict=True)
    )
    yield Finding(
        "states",
        current < (1 - MANY) * len(texts),
        f"{current:,} of {len(texts):,} sampled documents have current states of {states.name} "
        f"({states.precision}).",
        "" if current == len(texts) else f"Add those that are missing: {command}",
    )


def check_filters(
    fields: Iterable[str],
    schema: CollectionSchema,
    payloads: Sequence[Mapping[str, Any] | None],
    *,
    indexes: bool,
) -> Iterator[Finding]:
    """Check that the payload fields of filters exist and have an index.

    Args:
        fields: payload fields that searches filter by.
        schema: the collection's vectors and indexes.
        payloads: payloads of a sample of points.
        indexes: whether the engine has payload indexes at all.
    """
    for name in fields:
        values = [
            value for payload in payloads for value in value_by_key(dict(payload or {}), name) or []
        ]
        if payloads and not values:
            yield Finding(
                "filters",
                True,
                f"No sampled point has the payload field {name!r}.",
                "Check its spelling. Write a nested field as 'outer.inner'.",
            )
        elif not indexes:
            yield Finding("filters", False, f"{name!r}: qdrant-client's local mode has no indexes.")
        elif name in schema.indexed:
            yield Finding("filters", False, f"{name!r} has an index.")
        else:
            kind = _index_type(values)
            yield Finding(
                "filters",
                True,
                f"{name!r} has no payload index, so a filter on it reads each point.",
                f"client.create_payload_index({schema.collection!r}, {name!r}, {kind!r})",
            )


def check_strict_mode(
    config: models.StrictModeConfigOutput | None,
    candidates: int,
    filters: Iterable[str],
    schema: CollectionSchema,
) -> Iterator[Finding]:
    """Check which limits of strict mode a search or an ``add`` would run into.

    Args:
        config: the collection's limits; None if it has none.
        candidates: hits that a search retrieves.
        filters: payload fields that searches filter by.
        schema: the collection's vectors and indexes.
    """
    if config is None or not config.enabled:
        return
    kind: Kind = "strict mode"
    hits, batch = config.max_query_limit, config.upsert_max_batchsize
    if hits is not None:
        yield Finding(
            kind,
            hits < candidates,
            f"A request may return {hits:,} points, and a search retrieves {candidates:,} "
            "candidates.",
            f"Search with --candidates {hits} (in Python: candidates={hits}), or raise "
            "max_query_limit."
            if hits < candidates
            else "",
        )
    unindexed = [name for name in filters if name not in schema.indexed]
    if config.unindexed_filtering_retrieve is False:
        yield Finding(
            kind,
            bool(unindexed),
            "Filters are allowed only on payload fields with an index"
            + (f", which {name_list(unindexed)} lack." if unindexed else "."),
            "Create the index of each of them: see 'filters'." if unindexed else "",
        )
    if batch is not None:
        yield Finding(
            kind,
            batch < BATCH,
            f"A request may store {batch:,} points, and add sends {BATCH} by default.",
            f"Index with --batch-size {batch} (in Python: batch_size={batch})."
            if batch < BATCH
            else "",
        )
    if config.max_timeout is not None:
        fix = f"Keep SearchOptions.timeout_s and deadline_s at or below {config.max_timeout}."
        seen = f"A request may take {config.max_timeout} s."
        yield Finding(kind, False, seen, fix)
    params = {"hnsw_ef": config.search_max_hnsw_ef, "oversampling": config.search_max_oversampling}
    limits = [f"{name} at most {limit:g}" for name, limit in params.items() if limit is not None]
    if config.search_allow_exact is False:
        limits.append("no exact search")
    if limits:
        fix = "Keep SearchOptions.search_params within that."
        yield Finding(kind, False, f"Limits of a search: {', '.join(limits)}.", fix)
    for what, rate in (("reads", config.read_rate_limit), ("writes", config.write_rate_limit)):
        if rate is not None:
            fix = "A request above that is refused; SearchOptions.retries sends it again later."
            yield Finding(kind, False, f"It allows {rate:,} {what} per minute.", fix)


def _compatible(one: Version, other: Version) -> bool:
    return one[0] == other[0] and abs(one[1] - other[1]) <= 1


def _index_type(values: Sequence[Any]) -> str:
    """Return the type of index for these values."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "integer"
    if kinds and kinds <= {int, float}:
        return "float"
    return "keyword"
