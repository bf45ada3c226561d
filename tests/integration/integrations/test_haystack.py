"""The Haystack components, on a collection that qdrant-haystack wrote."""

import asyncio
import os

import pytest
from qdrant_client import models

from qdrant_rerank import Bm25Encoder, RerankedPoint, rerank_points
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.integrations.shared import SCORES
from tests.integration.integrations.frameworks import (
    BREAD,
    IRON,
    PANS,
    QUERY,
    TEXTS,
    collection_name,
    embed,
    needed,
)

haystack = needed("haystack")
store_module = needed("haystack_integrations.document_stores.qdrant")

from haystack import Document, Pipeline
from haystack.dataclasses.sparse_embedding import SparseEmbedding
from haystack.utils import Secret

from qdrant_rerank.integrations.haystack import (
    CrossEncoderRanker,
    QdrantRerankRetriever,
    document_of,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def filled(sparse=False, **place):
    """A store that qdrant-haystack filled."""
    made = store_module.QdrantDocumentStore(
        embedding_dim=256,
        use_sparse_embeddings=sparse,
        sparse_idf=sparse,
        progress_bar=False,
        **place,
    )
    words = Bm25Encoder().embed_documents(TEXTS)
    made.write_documents(
        [
            Document(
                content=text,
                meta={"page": number},
                embedding=vector,
                sparse_embedding=SparseEmbedding(word.indices, word.values) if sparse else None,
            )
            for number, (text, vector, word) in enumerate(
                zip(TEXTS, embed(TEXTS), words, strict=True)
            )
        ]
    )
    return made


@pytest.fixture(params=[False, True], ids=["dense", "with sparse vectors"])
def store(request, tmp_path):
    """A store on disk, in qdrant-client's local mode."""
    made = filled(request.param, path=str(tmp_path / "db"), index="docs")
    yield made
    made.close()


def test_documents_come_back_as_they_were_written_and_reranked(store):
    """The best answer first, with both scores; async gives the same."""
    retriever = QdrantRerankRetriever(store, top_k=2)
    found = retriever.run(QUERY)["documents"]
    assert [document.content for document in found] == [IRON, PANS]
    first = found[0]
    assert first.score == first.meta["rerank_score"] > found[1].score
    assert (first.meta["page"], first.meta["retrieval_rank"]) == (1, 2)
    assert store.filter_documents({"field": "id", "operator": "==", "value": first.id})
    assert asyncio.run(retriever.run_async(QUERY))["documents"] == found


def test_a_hybrid_store_is_searched_by_both_kinds_of_vectors():
    """With BM25 by its name, which YAML can hold; a closed store is opened again."""
    store = filled(sparse=True, location=":memory:", index="docs")
    retriever = QdrantRerankRetriever(store, sparse="Qdrant/bm25", reranker=None)
    found = retriever.run(QUERY)["documents"]
    searched = retriever._searcher.search(QUERY).trace.vectors
    assert [one.split()[0] for one in searched] == ["text-dense", "text-sparse"]
    assert {document.content for document in found} == set(TEXTS)
    retriever.close()
    assert retriever.run(QUERY)["documents"] == []


@pytest.mark.server
def test_a_store_on_a_server_is_reranked(server_url):
    """As one in local mode is, awaited or not."""
    key = os.environ.get("QDRANT_API_KEY")
    with collection_name() as name:
        store = filled(
            sparse=True, url=server_url, index=name, api_key=key and Secret.from_token(key)
        )
        retriever = QdrantRerankRetriever(store, sparse="Qdrant/bm25")
        found = retriever.run(QUERY)["documents"]
        assert found[0].content == IRON
        assert asyncio.run(retriever.run_async(QUERY))["documents"] == found
        store.close()


def test_filters_and_embeddings_of_haystack_are_taken(store):
    """A filter as Haystack writes it, and the vector of another component."""
    only = {"field": "meta.page", "operator": "==", "value": 2}
    retriever = QdrantRerankRetriever(store, embedder=None)
    [vector] = embed([QUERY])
    found = retriever.run(QUERY, query_embedding=vector, filters=only)["documents"]
    assert [document.content for document in found] == [BREAD]
    assert len(retriever.run(QUERY, query_embedding=vector)["documents"]) == 3
    for native in (
        {"must_not": [{"key": "meta.page", "range": {"lt": 2}}]},
        models.Filter(must=[models.FieldCondition(key="content", match={"value": BREAD})]),
    ):
        assert retriever.run(QUERY, vector, native)["documents"] == found
    assert retriever.run(QUERY, vector, score_threshold=99.0)["documents"] == []
    with pytest.raises(InvalidInputError, match="Connect a text embedder"):
        retriever.run(QUERY)


def test_a_vector_of_another_component_needs_no_embedder_that_fits():
    """The default embedder, which has other dimensions, is not used."""
    store = store_module.QdrantDocumentStore(":memory:", embedding_dim=2, progress_bar=False)
    store.write_documents([Document(content=text, embedding=[1.0, 0.0]) for text in TEXTS])
    found = QdrantRerankRetriever(store).run(QUERY, query_embedding=[0.0, 1.0])["documents"]
    assert found[0].content == IRON
    store.close()


def test_a_pipeline_goes_through_yaml(store):
    """Retriever and ranker, written, read and run; the reader opens the store itself."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", QdrantRerankRetriever(store, reranker=None, top_k=3))
    pipeline.add_component("ranker", CrossEncoderRanker(top_k=1))
    pipeline.connect("retriever", "ranker")
    written = pipeline.dumps()
    store.close()  # the directory has one user at a time
    read = Pipeline.loads(written, allowed_modules=["qdrant_rerank.integrations.haystack"])
    assert read.dumps() == written
    asked = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    for done in (read.run(asked), asyncio.run(read.run_async(asked))):
        [best] = done["ranker"]["documents"]
        assert (best.content, best.meta["retrieval_rank"]) == (IRON, 2)
    read.get_component("retriever").document_store.close()


def test_the_ranker_keeps_the_first_score_and_the_documents_that_came_in():
    """Copies; the same document twice is one; no text comes last; async gives the same."""
    documents = [
        Document(content=text, meta={"page": n}, score=0.9 - n / 9) for n, text in enumerate(TEXTS)
    ]
    documents += [documents[0], Document(content=None, meta={"page": 3})]
    ranker = CrossEncoderRanker()
    kept = ranker.run(QUERY, documents)["documents"]
    assert [document.meta["page"] for document in kept][::3] == [1, 3]
    assert len(kept) == 4
    assert kept[0].meta["retrieval_score"] == documents[1].score
    assert (kept[0].score, kept[0].id) == (kept[0].meta["rerank_score"], documents[1].id)
    assert kept[-1].score is None
    assert all("rerank_score" not in document.meta for document in documents)
    assert asyncio.run(ranker.run_async(QUERY, documents))["documents"] == kept
    assert len(ranker.run(QUERY, documents, top_k=2)["documents"]) == 2
    assert ranker.run(QUERY, [])["documents"] == []


def test_the_ranker_reads_meta_where_that_is_asked_for():
    """By a template; an object cannot be written as YAML, which the error says."""
    read = []

    def scores(query, documents):
        read.extend(documents)
        return [0.0] * len(documents)

    ranker = CrossEncoderRanker(scores, text="{meta.title}: {content}")
    ranker.run(QUERY, [Document(content=IRON, meta={"title": "Metals"})])
    assert read == [f"Metals: {IRON}"]
    with pytest.raises(InvalidInputError, match="a dict cannot hold"):
        ranker.to_dict()


def test_wrong_arguments_are_refused_when_the_component_is_made():
    """With our own errors."""
    with pytest.raises(InvalidInputError, match="expected a QdrantDocumentStore"):
        QdrantRerankRetriever("docs")
    with pytest.raises(InvalidInputError, match="top_k"):
        CrossEncoderRanker(top_k=0)
    with pytest.raises(InvalidInputError, match="text=5"):
        CrossEncoderRanker(text=5)
    with pytest.raises(InvalidInputError, match="expected Documents of haystack"):
        CrossEncoderRanker().run(QUERY, [IRON])
    store = store_module.QdrantDocumentStore(":memory:")
    wrongs = {"top_k": 0, "candidates": 5, "score_threshold": "a", "text": 5}
    wrongs["filters"] = {"field": "meta.n"}
    for name, wrong in wrongs.items():
        with pytest.raises(InvalidInputError, match=name):
            QdrantRerankRetriever(store, **{name: wrong})


@pytest.mark.parametrize(
    ("payload", "meta"),
    [
        ({"content": IRON, "meta": {"page": 3}}, {"page": 3}),
        ({"content": IRON, "meta": "metals"}, {"meta": "metals"}),
        ({"content": IRON, "meta": None, "title": "Metals"}, {"title": "Metals"}),
        ({"content": IRON, "title": "Metals", "meta": {"page": 3}}, {"title": "Metals", "page": 3}),
    ],
)
def test_what_another_writer_stored_becomes_meta(payload, meta):
    """A document has no other place for it."""
    hit = RerankedPoint(
        id=1,
        version=0,
        score=0.5,
        payload=payload,
        rerank_score=0.5,
        retrieval_score=0.25,
        retrieval_rank=1,
    )
    document = document_of(hit)
    assert (document.content, document.score) == (IRON, 0.5)
    assert {k: v for k, v in document.meta.items() if k not in SCORES} == meta


def test_rerank_points_takes_its_documents():
    """With their ids, their scores and their meta."""
    documents = [
        Document(content=text, meta={"page": n}, score=0.5) for n, text in enumerate(TEXTS)
    ]
    best = rerank_points(QUERY, documents)[0]
    assert (best.payload, best.retrieval_score) == ({"content": IRON, "meta": {"page": 1}}, 0.5)
    assert best.id == documents[1].id
