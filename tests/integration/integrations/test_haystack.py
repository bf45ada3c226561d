"""The Haystack components, on a collection that qdrant-haystack wrote."""

import asyncio

import pytest

from qdrant_rerank.errors import InvalidInputError
from tests.integration.integrations.frameworks import BREAD, IRON, PANS, QUERY, TEXTS, embed, needed

haystack = needed("haystack")
store_module = needed("haystack_integrations.document_stores.qdrant")

from haystack import Document, Pipeline

from qdrant_rerank.integrations.haystack import CrossEncoderRanker, QdrantRerankRetriever

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(params=[False, True], ids=["dense", "with sparse vectors"])
def store(request, tmp_path):
    """A store that qdrant-haystack filled, on disk in qdrant-client's local mode."""
    made = store_module.QdrantDocumentStore(
        path=str(tmp_path / "db"),
        index="docs",
        embedding_dim=256,
        use_sparse_embeddings=request.param,
        progress_bar=False,
    )
    vectors = embed(TEXTS)
    made.write_documents(
        [
            Document(content=text, meta={"page": number}, embedding=vectors[number])
            for number, text in enumerate(TEXTS)
        ]
    )
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


def test_filters_and_embeddings_of_haystack_are_taken(store):
    """A filter as Haystack writes it, and the vector of another component."""
    only = {"field": "meta.page", "operator": "==", "value": 2}
    retriever = QdrantRerankRetriever(store, embedder=None)
    [vector] = embed([QUERY])
    found = retriever.run(QUERY, query_embedding=vector, filters=only)["documents"]
    assert [document.content for document in found] == [BREAD]
    assert len(retriever.run(QUERY, query_embedding=vector)["documents"]) == 3


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
    done = read.run({"retriever": {"query": QUERY}, "ranker": {"query": QUERY}})
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
