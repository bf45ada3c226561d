"""Searches over HTTP, the page to try them, and the description of all calls."""

import html.parser
import json
import math
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from qdrant_rerank import CollectionSettings, HybridSearcher
from qdrant_rerank.cross_encoder import loader
from qdrant_rerank.qdrant.transport.client import connect
from tests.faults import free_port
from tests.serving import served

TEXTS = ["Bread is baked in an oven.", "Iron melts at 1538 C.", "Copper melts at 1085 C."]
QUERY = "melting point of iron"


# In a thread of the client, which may outlive the test that made it.
pytestmark = pytest.mark.filterwarnings("ignore:Failed to obtain server version")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The directory of an embedded Qdrant with two collections."""
    path = tmp_path_factory.mktemp("qdrant") / "db"
    client = connect(path=str(path))
    documents = [{"text": text, "n": row, "kind": row % 2} for row, text in enumerate(TEXTS)]
    HybridSearcher("docs", client=client).add(documents, progress=False)
    HybridSearcher("others", client=client).add(TEXTS, progress=False)
    client.close()
    return path


@pytest.fixture(scope="module")
def url(stored):
    """A server of both."""
    options = {"collections": ["docs", "others"], "path": str(stored), "max_documents": 100}
    with served(**options) as found:
        yield found


def post(url, path, **body):
    return httpx.post(url + path, json=body, timeout=60)


def test_the_hits_are_those_of_the_library(url, stored):
    """With both scores and ranks, and with the trace; the reranker's scores are 0 to 1."""
    found = post(url, "/v1/search", query=QUERY, limit=2).json()
    assert found["collection"] == "docs"
    assert [point["payload"]["text"] for point in found["points"]] == [TEXTS[1], TEXTS[2]]
    first = found["points"][0]
    assert set(first) >= {"id", "rank", "rerank_score", "retrieval_score", "retrieval_rank"}
    assert 0.9 < first["rerank_score"] <= 1
    assert (found["trace"]["pairs"], found["trace"]["status"]) == (3, "reranked")


def test_filter_threshold_payload_and_offset(url):
    """As in HybridSearcher.search; the filter is Qdrant's own JSON."""
    only = {"must": [{"key": "n", "range": {"gte": 2}}]}
    found = post(url, "/v1/search", query=QUERY, filter=only, with_payload=["n"]).json()
    assert [point["payload"] for point in found["points"]] == [{"n": 2}]
    assert post(url, "/v1/search", query=QUERY, score_threshold=0.9).json()["points"][1:] == []
    [second] = post(url, "/v1/search", query=QUERY, limit=1, offset=1).json()["points"]
    assert second["payload"]["text"] == TEXTS[2]


def test_groups(url):
    """By a field of the payload."""
    found = post(url, "/v1/search/groups", query=QUERY, group_by="kind", group_size=1).json()
    assert [group["id"] for group in found["groups"]] == [1, 0]
    assert found["trace"]["status"] == "reranked"


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"query": QUERY, "collection": "other"}, 404, "expected one of 'docs', 'others'"),
        ({"query": QUERY, "limit": 0}, 422, "limit"),
        ({"query": QUERY, "limit": 101}, 422, "takes 100 per request"),
        ({"query": QUERY, "candidates": 5, "limit": 6}, 422, "candidates"),
        ({"query": QUERY, "filter": {"musst": []}}, 422, "filter"),
        ({"query": QUERY, "filter": {"must": [{"key": "n", "range": {"gte": "x"}}]}}, 422, "n"),
        ({"query": QUERY, "limit": "3"}, 422, "limit: Input should be a valid integer"),
        ({"query": ""}, 422, "query"),
        ({}, 422, "query: Field required"),
    ],
)
def test_what_cannot_be_searched(url, body, status, expected):
    """The message says what was expected."""
    found = post(url, "/v1/search", **body)
    assert found.status_code == status
    assert expected in found.json()["message"]


@pytest.fixture(scope="module")
def with_states(tmp_path_factory):
    """The directory of an embedded Qdrant whose documents have stored states, but for one."""
    path = tmp_path_factory.mktemp("states") / "db"
    client = connect(path=str(path))
    documents = [f"{TEXTS[row % 3]} Note {row} is filed." for row in range(40)]
    searcher = HybridSearcher("docs", client=client)
    searcher.add(documents, ids=range(40), settings=CollectionSettings(document_states="int8"))
    client.set_payload("docs", {"text": "Iron turns liquid at 1538 C."}, points=[7])
    found = searcher.search(QUERY, limit=40)
    client.close()
    return path, {hit.id: 1 / (1 + math.exp(-hit.rerank_score)) for hit in found}


def test_stored_states_are_used_in_turn(with_states):
    """With the library's scores, also by several clients at once; a changed text is read."""
    path, expected = with_states
    with served(collections=["docs"], path=str(path)) as url:

        def search(_):
            return post(url, "/v1/search", query=QUERY, limit=40, with_payload=["text"]).json()

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(search, range(4)))
        groups = post(url, "/v1/search/groups", query=QUERY, group_by="text").json()
        reranked = post(url, "/v1/rerank", query=QUERY, documents=TEXTS).json()
    for found in answers:
        assert (found["trace"]["documents_stored"], found["trace"]["documents_read"]) == (39, 1)
        scores = {point["id"]: point["rerank_score"] for point in found["points"]}
        assert scores == pytest.approx(expected, abs=1e-6)
        assert all(set(point["payload"]) == {"text"} for point in found["points"])
    assert groups["trace"]["documents_stored"] == 39
    assert [one["index"] for one in reranked["results"]] == [1, 2, 0]


def test_a_server_that_only_searches_holds_the_weights_once(with_states):
    """The two parts, and not the whole model beside them, until texts are to be scored."""
    path, _ = with_states
    others = set(loader._loaders)
    with served(collections=["docs"], path=str(path)) as url:
        assert post(url, "/v1/search", query=QUERY).json()["trace"]["documents_stored"] == 39
        httpx.get(url + "/info").raise_for_status()
        [own] = set(loader._loaders) - others
        assert own.loaded_states is not None
        assert own.loaded_scorer is None
        reranked = post(url, "/v1/rerank", query=QUERY, documents=TEXTS).json()
        assert [one["index"] for one in reranked["results"]] == [1, 2, 0]
        assert own.loaded_scorer is not None


def test_stored_states_keep_a_deadline(with_states):
    """A search that is late is a 504, and the next one is answered."""
    path, _ = with_states
    with served(collections=["docs"], path=str(path)) as url:
        late = httpx.post(
            url + "/v1/search",
            json={"query": QUERY},
            headers={"X-Request-Timeout": "0.001"},
            timeout=60,
        )
        assert (late.status_code, late.json()["error_type"]) == (504, "Timeout")
        assert post(url, "/v1/search", query=QUERY).json()["trace"]["documents_stored"] == 39


def test_a_deadline_that_passes_is_a_504(tiny_bert):
    """Before the search, and while Qdrant does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with served(models=[str(tiny_bert)], collections=["docs"], url=place) as url:
            for path in ("/v1/search", "/v1/search/groups"):
                for seconds in ("1e-9", "0.5"):
                    late = httpx.post(
                        url + path,
                        json={"query": QUERY, "group_by": "kind"},
                        headers={"X-Request-Timeout": seconds},
                        timeout=60,
                    )
                    assert (late.status_code, late.json()["error_type"]) == (504, "Timeout")


def test_without_a_collection_nothing_is_searched(tiny_bert):
    """The message says how to name one."""
    with served(models=[str(tiny_bert)]) as url:
        found = post(url, "/v1/search", query=QUERY)
    assert (found.status_code, "--collection NAME" in found.text) == (404, True)


def test_a_low_limit_of_documents_lowers_the_candidates(stored):
    """A search that names no number of candidates is not refused."""
    with served(collections=["docs"], path=str(stored), max_documents=2) as url:
        found = post(url, "/v1/search", query=QUERY, limit=1)
        assert (found.status_code, found.json()["trace"]["pairs"]) == (200, 2)
        assert post(url, "/v1/search", query=QUERY, limit=1, candidates=3).status_code == 422


def test_not_ready_without_qdrant(tiny_bert):
    """The process lives, and reranks; searches are a 502; /ready tells no name and no address."""
    place = f"http://127.0.0.1:{free_port()}"
    with served(models=[str(tiny_bert)], collections=["docs"], url=place) as url:
        assert httpx.get(url + "/health").status_code == 200
        ready = httpx.get(url + "/ready", timeout=60)
        assert ready.status_code == 503
        assert "docs" not in ready.text
        assert place not in ready.text
        found = post(url, "/v1/search", query=QUERY)
        assert (found.status_code, place in found.text) == (502, False)
        assert post(url, "/rerank", query="q", texts=["a"]).status_code == 200


def test_a_collection_that_qdrant_does_not_have(stored):
    """A 404 without Qdrant's address and without the names of collections that are not served."""
    with served(collections=["gone"], path=str(stored)) as url:
        found = post(url, "/v1/search", query=QUERY)
    assert (found.status_code, "Qdrant has none" in found.text) == (404, True)
    assert str(stored) not in found.text
    assert "others" not in found.text


def test_the_page_loads_nothing_and_names_nothing(url):
    """Its policy allows its own script and style alone, and requests to its server."""
    assert httpx.get(url + "/info").json()["collections"] == ["docs", "others"]
    answer = httpx.get(url)
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'")
    assert "unsafe" not in policy
    assert answer.text.count("</script>") == 1
    assert "docs" not in answer.text.replace("/docs", "")
    assert not re.search(r"(?:src|href)=|innerHTML|insertAdjacent|https?://", answer.text)
    Balanced().feed(answer.text)


class Balanced(html.parser.HTMLParser):
    """Refuses a page whose elements are not closed in order."""

    VOID = frozenset({"meta", "input", "br", "link"})

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_call_is_described(url):
    """The description and the routes name the same calls; references lead somewhere."""
    described = httpx.get(url + "/openapi.json").json()
    for path, methods in described["paths"].items():
        for method in methods:
            answer = httpx.request(method, url + path, timeout=60)
            assert answer.status_code not in {404, 405}, path
            assert str(answer.status_code) in methods[method]["responses"], path
    for path in ("/health", "/ready"):
        assert "401" not in described["paths"][path]["get"]["responses"]
    text = json.dumps(described)
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in described["components"]["schemas"]
    page = httpx.get(url + "/docs").text
    assert all(path in page for path in described["paths"])
    Balanced().feed(page)


def test_calls_and_methods_that_are_none(url):
    """The answer says what there is; the page and InferenceClient share a path."""
    found = httpx.get(url + "/nowhere")
    assert (found.status_code, found.json()["error_type"]) == (404, "NotFound")
    assert "GET /docs" in found.json()["message"]
    for method, path, allowed in (
        ("PUT", "/", "GET, HEAD, POST"),
        ("GET", "/rerank", "POST"),
        ("DELETE", "/health", "GET, HEAD"),
    ):
        found = httpx.request(method, url + path)
        assert (found.status_code, found.headers["Allow"]) == (405, allowed)
        assert f"{method}; expected {allowed}" in found.json()["message"]


@pytest.mark.parametrize("path", ["/v1/search", "/v1/search/groups"])
def test_what_qdrant_refuses_is_the_clients_to_mend(stored, path):
    """A 422 with Qdrant's own words, and without its address."""
    with served(collections=["docs"], path=str(stored)) as url:
        wrong = {"key": "text", "geo_radius": {"center": {"lon": 999, "lat": 0}, "radius": -1}}
        for condition in (
            wrong,
            {"key": "n[[", "match": {"value": 1}},
            {"key": "n", "values_count": {"gt": -1}},
            {"has_id": ["x"]},
        ):
            found = post(url, path, query=QUERY, group_by="kind", filter={"must": [condition]})
            assert found.status_code == 422, found.text
            assert found.json()["message"].startswith("Qdrant refused the search: ")
            assert str(stored) not in found.text
