"""The main jobs on a real server or cluster at QDRANT_URL, over REST and gRPC: make server-test."""

import asyncio
import os
import uuid

import pytest
from click.testing import CliRunner
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    AsyncHybridSearcher,
    CollectionSettings,
    HybridSearcher,
    SearchOptions,
    TextCrossEncoder,
)
from qdrant_rerank.cli.main import main as command_line
from qdrant_rerank.errors import CollectionNotFoundError, InvalidInputError, QdrantRequestError
from qdrant_rerank.qdrant.schema import STATES_FIELD
from tests.recalls import CALLS, INDEXES, QUERY, documents, same, shown

pytestmark = [
    pytest.mark.server,
    # An API key over plain HTTP; a cluster's balancer has its ports elsewhere.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

DOCUMENTS = [
    {"text": "Iron melts at 1538 degrees Celsius.", "kind": "metal", "n": 1},
    {"text": "Tin melts at 232 degrees Celsius.", "kind": "metal", "n": 2},
    {"text": "Bread is baked in a hot oven.", "kind": "food", "n": 3},
]


def client_options(server_url, *, prefer_grpc):
    """Arguments of a client; gRPC is at the port after that of REST."""
    host, port = server_url.rsplit(":", 1) if server_url.count(":") > 1 else (server_url, "6333")
    return {
        "url": f"{host}:{port}",
        "grpc_port": int(port.rstrip("/")) + 1,
        "prefer_grpc": prefer_grpc,
        "api_key": os.environ.get("QDRANT_API_KEY") or None,
        "timeout": 30,
    }


@pytest.fixture(params=[False, True], ids=["rest", "grpc"])
def options(request, server_url):
    """Arguments of a client, for either transport."""
    return client_options(server_url, prefer_grpc=request.param)


@pytest.fixture
def collection(server_url):
    """A name that nobody else has; removed afterwards, and what is named after it."""
    name = f"qdrant-rerank-test-{uuid.uuid4().hex}"
    yield name
    client = QdrantClient(**client_options(server_url, prefer_grpc=False))
    for found in client.get_collections().collections:
        if found.name.startswith(name):
            client.delete_collection(found.name)
    client.close()


@pytest.fixture
def searcher(options, collection):
    """Filled, with recall of both kinds and an index for the filter."""
    client = QdrantClient(**options)
    made = HybridSearcher(collection, client=client)
    settings = CollectionSettings(
        replication_factor=1, quantization="int8", payload_indexes={"kind": "keyword"}
    )
    for _ in range(2):
        assert made.add(DOCUMENTS, settings=settings, parallel=2, batch_size=2, progress=False) == 3
    yield made
    client.close()


def test_search_filter_select_and_batch(searcher):
    """What was added twice is there once."""
    results = searcher.search("melting point of iron", with_payload=["n"])
    assert results[0].payload == {"n": 1}
    assert len(results) == 3
    food = models.Filter(
        must=[models.FieldCondition(key="kind", match=models.MatchValue(value="food"))]
    )
    batch = searcher.search_batch(["iron", "bread"], query_filter=food)
    assert [[hit.payload["n"] for hit in found] for found in batch] == [[3], [3]]
    groups = searcher.search_groups("melting point", group_by="kind", limit=2)
    assert groups[0].id == "metal"


def test_the_settings_are_those_of_the_collection(searcher):
    """int8, and the index."""
    info = searcher.client.get_collection(searcher.collection)
    assert info.config.quantization_config.scalar.type == "int8"
    assert info.payload_schema["kind"].data_type == "keyword"
    assert searcher.add(DOCUMENTS, resume=True, progress=False) == 0


def test_the_average_length_is_recorded_and_idf_can_be_turned_on(options, collection):
    """In a new collection, in an empty one of the caller's, and in one of LangChain's kind."""
    client = QdrantClient(**options)
    lexical = {"client": client, "embedder": None, "reranker": None}
    kinds = {"new": None, "empty": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    for kind, params in kinds.items():
        name = f"{collection}-{kind}"
        if params is not None:
            client.create_collection(
                name, {}, sparse_vectors_config={"s": params}, metadata={"owner": "me"}
            )
        searcher = HybridSearcher(name, **lexical)
        searcher.add(["iron melts", "hot bread baked oven"], progress=False)
        metadata = client.get_collection(name).config.metadata
        assert metadata["qdrant_rerank_sparse"]["avg_len"] == searcher.sparse.avg_len == 3.0
        assert metadata.get("owner") == (None if params is None else "me")
        once, twice = (searcher.search(query)[0].score for query in ("iron", "iron iron"))
        assert twice == pytest.approx(2 * once, rel=1e-5)
    name = f"{collection}-others"
    plain = {"langchain-sparse": models.SparseVectorParams()}
    client.create_collection(name, {}, sparse_vectors_config=plain)
    HybridSearcher(name, sparse="Qdrant/bm25", **lexical).add(["iron", "bread"], progress=False)
    idf = {"langchain-sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    client.update_collection(name, sparse_vectors_config=idf)
    found = HybridSearcher(name, **lexical).search("iron")
    assert [hit.payload["text"] for hit in found] == ["iron"]
    assert found.trace.vectors == ("langchain-sparse",)
    client.close()


def test_an_alias_is_searched_and_switched(searcher, collection):
    """With no gap."""
    client, alias = searcher.client, f"{collection}-alias"
    create = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
    )
    client.update_collection_aliases([create])
    through = HybridSearcher(alias, client=client, reranker=None)
    assert len(through.search("iron")) == 3
    client.update_collection_aliases(
        [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))]
    )
    with pytest.raises(CollectionNotFoundError):
        through.search("iron")


def test_refusals_are_our_errors(searcher):
    """A vector of the wrong length, points and collections that are not there."""
    with pytest.raises(QdrantRequestError):
        searcher.search("iron", prefetch=models.Prefetch(query=[0.5] * 3, using="dense"))
    with pytest.raises(InvalidInputError, match="no such point"):
        searcher.search(12345)
    gone = models.RecommendQuery(recommend=models.RecommendInput(positive=[12345]))
    with pytest.raises(QdrantRequestError, match="12345"):
        searcher.search("iron", recall=gone)
    with pytest.raises(CollectionNotFoundError, match=f"It has .*{searcher.collection}"):
        HybridSearcher(f"{searcher.collection}-none", client=searcher.client).search("iron")


def test_a_wrong_key_is_named(options, searcher):
    """Where the server asks for one."""
    if not options["api_key"]:
        pytest.skip("QDRANT_API_KEY is not set")
    client = QdrantClient(**options | {"api_key": "wrong"})
    with pytest.raises(QdrantRequestError, match="refused access.*QDRANT_API_KEY"):
        HybridSearcher(searcher.collection, client=client, reranker=None).search("iron")
    client.close()


def test_async_finds_the_same(options, collection, searcher):
    """Over the client of the other kind."""
    expected = [(hit.id, hit.score) for hit in searcher.search("how hot is an oven")]

    async def main():
        client = AsyncQdrantClient(**options)
        async with AsyncHybridSearcher(collection, client=client) as other:
            found = await other.search("how hot is an oven")
        await client.close()
        return [(hit.id, hit.score) for hit in found]

    assert asyncio.run(main()) == expected


def test_grpc_finds_what_rest_finds(server_url, collection, tiny_bert):
    """By every kind of recall, with every type of payload; sync and async."""
    reranker = TextCrossEncoder(tiny_bert)
    address = {one: client_options(server_url, prefer_grpc=one) for one in (False, True)}
    rest, grpc = (QdrantClient(**address[one]) for one in (False, True))
    settings = CollectionSettings(payload_indexes=INDEXES, replication_factor=1)
    HybridSearcher(collection, client=grpc).add(documents(), settings=settings, progress=False)
    calls = {name: {"query": QUERY} | asked for name, asked in CALLS.items()}

    async def awaited():
        client = AsyncQdrantClient(**address[True])
        async with AsyncHybridSearcher(collection, client=client, reranker=reranker) as searcher:
            found = {name: await searcher.search(**asked) for name, asked in calls.items()}
        await client.close()
        return found

    by_rest = HybridSearcher(collection, client=rest, reranker=reranker)
    by_grpc = HybridSearcher(collection, client=grpc, reranker=reranker)
    others = asyncio.run(awaited())
    for name, asked in calls.items():
        expected = shown(by_rest.search(**asked))
        same(shown(by_grpc.search(**asked)), expected, name)
        same(shown(others[name]), expected, f"{name}, async")
    for asked in ({}, {"options": SearchOptions(blend="rrf")}):
        groups = {"group_by": "book", "group_size": 2, **asked}
        same(
            shown(by_grpc.search_groups(QUERY, **groups)),
            shown(by_rest.search_groups(QUERY, **groups)),
        )
        queries = [QUERY, 0, "bread"]
        same(
            shown(by_grpc.search_batch(queries, **asked)),
            shown(by_rest.search_batch(queries, **asked)),
        )
    rest.close()
    grpc.close()


@pytest.fixture
def stored(options, collection, bundled):
    """Searchers of the same documents, with the states of the default: on the server, embedded."""
    client = QdrantClient(**options)
    server = HybridSearcher(collection, client=client, reranker=bundled)
    embedded = HybridSearcher("docs", client=QdrantClient(":memory:"), reranker=bundled)
    for searcher in (server, embedded):
        settings = CollectionSettings(document_states="int8", replication_factor=1, shard_number=1)
        searcher.add(DOCUMENTS, settings=settings, ids=[1, 2, 3], progress=False)
    yield server, embedded
    client.close()
    embedded.client.close()


def reranked(searcher):
    """The hits with their scores, and how many were scored by stored states, and read."""
    found = searcher.search("melting point of iron")
    trace = found.trace
    hits = [(hit.id, hit.rerank_score) for hit in found]
    return hits, (trace.documents_stored, trace.documents_read)


def test_states_of_documents_are_stored_and_filled_in(stored, options, monkeypatch):
    """The scores are those of the embedded engine, whether the server has the states or not."""
    server, embedded = stored
    expected, counts = reranked(embedded)
    assert counts == (3, 0)
    assert reranked(server) == (expected, (3, 0))
    assert all(STATES_FIELD not in hit.payload for hit in server.search("iron"))
    server.client.delete_payload(server.collection, [STATES_FIELD], points=[1, 2])
    assert reranked(server) == (expected, (1, 2))
    monkeypatch.setenv("QDRANT_URL", options["url"])
    filled = CliRunner().invoke(command_line, ["states", "--collection", server.collection])
    assert filled.output.startswith("2 documents read, 1 had current states"), filled.output
    assert reranked(server) == (expected, (3, 0))


def test_a_restored_snapshot_has_the_states_of_its_documents(stored, options, bundled):
    """Taken by the server, and restored by it under another name."""
    server, embedded = stored
    cluster = server.client.http.distributed_api.cluster_status().result
    if len(getattr(cluster, "peers", ())) > 1:
        pytest.skip("a snapshot is of one node, and its address is that of any")
    made = server.client.create_snapshot(server.collection)
    restored = f"{server.collection}-restored"
    server.client.recover_snapshot(
        restored,
        f"{options['url']}/collections/{server.collection}/snapshots/{made.name}",
        api_key=options["api_key"],
        wait=True,
    )
    again = HybridSearcher(restored, client=server.client, reranker=bundled)
    assert reranked(again) == (reranked(embedded)[0], (3, 0))
