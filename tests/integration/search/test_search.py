"""HybridSearcher over the embedded engine, with the bundled models."""

import asyncio
import copy
import dataclasses
import pickle
import threading
from contextlib import closing
from functools import partial

import numpy as np
import pytest
from fastembed import SparseTextEmbedding, TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder as FastembedCrossEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.models import QueryResponse

from qdrant_rerank import (
    AsyncHybridSearcher,
    Bm25Encoder,
    Cascade,
    HybridSearcher,
    OnnxEmbedder,
    RerankedPoint,
    SearchOptions,
    StaticEmbedder,
    rerank_points,
)
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    MissingTextError,
    MissingTextWarning,
    ModelOutputError,
    SchemaMismatchError,
)
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from qdrant_rerank.types import UNSCORED

DOCUMENTS = [
    "Sourdough bread rises for a night before it is baked in a hot oven.",
    "Iron melts at 1538 degrees Celsius and boils at 2862.",
    "The Danube flows through ten countries to the Black Sea.",
    "A melting ice cream is a summer's small tragedy.",
    "Blast furnaces turn iron ore into pig iron.",
    "Copper conducts electricity better than iron does.",
    "To melt chocolate, heat it gently over water.",
    "Penguins keep warm by huddling together.",
]
QUERY = "How hot must it be for iron to melt?"
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).filter(str.strip),
    min_size=1,
    max_size=8,
    unique=True,
)
RELAXED = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def searcher():
    """Eight documents, dense and BM25 vectors."""
    with QdrantClientInMemory() as client:
        made = HybridSearcher("docs", client=client)
        assert made.add(DOCUMENTS, progress=False) == len(DOCUMENTS)
        yield made


class QdrantClientInMemory(QdrantClient):
    """Closed at the end of a with block."""

    def __init__(self):
        super().__init__(location=":memory:")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def texts_of(results):
    """The documents in the order of the results."""
    return [point.payload["text"] for point in results]


def test_the_right_passage_comes_first_with_both_scores(searcher):
    """The main job."""
    results = searcher.search(QUERY, limit=3)
    assert texts_of(results)[0] == DOCUMENTS[1]
    assert all(isinstance(p, RerankedPoint) and isinstance(p, models.ScoredPoint) for p in results)
    assert [p.score for p in results] == sorted((p.score for p in results), reverse=True)
    assert all(p.score == p.rerank_score for p in results)
    assert results.query == QUERY
    trace = results.trace
    assert (trace.candidates, trace.pairs, trace.status) == (8, 8, "reranked")
    assert 0 < trace.embed_s + trace.recall_s + trace.tokenize_s + trace.infer_s <= trace.total_s
    assert trace.tokens > 8 * 3
    assert trace.padding_share == 0.0  # int8 runs hold one pair


def test_retrieval_scores_and_ranks_are_those_of_the_query_api(searcher):
    """What recall returned can be read from every hit."""
    reranked = searcher.search(QUERY, limit=8)
    plain = HybridSearcher("docs", client=searcher.client, reranker=None).search(QUERY, limit=8)
    assert plain.trace.status == "recall only"
    assert {p.id: (p.retrieval_rank, p.retrieval_score) for p in reranked} == {
        p.id: (rank, p.score) for rank, p in enumerate(plain, start=1)
    }
    assert all(p.rerank_score is None for p in plain)


def test_rerank_points_alone_gives_the_same_order(searcher):
    """The second stage for hits of any query of any client."""
    hits = HybridSearcher("docs", client=searcher.client, reranker=None).search(QUERY, limit=8)
    points = [
        models.ScoredPoint(**p.model_dump(include=set(models.ScoredPoint.model_fields)))
        for p in hits
    ]
    alone = rerank_points(QUERY, points)
    together = searcher.search(QUERY, limit=8)
    assert [(p.id, p.score) for p in alone] == [(p.id, p.score) for p in together]
    response = QueryResponse(points=points)
    assert [p.id for p in rerank_points(QUERY, response, limit=2)] == [p.id for p in alone[:2]]
    assert rerank_points(QUERY, []).trace.status == "no candidates"


def test_a_batch_returns_what_single_searches_return(searcher):
    """One request, one pool of pairs, the same scores."""
    queries = [QUERY, "birds in the cold", "what does a river do"]
    batch = searcher.search_batch(queries, limit=4)
    single = [searcher.search(query, limit=4) for query in queries]
    assert [[(p.id, p.score) for p in r] for r in batch] == [
        [(p.id, p.score) for p in r] for r in single
    ]
    assert [r.query for r in batch] == queries
    assert searcher.search_batch([]) == []


def test_many_threads_get_what_one_gets(searcher):
    """Searching is safe from any thread, local mode included."""
    expected = [(p.id, p.score) for p in searcher.search(QUERY)]
    seen = []
    threads = [
        threading.Thread(
            target=lambda: seen.append([(p.id, p.score) for p in searcher.search(QUERY)])
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 8


def test_filters_apply_to_every_branch(client, bundled):
    """A filtered search never returns a point outside the filter."""
    searcher = HybridSearcher("docs", client=client, reranker=bundled)
    searcher.add([{"text": t, "n": i} for i, t in enumerate(DOCUMENTS)], progress=False)
    only = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=4))])
    found = searcher.search(QUERY, query_filter=only)
    assert sorted(p.payload["n"] for p in found) == [4, 5, 6, 7]


def test_fewer_hits_no_hits_and_an_empty_collection_are_normal(searcher, client):
    """No special case for the caller."""
    assert len(searcher.search(QUERY, limit=1000)) == 8
    nothing = models.Filter(must=[models.HasIdCondition(has_id=[])])
    assert searcher.search(QUERY, query_filter=nothing) == []
    empty = HybridSearcher("empty", client=client)
    assert empty.add([], progress=False) == 0
    results = empty.search(QUERY)
    assert (list(results), results.trace.status) == ([], "no candidates")
    assert results.to_pandas().empty
    assert "0 of 0 candidates" in results._repr_html_()


def test_threshold_is_on_the_rerank_score(searcher):
    """In the reranker's own unit."""
    scores = [p.score for p in searcher.search(QUERY)]
    assert [p.score for p in searcher.search(QUERY, score_threshold=scores[2])] == scores[:3]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (False, None),
        (["n"], {"n": 1}),
        (models.PayloadSelectorExclude(exclude=["text"]), {"n": 1, "big": "x" * 50}),
    ],
)
def test_payload_selections_are_fetched_for_the_winners(client, bundled, selection, expected):
    """The text is read even when it is not returned."""
    searcher = HybridSearcher("docs", client=client, reranker=bundled)
    payloads = [{"text": t, "n": i, "big": "x" * 50} for i, t in enumerate(DOCUMENTS)]
    searcher.add(payloads, progress=False)
    best = searcher.search(QUERY, limit=1, with_payload=selection)[0]
    assert best.payload == expected
    assert best.rerank_score == searcher.search(QUERY, limit=1)[0].rerank_score
    assert best.vector is None


def test_vectors_are_returned_when_asked_for(searcher):
    """All of them, or those named."""
    best = searcher.search(QUERY, limit=1, with_vectors=True)[0]
    assert set(best.vector) == {"dense", "bm25"}
    assert set(searcher.search(QUERY, limit=1, with_vectors=["dense"])[0].vector) == {"dense"}
    assert texts_of([best]) == [DOCUMENTS[1]]


@pytest.mark.parametrize("missing", [{}, {"text": ""}, {"text": 3}, {"text": None}])
def test_hits_without_text_follow_are_dropped_or_raise(client, bundled, missing):
    """Never a crash in the middle of a ranking."""
    searcher = HybridSearcher("docs", client=client, reranker=bundled, sparse=None)
    searcher.add(DOCUMENTS[:3], progress=False)
    vector = searcher.embedder.embed_query(QUERY).tolist()
    client.upsert(
        "docs",
        [models.PointStruct(id=7, payload={"title": "T"} | missing, vector={"dense": vector})],
    )
    results = searcher.search(QUERY)
    assert (results[-1].id, results[-1].rerank_score, results.trace.pairs) == (7, None, 3)
    assert results[-1].retrieval_rank == 1
    assert results.to_dicts()[-1]["score"] == UNSCORED
    drop = SearchOptions(on_missing_text="drop")
    assert 7 not in [p.id for p in searcher.search(QUERY, options=drop)]
    strict = dataclasses.replace(drop, on_missing_text="raise")
    with pytest.raises(MissingTextError, match=r"Point 7 has no text.*Pass text='title'"):
        searcher.search(QUERY, options=strict)


def test_a_text_source_that_finds_nothing_at_all_warns(searcher):
    """The order stays, and the warning says what to pass."""
    wrong = HybridSearcher("docs", client=searcher.client, text="body")
    with pytest.warns(UserWarning, match=r"None of the 8 hits has text.*Pass text='text'") as seen:
        results = wrong.search(QUERY)
    assert seen[0].filename == __file__
    assert [p.retrieval_rank for p in results] == list(range(1, 9))
    trace = results.trace
    assert (trace.status, trace.missing_text, trace.pairs, trace.text) == ("no text", 8, 0, "body")
    assert "8 without text" in results._repr_html_()
    bare = [models.ScoredPoint(id=1, version=0, score=1.0)]
    with pytest.warns(UserWarning, match="it has no payload") as seen:
        results = rerank_points(QUERY, bare, text="text")
    assert seen[0].filename == __file__
    assert (results.trace.status, results.trace.missing_text) == ("no text", 1)


@pytest.mark.filterwarnings("ignore:Documents of .* are in ")
@RELAXED
@given(texts=TEXTS, data=st.data())
def test_order_of_insertion_never_changes_a_score(bundled, texts, data):
    """A score depends on the query and the document alone.

    (Fused recall ranks documents that one branch scores alike as the engine happens to hold them.)
    """
    outcomes = []
    for ordered in (texts, data.draw(st.permutations(texts))):
        with QdrantClientInMemory() as client:
            searcher = HybridSearcher("docs", client=client, reranker=bundled)
            searcher.add(ordered, progress=False)
            found = searcher.search("what is this?")
            assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
            outcomes.append({p.id: p.score for p in found})
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("query", ["", "  \n\t", 3, None])
def test_an_empty_query_is_an_error(searcher, query):
    """It would match everything alike."""
    with pytest.raises(InvalidInputError, match="query"):
        searcher.search(query)
    with pytest.raises(InvalidInputError, match="query"):
        searcher.search_batch([QUERY, query])
    with pytest.raises(InvalidInputError, match="query"):
        rerank_points(query, [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": -1},
        {"limit": 1.5},
        {"limit": True},
        {"candidates": 0},
        {"with_payload": "n"},
        {"with_vectors": "dense"},
        {"limit": 5, "candidates": 4},
        {"options": {"on_missing_text": "drop"}},
        {"limit": None},
        {"score_threshold": "0.5"},
        {"score_threshold": float("nan")},
        {"query_filter": ["must"]},
        {"query_filter": {"mist": []}},
        {"with_payload": None},
        {"with_payload": (1,)},
        {"with_payload": b"n"},
        {"with_vectors": None},
        {"with_vectors": 1},
        {"with_vectors": models.PayloadSelectorInclude(include=["n"])},
        {"limit": 2**63},
        {"limit": 2**70},
        {"offset": 2**70},
        {"candidates": 2**70},
    ],
)
def test_arguments_of_a_wrong_kind_or_out_of_range_are_errors(searcher, wrong):
    """Before any work is done."""
    with pytest.raises(InvalidInputError, match=r"expected"):
        searcher.search(QUERY, **wrong)


@pytest.mark.parametrize("engine", ["local mode", "embedded"])
def test_any_whole_number_is_an_id_or_refused_and_so_is_a_limit(engine):
    """Whichever the engine, and in our own words."""
    with closing(EdgeClient() if engine == "embedded" else QdrantClient(":memory:")) as client:
        searcher = HybridSearcher("docs", client=client, reranker=None)
        searcher.add(["iron", "tin"], ids=[0, 2**64 - 1], progress=False)
        for wrong in (-1, 2**64, -(2**70)):
            with pytest.raises(InvalidInputError, match=f"query is the id {wrong}; Qdrant's are"):
                searcher.search(wrong)
        assert [hit.id for hit in searcher.search(2**64 - 1)] == [0]
        assert len(searcher.search("iron", limit=2**63 - 1)) == 2


def test_a_searcher_is_copied_but_not_pickled(searcher):
    """A process of its own needs a client of its own."""
    with pytest.raises(TypeError, match=r"holds a client.*Make a searcher in each process"):
        pickle.dumps(searcher)
    assert copy.copy(searcher).search(QUERY)[0].id == searcher.search(QUERY)[0].id


@pytest.mark.parametrize("threshold", ["0.5", float("nan"), True])
def test_rerank_points_checks_its_threshold(searcher, threshold):
    """As a search does."""
    hits = searcher.search(QUERY)
    with pytest.raises(InvalidInputError, match="score_threshold is"):
        rerank_points(QUERY, hits, score_threshold=threshold)


@pytest.mark.parametrize("wrong", ["one text", b"bytes", None, 5])
def test_one_thing_in_place_of_several_is_an_error(searcher, bundled, wrong):
    """And not read letter by letter."""
    calls = (
        searcher.search_batch,
        searcher.add,
        partial(rerank_points, QUERY),
        partial(bundled.rerank, QUERY),
        partial(Cascade([(bundled, None)]).rerank, QUERY),
        bundled.rerank_pairs,
        bundled.score_pairs,
        bundled.token_count,
    )
    for call in calls:
        with pytest.raises(InvalidInputError, match=r"is (one \w+|None); expected several"):
            call(wrong)


def test_a_client_of_the_other_kind_is_refused_at_once():
    """Its calls would return coroutines; nothing of its URL is shown."""
    for client, kind in ((AsyncQdrantClient(":memory:"), "Async"), ("http://a:secret@b", "a str")):
        with pytest.raises(InvalidInputError, match=f"client is .*{kind}") as caught:
            HybridSearcher("docs", client=client)
        assert "secret" not in str(caught.value)
    with pytest.raises(InvalidInputError, match=r"client is a str; expected an AsyncQdrantClient"):
        AsyncHybridSearcher("docs", client="http://a:secret@b")


def test_a_whole_number_of_numpy_is_an_id(searcher):
    """As pandas has it; a vector is told where it belongs."""
    numbered = HybridSearcher("numbered", client=searcher.client)
    numbered.add(DOCUMENTS, ids=range(len(DOCUMENTS)), progress=False)
    assert numbered.search(np.int64(1)) == numbered.search(1)
    assert numbered.search_batch(np.array([1])) == [numbered.search(1)]
    with pytest.raises(InvalidInputError, match=r"query is a list; .* Pass a vector as recall="):
        numbered.search([0.1, 0.2])


def test_a_text_function_that_raises_is_told_so(searcher):
    """And not that it returned nothing."""
    lost = HybridSearcher("docs", client=searcher.client, text=lambda payload: payload["zzz"])
    with pytest.warns(MissingTextWarning, match=r"the text function raised KeyError\('zzz'\)"):
        lost.search(QUERY)


def test_a_wrong_document_of_a_new_collection_is_the_only_error(searcher):
    """That the collection is not there yet is no part of its traceback."""
    with pytest.raises(InvalidInputError, match="Document 0") as caught:
        HybridSearcher("new", client=searcher.client).add([3])
    assert caught.value.__context__ is None


def test_a_missing_collection_names_those_that_exist(searcher):
    """A typo shows at once."""
    with pytest.raises(CollectionNotFoundError, match=r"no collection 'dcos'. It has 'docs'."):
        HybridSearcher("dcos", client=searcher.client).search(QUERY)


def test_a_foreign_reranker_is_used_as_it_is(searcher, tiny_bert):
    """fastembed's class needs no adapter."""
    theirs = FastembedCrossEncoder(
        "Xenova/ms-marco-MiniLM-L-6-v2", specific_model_path=str(tiny_bert)
    )
    foreign = HybridSearcher("docs", client=searcher.client, reranker=theirs)
    ours = HybridSearcher("docs", client=searcher.client, reranker=tiny_bert)
    assert foreign.reranker is theirs
    results = foreign.search(QUERY, limit=8)
    expected = ours.search(QUERY, limit=8)
    assert [p.score for p in results] == pytest.approx([p.score for p in expected], abs=1e-4)
    assert results.trace.tokens is None


class Scores:
    """A reranker that returns what it is given."""

    def __init__(self, scores):
        self.scores = scores

    def rerank(self, query, documents):
        """The same for every query."""
        return self.scores


@pytest.mark.parametrize(
    ("scores", "seen"),
    [
        ([1.0], r"shape \(1,\) for 8"),
        ([float("nan")] * 8, "nan"),
        (["a"] * 8, "'a'"),
        ([(0, 1.0)] * 8, r"shape \(8, 2\)"),
        ([{"index": 0}] * 8, "the score None for document 0; expected"),
        (None, "a NoneType; expected"),
        (0.5, "a float; expected"),
        (np.float32(1), "a float32; expected"),
    ],
)
def test_a_reranker_that_returns_no_scores_is_named(searcher, scores, seen):
    """Its answer is quoted."""
    broken = HybridSearcher("docs", client=searcher.client, reranker=Scores(scores))
    with pytest.raises(ModelOutputError, match=f"Scores.rerank (returned|answered) .*{seen}"):
        broken.search(QUERY)


def test_what_is_no_reranker_embedder_or_sparse_encoder_is_refused(client):
    """At construction."""
    for wrong in (
        {"reranker": 3},
        {"embedder": object()},
        {"sparse": "splade"},
        {"embedder": None, "sparse": None},
        {"candidates": 0},
        {"text": ""},
    ):
        with pytest.raises(InvalidInputError):
            HybridSearcher("docs", client=client, **wrong)
    with pytest.raises(InvalidInputError):
        HybridSearcher("", client=client)
    with pytest.raises(TypeError):
        HybridSearcher("docs", client=client, rerankr=None)


# --- what recall does with the vectors that a collection has


def dense_only(client, size=256, names=("",)):
    """A collection as others create it."""
    params = {n: models.VectorParams(size=size, distance=models.Distance.COSINE) for n in names}
    client.create_collection("docs", vectors_config=params[""] if names == ("",) else params)


def test_a_dense_collection_of_others_is_searched(client, bundled):
    """One unnamed vector, no sparse one."""
    dense_only(client)
    embedder = StaticEmbedder.bundled()
    client.upsert(
        "docs",
        [
            models.PointStruct(id=i, payload={"body": t}, vector=v.tolist())
            for i, (t, v) in enumerate(
                zip(DOCUMENTS, embedder.embed_documents(DOCUMENTS), strict=True)
            )
        ],
    )
    searcher = HybridSearcher("docs", client=client, reranker=bundled, text="body")
    assert searcher.search(QUERY, limit=1)[0].id == 1
    assert searcher.add([{"body": "Iron, molten."}], ids=[99], progress=False) == 1
    assert 99 in [p.id for p in searcher.search(QUERY)]
    with pytest.raises(SchemaMismatchError, match="needs a sparse vector with modifier IDF"):
        HybridSearcher("docs", client=client, sparse="Qdrant/bm25", text="body").search(QUERY)


def test_a_sparse_collection_of_others_is_searched(client, bundled):
    """As fastembed or the server's own BM25 fill it."""
    client.create_collection(
        "docs",
        vectors_config={},
        sparse_vectors_config={"text": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    vectors = Bm25Encoder().embed_documents(DOCUMENTS)
    client.upsert(
        "docs",
        [
            models.PointStruct(id=i, payload={"text": t}, vector={"text": v})
            for i, (t, v) in enumerate(zip(DOCUMENTS, vectors, strict=True))
        ],
    )
    searcher = HybridSearcher("docs", client=client, reranker=bundled)
    assert searcher.search(QUERY, limit=1)[0].id == 1
    assert searcher.search("the of and") == []  # no term left to search for
    with pytest.raises(SchemaMismatchError, match="gives dense vectors of 256"):
        HybridSearcher("docs", client=client, embedder=StaticEmbedder.bundled()).search(QUERY)


def test_sparse_vectors_without_idf_are_left_alone(client):
    """They may be SPLADE's, which BM25 weights do not fit."""
    client.create_collection(
        "docs",
        vectors_config={"d": models.VectorParams(size=256, distance=models.Distance.COSINE)},
        sparse_vectors_config={"splade": models.SparseVectorParams()},
    )
    searcher = HybridSearcher("docs", client=client)
    with pytest.warns(UserWarning, match="not searched: 'splade'. They have no modifier IDF"):
        assert searcher.add(["a text"], progress=False) == 1
    assert searcher.search(QUERY).trace.vectors == ("d",)  # and is told once
    [record] = client.scroll("docs", with_vectors=True)[0]
    assert set(record.vector) == {"d"}


def test_a_vector_of_another_size_names_both_sizes(client):
    """Before the query is sent."""
    dense_only(client, size=384)
    with pytest.raises(SchemaMismatchError, match=r"\(unnamed\) of 384.*vectors of 256"):
        HybridSearcher("docs", client=client).search(QUERY)


def test_several_vectors_of_one_size_must_be_named(client):
    """Guessing would search the wrong one."""
    dense_only(client, names=("title", "body"))
    with pytest.raises(SchemaMismatchError, match="dense_vector='title'"):
        HybridSearcher("docs", client=client).search(QUERY)
    named = SearchOptions(dense_vector="body")
    assert HybridSearcher("docs", client=client, options=named).search(QUERY) == []
    for wrong in (SearchOptions(dense_vector="x"), SearchOptions(sparse_vector="x")):
        with pytest.raises(SchemaMismatchError, match="'x'"):
            HybridSearcher("docs", client=client, options=wrong).search(QUERY)


def test_another_embedder_than_the_one_that_filled_it_is_refused(searcher):
    """Equal sizes would hide it, and every result be noise."""

    class Renamed:
        name = "another"
        dimension = 256
        embed_query = StaticEmbedder.bundled().embed_query
        embed_documents = StaticEmbedder.bundled().embed_documents

    with pytest.raises(SchemaMismatchError, match="filled with the embedder 'static-minilm-l6-v1'"):
        HybridSearcher("docs", client=searcher.client, embedder=Renamed()).search(QUERY)


def test_an_onnx_directory_serves_as_embedder(client, tiny_bert_embedder, bundled):
    """A path is accepted wherever a name is."""
    searcher = HybridSearcher("docs", client=client, embedder=tiny_bert_embedder, reranker=bundled)
    assert isinstance(searcher.embedder, OnnxEmbedder)
    searcher.add(DOCUMENTS, progress=False)
    assert searcher.search(QUERY, limit=1)[0].payload["text"] == DOCUMENTS[1]
    norms = np.linalg.norm(searcher.embedder.embed_documents(DOCUMENTS), axis=1)
    assert norms == pytest.approx(np.ones(8), abs=1e-5)


def test_fastembeds_models_serve_as_encoders(client, tiny_bert_embedder, bundled, tmp_path):
    """Wrapped without being asked; OnnxEmbedder computes the same vectors."""
    TextEmbedding.add_custom_model(
        "me/tiny",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="me/tiny"),
        dim=32,
    )
    dense = TextEmbedding("me/tiny", specific_model_path=str(tiny_bert_embedder))
    (tmp_path / "english.txt").write_text("the")
    (tmp_path / "config.json").write_text("{}")
    sparse = SparseTextEmbedding("Qdrant/bm25", specific_model_path=str(tmp_path))
    searcher = HybridSearcher(
        "docs", client=client, embedder=dense, sparse=sparse, reranker=bundled
    )
    searcher.add(DOCUMENTS, progress=False)
    assert searcher.search(QUERY, limit=1)[0].payload["text"] == DOCUMENTS[1]
    ours = OnnxEmbedder(tiny_bert_embedder)
    assert searcher.embedder.embed_documents(DOCUMENTS) == pytest.approx(
        ours.embed_documents(DOCUMENTS), abs=1e-4
    )
    assert searcher.embedder.embed_query(QUERY) == pytest.approx(ours.embed_query(QUERY), abs=1e-4)
    assert searcher.embedder.name == "me/tiny"


def test_fusion_is_qdrants(searcher):
    """The order of a plain request with that fusion; reciprocal rank fusion unless told."""
    plain = HybridSearcher("docs", client=searcher.client, reranker=None)
    branches = [
        models.Prefetch(
            query=searcher.embedder.embed_query(QUERY).tolist(), using="dense", limit=8
        ),
        models.Prefetch(query=searcher.sparse.embed_query(QUERY), using="bm25", limit=8),
    ]
    for fusion in ("rrf", "dbsf"):
        theirs = searcher.client.query_points(
            "docs", prefetch=branches, query=models.FusionQuery(fusion=fusion), limit=8
        )
        ours = plain.search(QUERY, limit=8, options=SearchOptions(fusion=fusion))
        assert sorted(p.retrieval_score for p in ours) == sorted(p.score for p in theirs.points)
    default = plain.search(QUERY, limit=8)
    assert [p.score for p in default] != [p.score for p in ours]


def test_blend_orders_and_leaves_both_scores(searcher):
    """A share of 1 is the retrieval order, 0 the reranker's; in between, something else."""
    found = {
        blend: searcher.search(QUERY, limit=8, options=SearchOptions(blend=blend))
        for blend in (0.0, 0.5, 1, "rrf")
    }
    assert [p.retrieval_rank for p in found[1]] == list(range(1, 9))
    assert [p.id for p in found[0.0]] == [p.id for p in searcher.search(QUERY, limit=8)]
    scores = [{p.id: (p.rerank_score, p.retrieval_score) for p in hits} for hits in found.values()]
    assert all(one == scores[0] for one in scores)
    assert all(p.score == p.rerank_score for p in found[0.0])
    assert max(p.score for p in found["rrf"]) <= 2 / 61 + 1e-6


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"fusion": "sum"}, "fusion is 'sum'; expected one of 'rrf', 'dbsf'"),
        ({"blend": 1.5}, "blend is 1.5"),
        ({"blend": True}, "blend is True"),
        ({"blend": "sum"}, "blend is 'sum'; expected the retrieval score's share"),
        ({"blend": float("nan")}, "blend is nan"),
    ],
)
def test_wrong_fusions_and_blends_are_named(searcher, options, seen):
    """When the searcher is made, and at the call."""
    with pytest.raises(InvalidInputError, match=seen):
        HybridSearcher("docs", client=searcher.client, options=SearchOptions(**options))
    with pytest.raises(InvalidInputError, match=seen):
        searcher.search(QUERY, options=SearchOptions(**options))


def test_the_former_property_warns_and_answers(client):
    """``fuses`` asks the server, which a property should not; ``is_hybrid`` is a method."""
    searcher = HybridSearcher("docs", client=client, reranker=None)
    searcher.add(["iron"], progress=False)
    with pytest.warns(DeprecationWarning, match=r"call is_hybrid\(\)"):
        assert searcher.fuses
    with pytest.raises(CollectionNotFoundError):
        HybridSearcher("others", client=client, reranker=None).is_hybrid()

    async def main():
        async with AsyncHybridSearcher("docs", client=client, sparse=None) as dense:
            return await dense.is_hybrid()

    assert asyncio.run(main()) is False
