"""What is asked again, how often, and what a fault leaves behind; faults come from a socket."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from qdrant_client import QdrantClient

from qdrant_rerank import HybridSearcher, SearchOptions
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    QdrantConnectionError,
    QdrantError,
    QdrantRequestError,
)
from tests.fault_server import (
    Script,
    answer,
    broken_off,
    dripping,
    garbage,
    hanging,
    refused,
    reset,
    serving,
)
from tests.faults import COLLECTION
from tests.integration.qdrant.transport.test_connection import refusal

SCHEMA = answer(200, json.dumps({"result": COLLECTION, "status": "ok", "time": 0.0}).encode())
POINT = {"id": 1, "version": 0, "score": 0.5, "payload": {"text": "a"}}
FOUND = answer(200, json.dumps({"result": {"points": [POINT]}, "time": 0.0}).encode())
STORED = answer(
    200, json.dumps({"result": {"operation_id": 1, "status": "completed"}, "time": 0.0}).encode()
)
NULL = answer(200, b'{"result": null, "status": "ok", "time": 0.0}')
HTML = answer(200, b"<html>login</html>")
WRONG = answer(200, b'{"result": {"points": [{"id": []}]}, "time": 0.0}')

# (fault, what the caller sees, whether asking again may help)
FAULTS = [
    pytest.param(refused, QdrantConnectionError, True, id="closed"),
    pytest.param(broken_off, QdrantConnectionError, True, id="closed during the body"),
    pytest.param(reset, QdrantConnectionError, True, id="reset during the body"),
    pytest.param(hanging, QdrantConnectionError, True, id="hangs"),
    pytest.param(answer(429, refusal("slow down")), QdrantRequestError, True, id="429"),
    pytest.param(answer(502, b"bad gateway"), QdrantConnectionError, True, id="502"),
    pytest.param(answer(503, b""), QdrantConnectionError, True, id="503"),
    pytest.param(answer(504, b""), QdrantConnectionError, True, id="504"),
    pytest.param(answer(500, refusal("panic")), QdrantConnectionError, False, id="500"),
    pytest.param(answer(400, refusal("bad filter")), QdrantRequestError, False, id="400"),
    pytest.param(answer(401, b"key?"), QdrantRequestError, False, id="401"),
    pytest.param(answer(403, refusal("no")), QdrantRequestError, False, id="403"),
    pytest.param(answer(404, refusal("`docs`")), CollectionNotFoundError, False, id="404"),
    pytest.param(answer(422, refusal("what")), QdrantRequestError, False, id="422"),
    pytest.param(HTML, QdrantConnectionError, False, id="200 with HTML"),
    pytest.param(WRONG, QdrantConnectionError, False, id="200 with a wrong schema"),
    pytest.param(NULL, QdrantConnectionError, False, id="200 with null"),
    pytest.param(garbage, QdrantConnectionError, False, id="no HTTP"),
]


@pytest.fixture
def searcher_at():
    """Makes searchers over HTTP that retry; afterwards no thread and no socket is left."""
    threads, sockets = set(threading.enumerate()), open_sockets()
    clients = []

    def make(url, timeout=1, **options):
        clients.append(QdrantClient(url=url, timeout=timeout, check_compatibility=False))
        return HybridSearcher(
            "docs", text="text", client=clients[-1], reranker=None, options=SearchOptions(**options)
        )

    yield make
    for client in clients:
        client.close()
    give_up = time.monotonic() + 5  # the server's own threads end once their clients are gone
    while time.monotonic() < give_up:
        left = {t for t in threading.enumerate() if t.name != "tqdm_monitor"} - threads
        if not left and open_sockets() <= sockets:
            break
        time.sleep(0.01)
    assert not left
    assert open_sockets() <= sockets


def open_sockets():
    """Inodes of the sockets of this process."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:"):
                found.add(target)
    return found


@pytest.mark.parametrize(("fault", "error", "again"), FAULTS)
def test_what_may_pass_is_asked_again_and_nothing_else(searcher_at, fault, error, again):
    """Three requests with retries=2, one without or where it cannot help; then it works."""
    for retries, requests in ((2, 3 if again else 1), (0, 1)):
        script = Script({"GET": [SCHEMA], "POST": [fault]})
        with serving(script) as url:
            searcher = searcher_at(url, retries=retries)
            with pytest.raises(error) as caught:
                searcher.search("q")
        assert caught.value.__cause__ is not None
        assert script.requests("POST") == requests
    if again:
        script = Script({"GET": [fault, SCHEMA], "POST": [fault, fault, FOUND]})
        with serving(script) as url:
            found = searcher_at(url, retries=2).search("q")
        assert [hit.id for hit in found] == [1]
        assert found.trace.retries == 3
        assert (script.requests("GET"), script.requests("POST")) == (2, 3)


@pytest.mark.parametrize(
    ("code", "again"),
    [("UNAVAILABLE", 3), ("RESOURCE_EXHAUSTED", 3), ("INVALID_ARGUMENT", 1), ("NOT_FOUND", 1)],
)
def test_the_same_over_grpc(code, again):
    """UNAVAILABLE and RESOURCE_EXHAUSTED may pass, what is wrong stays wrong."""
    asked = []

    def refuse(request, context):
        context.abort(grpc.StatusCode[code], "no")

    class Refusing(grpc.GenericRpcHandler):
        def service(self, details):
            asked.append(details.method)
            return grpc.unary_unary_rpc_method_handler(refuse)

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Refusing()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        client = QdrantClient(
            host="127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False, timeout=5
        )
        searcher = HybridSearcher(
            "docs", text="text", client=client, reranker=None, options=SearchOptions(retries=2)
        )
        try:
            with pytest.raises((QdrantError, CollectionNotFoundError)) as caught:
                searcher.search("q")
        finally:
            client.close()
            server.stop(None).wait()
    assert caught.value.__cause__ is not None
    assert sum(method.endswith("Collections/Get") for method in asked) == again


def test_a_port_that_nobody_listens_at_is_tried_again(searcher_at):
    """A server that starts in between is found."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(QdrantConnectionError, match="cannot be reached"):
        searcher_at(url, retries=2).search("q")
    assert time.monotonic() - began >= 0.1 + 0.2  # the two waits


def test_adding_retries_too(searcher_at):
    """Ids are made of the texts, so a batch that arrives twice is stored once."""
    script = Script({"GET": [SCHEMA], "PUT": [broken_off, answer(503, b""), STORED]})
    with serving(script) as url:
        assert searcher_at(url, retries=2).add(["a"], progress=False) == 1
    assert script.requests("PUT") == 3


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(searcher_at, status):
    """In seconds; the backoff alone would be shorter."""
    fault = answer(status, refusal("slow down"), Retry_After="1")
    script = Script({"GET": [SCHEMA], "POST": [fault, FOUND]})
    with serving(script) as url:
        assert searcher_at(url, retries=2).search("q").trace.retries == 1
    first, second = (when for method, _, when in script.seen if method == "POST")
    assert second - first >= 1


@pytest.mark.parametrize(("after", "deadline_s"), [("60", 5), ("3600", None)])
def test_a_wait_that_is_too_long_is_not_begun(searcher_at, after, deadline_s):
    """Beyond the deadline, or longer than anybody waits for a page: the error, at once."""
    fault = answer(429, refusal("slow down"), Retry_After=after)
    script = Script({"GET": [SCHEMA], "POST": [fault]})
    with serving(script) as url:
        began = time.monotonic()
        with pytest.raises(QdrantRequestError, match=f"Try again in {after} s"):
            searcher_at(url, retries=2).search("q", deadline_s=deadline_s)
        assert time.monotonic() - began < 5
    assert script.requests("POST") == 1


@pytest.mark.parametrize("fault", [hanging, dripping])
def test_a_deadline_ends_what_the_client_s_timeout_does_not(searcher_at, fault):
    """In fractions of a second, retries included, at whichever request."""
    for answers in ({"GET": [fault]}, {"GET": [SCHEMA], "POST": [fault]}):
        script = Script(answers)
        with serving(script) as url:
            searcher = searcher_at(url, timeout=60, retries=5)
            began = time.monotonic()
            with pytest.raises(QdrantConnectionError, match="in time"):
                searcher.search("q", deadline_s=0.7)
            assert 0.6 < time.monotonic() - began < 3
        assert len(script.seen) == len(answers)


def test_a_deadline_that_is_kept_leaves_the_client_as_it_was(searcher_at):
    """The next search without one has the client's own timeout."""
    script = Script({"GET": [SCHEMA], "POST": [FOUND, hanging]})
    with serving(script) as url:
        searcher = searcher_at(url, timeout=1)
        assert len(searcher.search("q", deadline_s=30)) == 1
        with pytest.raises(QdrantConnectionError, match="SearchOptions"):
            searcher.search("q")


@pytest.mark.parametrize("retries", [-1, 1.5, True, "2"])
def test_a_wrong_number_of_retries_is_refused(client, retries):
    """Before anything is asked."""
    with pytest.raises(InvalidInputError, match="retries is"):
        HybridSearcher("docs", client=client, options=SearchOptions(retries=retries))
