"""A search asked in every way, of payloads of every type, and what has to be the same of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import models

from qdrant_rerank import Bm25Encoder, SearchOptions, StaticEmbedder
from tests.releases import CLIENT

DAY = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
TEXTS = [
    "Iron melts at 1538 degrees Celsius and boils at 2862.",
    "Blast furnaces turn iron ore into pig iron.",
    "Copper conducts electricity better than iron does.",
    "Sourdough bread rises for a night before it is baked in a hot oven.",
    "To melt chocolate, heat it gently over water.",
    "The Danube flows through ten countries to the Black Sea.",
]
# Whole numbers and UUIDs, up to the largest.
IDS = [0, 2**64 - 1, *(UUID(int=row << 64 | 4 << 76 | 8 << 60) for row in (3, 4)), 44, 45]
QUERY = "How hot must it be for iron to melt?"
#: What a server needs to order by, and to compute with.
INDEXES = {"book": "keyword", "n": "integer", "price": "float"}
DENSE = StaticEmbedder.bundled().embed_query(QUERY)
SPARSE = Bm25Encoder().embed_query(QUERY)


def documents() -> Iterator[models.PointStruct]:
    """Every type of JSON, dates, places, and one point without text."""
    for row, (point_id, text) in enumerate(zip(IDS, TEXTS, strict=True)):
        payload = {
            "text": text,
            "n": row,
            "price": row / 4,
            "large": 2**53 + row,
            "tags": ["iron"] if "iron" in text.lower() else [],
            "inner": {"list": [1, 2.5, "x", None, {"deep": True}], "n": -row},
            "nothing": None,
            "when": DAY + timedelta(days=row),
            "place": {"lon": 13.4 + row, "lat": 52.5},
            "uuid": UUID(int=row) if CLIENT >= (1, 20) else str(UUID(int=row)),  # over gRPC
        }
        if row != 5:
            payload["book"] = "metals" if row < 3 else "kitchen"
        yield models.PointStruct(
            id=str(point_id) if row in (2, 3) else point_id, payload=payload, vector={}
        )
    bare = {"dense": [1.0] * 256, "bm25": models.SparseVector(indices=[1], values=[1.0])}
    yield models.PointStruct(id=99, payload={"n": 99}, vector=bare)


def where(**condition: Any) -> models.Filter:
    """A filter of one condition."""
    return models.Filter(must=[models.FieldCondition(**condition)])


FILTERS = {
    "keyword": where(key="book", match=models.MatchValue(value="metals")),
    "any": where(key="book", match=models.MatchAny(any=["kitchen", "garden"])),
    "except": where(key="n", match=models.MatchExcept(**{"except": [1, 2]})),
    "text": where(key="text", match=models.MatchText(text="iron")),
    "range": where(key="price", range=models.Range(gt=0.25, lte=1.0)),
    "dates": where(key="when", range=models.DatetimeRange(gte=DAY + timedelta(days=2))),
    "dates, another zone": where(
        key="when", range=models.DatetimeRange(lt="2026-03-03T13:30:00+01:00")
    ),
    "box": where(
        key="place",
        geo_bounding_box=models.GeoBoundingBox(
            top_left=models.GeoPoint(lon=13.0, lat=53.0),
            bottom_right=models.GeoPoint(lon=15.0, lat=52.0),
        ),
    ),
    "count": where(key="tags", values_count=models.ValuesCount(gte=1)),
    "empty": models.Filter(
        must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="book"))]
    ),
    "null": models.Filter(
        must=[models.IsNullCondition(is_null=models.PayloadField(key="nothing"))]
    ),
    "ids": models.Filter(must=[models.HasIdCondition(has_id=[0, str(IDS[2]), IDS[1]])]),
    "vector": models.Filter(must=[models.HasVectorCondition(has_vector="bm25")]),
    "nested": models.Filter(
        should=[
            models.Filter(must_not=[models.HasIdCondition(has_id=[0])]),
            models.FieldCondition(key="n", range=models.Range(gte=4)),
        ],
        min_should=None,
    ),
    "min_should": models.Filter(
        min_should=models.MinShould(
            conditions=[
                models.FieldCondition(key="n", range=models.Range(gte=1)),
                models.FieldCondition(key="tags", match=models.MatchValue(value="iron")),
            ],
            min_count=2,
        )
    ),
}
FORMULA = models.FormulaQuery(
    formula=models.SumExpression(sum=["$score", models.MultExpression(mult=[0.5, "price"])]),
    defaults={"price": 0.0},
)
BRANCH = models.Prefetch(query=DENSE.tolist(), using="dense", limit=4)


def options(**given: Any) -> dict[str, Any]:
    """Arguments of a search."""
    return {"options": SearchOptions(**given)}


#: How a search is asked, by name.
CALLS: dict[str, dict[str, Any]] = {
    "text": {},
    "a number": {"query": 0},
    "a UUID": {"query": IDS[2]},
    "the largest number": {"query": IDS[1]},
    "offset": {"offset": 2, "limit": 2},
    "vector": {"recall": DENSE},
    "sparse vector": {"recall": SPARSE},
    "recommend": {
        "recall": models.RecommendQuery(
            recommend=models.RecommendInput(
                positive=[0, str(IDS[2])], negative=[44], strategy="best_score"
            )
        )
    },
    "discover": {
        "recall": models.DiscoverQuery(
            discover=models.DiscoverInput(
                target=0, context=[models.ContextPair(positive=IDS[1], negative=44)]
            )
        )
    },
    "order by": {"recall": models.OrderByQuery(order_by=models.OrderBy(key="n", direction="desc"))},
    "formula": {"prefetch": BRANCH, "recall": FORMULA},
    "prefetch": {"prefetch": [BRANCH]},
    "nested prefetch": {
        "prefetch": models.Prefetch(
            prefetch=[BRANCH], query=SPARSE, using="bm25", limit=3, score_threshold=0.1
        ),
        "recall": DENSE,
    },
    "request": {"recall": models.QueryRequest(query=DENSE.tolist(), using="dense", limit=4)},
    **{f"filter, {name}": {"query_filter": one} for name, one in FILTERS.items()},
    "threshold": {"score_threshold": 1.0},
    "recall threshold": options(recall_threshold=0.4),
    **(
        {"weighted": options(fusion=models.Rrf(k=10, weights=[3.0, 1.0]))}
        if CLIENT >= (1, 17)
        else {}
    ),
    "dbsf": options(fusion="dbsf", dense_candidates=2, sparse_candidates=3),
    "exact": options(search_params=models.SearchParams(exact=True, hnsw_ef=64)),
    "rescored": options(
        search_params=models.SearchParams(
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=2.0)
        )
    ),
    "majority": options(consistency="majority"),
    "of one": options(consistency=1),
    "blend": options(blend=0.5),
    "diversity": options(diversity=0.7),
    "diversity, and vectors": options(diversity=0.7) | {"with_vectors": ["bm25"]},
    "two-phase": options(two_phase=True) | {"limit": 2},
    "one phase": options(two_phase=False) | {"with_payload": ["n"]},
    "selection": {"with_payload": ["n", "inner.list"], "with_vectors": True, "limit": 2},
    "exclusion": {"with_payload": models.PayloadSelectorExclude(exclude=["text", "inner"])},
    "a field that nobody has": {"with_payload": ["none"]},
    "no payload": {"with_payload": False},
    "missing text dropped": options(on_missing_text="drop"),
    "deadline": {"deadline_s": 600, "with_payload": ["n"]},
    "timeout, retries": options(timeout_s=60, retries=2),
}


def shown(result: Any) -> Any:
    """All that has to be the same: hits and groups as plain data, and the trace's counts."""
    if isinstance(result, list) and not hasattr(result, "trace"):
        return [shown(one) for one in result]
    trace = {
        name: getattr(result.trace, name)
        for name in result.trace.__dataclass_fields__
        if not name.endswith("_s")
    }
    return {"query": result.query, "hits": [one.model_dump() for one in result], "trace": trace}


def same(found: Any, expected: Any, place: str = "") -> None:
    """Nothing but floats may differ, by 1e-6."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key, value in expected.items():
            same(found[key], value, f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for index, value in enumerate(expected):
            same(found[index], value, f"{place}[{index}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6), place
    else:
        assert (type(found), found) == (type(expected), expected), place
