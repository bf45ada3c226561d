"""OpenAIEmbedder against an HTTP server on loopback that answers as OpenAI's call does."""

import asyncio
import base64
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher, OpenAIEmbedder
from qdrant_rerank.errors import (
    DeadlineError,
    InvalidInputError,
    ModelConnectionError,
    ModelOutputError,
    ModelRequestError,
    QdrantConnectionError,
)
from tests.fault_server import answer, broken_off, dripping, hanging, serving

KEY = "sk-c4nary-K3y-0123456789"
SIZE = 8


def vector_of(text):
    """What the server makes of a text: the same for the same text."""
    generator = np.random.default_rng(list(text.encode("utf-8", "surrogatepass")))
    return generator.standard_normal(SIZE).astype(np.float32)


def body_of(texts, encoding="float", *, order=None):
    """An answer as OpenAI writes it."""
    items = []
    for index, text in enumerate(texts):
        numbers = vector_of(text)
        written = (
            base64.b64encode(numbers.astype("<f4").tobytes()).decode()
            if encoding == "base64"
            else numbers.tolist()
        )
        items.append({"object": "embedding", "index": index, "embedding": written})
    if order is not None:
        items = [items[place] for place in order(len(items))]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "data": items, "model": "tiny", "usage": usage}


@dataclass
class Double:
    """A server of embeddings.

    Attributes:
        faults: answers in turn, before any proper one.
        order: of the items of an answer.
        requests: path, key and body of each request.
    """

    faults: list = field(default_factory=list)
    order: object = None
    requests: list = field(default_factory=list)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, handler):
        body = json.loads(handler.body)
        key = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.guard:
            self.requests.append((handler.path, key, body))
            fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            fault(handler)
            return
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        made = body_of(texts, body.get("encoding_format", "float"), order=self.order)
        answer(200, json.dumps(made).encode(), Content_Type="application/json")(handler)


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch):
    """The tests say which key there is."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def embedder_of(double, **options):
    """An embedder of a running double."""
    with serving(double) as url:
        made = OpenAIEmbedder(f"{url}/v1", "tiny", KEY, **{"retries": 0} | options)
        try:
            yield made
        finally:
            made.close()


def error(status, code="", message="no", **headers):
    """A refusal as OpenAI writes it."""
    content = {"error": {"message": message, "type": "x", "param": None, "code": code}}
    return answer(status, json.dumps(content).encode(), **headers)


def expected(texts):
    return np.stack([vector_of(text) for text in texts])


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_vectors_belong_to_their_texts(encoding):
    """In either encoding, several requests at a time, items in any order."""
    texts = [f"text {number}" for number in range(11)]
    double = Double(order=lambda count: reversed(range(count)))
    with embedder_of(double, encoding=encoding, batch_size=3) as embedder:
        made = embedder.embed_documents(texts)
        assert embedder.dimension == SIZE
        again = asyncio.run(embedder.aembed_documents(texts))
        query = embedder.embed_query("text 3")
        awaited = asyncio.run(embedder.aembed_query("text 3"))
    np.testing.assert_array_equal(made, expected(texts))
    np.testing.assert_array_equal(again, made)
    np.testing.assert_array_equal(query, made[3])
    np.testing.assert_array_equal(awaited, query)
    sizes = sorted(len(body["input"]) for _, _, body in double.requests)
    assert sizes == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert {(path, key) for path, key, _ in double.requests} == {("/v1/embeddings", KEY)}
    assert all(body["model"] == "tiny" for _, _, body in double.requests)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    texts=st.lists(st.text(max_size=30), max_size=9),
    size=st.integers(1, 4),
    characters=st.integers(1, 40),
)
def test_how_texts_are_cut_into_requests_changes_nothing(texts, size, characters):
    """Each text is sent once, in order, within both limits; an empty one as a blank."""
    double = Double()
    with embedder_of(
        double, batch_size=size, batch_characters=characters, dimension=SIZE, concurrency=1
    ) as embedder:
        made = embedder.embed_documents(texts)
    sent = [body["input"] for _, _, body in double.requests]
    assert [text for part in sent for text in part] == [text or " " for text in texts]
    assert all(len(part) <= size for part in sent)
    assert all(len(part) == 1 or sum(map(len, part)) <= characters for part in sent)
    if texts:
        np.testing.assert_array_equal(made, expected([text or " " for text in texts]))


def test_prompts_and_further_fields_are_sent():
    """A prompt is put before each text; dimensions only if they are to be shortened."""
    double = Double()
    options = {"query_prompt": "query: ", "document_prompt": "passage: "}
    with embedder_of(
        double, dimension=SIZE, shorten=True, parameters={"user": "me"}, **options
    ) as embedder:
        embedder.embed_query("iron")
        embedder.embed_documents(["bread"])
    first, second = (body for _, _, body in double.requests)
    assert first["input"] == ["query: iron"]
    assert second["input"] == ["passage: bread"]
    assert first["dimensions"] == SIZE
    assert first["user"] == "me"


def test_both_searchers_use_it(client):
    """The async one awaits it; what one has stored, the other finds, and records the model."""
    texts = ["iron melts", "bread is baked", "rivers flow"]
    double = Double()
    with embedder_of(double, batch_size=2) as embedder:
        searcher = HybridSearcher(
            "docs", client=client, embedder=embedder, sparse=None, reranker=None
        )
        assert searcher.add(texts) == 3
        found = searcher.search_batch(texts)

        async def search():
            async with AsyncHybridSearcher(
                "docs", client=client, embedder=embedder, sparse=None, reranker=None
            ) as other:
                return await asyncio.gather(*map(other.search, texts))

        awaited = asyncio.run(search())
    for text, one, other in zip(texts, found, awaited, strict=True):
        assert one[0].payload["text"] == other[0].payload["text"] == text
    names = client.get_collection("docs").config.metadata
    assert names["qdrant_rerank_embedder"] == "tiny"


def test_a_transient_failure_is_tried_again():
    """429 with Retry-After, 503, and a connection that breaks."""
    double = Double(faults=[error(429, Retry_After="0"), error(503), broken_off])
    with embedder_of(double, retries=3) as embedder:
        np.testing.assert_array_equal(embedder.embed_query("iron"), vector_of("iron"))
    assert len(double.requests) == 4


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (error(401, "invalid_api_key", f"Wrong key {KEY}."), ModelRequestError, "Check api_key"),
        (
            error(404, "model_not_found", "No such model"),
            ModelRequestError,
            "Check model, and base_",
        ),
        (error(429, "rate_limit_exceeded"), ModelRequestError, "asked too often"),
        (error(429, "insufficient_quota", "Pay"), ModelRequestError, "no quota left"),
        (error(400, "", "Too long. The most: 9."), ModelRequestError, "The most: 9. If.*batch_si"),
        (error(500, "", "oops"), ModelConnectionError, "answered 500: oops"),
        (answer(200, b"<html>Welcome</html>"), ModelConnectionError, "its embeddings call"),
        (answer(302, b"", Location="http://127.0.0.1/x"), ModelConnectionError, "redirects"),
        (broken_off, ModelConnectionError, "cannot be reached"),
    ],
)
def test_refusals_are_told_without_the_key(fault, kind, said):
    """Each with what to do; the key is in no message."""
    with embedder_of(Double(faults=[fault])) as embedder, pytest.raises(kind, match=said) as seen:
        embedder.embed_query("iron")
    assert KEY not in str(seen.value)
    assert KEY not in repr(embedder)


def test_texts_are_checked_before_anything_is_sent():
    """A number is no text, and a text is no list; a lone surrogate is sent as U+FFFD."""
    double = Double()
    with embedder_of(double) as embedder:
        for texts in ([3], [None], "iron", 3):
            with pytest.raises(InvalidInputError, match="text"):
                embedder.embed_documents(texts)
        with pytest.raises(InvalidInputError, match=r"texts\[0\] is a NoneType; expected a str"):
            embedder.embed_query(None)
        assert double.requests == []
        np.testing.assert_array_equal(embedder.embed_query("a\ud800"), vector_of("a\ufffd"))


def test_no_quota_is_not_asked_for_again():
    """A 429 that no waiting helps ends at once."""
    double = Double(faults=[error(429, "insufficient_quota")] * 5)
    with embedder_of(double, retries=4) as embedder, pytest.raises(ModelRequestError):
        embedder.embed_query("iron")
    assert len(double.requests) == 1


def items(*vectors, index=None):
    """An answer with these vectors."""
    places = range(len(vectors)) if index is None else index
    data = [{"index": i, "embedding": v} for i, v in zip(places, vectors, strict=True)]
    return answer(200, json.dumps({"data": data}).encode())


ONE, TWO = [0.5] * SIZE, [1.0] * SIZE


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (items(ONE), "1 vectors for 2 texts"),
        (items(ONE, ONE, TWO), "3 vectors for 2 texts"),
        (items(ONE, TWO, index=[0, 0]), r"indexes \[0, 0\]"),
        (items(ONE, TWO, index=[1, 2]), r"indexes \[1, 2\]"),
        (items(ONE, TWO, index=["0", "1"]), "indexes"),
        (items(ONE, [float("nan")] * SIZE), "NaN or infinity in the vector of text 1"),
        (items(ONE, [1e60] * SIZE), "NaN or infinity"),
        (items(ONE, [None] * SIZE), "text 1|NaN"),
        (items(ONE, TWO[:-1]), "lengths"),
        (items(ONE, []), "as the vector of text 1"),
        (items(ONE, "no base64!"), "as the vector of text 1"),
        (items(ONE, [ONE]), "as the vector of text 1"),
        (answer(200, b'{"data": {}}'), "expected an object with the list"),
        (answer(200, b"[]"), "expected an object with the list"),
        (answer(200, b'{"data": [1, 2]}'), "expected an object with the list"),
    ],
)
def test_an_answer_that_is_not_one_vector_per_text_is_refused(fault, said):
    """Never a silent wrong order, nor a number that is none."""
    with (
        embedder_of(Double(faults=[fault])) as embedder,
        pytest.raises(ModelOutputError, match=said),
    ):
        embedder.embed_documents(["iron", "bread"])


def test_another_length_is_refused():
    """Than the one that was passed, or that the first vector had."""
    with (
        embedder_of(Double(), dimension=SIZE + 1) as embedder,
        pytest.raises(ModelOutputError, match=rf"\(1, {SIZE}\)"),
    ):
        embedder.embed_query("iron")


@pytest.mark.parametrize("fault", [hanging, dripping])
def test_a_deadline_ends_both_kinds_of_search(client, fault):
    """A server that answers too slowly, from byte to byte too, is not waited for."""
    double = Double()
    with embedder_of(double, timeout_s=60) as embedder:
        searcher = HybridSearcher(
            "docs", client=client, embedder=embedder, sparse=None, reranker=None
        )
        searcher.add(["iron"])
        double.faults += [fault, fault]
        with pytest.raises(QdrantConnectionError, match="encoding the query took all of it"):
            searcher.search("iron", deadline_s=0.5)

        async def search():
            async with AsyncHybridSearcher(
                "docs", client=client, embedder=embedder, sparse=None, reranker=None
            ) as other:
                await other.search("iron", deadline_s=0.5)

        with pytest.raises(QdrantConnectionError, match="encoding the query took all of it"):
            asyncio.run(search())
        double.faults += [fault]
        with pytest.raises((ModelConnectionError, DeadlineError), match="did not answer"):
            OpenAIEmbedder(embedder.url, "tiny", timeout_s=0.3, retries=0).embed_query("iron")


def test_a_cancelled_task_gives_its_request_up():
    """The server sees the connection close."""
    gone = threading.Event()

    def waiting(handler):
        handler.connection.settimeout(60)
        assert handler.connection.recv(1) == b""
        gone.set()

    async def cancel(embedder):
        task = asyncio.create_task(embedder.aembed_query("iron"))
        while not double.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    double = Double(faults=[waiting])
    with embedder_of(double) as embedder:
        asyncio.run(cancel(embedder))
        assert gone.wait(30)


def test_the_key_of_the_environment_goes_to_its_server_alone(monkeypatch):
    """OPENAI_API_KEY is sent to OPENAI_BASE_URL, and to no other address unasked."""
    double = Double()
    with serving(double) as url:
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
        OpenAIEmbedder(f"{url}/v1", "tiny").embed_query("iron")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        OpenAIEmbedder(None, "tiny").embed_query("iron")
        OpenAIEmbedder(f"{url}/v1", "tiny").embed_query("iron")
    assert [key for _, key, _ in double.requests] == ["", KEY, KEY]


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("", "/v1/embeddings"),
        ("/", "/v1/embeddings"),
        ("/v1", "/v1/embeddings"),
        ("/v1/", "/v1/embeddings"),
        ("/api/embeddings", "/api/embeddings"),
        ("/x?api-version=1", "/x/embeddings?api-version=1"),
    ],
)
def test_the_address_of_the_call(base_url, path):
    """The base is completed, and its parameters stay."""
    double = Double()
    with serving(double) as url:
        OpenAIEmbedder(f"{url}{base_url}", "tiny").embed_query("iron")
    assert double.requests[0][0] == path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("http://localhost/v1", ""), "model"),
        (("http://localhost/v1", None), "model"),
        (("localhost:8000", "m"), "url is"),
        ((7, "m"), "url is"),
        (("http://localhost/v1", "m", "a key"), "white space"),
        (("http://localhost/v1", "m", 7), "api_key"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    """By the constructor, before anything is sent."""
    with pytest.raises(InvalidInputError, match=said):
        OpenAIEmbedder(*arguments)


@pytest.mark.parametrize(
    "options",
    [
        {"dimension": 0},
        {"batch_size": 0},
        {"batch_characters": 0},
        {"concurrency": 0},
        {"encoding": "int8"},
        {"shorten": True},
        {"query_prompt": None},
        {"timeout_s": 0},
        {"retries": -1},
        {"headers": {"x": "a\nb"}},
        {"headers": [("x", "y")]},
        {"parameters": 5},
        {"parameters": {"user": object()}},
        {"parameters": {"input": ["a"]}},
    ],
)
def test_wrong_options_are_refused(options):
    """As the positional arguments are."""
    with pytest.raises(InvalidInputError):
        OpenAIEmbedder("http://localhost/v1", "m", **options)


def test_the_double_answers_openais_own_client():
    """The server that these tests trust is one that the real client reads the same vectors from."""
    openai = pytest.importorskip("openai", reason="openai is not installed: make adapters")
    double = Double(order=lambda count: reversed(range(count)))
    with serving(double) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
        made = client.embeddings.create(model="tiny", input=["iron", "bread"])
        with embedder_of(double) as embedder:
            own = embedder.embed_documents(["iron", "bread"])
    by_index = sorted(made.data, key=lambda item: item.index)
    np.testing.assert_allclose([item.embedding for item in by_index], own, atol=1e-6)
    paths = {path for path, _, _ in double.requests}
    assert paths == {"/v1/embeddings"}
