"""Collections whose sparse vectors other writers made: searched as they are, or left out aloud."""

import warnings
from contextlib import closing

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank import (
    DEFAULT_RERANKER,
    Bm25Encoder,
    HybridSearcher,
    SearchOptions,
    StaticEmbedder,
)
from qdrant_rerank.errors import SchemaMismatchError
from qdrant_rerank.qdrant.embedded.client import EdgeClient

TEXTS = ["Iron melts at 1538 degrees.", "Bread is baked in a hot oven.", "Copper is a metal."]
EMBEDDER = StaticEmbedder.bundled()
DENSE = models.VectorParams(size=256, distance=models.Distance.COSINE)
#: LangChain's QdrantVectorStore, hybrid, creates this and fills it by fastembed's Qdrant/bm25.
LANGCHAIN = ("", "langchain-sparse", models.SparseVectorParams(), "page_content")
#: LlamaIndex's QdrantVectorStore, hybrid, this; filled by fastembed's prithivida/Splade_PP_en_v1.
LLAMA = (
    "text-dense",
    "text-sparse-new",
    models.SparseVectorParams(index=models.SparseIndexParams()),
    "text",
)


class Splade:
    """An encoder with weights of its own: the words that it expands to, by their places here."""

    name = "prithivida/Splade_PP_en_v1"
    WORDS = "iron metal bread oven copper melts baked".split()

    def embed_query(self, text):
        found = [place for place, word in enumerate(self.WORDS) if word in text.lower()]
        return models.SparseVector(indices=found, values=[0.5 + place for place in found])

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


@pytest.fixture(params=["local mode", "embedded"])
def engine(request):
    """An engine in memory."""
    made = EdgeClient() if request.param == "embedded" else QdrantClient(":memory:")
    with closing(made):
        yield made


def fill(client, schema, encoder, name="docs"):
    """Make a collection as its writer would, with three documents."""
    dense, sparse, params, field = schema
    client.create_collection(
        name,
        vectors_config={dense: DENSE},
        sparse_vectors_config={sparse: params},
    )
    vectors = EMBEDDER.embed_documents(TEXTS).tolist()
    client.upsert(
        name,
        [
            models.PointStruct(
                id=row, payload={field: text}, vector={dense: vector, sparse: entries}
            )
            for row, (text, vector, entries) in enumerate(
                zip(TEXTS, vectors, encoder.embed_documents(TEXTS), strict=True)
            )
        ],
    )


@pytest.mark.parametrize("schema", [LANGCHAIN, LLAMA], ids=["langchain", "llama-index"])
def test_by_default_they_are_left_out_with_one_warning(engine, schema):
    """That says why, and what to do; the trace names what was searched."""
    dense, sparse, _, field = schema
    fill(engine, schema, Bm25Encoder(avg_len=256.0))
    searcher = HybridSearcher("docs", client=engine, reranker=None, text=field)
    with pytest.warns(UserWarning, match="are not searched") as caught:
        found = searcher.search("melting iron")
    [warning] = caught
    for seen in (repr(sparse), "no modifier IDF", "SPLADE", "update_collection", "sparse=None"):
        assert seen in str(warning.message)
    assert warning.filename == __file__
    assert found.trace.vectors == (dense,)
    assert not searcher.is_hybrid()
    with pytest.warns(UserWarning, match="not searched"):  # of another searcher
        HybridSearcher("docs", client=engine, reranker=None, text=field).search("iron")
    silent = HybridSearcher("docs", client=engine, reranker=None, text=field, sparse=None)
    assert silent.search("iron").trace.vectors == (dense,)


def test_the_advice_for_bm25_works(engine):
    """LangChain's vectors hold BM25: with IDF turned on, they are found by themselves."""
    fill(engine, LANGCHAIN, Bm25Encoder(avg_len=256.0))
    engine.update_collection(
        "docs",
        sparse_vectors_config={"langchain-sparse": models.SparseVectorParams(modifier="idf")},
    )
    searcher = HybridSearcher("docs", client=engine, reranker=None, text="page_content")
    assert searcher.search("melting iron").trace.vectors == ("", "langchain-sparse")
    assert searcher.is_hybrid()
    lexical = HybridSearcher(
        "docs", client=engine, reranker=None, text="page_content", embedder=None
    )
    assert [hit.id for hit in lexical.search("melting iron")] == [0]


def test_an_encoder_of_their_own_searches_them(engine):
    """By its own weights, without a warning; and adds documents with them."""
    fill(engine, LLAMA, Splade())
    searcher = HybridSearcher("docs", client=engine, reranker=None, sparse=Splade())
    assert searcher.search("iron").trace.vectors == ("text-dense", "text-sparse-new")
    sparse_only = HybridSearcher(
        "docs", client=engine, reranker=None, sparse=Splade(), embedder=None
    )
    hits = sparse_only.search("copper metal")
    assert {hit.id: hit.score for hit in hits} == pytest.approx({2: 4.5**2 + 1.5**2})
    searcher.add([{"text": "Iron and metal"}], ids=[9], progress=False)
    assert sparse_only.search("metal")[0].id in {2, 9}
    assert {hit.id for hit in sparse_only.search("metal")} == {2, 9}


def test_bm25_by_name_searches_them_and_says_what_they_lack(engine):
    """The caller's word counts; rare words then weigh no more than others."""
    fill(engine, LANGCHAIN, Bm25Encoder(avg_len=256.0))
    options = {"client": engine, "reranker": None, "text": "page_content", "embedder": None}
    for given in ("Qdrant/bm25", Bm25Encoder()):
        searcher = HybridSearcher("docs", sparse=given, **options)
        with pytest.warns(UserWarning, match="which has no modifier IDF, so that rare words"):
            assert [hit.id for hit in searcher.search("iron")] == [0]
        assert searcher.search("iron").trace.vectors == ("langchain-sparse",)


def test_without_dense_vectors_either_it_is_an_error(engine):
    """There is nothing else to search."""
    params = {"langchain-sparse": models.SparseVectorParams()}
    engine.create_collection("docs", vectors_config={}, sparse_vectors_config=params)
    with pytest.raises(SchemaMismatchError, match=r"no modifier IDF.*turn IDF on: client\.update"):
        HybridSearcher("docs", client=engine, reranker=None).search("iron")


def test_of_two_kinds_each_encoder_finds_its_own(engine):
    """BM25 the vector with IDF, SPLADE the one without; two of a kind have to be named."""
    sparse = {
        "words": models.SparseVectorParams(modifier="idf"),
        "splade": models.SparseVectorParams(),
    }
    engine.create_collection("docs", vectors_config={"d": DENSE}, sparse_vectors_config=sparse)
    for encoder, name in ((Bm25Encoder(), "words"), ("auto", "words"), (Splade(), "splade")):
        searcher = HybridSearcher("docs", client=engine, reranker=None, sparse=encoder)
        assert searcher.search("iron").trace.vectors == ("d", name)
    engine.create_collection(
        "two",
        vectors_config={"d": DENSE},
        sparse_vectors_config=dict.fromkeys("ab", models.SparseVectorParams()),
    )
    with pytest.raises(SchemaMismatchError, match="Name one"):
        HybridSearcher("two", client=engine, reranker=None, sparse=Splade()).search("iron")
    named = SearchOptions(sparse_vector="b")
    searcher = HybridSearcher("two", client=engine, reranker=None, sparse=Splade(), options=named)
    assert searcher.search("iron").trace.vectors == ("d", "b")


def test_a_collection_that_add_filled_with_another_model_is_not_bm25s(engine):
    """It is made without IDF, records the model, and "auto" says whose vectors it leaves out."""
    HybridSearcher("docs", client=engine, reranker=None, sparse=Splade()).add(TEXTS, progress=False)
    config = engine.get_collection("docs").config
    assert config.params.sparse_vectors["bm25"].modifier is None
    assert config.metadata["qdrant_rerank_sparse"] == {"model": Splade.name}
    engine.update_collection(
        "docs", sparse_vectors_config={"bm25": models.SparseVectorParams(modifier="idf")}
    )
    with pytest.warns(UserWarning, match=f"filled with '{Splade.name}', and sparse='auto' is BM25"):
        found = HybridSearcher("docs", client=engine, reranker=None).search("iron")
    assert found.trace.vectors == ("dense",)


def test_the_trace_names_what_a_callers_own_request_searches(client):
    """Each vector once; one without terms in the query is not searched."""
    searcher = HybridSearcher("docs", client=client, reranker=None)
    searcher.add(TEXTS, progress=False)
    assert searcher.search("iron").trace.vectors == ("dense", "bm25")
    assert searcher.search("the of").trace.vectors == ("dense",)
    both = searcher.search_batch(["iron", "the"])
    assert [found.trace.vectors for found in both] == [("dense", "bm25"), ("dense",)]
    vector = np.ones(256, np.float32)
    assert searcher.search("x", recall=vector).trace.vectors == ("dense",)
    words = Bm25Encoder().embed_query("iron")
    assert searcher.search("x", recall=words).trace.vectors == ("bm25",)
    prefetch = [
        models.Prefetch(query=words, using="bm25"),
        models.Prefetch(
            prefetch=models.Prefetch(query=vector.tolist(), using="dense"),
            query=vector.tolist(),
            using="dense",
        ),
    ]
    assert searcher.search("x", prefetch=prefetch).trace.vectors == ("bm25", "dense")
    ordered = models.QueryRequest(query=models.SampleQuery(sample=models.Sample.RANDOM), limit=1)
    assert searcher.search("x", recall=ordered).trace.vectors == ()
    assert searcher.search_groups("iron", group_by="text").trace.vectors == ("dense", "bm25")


@pytest.mark.parametrize(
    ("query", "script", "named"),
    [
        ("Как горячо должно быть железо?", "Cyrillic", "language='russian'"),
        ("鉄の融点は何度ですか", "CJK", "embedder='sentence-transformers/paraphrase"),
        ("ما درجة انصهار الحديد؟", "Arabic", "reranker='BAAI/bge-reranker-v2-m3'"),
    ],
)
def test_a_query_in_another_script_warns_once(client, bundled, query, script, named):
    """It names a model that is one argument away; Latin letters never warn."""
    searcher = HybridSearcher("docs", client=client, reranker=bundled)
    searcher.add(["Iron melts.", "Übergrößenträger, naïve"], progress=False)
    searcher.search("Übergröße?")
    with pytest.warns(UserWarning, match=f"Queries of 'docs' are in {script}") as caught:
        searcher.search_batch(["iron", query])
    [warning] = caught
    assert named in str(warning.message)
    assert DEFAULT_RERANKER in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searcher.search(query)


def test_documents_in_another_script_warn_once(client):
    """If most of a batch are; a searcher with models of its own has nothing to be told."""
    russian = ["Железо плавится при 1538 градусах.", "Хлеб пекут в печи.", "Iron"]
    searcher = HybridSearcher("docs", client=client, reranker=None)
    with pytest.warns(UserWarning, match="Documents of 'docs' are in Cyrillic") as caught:
        searcher.add(russian, progress=False)
    assert "reranker=" not in str(caught[0].message)
    assert searcher.search("железо")[0].payload["text"] == russian[0]
    quiet = HybridSearcher("other", client=client, reranker=None, embedder=None, language="russian")
    quiet.add(russian, progress=False)
    assert quiet.search("железа")[0].payload["text"] == russian[0]
    few = HybridSearcher("few", client=client, reranker=None)
    few.add(["Iron melts.", "Bread is baked.", russian[0]], progress=False)
