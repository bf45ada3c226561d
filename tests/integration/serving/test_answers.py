"""The calls of each API: what is sent, what comes back, and that the scores are the library's."""

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdrant_rerank import DEFAULT_RERANKER, RemoteReranker, TextCrossEncoder
from qdrant_rerank.errors import DeadlineError, ModelRequestError
from tests.serving import served

TEXTS = ["Bread is baked in an oven.", "Iron melts at 1538 C.", "Copper melts at 1085 C."]
QUERY = "melting point of iron"
NAME = DEFAULT_RERANKER


@pytest.fixture(scope="module")
def url():
    """A server of the bundled model, as the command starts it."""
    with served() as found:
        yield found


@pytest.fixture(scope="module")
def expected():
    """(sigmoid, logit) of each text, by the library."""
    scores = TextCrossEncoder(DEFAULT_RERANKER, activation="sigmoid").rerank(QUERY, TEXTS)
    return scores, TextCrossEncoder(DEFAULT_RERANKER).rerank(QUERY, TEXTS)


def post(url, path, body, **headers):
    return httpx.post(url + path, json=body, headers=headers, timeout=60)


def best_first(scores):
    return sorted(range(len(scores)), key=lambda row: -scores[row])


def test_text_embeddings_inference(url, expected):
    """Best first, with the texts and the logits on request."""
    scores, logits = expected
    order = best_first(scores)
    body = {"query": QUERY, "texts": TEXTS}
    found = post(url, "/rerank", body).json()
    assert found == [{"index": row, "score": scores[row]} for row in order]
    more = {"return_text": True, "raw_scores": True, "truncate": True, "other": 7}
    assert post(url, "/rerank", body | more).json() == [
        {"index": row, "score": logits[row], "text": TEXTS[row]} for row in order
    ]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_jina_and_those_that_copy_it(url, expected, path):
    """The documents come back unless they are not wanted; usage counts tokens."""
    scores, logits = expected
    order = best_first(scores)
    body = {"model": NAME.upper(), "query": QUERY, "documents": TEXTS}
    found = post(url, path, body | {"top_n": 2}).json()
    assert found["results"] == [
        {"index": row, "relevance_score": scores[row], "document": {"text": TEXTS[row]}}
        for row in order[:2]
    ]
    assert (found["model"], found["object"]) == (NAME, "rerank")
    count = TextCrossEncoder(DEFAULT_RERANKER).token_count([(QUERY, text) for text in TEXTS])
    assert found["usage"]["total_tokens"] == count
    found = post(url, path, body | {"return_documents": False, "raw_scores": True}).json()
    assert found["results"] == [{"index": row, "relevance_score": logits[row]} for row in order]


def test_infinity_where_its_shape_is_asked_for(url, expected):
    """Documents are texts, and come on request alone."""
    scores, _ = expected
    order = best_first(scores)
    body = {"model": NAME, "query": QUERY, "documents": TEXTS}
    found = post(url, "/infinity/rerank", body).json()
    assert found["results"] == [{"index": row, "relevance_score": scores[row]} for row in order]
    found = post(url, "/infinity/rerank", body | {"return_documents": True, "top_n": 1}).json()
    assert found["results"] == [
        {"index": order[0], "relevance_score": scores[order[0]], "document": TEXTS[order[0]]}
    ]
    assert found["usage"]["total_tokens"] > 0


def test_cohere(url, expected):
    """No documents; ``meta`` is there, which its client reads."""
    scores, _ = expected
    body = {"model": NAME, "query": QUERY, "documents": TEXTS, "top_n": 1}
    found = post(url, "/v2/rerank", body).json()
    best = best_first(scores)[0]
    assert found["results"] == [{"index": best, "relevance_score": scores[best]}]
    assert found["meta"]["api_version"] == {"version": "2"}
    assert isinstance(found["id"], str)


def test_documents_are_cut_to_the_tokens_that_are_asked_for(url):
    """Of each document; shorter ones stay whole, and a longer limit than the model's is none."""
    texts = ["iron hot " * 20, "short"]
    encoder = TextCrossEncoder(DEFAULT_RERANKER, activation="sigmoid")
    for most, cut in ((6, ["iron hot iron hot iron hot", "short"]), (4096, texts)):
        body = {"query": QUERY, "documents": texts, "max_tokens_per_doc": most}
        found = post(url, "/v2/rerank", body).json()["results"]
        scores = {one["index"]: one["relevance_score"] for one in found}
        assert [scores[0], scores[1]] == encoder.rerank(QUERY, cut)


def test_documents_that_are_read_whole_are_cut_on_request(tiny_bert):
    """Also after more tokens than the model reads at once."""
    options = {"max_length": 16, "long_documents": "windows"}
    text = "iron melts hot bread " * 10
    encoder = TextCrossEncoder(tiny_bert, activation="sigmoid", **options)
    opening = encoder.cut([text], 20)
    assert encoder.rerank(QUERY, [text]) != encoder.rerank(QUERY, opening)
    with served(models=[str(tiny_bert)], **options) as url:
        body = {"query": QUERY, "documents": [text], "max_tokens_per_doc": 20}
        [one] = post(url, "/v2/rerank", body).json()["results"]
    assert [one["relevance_score"]] == encoder.rerank(QUERY, opening)


def test_objects_are_documents_too(url, expected):
    """Their field "text", the fields that are named, or all of them, one per line."""
    scores, _ = expected
    objects = [{"text": text, "id": row} for row, text in enumerate(TEXTS)]
    found = post(url, "/v1/rerank", {"query": QUERY, "documents": objects}).json()
    assert {one["index"]: one["relevance_score"] for one in found["results"]} == dict(
        enumerate(scores)
    )
    assert [one["document"] for one in found["results"]] == [
        objects[one["index"]] for one in found["results"]
    ]
    titled = [{"title": "Iron", "text": "It melts.", "year": 1900, "tags": ["x"]}]
    encoder = TextCrossEncoder(DEFAULT_RERANKER, activation="sigmoid")
    for fields, text in (
        (None, "It melts."),
        (["title", "year"], "title: Iron\nyear: 1900"),
        (["absent", "title"], "title: Iron"),
    ):
        body = {"query": QUERY, "documents": titled, "rank_fields": fields}
        [one] = post(url, "/v1/rerank", body).json()["results"]
        assert one["relevance_score"] == encoder.rerank(QUERY, [text])[0]
    body = {"query": QUERY, "documents": [{"title": "Iron", "n": 3, "x": None}]}
    [one] = post(url, "/v1/rerank", body).json()["results"]
    assert one["relevance_score"] == encoder.rerank(QUERY, ["title: Iron\nn: 3"])[0]


def test_score_of_vllm(url, expected):
    """One text with many, or two lists in step, in their order."""
    scores, logits = expected
    found = post(url, "/score", {"text_1": QUERY, "text_2": TEXTS}).json()
    assert [one["score"] for one in found["data"]] == scores
    assert [one["index"] for one in found["data"]] == [0, 1, 2]
    body = {"text_1": [QUERY] * 3, "text_2": TEXTS, "raw_scores": True}
    assert [one["score"] for one in post(url, "/v1/score", body).json()["data"]] == logits
    [one] = post(url, "/score", {"text_1": QUERY, "text_2": TEXTS[0]}).json()["data"]
    assert one["score"] == scores[0]
    refused = post(url, "/score", {"text_1": ["a", "b"], "text_2": ["a"]})
    assert (refused.status_code, "text_1 has 2 texts" in refused.text) == (422, True)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_no_documents_no_results(url, path):
    """As in the library."""
    found = post(url, path, {"query": QUERY, "documents": []}).json()
    assert found["results"] == []
    assert post(url, "/rerank", {"query": QUERY, "texts": []}).json() == []


def test_long_texts_are_cut_unless_that_is_refused(url):
    """The first one is named."""
    body = {"query": QUERY, "texts": ["short", "word " * 600, "word " * 600]}
    assert post(url, "/rerank", body).status_code == 200
    refused = post(url, "/rerank", body | {"truncate": False})
    assert refused.status_code == 413
    assert "2 of the texts are longer" in refused.text
    assert "at index 1: with the query, at most 512 tokens" in refused.text
    assert (
        post(url, "/rerank", {"query": "q", "texts": ["a"], "truncate": False}).status_code == 200
    )
    left = post(url, "/rerank", body | {"truncation_direction": "Left"})
    assert (left.status_code, "expected right" in left.text) == (422, True)


@pytest.mark.parametrize(
    ("api", "model"),
    [
        ("cohere", NAME),
        ("jina", NAME),
        ("tei", None),
        ("vllm", None),
        ("vllm-score", None),
        ("infinity", None),
        ("litellm", NAME),
    ],
)
def test_our_own_client_gets_the_librarys_scores(url, expected, api, model):
    """By every API that the server speaks."""
    with RemoteReranker(url, model, api=api, batch_size=2) as reranker:
        assert reranker.rerank(QUERY, TEXTS) == expected[0]


TEXT = st.text(st.characters(codec="utf-8"), max_size=80)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=TEXT, texts=st.lists(TEXT, min_size=1, max_size=6))
def test_whatever_the_texts_the_scores_are_the_librarys(url, query, texts):
    """To the bit, through JSON and back."""
    encoder = _encoder()
    found = {one["index"]: one["score"] for one in post(
        url, "/rerank", {"query": query, "texts": texts}
    ).json()}  # fmt: skip
    assert [found[row] for row in range(len(texts))] == encoder.rerank(query, texts)


def test_lone_surrogates_are_read_as_the_library_reads_them(url):
    """JSON can escape them, UTF-8 cannot hold them."""
    body = rb'{"query": "iron", "texts": ["a \ud800 b"], "return_text": true}'
    [one] = httpx.post(url + "/rerank", content=body).json()
    assert one["text"] == "a \ud800 b"
    assert [one["score"]] == _encoder().rerank("iron", ["a \ud800 b"])


def test_several_models_by_name(tiny_bert, tiny_xlmr):
    """The first one is the default; others are no one's to load."""
    with served(models=[f"small={tiny_bert}", str(tiny_xlmr)]) as url:
        listed = httpx.get(url + "/v1/models").json()["data"]
        assert [one["id"] for one in listed] == ["small", "tiny-xlmr"]
        for name, path in (("small", tiny_bert), ("tiny-xlmr", tiny_xlmr), ("", tiny_bert)):
            found = RemoteReranker(url, name or None, api="infinity").rerank(QUERY, TEXTS)
            assert found == TextCrossEncoder(path, activation="sigmoid").rerank(QUERY, TEXTS)
        body = {"model": str(tiny_bert), "query": "q", "documents": ["a"]}
        refused = post(url, "/v1/rerank", body)
        assert refused.status_code == 404
        assert refused.json()["message"].endswith(
            "expected one of GET /v1/models, such as 'tiny-xlmr', 'small'."
        )
        with pytest.raises(ModelRequestError, match="404"):
            RemoteReranker(url, "other").rerank(QUERY, TEXTS)


def test_information_and_health(url):
    """What orchestrators, TEI's clients and OpenAI's ask."""
    assert httpx.get(url + "/health").json() == {"status": "ok"}
    assert httpx.get(url + "/ready").json() == {"status": "ready"}
    info = httpx.get(url + "/info").json()
    assert (info["model_id"], info["model_dtype"], info["max_input_length"]) == (NAME, "int8", 512)
    assert info["limits"]["max_documents"] == info["max_client_batch_size"] == 1000
    [model] = httpx.get(url + "/v1/models").json()["data"]
    assert (model["id"], model["object"]) == (NAME, "model")
    assert httpx.get(url + "/nowhere").status_code == 404
    assert httpx.get(url + "/rerank").json()["error_type"] == "Validation"


def test_a_deadline_of_the_client_is_kept(url):
    """A request that may take no time gets a 504, and the library's client tells its user."""
    body = {"query": QUERY, "texts": TEXTS * 100}
    late = post(url, "/rerank", body, **{"X-Request-Timeout": "1e-6"})
    assert (late.status_code, late.json()["error_type"]) == (504, "Timeout")
    for wrong in ("soon", "0", "-1", "nan"):
        assert post(url, "/rerank", body, **{"X-Request-Timeout": wrong}).status_code == 422
    with pytest.raises(DeadlineError):
        RemoteReranker(url, NAME).rerank(QUERY, TEXTS, deadline_s=1e-6)


def test_metrics_count_what_was_done(url):
    """Requests by route and status, pairs, tokens, stages; a path that is made up is no label."""

    def value(name):
        text = httpx.get(url + "/metrics").text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        return float(lines.get("qdrant_rerank_" + name, 0))

    names = [
        'requests_total{route="/rerank",status="200"}',
        "pairs_total",
        'stage_seconds_count{stage="infer"}',
        "batch_fill_count",
    ]
    before = [value(name) for name in names]
    assert post(url, "/rerank", {"query": QUERY, "texts": TEXTS}).status_code == 200
    httpx.get(url + "/made-up/path")
    assert [value(name) - old for name, old in zip(names, before, strict=True)] == [1, 3, 1, 3]
    assert "made-up" not in httpx.get(url + "/metrics").text
    assert [value("waiting_tokens"), value("waiting_requests"), value("body_bytes")] == [0, 0, 0]


_encoders = []


def _encoder():
    if not _encoders:
        _encoders.append(TextCrossEncoder(DEFAULT_RERANKER, activation="sigmoid"))
    return _encoders[0]


@pytest.mark.parametrize(
    "field", [{"raw_scores": 0}, {"top_n": "1"}, {"return_documents": "yes"}, {"model": 1}]
)
def test_values_have_the_types_of_the_description(url, field):
    """0 is not false, and "1" is not 1."""
    body = {"query": "q", "documents": ["a"]} | field
    found = httpx.post(url + "/v1/rerank", json=body)
    assert (found.status_code, next(iter(field)) in found.json()["message"]) == (422, True)
