"""add with many documents: settings, several requests at a time, faults in between, resuming."""

import asyncio
import json
import re
import threading
import time
from contextlib import closing

import pytest
from click.testing import CliRunner
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import AsyncHybridSearcher, CollectionSettings, HybridSearcher
from qdrant_rerank.cli.main import main
from qdrant_rerank.errors import (
    IncompleteAddError,
    InvalidInputError,
    MissingTextError,
    QdrantRequestError,
)
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from tests.fault_server import answer, serving
from tests.faults import SCHEMA, STORED
from tests.loopback_qdrant import loopback_qdrant
from tests.releases import needs_client

REFUSED = answer(400, b'{"status": {"error": "Wrong input: a bad point"}}')
OVERLOADED = answer(503, b"overloaded")
THROTTLED = answer(429, b"", Retry_After="1")


class Server:
    """Stores what it is sent, unless ``trouble`` has an answer for a batch."""

    def __init__(self, trouble=lambda texts, attempt: None):
        self.trouble = trouble
        self.texts = []
        self.attempts = {}
        self.at_work = self.most_at_work = 0
        self.created = None
        self.lock = threading.Lock()

    def __call__(self, handler):
        if handler.command == "GET":
            SCHEMA(handler)
            return
        sent = json.loads(handler.body)
        texts = tuple(point["payload"]["text"] for point in sent["points"])
        with self.lock:
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
            self.attempts[texts] = self.attempts.get(texts, 0) + 1
            attempt = self.attempts[texts]
        time.sleep(0.05)
        trouble = self.trouble(texts, attempt)
        with self.lock:
            self.at_work -= 1
            if trouble is None:
                self.texts += texts
        (trouble or STORED)(handler)


def add_sync(url, documents, **options):
    """Through a sync searcher."""
    with closing(QdrantClient(url=url, timeout=120, check_compatibility=False)) as client:
        searcher = HybridSearcher("docs", client=client, reranker=None, text="text")
        return searcher.add(documents, progress=False, **options)


def add_async(url, documents, **options):
    """Through an async one."""

    async def main():
        client = AsyncQdrantClient(url=url, timeout=120, check_compatibility=False)
        async with AsyncHybridSearcher(
            "docs", client=client, reranker=None, text="text"
        ) as searcher:
            try:
                return await searcher.add(documents, progress=False, **options)
            finally:
                await client.close()

    return asyncio.run(main())


ADDS = pytest.mark.parametrize("add", [add_sync, add_async])
TEXTS = [f"document {n}" for n in range(20)]


@ADDS
@pytest.mark.parametrize("trouble", [REFUSED, OVERLOADED])
def test_a_batch_that_fails_is_named_and_the_rest_is_stored(add, trouble):
    """Sent again only if that may help; the ids of what is missing are in the error."""
    server = Server(lambda texts, attempt: trouble if "document 7" in texts else None)
    with serving(server) as url, pytest.raises(IncompleteAddError) as caught:
        add(url, TEXTS, ids=range(20), batch_size=4)
    assert caught.value.failed_ids == [4, 5, 6, 7]
    assert caught.value.stored == 16
    assert sorted(server.texts) == sorted(TEXTS[:4] + TEXTS[8:])
    assert server.attempts[tuple(TEXTS[4:8])] == (1 if trouble is REFUSED else 3)
    assert "4 documents in 1 batches were not stored, and 16 were" in str(caught.value)
    assert [caught.value.__cause__] == caught.value.causes


@ADDS
def test_too_many_requests_are_waited_for(add):
    """Retry-After is kept, and every document is stored."""
    server = Server(lambda texts, attempt: THROTTLED if texts[0] == "b" and attempt == 1 else None)
    with serving(server) as url:
        began = time.perf_counter()
        assert add(url, ["a", "b", "c"], batch_size=1) == 3
    assert time.perf_counter() - began >= 1
    assert sorted(server.texts) == ["a", "b", "c"]


@ADDS
def test_a_server_that_stays_away_is_given_up(add):
    """After three batches, with the error itself and the number of documents before it."""
    server = Server(lambda texts, attempt: None if int(texts[0].split()[1]) < 8 else REFUSED)
    with serving(server) as url, pytest.raises(QdrantRequestError, match="a bad point") as caught:
        add(url, (f"document {n}" for n in range(1000)), batch_size=4)
    assert "8 documents before it were added. Add all again with resume=True" in str(caught.value)
    assert len(server.attempts) == 2 + 3


@ADDS
def test_several_batches_at_a_time_and_no_more(add):
    """In any order, all of them; documents are read a round ahead at most."""
    server, read = Server(), []

    def documents():
        for n in range(40):
            assert n - len(server.texts) <= 3 * 4
            read.append(n)
            yield f"document {n}"

    with serving(server) as url:
        assert add(url, documents(), batch_size=4, parallel=3) == 40
    assert server.most_at_work in {2, 3}
    assert sorted(server.texts) == sorted(f"document {n}" for n in read)


def test_a_wrong_document_and_a_failed_batch_are_both_told(client):
    """The document's error, with what else was not stored."""
    server = Server(lambda texts, attempt: REFUSED if texts[0] == "a" else None)
    with serving(server) as url, pytest.raises(MissingTextError) as caught:
        add_sync(url, iter(["a", "b", ""]), batch_size=1)
    assert "In addition: 1 documents in 1 batches were not stored" in caught.value.__notes__[0]
    assert "1 documents before it were added" in caught.value.__notes__[1]


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_batch_is_cut_where_a_request_would_be_too_large(parallel):
    """Every document is stored, though all of them together are over the server's limit."""
    documents = [{"text": f"document {n}", "page": "x" * 200_000} for n in range(300)]
    with loopback_qdrant() as (url, qdrant):
        assert add_sync(url, documents, parallel=parallel) == 300
        assert qdrant.client.count("docs").count == 300


def test_a_document_that_is_too_large_is_named_with_its_size():
    """And the setting of the server; all others are stored."""
    documents = [{"text": f"document {n}"} for n in range(9)]
    documents[4]["page"] = "x" * (33 * 2**20)
    with loopback_qdrant() as (url, qdrant):
        with pytest.raises(IncompleteAddError) as caught:
            add_sync(url, documents, ids=range(9))
        assert caught.value.failed_ids == [4]
        assert qdrant.client.count("docs").count == 8
    seen = r"Document 4 has 34,60\d,\d{3} bytes, .*larger than allowed.*max_request_size_mb"
    assert re.search(seen, str(caught.value))


@pytest.mark.parametrize("command", ["index", "reindex"])
@needs_client(1, 20)
def test_a_command_whose_server_is_lost_says_what_is_stored(command, tmp_path):
    """In the words of the command line; what reindex built is removed."""
    lost = []

    def sabotage(method, path):
        if method == "PUT" and path.endswith("/points"):
            lost.append(path)
            return answer(500, b"{}") if len(lost) > 2 else None
        return None

    file = tmp_path / "documents.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    with loopback_qdrant(sabotage) as (url, qdrant):
        arguments = [command, str(file), "--collection", "docs", "--url", url, "--batch-size", "4"]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert "8 documents before it were added." in done.stderr
        assert "resume=" not in done.stderr
        advice = {
            "index": "Index again",
            "reindex": "The new documents are removed, and nothing is switched.",
        }
        assert advice[command] in done.stderr
        left = {one.name for one in qdrant.client.get_collections().collections}
        assert left == ({"docs"} if command == "index" else set())
        for thread in threading.enumerate():
            if "_check_compatibility" in thread.name:  # qdrant-client's, which asks the server
                thread.join(10)


@pytest.mark.parametrize("command", ["index", "reindex"])
@needs_client(1, 20)
def test_a_command_with_a_wrong_document_and_a_failed_batch_says_both_in_its_words(
    command, tmp_path
):
    """What the texts of documents and of the server say is repeated as it is."""
    advice = "Add all again with resume=True: it stores only what is missing."
    lost = []

    def sabotage(method, path):
        if method == "PUT" and path.endswith("/points"):
            lost.append(path)
            if len(lost) == 1:
                return answer(400, json.dumps({"status": {"error": advice}}).encode())
        return None

    file = tmp_path / "documents.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in ["a", "b", ""]))
    with loopback_qdrant(sabotage) as (url, _):
        arguments = [command, str(file), "--collection", "docs", "--url", url, "--batch-size", "1"]
        done = CliRunner().invoke(main, arguments)
        for thread in threading.enumerate():
            if "_check_compatibility" in thread.name:  # qdrant-client's, which asks the server
                thread.join(10)
    assert done.exit_code == 2
    assert "In addition: 1 documents in 1 batches were not stored" in done.stderr
    assert "1 documents before it were added." in done.stderr
    assert ".failed_ids" not in done.stderr
    assert done.stderr.count(advice) == 1  # the server's own words
    next_step = {
        "index": "Index again",
        "reindex": "The new documents are removed, and nothing is switched.",
    }
    assert done.stderr.count(next_step[command]) == 1


@ADDS
def test_a_wrong_document_costs_no_request(add):
    """Of a list, though it is in the last batch; of an iterator, its own batch is not sent."""
    for documents, sent in (([*TEXTS, ""], 0), (iter([*TEXTS, ""]), 20), (iter([""]), 0)):
        server = Server()
        with serving(server) as url, pytest.raises(MissingTextError) as caught:
            add(url, documents, batch_size=4, parallel=3)
        assert len(server.texts) == sent
        assert caught.value.stored == sent


class Counting:
    """An embedder that counts."""

    name = "counting"
    dimension = 2
    texts = 0

    def embed_query(self, text):
        """Any vector."""
        return self.embed_documents([text])[0]

    def embed_documents(self, texts):
        """Any vectors."""
        self.texts += len(texts)
        return [[1.0, float(len(text))] for text in texts]


def test_an_add_that_was_cut_off_is_resumed_without_embedding_again(client):
    """Ids are made from the texts, so what is stored is known."""
    embedder = Counting()
    searcher = HybridSearcher("docs", client=client, reranker=None, embedder=embedder)
    with pytest.raises(MissingTextError):
        searcher.add(iter([*TEXTS[:9], "", *TEXTS[9:]]), batch_size=4, progress=False)
    assert embedder.texts == 8
    assert searcher.add(TEXTS, resume=True, batch_size=4, progress=False) == 12
    assert embedder.texts == 20
    assert searcher.add(TEXTS, resume=True, progress=False) == 0
    assert client.count("docs").count == 20


def test_settings_reach_the_server():
    """Shards, replicas and the rest are in the request that creates the collection."""
    made, exists = [], threading.Event()

    def respond(handler):
        if handler.command == "GET" and not exists.is_set():
            answer(404, b'{"status": {"error": "Not found: Collection `docs`"}}')(handler)
        elif handler.command == "GET":
            SCHEMA(handler)
        else:
            made.append((handler.path, json.loads(handler.body)))
            exists.set()
            done = b'{"result": true, "status": "ok", "time": 0.0}'
            (answer(200, done) if len(made) == 1 else STORED)(handler)

    settings = CollectionSettings(
        shard_number=6,
        replication_factor=2,
        write_consistency_factor=2,
        on_disk_vectors=True,
        quantization="int8",
        hnsw=models.HnswConfigDiff(m=32),
        payload_indexes={"year": "integer"},
    )
    with serving(respond) as url:
        assert add_sync(url, ["a"], settings=settings) == 1
    (path, config), (index_path, index), _ = made
    assert path == "/collections/docs"
    assert (config["shard_number"], config["replication_factor"]) == (6, 2)
    assert config["write_consistency_factor"] == 2
    assert config["vectors"]["dense"]["on_disk"] is True
    assert config["quantization_config"]["scalar"]["type"] == "int8"
    assert config["hnsw_config"]["m"] == 32
    assert "/index" in index_path
    assert (index["field_name"], index["field_schema"]) == ("year", "integer")


@pytest.mark.parametrize("engine", [EdgeClient, lambda: QdrantClient(":memory:")])
def test_embedded_engines_take_what_they_can_of_the_settings(engine):
    """And find the same afterwards."""
    settings = CollectionSettings(
        shard_number=2,
        quantization="int8",
        hnsw=models.HnswConfigDiff(m=32),
        payload_indexes={"n": "integer"},
    )
    with closing(engine()) as client:
        searcher = HybridSearcher("docs", client=client, reranker=None)
        documents = [{"text": text, "n": n} for n, text in enumerate(TEXTS)]
        searcher.add(documents, settings=settings, parallel=3, batch_size=3, progress=False)
        assert client.count("docs").count == 20
        if isinstance(client, EdgeClient):
            info = client.get_collection("docs")
            assert info.config.hnsw_config.m == 32
            assert info.config.quantization_config.scalar.type == "int8"
            assert info.payload_schema["n"].points == 20


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        ({"shard_number": 0}, "shard_number is 0"),
        ({"quantization": "int4"}, "quantization is 'int4'"),
        ({"payload_indexes": {"year": "number"}}, "The index of 'year' is of type 'number'"),
    ],
)
def test_wrong_settings_are_refused(wrong, seen):
    """Before anything is created."""
    with pytest.raises(InvalidInputError, match=seen):
        CollectionSettings(**wrong)


def test_the_number_of_requests_at_a_time_is_checked(client):
    """Before anything is read."""
    with pytest.raises(InvalidInputError, match="parallel is 0"):
        HybridSearcher("docs", client=client, reranker=None).add(["a"], parallel=0)
