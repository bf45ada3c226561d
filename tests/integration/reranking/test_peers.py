"""The real classes of other packages as rerankers: sentence-transformers, FlashRank and others.

They are not in the environment of the tests; each test names the package that it needs.
"""

import asyncio
import json
import shutil

import numpy as np
import pytest

from qdrant_rerank import (
    AsyncHybridSearcher,
    ClientReranker,
    HybridSearcher,
    RemoteReranker,
    TextCrossEncoder,
)
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.reranking.loading import load_reranker
from tests.fault_server import serving
from tests.rerank_server import RerankServer, relevance

# Those of other packages, which are not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = ["Iron melts at 1538 C.", "Bread is baked.", "Ore is mined.", "A furnace is hot."]
QUERY = "melting point of iron"
EXPECTED = [relevance(QUERY, text) for text in TEXTS]


def peer(name):
    """The module, or a skip that says what to install."""
    return pytest.importorskip(name, reason=f"needs {name}: pip install --group adapters")


def order(scores):
    """Places of the documents, best first."""
    return np.argsort(-np.asarray(scores), kind="stable").tolist()


@pytest.fixture(scope="module")
def torch_model(tiny_bert, tmp_path_factory):
    """A random BERT classifier for torch, and the same as ONNX, in one directory."""
    transformers, torch = peer("transformers"), peer("torch")
    directory = tmp_path_factory.mktemp("torch")
    torch.manual_seed(7)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=1,
        initializer_range=0.5,
        attn_implementation="eager",
    )
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(directory)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(directory)
    inputs = tokenizer(["a b"], ["c d e"], return_tensors="pt")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    (directory / "onnx").mkdir()
    torch.onnx.export(
        model,
        ({name: inputs[name] for name in names},),
        directory / "onnx" / "model.onnx",
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names} | {"logits": {0: "batch"}},
        dynamo=False,
    )
    return directory


@pytest.fixture(scope="module")
def cross_encoder(torch_model):
    """sentence-transformers' class."""
    return peer("sentence_transformers").CrossEncoder(str(torch_model), device="cpu")


def test_a_cross_encoder_of_sentence_transformers(cross_encoder, client):
    """In a searcher, with its own scores."""
    expected = cross_encoder.predict([(QUERY, text) for text in TEXTS]).tolist()
    assert load_reranker(cross_encoder).rerank(QUERY, TEXTS) == pytest.approx(expected, abs=1e-6)
    assert load_reranker(cross_encoder).rerank(QUERY, TEXTS[:1]) == pytest.approx(
        expected[:1], abs=1e-6
    )
    searcher = HybridSearcher("c", client=client, reranker=cross_encoder)
    searcher.add(TEXTS, progress=False)
    found = searcher.search(QUERY)
    assert [hit.payload["text"] for hit in found] == [TEXTS[row] for row in order(expected)]


def test_many_threads_may_use_one_cross_encoder(cross_encoder):
    """Its tokenizer can be used by one at a time."""
    from concurrent.futures import ThreadPoolExecutor

    reranker = load_reranker(cross_encoder)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: reranker.rerank(QUERY, TEXTS), range(40)))
    assert all(scores == pytest.approx(found[0], abs=1e-6) for scores in found)


def test_a_cross_encoder_with_several_labels_is_refused(torch_model):
    """It has no single score."""
    many = peer("sentence_transformers").CrossEncoder(
        str(torch_model),
        num_labels=3,
        device="cpu",
        model_kwargs={"ignore_mismatched_sizes": True},
    )
    with pytest.raises(InvalidInputError, match="CrossEncoder with 3 labels"):
        load_reranker(many)


def test_rank_equals_that_of_sentence_transformers(cross_encoder, torch_model):
    """Order, scores to 1e-5, texts, top_k; and positional arguments."""
    ours = TextCrossEncoder(torch_model, activation="auto")
    texts = [*TEXTS, TEXTS[0]]
    for options in ({}, {"top_k": 2}, {"return_documents": True}, {"batch_size": 2}):
        expected = cross_encoder.rank(QUERY, texts, **options)
        found = ours.rank(QUERY, texts, **options)
        assert [one["corpus_id"] for one in found] == [one["corpus_id"] for one in expected]
        assert [set(one) for one in found] == [set(one) for one in expected]
        assert [one.get("text") for one in found] == [one.get("text") for one in expected]
        np.testing.assert_allclose(
            [one["score"] for one in found], [one["score"] for one in expected], atol=1e-5
        )
    assert ours.rank(QUERY, texts, 2, True)[1] == ours.rank(QUERY, texts, return_documents=True)[1]
    assert ours.rank(QUERY, []) == []


@pytest.fixture
def flashrank_directory(torch_model, tmp_path):
    """Where FlashRank finds a model of this name."""
    directory = tmp_path / "ms-marco-TinyBERT-L-2-v2"
    shutil.copytree(torch_model, directory)
    shutil.move(directory / "onnx" / "model.onnx", directory / "flashrank-TinyBERT-L-2-v2.onnx")
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    (directory / "special_tokens_map.json").write_text(json.dumps(names))
    vocabulary = json.loads((directory / "tokenizer.json").read_text())["model"]["vocab"]
    (directory / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({"pad_token_id": 0, **config}))
    return tmp_path


def test_a_ranker_of_flashrank(flashrank_directory, client):
    """It sorts and changes the dicts that it is given; its scores go to the right documents."""
    flashrank = peer("flashrank")
    ranker = flashrank.Ranker(cache_dir=str(flashrank_directory), max_length=64)
    alone = [
        ranker.rerank(flashrank.RerankRequest(QUERY, [{"text": text}]))[0]["score"]
        for text in TEXTS
    ]
    scores = load_reranker(ranker).rerank(QUERY, TEXTS)
    assert {type(score) for score in scores} == {float}
    np.testing.assert_allclose(scores, alone, atol=1e-4)
    searcher = HybridSearcher("c", client=client, reranker=ranker)
    searcher.add(TEXTS, progress=False)
    found = searcher.search(QUERY)
    assert [hit.payload for hit in found] == [{"text": TEXTS[row]} for row in order(scores)]


def test_a_transformer_of_rerankers(torch_model, cross_encoder, client):
    """Its results are sorted, and know their documents; equal texts are two documents."""
    rerankers = peer("rerankers")
    ranker = rerankers.Reranker(
        str(torch_model), model_type="cross-encoder", device="cpu", dtype="float32", verbose=0
    )
    texts = [*TEXTS, TEXTS[1]]
    scores = load_reranker(ranker).rerank(QUERY, texts)
    torch = peer("torch")
    pairs = [(QUERY, text) for text in texts]
    logits = cross_encoder.predict(pairs, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(scores, logits, atol=1e-4)
    searcher = HybridSearcher("c", client=client, reranker=ranker)
    searcher.add(TEXTS, progress=False)
    found = searcher.search(QUERY)
    assert [hit.payload["text"] for hit in found] == [TEXTS[row] for row in order(scores[:4])]


def test_an_api_of_rerankers():
    """Of a server on this machine, which sorts."""
    rerankers = peer("rerankers")
    with serving(RerankServer("voyage")) as url:
        ranker = rerankers.models.api_rankers.APIRanker(
            "m", "key", "voyage", url=f"{url}/v1/rerank"
        )
        assert load_reranker(ranker).rerank(QUERY, TEXTS) == EXPECTED


@pytest.mark.parametrize("kind", ["ClientV2", "Client"])
def test_a_client_of_cohere(kind, client):
    """Both kinds; a limit of its own hides nothing. Its request is what RemoteReranker sends."""
    cohere = peer("cohere")
    server = RerankServer("cohere")
    with serving(server) as url:
        made = getattr(cohere, kind)(api_key="key", base_url=url)
        reranker = ClientReranker(made, "m")
        assert reranker.rerank(QUERY, TEXTS) == EXPECTED
        path = "/v2/rerank" if kind == "ClientV2" else "/v1/rerank"
        ours = RemoteReranker(url + path, "m", "key")
        assert ours.rerank(QUERY, TEXTS) == EXPECTED
        searcher = HybridSearcher("c", client=client, reranker=reranker)
        searcher.add(TEXTS, progress=False)
        found = searcher.search(QUERY)
    assert [hit.payload["text"] for hit in found] == [TEXTS[row] for row in order(EXPECTED)]
    assert server.paths[0] == server.paths[1] == path
    assert server.seen[0] == server.seen[1]
    assert server.keys[0] == server.keys[1]


@pytest.mark.parametrize("name", ["model", "query", "documents"])
def test_parameters_of_a_client_do_not_replace_what_each_call_has(name):
    """Another query in them would be asked each time, without a word."""
    with pytest.raises(InvalidInputError, match=f"parameters has '{name}'; expected further"):
        ClientReranker(Client(), "m", parameters={name: "other"})


class Client:
    """A client of a service, as Cohere's."""

    def rerank(self, *, query, documents, model):
        raise AssertionError("nothing is asked")


def test_a_client_of_cohere_without_a_model_is_refused():
    """With the line that names one."""
    made = peer("cohere").ClientV2(api_key="key")
    with pytest.raises(InvalidInputError, match="ClientReranker"):
        load_reranker(made)


def test_an_async_client_of_cohere_is_awaited(client):
    """In AsyncHybridSearcher, and refused elsewhere."""
    cohere = peer("cohere")

    async def search(url):
        made = ClientReranker(cohere.AsyncClientV2(api_key="key", base_url=url), "m")
        with pytest.raises(InvalidInputError, match="AsyncHybridSearcher"):
            HybridSearcher("c", client=client, reranker=made)
        async with AsyncHybridSearcher("c", client=client, reranker=made) as searcher:
            await searcher.add(TEXTS, progress=False)
            return await searcher.search(QUERY)

    with serving(RerankServer("cohere")) as url:
        found = asyncio.run(search(url))
    assert [hit.payload["text"] for hit in found] == [TEXTS[row] for row in order(EXPECTED)]


def test_a_client_of_voyage():
    """Its request has the fields that RemoteReranker sends."""
    voyageai = peer("voyageai")
    server = RerankServer("voyage")
    with serving(server) as url:
        made = voyageai.Client(api_key="key", base_url=f"{url}/v1")
        assert ClientReranker(made, "m").rerank(QUERY, TEXTS) == EXPECTED
        assert RemoteReranker(url, "m", "key", api="voyage").rerank(QUERY, TEXTS) == EXPECTED
    assert server.paths[0] == server.paths[1] == "/v1/rerank"
    theirs, ours = server.seen
    assert {name: theirs[name] for name in ("model", "query", "documents", "top_k")} == {
        name: ours[name] for name in ("model", "query", "documents", "top_k")
    }
    assert server.keys[0] == server.keys[1]


def test_an_async_client_of_voyage_is_awaited():
    """By ``rerank_async``."""
    voyageai = peer("voyageai")

    async def ask(url):
        made = voyageai.AsyncClient(api_key="key", base_url=f"{url}/v1")
        return await ClientReranker(made, "m").rerank_async(QUERY, TEXTS)

    with serving(RerankServer("voyage")) as url:
        assert asyncio.run(ask(url)) == EXPECTED


def test_a_reranker_of_langchain_cohere():
    """Its ``rerank`` takes the documents first."""
    cohere, langchain_cohere = peer("cohere"), peer("langchain_cohere.rerank")
    with serving(RerankServer("cohere")) as url:
        made = langchain_cohere.CohereRerank(
            client=cohere.ClientV2(api_key="key", base_url=url), model="m", top_n=1
        )
        assert load_reranker(made).rerank(QUERY, TEXTS) == EXPECTED


@pytest.mark.parametrize("as_list", [False, True])
def test_tensors_of_torch_are_scores(as_list):
    """With a gradient, and in bfloat16, which numpy does not have."""
    torch = peer("torch")

    def scores(query, documents):
        made = torch.tensor([float(len(text)) for text in documents], requires_grad=True)
        return list(made.bfloat16()) if as_list else made.bfloat16()

    assert load_reranker(scores).rerank("q", ["abc", "a"]) == [3.0, 1.0]
