"""Late interaction as a second stage: MaxSim by Qdrant, equal to numpy's, in one round trip."""

import asyncio
import os
import uuid
import zlib

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank import (
    DEFAULT_RERANKER,
    AsyncHybridSearcher,
    Bm25Encoder,
    Cascade,
    HybridSearcher,
    LateInteraction,
    QdrantInference,
    SearchOptions,
    StaticEmbedder,
    rerank_points,
)
from qdrant_rerank.errors import (
    InvalidInputError,
    MissingTextError,
    ModelOutputError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.qdrant.transport.client import connect
from tests.loopback_grpc import loopback_server
from tests.loopback_qdrant import loopback_qdrant

TEXTS = [
    "Iron melts at 1538 degrees.",
    "Bread is baked in an oven.",
    "Copper melts at 1085 degrees.",
    "Blast furnaces turn ore into pig iron.",
    "The Danube flows to the Black Sea.",
    "Sourdough rises for a night.",
]
WITHOUT = 5  # the point that has no multivector
QUERY = "How hot must it be to melt iron?"
SIZE = 8


def tokens(text):
    """One vector per word, of length 1: shape (words, SIZE), float32."""
    rows = [
        np.random.default_rng(zlib.crc32(word.strip("?.").lower().encode())).normal(size=SIZE)
        for word in text.split()
    ]
    return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


def max_sim(query, text, distance="Cosine"):
    """The sum of the best similarities.

    Of the Euclidean distance, Qdrant sums the squares, and takes the root of the sum.
    """
    ours, theirs = tokens(query).astype(float), tokens(text).astype(float)
    if distance == "Euclid":
        apart = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
        return -np.sqrt((apart.min(axis=1) ** 2).sum())
    return (ours @ theirs.T).max(axis=1).sum()


def fill(client, name, distance="Cosine"):
    """The texts with all vectors; the last point without the multivector."""
    several = models.MultiVectorConfig(comparator="max_sim")
    client.create_collection(
        name,
        vectors_config={
            "dense": models.VectorParams(size=256, distance="Cosine"),
            "small": models.VectorParams(size=SIZE, distance="Cosine"),
            "colbert": models.VectorParams(
                size=SIZE, distance=distance, multivector_config=several
            ),
        },
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier="idf")},
    )
    dense = StaticEmbedder.bundled().embed_documents(TEXTS)
    sparse = Bm25Encoder().embed_documents(TEXTS)
    points = []
    for n, text in enumerate(TEXTS):
        vector = {"dense": dense[n].tolist(), "bm25": sparse[n]}
        if n != WITHOUT:
            vector["colbert"] = tokens(text).tolist()
        points.append(models.PointStruct(id=n, vector=vector, payload={"text": text, "n": n}))
    client.upsert(name, points, wait=True)


@pytest.fixture(params=["embedded", "local"])
def engine(request):
    """The embedded engine, and qdrant-client's local mode."""
    made = connect() if request.param == "embedded" else QdrantClient(":memory:")
    yield made
    made.close()


@pytest.fixture
def name(engine):
    """A collection with multivectors."""
    fill(engine, "docs")
    return "docs"


def check(client, name, distance="Cosine"):
    """Both scores of every hit, and the order."""
    plain = HybridSearcher(name, client=client, reranker=None, candidates=6)
    late = LateInteraction("colbert", tokens)
    searcher = HybridSearcher(name, client=client, reranker=late, candidates=6)
    first = plain.search(QUERY)
    found = searcher.search(QUERY)
    expected = {n: max_sim(QUERY, text, distance) for n, text in enumerate(TEXTS) if n != WITHOUT}
    order = sorted(expected, key=lambda n: -expected[n])
    assert [hit.id for hit in found] == [*order, WITHOUT]
    np.testing.assert_allclose(
        [hit.rerank_score for hit in found[:-1]], [expected[n] for n in order], atol=1e-4
    )
    assert found[-1].rerank_score is None
    ranks = {hit.id: (rank, hit.score) for rank, hit in enumerate(first, start=1)}
    for hit in found:
        rank, score = ranks[hit.id]
        assert hit.retrieval_rank == rank
        assert hit.retrieval_score == pytest.approx(score, abs=1e-6)
        assert hit.payload == {"text": TEXTS[hit.id], "n": hit.id}
    assert found.trace.engine == "Qdrant, MaxSim of 'colbert'"
    assert (found.trace.status, found.trace.pairs, found.trace.candidates) == ("reranked", 5, 6)
    pages = searcher.search_batch([QUERY, "bread"])
    assert [hit.id for hit in pages[0]] == [hit.id for hit in found]
    assert pages[1][0].id == 1


@pytest.mark.parametrize("distance", ["Cosine", "Dot", "Euclid"])
def test_scores_equal_max_sim_and_retrieval_scores_stay(engine, distance):
    """A hit without the multivector comes last, unscored."""
    fill(engine, "docs", distance)
    check(engine, "docs", distance)


@pytest.mark.server
@pytest.mark.filterwarnings("ignore::UserWarning")  # a key over plain HTTP
@pytest.mark.parametrize("prefer_grpc", [False, True], ids=["REST", "gRPC"])
def test_the_same_on_a_server(server_url, prefer_grpc):
    """Over both protocols."""
    client = QdrantClient(
        url=server_url,
        api_key=os.environ.get("QDRANT_API_KEY"),
        prefer_grpc=prefer_grpc,
        grpc_port=int(server_url.rstrip("/").rpartition(":")[2]) + 1,
        timeout=60,
    )
    name = f"late-{uuid.uuid4().hex}"
    try:
        fill(client, name)
        check(client, name)
    finally:
        client.delete_collection(name)
        client.close()


def test_an_event_loop_gets_the_same(engine, name):
    """By the same request."""
    late = LateInteraction("colbert", tokens)

    async def search():
        async with AsyncHybridSearcher(name, client=engine, reranker=late) as searcher:
            return await searcher.search(QUERY)

    expected = HybridSearcher(name, client=engine, reranker=late).search(QUERY)
    found = asyncio.run(search())
    equal(found, expected)


def equal(found, expected):
    """The same hits; local mode rounds its sums otherwise each time."""
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    np.testing.assert_allclose(
        [hit.score for hit in found], [hit.score for hit in expected], rtol=1e-6
    )


class Late:
    """As fastembed's ``LateInteractionTextEmbedding``."""

    def query_embed(self, query):
        """An iterator of one multivector."""
        yield tokens(query)


class Embeds:
    """An object with the method of our embedders; it answers a batch of one."""

    def embed_query(self, text):
        """Shape (1, tokens, SIZE)."""
        return tokens(text)[None]


@pytest.mark.parametrize(
    "embedder",
    [Late(), Embeds(), {QUERY: tokens(QUERY)}, {QUERY: tokens(QUERY).tolist()}],
    ids=["fastembed", "object", "arrays", "lists"],
)
def test_every_kind_of_embedder_gives_the_same(engine, name, embedder):
    """As the function does."""
    given = HybridSearcher(name, client=engine, reranker=LateInteraction("colbert", embedder))
    plain = HybridSearcher(name, client=engine, reranker=LateInteraction("colbert", tokens))
    equal(given.search(QUERY), plain.search(QUERY))


def test_a_cascade_reads_the_best_of_it(engine, name, bundled):
    """The cross-encoder scores ``keep`` texts; the others follow in the order of MaxSim."""
    late = LateInteraction("colbert", tokens)
    cascade = Cascade([(late, 2), (DEFAULT_RERANKER, None)])
    found = HybridSearcher(name, client=engine, reranker=cascade).search(QUERY)
    near = [hit.id for hit in HybridSearcher(name, client=engine, reranker=late).search(QUERY)]
    scores = dict(zip(near[:2], bundled.rerank(QUERY, [TEXTS[n] for n in near[:2]]), strict=True))
    best = sorted(scores, key=lambda n: -scores[n])
    assert [hit.id for hit in found] == [*best, *near[2:]]
    np.testing.assert_allclose(
        [hit.rerank_score for hit in found[:2]], [scores[n] for n in best], rtol=1e-6
    )
    assert found.trace.engine == "Qdrant, MaxSim of 'colbert'"


def test_a_cascade_with_an_async_stage_reads_the_best_of_it(engine, name):
    """In an event loop, the scores are those of the same cascade without async."""

    def lengths(query, documents):
        return [float(len(document)) for document in documents]

    async def awaited(query, documents):
        return lengths(query, documents)

    late = LateInteraction("colbert", embedder=tokens)
    parts = {"client": engine, "embedder": None, "sparse": Bm25Encoder()}

    async def search():
        cascade = Cascade([(late, 2), (awaited, None)])
        async with AsyncHybridSearcher(name, reranker=cascade, **parts) as searcher:
            return await searcher.search(QUERY)

    expected = HybridSearcher(name, reranker=Cascade([(late, 2), (lengths, None)]), **parts)
    found = asyncio.run(search())
    equal(found, expected.search(QUERY))
    assert found.trace.engine == expected.search(QUERY).trace.engine


def test_filters_ids_recall_and_groups_reach_it(engine, name):
    """The prefetch is the first stage's own request, whatever that is."""
    late = LateInteraction("colbert", tokens)
    searcher = HybridSearcher(name, client=engine, reranker=late)
    odd = models.Filter(must=[models.FieldCondition(key="n", match=models.MatchAny(any=[1, 3, 5]))])
    assert {hit.id for hit in searcher.search(QUERY, query_filter=odd)} == {1, 3, 5}
    like = searcher.search(0)
    assert like[0].id == 2
    assert like[0].rerank_score == pytest.approx(max_sim(TEXTS[0], TEXTS[2]), abs=1e-4)
    assert 0 not in {hit.id for hit in like}
    dense = StaticEmbedder.bundled().embed_query("bread")
    near = searcher.search(QUERY, recall=dense, limit=2, candidates=2)
    plain = HybridSearcher(name, client=engine, reranker=None)
    first = plain.search(QUERY, recall=dense, limit=2)
    assert {hit.id for hit in near} == {hit.id for hit in first}
    groups = searcher.search_groups(QUERY, group_by="n", group_size=1)
    assert [group.hits[0].id for group in groups] == [hit.id for hit in searcher.search(QUERY)]
    blended = searcher.search(QUERY, options=SearchOptions(blend=1.0, diversity=0.1))
    assert len(blended) == 6
    chosen = searcher.search(QUERY, with_payload=["n"], with_vectors=["small"], limit=2)
    assert [set(hit.payload) for hit in chosen] == [{"n"}, {"n"}]
    best = searcher.search(QUERY, score_threshold=searcher.search(QUERY)[1].score)
    assert len(best) == 2


def test_no_text_is_read(engine):
    """Neither of the hits nor of a point that is the query; a cascade needs both."""
    fill(engine, "docs")
    engine.delete_payload("docs", ["text"], points=list(range(len(TEXTS))), wait=True)
    late = LateInteraction("colbert", tokens)
    searcher = HybridSearcher(
        "docs", client=engine, reranker=late, options=SearchOptions(on_missing_text="drop")
    )
    assert len(searcher.search(QUERY)) == 5
    assert searcher.search(0)[0].id == 2
    cascade = Cascade([(late, 2), (DEFAULT_RERANKER, None)])
    with pytest.raises(MissingTextError, match="the query"):
        HybridSearcher("docs", client=engine, reranker=cascade).search(0)


def test_points_by_chance_are_refused(engine, name):
    """Two requests would see other points."""
    searcher = HybridSearcher(name, client=engine, reranker=LateInteraction("colbert", tokens))
    with pytest.raises(InvalidInputError, match="recall is a SampleQuery"):
        searcher.search(QUERY, recall=models.SampleQuery(sample=models.Sample.RANDOM))


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ("colber", "there is no vector 'colber'. Pass LateInteraction\\('colbert', ...\\)"),
        ("dense", "'dense' holds one vector per point and is no multivector"),
        ("bm25", "there is no vector 'bm25'"),
        ("", "there is no vector ''"),
    ],
)
def test_another_vector_is_an_error_before_any_work(engine, name, vector, said):
    """It names the collection's vectors, and the embedder is not called."""

    def never(text):
        raise AssertionError

    searcher = HybridSearcher(name, client=engine, reranker=LateInteraction(vector, never))
    with pytest.raises(SchemaMismatchError, match=said) as caught:
        searcher.search(QUERY)
    assert "colbert of 8 (multivector); sparse bm25" in str(caught.value)


@pytest.mark.parametrize(
    ("made", "kind", "said"),
    [
        (np.ones((3, 9)), SchemaMismatchError, "vectors of 9, but collection 'docs' has dense"),
        (np.ones(8), ModelOutputError, r"returned shape \(8,\) for a query; expected \(tokens"),
        (np.ones((0, 8)), ModelOutputError, r"returned shape \(0, 8\)"),
        ([[1.0], [1.0, 2.0]], ModelOutputError, "expected an array of float32"),
        (np.full((2, 8), np.nan), ModelOutputError, "NaN or infinity"),
        ("text", ModelOutputError, "expected an array of float32"),
    ],
)
def test_wrong_vectors_are_an_error_before_the_request(engine, name, made, kind, said):
    """Of another size always; of a broken embedder, or the first stage's order if wanted."""
    late = LateInteraction("colbert", lambda text: made)
    with pytest.raises(kind, match=said):
        HybridSearcher(name, client=engine, reranker=late).search(QUERY)
    kept = HybridSearcher(
        name, client=engine, reranker=late, options=SearchOptions(on_rerank_error="recall")
    )
    if kind is SchemaMismatchError:
        with pytest.raises(kind, match=said):
            kept.search(QUERY)
        return
    found = kept.search(QUERY)
    plain = HybridSearcher(name, client=engine, reranker=None).search(QUERY)
    assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in plain]
    assert found.trace.status == "degraded"
    assert found.trace.cause.startswith("ModelOutputError")


def test_a_hit_without_the_multivector_is_as_one_without_text(engine, name):
    """Last, left out, or an error."""
    late = LateInteraction("colbert", tokens)
    kept = {"last": 6, "drop": 5}
    for choice, count in kept.items():
        options = SearchOptions(on_missing_text=choice)
        searcher = HybridSearcher(name, client=engine, reranker=late, options=options)
        assert len(searcher.search(QUERY)) == count
    options = SearchOptions(on_missing_text="raise")
    searcher = HybridSearcher(name, client=engine, reranker=late, options=options)
    with pytest.raises(MissingTextError, match="Point 5 has no multivector"):
        searcher.search(QUERY)


def test_it_is_refused_where_no_collection_is_searched():
    """With the place where it works."""
    late = LateInteraction("colbert", tokens)
    cascade = Cascade([(late, 1), (DEFAULT_RERANKER, None)])
    for use in (
        lambda: rerank_points(QUERY, [], reranker=late),
        lambda: rerank_points(QUERY, [], reranker=cascade),
        lambda: Cascade([(DEFAULT_RERANKER, 2), (late, 1)]),
        lambda: cascade.rerank(QUERY, TEXTS),
    ):
        with pytest.raises(InvalidInputError, match="HybridSearcher"):
            use()


@pytest.mark.parametrize(
    ("vector", "embedder", "said"),
    [
        (3, tokens, "vector is an int"),
        ("colbert", None, "embedder is a NoneType; expected fastembed's LateInter"),
        ("colbert", np.ones((2, 8)), "embedder is a ndarray; expected"),
        ("colbert", lambda: None, "cannot be called as "),
    ],
)
def test_wrong_arguments_are_refused_by_the_constructor(vector, embedder, said):
    """Before any search."""
    with pytest.raises(InvalidInputError, match=said):
        LateInteraction(vector, embedder)


def test_a_model_that_qdrant_runs_needs_a_server(engine, name):
    """The embedded engine runs none, and says so."""
    late = LateInteraction("colbert", QdrantInference("colbert-ir/colbertv2.0"))
    with pytest.raises(QdrantRequestError, match="runs no models, so not 'colbert-ir/colbertv2.0'"):
        HybridSearcher(name, client=engine, reranker=late).search(QUERY)


def test_a_query_without_a_known_multivector_is_an_error(engine, name):
    """A dict has only what was put into it."""
    searcher = HybridSearcher(name, client=engine, reranker=LateInteraction("colbert", {}))
    with pytest.raises(InvalidInputError, match="no multivector for the query 'How hot"):
        searcher.search(QUERY)


def test_one_request_brings_both_scores():
    """After the schema is known, a search sends one batch of queries, and nothing else."""
    seen = []
    with loopback_qdrant(lambda method, path: seen.append((method, path))) as (url, qdrant):
        fill(qdrant.client, "docs")
        client = QdrantClient(url=url)
        searcher = HybridSearcher(
            "docs", client=client, reranker=LateInteraction("colbert", tokens)
        )
        searcher.search(QUERY)
        seen.clear()
        assert searcher.search(QUERY)[0].retrieval_score > 0
        client.close()
    assert seen == [("POST", "/collections/docs/points/query/batch")]


@pytest.mark.parametrize("prefer_grpc", [False, True], ids=["REST", "gRPC"])
def test_the_same_over_a_socket(prefer_grpc, client):
    """In front of the embedded engine."""
    fill(client, "docs")
    with loopback_server(client) as (url, port):
        remote = QdrantClient(
            url=url, grpc_port=port, prefer_grpc=prefer_grpc, check_compatibility=False
        )
        check(remote, "docs")
        remote.close()
