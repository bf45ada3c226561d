"""Which Qdrant is used, and what becomes of its failures, injected at the socket."""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing

import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher, SearchOptions
from qdrant_rerank.embedders.qdrant import TextIndex
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    QdrantConnectionError,
    QdrantError,
    QdrantRequestError,
    SchemaMismatchError,
)
from tests.fault_server import answer, broken_off, garbage, serving
from tests.faults import COLLECTION, SCHEMA
from tests.own_server import make_certificate


def refusal(text):
    """As Qdrant says no."""
    return json.dumps({"status": {"error": text}, "time": 0.0}).encode()


def searcher_at(url, timeout=5):
    """A searcher over HTTP; the version check is no part of these tests."""
    client = QdrantClient(url=url, timeout=timeout, check_compatibility=False)
    return HybridSearcher("docs", client=client, reranker=None)


@pytest.mark.parametrize(
    ("respond", "error", "seen"),
    [
        (
            answer(500, refusal("Service internal error: disk full")),
            QdrantConnectionError,
            "answered 500: Service internal error: disk full",
        ),
        (answer(503, b""), QdrantConnectionError, "answered 503: nothing"),
        (
            answer(404, b"<html>nginx</html>"),
            QdrantConnectionError,
            "answered 404: <html>nginx</html>. Is that a Qdrant server",
        ),
        (
            answer(404, refusal("Not found: Collection `docs` doesn't exist!")),
            CollectionNotFoundError,
            "no collection 'docs'",
        ),
        (answer(401, b"Must provide an API key"), QdrantRequestError, "QDRANT_API_KEY"),
        (answer(403, refusal("Forbidden: read-only")), QdrantRequestError, "refused access"),
        (answer(429, refusal("Rate limit"), Retry_After="7"), QdrantRequestError, "again in 7 s"),
        (answer(429, refusal("Rate limit")), QdrantRequestError, "asked too often"),
        (answer(400, refusal("Bad filter")), QdrantRequestError, "Bad filter"),
        (answer(200, b"<html>login</html>"), QdrantConnectionError, "not Qdrant's"),
        (answer(200, b'{"result": {"x": 1}}'), QdrantConnectionError, "not Qdrant's"),
        (answer(200, b""), QdrantConnectionError, "not Qdrant's"),
        (broken_off, QdrantConnectionError, "cannot be reached"),
        (garbage, QdrantConnectionError, "cannot be reached"),
    ],
)
def test_every_way_to_fail_is_one_clear_error(respond, error, seen):
    """Searching and adding alike; the client's own exception is the cause."""
    with serving(respond) as url:
        searcher = searcher_at(url)
        for call in (lambda: searcher.search("q"), lambda: searcher.add(["a"], progress=False)):
            with pytest.raises(error, match=seen) as caught:
                call()
        assert caught.value.__cause__ is not None
        if "answered" in seen:
            assert url in str(caught.value)


UNAVAILABLE = (
    "Service internal error: 1 of 3 read operations failed:\n  Service internal error: Tonic "
    "status error: code: 'The service is currently unavailable', message: \"tcp connect error\""
)
LIMIT = 'Bad request: Limit exceeded {} > {} for "{}". Help: Reduce the "{}" parameter.'


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (LIMIT.format(100, 50, "limit", "limit"), "allows 50 at most, and 100.*Lower candidates"),
        (LIMIT.format(30, 5, "timeout", "timeout"), r"Lower SearchOptions\(timeout_s=.*deadline_s"),
        (LIMIT.format(640, 64, "hnsw_ef", "hnsw_ef"), "Lower hnsw_ef of .*search_params"),
        (LIMIT.format(3, 2, "oversampling", "x"), "Lower the oversampling of .*search_params"),
        (LIMIT.format(20, 5, "search batch size", "x"), "Lower the number of queries"),
        (LIMIT.format(9, 5, "conditions", "x"), "what Qdrant calls 'conditions'"),
        ("Bad request: Exact search disabled!. Help: Set exact=false.", "Leave exact=True out"),
        (
            'Bad request: Index required but not found for "n" of one of the following types',
            r"no filter on 'n'.*payload_indexes=\{'n'",
        ),
    ],
)
def test_strict_mode_is_told_in_our_words(said, seen):
    """By the name of the argument that is to be lowered; Qdrant's words stay."""
    trouble = answer(400, refusal(said))
    with serving(trouble) as url, pytest.raises(QdrantRequestError, match=seen) as caught:
        searcher_at(url).search("q")
    assert said.rstrip(".") in str(caught.value)


@pytest.mark.parametrize(("asked", "seen"), [(3, "consistency=3 was asked, and"), (None, "1 of 3")])
def test_a_cluster_with_too_few_replicas_says_what_is_missing(asked, seen):
    """And is asked again where retries are; the nodes may be starting."""
    attempts = []

    def respond(handler):
        if handler.command == "GET":
            SCHEMA(handler)
        else:
            attempts.append(handler.path)
            answer(500, refusal(UNAVAILABLE))(handler)

    options = SearchOptions(consistency=asked, retries=2)
    with serving(respond) as url, pytest.raises(QdrantConnectionError, match=seen) as caught:
        searcher_at(url).search("q", options=options)
    assert "1 of 3 replicas that were asked did not answer. Start the missing" in str(caught.value)
    assert len(attempts) == 3


def test_a_redirect_says_where_it_points():
    """It is not followed: a key would go to another server."""
    target = "https://user:canary-7f3a@elsewhere.test:6333/"
    moved, seen = answer(301, b"moved", Location=target), "answered 301: it points to"
    with serving(moved) as url, pytest.raises(QdrantConnectionError, match=seen) as caught:
        searcher_at(url).search("q")
    assert "@elsewhere.test:6333/" in str(caught.value)
    assert "canary-7f3a" not in str(caught.value)


def test_http_to_a_tls_port_and_the_reverse_are_told():
    """Neither says that nothing runs there."""
    with serving(garbage) as url:
        with pytest.raises(QdrantConnectionError, match="Is the URL https://, or another port"):
            searcher_at(url).search("q")
        with pytest.raises(QdrantConnectionError, match="does not speak TLS at this port"):
            searcher_at(url.replace("http:", "https:")).search("q")


def test_an_unknown_certificate_says_where_to_name_its_authority(tmp_path):
    """SSL_CERT_FILE, which httpx reads."""
    make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def refuse():
            link, _ = plain.accept()
            with link, contextlib.suppress(OSError):
                context.wrap_socket(link, server_side=True)

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{plain.getsockname()[1]}"
        with pytest.raises(QdrantConnectionError, match="not trusted here. Set SSL_CERT_FILE"):
            searcher_at(url).search("q")


@pytest.mark.parametrize("url", ["https://127.0.0.9/prefix", "http://127.0.0.9"])
def test_the_port_that_was_tried_is_told(url):
    """The client adds it where the URL has none."""
    with pytest.raises(QdrantConnectionError, match=r"at https?://127\.0\.0\.9:6333.* has no port"):
        searcher_at(url).search("q")


def test_a_proxy_of_the_environment_is_named(monkeypatch, free_port):
    """Without its password."""
    monkeypatch.setenv("HTTP_PROXY", f"http://me:canary-7f3a@127.0.0.1:{free_port}")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(QdrantConnectionError, match=r"through the proxy .*NO_PROXY=") as caught:
        searcher_at("http://127.0.0.2:6333").search("q")
    assert "canary-7f3a" not in str(caught.value)


@pytest.mark.parametrize("exists", [True, False])
def test_a_text_index_on_an_old_server_is_told_by_the_version(exists):
    """Such a server makes the index without scores, so that to make one is no advice."""
    config = {"result": json.loads(json.dumps(COLLECTION)), "status": "ok", "time": 0.0}
    index = {"data_type": "text", "params": {"type": "text"}, "points": 1}
    config["result"]["payload_schema"] = {"text": index}
    asked = []

    def respond(handler):
        asked.append((handler.command, handler.path))
        if handler.path == "/":
            answer(200, b'{"title": "qdrant", "version": "1.19.0"}')(handler)
        elif exists:
            answer(200, json.dumps(config).encode())(handler)
        else:
            answer(404, refusal("Not found: Collection `docs` doesn't exist!"))(handler)

    with serving(respond) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher(
            "docs", client=client, reranker=None, embedder=None, sparse=TextIndex("text")
        )
        seen = r"1\.19\.0, which lacks ranking by a payload index.*1\.20\.0 or newer"
        with pytest.raises(QdrantRequestError, match=seen):
            searcher.add(["iron"], progress=False)
        if exists:
            with pytest.raises(QdrantRequestError, match=seen):
                searcher.search("iron")
    assert "PUT" not in {method for method, _ in asked}


def test_nobody_listening(free_port):
    """The message says where, and how to start one."""
    url = f"http://127.0.0.1:{free_port}"
    with pytest.raises(QdrantConnectionError, match=rf"{url} cannot be reached.*docker run"):
        searcher_at(url).search("q")
    assert issubclass(QdrantConnectionError, ConnectionError)


@pytest.fixture
def free_port():
    """A port that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def test_a_server_that_hangs_ends_in_time():
    """The client's own timeout, and that of the options, are kept."""
    gate = threading.Event()
    with serving(lambda handler: gate.wait(20)) as url:
        began = time.perf_counter()
        with pytest.raises(QdrantConnectionError, match="did not answer in time"):
            searcher_at(url, timeout=1).search("q")
        assert time.perf_counter() - began < 5
        gate.set()

    def slow_query(handler):
        if handler.command == "GET":
            SCHEMA(handler)
        else:
            gate.wait(20)

    gate.clear()
    with serving(slow_query) as url:
        began = time.perf_counter()
        with pytest.raises(QdrantConnectionError, match="did not answer in time"):
            searcher_at(url, timeout=30).search("q", options=SearchOptions(timeout_s=1))
        assert time.perf_counter() - began < 5
        gate.set()


def test_the_second_search_works_once_the_server_is_back():
    """A failure leaves nothing behind in the searcher."""
    state = {"up": False}

    def respond(handler):
        if not state["up"]:
            answer(503, b"starting")(handler)
        elif handler.command == "GET":
            SCHEMA(handler)
        else:
            found = {"id": 1, "version": 0, "score": 0.5, "payload": {"text": "a"}}
            body = {"result": {"points": [found]}, "status": "ok", "time": 0.0}
            answer(200, json.dumps(body).encode())(handler)

    with serving(respond) as url:
        searcher = searcher_at(url)
        with pytest.raises(QdrantConnectionError):
            searcher.search("q")
        state["up"] = True
        assert [p.id for p in searcher.search("q")] == [1]


def test_what_local_mode_cannot_do_is_our_error(client):
    """Not a bare ValueError of numpy's."""
    searcher = HybridSearcher("docs", client=client, reranker=None)
    searcher.add(["a"], progress=False)
    client.delete_collection("docs")
    with pytest.raises(CollectionNotFoundError, match="It has no collections"):
        searcher.search("a")
    client.create_collection(
        "docs", vectors_config={"dense": models.VectorParams(size=3, distance="Cosine")}
    )
    with pytest.raises((QdrantRequestError, SchemaMismatchError), match="docs"):
        searcher.search("a")


# --- which client, when none is given


def test_with_nothing_set_the_engine_is_in_memory():
    """Two searchers do not share it."""
    with HybridSearcher("docs", reranker=None) as one, HybridSearcher("docs", reranker=None) as two:
        one.add(["a"], progress=False)
        with pytest.raises(CollectionNotFoundError, match=":memory:"):
            two.search("a")


def test_qdrant_path_keeps_the_collection(monkeypatch, tmp_path):
    """What add returned for is there the next time."""
    monkeypatch.setenv("QDRANT_PATH", str(tmp_path / "db"))
    with HybridSearcher("docs", reranker=None) as searcher:
        searcher.add(["a text"], progress=False)
        other = [sys.executable, "-c", "import qdrant_rerank as q; q.HybridSearcher('docs')"]
        second = subprocess.run(other, check=False, timeout=60, capture_output=True, text=True)
        assert "QdrantConnectionError: The Qdrant directory" in second.stderr
        assert "already accessed by another instance" in second.stderr
    with HybridSearcher("docs", reranker=None) as searcher:
        assert searcher.search("text")[0].payload == {"text": "a text"}


def test_a_killed_process_loses_nothing_that_add_returned_for(monkeypatch, tmp_path):
    """kill -9 right after add."""
    code = (
        "import os; from qdrant_rerank import HybridSearcher\n"
        "s = HybridSearcher('docs', reranker=None)\n"
        "s.add([f'document {i}' for i in range(20)], progress=False)\n"
        "os.kill(os.getpid(), 9)"
    )
    monkeypatch.setenv("QDRANT_PATH", str(tmp_path / "db"))
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert killed.returncode == -9
    with HybridSearcher("docs", reranker=None) as searcher:
        assert len(searcher.search("document", limit=50)) == 20


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_added(monkeypatch, tmp_path):
    """Local mode: files may not grow beyond 300 kB in that process, so a later batch fails."""
    code = (
        "import os, resource, signal; from qdrant_rerank import HybridSearcher\n"
        "from qdrant_client import QdrantClient\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "client = QdrantClient(path=os.environ['QDRANT_PATH'])\n"
        "s = HybridSearcher('docs', reranker=None, client=client)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "s.add((f'document {i} ' + 'word ' * 200 for i in range(500)), batch_size=10)"
    )
    monkeypatch.setenv("QDRANT_PATH", str(tmp_path / "db"))
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, timeout=60, capture_output=True, text=True
    )
    assert "QdrantConnectionError: The embedded Qdrant at" in done.stderr
    assert "Is the disk full" in done.stderr
    added = int(re.search(r"(\d+) documents before it were added", done.stderr)[1])
    with HybridSearcher("docs", reranker=None) as searcher:
        kept = searcher.client.count("docs").count
    assert 0 < added <= kept < 500


def test_qdrant_path_must_be_a_directory(monkeypatch, tmp_path):
    """A file of that name is named."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("QDRANT_PATH", str(tmp_path / "file"))
    with pytest.raises(QdrantConnectionError, match="Expected a directory"):
        HybridSearcher("docs", reranker=None)


@pytest.mark.filterwarnings("ignore::UserWarning")  # qdrant-client's on versions and plain HTTP
def test_qdrant_url_comes_before_qdrant_path(monkeypatch, tmp_path, free_port):
    """With its key."""
    seen, version_asked = [], threading.Event()

    def respond(handler):
        seen.append(handler.headers.get("api-key"))
        if handler.path == "/":
            answer(200, b'{"title": "qdrant", "version": "1.20.0"}')(handler)
            version_asked.set()
        else:
            answer(403, refusal("no"))(handler)

    monkeypatch.setenv("QDRANT_PATH", str(tmp_path))
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    with serving(respond) as url:
        monkeypatch.setenv("QDRANT_URL", url)
        searcher = HybridSearcher("docs", reranker=None)
        with pytest.raises(QdrantRequestError) as caught:
            searcher.search("q")
        assert version_asked.wait(5)  # by a thread of qdrant-client's
    assert set(seen) == {"secret"}
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("QDRANT_URL", "localhost:abc")
    with pytest.raises(QdrantRequestError, match="not the URL"):
        HybridSearcher("docs", reranker=None)


@pytest.mark.filterwarnings("ignore::UserWarning")  # qdrant-client's on a key and plain HTTP
@pytest.mark.parametrize(
    "url",
    [
        "http://me:canary@127.0.0.1:{port}",
        "http://me:canary@127.0.0.1:99999",
        "http://127.0.0.1:{port}/?api_key=canary",
        "ftp://me:canary@127.0.0.1:{port}",
        "http://me:canary@127.0.0.1:port",
        "http://me:canary@[::1",
        "http://canary@",
    ],
)
@pytest.mark.parametrize("kind", [HybridSearcher, AsyncHybridSearcher])
def test_no_traceback_shows_what_is_secret_in_a_url(monkeypatch, caplog, free_port, url, kind):
    """Not in the causes of an error either, nor in the log, nor in what is shown of a searcher."""
    caplog.set_level("DEBUG")
    monkeypatch.setenv("QDRANT_URL", url.format(port=free_port))
    monkeypatch.setenv("QDRANT_API_KEY", "secret-canary")
    shown = []
    try:
        searcher = kind("docs", reranker=None)
        shown.append(repr(searcher))
        found = searcher.search("q")
        if kind is AsyncHybridSearcher:
            asyncio.run(found)
    except QdrantError as error:
        shown += traceback.format_exception(error)
    for thread in threading.enumerate():
        if "_check_compatibility" in thread.name:  # of qdrant-client's, which may warn
            thread.join()
    assert shown
    assert "canary" not in "".join(shown)
    assert "canary" not in caplog.text


@pytest.mark.server
@pytest.mark.filterwarnings("ignore::UserWarning")  # a key over plain HTTP
def test_a_real_server(server_url):
    """The main job over HTTP: add twice, search, filter, batch, select payload."""
    key = os.environ.get("QDRANT_API_KEY") or None
    with closing(QdrantClient(url=server_url, api_key=key)) as client:
        searcher = HybridSearcher("qdrant-rerank-test", client=client)
        documents = [{"text": "Iron melts at 1538 C.", "n": 1}, {"text": "Bread is baked.", "n": 2}]
        try:
            for _ in range(2):
                assert searcher.add(documents, progress=False) == 2
            results = searcher.search("melting point of iron", with_payload=["n"])
            assert [p.payload for p in results] == [{"n": 1}, {"n": 2}]
            only = models.Filter(
                must=[models.FieldCondition(key="n", match=models.MatchValue(value=2))]
            )
            batch = searcher.search_batch(["iron", "bread"], query_filter=only)
            assert [[p.payload["n"] for p in r] for r in batch] == [[2], [2]]
        finally:
            client.delete_collection("qdrant-rerank-test")


def test_invalid_input_comes_before_any_request(free_port):
    """With nobody listening, the argument is still what is wrong."""
    searcher = searcher_at(f"http://127.0.0.1:{free_port}")
    with pytest.raises(InvalidInputError):
        searcher.search("")
    with pytest.raises(InvalidInputError):
        searcher.search("q", limit=0)
