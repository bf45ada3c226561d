"""The embedded engine answers as qdrant-client's local mode does, on the same data."""

import math
import tempfile
import uuid
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from qdrant_rerank.qdrant.embedded.client import EmbeddedClient

SIZE = 4
WORDS = ("red", "green", "blue")
CONFIG = {
    "vectors_config": {"dense": models.VectorParams(size=SIZE, distance=models.Distance.COSINE)},
    "sparse_vectors_config": {"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
}

components = st.lists(st.integers(-50, 50), min_size=SIZE, max_size=SIZE).filter(any)
dense = components.map(lambda row: [number / 10 for number in row])
sparse = st.dictionaries(st.integers(0, 6), st.integers(1, 90), min_size=1, max_size=4).map(
    lambda row: models.SparseVector(
        indices=sorted(row), values=[row[index] / 10 for index in sorted(row)]
    )
)
# Exact in few digits: the engine reads a payload's numbers from text, and may err in the last bit.
quarters = st.integers(0, 20).map(lambda number: number / 4)
payloads = st.fixed_dictionaries(
    {"colour": st.sampled_from(WORDS), "size": st.integers(0, 9)},
    optional={
        "tags": st.lists(st.sampled_from(WORDS), max_size=3),
        "group": st.one_of(st.integers(0, 3), st.sampled_from(["a", "b"]), st.booleans()),
        "inner": st.fixed_dictionaries({"price": quarters}),
    },
)
point_ids = st.one_of(st.integers(0, 2**64 - 1), st.uuids(version=4).map(str))


@st.composite
def collections(draw):
    """A few points, some without one of the two vectors."""
    ids = draw(st.lists(point_ids, min_size=1, max_size=12, unique=True))
    points = []
    for point_id in ids:
        vectors = {"dense": draw(dense), "bm25": draw(sparse)}
        kept = draw(st.sampled_from([("dense", "bm25")] * 4 + [("dense",), ("bm25",)]))
        points.append(
            models.PointStruct(
                id=point_id,
                vector={name: vectors[name] for name in kept},
                payload=draw(payloads),
            )
        )
    return points


conditions = st.one_of(
    st.sampled_from(WORDS).map(
        lambda word: models.FieldCondition(key="colour", match=models.MatchValue(value=word))
    ),
    st.lists(st.sampled_from(WORDS), min_size=1).map(
        lambda words: models.FieldCondition(key="tags", match=models.MatchAny(any=words))
    ),
    st.integers(0, 9).map(
        lambda size: models.FieldCondition(key="size", range=models.Range(gte=size))
    ),
    quarters.map(
        lambda price: models.FieldCondition(key="inner.price", range=models.Range(lt=price))
    ),
    st.just(models.IsEmptyCondition(is_empty=models.PayloadField(key="tags"))),
    st.lists(point_ids, max_size=2).map(lambda ids: models.HasIdCondition(has_id=ids)),
    st.just(models.HasVectorCondition(has_vector="bm25")),
)
filters = st.one_of(
    st.none(),
    st.builds(
        models.Filter,
        must=st.one_of(st.none(), st.lists(conditions, min_size=1, max_size=2)),
        should=st.one_of(st.none(), st.lists(conditions, min_size=1, max_size=2)),
        must_not=st.one_of(st.none(), conditions),
    ),
)
fusions = st.one_of(
    st.sampled_from(list(models.Fusion)).map(lambda kind: models.FusionQuery(fusion=kind)),
    st.builds(
        lambda k, weight: models.RrfQuery(rrf=models.Rrf(k=k, weights=[weight, 1.0])),
        st.integers(1, 60),
        st.sampled_from([0.5, 1.0, 3.0]),
    ),
)


@pytest.fixture(scope="module")
def monkeypatch_module():
    """What is changed for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def engines(monkeypatch_module):
    """Both engines, in memory; in a file system in memory where there is one, for its speed."""
    if Path("/dev/shm").is_dir():
        monkeypatch_module.setattr(tempfile, "tempdir", "/dev/shm")
    with closing(QdrantClient(":memory:")) as local, closing(EmbeddedClient()) as edge:
        yield local, edge


def filled(engines, points):
    """The points in a new collection of both."""
    name = uuid.uuid4().hex
    for client in engines:
        client.create_collection(name, **CONFIG)
        client.upsert(name, points)
    return name


def dropped(engines, name):
    """Both without the collection."""
    for client in engines:
        client.delete_collection(name)


# A collection is made for each example, 0.1 s in the engine: its IDF still counts deleted points,
# as a server's does until it tidies up, so emptying one is not enough.


def comparable(points):
    """Id and score, neighbours of one score by id."""
    return sorted(
        ((p.id, p.score) for p in points), key=lambda row: (-round(row[1], 5), str(row[0]))
    )


def assert_same(ours, theirs):
    """The same ids with the same scores, in the same order but for ties."""
    assert [p.score for p in ours] == sorted((p.score for p in ours), reverse=True)
    left, right = comparable(ours), comparable(theirs)
    assert [row[0] for row in left] == [row[0] for row in right]
    for (_, one), (_, other) in zip(left, right, strict=True):
        assert math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)


def untied(client, name, *queries):
    """Assume that no branch ranks two points alike: local mode's order of ties is arbitrary."""
    for query in queries:
        found = client.query_points(name, **query, limit=1000).points
        scores = sorted(p.score for p in found)
        assume(all(b - a > 1e-5 for a, b in pairwise(scores)))


def decided(points, liked, disliked):
    """Whether each point is nearer to one of these than to one of those, or the other way round.

    Of a point that is as near to both, rounding decides whether its best score is above 0.
    """
    vectors = {p.id: np.array(p.vector["dense"]) for p in points if "dense" in p.vector}
    units = {point_id: vector / np.linalg.norm(vector) for point_id, vector in vectors.items()}
    near, far = (
        np.max([[one @ units[other] for one in units.values()] for other in others], axis=0)
        for others in (liked, disliked)
    )
    return bool((np.abs(near - far) > 1e-5).all())


@settings(max_examples=15, deadline=None)
@given(points=collections(), query=dense, words=sparse, where=filters)
def test_dense_and_sparse_queries_with_filters(engines, points, query, words, where):
    """All hits, their payload and their vectors."""
    name = filled(engines, points)
    for asked in (
        {"query": query, "using": "dense"},
        {"query": words, "using": "bm25"},
        {"query": None},
    ):
        theirs, ours = (
            client.query_points(
                name, **asked, query_filter=where, limit=50, with_vectors=True
            ).points
            for client in engines
        )
        assert_same(ours, theirs)
        by_id = {p.id: p for p in theirs}
        for point in ours:
            assert point.payload == by_id[point.id].payload
            assert set(point.vector) == set(by_id[point.id].vector)
            for kind, vector in point.vector.items():
                expected = by_id[point.id].vector[kind]
                if kind == "bm25":
                    assert vector.indices == expected.indices
                np.testing.assert_allclose(
                    getattr(vector, "values", vector),
                    getattr(expected, "values", expected),
                    rtol=1e-6,
                    atol=1e-6,
                )
    theirs, ours = (client.count(name, count_filter=where).count for client in engines)
    assert ours == theirs
    dropped(engines, name)


@settings(max_examples=15, deadline=None)
@given(
    points=collections(),
    query=dense,
    words=sparse,
    where=filters,
    fusion=fusions,
    depth=st.integers(1, 12),
    limit=st.integers(1, 12),
)
def test_fused_queries(engines, points, query, words, where, fusion, depth, limit):
    """RRF with any k and weights, and DBSF; as deep as the branches go."""
    name = filled(engines, points)
    branches = [{"query": query, "using": "dense"}, {"query": words, "using": "bm25"}]
    untied(engines[0], name, *branches)
    prefetch = [models.Prefetch(**branch, filter=where, limit=depth) for branch in branches]
    theirs, ours = (
        client.query_points(name, query=fusion, prefetch=prefetch, limit=50).points
        for client in engines
    )
    assert_same(ours, theirs)
    [cut] = engines[1].query_batch_points(
        name,
        [models.QueryRequest(query=fusion, prefetch=prefetch, limit=limit, with_payload=False)],
    )
    assert [p.score for p in cut.points] == [p.score for p in ours[:limit]]
    dropped(engines, name)


@settings(max_examples=15, deadline=None)
@given(
    points=collections(),
    query=dense,
    where=filters,
    key=st.sampled_from(["group", "tags", "tags[]", "missing", "inner.price"]),
    limit=st.integers(1, 4),
    size=st.integers(1, 3),
)
def test_groups(engines, points, query, where, key, limit, size):
    """The same groups with the same points; values that are no group are left out alike."""
    name = filled(engines, points)
    untied(engines[0], name, {"query": query, "using": "dense"})
    theirs, ours = (
        client.query_points_groups(
            name,
            key,
            query=query,
            using="dense",
            query_filter=where,
            limit=limit,
            group_size=size,
        ).groups
        for client in engines
    )
    assert [(g.id, [p.id for p in g.hits]) for g in ours] == [
        (g.id, [p.id for p in g.hits]) for g in theirs
    ]
    assert [p.payload for g in ours for p in g.hits] == [p.payload for g in theirs for p in g.hits]
    dropped(engines, name)


@settings(max_examples=15, deadline=None)
@given(
    points=collections(), queries=st.lists(dense, min_size=1, max_size=4), limit=st.integers(1, 9)
)
def test_batches(engines, points, queries, limit):
    """Each query of a batch is answered as if it were alone."""
    name = filled(engines, points)
    requests = [
        models.QueryRequest(query=query, using="dense", limit=limit, offset=at % 2)
        for at, query in enumerate(queries)
    ]
    for request in requests:
        untied(engines[0], name, {"query": request.query, "using": "dense"})
    theirs, ours = (client.query_batch_points(name, requests) for client in engines)
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one.points, other.points)
        assert all(point.payload is None for point in one.points)
    dropped(engines, name)


@settings(max_examples=15, deadline=None)
@given(
    points=collections(),
    new=collections(),
    where=filters.filter(lambda where: where is not None),
    selected=st.data(),
)
def test_changes_leave_the_same_points(engines, points, new, where, selected):
    """Upserts, deletions by id and by filter, payload set, overwritten, and fields removed."""
    name = filled(engines, points)
    # Local mode refuses a change of no points; the engine does nothing.
    some = selected.draw(st.lists(st.sampled_from([p.id for p in points]), min_size=2, max_size=3))
    changes = [
        lambda client: client.upsert(name, new),
        lambda client: client.set_payload(name, {"colour": "grey", "new": [1]}, points=some),
        lambda client: client.overwrite_payload(name, {"size": 3}, points=some[:1]),
        lambda client: client.delete_payload(name, ["tags"], points=where),
        lambda client: client.delete(name, points_selector=models.PointIdsList(points=some[1:])),
        lambda client: client.delete(name, points_selector=models.FilterSelector(filter=where)),
    ]
    for change in changes:
        for client in engines:
            change(client)
        theirs, ours = (client.scroll(name, limit=100)[0] for client in engines)
        assert {p.id: p.payload or {} for p in ours} == {p.id: p.payload or {} for p in theirs}
    dropped(engines, name)


@settings(max_examples=15, deadline=None)
@given(points=collections(), others=st.data())
def test_queries_by_point_id(engines, points, others):
    """Nearest to a point, and recommendation: the points named are not found themselves."""
    name = filled(engines, points)
    having = [p.id for p in points if "dense" in p.vector]
    assume(having)
    liked = others.draw(st.lists(st.sampled_from(having), min_size=1, max_size=2))
    rest = [point_id for point_id in having if point_id not in liked]
    disliked = others.draw(st.lists(st.sampled_from(rest), max_size=1)) if rest else []
    assume(not disliked or decided(points, liked, disliked))
    queries = [liked[0]] + [
        models.RecommendQuery(
            recommend=models.RecommendInput(positive=liked, negative=disliked, strategy=strategy)
        )
        for strategy in models.RecommendStrategy
    ]
    for query in queries:
        theirs, ours = (
            client.query_points(name, query=query, using="dense", limit=50).points
            for client in engines
        )
        assert_same(ours, theirs)
    dropped(engines, name)
