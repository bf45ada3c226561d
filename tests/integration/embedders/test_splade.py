"""SPLADE models: the maker's weights, other exports, asymmetric models, and what is refused."""

import json
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qdrant_rerank import HybridSearcher, SpladeEncoder
from qdrant_rerank.embedders import load_sparse
from qdrant_rerank.errors import (
    InvalidInputError,
    ModelFileError,
    ModelOutputError,
    SchemaMismatchError,
)
from tests.conftest import MODELS
from tests.models.build import WORDS
from tests.unit.embedders.safetensors_files import written

TINY = MODELS / "tiny-splade"
RECORDED = json.loads((TINY / "weights.json").read_text("utf-8"))
VOCABULARY = 2000
TEXTS = ["iron melts in the hot fire", "bread", "the river flows to the sea and back again"]


@pytest.fixture(scope="module")
def encoder():
    """The tiny model, loaded once."""
    return SpladeEncoder(TINY)


@pytest.fixture
def copy(tmp_path):
    """A copy of the model to change."""
    return shutil.copytree(TINY, tmp_path / "copy")


def dense(vector):
    """A sparse vector with all its zeros."""
    full = np.zeros(VOCABULARY, dtype=np.float32)
    full[vector.indices] = vector.values
    return full


def edited(folder, edit):
    """The folder, its graph changed."""
    path = folder / "onnx" / "model.onnx"
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    return folder


def with_end(*nodes, shape, **constants):
    """An edit that puts nodes behind the logits, which become ``raw``."""

    def edit(model):
        for node in model.graph.node:
            node.output[:] = ["raw" if name == "logits" else name for name in node.output]
        model.graph.node.extend(nodes)
        for name, values in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
        del model.graph.output[:]
        model.graph.output.append(
            helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, shape)
        )

    return edit


def test_weights_are_the_makers(encoder):
    """Equal to those of sentence-transformers' own SparseEncoder, to 1e-4, and no others."""
    made = encoder.embed_documents(RECORDED["texts"])
    for vector, recorded in zip(made, RECORDED["weights"], strict=True):
        assert vector.indices == sorted(map(int, recorded))
        np.testing.assert_allclose(vector.values, list(by_place(recorded)), atol=1e-4)


def by_place(recorded):
    """Weights in the order of their places, which JSON's sorted keys are not."""
    return (recorded[place] for place in sorted(recorded, key=int))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join), max_size=6))
def test_a_vector_depends_on_its_text_alone(texts):
    """Whatever the other texts of the batch, and however they are padded."""
    encoder = load_sparse(TINY)
    together = encoder.embed_documents(texts)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(dense(vector), dense(encoder.embed_query(text)), atol=1e-5)


def test_only_the_largest_weights_are_kept(encoder):
    """With max_active_dims; the indices stay in order."""
    cut = SpladeEncoder(TINY, max_active_dims=5)
    for whole, part in zip(encoder.embed_documents(TEXTS), cut.embed_documents(TEXTS), strict=True):
        assert part.indices == sorted(part.indices)
        assert sorted(part.values) == sorted(whole.values)[-5:]
        assert (
            dict(zip(part.indices, part.values, strict=True)).items()
            <= dict(zip(whole.indices, whole.values, strict=True)).items()
        )


def test_an_export_with_pooled_weights(encoder, copy):
    """Its output is taken as it is, without its zeros."""
    nodes = [
        helper.make_node("Relu", ["raw"], ["positive"]),
        helper.make_node("Add", ["positive", "one"], ["above"]),
        helper.make_node("Log", ["above"], ["weights"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["weights", "wide"], ["masked"]),
        helper.make_node("ReduceMax", ["masked"], ["sparse"], axes=[1], keepdims=0),
    ]
    edit = with_end(*nodes, shape=["batch", VOCABULARY], one=np.float32(1), last=[2])
    pooled = SpladeEncoder(edited(copy, edit))
    for vector, own in zip(
        pooled.embed_documents(TEXTS), encoder.embed_documents(TEXTS), strict=True
    ):
        np.testing.assert_allclose(dense(vector), dense(own), atol=1e-5)


@pytest.mark.parametrize(("pooling", "activation"), [("sum", "relu"), ("max", "log1p_relu")])
def test_pooling_and_activation_are_read_and_can_be_passed(encoder, copy, pooling, activation):
    """Of the SpladePooling that modules.json lists; an argument goes first."""
    path = copy / "1_SpladePooling" / "config.json"
    path.write_text(json.dumps({"pooling_strategy": pooling, "activation_function": activation}))
    read, passed = SpladeEncoder(copy), SpladeEncoder(TINY, pooling=pooling, activation=activation)
    back = SpladeEncoder(copy, pooling="max", activation="relu")
    for made, same, other, plain in zip(
        *(each.embed_documents(TEXTS) for each in (read, passed, back, encoder)), strict=True
    ):
        assert made == same
        assert other == plain
        if activation == "log1p_relu":
            np.testing.assert_allclose(dense(made), np.log1p(dense(plain)), atol=1e-6)
        else:
            assert (dense(made) >= dense(plain)).all()


def asymmetric(folder, weights):
    """Queries by a table, as sentence-transformers writes its Router."""
    table = folder / "query_0_SparseStaticEmbedding"
    table.mkdir()
    shutil.copy(folder / "tokenizer.json", table)
    written(table / "model.safetensors", weight=weights)
    (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "x.router.Router"}])
    )
    (folder / "router_config.json").write_text(
        json.dumps(
            {
                "types": {
                    "query_0_SparseStaticEmbedding": "x.SparseStaticEmbedding",
                    "": "x.MLMTransformer",
                    "1_SpladePooling": "x.SpladePooling",
                },
                "structure": {
                    "query": ["query_0_SparseStaticEmbedding"],
                    "document": ["", "1_SpladePooling"],
                },
            }
        )
    )
    return folder


def test_an_asymmetric_model_looks_queries_up(encoder, copy):
    """Each token once with its weight, without special tokens; documents go through the network."""
    weights = np.linspace(0, 2, VOCABULARY, dtype=np.float32)
    model = SpladeEncoder(asymmetric(copy, weights))
    assert model.embed_documents(TEXTS) == encoder.embed_documents(TEXTS)
    vocabulary = json.loads((copy / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    places = sorted(vocabulary[word] for word in ("iron", "hot"))
    query = model.embed_query("iron, hot iron")
    kept = [place for place in query.indices if place in places]
    assert kept == places
    assert query.values == weights[query.indices].tolist()
    assert not {2, 3} & set(query.indices)  # [CLS] and [SEP]


def test_an_idf_table_needs_an_activation(encoder, copy):
    """OpenSearch's files do not tell it; with it, queries have the table's weights."""
    for name in ("modules.json", "1_SpladePooling"):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copy / "idf.json").write_text(json.dumps({"iron": 2.5, "bread": 1.25, "unheard-of": 9.0}))
    with pytest.raises(InvalidInputError, match="activation='log1p_relu'"):
        SpladeEncoder(copy)
    model = SpladeEncoder(copy, activation="relu")
    assert sorted(model.embed_query("bread iron stone").values) == [1.25, 2.5]
    assert model.embed_documents(TEXTS) == encoder.embed_documents(TEXTS)


def test_weights_for_pytorch_alone_say_how_to_export(copy):
    """With the task whose output are logits."""
    shutil.rmtree(copy / "onnx")
    (copy / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ModelFileError, match="optimum-cli export onnx --task fill-mask"):
        SpladeEncoder(copy)


def test_other_kinds_of_models_are_refused(tiny_bert_embedder, tiny_bert, copy):
    """A model without the vocabulary in its output, NaN, and modules of another kind."""
    for folder in (tiny_bert_embedder, tiny_bert):
        with pytest.raises(ModelOutputError, match="Is it an embedding model or a cross-encoder"):
            SpladeEncoder(folder)
    nan = helper.make_node("Mul", ["raw", "nan"], ["logits"])
    shape = ["batch", "tokens", VOCABULARY]
    edited(copy, with_end(nan, shape=shape, nan=np.float32("nan")))
    with pytest.raises(ModelOutputError, match="NaN or infinity"):
        SpladeEncoder(copy)
    (copy / "modules.json").write_text('[{"path": "", "type": "x.Transformer"}]')
    with pytest.raises(ModelFileError, match="lists the modules Transformer"):
        SpladeEncoder(copy)
    (copy / "modules.json").write_text("{}")
    assert SpladeEncoder(TINY).name == "tiny-splade"


@pytest.mark.parametrize(
    "arguments",
    [
        {"pooling": "mean"},
        {"activation": "gelu"},
        {"max_active_dims": 0},
        {"max_length": 0},
        {"max_length": 100_000},
    ],
)
def test_wrong_arguments_are_refused(arguments):
    """Before the model is used."""
    with pytest.raises(InvalidInputError):
        SpladeEncoder(TINY, **arguments)


def test_a_directory_is_a_sparse_argument(client):
    """It fills a collection, finds, and is recorded: BM25 is refused afterwards."""
    searcher = HybridSearcher("docs", client=client, embedder=None, sparse=str(TINY), reranker=None)
    assert searcher.add(TEXTS) == 3
    assert searcher.search(TEXTS[2], limit=1)[0].payload["text"] == TEXTS[2]
    other = HybridSearcher("docs", client=client, embedder=None, sparse="qdrant/bm25")
    with pytest.raises(SchemaMismatchError, match="'tiny-splade'"):
        other.search("bread")


def test_a_text_that_names_nothing_is_no_model():
    """A slip of the pen is told at once, and nothing is asked of a hub."""
    with pytest.raises(InvalidInputError, match="expected 'Qdrant/bm25'"):
        HybridSearcher("docs", sparse="bm52")


def test_empty_and_odd_texts(encoder):
    """No text, no vector; blanks, lone surrogates and very long texts have one."""
    assert encoder.embed_documents([]) == []
    odd = encoder.embed_documents(["", " ", "\ud800 iron", "iron " * 5000])
    assert len(odd) == 4
    assert all(np.isfinite(vector.values).all() for vector in odd)
