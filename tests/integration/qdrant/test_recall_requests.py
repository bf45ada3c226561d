"""What recall asks a server for: the bodies of its requests, read at a socket."""

import asyncio
import json
import re
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    AsyncHybridSearcher,
    HybridSearcher,
    QdrantInference,
    SearchOptions,
    StaticEmbedder,
    TextIndex,
)
from qdrant_rerank.errors import InvalidInputError, QdrantRequestError, SchemaMismatchError
from tests.fault_server import answer, serving
from tests.releases import CLIENT, needs_client

QUERY = "melting iron"
ONE = "00000000-0000-0000-0000-000000000001"
DENSE = StaticEmbedder.bundled().embed_query(QUERY).tolist()
VECTORS = {
    "title": {"size": 256, "distance": "Cosine"},
    "body": {"size": 256, "distance": "Cosine"},
    "colbert": {
        "size": 4,
        "distance": "Cosine",
        "multivector_config": {"comparator": "max_sim"},
    },
}
ONLY = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchValue(value=1))])
ONLY_JSON = {"must": [{"key": "n", "match": {"value": 1}}]}


class Qdrant:
    """Answers as a server with three points does, and keeps what it was asked."""

    def __init__(self, *, version="1.20.0", vectors=None, sparse=("bm25",), indexes=None, big=0):
        self.version = version
        self.vectors = vectors or {"dense": {"size": 256, "distance": "Cosine"}}
        self.sparse = {name: {"modifier": "idf"} for name in sparse}
        self.indexes = indexes or {}
        self.big = "x" * big
        self.asked = []

    def __call__(self, handler):
        body = json.loads(handler.body or b"null")
        path = handler.path.partition("?")[0]
        if handler.command == "GET" and path == "/":
            answer(200, json.dumps({"title": "qdrant", "version": self.version}).encode())(handler)
            return
        if handler.command == "GET":
            self.answer(handler, self.collection())
            return
        self.asked.append((handler.path, body))
        if path.endswith("/points/query"):
            self.answer(handler, {"points": self.points(body)})
        elif path.endswith("/points/query/batch"):
            self.answer(handler, [{"points": self.points(one)} for one in body["searches"]])
        else:
            self.answer(handler, [self.record(point, body) for point in body["ids"]])

    @staticmethod
    def answer(handler, result):
        answer(200, json.dumps({"result": result, "status": "ok", "time": 0.0}).encode())(handler)

    def collection(self):
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "config": {
                "params": {"vectors": self.vectors, "sparse_vectors": self.sparse},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
            },
            "payload_schema": self.indexes,
        }

    def record(self, point, body):
        payload = {"text": f"point {point}", "n": point, "big": self.big, "doc": "a"}
        fields = body.get("with_payload")
        if isinstance(fields, list):
            payload = {name: value for name, value in payload.items() if name in fields}
        vectors = body.get("with_vector")
        shown = {name: [0.1] * 256 for name in vectors} if isinstance(vectors, list) else None
        return {"id": point, "payload": payload if fields else None, "vector": shown}

    def points(self, body):
        found = [
            {"version": 0, "score": 1 / place, **self.record(place, body)} for place in (1, 2, 3)
        ]
        return found[: body["limit"]]

    @property
    def queries(self):
        """Bodies of the queries, in order."""
        return [body for path, body in self.asked if "/query" in path]


def bodies(server, *calls, client_options=None, **given):
    """What a searcher with these arguments asks for in these searches."""
    with serving(server) as url:
        client = QdrantClient(url=url, check_compatibility=False, **(client_options or {}))
        given.setdefault("reranker", None)
        searcher = HybridSearcher("docs", client=client, **given)
        for call in calls:
            searcher.search(QUERY, **call)
        client.close()
    return server.queries


def test_a_search_without_options_asks_as_ever():
    """Dense and BM25 fused in one request, and nothing else; no version is asked for."""
    server = Qdrant()
    [body] = bodies(server, {"limit": 2, "candidates": 5})
    assert len(body["prefetch"][1]["query"]["indices"]) == 2
    assert body == {
        "prefetch": [
            {"query": DENSE, "using": "dense", "limit": 5},
            {"query": body["prefetch"][1]["query"], "using": "bm25", "limit": 5},
        ],
        "query": {"fusion": "rrf"},
        "limit": 2,
        "with_vector": False,
        "with_payload": True,
    }
    assert [path for path, _ in server.asked] == ["/collections/docs/points/query"]


def test_a_dense_search_without_options_asks_as_ever():
    """One query, without prefetches."""
    [body] = bodies(Qdrant(sparse=()), {"query_filter": ONLY})
    assert body == {
        "query": {"nearest": DENSE},
        "using": "dense",
        "filter": ONLY_JSON,
        "limit": 10,
        "with_vector": False,
        "with_payload": True,
    }


@needs_client(1, 17)
def test_several_named_vectors_are_fused_each_with_its_count_and_weight():
    """Dense ones first; filters and parameters where they belong."""
    options = SearchOptions(
        dense_vector=["title", "body"],
        sparse_vector=["bm25"],
        fusion=models.Rrf(k=60, weights=[3.0, 1.0, 2.0]),
        dense_candidates=7,
        sparse_candidates=9,
        recall_threshold=0.1,
        search_params=models.SearchParams(
            hnsw_ef=64, quantization=models.QuantizationSearchParams(rescore=True)
        ),
        consistency="majority",
    )
    server = Qdrant(vectors=VECTORS)
    [body] = bodies(
        server,
        {
            "options": options,
            "query_filter": ONLY,
            "candidates": 30,
            "shard_key_selector": ["a", "b"],
        },
    )
    title, dense, sparse = body["prefetch"]
    assert (title["using"], dense["using"], sparse["using"]) == ("title", "body", "bm25")
    assert [branch["limit"] for branch in body["prefetch"]] == [7, 7, 9]
    assert all(branch["filter"] == ONLY_JSON for branch in body["prefetch"])
    assert title["params"]["hnsw_ef"] == dense["params"]["hnsw_ef"] == 64
    assert title["params"]["quantization"]["rescore"] is True
    assert "params" not in sparse
    assert body["query"] == {"rrf": {"k": 60, "weights": [3.0, 1.0, 2.0]}}
    assert body["score_threshold"] == 0.1
    assert body["shard_key"] == ["a", "b"]
    assert "consistency=majority" in server.asked[0][0]


@needs_client(1, 17)
def test_the_weight_of_a_branch_without_terms_goes_with_it():
    """A query of stop words has no sparse vector."""
    options = SearchOptions(
        dense_vector=["title", "body"], fusion=models.Rrf(weights=[3.0, 1.0, 2.0])
    )
    server = Qdrant(vectors=VECTORS)
    with serving(server) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        HybridSearcher("docs", client=client, reranker=None, options=options).search("the of and")
    [body] = server.queries
    assert [branch["using"] for branch in body["prefetch"]] == ["title", "body"]
    assert body["query"] == {"rrf": {"weights": [3.0, 1.0]}}


@needs_client(1, 17)
def test_weights_that_fit_no_branches_are_named():
    """Before anything is asked of the collection's points."""
    server = Qdrant()
    options = SearchOptions(fusion=models.Rrf(weights=[1.0]))
    with pytest.raises(InvalidInputError, match=r"1 weights; .* dense 'dense', sparse 'bm25'"):
        bodies(server, {"options": options})
    assert server.asked == []


@pytest.mark.parametrize(
    ("recall", "query", "using"),
    [
        (DENSE, {"nearest": DENSE}, "dense"),
        ([[0.5, 0.0, 0.0, 0.5]], {"nearest": [[0.5, 0.0, 0.0, 0.5]]}, "colbert"),
        (
            models.SparseVector(indices=[3], values=[1.0]),
            {"nearest": {"indices": [3], "values": [1.0]}},
            "bm25",
        ),
        (
            models.RecommendQuery(recommend=models.RecommendInput(positive=[1], negative=[2])),
            {"recommend": {"positive": [1], "negative": [2]}},
            "dense",
        ),
    ],
)
def test_a_callers_vector_or_query_is_searched_alone(recall, query, using):
    """With the filter, the shards and the place to look ids up in."""
    vectors = {"dense": VECTORS["body"], "colbert": VECTORS["colbert"]}
    lookup = models.LookupLocation(collection="others", vector="v")
    [body] = bodies(
        Qdrant(vectors=vectors),
        {"recall": recall, "query_filter": ONLY, "lookup_from": lookup, "shard_key_selector": "s"},
    )
    assert body == {
        "query": query,
        "using": using,
        "filter": ONLY_JSON,
        "lookup_from": {"collection": "others", "vector": "v"},
        "shard_key": "s",
        "limit": 10,
        "with_vector": False,
        "with_payload": True,
    }


def test_raw_prefetches_are_fused_or_searched():
    """The filter holds in each of them, beside its own."""
    branches = [
        models.Prefetch(query=DENSE, using="dense", limit=3),
        models.Prefetch(query=[0.1] * 256, using="dense", filter=ONLY),
    ]
    other = models.Filter(must=[models.HasIdCondition(has_id=[1, 2])])
    fused, searched = bodies(
        Qdrant(),
        {"prefetch": branches, "query_filter": other, "options": SearchOptions(fusion="dbsf")},
        {"prefetch": branches[0], "recall": DENSE},
    )
    ids = {"must": [{"has_id": [1, 2]}]}
    assert [branch["filter"] for branch in fused["prefetch"]] == [ids, {"must": [ONLY_JSON, ids]}]
    assert fused["query"] == {"fusion": "dbsf"}
    assert "filter" not in fused
    assert searched["query"] == {"nearest": DENSE}
    assert searched["using"] == "dense"
    assert len(searched["prefetch"]) == 1


def test_a_ready_request_passes_through():
    """But for what comes back with the points; the collection is not even looked at."""
    ready = models.QueryRequest(
        prefetch=models.Prefetch(query=[1.0], using="any"),
        query=models.FormulaQuery(formula="$score"),
        params=models.SearchParams(exact=True),
        score_threshold=0.5,
        offset=2,
    )
    server = Qdrant()
    [body] = bodies(server, {"recall": ready, "limit": 4})
    assert body["query"] == {"formula": "$score"}
    assert body["params"]["exact"] is True
    assert (body["score_threshold"], body["offset"], body["limit"]) == (0.5, 2, 4)
    assert body["with_payload"] is True


@pytest.mark.parametrize(
    "beside",
    [
        {"query_filter": ONLY},
        {"prefetch": models.Prefetch(query=[1.0])},
        {"shard_key_selector": "a"},
        {"lookup_from": models.LookupLocation(collection="c")},
    ],
)
def test_what_a_ready_request_would_ignore_is_refused(beside):
    """Silence would search for something else."""
    with pytest.raises(InvalidInputError, match=f"so {next(iter(beside))} would be ignored"):
        bodies(Qdrant(), {"recall": models.QueryRequest(query=[1.0]), **beside})


@pytest.mark.parametrize(
    "recall",
    ["a text", 7, UUID(ONE), [], [[]], [float("nan")], [[[1.0]]], ["a"], object(), {"a": 1}],
)
def test_what_is_no_vector_and_no_query_is_refused(recall):
    """With what it may be."""
    with pytest.raises(InvalidInputError, match=r"recall is .*expected a vector"):
        bodies(Qdrant(), {"recall": recall})


def bounded(number):
    """A filter whose last condition has a bound."""
    return models.Filter(
        should=[
            models.FieldCondition(key="n", match=models.MatchValue(value=1)),
            models.Filter(
                must=[models.FieldCondition(key="n", range=models.Range(gt=1, lt=number))]
            ),
        ]
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("name", "made", "place"),
    [
        ("query_filter", bounded, "should.must.range.lt"),
        (
            "query_filter",
            lambda n: {"must": [{"key": "n", "range": {"lt": n}}]},
            "must.range.lt",
        ),
        (
            "query_filter",
            lambda n: {"must": [{"key": "n", "range": {"lt": np.float32(n)}}]},
            "must.range.lt",
        ),
        (
            "prefetch",
            lambda n: [models.Prefetch(query=[1.0], filter=bounded(n))],
            "filter.should.must.range.lt",
        ),
        (
            "recall",
            lambda n: models.QueryRequest(query=[1.0], score_threshold=n),
            "score_threshold",
        ),
        (
            "recall",
            lambda n: models.FormulaQuery(formula=models.SumExpression(sum=["$score", n])),
            "formula.sum",
        ),
        ("recall", lambda n: models.NearestQuery(nearest=[1.0, n]), "nearest"),
    ],
)
def test_numbers_that_a_server_takes_for_none_are_refused(number, name, made, place):
    """They are null in JSON, and a range would then hold for every point."""
    with pytest.raises(InvalidInputError, match=f"{name} holds NaN or infinity in {place}, which"):
        bodies(Qdrant(), {name: made(number)})


def test_a_vector_that_fits_none_or_several_is_named():
    """As an embedder's would be."""
    with pytest.raises(SchemaMismatchError, match="given is of 3, which fits none"):
        bodies(Qdrant(vectors=VECTORS), {"recall": [1.0, 2.0, 3.0]})
    with pytest.raises(SchemaMismatchError, match="given is of 256, which fits 2"):
        bodies(Qdrant(vectors=VECTORS), {"recall": DENSE})


def test_more_like_a_point_asks_for_its_text_and_then_by_its_id(bundled):
    """In the collection that it is of; both vectors are the stored ones."""
    server = Qdrant()
    with serving(server) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=bundled, text="text")
        place = models.LookupLocation(collection="others", shard_key="s")
        results = searcher.search(7, candidates=20, lookup_from=place)
    (path, read), (_, asked) = server.asked
    assert path.startswith("/collections/others/points")
    assert read == {
        "ids": [7],
        "with_payload": ["text"],
        "with_vector": False,
        "shard_key": "s",
    }
    assert [(b["query"], b["using"], b["lookup_from"]) for b in asked["prefetch"]] == [
        (7, "dense", {"collection": "others", "shard_key": "s"}),
        (7, "bm25", {"collection": "others", "shard_key": "s"}),
    ]
    assert results.query == "point 7"
    assert results.trace.pairs == 3


def test_qdrants_own_models_get_the_text():
    """As a Document; the server's BM25 on any server, others in Qdrant Cloud."""
    bm25 = QdrantInference("Qdrant/bm25", options={"language": "german"})
    model = QdrantInference("sentence-transformers/all-minilm-l6-v2")
    [body] = bodies(
        Qdrant(),
        {},
        embedder=model,
        sparse=bm25,
        client_options={"cloud_inference": True},
    )
    dense, sparse = body["prefetch"]
    assert dense["query"] == {"nearest": {"text": QUERY, "model": model.name}}
    assert sparse["query"] == {
        "nearest": {"text": QUERY, "model": "Qdrant/bm25", "options": {"language": "german"}}
    }
    [body] = bodies(Qdrant(), {}, embedder=None, sparse=QdrantInference("qdrant/bm25"))
    assert body["query"]["nearest"]["model"] == "qdrant/bm25"
    with pytest.raises(QdrantRequestError, match="cloud_inference=True"):
        bodies(Qdrant(), {}, embedder=model)


def test_a_text_index_is_searched_by_its_field():
    """Where the collection has one that scores; its vectors are dense alone."""
    scored = {
        "text": {"data_type": "text", "params": {"type": "text", "scoring": True}, "points": 3}
    }
    server = Qdrant(sparse=(), indexes=scored)
    plain, tuned = bodies(server, {}, sparse=TextIndex("text")) + bodies(
        Qdrant(sparse=(), indexes=scored), {}, sparse=TextIndex("text", k=1.5)
    )
    assert plain["prefetch"][1] == {"query": {"text": QUERY}, "using": "text", "limit": 100}
    assert tuned["prefetch"][1]["query"]["text"] == {
        "query": QUERY,
        "scoring": {"bm25": {"k": 1.5}},
    }
    with pytest.raises(SchemaMismatchError, match=r"no text index with scoring on .* 'body'"):
        bodies(Qdrant(sparse=(), indexes=scored), {}, sparse=TextIndex("body"))


@pytest.mark.parametrize(
    ("given", "call", "seen"),
    [
        ({"sparse": TextIndex("text")}, {}, r"lacks ranking by a payload index .* 1\.20\.0"),
        ({"sparse": QdrantInference("Qdrant/bm25")}, {}, r"making vectors from text .* 1\.15\.3"),
        *(
            [
                (
                    {},
                    {"options": SearchOptions(fusion=models.Rrf(weights=[1, 2]))},
                    r"version 1\.15\.1, which lacks Rrf with weights; expected 1\.17\.0 or newer",
                ),
                (
                    {},
                    {
                        "recall": models.QueryRequest(
                            query=models.RelevanceFeedbackQuery(
                                relevance_feedback=models.RelevanceFeedbackInput(
                                    target=1,
                                    feedback=[],
                                    strategy=models.NaiveFeedbackStrategy(
                                        naive=models.NaiveFeedbackStrategyParams(a=1, b=1, c=1)
                                    ),
                                )
                            )
                        )
                    },
                    r"lacks RelevanceFeedbackQuery; expected 1\.17\.0",
                ),
            ]
            if CLIENT >= (1, 17)
            else []
        ),
    ],
)
def test_what_the_server_is_too_old_for_is_said_before_the_query(given, call, seen):
    """With the version that can."""
    server = Qdrant(version="1.15.1")
    with pytest.raises(QdrantRequestError, match=seen):
        bodies(server, call, **given)
    assert server.queries == []


def test_a_server_that_does_not_tell_its_version_decides_itself():
    """A proxy may hide it."""

    class Silent(Qdrant):
        def __call__(self, handler):
            if handler.command == "GET" and handler.path == "/":
                answer(403, b"no")(handler)
            else:
                super().__call__(handler)

    [body] = bodies(Silent(), {"options": SearchOptions(fusion=models.Rrf(k=60))})
    assert body["query"] == {"rrf": {"k": 60}}


def test_texts_come_first_and_payloads_of_the_winners_after_when_that_spares_bytes(bundled):
    """The first answer tells; then 100 candidates are not sent with all they have."""

    class Many(Qdrant):
        def points(self, body):
            return [
                {"version": 0, "score": 1 / place, **self.record(place, body)}
                for place in range(1, body["limit"] + 1)
            ]

    server = Many(big=2000)
    with serving(server) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=bundled)
        whole = searcher.search(QUERY, limit=1, candidates=12)
        later = searcher.search(QUERY, limit=1, candidates=12)
        off = SearchOptions(two_phase=False)
        searcher.search(QUERY, limit=1, candidates=12, options=off)
        searcher.search(QUERY, limit=1, candidates=12, deadline_s=60)
    assert [(p.id, p.payload) for p in later] == [(p.id, p.payload) for p in whole]
    asked = [
        (re.sub(r".*points|\?.*", "", path), body["with_payload"]) for path, body in server.asked
    ]
    assert asked == [
        ("/query", True),
        ("/query", ["text"]),
        ("", True),
        ("/query", True),
        ("/query", True),
    ]
    assert server.asked[2][1]["ids"] == [whole[0].id]


def test_small_payloads_are_sent_at_once(bundled):
    """A second request would cost more than it spares; unless it is asked for."""
    server = Qdrant(big=10)
    with serving(server) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=bundled)
        for _ in range(2):
            searcher.search(QUERY)
        searcher.search(QUERY, options=SearchOptions(two_phase=True, consistency=2))
    assert [body["with_payload"] for _, body in server.asked] == [True, True, ["text"], True]
    assert all("consistency=2" in path for path, _ in server.asked[2:])


def test_groups_and_their_lookups_are_two_requests_more(bundled):
    """Chunks come with the field that groups them; points of another collection by group."""
    server = Qdrant()
    with serving(server) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=bundled, text="text")
        found = searcher.search_groups(
            QUERY, group_by="n", group_size=1, with_payload=["big"], with_lookup="documents"
        )
    assert sorted(group.id for group in found) == [1, 2, 3]
    assert [group.lookup.id for group in found] == [group.id for group in found]
    assert all(group.hits[0].payload == {"big": ""} for group in found)
    (_, recall), (_, fetch), (path, lookup) = server.asked
    assert recall["with_payload"] == ["text", "n"]
    assert fetch["with_payload"] == ["big"]
    assert path.startswith("/collections/documents/points")
    assert lookup["with_payload"] is True


def test_a_batch_shares_its_requests(bundled):
    """One for the texts of points, one for recall, of texts and ids alike."""
    server = Qdrant()
    with serving(server) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=bundled)
        found = searcher.search_batch([QUERY, 2, UUID(ONE)], shard_key_selector="s")
    (_, read), (_, batch) = server.asked
    assert read["ids"] == [2, ONE]
    assert read["shard_key"] == "s"
    assert [search["shard_key"] for search in batch["searches"]] == ["s"] * 3
    assert [results.query for results in found] == [QUERY, "point 2", f"point {ONE}"]


def test_the_event_loop_sends_the_same(bundled):
    """Request for request, of searches with every kind of option."""
    calls = [
        {"query": QUERY, "query_filter": ONLY, "offset": 1},
        {"query": 2},
        {"query": QUERY, "recall": DENSE},
        {"query": QUERY, "options": SearchOptions(diversity=0.5)},
        {"query": QUERY, "with_payload": ["big"], "options": SearchOptions(consistency="all")},
    ]
    sync, awaited = Qdrant(), Qdrant()
    with serving(sync) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=bundled)
        expected = [searcher.search(**call) for call in calls]
        grouped = searcher.search_groups(QUERY, group_by="doc")

    async def main(url):
        client = AsyncQdrantClient(url=url, check_compatibility=False)
        async with AsyncHybridSearcher("docs", client=client, reranker=bundled) as searcher:
            found = [await searcher.search(**call) for call in calls]
            groups = await searcher.search_groups(QUERY, group_by="doc")
        await client.close()
        return found, groups

    with serving(awaited) as url:
        found, groups = asyncio.run(main(url))
    assert awaited.asked == sync.asked
    assert [[(p.id, p.score) for p in r] for r in found] == [
        [(p.id, p.score) for p in r] for r in expected
    ]
    assert [group.id for group in groups] == [group.id for group in grouped] == ["a"]
