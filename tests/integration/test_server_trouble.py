"""A real server under load, killed, over its limits and with its keys: make server-test."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
from click.testing import CliRunner
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    AsyncHybridSearcher,
    Bm25Encoder,
    CollectionSettings,
    HybridSearcher,
    SearchOptions,
    StaticEmbedder,
    TextCrossEncoder,
)
from qdrant_rerank.cli.main import main
from qdrant_rerank.cli.stdlib_docs import standard_library_documents
from qdrant_rerank.embedders.qdrant import TextIndex
from qdrant_rerank.errors import IncompleteAddError, QdrantConnectionError, QdrantRequestError
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from qdrant_rerank.qdrant.server_version import TEXT_INDEX, parse_version
from tests.integration.test_server import client_options, collection, options  # noqa: F401
from tests.own_server import OwnServer, make_certificate
from tests.recalls import CALLS, INDEXES, QUERY, documents, same, shown

pytestmark = [
    pytest.mark.server,
    # An API key over plain HTTP; a cluster's balancer has its ports elsewhere.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

WORDS = (
    "iron tin gold lead melts boils furnace oven bread river sea copper ore steel glass hot cold "
    "north south old new salt sand stone wood fire water night winter king road ship bridge"
).split()


def sentences(count, seed=0):
    """Texts that differ."""
    chosen = np.random.default_rng(seed).choice(WORDS, size=(count, 12))
    return [" ".join([*row, str(n)]) for n, row in enumerate(chosen)]


@pytest.fixture
def client(options):  # noqa: F811 - the fixture
    """Over either transport."""
    made = QdrantClient(**options)
    yield made
    made.close()


def test_every_call_finds_what_the_embedded_engine_finds(server_url, collection, tiny_bert):  # noqa: F811
    """Hits, scores and payloads."""
    reranker = TextCrossEncoder(tiny_bert)
    server = QdrantClient(**client_options(server_url, prefer_grpc=False))
    engine = EdgeClient()
    indexes = INDEXES | {"text": models.TextIndexParams(type="text")}
    # Each shard of a cluster counts its own words for BM25.
    settings = CollectionSettings(payload_indexes=indexes, replication_factor=1, shard_number=1)
    found = []
    for one in (server, engine):
        searcher = HybridSearcher(collection, client=one, reranker=reranker)
        searcher.add(documents(), settings=settings, progress=False)
        found.append(
            {
                name: shown(searcher.search(**{"query": QUERY} | call))
                for name, call in CALLS.items()
            }
        )
        one.close()
    for name, expected in found[0].items():
        for answer in (expected, found[1][name]):
            for hit in answer["hits"]:
                hit.pop("version")  # a server counts its writes
        same(found[1][name], expected, name)


@pytest.mark.parametrize("prefer_grpc", [False, True])
def test_a_server_killed_during_add_loses_nothing(server_url, tmp_path, prefer_grpc):
    """The error says how many documents are stored, and resume goes on from there."""
    texts = sentences(600)
    with OwnServer(tmp_path) as server:
        client = QdrantClient(**server.client_options(prefer_grpc=prefer_grpc))
        searcher = HybridSearcher("docs", client=client, reranker=None)

        def killing():
            for n, text in enumerate(texts):
                if n == 310:
                    server.kill()
                yield text

        with pytest.raises(QdrantConnectionError, match=r"300 documents.*resume=True"):
            searcher.add(killing(), batch_size=50, avg_len=10.0, progress=False)
        client.close()
        server.start()
        client = QdrantClient(**server.client_options(prefer_grpc=prefer_grpc))
        searcher = HybridSearcher("docs", client=client, reranker=None)
        assert client.count("docs").count == 300
        assert searcher.add(texts, resume=True, batch_size=50, progress=False) == 300
        assert client.count("docs").count == 600
        client.close()


def test_reindex_under_load_fails_no_search(server_url, collection, tmp_path, monkeypatch):  # noqa: F811
    """Two times, while others search through the alias."""
    monkeypatch.setenv("QDRANT_URL", client_options(server_url, prefer_grpc=False)["url"])
    file = tmp_path / "documents.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in sentences(300)))
    command = ["reindex", str(file), "--collection", collection, "--json"]
    runner = CliRunner()
    first = runner.invoke(main, command, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    client = QdrantClient(**client_options(server_url, prefer_grpc=False))
    done, failures, searches = threading.Event(), [], []

    def load():
        searcher = HybridSearcher(collection, client=client, reranker=None)
        while not done.is_set():
            try:
                searches.append(len(searcher.search("iron furnace", limit=5)))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            assert runner.invoke(main, command, catch_exceptions=False).exit_code == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
        client.close()
    assert failures == []
    assert set(searches) == {5}


def test_more_than_a_request_holds_is_stored(client, collection):  # noqa: F811
    """40 MB at the default batch size; the server's REST takes 32 MiB."""
    pages = [{"text": text, "page": "x" * 200_000} for text in sentences(200)]
    searcher = HybridSearcher(collection, client=client, reranker=None)
    assert searcher.add(pages, progress=False) == 200
    assert client.count(collection).count == 200


def test_a_document_that_no_request_holds_is_named(server_url, collection):  # noqa: F811
    """With its size; gRPC takes it."""
    pages = [{"text": "small"}, {"text": "large", "page": "x" * 34 * 2**20}]
    over_rest = QdrantClient(**client_options(server_url, prefer_grpc=False))
    searcher = HybridSearcher(collection, client=over_rest, reranker=None)
    with pytest.raises((QdrantRequestError, IncompleteAddError), match="service.max_request_size"):
        searcher.add(pages, ids=[1, 2], progress=False)
    over_rest.close()
    over_grpc = QdrantClient(**client_options(server_url, prefer_grpc=True))
    searcher = HybridSearcher(collection, client=over_grpc, reranker=None)
    assert searcher.add(pages, ids=[1, 2], resume=True, progress=False) == 1
    over_grpc.close()


@pytest.mark.parametrize("prefer_grpc", [False, True])
def test_wrong_missing_and_read_only_keys(server_url, tmp_path, prefer_grpc):
    """Each is told without the key; a newline after it does no harm."""
    keys = {"SERVICE__API_KEY": "canary-write", "SERVICE__READ_ONLY_API_KEY": "canary-read"}
    with OwnServer(tmp_path, **keys) as server:

        def searcher_with(key):
            options = server.client_options(prefer_grpc=prefer_grpc)
            client = QdrantClient(**options, api_key=key)
            return HybridSearcher("docs", client=client, reranker=None)

        assert searcher_with("canary-write").add(["iron"], progress=False) == 1
        assert len(searcher_with("canary-read").search("iron")) == 1
        for key, call in (
            ("canary-read", lambda s: s.add(["tin"], progress=False)),
            ("canary-wrong", lambda s: s.search("iron")),
            (None, lambda s: s.search("iron")),
        ):
            with pytest.raises(
                QdrantRequestError, match="refused access.*QDRANT_API_KEY"
            ) as caught:
                call(searcher_with(key))
            assert "canary" not in str(caught.value)


def test_a_key_with_a_newline_is_used_without_it(server_url, tmp_path, monkeypatch):
    """As files with secrets often end."""
    with OwnServer(tmp_path, SERVICE__API_KEY="canary-write") as server:
        monkeypatch.setenv("QDRANT_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("QDRANT_API_KEY", "canary-write\n")
        with HybridSearcher("docs", reranker=None) as searcher:
            assert searcher.add(["iron"], progress=False) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # verify='file' of httpx
@pytest.mark.parametrize("prefer_grpc", [False, True])
def test_a_certificate_of_ones_own(server_url, tmp_path, prefer_grpc):
    """It is named where it is not trusted; plain HTTP to the port of TLS is told, too."""
    make_certificate(tmp_path)
    certificate = tmp_path / "c.pem"
    tls = {
        "SERVICE__ENABLE_TLS": "true",
        "TLS__CERT": str(certificate),
        "TLS__KEY": str(tmp_path / "k.pem"),
        "TLS__CA_CERT": str(certificate),
    }
    with OwnServer(tmp_path, certificate, **tls) as server:
        given = server.client_options(prefer_grpc=prefer_grpc)

        def found(**options):
            with closing(QdrantClient(**given | options)) as client:
                searcher = HybridSearcher("docs", client=client, reranker=None)
                searcher.add(["iron"], progress=False)
                return len(searcher.search("iron"))

        trusted = {"grpc_options": {"root_certificates": certificate.read_bytes()}}
        assert found(**trusted if prefer_grpc else {"verify": str(certificate)}) == 1
        with pytest.raises(QdrantConnectionError, match="certificate is not trusted here"):
            found()
        plain = given["url"].replace("https:", "http:")
        with pytest.raises(QdrantConnectionError, match="(Is the URL https://|gRPC port)"):
            found(url=plain)


def test_strict_mode_is_told_in_our_words(client, collection):  # noqa: F811
    """What is to be lowered is an argument of ours."""
    strict = {"max_query_limit": 50, "max_timeout": 5, "search_allow_exact": False}
    searcher = HybridSearcher(collection, client=client, reranker=None)
    searcher.add(sentences(20), progress=False)
    client.update_collection(
        collection, strict_mode_config=models.StrictModeConfig(enabled=True, **strict)
    )
    exact = SearchOptions(search_params=models.SearchParams(exact=True))
    for arguments, seen in (
        ({}, "Lower candidates"),
        ({"candidates": 20, "options": SearchOptions(timeout_s=30)}, r"timeout_s=.*deadline_s"),
        ({"candidates": 20, "options": exact}, "Leave exact=True out of"),
    ):
        with pytest.raises(QdrantRequestError, match=seen):
            searcher.search("iron", **arguments)
    assert len(searcher.search("iron", candidates=20)) == 10


def test_threads_and_coroutines_find_the_same(options, collection):  # noqa: F811
    """16 threads and 64 coroutines, each query as if it were alone."""
    client = QdrantClient(**options)
    # A server closes a connection whose request does not come at once, as on a busy machine.
    retried = SearchOptions(retries=5)
    # Hits of equal scores come in the order in which shards and segments answer. So there is one
    # shard, and no sparse vector: of BM25 and of fused ranks, many scores are equal.
    alone = {"reranker": None, "sparse": None, "options": retried}
    searcher = HybridSearcher(collection, client=client, **alone)
    settings = CollectionSettings(replication_factor=1, shard_number=1)
    searcher.add(sentences(200), settings=settings, progress=False)
    queries = [" ".join(WORDS[n % 7 : n % 7 + 3]) for n in range(128)]
    expected = [[hit.id for hit in searcher.search(query)] for query in queries]
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda query: [h.id for h in searcher.search(query)], queries))
    client.close()
    assert found == expected

    async def awaited():
        client = AsyncQdrantClient(**options)
        async with AsyncHybridSearcher(collection, client=client, concurrency=64, **alone) as other:
            results = await asyncio.gather(*map(other.search, queries))
        await client.close()
        return [[hit.id for hit in hits] for hits in results]

    assert asyncio.run(awaited()) == expected


def test_hnsw_with_int8_finds_what_an_exact_search_finds(server_url, collection):  # noqa: F811
    """0.98 or more of the first hundred, once the graph is built."""
    client = QdrantClient(**client_options(server_url, prefer_grpc=False))
    settings = CollectionSettings(
        quantization="int8",
        replication_factor=1,
        shard_number=1,
        optimizers=models.OptimizersConfigDiff(indexing_threshold=100, default_segment_number=1),
    )
    searcher = HybridSearcher(
        collection, client=client, reranker=None, sparse=None, embedder=StaticEmbedder.bundled()
    )
    texts = [document["text"] for document in islice(standard_library_documents(), 3000)]
    searcher.add(texts, settings=settings, progress=False)
    for _ in range(600):
        info = client.get_collection(collection)
        if info.status == "green" and info.indexed_vectors_count:
            break
        threading.Event().wait(0.1)
    assert info.indexed_vectors_count > 1000
    shared = []
    exact = SearchOptions(search_params=models.SearchParams(exact=True))
    for query in texts[::150]:
        truth = {hit.id for hit in searcher.search(query, limit=100, options=exact)}
        shared.append(len(truth & {hit.id for hit in searcher.search(query, limit=100)}) / 100)
    client.close()
    assert np.mean(shared) >= 0.98


def test_a_server_that_is_too_old_says_so(client, collection):  # noqa: F811
    """It would make a text index without scores, and nothing would help."""
    version = parse_version(client.info().version)
    searcher = HybridSearcher(
        collection, client=client, reranker=None, embedder=None, sparse=TextIndex("text")
    )
    bm25 = HybridSearcher(collection, client=client, reranker=None, sparse=Bm25Encoder())
    if version >= TEXT_INDEX.since:
        pytest.skip("this server has it")
    for _ in range(2):  # without a collection, and with one that has another index
        with pytest.raises(
            QdrantRequestError, match=r"lacks ranking by a payload.*1\.20\.0 or newer"
        ):
            searcher.add(["iron"], progress=False)
        bm25.add(
            ["iron"], settings=CollectionSettings(payload_indexes={"text": "text"}), progress=False
        )
    with pytest.raises(QdrantRequestError, match=r"lacks ranking by a payload.*1\.20\.0 or newer"):
        searcher.search("iron")
