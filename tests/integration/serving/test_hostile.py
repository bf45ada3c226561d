"""Clients that send nonsense, too much, too slowly, or hang up."""

import json
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from qdrant_rerank import TextCrossEncoder
from tests.serving import connect, read_all, request_bytes, served, until

TEXTS = {"query": "iron", "texts": ["Iron melts.", "Bread is baked."]}


@pytest.fixture(scope="module")
def url(tiny_bert):
    """A server with small limits."""
    limits = {"max_documents": 5, "max_body_bytes": 20_000, "client_timeout_s": 1.0}
    with served(models=[str(tiny_bert)], **limits) as found:
        yield found


def still_serves(url):
    """Whether a sound request gets its answer."""
    found = httpx.post(url + "/rerank", json=TEXTS, timeout=600)
    return found.status_code == 200 and len(found.json()) == 2


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"", 400, "not JSON"),
        (b'{"query": ', 400, "not JSON: Expecting value at byte 10"),
        (b"\xff\xfe{}", 400, "it is not UTF-8"),
        (b"[" * 5000 + b"]" * 5000, 400, "nested too deep"),
        (b'{"query": "q", "texts": ["a"], "x": NaN}', 400, "NaN is no number"),
        (b'{"x": ' + b"9" * 5000 + b"}", 400, "a number is too large"),
        (b'{"query": "q", "documents": [{"text": "a", "x": 1e999}]}', 400, "a number is too large"),
        (b"[]", 422, "the body: Input should be a valid dictionary (an object of JSON)"),
        (b"7", 422, "the body"),
        (b'{"texts": ["a"]}', 422, "query: Field required"),
        (b'{"query": "q"}', 422, "documents: Field required; or texts"),
        (b'{"query": "q", "texts": "a"}', 422, "texts: Input should be a valid list"),
        (b'{"query": "q", "texts": [null]}', 422, "texts.0: Input should be a valid string"),
        (b'{"query": "q", "documents": [["a"]]}', 422, "documents.0: it is a list"),
        (b'{"query": "q", "documents": [{}]}', 422, "documents.0 has no text"),
        (b'{"query": "q", "documents": ["a"], "top_n": 0}', 422, "top_n"),
        (b'{"query": "q", "texts": ["a","a","a","a","a","a"]}', 422, "takes 5 per request"),
    ],
)
def test_bodies_that_are_none(url, body, status, expected):
    """The message says where the mistake is, and what was expected."""
    found = httpx.post(url + "/rerank", content=body)
    assert found.status_code == status
    assert expected in found.json()["message"]
    assert found.json()["error"] == found.json()["message"]


def test_no_message_repeats_a_text(url):
    """Neither a query nor a document nor a key."""
    secret = "the-secret-of-the-document"
    bodies = [
        {"query": [secret], "texts": [secret]},
        {"query": secret, "texts": [{"a": secret}]},
        {"query": secret, "documents": [{"x": [secret]}]},
        {"query": secret, "documents": [secret] * 6},
        f'{{"query": "{secret}" {secret}',
    ]
    for body in bodies:
        content = body if isinstance(body, str) else json.dumps(body)
        found = httpx.post(
            url + "/rerank", content=content, headers={"Authorization": f"Bearer {secret}"}
        )
        assert 400 <= found.status_code < 500
        assert secret not in found.text


def test_bodies_that_are_too_large(url):
    """Refused by their declared length at once, and without one when they have grown too far."""
    found = httpx.post(url + "/rerank", content=b" " * 20_001)
    assert (found.status_code, "more than 20,000 bytes" in found.text) == (413, True)

    def endless():
        while True:
            yield b" " * 1000

    with connect(url) as connection:
        connection.sendall(
            b"POST /rerank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"3e8\r\n" + next(endless()) + b"\r\n"
        try:
            for _ in range(30):
                connection.sendall(chunk)
        except OSError:
            pass
        assert b" 413 " in connection.recv(4096).partition(b"\r\n")[0]
    assert still_serves(url)


def test_compressed_bodies_are_refused(url):
    """A few bytes could be gigabytes."""
    found = httpx.post(url + "/rerank", content=b"x", headers={"Content-Encoding": "gzip"})
    assert (found.status_code, found.json()["error_type"]) == (415, "Validation")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /rerank HTT",
        b"POST /rerank HTTP/1.1\r\nHost: x\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea",
    ],
    ids=["nothing", "half a line", "half a header", "half a second request"],
)
def test_a_client_that_falls_silent_is_given_up(url, sent):
    """Its connection is closed."""
    with connect(url) as connection:
        connection.sendall(sent)
        answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 200 OK") == sent.count(b"\r\n\r\n")


def test_a_body_that_stops_is_a_408(url):
    """The message names the limit."""
    with connect(url) as connection:
        connection.sendall(
            b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + b'{"query"'
        )
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"client_timeout_s" in answer


def test_nonsense_is_not_http(url):
    """It gets a 400, or no answer."""
    for sent in (b"\x00\x01\x02\r\n\r\n", b"GET /\r\n\r\n", b"\r\n" * 100 + b"A" * 70_000):
        with connect(url) as connection:
            connection.sendall(sent)
            answer = read_all(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert still_serves(url)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
def test_a_client_that_does_not_read_is_given_up(tiny_bert):
    """The server drops the answer, which the buffers of the system do not hold."""
    text = "x" * 3_500_000
    with served(models=[str(tiny_bert)], client_timeout_s=1.0) as url:
        with connect(url) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            body = {"query": "q", "texts": [text, text], "return_text": True}
            connection.sendall(request_bytes("/rerank", body))
            counted = b'requests_total{route="/rerank",status="200"} 1.0'
            until(lambda: counted in httpx.get(url + "/metrics", timeout=600).content)
            until(lambda: not has_owner(connection))
            assert len(read_all(connection)) < 7_000_000
        assert still_serves(url)


def has_owner(connection):
    """Whether the other end of a connection, which is on this machine, still has a process."""
    port = connection.getsockname()[1]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(int(row[2].rpartition(":")[2], 16) == port and row[9] != "0" for row in rows)


def test_a_client_that_hangs_up_stops_its_work(tiny_bert):
    """Its turns end; the others get theirs."""
    with served(models=[str(tiny_bert)], max_documents=100_000) as url:
        body = {"query": "q", "texts": ["word " * 150] * 20_000}
        with connect(url) as connection:
            connection.sendall(request_bytes("/rerank", body))
            until(lambda: waiting_requests(url))
        assert still_serves(url)
        until(lambda: not waiting_requests(url))
        text = httpx.get(url + "/metrics").text
        # No pair of it was counted: it has no scores.
        assert "\nqdrant_rerank_pairs_total 2.0\n" in text


def waiting_requests(url):
    """Requests without an answer, as the metrics say."""
    text = httpx.get(url + "/metrics", timeout=600).text
    return float(text.partition("\nqdrant_rerank_waiting_requests ")[2].partition("\n")[0])


def test_a_full_queue_is_a_429_with_the_seconds_to_wait(tiny_bert):
    """A client that hangs up makes room."""
    options = {"max_documents": 100_000, "queue_tokens": 1000}
    with served(models=[str(tiny_bert)], **options) as url:
        body = {"query": "q", "texts": ["word " * 150] * 20_000}
        with connect(url) as connection:
            connection.sendall(request_bytes("/rerank", body))
            until(lambda: waiting_requests(url))
            refused = httpx.post(url + "/rerank", json=TEXTS, timeout=600)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "the limit of 1,000 tokens" in refused.json()["message"]
        until(lambda: not waiting_requests(url))
        assert still_serves(url)


def test_bodies_of_all_requests_have_one_limit(tiny_bert):
    """Those that wait count, and those that are read."""
    with served(models=[str(tiny_bert)], max_total_bytes=5000) as url:
        with connect(url) as connection:
            connection.sendall(
                b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b" " * 4990
            )
            until(lambda: b"qdrant_rerank_body_bytes 4990.0" in httpx.get(url + "/metrics").content)
            refused = httpx.post(url + "/rerank", json=TEXTS)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        until(lambda: b"qdrant_rerank_body_bytes 0.0" in httpx.get(url + "/metrics").content)
        assert still_serves(url)


def test_a_body_beyond_the_limit_of_all_requests_is_too_large(tiny_bert):
    """Sent again, it would be refused again."""
    with served(models=[str(tiny_bert)], max_total_bytes=5000) as url:
        refused = httpx.post(url + "/rerank", json={"query": "a", "texts": ["b" * 6000]})
        assert refused.status_code == 413
        assert "5,000 bytes, the limit of all requests together" in refused.json()["message"]
        assert still_serves(url)


def test_large_bodies_leave_room_for_small_ones(tiny_bert):
    """A client that holds all that it can does not keep the requests of others out."""
    large = b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + b" " * 19_900

    def held():
        told = httpx.get(url + "/metrics").text
        return float(told.split("\nqdrant_rerank_body_bytes ")[1].split()[0])

    with (
        served(models=[str(tiny_bert)], max_total_bytes=100_000, client_timeout_s=300.0) as url,
        ExitStack() as clients,
    ):
        for number in range(4):
            clients.enter_context(connect(url)).sendall(large)
            until(lambda: held() == (number + 1) * 19_900)  # noqa: B023
        with connect(url) as fifth:
            fifth.sendall(large)
            assert fifth.recv(1000).startswith(b"HTTP/1.1 429 ")
        assert still_serves(url)
        assert held() == 4 * 19_900


def test_many_clients_at_once_get_their_own_scores(tiny_bert):
    """Of different sizes, while others hang up."""
    encoder = TextCrossEncoder(tiny_bert, activation="sigmoid")
    with served(models=[str(tiny_bert)]) as url:
        wrong = []

        def ask(number):
            texts = [f"{number} iron melts {n}" * (1 + n % 7) for n in range(1 + number * 3)]
            body = {"query": f"question {number}", "texts": texts}
            if number % 3 == 0:
                with connect(url) as connection:
                    connection.sendall(request_bytes("/rerank", body))
            found = httpx.post(url + "/rerank", json=body, timeout=600).json()
            scores = {one["index"]: one["score"] for one in found}
            if list(map(scores.get, range(len(texts)))) != encoder.rerank(body["query"], texts):
                wrong.append(number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_an_unknown_model_gets_a_few_near_names(tiny_bert):
    """And the call that lists all."""
    models = [f"{name}={tiny_bert}" for name in ("small-v1", "small-v2", "large", "other", "more")]
    with served(models=models) as url:
        body = {"query": "q", "documents": ["a"], "model": "small-v3"}
        found = httpx.post(url + "/rerank", json=body)
    assert found.status_code == 404
    message = found.json()["message"]
    assert "'small-v3' is not served here" in message
    assert "'small-v1'" in message
    assert "'small-v2'" in message
    assert message.count("'") == 8  # the name that was asked for, and three others
    assert "expected one of GET /v1/models, such as" in message
