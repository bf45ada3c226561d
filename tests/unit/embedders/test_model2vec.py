"""model2vec's directories, and the safetensors files in them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from qdrant_rerank.embedders import load_embedder
from qdrant_rerank.embedders.model2vec import Model2VecEmbedder, is_model2vec
from qdrant_rerank.embedders.safetensors import read_safetensors
from qdrant_rerank.errors import ModelFileError
from tests.unit.embedders.safetensors_files import written

WORDS = ["[UNK]", "iron", "melts", "bread", "bakes", "river"]
VECTORS = np.random.default_rng(7).standard_normal((len(WORDS), 4)).astype(np.float32)


def tokenizer():
    """One token per word."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


@pytest.fixture
def folder(tmp_path):
    """A directory as model2vec writes it."""
    (tmp_path / "potion").mkdir()
    return saved(tmp_path / "potion", embeddings=VECTORS)


def saved(folder, *, config=None, **arrays):
    written(folder / "model.safetensors", **arrays)
    tokenizer().save(str(folder / "tokenizer.json"))
    content = {"model_type": "model2vec", "normalize": False} | (config or {})
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@settings(deadline=None)
@given(st.lists(st.sampled_from([*WORDS[1:], "unheard"]), max_size=8))
def test_a_vector_is_the_mean_of_its_tokens(words):
    """Of those that the vocabulary has; without any, it is zeros."""
    known = [WORDS.index(word) for word in words if word in WORDS]
    expected = VECTORS[known].mean(axis=0) if known else np.zeros(4)
    made = Model2VecEmbedder(VECTORS, tokenizer(), name="m").embed_query(" ".join(words))
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_a_directory_is_an_embedder_argument(folder):
    """By its path; the name is the directory's."""
    embedder = load_embedder(folder)
    assert isinstance(embedder, Model2VecEmbedder)
    assert (embedder.name, embedder.dimension) == ("potion", 4)
    made = embedder.embed_documents(["iron melts", "bread"])
    np.testing.assert_allclose(made, [VECTORS[[1, 2]].mean(axis=0), VECTORS[3]], atol=1e-6)


def test_weights_mapping_types_and_unit_length(tmp_path):
    """A model with a reduced vocabulary, of every type that is stored."""
    mapping = np.array([0, 1, 1, 2, 2, 0])
    weights = np.array([0, 1, 2, 3, 4, 5], dtype=np.float32)
    rows = VECTORS[:3]
    mean = (rows[[1, 2]] * weights[[2, 3]][:, None]).mean(axis=0)
    for kind, scale in (("float32", 1), ("float16", 1), ("int8", 40)):
        stored = np.round(rows * scale).astype(kind) if scale > 1 else rows.astype(kind)
        folder = tmp_path / kind
        folder.mkdir()
        saved(
            folder,
            config={"normalize": True},
            embeddings=stored,
            weights=weights,
            mapping=mapping,
        )
        made = Model2VecEmbedder.from_directory(folder).embed_query("melts bread")
        np.testing.assert_allclose(made, mean / np.linalg.norm(mean), atol=0.03)
        assert np.linalg.norm(made) == pytest.approx(1, abs=1e-6)


def test_the_max_length_of_the_configuration_counts(tmp_path):
    """Tokens beyond it are not read."""
    for number, (most, read) in enumerate([(1, [1]), (None, [1, 2, 3])]):
        folder = tmp_path / str(number)
        folder.mkdir()
        saved(folder, config={"max_length": most}, embeddings=VECTORS)
        made = Model2VecEmbedder.from_directory(folder).embed_query("iron melts bread")
        np.testing.assert_allclose(made, VECTORS[read].mean(axis=0), atol=1e-6)


def test_a_static_embedding_of_sentence_transformers(tmp_path):
    """Known by modules.json, which also says whether vectors have unit length."""
    saved(tmp_path, **{"embedding.weight": VECTORS})
    (tmp_path / "config.json").unlink()
    kinds = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("StaticEmbedding",)]
    (tmp_path / "modules.json").write_text(json.dumps([*kinds, {"type": "x.Normalize"}]))
    assert is_model2vec(tmp_path)
    made = Model2VecEmbedder.from_directory(tmp_path).embed_query("iron")
    np.testing.assert_allclose(made, VECTORS[1] / np.linalg.norm(VECTORS[1]), atol=1e-6)


def test_other_directories_are_no_static_models(tmp_path, folder):
    """Weights of a transformer, no weights, no tokenizer."""
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert not is_model2vec(folder)
    (folder / "config.json").write_text('{"architectures": ["StaticModel"]}')
    assert is_model2vec(folder)
    (folder / "tokenizer.json").unlink()
    assert not is_model2vec(folder)
    assert not is_model2vec(tmp_path / "none")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"other": VECTORS}, "has the arrays other"),
        ({"embeddings": VECTORS[:3]}, "not of one model"),
        ({"embeddings": VECTORS[0]}, "not of one model"),
        ({"embeddings": VECTORS, "mapping": np.array([0, 9, 0, 0, 0, 0])}, "not of one model"),
        ({"embeddings": VECTORS, "weights": np.ones(2)}, "not of one model"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, said):
    """When the model is loaded, not at its first text."""
    saved(tmp_path, **arrays)
    with pytest.raises(ModelFileError, match=said):
        Model2VecEmbedder.from_directory(tmp_path)


def test_empty_and_odd_texts(folder):
    """Nothing, blanks, and lone surrogates."""
    embedder = Model2VecEmbedder.from_directory(folder)
    assert embedder.embed_documents([]).shape == (0, 4)
    odd = embedder.embed_documents(["", " ", "\ud800 iron", "iron " * 5000])
    assert np.isfinite(odd).all()
    np.testing.assert_allclose(odd[3], VECTORS[1], atol=1e-5)


def test_bfloat16_is_read(tmp_path):
    """It is the upper half of a float32."""
    numbers = np.array([1.5, -2.0, 0.15625], dtype=np.float32)
    half = (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + half)
    np.testing.assert_array_equal(read_safetensors(path)["a"], numbers)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_file_is_told(tmp_path_factory, data):
    """Cut off anywhere, it is no model, and no other exception comes out."""
    path = written(tmp_path_factory.mktemp("cut") / "model.safetensors", a=VECTORS)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ModelFileError, match="cannot|can be read"):
        read_safetensors(path)
