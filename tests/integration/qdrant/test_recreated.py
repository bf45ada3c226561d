"""A collection that others delete, or make again with other vectors, while a searcher is in use."""

import asyncio
from contextlib import ExitStack, closing

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher
from qdrant_rerank.errors import CollectionNotFoundError, QdrantRequestError, SchemaMismatchError
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from tests.loopback_grpc import loopback_server

ENGINES = ["local mode", "embedded", "REST", "gRPC", "REST to embedded"]
OTHER_NAMES = {
    "vectors_config": {"words": models.VectorParams(size=256, distance=models.Distance.COSINE)},
    "sparse_vectors_config": {"terms": models.SparseVectorParams(modifier=models.Modifier.IDF)},
}
NO_DENSE = {
    "vectors_config": {},
    "sparse_vectors_config": {"terms": models.SparseVectorParams(modifier=models.Modifier.IDF)},
}


@pytest.fixture(params=ENGINES)
def clients(request):
    """A client of an engine, and what makes an async one of the same."""
    with ExitStack() as stack:
        edge = "embedded" in request.param
        engine = stack.enter_context(closing(EdgeClient() if edge else QdrantClient(":memory:")))
        if request.param in {"local mode", "embedded"}:
            yield engine, lambda: engine
            return
        url, grpc_port = stack.enter_context(loopback_server(engine))
        where = {"url": url, "grpc_port": grpc_port, "prefer_grpc": request.param == "gRPC"}
        client = QdrantClient(**where, check_compatibility=False)
        stack.callback(client.close)
        yield client, lambda: AsyncQdrantClient(**where, check_compatibility=False)


def recreate(client, config):
    client.delete_collection("docs")
    client.create_collection("docs", **config)


def found(results):
    return [hit.payload["text"] for hit in results]


def test_add_makes_a_deleted_collection_again(clients):
    """And a search in between says that there is none."""
    client, _ = clients
    searcher = HybridSearcher("docs", client=client, reranker=None)
    searcher.add(["iron"], progress=False)
    client.delete_collection("docs")
    assert searcher.add(["copper"], progress=False) == 1
    assert found(searcher.search("copper")) == ["copper"]
    client.delete_collection("docs")
    with pytest.raises(CollectionNotFoundError):
        searcher.search("copper")
    assert searcher.add(["tin"], progress=False) == 1
    assert found(searcher.search("tin")) == ["tin"]


@pytest.mark.parametrize("config", [OTHER_NAMES, NO_DENSE])
def test_a_collection_with_other_vectors_is_added_to_and_searched(clients, config):
    """One searcher adds, others only search; all read what the collection has by now."""
    client, _ = clients
    adds, searches, batches = (
        HybridSearcher("docs", client=client, reranker=None) for _ in range(3)
    )
    adds.add(["iron"], progress=False)
    assert found(searches.search("iron")) == ["iron"]
    assert [found(one) for one in batches.search_batch(["iron", "iron ore"])] == [["iron"]] * 2
    recreate(client, config)
    assert adds.add(["copper"], progress=False) == 1
    assert found(searches.search("copper")) == ["copper"]
    assert [found(one) for one in batches.search_batch(["copper", "a copper"])] == [["copper"]] * 2
    [vectors] = [point.vector for point in client.scroll("docs", with_vectors=True)[0]]
    assert set(vectors) == {*config["vectors_config"], "terms"}


def test_what_did_not_fit_is_looked_at_again(clients):
    """Once the collection was fixed, the searcher need not be made again."""
    client, _ = clients
    size_2 = models.VectorParams(size=2, distance=models.Distance.DOT)
    client.create_collection("docs", vectors_config=size_2)
    searcher = HybridSearcher("docs", client=client, reranker=None)
    for _ in range(2):
        with pytest.raises(SchemaMismatchError):
            searcher.search("iron")
    recreate(client, OTHER_NAMES)
    assert found(searcher.search("iron")) == []


def test_a_request_that_is_wrong_is_refused_as_before(clients):
    """The collection is the same, so nothing is asked twice."""
    client, _ = clients
    searcher = HybridSearcher("docs", client=client, reranker=None)
    searcher.add(["iron"], progress=False)
    asked = models.NearestQuery(nearest=[0.5] * 256)
    with pytest.raises(QdrantRequestError):
        searcher.search("iron", recall=models.QueryRequest(query=asked, using="none", limit=3))


def test_the_async_searcher_does_the_same(clients):
    """Deleted, then made again with other vectors."""
    client, make = clients

    async def main():
        async_client = make()
        async with (
            AsyncHybridSearcher("docs", client=async_client, reranker=None) as adds,
            AsyncHybridSearcher("docs", client=async_client, reranker=None) as searches,
        ):
            await adds.add(["iron"], progress=False)
            assert found(await searches.search("iron")) == ["iron"]
            client.delete_collection("docs")
            with pytest.raises(CollectionNotFoundError):
                await searches.search("iron")
            await adds.add(["copper"], progress=False)
            assert found(await searches.search("copper")) == ["copper"]
            recreate(client, OTHER_NAMES)
            await adds.add(["tin"], progress=False)
            assert found(await searches.search("tin")) == ["tin"]
        if async_client is not client:
            await async_client.close()

    asyncio.run(main())
