"""The clients of other packages, as their users call them: make serving-clients."""

import json
import os
import subprocess
import sys

import pytest

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from tests.serving import served

TEXTS = ["Bread is baked in an oven.", "Iron melts at 1538 C.", "Copper melts at 1085 C."]
QUERY = "melting point of iron"
NAME = DEFAULT_RERANKER
pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages
KEY = "0815-not-a-secret-of-anyone"


@pytest.fixture(autouse=True)
def no_other_machine(monkeypatch):
    """What these packages ask of their makers' servers is switched off."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")


@pytest.fixture(scope="module")
def url():
    """A server that asks for a key."""
    with served(api_keys=[KEY]) as found:
        yield found


@pytest.fixture(scope="module")
def scores():
    """Of each text, by the library."""
    return TextCrossEncoder(DEFAULT_RERANKER, activation="sigmoid").rerank(QUERY, TEXTS)


@pytest.fixture(scope="module")
def ranked(scores):
    """(index, score), the best first."""
    return sorted(enumerate(scores), key=lambda one: -one[1])


def test_cohere_v2(url, ranked):
    """``ClientV2.rerank``, with a limit and with its error."""
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key=KEY, base_url=url)
    answer = client.rerank(model=NAME, query=QUERY, documents=TEXTS)
    assert [(one.index, one.relevance_score) for one in answer.results] == ranked
    assert answer.meta.api_version.version == "2"
    answer = client.rerank(
        model=NAME, query=QUERY, documents=TEXTS, top_n=1, max_tokens_per_doc=4096
    )
    assert [(one.index, one.relevance_score) for one in answer.results] == ranked[:1]
    with pytest.raises(cohere.NotFoundError, match="is not served here"):
        client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2(api_key="wrong", base_url=url).rerank(
            model=NAME, query=QUERY, documents=TEXTS
        )


def test_cohere_v1(url, ranked):
    """``Client.rerank``, with objects and their fields."""
    cohere = pytest.importorskip("cohere")
    client = cohere.Client(api_key=KEY, base_url=url)
    documents = [{"text": text, "source": "x"} for text in TEXTS]
    answer = client.rerank(model=NAME, query=QUERY, documents=documents, return_documents=True)
    assert [(one.index, one.relevance_score) for one in answer.results] == ranked
    assert [one.document.text for one in answer.results] == [TEXTS[row] for row, _ in ranked]
    answer = client.rerank(
        model=NAME, query=QUERY, documents=documents, rank_fields=["source"], top_n=2
    )
    assert len(answer.results) == 2


def test_langchain_cohere(url, ranked):
    """``CohereRerank`` as a document compressor."""
    langchain_cohere = pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    reranker = langchain_cohere.CohereRerank(model=NAME, cohere_api_key=KEY, base_url=url, top_n=2)
    found = reranker.compress_documents([Document(text) for text in TEXTS], QUERY)
    assert [(one.page_content, one.metadata["relevance_score"]) for one in found] == [
        (TEXTS[row], score) for row, score in ranked[:2]
    ]


def nodes():
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in TEXTS]


def test_llama_index_cohere(url, ranked):
    """``CohereRerank`` as a node postprocessor."""
    module = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    reranker = module.CohereRerank(api_key=KEY, base_url=url, model=NAME, top_n=2)
    found = reranker.postprocess_nodes(nodes(), query_str=QUERY)
    assert [(one.text, one.score) for one in found] == [
        (TEXTS[row], score) for row, score in ranked[:2]
    ]


def test_llama_index_jina(url, ranked):
    """``JinaRerank`` as a node postprocessor, and the error that it reads."""
    module = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    reranker = module.JinaRerank(api_key=KEY, base_url=f"{url}/v1", model=NAME, top_n=2)
    found = reranker.postprocess_nodes(nodes(), query_str=QUERY)
    assert [(one.text, one.score) for one in found] == [
        (TEXTS[row], score) for row, score in ranked[:2]
    ]
    other = module.JinaRerank(api_key=KEY, base_url=f"{url}/v1", model="other")
    with pytest.raises(RuntimeError, match="is not served here"):
        other.postprocess_nodes(nodes(), query_str=QUERY)


def test_llama_index_tei(url, ranked):
    """``TextEmbeddingInference`` as a node postprocessor."""
    module = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    reranker = module.TextEmbeddingInference(base_url=url, top_n=2, auth_token=f"Bearer {KEY}")
    found = reranker.postprocess_nodes(nodes(), query_str=QUERY)
    assert [(one.text, one.score) for one in found] == [
        (TEXTS[row], score) for row, score in ranked[:2]
    ]


def test_haystack(url, ranked):
    """``HuggingFaceTEIRanker`` as a component."""
    module = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    from haystack import Document
    from haystack.utils import Secret

    ranker = module.HuggingFaceTEIRanker(url=url, top_k=2, token=Secret.from_token(KEY))
    found = ranker.run(query=QUERY, documents=[Document(content=text) for text in TEXTS])
    assert [(one.content, one.score) for one in found["documents"]] == [
        (TEXTS[row], score) for row, score in ranked[:2]
    ]


SIMILARITY = """
import json, sys
from huggingface_hub import InferenceClient
url, key, query, texts = json.loads(sys.argv[1])
print(json.dumps(InferenceClient(model=url, token=key).sentence_similarity(query, texts)))
"""


def test_huggingface_hub(url, scores):
    """``InferenceClient.sentence_similarity``: a score per text, in their order.

    In a process whose hub is the server, too: the client asks the hub once a day for a list.
    """
    pytest.importorskip("huggingface_hub")
    done = subprocess.run(
        [sys.executable, "-c", SIMILARITY, json.dumps([url, KEY, QUERY, TEXTS])],
        env=os.environ | {"HF_ENDPOINT": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == scores


@pytest.mark.parametrize(
    ("provider", "path"),
    [("cohere", ""), ("jina_ai", "/v1/rerank"), ("infinity", "/infinity"), ("hosted_vllm", "")],
)
def test_litellm(url, ranked, provider, path):
    """``litellm.rerank`` with the providers that take the address of a server."""
    litellm = pytest.importorskip("litellm")
    answer = litellm.rerank(
        model=f"{provider}/{NAME}",
        query=QUERY,
        documents=TEXTS,
        top_n=2,
        api_base=url + path,
        api_key=KEY,
    )
    assert [(one["index"], one["relevance_score"]) for one in answer.results] == ranked[:2]
