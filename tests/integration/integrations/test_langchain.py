"""The LangChain components, on collections that langchain-qdrant wrote."""

import asyncio
import os

import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank import AsyncHybridSearcher, Bm25Encoder, HybridSearcher
from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.integration.integrations.frameworks import (
    BREAD,
    IRON,
    QUERY,
    TEXTS,
    UUID_TEXT,
    collection_name,
    embed,
    needed,
)

needed("langchain_core")
store_module = needed("langchain_qdrant")
tests_module = needed("langchain_tests.integration_tests")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import ConfigurableField
from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

from qdrant_rerank.integrations.langchain import CrossEncoderCompressor, QdrantRerankRetriever

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Bundled(Embeddings):
    """The bundled embedder as LangChain's."""

    def embed_documents(self, texts):
        """One vector per text."""
        return embed(texts)

    def embed_query(self, text):
        """The vector of a text."""
        return embed([text])[0]


class Words(SparseEmbeddings):
    """BM25 as langchain-qdrant's."""

    def embed_documents(self, texts):
        """One vector per text."""
        vectors = Bm25Encoder().embed_documents(texts)
        return [SparseVector(indices=v.indices, values=v.values) for v in vectors]

    def embed_query(self, text):
        """The vector of a text."""
        vector = Bm25Encoder().embed_query(text)
        return SparseVector(indices=vector.indices, values=vector.values)


def stored(mode="dense", name="docs", **place):
    """A store that langchain-qdrant filled, in qdrant-client's local mode or where it is told."""
    return store_module.QdrantVectorStore.from_texts(
        TEXTS,
        Bundled(),
        metadatas=[{"page": number} for number in range(len(TEXTS))],
        collection_name=name,
        retrieval_mode=store_module.RetrievalMode(mode),
        sparse_embedding=None if mode == "dense" else Words(),
        **(place or {"location": ":memory:"}),
    )


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_a_store_is_searched_as_it_was_filled_and_reranked(mode):
    """The best answer comes first, whatever the store's mode, with both scores and the id."""
    store = stored(mode)
    retriever = QdrantRerankRetriever.from_vector_store(store, k=3)
    documents = retriever.invoke(QUERY)
    assert documents[0].page_content == IRON
    scores = [document.metadata["rerank_score"] for document in documents]
    assert scores == sorted(scores, reverse=True)
    plain = [
        (document.metadata["_id"], score)
        for document, score in store.similarity_search_with_score(QUERY, k=3)
    ]
    by_rank = sorted(documents, key=lambda document: document.metadata["retrieval_rank"])
    found = [(d.metadata["_id"], d.metadata["retrieval_score"]) for d in by_rank]
    if mode == "hybrid":  # whose fused scores may be equal
        assert {one for one, _ in found} == {one for one, _ in plain}
    else:
        assert found == [(one, pytest.approx(score)) for one, score in plain]
    first = documents[0].metadata
    assert (first["page"], first["_collection_name"]) == (1, "docs")
    assert store.get_by_ids([first["_id"]])[0].page_content == IRON
    searched = retriever.searcher.search(QUERY).trace.vectors
    assert len(searched) == (2 if mode == "hybrid" else 1)
    store.client.close()


def test_a_store_in_the_embedded_engine_is_reranked(tmp_path):
    """Its client is ours, which langchain-qdrant writes with."""
    client = EmbeddedClient(str(tmp_path / "db"))
    dense = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection(
        "docs", vectors_config=dense, sparse_vectors_config={"words": models.SparseVectorParams()}
    )
    store = store_module.QdrantVectorStore(
        client,
        "docs",
        Bundled(),
        retrieval_mode=store_module.RetrievalMode.HYBRID,
        sparse_embedding=Words(),
        sparse_vector_name="words",
    )
    store.add_texts(TEXTS)
    assert store.similarity_search(QUERY, k=1)[0].page_content != IRON
    retriever = QdrantRerankRetriever.from_vector_store(store)
    assert retriever.invoke(QUERY)[0].page_content == IRON
    assert len(retriever.searcher.search(QUERY).trace.vectors) == 2
    client.close()


@pytest.mark.server
@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_a_store_on_a_server_is_reranked(mode, server_url):
    """As one in local mode is, awaited or not."""
    with collection_name() as name:
        store = stored(mode, name, url=server_url, api_key=os.environ.get("QDRANT_API_KEY"))
        retriever = QdrantRerankRetriever.from_vector_store(store)
        documents = retriever.invoke(QUERY)
        assert documents[0].page_content == IRON
        assert asyncio.run(retriever.ainvoke(QUERY)) == documents
        store.client.close()


def test_both_kinds_of_searchers_are_awaited():
    """A HybridSearcher in a thread, an AsyncHybridSearcher in the event loop itself."""
    store = stored()

    async def ask(searcher):
        return [d.metadata["_id"] for d in await QdrantRerankRetriever(searcher).ainvoke(QUERY)]

    async def both():
        async with AsyncHybridSearcher("docs", client=store.client) as searcher:
            with pytest.raises(InvalidInputError, match="only ainvoke"):
                QdrantRerankRetriever(searcher).invoke(QUERY)
            return await ask(searcher)

    blocking = HybridSearcher("docs", client=store.client)
    assert asyncio.run(both()) == asyncio.run(ask(blocking))
    store.client.close()


def test_filters_and_thresholds_narrow_the_page():
    """Given to the retriever, or with one call."""
    store = stored()
    only = {"must": [{"key": "metadata.page", "match": {"value": 2}}]}
    retriever = QdrantRerankRetriever.from_vector_store(store, query_filter=only)
    assert [d.page_content for d in retriever.invoke(QUERY)] == [BREAD]
    whole = QdrantRerankRetriever.from_vector_store(store).invoke(QUERY)
    first, second = (document.metadata["rerank_score"] for document in whole[:2])
    between = (first + second) / 2
    everything = QdrantRerankRetriever.from_vector_store(store, score_threshold=between)
    assert [d.page_content for d in everything.invoke(QUERY)] == [IRON]
    assert everything.invoke(QUERY, query_filter=only) == []
    store.client.close()


def test_the_retriever_is_a_runnable_like_any_other():
    """It is bound, configured, batched, and piped into a function."""
    store = stored()
    retriever = QdrantRerankRetriever.from_vector_store(store, k=3)
    assert len(retriever.bind(k=1).invoke(QUERY)) == 1
    configurable = retriever.configurable_fields(k=ConfigurableField(id="k"))
    assert len(configurable.invoke(QUERY, config={"configurable": {"k": 2}})) == 2
    chain = retriever | (lambda documents: documents[0].page_content)
    assert chain.batch([QUERY, QUERY]) == [IRON, IRON]
    store.client.close()


def test_a_collection_of_ours_and_a_query_like_an_id():
    """The text is where the searcher finds it; a UUID of a framework's user is a text."""
    with HybridSearcher("own", client=QdrantClient(":memory:")) as searcher:
        searcher.add([{"text": IRON, "page": 7}, {"text": UUID_TEXT, "page": 8}])
        document = QdrantRerankRetriever(searcher).invoke(QUERY)[0]
        assert (document.page_content, document.metadata["page"]) == (IRON, 7)
        assert "text" not in document.metadata
        found = QdrantRerankRetriever(searcher, k=1).invoke(UUID_TEXT)
        assert found[0].page_content == UUID_TEXT
        searcher.client.close()


def test_the_compressor_keeps_metadata_and_the_documents_that_came_in():
    """Copies, with the score and the former place; the last ones have no text."""
    documents = [
        Document(text, id=str(n), metadata={"page": n}) for n, text in enumerate([*TEXTS, ""])
    ]
    compressor = CrossEncoderCompressor(top_n=None)
    kept = compressor.compress_documents(documents, QUERY)
    assert [document.id for document in kept][::3] == ["1", "3"]
    assert kept[0].metadata["retrieval_rank"] == 2
    assert kept[0].metadata["page"] == 1
    assert kept[-1].metadata["rerank_score"] is None
    assert all("rerank_score" not in document.metadata for document in documents)
    assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == kept
    assert len(CrossEncoderCompressor(top_n=2).compress_documents(documents, QUERY)) == 2
    assert compressor.compress_documents([], QUERY) == []


def test_the_compressor_scores_as_the_retriever_does():
    """The same text, the same model: the same score."""
    store = stored()
    found = QdrantRerankRetriever.from_vector_store(store).invoke(QUERY)
    again = CrossEncoderCompressor().compress_documents(found, QUERY)
    assert [d.metadata["rerank_score"] for d in again] == pytest.approx(
        [d.metadata["rerank_score"] for d in found], abs=1e-4
    )
    store.client.close()


def test_wrong_arguments_are_refused_when_the_component_is_made():
    """With our own errors, not pydantic's."""
    with pytest.raises(InvalidInputError, match="from_vector_store"):
        QdrantRerankRetriever("docs")
    with pytest.raises(InvalidInputError, match="expected a QdrantVectorStore"):
        QdrantRerankRetriever.from_vector_store(object())
    with pytest.raises(UnknownModelError):
        CrossEncoderCompressor("no-such-model")
    with pytest.raises(InvalidInputError, match="top_n"):
        CrossEncoderCompressor(top_n=0)
    with pytest.raises(InvalidInputError, match="text=5"):
        CrossEncoderCompressor(text=5)
    with pytest.raises(InvalidInputError, match="query"):
        CrossEncoderCompressor().compress_documents([], " ")
    with pytest.raises(InvalidInputError, match="is a str; expected Documents of langchain_core"):
        CrossEncoderCompressor().compress_documents([IRON], QUERY)
    store = stored()
    for wrong in (
        {"k": 0},
        {"candidates": 0},
        {"query_filter": "page 2"},
        {"score_threshold": "a"},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            QdrantRerankRetriever.from_vector_store(store, **wrong)
    with pytest.raises(InvalidInputError, match="limit is 0"):
        QdrantRerankRetriever.from_vector_store(store).invoke(QUERY, k=0)
    store.client.close()


class TestStandard(tests_module.RetrieversIntegrationTests):
    """LangChain's standard tests of a retriever."""

    @pytest.fixture(autouse=True)
    def _store(self):
        self.store = stored()
        yield
        self.store.client.close()

    @property
    def retriever_constructor(self):
        """What is tested."""
        return QdrantRerankRetriever

    @property
    def retriever_constructor_params(self):
        """Its arguments."""
        return {"searcher": HybridSearcher("docs", client=self.store.client)}

    @property
    def retriever_query_example(self):
        """A query."""
        return QUERY
