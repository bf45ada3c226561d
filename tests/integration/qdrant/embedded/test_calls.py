"""Calls of the embedded engine that people use, with the answers of a server."""

import uuid
from contextlib import closing

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank.errors import CollectionNotFoundError, QdrantRequestError
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.releases import needs_client

SIZE_2 = models.VectorParams(size=2, distance=models.Distance.DOT)
MAX_SIM = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
NAMED = {
    "vectors_config": {
        "a": SIZE_2,
        "b": SIZE_2,
        "rows": SIZE_2.model_copy(update={"multivector_config": MAX_SIM}),
    },
    "sparse_vectors_config": {"words": models.SparseVectorParams()},
}


@pytest.fixture
def client():
    """The engine, in memory."""
    with closing(EmbeddedClient()) as client:
        yield client


def stored(client, name="points"):
    """All points, with their vectors."""
    return client.scroll(name, limit=100, with_vectors=True)[0]


def ids(client, where=None, **query):
    """Points that pass a filter."""
    if query:
        return [hit.id for hit in client.query_points("points", query_filter=where, **query).points]
    return [one.id for one in client.scroll("points", where, limit=100)[0]]


def field(key, **kind):
    """A filter of one condition."""
    return models.Filter(must=[models.FieldCondition(key=key, **kind)])


# --- upload_collection


@pytest.mark.parametrize(
    "vectors",
    [
        {"a": np.ones((3, 2), dtype=np.float32), "b": np.ones((3, 2))},
        {"a": np.ones((3, 2)), "rows": np.ones((3, 4, 2))},
        {"a": [[1.0, 1.0]] * 3},
        [{"a": np.ones(2), "b": np.ones(2, dtype=np.float32)}] * 3,
        [{"a": np.ones(2), "rows": np.ones((4, 2)), "b": [1.0, 1.0]}] * 3,
        [{"rows": [np.ones(2), np.ones(2)]}] * 3,
        ({"a": [1.0, 1.0], "words": models.SparseVector(indices=[n], values=[1.0])} for n in "123"),
    ],
    ids=["arrays", "arrays of rows", "lists", "rows", "rows of rows", "lists of arrays", "sparse"],
)
def test_named_vectors_are_uploaded_as_columns_or_rows(client, vectors):
    """Of numpy or of Python, by an iterable that is read once."""
    if not isinstance(vectors, dict | list):
        vectors = (
            {"a": row["a"], "words": models.SparseVector(indices=[int(n)], values=[1.0])}
            for n, row in zip("123", [{"a": [1.0, 1.0]}] * 3, strict=True)
        )
    client.create_collection("points", **NAMED)
    client.upload_collection(
        "points", vectors, ids=np.arange(3), payload=[{"n": n} for n in range(3)]
    )
    points = stored(client)
    assert [point.payload for point in points] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert all(point.vector for point in points)
    assert all(
        np.array_equal(value, np.ones_like(value))
        for point in points
        for name, value in point.vector.items()
        if name != "words"
    )


def test_an_upload_takes_an_unnamed_array_and_makes_ids(client):
    """UUIDs, where none are given."""
    client.create_collection("points", vectors_config=SIZE_2)
    client.upload_collection("points", np.ones((300, 2)))
    assert client.count("points").count == 300
    assert all(uuid.UUID(one) for one in ids(client))


@needs_client(1, 17)
def test_an_upload_keeps_its_conditions(client):
    """update_mode and update_filter reach the points."""
    client.create_collection("points", vectors_config=SIZE_2)
    client.upload_collection("points", np.ones((2, 2)), ids=[1, 2], payload=[{"n": 1}, {"n": 2}])
    new = {"vectors": np.zeros((3, 2)), "ids": [1, 2, 3], "payload": [{"n": 9}] * 3}
    client.upload_collection("points", **new, update_mode=models.UpdateMode.INSERT_ONLY)
    assert [one.payload["n"] for one in stored(client)] == [1, 2, 9]
    client.delete("points", [3])
    client.upload_collection("points", **new, update_mode=models.UpdateMode.UPDATE_ONLY)
    assert [one.payload["n"] for one in stored(client)] == [9, 9]
    client.set_payload("points", {"n": 1}, [1])
    new["payload"] = [{"n": 7}] * 3
    only = field("n", match=models.MatchValue(value=1))
    client.upload_collection(
        "points", **new, update_filter=only, update_mode=models.UpdateMode.UPDATE_ONLY
    )
    assert [one.payload["n"] for one in stored(client)] == [7, 9]


# --- changes in batches, and of collections


def test_a_batch_of_changes_is_made_in_order(client):
    """All kinds of them; the answer has one result for each."""
    client.create_collection("points", **NAMED)
    point = models.PointStruct(id=1, vector={"a": [1.0, 2.0]}, payload={"n": 1, "x": {"y": 1}})
    other = models.Batch(ids=[2, 3], vectors={"a": [[1.0, 1.0]] * 2}, payloads=[{"n": 2}] * 2)
    by_2 = field("n", match=models.MatchValue(value=2))
    changes = [
        models.UpsertOperation(upsert=models.PointsList(points=[point])),
        models.UpsertOperation(upsert=models.PointsBatch(batch=other)),
        models.SetPayloadOperation(
            set_payload=models.SetPayload(payload={"z": 3}, points=[1], key="x")
        ),
        models.SetPayloadOperation(set_payload=models.SetPayload(payload={"m": 2}, filter=by_2)),
        models.OverwritePayloadOperation(
            overwrite_payload=models.SetPayload(payload={"new": True}, points=[3])
        ),
        models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["n"], points=[2])),
        models.UpdateVectorsOperation(
            update_vectors=models.UpdateVectors(
                points=[models.PointVectors(id=2, vector={"b": [5.0, 5.0]})]
            )
        ),
        models.DeleteVectorsOperation(
            delete_vectors=models.DeleteVectors(vector=["a"], points=[2])
        ),
        models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[3])),
        models.DeleteOperation(delete=models.PointIdsList(points=[3])),
    ]
    done = client.batch_update_points("points", changes)
    assert [one.status for one in done] == ["completed"] * len(changes)
    assert [(one.id, one.payload, one.vector) for one in stored(client)] == [
        (1, {"n": 1, "x": {"y": 1, "z": 3}}, {"a": [1.0, 2.0]}),
        (2, {"m": 2}, {"b": [5.0, 5.0]}),
    ]


@pytest.mark.filterwarnings("ignore:`recreate_collection`:DeprecationWarning")
def test_a_collection_is_recreated(client):
    """Empty and with other settings; wrong settings leave it as it is."""
    assert client.recreate_collection("points", vectors_config=SIZE_2)
    client.upsert("points", [models.PointStruct(id=1, vector=[1.0, 2.0])])
    with pytest.raises(QdrantRequestError, match="datatype|no "):
        client.recreate_collection(
            "points",
            vectors_config=models.VectorParams.model_construct(
                size=2, distance="Dot", datatype="float7"
            ),
        )
    assert client.count("points").count == 1
    assert client.recreate_collection("points", **NAMED)
    assert client.count("points").count == 0
    assert set(client.get_collection("points").config.params.vectors) == {"a", "b", "rows"}


def test_settings_of_sparse_vectors_can_be_changed(tmp_path):
    """The modifier, too: all points are stored anew, and are there the next time."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **NAMED)
        client.create_payload_index("points", "n", models.PayloadSchemaType.INTEGER)
        client.upsert(
            "points",
            [
                models.PointStruct(
                    id=n,
                    vector={
                        "a": [n, 1.0],
                        "words": models.SparseVector(indices=[1, n], values=[1.0, 1.0]),
                    },
                    payload={"n": n},
                )
                for n in (2, 3, 4)
            ],
        )
        before = stored(client)
        query = {"query": models.SparseVector(indices=[1, 3], values=[1.0, 1.0]), "using": "words"}
        raw = [hit.score for hit in client.query_points("points", **query).points]
        assert raw == [2.0, 1.0, 1.0]
        change = {"words": models.SparseVectorParams(modifier=models.Modifier.IDF)}
        with pytest.raises(QdrantRequestError, match="no sparse vector 'other'"):
            client.update_collection(
                "points", sparse_vectors_config={**change, "other": change["words"]}
            )
        assert [hit.score for hit in client.query_points("points", **query).points] == raw
        client.update_collection("points", sparse_vectors_config=change)
        assert len(list((tmp_path / "shards").iterdir())) == 1
    with closing(EmbeddedClient(tmp_path)) as client:
        assert stored(client) == before
        info = client.get_collection("points")
        assert info.config.params.sparse_vectors["words"].modifier == models.Modifier.IDF
        assert info.payload_schema["n"].points == 3
        scores = [hit.score for hit in client.query_points("points", **query).points]
        assert scores[0] > scores[1] != raw[1]


# --- filters


@pytest.fixture
def texts(client):
    """Texts, and values that are none."""
    values = ["Iron melts", "ironclad ore", "the iron ore", "IRON ORE", "ore of iron", 7, None]
    client.create_collection("points", vectors_config=SIZE_2)
    client.upsert(
        "points",
        [
            models.PointStruct(id=n, vector=[1.0, n], payload={"text": v, "list": [{"text": v}]})
            for n, v in enumerate(values)
        ],
    )
    return client


@pytest.mark.parametrize(
    ("match", "found", "found_by_index"),
    [
        (models.MatchText(text="iron"), [1, 2, 4], [0, 2, 3, 4]),
        (models.MatchText(text="Iron"), [0], [0, 2, 3, 4]),
        (models.MatchText(text="iron ore"), [2], [2, 3, 4]),
        (models.MatchText(text="ore iron"), [], [2, 3, 4]),
        (models.MatchText(text=""), [0, 1, 2, 3, 4], []),
        (models.MatchTextAny(text_any="melts ORE"), [0, 3], [0, 1, 2, 3, 4]),
        (models.MatchTextAny(text_any="  "), [], []),
        (models.MatchPhrase(phrase="iron ore"), [2], [2, 3]),
        (models.MatchPhrase(phrase="ore iron"), [], []),
    ],
)
def test_texts_match_as_on_a_server(texts, match, found, found_by_index):
    """Without an index of that field a run of characters, with one words; also in lists."""
    where = field("text", match=match)
    in_list = models.Filter(
        must=[models.NestedCondition(nested=models.Nested(key="list", filter=where))]
    )
    boosted = models.FormulaQuery(formula=models.SumExpression(sum=[where.must[0]]))
    index = models.TextIndexParams(type="text", lowercase=True, phrase_matching=True)

    def answers():
        formula = texts.query_points(
            "points", query=boosted, prefetch=models.Prefetch(query=[1.0, 1.0])
        )
        return (
            ids(texts, where),
            ids(texts, in_list),
            sorted(hit.id for hit in formula.points if hit.score == 1.0),
        )

    assert answers() == (found, found, found)
    texts.create_payload_index("points", "other", index)
    texts.create_payload_index("points", "text", models.PayloadSchemaType.KEYWORD)
    assert answers() == (found, found, found)
    texts.create_payload_index("points", "text", index)
    assert answers() == (found_by_index, found, found_by_index)
    texts.create_payload_index("points", "list[].text", index)
    assert answers() == (found_by_index, found_by_index, found_by_index)


@pytest.mark.parametrize("indexed", [False, True])
def test_booleans_are_no_numbers(client, indexed):
    """In filters and facets, with an index and without."""
    client.create_collection("points", vectors_config=SIZE_2)
    values = [True, False, 1, 0, [False, 2]]
    client.upload_collection(
        "points", np.ones((5, 2)), ids=range(5), payload=[{"n": value} for value in values]
    )
    if indexed:
        client.create_payload_index("points", "n", models.PayloadSchemaType.BOOL)
        hits = client.facet("points", "n").hits
        assert [(hit.value, hit.count) for hit in hits] == [(False, 2), (True, 1)]
    assert ids(client, field("n", match=models.MatchValue(value=True))) == [0]
    assert ids(client, field("n", match=models.MatchValue(value=False))) == [1, 4]


def test_empty_lists_in_a_filter_are_absent(texts):
    """As a converter of filters writes them, nested ones too."""
    empty = models.Filter(must=[], should=[], must_not=[])
    inner = models.Filter(
        must=[models.FieldCondition(key="text", match=models.MatchValue(value="IRON ORE"))],
        should=[],
        must_not=[],
    )
    everything = list(range(7))
    assert ids(texts, empty) == everything
    assert ids(texts, models.Filter(must=[empty])) == everything
    assert ids(texts, models.Filter(must=[inner], should=[])) == [3]
    assert ids(texts, models.Filter(should=[inner, inner], must=[])) == [3]
    assert ids(texts, models.Filter(must_not=[empty])) == []
    nested = models.NestedCondition(nested=models.Nested(key="list", filter=inner))
    assert ids(texts, models.Filter(must=[nested], should=[])) == [3]


@pytest.mark.parametrize("indexed", [False, True])
def test_boxes_wider_than_half_the_earth(client, indexed):
    """With and without an index; over the date line, and all around."""
    client.create_collection("points", vectors_config=SIZE_2)
    longitudes = range(-175, 180, 10)
    client.upsert(
        "points",
        [
            models.PointStruct(
                id=n, vector=[1.0, 1.0], payload={"at": {"lon": lon, "lat": lon / 3}}
            )
            for n, lon in enumerate(longitudes)
        ],
    )
    if indexed:
        client.create_payload_index("points", "at", models.PayloadSchemaType.GEO)
    for west, east in ((-180, 180), (-170, 170), (-100, 101), (-90, 97), (10, -10), (170, 160)):
        box = models.GeoBoundingBox(
            top_left=models.GeoPoint(lon=west, lat=40),
            bottom_right=models.GeoPoint(lon=east, lat=-40),
        )
        expected = [
            n
            for n, lon in enumerate(longitudes)
            if abs(lon / 3) <= 40
            and (west <= lon <= east if west < east else not east < lon < west)
        ]
        assert ids(client, field("at", geo_bounding_box=box)) == expected, (west, east)


# --- answers


def test_a_sample_with_an_offset_is_as_long_as_its_limit(client):
    """As on a server, which ignores it; the engine takes it off the limit."""
    client.create_collection("points", vectors_config=SIZE_2)
    client.upload_collection("points", np.ones((10, 2)), ids=range(10))
    sample = models.SampleQuery(sample=models.Sample.RANDOM)
    assert len(set(ids(client, query=sample, limit=5, offset=2))) == 5
    assert len(ids(client, query=sample, limit=5, offset=8)) == 5
    [one, other] = client.query_batch_points(
        "points",
        [
            models.QueryRequest(query=sample, limit=4, offset=3),
            models.QueryRequest(query=[1.0, 1.0], limit=4, offset=3),
        ],
    )
    assert len(one.points) == len(other.points) == 4


def test_mmr_brings_vectors_only_if_asked(client):
    """By each way of asking."""
    client.create_collection("points", vectors_config={"a": SIZE_2, "b": SIZE_2})
    rows = np.ones((4, 2))
    client.upload_collection("points", {"a": rows, "b": rows}, ids=range(4))
    asked = {
        "query": models.NearestQuery(nearest=[1.0, 1.0], mmr=models.Mmr(diversity=0.5)),
        "using": "a",
    }
    for wanted, names in ((False, None), (None, None), (True, {"a", "b"}), (["b"], {"b"})):
        for hit in client.query_points("points", **asked, with_vectors=wanted).points:
            assert (hit.vector if names is None else set(hit.vector)) == names


def test_models_can_be_mappings(client):
    """As over REST: parameters, filters, prefetches, orders."""
    client.create_collection("points", vectors_config=SIZE_2)
    client.create_payload_index("points", "n", "integer")
    client.upload_collection("points", np.eye(2), ids=[1, 2], payload=[{"n": 1}, {"n": 2}])
    where = {"must": [{"key": "n", "match": {"value": 2}}]}
    assert ids(client, query=[1.0, 0.0], search_params={"exact": True}) == [1, 2]
    assert ids(client, where) == [2]
    assert ids(client, where, query=[1.0, 0.0]) == [2]
    assert ids(client, query=[1.0, 0.0], prefetch={"query": [1.0, 0.0], "filter": where}) == [2]
    assert client.count("points", where).count == 1
    client.set_payload("points", {"x": 1}, models.FilterSelector(filter=where))
    with pytest.raises(QdrantRequestError, match="no SearchParams"):
        ids(client, query=[1.0, 0.0], search_params={"exact": "x"})


def test_facets_of_equal_counts_come_by_their_values(client):
    """The same ones each time, however many there are."""
    client.create_collection("points", vectors_config=SIZE_2)
    client.create_payload_index("points", "n", models.PayloadSchemaType.KEYWORD)
    values = [f"v{n:03}" for n in range(200)]
    client.upload_collection(
        "points",
        np.ones((401, 2)),
        ids=range(401),
        payload=[{"n": v} for v in [*values * 2, "v150"]],
    )
    for _ in range(5):
        hits = client.facet("points", "n", limit=4).hits
        assert [(hit.value, hit.count) for hit in hits] == [
            ("v150", 3),
            ("v000", 2),
            ("v001", 2),
            ("v002", 2),
        ]


def test_a_collection_migrates_to_another_client(client):
    """With its vectors, payloads, indexes and metadata, as to a server."""
    client.create_collection("points", **NAMED, metadata={"a": 1})
    client.create_payload_index("points", "n", models.PayloadSchemaType.INTEGER)
    client.upload_collection("points", {"a": np.ones((5, 2))}, ids=range(5), payload=[{"n": 1}] * 5)
    with closing(EmbeddedClient()) as other:
        client.migrate(other)
        assert stored(other) == stored(client)
        old, new = (c.get_collection("points") for c in (client, other))
        assert (new.config, new.payload_schema) == (old.config, old.payload_schema)


def test_local_mode_and_the_engine_refuse_a_collection_that_is_not_there(client):
    """By every call that takes its name."""
    point = models.PointStruct(id=1, vector=[1.0, 2.0])
    with closing(QdrantClient(":memory:")) as local:
        for call in (
            lambda c: c.batch_update_points("no", []),
            lambda c: c.upsert("no", [point]),
            lambda c: c.facet("no", "n"),
            lambda c: c.update_collection("no", metadata={}),
        ):
            with pytest.raises(ValueError, match="no"):
                call(local)
            with pytest.raises(CollectionNotFoundError):
                call(client)
