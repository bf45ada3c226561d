"""The LlamaIndex components, on a collection that llama-index-vector-stores-qdrant wrote."""

import asyncio
import json
import os

import pytest
from qdrant_client import QdrantClient

from qdrant_rerank import AsyncHybridSearcher, Bm25Encoder, HybridSearcher
from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
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

needed("llama_index.core")
store_module = needed("llama_index.vector_stores.qdrant")

from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilters

from qdrant_rerank.integrations.llama_index import (
    CrossEncoderPostprocessor,
    QdrantRerankRetriever,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:Payload indexes have no effect:UserWarning"
)


def words(texts):
    """BM25 as the sparse functions of LlamaIndex's store return it."""
    vectors = Bm25Encoder().embed_documents(texts)
    return [v.indices for v in vectors], [v.values for v in vectors]


def filled(client, name="docs", hybrid=False):
    """A store that LlamaIndex filled."""
    sparse = {"sparse_doc_fn": words, "sparse_query_fn": words} if hybrid else {}
    store = store_module.QdrantVectorStore(
        collection_name=name, client=client, enable_hybrid=hybrid, **sparse
    )
    vectors = embed(TEXTS)
    store.add(
        [
            TextNode(text=text, metadata={"page": number}, embedding=vectors[number])
            for number, text in enumerate(TEXTS)
        ]
    )
    return store


@pytest.fixture(params=["local mode", "embedded engine"])
def client(request, tmp_path):
    """A collection that LlamaIndex filled, in qdrant-client's local mode or in Qdrant's engine."""
    local = request.param == "local mode"
    made = QdrantClient(":memory:") if local else EmbeddedClient(str(tmp_path / "db"))
    filled(made)
    yield made
    made.close()


@pytest.mark.parametrize("hybrid", [False, True], ids=["dense", "hybrid"])
def test_a_store_is_searched_as_it_was_filled_and_reranked(hybrid):
    """With the store's own sparse functions if it is hybrid; LlamaIndex's filters narrow."""
    client = QdrantClient(":memory:")
    store = filled(client, hybrid=hybrid)
    retriever = QdrantRerankRetriever.from_vector_store(store, embed, similarity_top_k=2)
    assert [node.text for node in retriever.retrieve(QUERY)] == [IRON, PANS]
    searched = retriever.searcher.search(QUERY).trace.vectors
    assert len(searched) == (2 if hybrid else 1)
    filters = MetadataFilters.from_dicts([{"key": "page", "value": 1, "operator": ">"}])
    narrow = QdrantRerankRetriever.from_vector_store(store, embed, filters=filters)
    assert [node.text for node in narrow.retrieve(QUERY)] == [BREAD]
    client.close()


@pytest.mark.server
@pytest.mark.parametrize("hybrid", [False, True], ids=["dense", "hybrid"])
def test_a_store_on_a_server_is_reranked(hybrid, server_url):
    """As one in local mode is, awaited or not."""
    client = QdrantClient(server_url, api_key=os.environ.get("QDRANT_API_KEY"))
    with collection_name() as name:
        store = filled(client, name, hybrid)
        retriever = QdrantRerankRetriever.from_vector_store(store, embed)
        nodes = retriever.retrieve(QUERY)
        assert nodes[0].text == IRON
        assert [n.score for n in asyncio.run(retriever.aretrieve(QUERY))] == [
            pytest.approx(n.score) for n in nodes
        ]
    client.close()


def test_a_query_engine_answers_from_what_both_components_return(client):
    """With a language model that repeats its prompt: no score is in the prompt."""
    engine = RetrieverQueryEngine.from_args(
        QdrantRerankRetriever(HybridSearcher("docs", client=client)),
        llm=MockLLM(),
        node_postprocessors=[CrossEncoderPostprocessor(top_n=2)],
    )
    answer = engine.query(QUERY)
    assert [node.text for node in answer.source_nodes] == [IRON, PANS]
    assert IRON in answer.response
    assert "score" not in answer.response


def test_the_postprocessor_is_a_component_of_llama_index():
    """As LlamaIndex's own tests ask: its base, its name, its dict; handlers are told of it."""
    told = LlamaDebugHandler(print_trace_on_end=False)
    made = CrossEncoderPostprocessor(top_n=1, callback_manager=CallbackManager([told]))
    assert isinstance(made, BaseNodePostprocessor)
    assert made.to_dict()["class_name"] == "CrossEncoderPostprocessor"
    again = CrossEncoderPostprocessor.from_dict(json.loads(made.to_json()))
    assert (again.reranker, again.top_n) == (made.reranker, 1)
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    made.postprocess_nodes(nodes, query_str=QUERY)
    [[start, end]] = told.get_event_pairs(CBEventType.RERANKING)
    assert start.payload["query_str"] == QUERY
    assert [node.text for node in end.payload["nodes"]] == [IRON]


def test_nodes_come_back_as_they_were_written_and_reranked(client):
    """The best answer first; its metadata has both scores, which no prompt shows."""
    retriever = QdrantRerankRetriever(HybridSearcher("docs", client=client), similarity_top_k=2)
    nodes = retriever.retrieve(QUERY)
    assert [node.node.get_content() for node in nodes] == [IRON, PANS]
    first = nodes[0]
    assert first.score == first.metadata["rerank_score"] > nodes[1].score
    assert (first.metadata["page"], first.metadata["retrieval_rank"]) == (1, 2)
    assert first.metadata["retrieval_score"] < nodes[1].metadata["retrieval_score"]
    assert client.retrieve("docs", [first.node.node_id])
    assert "score" not in first.node.get_content(metadata_mode=MetadataMode.LLM)
    assert "score" not in first.node.get_content(metadata_mode=MetadataMode.EMBED)


def test_both_kinds_of_searchers_are_awaited(client):
    """A HybridSearcher in a thread, an AsyncHybridSearcher in the event loop itself."""

    async def ask(searcher):
        found = await QdrantRerankRetriever(searcher).aretrieve(QUERY)
        return [node.node.node_id for node in found]

    async def awaited():
        async with AsyncHybridSearcher("docs", client=client) as searcher:
            with pytest.raises(InvalidInputError, match="only aretrieve"):
                QdrantRerankRetriever(searcher).retrieve(QUERY)
            return await ask(searcher)

    blocking = HybridSearcher("docs", client=client)
    assert asyncio.run(awaited()) == asyncio.run(ask(blocking))


def test_points_that_llama_index_did_not_write_become_nodes():
    """Of a collection of ours, with the id of the point."""
    with HybridSearcher("own", client=QdrantClient(":memory:")) as searcher:
        searcher.add([{"text": IRON, "page": 7}], ids=[5])
        [found] = QdrantRerankRetriever(searcher).retrieve(QUERY)
        assert (found.node.node_id, found.text, found.metadata["page"]) == ("5", IRON, 7)
        searcher.client.close()


def test_the_postprocessor_keeps_the_first_score_and_the_nodes_that_came_in():
    """Copies, with the reranker's score; async gives the same."""
    nodes = [
        NodeWithScore(node=TextNode(id_=str(n), text=text, metadata={"page": n}), score=0.9 - n / 9)
        for n, text in enumerate([*TEXTS, ""])
    ]
    made = CrossEncoderPostprocessor()
    kept = made.postprocess_nodes(nodes, query_str=QUERY)
    assert [one.node.node_id for one in kept][::3] == ["1", "3"]
    assert kept[0].metadata["retrieval_score"] == nodes[1].score
    assert kept[0].score == kept[0].metadata["rerank_score"]
    assert kept[-1].metadata["rerank_score"] is None
    assert [one.score for one in nodes] == [0.9 - n / 9 for n in range(4)]
    assert all(one.metadata == {"page": n} for n, one in enumerate(nodes))
    again = asyncio.run(made.apostprocess_nodes(nodes, query_str=QUERY))
    assert [one.score for one in again] == [one.score for one in kept]
    assert len(CrossEncoderPostprocessor(top_n=1).postprocess_nodes(nodes, query_str=QUERY)) == 1
    assert made.postprocess_nodes([], query_str=QUERY) == []


def test_the_reranker_reads_metadata_where_that_is_asked_for():
    """The mode is LlamaIndex's own."""
    read = []

    def scores(query, documents):
        read.extend(documents)
        return [0.0] * len(documents)

    nodes = [NodeWithScore(node=TextNode(text=IRON, metadata={"title": "Metals"}))]
    for mode in (MetadataMode.NONE, MetadataMode.EMBED):
        made = CrossEncoderPostprocessor(scores, metadata_mode=mode)
        [node] = made.postprocess_nodes(nodes, query_str=QUERY)
        assert node.metadata["retrieval_score"] is None
    assert read == [IRON, f"title: Metals\n\n{IRON}"]


def test_wrong_arguments_are_refused_when_the_component_is_made():
    """With our own errors, not pydantic's."""
    with pytest.raises(InvalidInputError, match="expected a HybridSearcher"):
        QdrantRerankRetriever("docs")
    with pytest.raises(UnknownModelError):
        CrossEncoderPostprocessor("no-such-model")
    with pytest.raises(InvalidInputError, match="top_n"):
        CrossEncoderPostprocessor(top_n=0)
    with pytest.raises(InvalidInputError, match="metadata_mode is 'most'"):
        CrossEncoderPostprocessor(metadata_mode="most")
    with pytest.raises(InvalidInputError, match="expected a QdrantVectorStore"):
        QdrantRerankRetriever.from_vector_store(object())
    client = QdrantClient(":memory:")
    with pytest.raises(InvalidInputError, match="filters is a dict"):
        QdrantRerankRetriever.from_vector_store(filled(client), embed, filters={"must": []})
    searcher = HybridSearcher("docs", client=client)
    wrongs = {"similarity_top_k": 0, "candidates": 0, "query_filter": "a", "score_threshold": "a"}
    for name, wrong in wrongs.items():
        with pytest.raises(InvalidInputError, match=name):
            QdrantRerankRetriever(searcher, **{name: wrong})
    client.close()
    with pytest.raises(InvalidInputError, match="expected NodeWithScores of llama_index"):
        CrossEncoderPostprocessor()._postprocess_nodes([IRON], QueryBundle(QUERY))
    with pytest.raises(InvalidInputError, match="query_str"):
        CrossEncoderPostprocessor().postprocess_nodes([])
