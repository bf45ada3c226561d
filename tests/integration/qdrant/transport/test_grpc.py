"""Over gRPC a searcher finds what it finds over REST and in the embedded engine itself."""

import asyncio
import copy
import gc
import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    AsyncHybridSearcher,
    CollectionSettings,
    HybridSearcher,
    SearchOptions,
    TextCrossEncoder,
    TextIndex,
)
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    QdrantConnectionError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.qdrant.transport.retries import is_transient
from tests.fault_grpc import serving_grpc
from tests.fault_server import Script
from tests.faults import GOOD, free_port, grpc_address
from tests.loopback_grpc import loopback_server
from tests.loopback_qdrant import VERSION
from tests.recalls import (
    CALLS,
    FILTERS,
    IDS,
    INDEXES,
    QUERY,
    TEXTS,
    documents,
    options,
    same,
    shown,
)

pytest.importorskip("qdrant_edge")
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from tests.releases import needs_client

ROOT = Path(__file__).parents[4]

WRONG = {
    "no such point": ({"query": 12345}, InvalidInputError),
    "no such point to recommend": (
        {"recall": models.RecommendQuery(recommend=models.RecommendInput(positive=[12345]))},
        QdrantRequestError,
    ),
    "a short vector": (
        {"prefetch": models.Prefetch(query=[0.5] * 3, using="dense")},
        QdrantRequestError,
    ),
    "no such vector": (
        {"prefetch": models.Prefetch(query=[0.5] * 256, using="other")},
        QdrantRequestError,
    ),
    "another collection": (
        {"query": 7, "lookup_from": models.LookupLocation(collection="nowhere")},
        (CollectionNotFoundError, QdrantRequestError),
    ),
    "an option": (options(dense_vector="other"), SchemaMismatchError),
}


class Transports:
    """Searchers of one collection of one engine: in the process, and over each transport."""

    def __init__(self, engine, url, grpc_port, loop):
        self.engine, self.url, self.grpc_port, self.loop = engine, url, grpc_port, loop
        self.sync = {kind: QdrantClient(**self.address(kind)) for kind in ("REST", "gRPC")}
        self.awaited = {kind: AsyncQdrantClient(**self.address(kind)) for kind in self.sync}

    def address(self, kind):
        """Arguments of a client."""
        return {
            "url": self.url,
            "grpc_port": self.grpc_port,
            "prefer_grpc": kind == "gRPC",
            "timeout": 60,
        }

    def close(self):
        """All of them."""
        for client in self.sync.values():
            client.close()
        for client in self.awaited.values():
            self.loop.run(client.close())

    def ask(self, call, collection="docs", **made):
        """What a call of a searcher returns or raises: in the process, then by transport."""
        expected = outcome(lambda: call(HybridSearcher(collection, client=self.engine, **made)))
        others = {
            f"{kind}, sync": outcome(
                lambda client=client: call(HybridSearcher(collection, client=client, **made))
            )
            for kind, client in self.sync.items()
        }
        for kind, client in self.awaited.items():

            async def main(client=client):
                async with AsyncHybridSearcher(collection, client=client, **made) as searcher:
                    return await call(searcher)

            others[f"{kind}, async"] = outcome(lambda main=main: self.loop.run(main()))
        return expected, others


def outcome(call):
    """What it returns or raises."""
    try:
        return call()
    except Exception as error:
        return error


@pytest.fixture(scope="module")
def tiny(tiny_bert):
    """A small reranker."""
    return TextCrossEncoder(tiny_bert)


@pytest.fixture(scope="module")
def transports():
    """Seven documents behind all of them, and two other collections."""
    with ExitStack() as stack:
        engine = EdgeClient()
        stack.callback(engine.close)
        filler = HybridSearcher("docs", client=engine)
        settings = CollectionSettings(payload_indexes=INDEXES)
        assert filler.add(documents(), settings=settings, progress=False) == 7
        HybridSearcher("others", client=engine).add(
            ["How bread is baked."], ids=[7], progress=False
        )
        HybridSearcher("indexed", client=engine, sparse=TextIndex("text")).add(
            TEXTS, ids=range(6), progress=False
        )
        url, grpc_port = stack.enter_context(loopback_server(engine))
        loop = stack.enter_context(asyncio.Runner())
        made = Transports(engine, url, grpc_port, loop)
        stack.callback(made.close)
        yield made


@pytest.mark.parametrize("asked", CALLS.values(), ids=CALLS)
def test_every_kind_of_recall_finds_the_same(transports, tiny, asked):
    """Ids, payloads with their types, the trace's counts; scores and vectors to 1e-6."""
    given = {"query": QUERY} | asked
    expected, others = transports.ask(lambda searcher: searcher.search(**given), reranker=tiny)
    if isinstance(expected, Exception):
        raise expected
    for name, found in others.items():
        if isinstance(found, Exception):
            raise found
        same(shown(found), shown(expected), name)


def test_points_of_another_collection(transports, tiny):
    """Their vectors are searched with."""
    place = models.LookupLocation(collection="others")
    expected, others = transports.ask(
        lambda searcher: searcher.search(7, lookup_from=place), reranker=tiny
    )
    assert expected.query == "How bread is baked."
    for name, found in others.items():
        same(shown(found), shown(expected), name)


@pytest.mark.parametrize("asked", [{}, {"query_filter": FILTERS["dates"]}, options(blend="rrf")])
def test_groups_and_batches_too(transports, tiny, asked):
    """Chunks by book with a look-up, queries of both kinds in one request."""
    for call in (
        lambda searcher: searcher.search_batch([QUERY, 0, IDS[2], "bread"], **asked),
        lambda searcher: searcher.search_groups(QUERY, group_by="book", group_size=2, **asked),
        lambda searcher: searcher.search_groups(
            QUERY, group_by="n", with_lookup="others", limit=9, **asked
        ),
    ):
        expected, others = transports.ask(call, reranker=tiny)
        assert len(expected) > 1
        for name, found in others.items():
            same(shown(found), shown(expected), name)


@pytest.mark.parametrize(
    "made",
    [
        {"embedder": None},
        {"sparse": None},
        {"reranker": None, "candidates": 3, "sparse": None},
        {"text": "{n}: {text}"},
        {"text": lambda payload: payload.get("inner", {}).get("list", [""])[2]},
    ],
)
def test_however_the_searcher_is_made(transports, tiny, made):
    """Branches, texts and no reranker."""
    made = {"reranker": tiny} | made
    expected, others = transports.ask(lambda searcher: searcher.search(QUERY, limit=3), **made)
    for name, found in others.items():
        same(shown(found), shown(expected), name)


def test_a_text_index_is_searched(transports):
    """A TextQuery, which is of the newest server."""
    expected, others = transports.ask(
        lambda searcher: searcher.search("iron ore"),
        collection="indexed",
        embedder=None,
        sparse=TextIndex("text"),
        reranker=None,
    )
    assert expected[0].id == 1
    for name, found in others.items():
        same(shown(found), shown(expected), name)


@pytest.mark.parametrize(("asked", "error"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_so_everywhere(transports, asked, error):
    """The same kind of error; what the server said is in it."""
    given = {"query": QUERY} | asked
    expected, others = transports.ask(lambda searcher: searcher.search(**given), reranker=None)
    assert isinstance(expected, error)
    for name, seen in others.items():
        assert isinstance(seen, error), (name, seen)
    with pytest.raises(CollectionNotFoundError, match="no collection 'nowhere'. It has 'docs'"):
        raise transports.ask(lambda searcher: searcher.search(QUERY), collection="nowhere")[1][
            "gRPC, async"
        ]


@pytest.mark.parametrize("consistency", ["most", 0, 1.5, True])
def test_a_wrong_consistency_is_refused_before_anything_is_asked(transports, consistency):
    """With what it may be."""
    expected, others = transports.ask(
        lambda searcher: searcher.search(QUERY, options=SearchOptions(consistency=consistency))
    )
    for seen in (expected, *others.values()):
        assert isinstance(seen, InvalidInputError)
        assert "consistency is" in str(seen)


@needs_client(1, 17)
def test_the_servers_version_is_told_over_grpc(transports, monkeypatch):
    """And what it lacks is said before the query."""
    monkeypatch.setattr("tests.loopback_grpc.VERSION", "1.16.3")
    asked = options(fusion=models.Rrf(weights=[2.0, 1.0]))
    _, others = transports.ask(lambda searcher: searcher.search(QUERY, **asked), reranker=None)
    for kind in ("gRPC, sync", "gRPC, async"):
        assert isinstance(others[kind], QdrantRequestError)
        assert "is of version 1.16.3, which lacks Rrf with weights" in str(others[kind])
    assert transports.sync["REST"].info().version == VERSION


@pytest.mark.parametrize("kind", ["REST", "gRPC"])
def test_what_is_added_is_what_the_engine_would_have(transports, kind):
    """Settings, metadata, payloads and vectors; nothing twice, and nothing again."""
    settings = CollectionSettings(
        quantization="int8",
        on_disk_vectors=True,
        hnsw=models.HnswConfigDiff(m=8),
        payload_indexes={"book": "keyword", "when": "datetime"},
    )
    searcher = HybridSearcher(f"by {kind}", client=transports.sync[kind])
    for _ in range(2):
        added = searcher.add(
            documents(), settings=settings, parallel=2, batch_size=3, progress=False
        )
        assert added == 7
    assert searcher.add(documents(), resume=True, progress=False) == 0
    try:
        engine = transports.engine
        stored, _ = engine.scroll(f"by {kind}", limit=99, with_vectors=True)
        expected, _ = engine.scroll("docs", limit=99, with_vectors=True)
        same([p.model_dump() for p in stored], [p.model_dump() for p in expected])
        info = transports.sync["gRPC"].get_collection(f"by {kind}")
        assert info.config.hnsw_config.m == 8
        assert info.config.params.vectors["dense"].on_disk
        assert info.config.quantization_config.scalar.type == "int8"
        assert info.config.metadata == engine.get_collection("docs").config.metadata
        assert {name: str(one.data_type) for name, one in info.payload_schema.items()} == {
            "book": "keyword",
            "when": "datetime",
        }
    finally:
        transports.sync[kind].delete_collection(f"by {kind}")
    assert not transports.sync[kind].collection_exists(f"by {kind}")


def test_what_is_too_large_is_not_sent_again(transports):
    """gRPC says that its resources are exhausted; the first batch is stored all the same."""
    searcher = HybridSearcher("large", client=transports.sync["gRPC"])
    texts = ["one", "two", "x" * 5_000_000]
    with pytest.raises(QdrantRequestError, match="no message of this size.*batch_size") as caught:
        searcher.add(texts, batch_size=2, progress=False)
    assert "2 documents before it were added" in str(caught.value)
    assert not is_transient(caught.value.__cause__)
    transports.sync["gRPC"].delete_collection("large")


@pytest.mark.filterwarnings("ignore:coroutine 'InterceptedUnaryUnaryCall")  # never sent
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_of_an_event_loop_that_has_ended_is_named(transports):
    """Over gRPC it belongs to the loop of its first call."""
    client = AsyncQdrantClient(**transports.address("gRPC"))

    async def main():
        async with AsyncHybridSearcher("docs", client=client, reranker=None) as searcher:
            return await searcher.search(QUERY)

    assert len(asyncio.run(main())) == 7
    with pytest.raises(QdrantConnectionError, match="was closed, or the event loop"):
        asyncio.run(main())
    asyncio.run(client.close())
    gc.collect()


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("given", "compressed"),
    [
        ({}, False),
        ({"grpc_options": {"grpc.compression_enabled_algorithms_bitset": 5}}, True),
        ({"grpc_compression": grpc.Compression.Gzip}, True),
    ],
    ids=["by default", "by an option", "as requests"],
)
def test_answers_are_compressed_only_where_the_caller_wants_it(asynchronous, given, compressed):
    """A server takes longer to compress the states of documents than to send them."""
    script, accepted = Script(GOOD), []

    def respond(call):
        accepted.append("gzip" in call.accepts)
        script(call)

    async def search_async(arguments):
        client = AsyncQdrantClient(**arguments)
        async with AsyncHybridSearcher("docs", client=client, reranker=None) as searcher:
            assert [hit.id for hit in await searcher.search("q")] == [1]
        await client.close()

    with serving_grpc(respond) as port:
        # A copy: the client writes into the dict of its options.
        arguments = {**grpc_address(port), **copy.deepcopy(given), "check_compatibility": False}
        if asynchronous:
            asyncio.run(search_async(arguments))
        else:
            client = QdrantClient(**arguments)
            searcher = HybridSearcher("docs", client=client, reranker=None)
            assert [hit.id for hit in searcher.search("q")] == [1]
            client.close()
    assert accepted
    assert set(accepted) == {compressed}


def test_the_tests_of_a_server_pass_against_the_loopback_server():
    """They have no other run where there is no server, which is why this takes its time."""
    port = next(port for port in iter(free_port, 0) if is_free(port + 1))
    command = [sys.executable, "-m", "tests.loopback_grpc", "--port", str(port), "--key", "secret"]
    serving = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        url = re.match(r"QDRANT_URL=(\S+)", serving.stdout.readline())[1]
        tests = [sys.executable, "-m", "pytest", "-q", "-m", "server", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*tests, "-k", "not snapshot", "tests/integration/test_server.py"],  # it takes none
            cwd=ROOT,
            env=os.environ | {"QDRANT_URL": url, "QDRANT_API_KEY": "secret"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        serving.terminate()
        serving.communicate(timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed, 2 deselected in", done.stdout, re.M), (
        done.stdout
    )  # none was skipped
    assert serving.returncode == 0


def is_free(port):
    """Whether a server could listen there."""
    with socket.socket() as held:
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
