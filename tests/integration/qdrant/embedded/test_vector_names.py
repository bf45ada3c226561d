"""Vectors that a collection gets and loses, and the matrix of a sample, as on a server."""

import os
from contextlib import closing

import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank import HybridSearcher
from qdrant_rerank.errors import CollectionNotFoundError, QdrantRequestError
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.integration.qdrant.embedded.test_refused import copy_with_holes

SIZE_2 = models.VectorParams(size=2, distance=models.Distance.DOT)
POINTS = [models.PointStruct(id=n, vector=[n, 1.0], payload={"n": n}) for n in range(1, 5)]


def dense(size=2, **more):
    """What a new dense vector is like."""
    return models.DenseVectorNameConfig(
        dense=models.DenseVectorConfig(size=size, distance="Cosine", **more)
    )


def sparse(modifier=None):
    """What a new sparse vector is like."""
    return models.SparseVectorNameConfig(sparse=models.SparseVectorConfig(modifier=modifier))


@pytest.fixture
def client():
    """Four points with an unnamed vector, in memory."""
    with closing(EmbeddedClient()) as client:
        client.create_collection("points", vectors_config=SIZE_2)
        client.upsert("points", POINTS)
        yield client


def vectors(client):
    """Of all points, by id."""
    return {one.id: one.vector for one in client.scroll("points", with_vectors=True)[0]}


def test_a_new_vector_is_filled_searched_and_removed(tmp_path):
    """Points, payloads, indexes and aliases stay, when the engine is opened again, too."""
    with closing(EmbeddedClient(tmp_path / "db")) as client:
        client.create_collection("points", vectors_config=SIZE_2)
        client.create_payload_index("points", "n", "integer")
        client.upsert("points", POINTS)
        create = models.CreateAlias(collection_name="points", alias_name="alias")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
        client.create_vector_name(
            "alias", "rows", dense(multivector_config={"comparator": "max_sim"})
        )
        client.create_vector_name("points", "words", sparse("idf"))
        words = models.SparseVector(indices=[7], values=[1.0])
        given = {"": [9.0, 9.0], "rows": [[1.0, 0.0], [0.0, 1.0]], "words": words}
        client.upsert("points", [models.PointStruct(id=9, vector=given, payload={"n": 9})])
    # As a killed process leaves it, whose log is replayed.
    copy_with_holes(tmp_path / "db", tmp_path / "copy")
    with closing(EmbeddedClient(tmp_path / "copy")) as client:
        assert vectors(client) == {**{n: [n, 1.0] for n in range(1, 5)}, 9: given}
        assert client.count("alias").count == 5
        [hit] = client.query_points("points", query=[[1.0, 0.0]], using="rows").points
        assert hit.id == 9
        info = client.get_collection("points")
        assert set(info.config.params.vectors) == {"", "rows"}
        assert info.config.params.sparse_vectors["words"].modifier == "idf"
        assert info.payload_schema["n"].points == 5
        client.delete_vector_name("points", "rows")
        client.delete_vector_name("points", "words")
        client.delete_vector_name("points", "words")  # a second time does no harm
        with pytest.raises(QdrantRequestError, match="no vector 'rows'; it has unnamed vector"):
            client.upsert("points", [models.PointStruct(id=8, vector={"rows": [[1.0, 0.0]]})])
    with closing(EmbeddedClient(tmp_path / "copy")) as client:
        assert vectors(client)[9] == [9.0, 9.0]
        client.create_vector_name("points", "rows", {"dense": {"size": 3, "distance": "Dot"}})
        client.update_vectors("points", [models.PointVectors(id=9, vector={"rows": [1, 2, 3]})])
        assert vectors(client)[9] == {"": [9.0, 9.0], "rows": [1.0, 2.0, 3.0]}


def test_the_same_vector_twice_is_one_vector(client):
    """As on a server, a vector that is there with the same settings is left as it is."""
    client.create_vector_name("points", "b", dense())
    client.upsert("points", [models.PointStruct(id=1, vector={"b": [1.0, 0.0]})])
    client.create_vector_name("points", "b", dense())
    assert vectors(client)[1] == {"b": [1.0, 0.0]}


@pytest.mark.parametrize(
    ("name", "config", "seen"),
    [
        ("b", dense(3), "a vector 'b' already, with other settings: .*size=2"),
        ("b", sparse(), "a vector 'b' already"),
        ("s", sparse("idf"), "a vector 's' already"),
        ("", dense(3), "a vector '' already"),
        ("../b", dense(), "'../b' cannot be the name of a vector"),
        ("ü" * 101, dense(), "at most 200 bytes"),
        ("c", dense(0), "'c' has 0 dimensions; expected 1 to 65536"),
        ("c", dense(65537), "65537 dimensions"),
        ("c", SIZE_2, "is described by a VectorParams; expected models.DenseVectorNameConfig"),
        ("c", {"dense": {"size": 3}}, "is no DenseVectorNameConfig: .*distance"),
        ("", sparse(), "a vector '' already"),
    ],
)
def test_a_vector_that_cannot_be_is_refused(client, name, config, seen):
    """And nothing changes."""
    client.create_vector_name("points", "b", dense())
    client.create_vector_name("points", "s", sparse())
    before = client.get_collection("points").config
    with pytest.raises(QdrantRequestError, match=f"(?s){seen}"):
        client.create_vector_name("points", name, config)
    assert client.get_collection("points").config == before
    assert vectors(client) == {n: [n, 1.0] for n in range(1, 5)}


def test_the_only_unnamed_vector_is_kept(client):
    """As in local mode, which has no other place for it; and what is not there is told."""
    with pytest.raises(QdrantRequestError, match="unnamed vector is the collection's only dense"):
        client.delete_vector_name("points", "")
    for call in (
        lambda: client.delete_vector_name("others", "a"),
        lambda: client.create_vector_name("others", "a", dense()),
        lambda: client.search_matrix_pairs("others"),
    ):
        with pytest.raises(CollectionNotFoundError):
            call()
    client.create_vector_name("points", "b", dense())
    client.delete_vector_name("points", "")
    client.delete_vector_name("points", "b")
    assert vectors(client) == {1: {}, 2: {}, 3: {}, 4: {}}


@pytest.mark.parametrize(
    "arguments",
    [
        {"vectors_config": {"../x": SIZE_2}},
        {"vectors_config": {"y" * 201: SIZE_2}},
        {"vectors_config": models.VectorParams(size=70_000, distance="Dot")},
        {"sparse_vectors_config": {"": models.SparseVectorParams()}},
    ],
)
def test_a_new_collection_has_no_vector_that_a_server_refuses(client, arguments):
    """It could not be moved to one."""
    with pytest.raises(QdrantRequestError):
        client.create_collection("new", **arguments)
    assert not client.collection_exists("new")


def test_a_searcher_uses_a_vector_that_was_added_later(client):
    """The encoders that a collection lacked."""
    client.create_collection("docs", sparse_vectors_config={"bm25": {"modifier": "idf"}})
    lexical = HybridSearcher("docs", client=client, reranker=None, embedder=None)
    lexical.add(["Iron melts."], progress=False)
    client.create_vector_name("docs", "dense", dense(256))
    both = HybridSearcher("docs", client=client, reranker=None)
    both.add(["Iron melts."], progress=False)
    [hit] = both.search("iron", with_vectors=True)
    assert set(hit.vector) == {"bm25", "dense"}


# --- the matrix of a sample


def test_the_matrix_of_all_points(client):
    """Each point with its nearest; pairs and offsets say the same."""
    mixed = "00000000-0000-0000-0000-000000000001"
    client.upsert("points", [models.PointStruct(id=mixed, vector=[5.0, 1.0])])
    pairs = client.search_matrix_pairs("points", sample=10, limit=2).pairs
    assert [(pair.a, pair.b, pair.score) for pair in pairs[:4]] == [
        (1, mixed, 6.0),
        (1, 4, 5.0),
        (2, mixed, 11.0),
        (2, 4, 9.0),
    ]
    assert len(pairs) == 10
    found = client.search_matrix_offsets("points", sample=10, limit=2)
    assert found.ids == [1, 2, 3, 4, mixed]
    cells = zip(found.offsets_row, found.offsets_col, found.scores, strict=True)
    assert [(found.ids[a], found.ids[b], score) for a, b, score in cells] == [
        (pair.a, pair.b, pair.score) for pair in pairs
    ]


def test_a_matrix_is_of_points_that_pass_the_filter_and_have_the_vector(client):
    """A sample is as large as asked for; of one point, there is nothing to compare."""
    few = models.Filter(must=models.FieldCondition(key="n", range=models.Range(gte=3)))
    pairs = client.search_matrix_pairs("points", few, sample=10).pairs
    assert [(pair.a, pair.b) for pair in pairs] == [(3, 4), (4, 3)]
    one = {"must": [{"key": "n", "match": {"value": 3}}]}
    assert client.search_matrix_pairs("points", one).pairs == []
    assert len(client.search_matrix_offsets("points", sample=2).ids) == 2
    client.create_vector_name("points", "b", dense())
    assert client.search_matrix_pairs("points", using="b").pairs == []
    some = [models.PointVectors(id=n, vector={"b": [1.0, n]}) for n in (1, 3)]
    client.update_vectors("points", some)
    pairs = client.search_matrix_pairs("points", using="b").pairs
    assert [(pair.a, pair.b) for pair in pairs] == [(1, 3), (3, 1)]


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ({"sample": 1}, "sample is 1; expected 2 or more"),
        ({"limit": 0}, "limit is 0; expected 1 or more"),
        ({"using": "b"}, "the collection has no vector 'b'; it has unnamed vector"),
        ({"query_filter": {"mast": []}}, "is no Filter"),
        (
            {"query_filter": {"must": [{"key": "n", "range": {"gte": float("nan")}}]}},
            "holds NaN or infinity",
        ),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(client, arguments, seen):
    """With what is expected."""
    for call in (client.search_matrix_pairs, client.search_matrix_offsets):
        with pytest.raises(QdrantRequestError, match=seen):
            call("points", **arguments)


@pytest.mark.server
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_server_says_the_same_of_vectors_and_of_the_matrix(server_url):
    """Beside an unnamed vector, which local mode does not take beside others."""
    key = os.environ.get("QDRANT_API_KEY")
    options = {"api_key": key, "timeout": 60, "check_compatibility": False}
    name, answers = "vector-names", []
    for one in (EmbeddedClient(), QdrantClient(server_url, **options)):
        with closing(one) as client:
            client.create_collection(name, vectors_config=SIZE_2)
            try:
                client.upsert(name, POINTS, wait=True)
                client.create_vector_name(name, "b", dense())
                given = {"": [4.0, 4.0], "b": [1.0, 0.0]}
                client.upsert(name, [models.PointStruct(id=4, vector=given)], wait=True)
                matrix = client.search_matrix_offsets(name, sample=10)
                both = {p.id: p.vector for p in client.scroll(name, with_vectors=True)[0]}
                client.delete_vector_name(name, "b")
                after = {p.id: p.vector for p in client.scroll(name, with_vectors=True)[0]}
                params = client.get_collection(name).config.params.vectors
            finally:
                client.delete_collection(name)
            answers.append((matrix, both, after, params))
    assert answers[0] == answers[1]
