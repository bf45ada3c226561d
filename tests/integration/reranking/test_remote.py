"""A reranker on a server: every API, every way in which an answer can be wrong, deadlines."""

import asyncio
import base64
import gzip
import json
import logging
import os
import threading
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdrant_rerank import (
    AsyncHybridSearcher,
    Cascade,
    HybridSearcher,
    RemoteReranker,
    SearchOptions,
    rerank_points,
)
from qdrant_rerank.errors import (
    DeadlineError,
    InvalidInputError,
    ModelConnectionError,
    ModelOutputError,
    ModelRequestError,
)
from qdrant_rerank.utils.deadline import Deadline
from tests import fault_server
from tests.fault_server import Script, answer, serving
from tests.faults import free_port
from tests.rerank_server import SHAPES, RerankServer, relevance

KEY = "not-a-secret-of-anyone-0815"
TEXTS = ["Iron melts at 1538 C.", "Bread is baked.", "Ore is mined.", "A furnace is hot."]
EXPECTED = [relevance("iron", text) for text in TEXTS]
RECALL = SearchOptions(on_rerank_error="recall")


@pytest.fixture
def served():
    """A server of Cohere's API, and its URL."""
    server = RerankServer("cohere")
    with serving(server) as url:
        yield server, url


@pytest.fixture
def filled(client):
    """The texts, without a reranker."""
    searcher = HybridSearcher("docs", client=client, reranker=None)
    searcher.add(TEXTS, progress=False)
    return searcher


def remote(url, **options):
    """A reranker that waits for nothing that it need not wait for."""
    return RemoteReranker(url, "m", KEY, **{"timeout_s": 20.0, **options})


FIELDS = {
    "cohere": {"model": "m", "query": "iron", "documents": TEXTS, "top_n": 4},
    "jina": {
        "model": "m",
        "query": "iron",
        "documents": TEXTS,
        "top_n": 4,
        "return_documents": False,
    },
    "tei": {
        "model": "m",
        "query": "iron",
        "texts": TEXTS,
        "raw_scores": False,
        "return_text": False,
        "truncate": True,
    },
    "vllm": {"model": "m", "query": "iron", "documents": TEXTS, "top_n": 4},
    "vllm-score": {"model": "m", "text_1": "iron", "text_2": TEXTS},
    "infinity": {
        "model": "m",
        "query": "iron",
        "documents": TEXTS,
        "top_n": 4,
        "return_documents": False,
    },
    "litellm": {"model": "m", "query": "iron", "documents": TEXTS, "top_n": 4},
    "voyage": {
        "model": "m",
        "query": "iron",
        "documents": TEXTS,
        "top_k": 4,
        "return_documents": False,
    },
    "elastic": {"model": "m", "query": "iron", "input": TEXTS},
}


@pytest.mark.parametrize("api", SHAPES)
def test_every_api_is_asked_in_its_words(api):
    """At its own path, with the key; the scores come in the order of the documents."""
    server = RerankServer(api)
    path = SHAPES[api][0]
    with serving(server) as url, remote(url + path * (api == "elastic"), api=api) as reranker:
        assert reranker.rerank("iron", TEXTS) == EXPECTED
        assert reranker.url == url + path
    assert (server.paths, server.seen) == ([path], [FIELDS[api]])
    assert server.keys == [f"ApiKey {KEY}" if api == "elastic" else f"Bearer {KEY}"]


def test_a_path_of_the_url_is_kept_and_fields_are_added(served):
    """As a gateway in between wants it."""
    server, url = served
    reranker = RemoteReranker(
        f"{url}/gateway/rerank?tenant=7",
        "m",
        headers={"X-Tenant": "seven"},
        parameters={"max_tokens_per_doc": 99},
    )
    assert reranker.rerank("iron", TEXTS) == EXPECTED
    assert server.paths == ["/gateway/rerank?tenant=7"]
    assert server.seen[0]["max_tokens_per_doc"] == 99
    assert server.keys == [None]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(st.text(max_size=20), max_size=25),
    batch_size=st.integers(1, 30),
    concurrency=st.integers(1, 5),
)
def test_the_size_and_the_number_of_requests_change_no_score(
    served, texts, batch_size, concurrency
):
    """Any texts, empty ones and lone surrogates too; no more requests at a time than allowed."""
    server, url = served
    server.seen.clear()
    server.busiest = 0
    with remote(url, batch_size=batch_size, concurrency=concurrency) as reranker:
        found = reranker.rerank("iron", texts)
    assert found == [relevance("iron", text) for text in texts]
    assert len(server.seen) == -(-len(texts) // batch_size)
    assert server.busiest <= concurrency


def results(*items):
    """A complete answer with these items."""
    return answer(200, json.dumps({"results": list(items)}).encode())


def scored(index, score=0.5):
    """One item."""
    return {"index": index, "relevance_score": score}


FOUR = [scored(row) for row in range(4)]
ANSWERS = {
    "fewer": (results(*FOUR[:3]), ModelOutputError, "3 scores for 4 documents, and none for docum"),
    "none": (results(), ModelOutputError, "answered 0 scores for 4 documents"),
    "more": (results(*FOUR, scored(4)), ModelOutputError, "document 4, but there are 4 documents"),
    "twice": (results(*FOUR[:3], scored(2)), ModelOutputError, "two scores for document 2"),
    "negative": (results(*FOUR[:3], scored(-1)), ModelOutputError, "score for document -1"),
    "no index": (results({"relevance_score": 1}), ModelOutputError, "with the index None"),
    "a text": (results(*FOUR[:3], scored(3, "0.5")), ModelOutputError, "the score '0.5' for docum"),
    "null": (results(*FOUR[:3], scored(3, None)), ModelOutputError, "the score None for document"),
    "NaN": (results(*FOUR[:3], scored(3, float("nan"))), ModelOutputError, "the score nan for"),
    "infinity": (results(*FOUR[:3], scored(3, 1e999)), ModelOutputError, "the score inf for"),
    "no list": (answer(200, b'{"results": 3}'), ModelOutputError, "expected a list with the index"),
    "another JSON": (answer(200, b'{"ok": true}'), ModelOutputError, "expected a list with the"),
    "an error in 200": (answer(200, b'{"error": "busy"}'), ModelOutputError, "busy"),
    "far": (
        answer(429, b"", Retry_After="Wed, 21 Oct 2065 07:28:00 GMT"),
        ModelRequestError,
        r"Try again in \d{10} s",
    ),
    "HTML": (answer(200, b"<html>Sign in</html>"), ModelConnectionError, "not JSON: <html>Sign in"),
    "nothing": (answer(200, b""), ModelConnectionError, "not JSON: nothing"),
    "no content": (answer(204, b""), ModelConnectionError, "answered 204: nothing"),
    "half": (answer(200, b'{"results": [{"in'), ModelConnectionError, "not JSON"),
    "deep": (answer(200, b"[" * 200_000), ModelConnectionError, "not JSON"),
    "a bomb": (
        answer(200, gzip.compress(b" " * (70 << 20), 1), Content_Encoding="gzip"),
        ModelConnectionError,
        "answered more than 64 MB",
    ),
    "gzip": (answer(200, b"plain", Content_Encoding="gzip"), ModelConnectionError, "unpacked"),
    "400": (answer(400, b'{"message": "bad top_n"}'), ModelRequestError, r"\(400\): bad top_n"),
    "401": (answer(401, b'{"message": "no api key"}'), ModelRequestError, "Check api_key and its"),
    "403": (answer(403, b"{}"), ModelRequestError, "refused access"),
    "404": (answer(404, b"Not Found"), ModelRequestError, "Check the path of the url, the mo"),
    "413": (answer(413, b""), ModelRequestError, "smaller batch_size"),
    "422": (answer(422, b'{"error": "too long"}'), ModelRequestError, r"\(422\): too long"),
    "429": (answer(429, b"", Retry_After="3600"), ModelRequestError, "Try again in 3600 s"),
    "500": (answer(500, b'{"error": "CUDA"}'), ModelConnectionError, "answered 500: CUDA"),
    "301": (answer(301, b"", Location="http://x.test/"), ModelConnectionError, "not followed"),
    "cut": (fault_server.broken_off, ModelConnectionError, "cannot be reached"),
    "reset": (fault_server.reset, ModelConnectionError, "cannot be reached"),
    "refused": (fault_server.refused, ModelConnectionError, "cannot be reached"),
    "garbage": (fault_server.garbage, ModelConnectionError, "cannot be reached"),
}
SLOW = {
    "dripping": fault_server.dripping,
    "dripping headers": fault_server.dripping_headers,
    "hanging": fault_server.hanging,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_wrong_answer_is_our_own_error(name, filled, client):
    """It names the server and what it said; the search keeps the first stage's order if it may."""
    given, kind, said = ANSWERS[name]
    with serving(given) as url:
        reranker = remote(url, retries=0)
        with pytest.raises(kind, match=said) as caught:
            reranker.rerank("iron", TEXTS)
        assert f"{url}/v2/rerank" in str(caught.value)
        with pytest.raises(kind, match=said):
            HybridSearcher("docs", client=client, reranker=reranker).search("iron")
        kept = HybridSearcher("docs", client=client, reranker=reranker, options=RECALL)
        found = kept.search("iron")
    assert [hit.id for hit in found] == [hit.id for hit in filled.search("iron")]
    assert (found.trace.status, found.trace.pairs) == ("degraded", 0)
    assert found.trace.cause.startswith(kind.__name__)


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_answer_ends_at_the_timeout(name):
    """Of the whole request: bytes that drip do not lengthen it."""
    with serving(SLOW[name]) as url:
        reranker = remote(url, timeout_s=0.3)
        with pytest.raises(ModelConnectionError, match=r"did not answer within 0\.3 s"):
            reranker.rerank("iron", TEXTS)


def test_no_server_is_our_own_error():
    """Asked once more for each retry."""
    reranker = remote(f"http://127.0.0.1:{free_port()}", retries=1)
    with pytest.raises(ModelConnectionError, match="cannot be reached.* It was asked 2 times"):
        reranker.rerank("iron", TEXTS)


TRANSIENT = {
    "429": answer(429, b"", Retry_After="0"),
    "429, a date": answer(429, b"", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "502": answer(502, b"<html>Bad Gateway</html>"),
    "503": answer(503, b""),
    "504": answer(504, b""),
    "refused": fault_server.refused,
    "cut": fault_server.broken_off,
    "reset": fault_server.reset,
}


@pytest.mark.parametrize("name", TRANSIENT)
def test_what_may_pass_is_asked_again(name):
    """Until it has passed."""
    script = Script({"POST": [TRANSIENT[name], TRANSIENT[name], RerankServer("cohere")]})
    with serving(script) as url:
        assert remote(url, retries=2).rerank("iron", TEXTS) == EXPECTED
    assert script.requests("POST") == 3


@pytest.mark.parametrize("name", ["400", "401", "404", "422", "500", "301", "HTML", "fewer"])
def test_what_stays_wrong_is_asked_once(name):
    """Retries would only cost."""
    script = Script({"POST": [ANSWERS[name][0]]})
    with serving(script) as url, pytest.raises(ANSWERS[name][1]):
        remote(url, retries=5).rerank("iron", TEXTS)
    assert script.requests("POST") == 1


def test_the_wait_that_a_server_asks_for_is_kept():
    """One second, and not the backoff's quarter."""
    script = Script({"POST": [answer(429, b"", Retry_After="1"), RerankServer("cohere")]})
    with serving(script) as url:
        assert remote(url).rerank("iron", TEXTS) == EXPECTED
    [(_, _, first), (_, _, second)] = script.seen
    assert second - first >= 1


def test_a_redirect_takes_the_key_nowhere():
    """The other server sees no request."""
    script = Script({"*": [answer(200, b"")]})
    with (
        serving(script) as elsewhere,
        serving(answer(307, b"", Location=f"{elsewhere}/v2/rerank")) as url,
        pytest.raises(ModelConnectionError, match="redirects are not followed"),
    ):
        remote(url).rerank("iron", TEXTS)
    assert script.seen == []


def echo(handler):
    """A server that quotes what it was sent, key and all."""
    said = f"bad key {handler.headers['Authorization']} {handler.headers['X-Other']}"
    answer(400, json.dumps({"message": said}).encode())(handler)


@pytest.mark.parametrize(
    "make",
    [
        lambda url: RemoteReranker(url, "m", KEY),
        lambda url: RemoteReranker(url.replace("http://", f"http://me:{KEY}@"), "m"),
        lambda url: RemoteReranker(url, "m", headers={"X-Other": f"Key {KEY}"}),
    ],
    ids=["key", "login", "header"],
)
def test_no_message_shows_the_key(make, filled, client, caplog):
    """Of errors and their causes, reprs, traces and logs."""
    caplog.set_level(logging.DEBUG)
    with serving(echo) as url:
        reranker = make(url)
        with pytest.raises(ModelRequestError, match="bad key") as caught:
            reranker.rerank("iron", TEXTS)
        searcher = HybridSearcher("docs", client=client, reranker=reranker, options=RECALL)
        trace = searcher.search("iron").trace
    shown = [*traceback.format_exception(caught.value), repr(reranker), repr(searcher), repr(trace)]
    shown += [caplog.text, reranker.url]
    login = base64.b64encode(f"me:{KEY}".encode()).decode()
    assert not [text for text in shown if KEY in text or login in text]


def test_a_key_in_the_address_is_not_in_our_messages():
    """httpx logs whole addresses, so a key belongs into api_key or headers."""
    with serving(echo) as url:
        reranker = RemoteReranker(f"{url}/v2/rerank?api_key={KEY}", "m")
        with pytest.raises(ModelRequestError) as caught:
            reranker.rerank("iron", TEXTS)
    assert KEY not in f"{caught.value} {reranker!r} {reranker.url}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "localhost:8080"}, "url is 'localhost:8080'; expected one such as"),
        ({"url": 3}, "url is an int"),
        ({"url": "http://"}, "url is 'http://'"),
        ({"url": "ftp://host/x"}, "url is 'ftp://host/x'"),
        ({"api": "coher"}, "api is 'coher'; expected one of 'cohere', 'jina'"),
        ({"api": "elastic"}, "without a path; expected the whole address"),
        ({"model": None}, "model is None; api='cohere' needs the name of a model"),
        ({"model": ""}, "model is ''"),
        ({"api_key": f"{KEY} {KEY}"}, "api_key has 55 characters, and number 28 is white space"),
        ({"url": "http://me:you@host", "api_key": KEY}, "url has a user and a password, and api_k"),
        ({"api_key": 3}, "api_key is an int; expected a str or None"),
        ({"timeout_s": 0}, "timeout_s is 0; expected seconds above 0"),
        ({"timeout_s": None}, "timeout_s is None"),
        ({"retries": -1}, "retries is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"concurrency": None}, "concurrency is None"),
        ({"headers": {"X": "a\nb"}}, "the value of 'X' has a control character"),
        ({"parameters": {"x": object()}}, "parameters cannot be sent as JSON"),
        ({"parameters": {"x": float("nan")}}, "parameters cannot be sent as JSON"),
        ({"parameters": ["x"]}, "parameters is a list; expected a dict of fields"),
        ({"parameters": {"documents": []}}, "parameters has 'documents'; expected further fields"),
        ({"parameters": {"top_n": 3}}, "than those that each request has: model, query, documents"),
        ({"parameters": {3: 3}}, "parameters has 3; expected further fields"),
        ({"headers": [("X", "y")]}, "headers is a list; expected a dict of texts"),
        ({"headers": {"X": 3}}, "headers has 'X' with an int"),
        ({"headers": {"Host": "x"}}, "headers has 'Host', which the connection sets itself"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(options, said):
    """Without its value, where that may be a secret."""
    with pytest.raises(InvalidInputError, match=said) as caught:
        RemoteReranker(**{"url": "http://localhost:1", "model": "m", **options})
    assert KEY not in str(caught.value)


def test_texts_are_checked_before_anything_is_sent(served):
    """Query and documents."""
    server, url = served
    reranker = remote(url)
    for query, documents in ((None, TEXTS), ("q", [None]), ("q", "text"), ("q", 3)):
        with pytest.raises(InvalidInputError):
            reranker.rerank(query, documents)
    with pytest.raises(InvalidInputError, match="deadline_s is 0"):
        reranker.rerank("q", TEXTS, deadline_s=0)
    assert reranker.rerank("q", []) == []
    assert server.seen == []


class HangsAt:
    """Answers all but one document, which it never does."""

    def __init__(self, document):
        self.document, self.server = document, RerankServer("cohere")

    def __call__(self, handler):
        if self.document in json.loads(handler.body)["documents"]:
            fault_server.hanging(handler)
        else:
            self.server(handler)


def test_at_a_deadline_the_first_scores_are_there(client):
    """Those before the document that takes too long; the others follow in retrieval order."""
    with serving(HangsAt(TEXTS[2])) as url:
        reranker = remote(url, batch_size=1, timeout_s=60.0)
        with pytest.raises(DeadlineError, match="2 of 4 documents were scored in 2 s") as caught:
            reranker.rerank("iron", TEXTS, deadline_s=2)
        assert caught.value.scores == EXPECTED[:2]
        assert reranker.rerank_until("iron", TEXTS, Deadline.after(2)) == (EXPECTED[:2], 2)
        plain = HybridSearcher("docs", client=client, reranker=None)
        plain.add([{"text": text, "n": n} for n, text in enumerate(TEXTS)], progress=False)
        first = plain.search("iron")
        place = [hit.payload["n"] for hit in first].index(2)
        searcher = HybridSearcher("docs", client=client, reranker=reranker)
        found = searcher.search("iron", deadline_s=2)
    assert (found.trace.status, found.trace.pairs) == ("partial", place)
    assert [hit.id for hit in found[place:]] == [hit.id for hit in first[place:]]


def test_a_deadline_is_not_waited_past_for_a_retry():
    """The server's wish for a longer pause is then an error at once."""
    script = Script({"POST": [answer(429, b"", Retry_After="50")]})
    with serving(script) as url, pytest.raises(ModelRequestError, match="Try again in 50 s"):
        remote(url).rerank("iron", TEXTS, deadline_s=30)
    assert script.requests("POST") == 1


def test_it_goes_wherever_a_reranker_goes(served, filled, client):
    """A cascade, ``rerank_points``, several queries at once."""
    _, url = served
    reranker = remote(url)
    order = sorted(TEXTS, key=lambda text: -relevance("iron", text))
    searcher = HybridSearcher("docs", client=client, reranker=reranker)
    found = searcher.search("iron")
    assert [hit.payload["text"] for hit in found] == order
    assert (found.trace.status, found.trace.pairs) == ("reranked", 4)
    again = rerank_points("iron", filled.search("iron"), reranker=reranker)
    assert [hit.payload["text"] for hit in again] == order
    cascade = Cascade([(reranker, 2), (reranker, None)]).rerank("iron", TEXTS)
    assert sorted(TEXTS, key=lambda text: -cascade[TEXTS.index(text)]) == order
    for query, page in zip(["iron", "ore"], searcher.search_batch(["iron", "ore"]), strict=True):
        expected = sorted((relevance(query, text) for text in TEXTS), reverse=True)
        assert [hit.rerank_score for hit in page] == expected


def test_an_event_loop_awaits_it(served, filled, client):
    """Without a thread of the searcher's, several queries at the same time, with equal scores."""
    server, url = served
    reranker = remote(url)

    async def search():
        async with AsyncHybridSearcher("docs", client=client, reranker=reranker) as searcher:
            page = await searcher.search("iron")
            pages = await searcher.search_batch(["iron", "ore"])
            return page, pages, await reranker.rerank_async("iron", TEXTS)

    page, pages, scores = asyncio.run(search())
    assert scores == EXPECTED
    assert [hit.rerank_score for hit in page] == sorted(EXPECTED, reverse=True)
    assert [hit.id for hit in pages[0]] == [hit.id for hit in page]
    assert page.trace.status == "reranked"
    asyncio.run(reranker.rerank_async("iron", TEXTS))  # in another loop
    assert len(server.seen) == 5


def test_a_sync_call_works_inside_a_running_loop(served):
    """As in a notebook."""
    _, url = served

    async def cell():
        return remote(url).rerank("iron", TEXTS)

    assert asyncio.run(cell()) == EXPECTED


def test_a_task_that_is_cancelled_gives_up_its_request(filled, client):
    """The server sees the connection close, and the next search works."""
    closed = threading.Event()
    asked = threading.Event()

    def waits(handler):
        asked.set()
        handler.connection.settimeout(60)
        if handler.connection.recv(1) == b"":
            closed.set()

    async def search(url):
        async with AsyncHybridSearcher("docs", client=client, reranker=remote(url)) as searcher:
            task = asyncio.ensure_future(searcher.search("iron"))
            await asyncio.to_thread(asked.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await asyncio.to_thread(closed.wait, 60)

    with serving(waits) as url:
        assert asyncio.run(search(url))


def test_many_threads_share_it(served):
    """Each gets its own scores."""
    _, url = served
    reranker = remote(url, batch_size=2)
    found = {}

    def ask(query):
        found[query] = reranker.rerank(query, TEXTS)

    threads = [threading.Thread(target=ask, args=(f"q{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"q{n}": [relevance(f"q{n}", text) for text in TEXTS] for n in range(8)}


def test_it_works_after_close(served):
    """A later call opens connections of its own."""
    _, url = served
    with remote(url) as reranker:
        assert reranker.rerank("iron", TEXTS) == EXPECTED
    assert reranker.rerank("iron", TEXTS) == EXPECTED
    reranker.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_asks_by_connections_of_its_own(served):
    """And the parent goes on."""
    _, url = served
    reranker = remote(url)
    assert reranker.rerank("iron", TEXTS) == EXPECTED
    child = os.fork()
    if child == 0:
        os._exit(0 if reranker.rerank("iron", TEXTS) == EXPECTED else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reranker.rerank("iron", TEXTS) == EXPECTED


def test_an_event_loop_keeps_a_deadline(client):
    """The first documents have their scores, whatever the others take."""
    with serving(HangsAt(TEXTS[2])) as url:
        reranker = remote(url, batch_size=1, timeout_s=60.0)

        async def search():
            async with AsyncHybridSearcher("docs", client=client, reranker=reranker) as searcher:
                await searcher.add(TEXTS, progress=False)
                return await searcher.search("iron", deadline_s=3)

        found = asyncio.run(search())
    place = next(hit.retrieval_rank for hit in found if hit.payload["text"] == TEXTS[2]) - 1
    assert (found.trace.status, found.trace.pairs) == ("partial", place)
