"""The servers that stand in for Qdrant in the tests do what they are asked, or fail."""

from contextlib import closing

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from qdrant_rerank.qdrant.embedded.client import EdgeClient
from tests.loopback_grpc import loopback_server
from tests.releases import needs_client

OLD = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=1))])


@pytest.fixture(params=[False, True], ids=["rest", "grpc"])
def client(request):
    """Of a server with two points, over either transport."""
    with closing(EdgeClient()) as engine, loopback_server(engine) as (url, grpc_port):
        engine.create_collection(
            "docs", vectors_config=models.VectorParams(size=2, distance="Cosine")
        )
        made = QdrantClient(
            url=url, grpc_port=grpc_port, prefer_grpc=request.param, check_compatibility=False
        )
        made.upsert("docs", [point(1, n=1), point(2, n=2)])
        yield made
        made.close()


def point(point_id, **payload):
    """With any vector."""
    return models.PointStruct(id=point_id, payload=payload, vector=[1.0, 0.5])


def payloads(client):
    """Of all points, by id."""
    return {record.id: record.payload for record in client.scroll("docs")[0]}


@needs_client(1, 17)
def test_a_conditional_write_changes_only_what_it_may(client):
    """By the filter, and by whether the point exists."""
    client.upsert("docs", [point(1, n=7), point(2, n=7)], update_filter=OLD)
    assert payloads(client) == {1: {"n": 7}, 2: {"n": 2}}
    client.upsert("docs", [point(2, n=8), point(3, n=8)], update_mode=models.UpdateMode.INSERT_ONLY)
    assert payloads(client) == {1: {"n": 7}, 2: {"n": 2}, 3: {"n": 8}}


def test_payload_and_batch_calls_and_facets(client):
    """As the engine does them."""
    if client.init_options["prefer_grpc"]:
        pytest.skip("its calls of these are refused as unknown")
    client.set_payload("docs", {"kind": "a"}, [1])
    client.overwrite_payload("docs", {"kind": "b"}, [2])
    assert payloads(client) == {1: {"n": 1, "kind": "a"}, 2: {"kind": "b"}}
    client.delete_payload("docs", ["n"], [1])
    client.create_payload_index("docs", "kind", "keyword")
    hits = client.facet("docs", "kind").hits
    assert {hit.value: hit.count for hit in hits} == {"a": 1, "b": 1}
    client.clear_payload("docs", [2])
    assert payloads(client) == {1: {"kind": "a"}, 2: {}}
    client.update_vectors("docs", [models.PointVectors(id=1, vector=[0.0, 1.0])])
    assert client.retrieve("docs", [1], with_vectors=True)[0].vector == [0.0, 1.0]
    upsert = models.UpsertOperation(upsert=models.PointsList(points=[point(3, n=3)]))
    delete = models.DeleteOperation(delete=models.PointIdsList(points=[1]))
    assert len(client.batch_update_points("docs", [upsert, delete])) == 2
    assert payloads(client) == {2: {}, 3: {"n": 3}}


def test_what_would_be_ignored_is_refused():
    """A test that sends it must fail."""
    with closing(EdgeClient()) as engine, loopback_server(engine) as (url, _):
        engine.create_collection(
            "docs", vectors_config=models.VectorParams(size=2, distance="Cosine")
        )
        client = QdrantClient(url=url, check_compatibility=False)
        for call in (
            lambda: client.upsert("docs", [point(1)], shard_key_selector="eu"),
            lambda: client.update_collection("docs", hnsw_config=models.HnswConfigDiff(m=4)),
            lambda: client.count("docs", shard_key_selector="eu"),
        ):
            with pytest.raises(UnexpectedResponse, match="the loopback server does not know"):
                call()
        client.close()
