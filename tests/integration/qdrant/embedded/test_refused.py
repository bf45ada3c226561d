"""What the embedded engine refuses: nothing of it is logged, stored or done, a crash included."""

import math
import os
import shutil
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pytest
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient

NAN, INF = math.nan, math.inf
MAX_SIM = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
CONFIG = {
    "vectors_config": {
        "dense": models.VectorParams(size=2, distance=models.Distance.DOT),
        "multi": models.VectorParams(
            size=2, distance=models.Distance.DOT, multivector_config=MAX_SIM
        ),
    },
    "sparse_vectors_config": {"sparse": models.SparseVectorParams()},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A collection of three points, with every kind of vector."""
    with opened(tmp_path_factory.mktemp("refused") / "db") as client:
        yield client


@contextmanager
def opened(path):
    """A client with such a collection."""
    with closing(EmbeddedClient(path)) as client:
        client.create_collection("points", **CONFIG)
        client.upsert(
            "points",
            [
                models.PointStruct(
                    id=n,
                    vector={
                        "dense": [1.0, n],
                        "multi": [[1.0, n], [n, 1.0]],
                        "sparse": models.SparseVector(indices=[n, 9], values=[1.0, 2.0]),
                    },
                    payload={"n": n, "place": {"lon": n, "lat": n}, "inner": [{"n": n}]},
                )
                for n in (1, 2, 3)
            ],
        )
        yield client


def state(client):
    """All that is stored."""
    return client.scroll("points", limit=100, with_vectors=True)[0]


def assert_refused(client, calls, match="Nothing was done"):
    """Each call is refused, and what is there is as before."""
    before = state(client)
    for call in calls:
        with pytest.raises(QdrantRequestError, match=match):
            call()
    assert state(client) == before


def copy_with_holes(source, target):
    """Copy a directory as a crash would leave it; its files are mostly holes."""
    for _ in range(10):
        try:
            return _copy_once(source, target)
        except FileNotFoundError:  # a thread of the engine renamed it meanwhile
            shutil.rmtree(target)
    raise AssertionError(f"{source} does not come to rest")


def _copy_once(source, target):
    target.mkdir()
    for file in list(source.rglob("*")):
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir(parents=True)
            continue
        with file.open("rb") as old, place.open("wb") as new:
            while block := old.read(2**16):
                if block != bytes(len(block)):
                    new.write(block)
                else:
                    new.seek(len(block), os.SEEK_CUR)
            new.truncate()


def sparse(indices, values):
    """A sparse vector that is not checked."""
    return {"sparse": models.SparseVector.model_construct(indices=indices, values=values)}


VECTORS = {
    "more indices than values": sparse([1, 2, 3], [1.0]),
    "more values than indices": sparse([1], [1.0, 2.0]),
    "an index twice": sparse([1, 1], [1.0, 2.0]),
    "a negative index": sparse([-1], [1.0]),
    "an index too large": sparse([2**32], [1.0]),
    "NaN in a sparse vector": sparse([1], [NAN]),
    "infinity in a sparse vector": sparse([1, 2], [1.0, -INF]),
    "rows of different lengths": {"multi": [[1.0, 2.0], [1.0]]},
    "rows that are too long": {"multi": [[1.0, 2.0, 3.0]]},
    "an empty row": {"multi": [[]]},
    "no rows": {"multi": []},
    "NaN in a row": {"multi": [[1.0, 2.0], [1.0, NAN]]},
    "too short": {"dense": [1.0]},
    "too long": {"dense": [1.0, 2.0, 3.0]},
    "empty": {"dense": []},
    "NaN": {"dense": [NAN, 1.0]},
    "infinity": {"dense": [1.0, INF]},
    "too large for float32": {"dense": [1.0, 1e39]},
    "rows for a dense vector": {"dense": [[1.0, 2.0]]},
    "dense for a sparse vector": {"sparse": [1.0, 2.0]},
    "sparse for a dense vector": {"dense": models.SparseVector(indices=[1], values=[1.0])},
    "an unknown name": {"other": [1.0, 2.0]},
    "an unknown name beside a known one": {"dense": [5.0, 5.0], "other": [1.0, 2.0]},
    "no name": [1.0, 2.0],
}


def writes(client, vector):
    """Each way of writing vectors: with a good point first, and over one that exists."""
    good = {"dense": [7.0, 7.0]}
    struct = partial(models.PointStruct.model_construct, payload={"changed": True})
    points = [struct(id=9, vector=good), struct(id=1, vector=vector)]
    vectors = [
        models.PointVectors.model_construct(id=2, vector=good),
        models.PointVectors.model_construct(id=1, vector=vector),
    ]
    batch = models.Batch.model_construct(
        ids=[1],
        vectors={name: [one] for name, one in vector.items()}
        if isinstance(vector, dict)
        else [vector],
        payloads=[{"changed": True}],
    )
    construct = models.UpsertOperation.model_construct
    return {
        "upsert": lambda: client.upsert("points", points),
        "batch": lambda: client.upsert("points", batch),
        "update_vectors": lambda: client.update_vectors("points", vectors),
        "upload_points": lambda: client.upload_points("points", points),
        "upload_collection": lambda: client.upload_collection(
            "points", [good, vector], ids=[9, 1], payload=[{"changed": True}] * 2
        ),
        "batch_update_points": lambda: client.batch_update_points(
            "points",
            [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(payload={"changed": True}, points=[1])
                ),
                construct(upsert=models.PointsList.model_construct(points=points)),
            ],
        ),
    }


@pytest.mark.parametrize("kind", VECTORS)
def test_a_vector_that_the_collection_cannot_hold_is_refused(client, kind):
    """By every call that writes vectors; no advice that is meant for filters comes with it."""
    calls = writes(client, VECTORS[kind]).values()
    assert_refused(client, calls, match=r"Nothing was done\.$")


NO_IDS = ["abc", -1, 2**64, True, None, 1.5]


def with_id(client, given):
    """Calls that name a point."""
    point = models.PointStruct.model_construct(id=given, vector={}, payload={})
    return [
        lambda: client.upsert("points", [point]),
        lambda: client.delete("points", models.PointIdsList.model_construct(points=[1, given])),
        lambda: client.retrieve("points", [given]),
    ]


@pytest.mark.parametrize("given", NO_IDS)
def test_what_is_no_id_is_named(client, given):
    """And a way to make one from any text."""
    assert_refused(client, with_id(client, given), match=r"is no id of a point.*uuid5")


def test_numbers_of_numpy_are_ids(client):
    """As a column of a data frame has them."""
    assert [one.id for one in client.retrieve("points", np.array([3, 1]))] == [3, 1]


# --- numbers that are none, in filters


def field(key="n", **kind):
    """A condition on a payload field."""
    return models.FieldCondition.model_construct(**{**EMPTY, "key": key, **kind})


EMPTY = dict.fromkeys(models.FieldCondition.model_fields)
FILTERS = {
    **{
        f"{name}={value}": models.Filter(must=[field(range=models.Range(**{name: value}))])
        for name in ("lt", "gt", "lte", "gte")
        for value in (NAN, INF, -INF)
    },
    "must_not": models.Filter(must_not=[field(range=models.Range(gt=NAN))]),
    "should": models.Filter(should=[field(range=models.Range(gt=NAN))]),
    "not in a list": models.Filter(must=field(range=models.Range(gt=NAN))),
    "min_should": models.Filter(
        min_should=models.MinShould(conditions=[field(range=models.Range(gt=NAN))], min_count=1)
    ),
    "three deep": models.Filter(
        must=[models.Filter(should=[models.Filter(must_not=[field(range=models.Range(lt=INF))])])]
    ),
    "nested": models.Filter(
        must=[
            models.NestedCondition(
                nested=models.Nested(
                    key="inner", filter=models.Filter(must=[field(range=models.Range(lt=NAN))])
                )
            )
        ]
    ),
    "radius": models.Filter(
        must=[
            field(
                "place",
                geo_radius=models.GeoRadius(center=models.GeoPoint(lon=1, lat=1), radius=NAN),
            )
        ]
    ),
    "endless radius": models.Filter(
        must=[
            field(
                "place",
                geo_radius=models.GeoRadius(center=models.GeoPoint(lon=1, lat=1), radius=INF),
            )
        ]
    ),
    "box": models.Filter(
        must=[
            field(
                "place",
                geo_bounding_box=models.GeoBoundingBox(
                    top_left=models.GeoPoint(lon=NAN, lat=1),
                    bottom_right=models.GeoPoint(lon=1, lat=INF),
                ),
            )
        ]
    ),
    "polygon": models.Filter(
        must=[
            field(
                "place",
                geo_polygon=models.GeoPolygon(
                    exterior=models.GeoLineString(
                        points=[
                            models.GeoPoint(lon=lon, lat=lat)
                            for lon, lat in ((0, 0), (9, 0), (9, NAN), (0, 0))
                        ]
                    )
                ),
            )
        ]
    ),
    "times": models.Filter(must=[field(range=models.DatetimeRange.model_construct(
        gt=NAN, lt=datetime.now(UTC), gte=None, lte=None
    ))]),
}  # fmt: skip


def filtered_writes(client, where):
    """Each change that takes a filter."""
    point = models.PointStruct(id=1, vector={}, payload={"changed": True})
    vectors = [models.PointVectors(id=1, vector={"dense": [9.0, 9.0]})]
    return [
        lambda: client.delete("points", where),
        lambda: client.delete("points", models.FilterSelector(filter=where)),
        lambda: client.set_payload("points", {"changed": True}, where),
        lambda: client.overwrite_payload("points", {"changed": True}, where),
        lambda: client.delete_payload("points", ["n"], where),
        lambda: client.clear_payload("points", where),
        lambda: client.delete_vectors("points", ["dense"], where),
        lambda: client.upsert("points", [point], update_filter=where),
        lambda: client.upload_points("points", [point], update_filter=where),
        lambda: client.upload_collection("points", [{}], ids=[1], update_filter=where),
        lambda: client.update_vectors("points", vectors, update_filter=where),
        lambda: client.batch_update_points(
            "points",
            [
                models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[1])),
                models.DeleteOperation(delete=models.FilterSelector(filter=where)),
            ],
        ),
    ]


@pytest.mark.parametrize("kind", FILTERS)
def test_nan_and_infinity_in_a_filter_are_refused(client, kind):
    """By every call that takes a filter; the engine would take them for no bound."""
    where = FILTERS[kind]
    near = {"query": [1.0, 1.0], "using": "dense"}
    idf = models.IdfCorpusParams(corpus=where)
    reads = [
        lambda: client.scroll("points", where),
        lambda: client.count("points", where),
        lambda: client.query_points("points", **near, query_filter=where),
        lambda: client.query_points(
            "points", **near, prefetch=models.Prefetch(**near, filter=where)
        ),
        lambda: client.query_points(
            "points",
            prefetch=models.Prefetch(**near),
            query=models.FormulaQuery(formula=models.SumExpression(sum=["$score", where])),
        ),
        lambda: client.query_points("points", search_params=models.SearchParams(idf=idf)),
        lambda: client.query_points_groups("points", "n", **near, query_filter=where),
        lambda: client.facet("points", "n", where),
        lambda: client.query_batch_points("points", [models.QueryRequest(filter=where)]),
    ]
    assert_refused(client, [*filtered_writes(client, where), *reads], match="NaN or infinity")


def recommend(**given):
    """A recommendation."""
    return models.RecommendQuery(recommend=models.RecommendInput(**given))


PAIR = models.ContextPair(positive=1, negative=2)
QUERIES = {
    "a vector": {"query": [NAN, 1.0]},
    "a vector too large": {"query": [1e39, 1.0]},
    "rows": {"query": [[1.0, INF]], "using": "multi"},
    "sparse": {"query": sparse([1], [NAN])["sparse"], "using": "sparse"},
    "sparse of two lengths": {"query": sparse([1, 2], [1.0])["sparse"], "using": "sparse"},
    "sparse with an index twice": {
        "query": sparse([1, 1], [1.0, 1.0])["sparse"],
        "using": "sparse",
    },
    "a threshold": {"query": [1.0, 1.0], "score_threshold": NAN},
    "MMR": {"query": models.NearestQuery(nearest=[1.0, NAN], mmr=models.Mmr(diversity=0.5))},
    "diversity": {
        "query": models.NearestQuery(
            nearest=[1.0, 1.0], mmr=models.Mmr.model_construct(diversity=NAN)
        )
    },
    "positive": {"query": recommend(positive=[[NAN, 1.0]])},
    "negative": {"query": recommend(positive=[1], negative=[[1.0, INF]])},
    "discovery": {
        "query": models.DiscoverQuery(
            discover=models.DiscoverInput(target=[NAN, 1.0], context=[PAIR])
        )
    },
    "context": {
        "query": models.ContextQuery(
            context=[models.ContextPair(positive=[1.0, 1.0], negative=[NAN, 1.0])]
        )
    },
    "weights": {
        "query": models.RrfQuery(rrf=models.Rrf(weights=[NAN])),
        "prefetch": [models.Prefetch(query=[1.0, 1.0], using="dense")],
    },
    "a prefetch": {
        "query": models.FusionQuery(fusion=models.Fusion.RRF),
        "prefetch": [models.Prefetch(query=[1.0, NAN], using="dense")],
    },
    "a constant": {
        "query": models.FormulaQuery(formula=models.SumExpression(sum=["$score", NAN])),
        "prefetch": models.Prefetch(query=[1.0, 1.0], using="dense"),
    },
    "a constant deep in": {
        "query": models.FormulaQuery(
            formula=models.MultExpression(
                mult=["$score", models.MaxExpression(max=[models.NegExpression(neg=INF)])]
            )
        ),
        "prefetch": models.Prefetch(query=[1.0, 1.0], using="dense"),
    },
    "a default": {
        "query": models.FormulaQuery(formula="n", defaults={"n": NAN}),
        "prefetch": models.Prefetch(query=[1.0, 1.0], using="dense"),
    },
    "a decay": {
        "query": models.FormulaQuery(
            formula=models.ExpDecayExpression(
                exp_decay=models.DecayParamsExpression.model_construct(
                    x="n", scale=NAN, target=None, midpoint=None
                )
            )
        ),
        "prefetch": models.Prefetch(query=[1.0, 1.0], using="dense"),
    },
    "a division": {
        "query": models.FormulaQuery(
            formula=models.DivExpression(
                div=models.DivParams(left="n", right="n", by_zero_default=INF)
            )
        ),
        "prefetch": models.Prefetch(query=[1.0, 1.0], using="dense"),
    },
    "where an order starts": {
        "query": models.OrderByQuery(order_by=models.OrderBy(key="n", start_from=NAN))
    },
}


@pytest.mark.parametrize("kind", QUERIES)
def test_numbers_that_are_none_in_a_query_are_refused(client, kind):
    """Alone, in a batch, and by groups; they would find nothing, without an error."""
    asked = {"using": "dense", **QUERIES[kind]}
    for call in (client.query_points, partial(client.query_points_groups, group_by="n")):
        with pytest.raises(QdrantRequestError, match=r"NaN or infinity|Nothing was done"):
            call("points", **asked)
    renamed = {
        "score_threshold": asked.get("score_threshold"),
        **{name: asked.get(name) for name in ("query", "using", "prefetch")},
    }
    request = models.QueryRequest.model_construct(
        **{**dict.fromkeys(models.QueryRequest.model_fields), **renamed}
    )
    with pytest.raises(QdrantRequestError, match=r"NaN or infinity|Nothing was done"):
        client.query_batch_points("points", [request])


NO_JSON = [NAN, INF, [1.0, NAN], {"a": [{"b": -INF}]}]


def with_payload(client, value):
    """Calls that write a payload."""
    point = models.PointStruct(id=1, vector={}, payload={"x": value})
    return [
        lambda: client.upsert("points", [point]),
        lambda: client.set_payload("points", {"x": value}, [1]),
        lambda: client.overwrite_payload("points", {"x": value}, [1]),
    ]


@pytest.mark.parametrize("value", NO_JSON)
def test_nan_in_a_payload_is_refused(client, value):
    """JSON has no such number."""
    assert_refused(client, with_payload(client, value), match="NaN|infinity|inf")


def further(client):
    """Unknown names, paths that are none, no points, columns of different lengths."""
    clear = models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[1]))
    wrong = models.DeleteVectors(vector=["other"], points=[1])
    return [
        lambda: client.delete_vectors("points", ["dense", "other"], [1]),
        lambda: client.set_payload("points", {"x": 1}, None),
        lambda: client.set_payload("points", {"x": 1}, [1], key="a["),
        lambda: client.delete_payload("points", ["n", "a["], [1]),
        lambda: client.upsert("points", models.Batch(ids=[1, 2], vectors={"dense": [[1.0, 2.0]]})),
        lambda: client.batch_update_points(
            "points", [clear, models.DeleteVectorsOperation(delete_vectors=wrong)]
        ),
    ]


def test_other_changes_that_are_refused_change_nothing(client):
    """Alone or in a batch."""
    assert_refused(client, further(client), match=None)


def test_nothing_that_is_refused_is_in_the_log(tmp_path):
    """A crash after all of that leaves the collection as it was, and it opens."""
    with opened(tmp_path / "db") as client:
        before = state(client)
        calls = [
            *(call for vector in VECTORS.values() for call in writes(client, vector).values()),
            *(call for where in FILTERS.values() for call in filtered_writes(client, where)),
            *(call for given in NO_IDS for call in with_id(client, given)),
            *(call for value in NO_JSON for call in with_payload(client, value)),
            *further(client),
        ]
        for call in calls:
            with pytest.raises(QdrantRequestError):
                call()
        copy_with_holes(tmp_path / "db", tmp_path / "crashed")
    with closing(EmbeddedClient(tmp_path / "crashed")) as crashed:
        assert state(crashed) == before


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "\ud800", 3, True, b"x", 10**5000, ["a"]], ids="abcdefghi"
)
def test_a_name_that_cannot_be_makes_no_collection(tmp_path, name):
    """Nor does it leave a folder, nor an alias."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **CONFIG)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(QdrantRequestError, match="cannot be the name of a collection"):
            client.create_collection(name, **CONFIG)
        if not isinstance(name, str):
            made = models.CreateAlias.model_construct(collection_name="points", alias_name=name)
            with pytest.raises(QdrantRequestError, match="The alias is"):
                client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])
            with pytest.raises(QdrantRequestError, match="group_by is"):
                client.query_points_groups("points", name, query=[1.0, 0.0])
        assert sorted(tmp_path.rglob("*")) == before
    with closing(EmbeddedClient(tmp_path)) as client:
        assert [one.name for one in client.get_collections().collections] == ["points"]


@pytest.mark.parametrize("key", ["a\nb[c", "a\x1b[31mb", "a\u2028[b"])
def test_a_name_cannot_drive_a_terminal_from_an_error(client, key):
    """The engine repeats names of fields and vectors as they are."""
    where = models.Filter(must=[models.FieldCondition(key=key, match={"value": 1})])
    for call in (
        lambda: client.count("points", where),
        lambda: client.scroll("points", order_by=key),
        lambda: client.query_points("points", query=[1.0, 0.0], using=key),
        lambda: client.create_payload_index("points", key, "keyword"),
    ):
        with pytest.raises(QdrantRequestError) as caught:
            call()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("number", [10**5000, -(10**5000), 2**64, 10**400], ids="abcd")
def test_numbers_of_any_size_are_refused_in_our_words(client, number):
    """Python writes no more than 4,300 digits, and counts no further than 2**63."""
    point = models.PointStruct.model_construct(id=number, vector={}, payload={})
    calls = {
        "limit": lambda: client.scroll("points", limit=number),
        "offset": lambda: client.scroll("points", offset=number),
        "ids": lambda: client.retrieve("points", [number]),
        "facet": lambda: client.facet("points", "n", limit=number),
        "point": lambda: client.upsert("points", [point]),
        "payload": lambda: client.set_payload("points", {"n": number}, [1]),
        "upload": lambda: client.upload_points("points", [], batch_size=number),
        "matrix": lambda: client.search_matrix_pairs("points", sample=number),
    }
    for name, call in calls.items():
        if name == "payload" and number.bit_length() < 2000:
            continue  # stored as a float
        with pytest.raises(QdrantRequestError):
            call()
