"""Every kind of recall over the embedded engine, sync and async alike."""

import asyncio
import json
from contextlib import closing
from uuid import UUID, uuid5

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from qdrant_rerank import (
    AsyncHybridSearcher,
    Bm25Encoder,
    HybridSearcher,
    QdrantInference,
    SearchOptions,
    StaticEmbedder,
    TextIndex,
)
from qdrant_rerank.errors import (
    InvalidInputError,
    MissingTextError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from tests.releases import CLIENT, needs_client

DOCUMENTS = [
    ("Iron melts at 1538 degrees Celsius and boils at 2862.", "metals", ["iron", "heat"]),
    ("Blast furnaces turn iron ore into pig iron.", "metals", ["iron"]),
    ("Copper conducts electricity better than iron does.", "metals", ["copper"]),
    ("Sourdough bread rises for a night before it is baked in a hot oven.", "kitchen", []),
    ("To melt chocolate, heat it gently over water.", "kitchen", ["heat"]),
    ("The Danube flows through ten countries to the Black Sea.", None, ["river"]),
]
QUERY = "How hot must it be for iron to melt?"
NAMESPACE = UUID("00000000-0000-0000-0000-00000000000a")
EMBEDDER = StaticEmbedder.bundled()
DENSE = EMBEDDER.embed_query(QUERY)
SPARSE = Bm25Encoder().embed_query(QUERY)


def payloads():
    """With a book, but for the last, and tags."""
    for row, (text, book, tags) in enumerate(DOCUMENTS):
        yield {"text": text, "n": row, "tags": tags} | ({"book": book} if book else {})


@pytest.fixture(scope="module")
def searcher(bundled):
    """Six documents, dense and BM25 vectors, ids 0 to 5; and books, ids of their names."""
    client = QdrantClient(location=":memory:")
    made = HybridSearcher("docs", client=client, reranker=bundled)
    made.add(payloads(), ids=range(len(DOCUMENTS)), progress=False)
    client.create_collection("books", vectors_config={})
    client.upsert("books", [models.PointStruct(id=7, payload={"title": "Seven"}, vector={})])
    yield made
    client.close()


@pytest.fixture
def recall_only(searcher):
    """The same collection without a reranker."""
    return HybridSearcher("docs", client=searcher.client, reranker=None)


def ids(results):
    """In order."""
    return [point.id for point in results]


CALLS = {
    "text": {},
    "id": {"query": 0},
    "offset": {"offset": 2, "limit": 2},
    "vector": {"recall": DENSE},
    "sparse vector": {"recall": SPARSE},
    "query": {"recall": models.RecommendQuery(recommend=models.RecommendInput(positive=[0]))},
    "prefetch": {"prefetch": [models.Prefetch(query=DENSE.tolist(), using="dense", limit=3)]},
    "prefetch, then a vector": {
        "prefetch": models.Prefetch(query=SPARSE, using="bm25", limit=3),
        "recall": DENSE,
    },
    "request": {"recall": models.QueryRequest(query=DENSE.tolist(), using="dense", limit=4)},
    "filter": {
        "query_filter": models.Filter(
            must=[models.FieldCondition(key="n", range=models.Range(gte=2))]
        )
    },
    "threshold": {"score_threshold": 1.0},
    "recall threshold": {"options": SearchOptions(recall_threshold=0.4)},
    **(
        {"weighted": {"options": SearchOptions(fusion=models.Rrf(k=10, weights=[3.0, 1.0]))}}
        if CLIENT >= (1, 17)
        else {}
    ),
    "dbsf": {"options": SearchOptions(fusion="dbsf", dense_candidates=2, sparse_candidates=3)},
    "exact": {"options": SearchOptions(search_params=models.SearchParams(exact=True))},
    "consistency": {"options": SearchOptions(consistency="majority")},
    "blend": {"options": SearchOptions(blend=0.5)},
    "diversity": {"options": SearchOptions(diversity=0.7)},
    "diversity, and vectors": {"options": SearchOptions(diversity=0.7), "with_vectors": ["bm25"]},
    "two-phase": {"options": SearchOptions(two_phase=True), "limit": 2},
    "selection": {"with_payload": ["n"], "with_vectors": True, "limit": 2},
    "deadline": {"deadline_s": 60, "with_payload": ["n"]},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_event_loop_finds_what_a_thread_finds(searcher, call):
    """Every option: the same hits, scores, payloads and vectors."""
    call = {"query": QUERY} | call
    expected = searcher.search(**call)

    async def main():
        async with AsyncHybridSearcher(
            "docs", client=searcher.client, reranker=searcher.reranker
        ) as same:
            return await same.search(**call)

    found = asyncio.run(main())
    assert expected
    assert found == expected
    assert found.query == expected.query
    assert found.trace.status == expected.trace.status


@pytest.fixture(scope="module")
def real(bundled):
    """The same documents in Qdrant's own engine."""
    pytest.importorskip("qdrant_edge")
    from qdrant_rerank.qdrant.embedded.client import EdgeClient

    client = EdgeClient()
    made = HybridSearcher("docs", client=client, reranker=bundled)
    made.add(payloads(), ids=range(len(DOCUMENTS)), progress=False)
    yield made
    client.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_real_engine_finds_what_local_mode_finds(searcher, real, call):
    """Every option: the same hits by the same scores."""
    call = {"query": QUERY} | call
    expected = {p.id: p.score for p in searcher.search(**call)}
    found = {p.id: p.score for p in real.search(**call)}
    assert found == pytest.approx(expected, abs=1e-5)
    grouped = real.search_groups(QUERY, group_by="book")
    assert [g.id for g in grouped] == ["metals", "kitchen"]


def test_groups_and_batches_in_the_event_loop(searcher):
    """As in a thread."""
    grouped = searcher.search_groups(QUERY, group_by="book", with_lookup="books")
    batch = searcher.search_batch([QUERY, 3], limit=2, offset=1)

    async def main():
        async with AsyncHybridSearcher(
            "docs", client=searcher.client, reranker=searcher.reranker
        ) as same:
            groups = await same.search_groups(QUERY, group_by="book", with_lookup="books")
            return groups, await same.search_batch([QUERY, 3], limit=2, offset=1)

    assert asyncio.run(main()) == (grouped, batch)


# --- more like this


def test_more_like_a_point_leaves_it_out_and_compares_with_its_text(searcher):
    """By number or by UUID; the reranker reads the point's text as the query."""
    found = searcher.search(0)
    assert found.query == DOCUMENTS[0][0]
    assert sorted(ids(found)) == [1, 2, 3, 4, 5]
    by_text = {p.id: p.rerank_score for p in searcher.search(DOCUMENTS[0][0])}
    assert {p.id: p.rerank_score for p in found} == {
        key: score for key, score in by_text.items() if key != 0
    }


def test_more_like_a_point_of_another_collection(searcher, bundled):
    """Its text and vectors are read there, and the same id here may be among the hits."""
    other = HybridSearcher("others", client=searcher.client, reranker=bundled)
    point = uuid5(NAMESPACE, "bread")
    other.add(["How bread is baked."], ids=[point], progress=False)
    place = models.LookupLocation(collection="others")
    found = searcher.search(point, lookup_from=place)
    assert found.query == "How bread is baked."
    assert found[0].id == 3
    assert len(found) == 6
    assert [p.id for p in other.search(point)] == []


def test_points_that_are_no_query_are_named(searcher, recall_only):
    """None of that id, or none with text; without a reranker the text is not needed."""
    with pytest.raises(InvalidInputError, match="id 99, but 'docs' has no such point"):
        searcher.search(99)
    vector = dict.fromkeys(["dense"], DENSE.tolist()) | {"bm25": SPARSE}
    searcher.client.upsert("docs", [models.PointStruct(id=50, payload={"n": 1}, vector=vector)])
    try:
        with pytest.raises(MissingTextError, match=r"Point 50, the query, has no text"):
            searcher.search(50)
        found = recall_only.search(50)
        assert found.query == ""
        assert 50 not in ids(found)
    finally:
        searcher.client.delete("docs", [50])
    with pytest.raises(InvalidInputError, match="Pass the text"):
        searcher.search(1, recall=DENSE)
    with pytest.raises(InvalidInputError, match="query is a bool"):
        searcher.search(True)


# --- what recall searches with


def test_recall_by_the_querys_own_vector_is_dense_recall(searcher, recall_only):
    """And a raw prefetch of both branches is what the searcher sends itself."""
    dense = HybridSearcher("docs", client=searcher.client, reranker=None, sparse=None)
    assert recall_only.search(QUERY, recall=DENSE) == dense.search(QUERY)
    assert recall_only.search(QUERY, recall=DENSE.tolist()) == dense.search(QUERY)
    both = [
        models.Prefetch(query=DENSE.tolist(), using="dense", limit=100),
        models.Prefetch(query=SPARSE, using="bm25", limit=100),
    ]
    assert recall_only.search(QUERY, prefetch=both) == recall_only.search(QUERY)


@needs_client(1, 17)
def test_several_named_vectors_are_searched_and_fused(searcher, bundled):
    """The embedder's vector in each; fused by Qdrant as a plain request is."""
    client = searcher.client
    params = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection("named", vectors_config={"title": params, "body": params})
    titles = ["metals", "iron works", "wires", "baking", "sweets", "rivers"]
    client.upsert(
        "named",
        [
            models.PointStruct(
                id=row,
                payload={"text": text},
                vector={
                    "title": EMBEDDER.embed_query(title).tolist(),
                    "body": EMBEDDER.embed_query(text).tolist(),
                },
            )
            for row, (title, (text, *_)) in enumerate(zip(titles, DOCUMENTS, strict=True))
        ],
    )
    options = SearchOptions(
        dense_vector=["title", "body"], fusion=models.Rrf(k=5, weights=[1.0, 2.0])
    )
    named = HybridSearcher("named", client=client, reranker=None, options=options)
    theirs = client.query_points(
        "named",
        prefetch=[
            models.Prefetch(query=DENSE.tolist(), using=name, limit=100)
            for name in ("title", "body")
        ],
        query=models.RrfQuery(rrf=models.Rrf(k=5, weights=[1.0, 2.0])),
    )
    assert ids(named.search(QUERY)) == ids(theirs.points)
    assert named.is_hybrid()
    with pytest.raises(InvalidInputError, match="Add with a searcher whose options name one"):
        named.add(["a"], progress=False)
    one = SearchOptions(dense_vector="body")
    assert ids(named.search(QUERY, options=one)) != ids(theirs.points)


def test_multivectors_are_searched_row_by_row(searcher):
    """By an embedder of theirs, or by the caller's rows."""

    class Rows:
        name = "rows"
        dimension = 2

        def embed_query(self, text):
            return np.array([[1, 0], [0, 1]], dtype=np.float32)

        def embed_documents(self, texts):
            raise NotImplementedError

    client = searcher.client
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        "multi",
        vectors_config={
            "rows": models.VectorParams(
                size=2, distance=models.Distance.DOT, multivector_config=comparator
            ),
            "flat": models.VectorParams(size=2, distance=models.Distance.DOT),
        },
    )
    vectors = [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0]], [[0.5, 0.0], [0.0, 0.2]]]
    client.upsert(
        "multi",
        [
            models.PointStruct(
                id=row, payload={"text": "a"}, vector={"rows": vector, "flat": [1.0, 0.0]}
            )
            for row, vector in enumerate(vectors)
        ],
    )
    by_name = SearchOptions(dense_vector="rows")
    multi = HybridSearcher("multi", client=client, reranker=None, embedder=Rows())
    found = multi.search("a", options=by_name)
    assert [(p.id, round(p.score, 4)) for p in found] == [(0, 2.0), (1, 1.0), (2, 0.7)]
    rows = multi.search("a", recall=[[1.0, 0.0]])
    assert [(p.id, round(p.score, 4)) for p in rows] == [(0, 1.0), (1, 1.0), (2, 0.5)]
    with pytest.raises(SchemaMismatchError, match=r"shape \(2, 2\).* has vectors of 2"):
        multi.search("a", options=SearchOptions(dense_vector="flat"))


def test_a_collection_of_multivectors_alone_says_how_they_are_searched(searcher):
    """The default embedder makes one vector per text, whatever the size of theirs."""
    client = searcher.client
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    for size in (8, 256):
        params = models.VectorParams(size=size, distance="Cosine", multivector_config=comparator)
        client.create_collection(f"multi {size}", vectors_config={"colbert": params})
        with pytest.raises(SchemaMismatchError) as caught:
            HybridSearcher(f"multi {size}", client=client).search("a")
        assert f"colbert of {size} (multivector)" in str(caught.value)
        assert "reranker=LateInteraction('colbert', ...)" in str(caught.value)


def test_a_text_index_stands_in_for_sparse_vectors(searcher, bundled):
    """Add makes it; a point's id searches by the point's text, without the point."""
    made = HybridSearcher("indexed", client=searcher.client, sparse=TextIndex("text"))
    assert made.add(payloads(), ids=range(6), progress=False) == 6
    assert made.search(QUERY, limit=1)[0].id == 0
    alone = HybridSearcher(
        "indexed", client=searcher.client, embedder=None, sparse=TextIndex("text"), reranker=None
    )
    scores = {p.id: p.score for p in alone.search("iron ore")}
    assert set(scores) == {0, 1, 2}
    assert scores[1] == max(scores.values())
    assert set(ids(alone.search(1))) == {0, 2}
    assert 1 not in ids(made.search(1))
    absent = HybridSearcher("docs", client=searcher.client, sparse=TextIndex("text"))
    with pytest.raises(QdrantRequestError, match="needs a text index with `scoring`"):
        absent.search(QUERY)


def test_the_embedded_engine_runs_no_models(searcher):
    """Said before the query, and before anything is added."""
    served = HybridSearcher(
        "docs", client=searcher.client, embedder=None, sparse=QdrantInference("Qdrant/bm25")
    )
    with pytest.raises(QdrantRequestError, match="embedded engine runs no models"):
        served.search(QUERY)
    with pytest.raises(QdrantRequestError, match="embedded engine runs no models"):
        served.add(["a"], progress=False)
    unknown = HybridSearcher("new", client=searcher.client, embedder=QdrantInference("m"))
    with pytest.raises(InvalidInputError, match="QdrantInference\\(name, dimension"):
        unknown.add(["a"], progress=False)


# --- what comes back


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    offset=st.integers(0, 7),
    limit=st.integers(1, 7),
    options=st.sampled_from(
        [SearchOptions(), SearchOptions(diversity=0.5), SearchOptions(two_phase=True)]
    ),
)
def test_a_page_is_a_slice_of_the_whole_order(searcher, offset, limit, options):
    """Whatever orders it."""
    whole = searcher.search(QUERY, limit=20, options=options)
    page = searcher.search(QUERY, limit=limit, offset=offset, options=options)
    assert page == whole[offset : offset + limit]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_pages_of_recall_alone_are_qdrants(recall_only, size):
    """Qdrant skips; no hit is lost or shown twice, not even of those that score alike."""
    pages = [recall_only.search(QUERY, limit=size, offset=offset) for offset in range(0, 6, size)]
    found = [point for page in pages for point in page]
    assert sorted(ids(found)) == [0, 1, 2, 3, 4, 5]
    assert [p.retrieval_rank for p in found] == [1, 2, 3, 4, 5, 6]
    whole = recall_only.search(QUERY)
    assert [p.score for p in found] == [p.score for p in whole]


def test_thresholds_of_both_stages(searcher):
    """One drops candidates before they are reranked, the other results."""
    every = searcher.search(QUERY)
    scores = sorted((p.retrieval_score for p in every), reverse=True)
    few = searcher.search(QUERY, options=SearchOptions(recall_threshold=scores[2]))
    kept = sum(score >= scores[2] for score in scores)
    assert few.trace.pairs == few.trace.candidates == kept < 6
    assert {p.retrieval_rank for p in few} == set(range(1, kept + 1))
    best = searcher.search(
        QUERY, score_threshold=every[0].score, options=SearchOptions(recall_threshold=scores[2])
    )
    assert ids(best) == ids(every)[:1]


def test_diversity_keeps_the_scores_and_moves_duplicates(searcher, bundled, recall_only):
    """The best stays first; vectors come back only if they are asked for."""
    client = searcher.client
    made = HybridSearcher("twins", client=client, reranker=bundled)
    texts = [DOCUMENTS[0][0], DOCUMENTS[0][0] + " ", DOCUMENTS[1][0], DOCUMENTS[5][0]]
    made.add(texts, ids=range(4), progress=False)
    plain = made.search(QUERY, limit=2)
    diverse = made.search(QUERY, limit=2, options=SearchOptions(diversity=0.6))
    assert set(ids(plain)) == {0, 1}
    assert diverse[0].id == plain[0].id
    assert diverse[1].id not in {0, 1}
    assert all(p.score == p.rerank_score and p.vector is None for p in diverse)
    assert made.search(QUERY, options=SearchOptions(diversity=0)) == made.search(QUERY)
    alone = recall_only.search(QUERY, options=SearchOptions(diversity=1.0), with_payload=["n"])
    assert alone[0].id == recall_only.search(QUERY)[0].id
    assert all(set(p.payload) == {"n"} and p.vector is None for p in alone)


def test_diversity_without_stored_vectors_embeds_the_texts(searcher, bundled):
    """By the embedder; without one it says what it needs."""
    client = searcher.client
    sparse = HybridSearcher("sparse", client=client, reranker=bundled, embedder=None)
    sparse.add(payloads(), ids=range(6), progress=False)
    stored = searcher.search(QUERY, options=SearchOptions(diversity=0.7))
    embedding = HybridSearcher("sparse", client=client, reranker=bundled)
    found = embedding.search(QUERY, options=SearchOptions(diversity=0.7))
    common = [key for key in ids(stored) if key in ids(found)]
    assert sorted(ids(found)) == sorted(common)
    # BM25 finds only some of them; embedded here as stored there, they are as far from each other.
    assert found[0].id == stored[0].id
    with pytest.raises(InvalidInputError, match="there is no embedder"):
        sparse.search(QUERY, options=SearchOptions(diversity=0.7))


# --- groups


def test_groups_are_ordered_by_their_best_chunk(searcher):
    """With both scores, the payload asked for, and at most so many chunks each."""
    groups = searcher.search_groups(QUERY, group_by="book", group_size=2, with_payload=["n"])
    order = [p for p in searcher.search(QUERY) if "book" in p.payload]
    books = list(dict.fromkeys(p.payload["book"] for p in order))
    assert [group.id for group in groups] == books == ["metals", "kitchen"]
    for group in groups:
        best = [p.id for p in order if p.payload["book"] == group.id][:2]
        assert ids(group.hits) == best
        assert all(set(hit.payload) == {"n"} for hit in group.hits)
        assert all(hit.score == hit.rerank_score for hit in group.hits)
    assert groups.query == QUERY
    assert groups.trace.pairs == 6
    assert len(json.dumps([group.model_dump(mode="json") for group in groups])) > 100
    [second] = searcher.search_groups(QUERY, group_by="book", limit=1, offset=1)
    assert second.id == "kitchen"
    with pytest.warns(UserWarning, match="None of the 6 hits has .* group_by='nowhere'"):
        assert searcher.search_groups(QUERY, group_by="nowhere") == []
    timed = searcher.search_groups(
        QUERY, group_by="book", group_size=2, with_payload=["n"], deadline_s=60
    )
    assert timed == groups
    tags = searcher.search_groups(QUERY, group_by="tags", group_size=1)
    assert [group.id for group in tags][:2] == ["iron", "heat"]
    assert tags[0].hits == tags[1].hits


@pytest.mark.parametrize("real", [False, True], ids=["local mode", "the real engine"])
@pytest.mark.parametrize(
    "path", ["parts[].page", "parts[0].page", "parts[]", '"page no"', "flat.x"]
)
def test_groups_and_payloads_are_those_of_one_phase(tiny_bert, path, real):
    """Whatever array or name the group's value is in; the payload that is shown is whole."""
    rows = [
        {"text": "Iron melts.", "parts": [{"page": 1, "by": "a"}, {"by": "b"}], "page no": 4},
        {"text": "Iron boils.", "parts": [{"by": "c"}, {"page": 2}], "flat": [{"x": 1}]},
        {"text": "Iron rusts.", "parts": ["p", "q"], "page no": 5, "flat": {"x": 3}},
    ]
    with closing(EdgeClient() if real else QdrantClient(":memory:")) as client:
        made = HybridSearcher("docs", client=client, reranker=tiny_bert)
        made.add(rows, ids=[1, 2, 3], progress=False)
        one, two = (
            made.search_groups("iron", group_by=path, options=SearchOptions(two_phase=twice))
            for twice in (False, True)
        )
        assert [(group.id, ids(group.hits)) for group in two] == [
            (group.id, ids(group.hits)) for group in one
        ]
        assert one
        for group in two:
            assert all(hit.payload == rows[hit.id - 1] for hit in group.hits)
        hits = client.query_points_groups("docs", path, query=DENSE.tolist(), using="dense").groups
        assert {group.id for group in hits} == {group.id for group in one}


def test_groups_without_a_reranker_are_qdrants(searcher, recall_only):
    """The same groups, hits and order as query_points_groups finds."""
    theirs = searcher.client.query_points_groups(
        "docs", "book", query=DENSE.tolist(), using="dense", group_size=2
    )
    dense = HybridSearcher("docs", client=searcher.client, reranker=None, sparse=None)
    ours = dense.search_groups(QUERY, group_by="book", group_size=2)
    assert [(g.id, ids(g.hits)) for g in ours] == [(g.id, ids(g.hits)) for g in theirs.groups]
    bare = dense.search_groups(QUERY, group_by="book", group_size=2, with_payload=False)
    assert [(g.id, ids(g.hits)) for g in bare] == [(g.id, ids(g.hits)) for g in ours]
    assert all(hit.payload is None for group in bare for hit in group.hits)


def test_groups_are_looked_up_in_another_collection(searcher):
    """As with_lookup does; what is not there, or cannot be an id, is None."""
    client = searcher.client
    lookup = models.WithLookup(collection="books", with_payload=False)
    made = HybridSearcher("chunks", client=client, reranker=searcher.reranker)
    made.add(
        [
            {"text": text, "book": book}
            for (text, *_), book in zip(DOCUMENTS, [7, 8, "x"] * 2, strict=True)
        ],
        ids=range(6),
        progress=False,
    )
    found = {group.id: group.lookup for group in made.search_groups(
        QUERY, group_by="book", with_lookup="books")}  # fmt: skip
    assert (found[7].id, found[7].payload) == (7, {"title": "Seven"})
    assert found[8] is found["x"] is None
    bare = made.search_groups(QUERY, group_by="book", with_lookup=lookup)
    assert {group.id: group.lookup and group.lookup.payload for group in bare}[7] is None


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        ({"group_by": ""}, "group_by is ''"),
        ({"group_by": None}, "group_by is None"),
        ({"group_by": "book["}, r"group_by is 'book\['; expected a payload field, or a path"),
        ({"group_by": "my book"}, "group_by is 'my book'"),
        ({"group_by": "book", "group_size": 0}, "group_size is 0"),
        ({"group_by": "book", "offset": -1}, "offset is -1"),
        ({"group_by": "book", "candidates": 5, "offset": 2, "limit": 4}, r"offset 2 \+ limit 4"),
    ],
)
def test_wrong_groups_are_refused(searcher, call, seen):
    """Before anything is asked."""
    with pytest.raises(InvalidInputError, match=seen):
        searcher.search_groups(QUERY, **call)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"diversity": 1.5}, "diversity is 1.5"),
        ({"diversity": True}, "diversity is True"),
        ({"two_phase": "yes"}, "two_phase is 'yes'"),
        ({"recall_threshold": "0.5"}, "recall_threshold is '0.5'"),
        ({"recall_threshold": float("nan")}, "recall_threshold is nan"),
        ({"dense_candidates": 0}, "dense_candidates is 0"),
        ({"sparse_candidates": 1.5}, "sparse_candidates is 1.5"),
        ({"dense_vector": []}, "dense_vector is"),
        ({"dense_vector": ["a", "a"]}, "each name once"),
        ({"sparse_vector": 3}, "sparse_vector is 3"),
        ({"fusion": models.Rrf(k=0)}, "the k of Rrf is 0"),
        *(
            [({"fusion": models.Rrf(weights=[1.0, -1.0])}, "A weight of Rrf is -1.0")]
            if CLIENT >= (1, 17)
            else []
        ),
    ],
)
def test_wrong_options_are_named(searcher, options, seen):
    """When the searcher is made, and at the call."""
    with pytest.raises(InvalidInputError, match=seen):
        HybridSearcher("docs", client=searcher.client, options=SearchOptions(**options))
    with pytest.raises(InvalidInputError, match=seen):
        searcher.search(QUERY, options=SearchOptions(**options))
