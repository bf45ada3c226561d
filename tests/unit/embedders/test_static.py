"""The bundled static embedder."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import StaticEmbedder
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY, DEFAULT_EMBEDDER

EMBEDDER = StaticEmbedder.bundled()
TEXTS = st.lists(st.text(max_size=80), max_size=8)


@settings(deadline=None)
@given(texts=TEXTS, data=st.data())
def test_batch_and_order_never_change_a_vector(texts, data):
    """To the bit; lengths are 1, or 0 for a text without a token."""
    alone = [EMBEDDER.embed_query(text) for text in texts]
    order = data.draw(st.permutations(range(len(texts))))
    together = EMBEDDER.embed_documents([texts[i] for i in order])
    assert together.shape == (len(texts), 256)
    assert together.dtype == np.float32
    for row, i in enumerate(order):
        assert np.array_equal(together[row], alone[i])
        assert np.linalg.norm(alone[i]) == pytest.approx(1, abs=1e-5) or not alone[i].any()


def test_what_means_the_same_lies_closer():
    """In words that do not overlap."""
    query, near, far = EMBEDDER.embed_documents(
        ["How do I delete a folder?", "remove a directory", "the price of copper"]
    )
    assert query @ near > query @ far + 0.2


def test_odd_and_huge_texts_have_vectors():
    """A lone surrogate reads as U+FFFD; of 10 MB the start counts."""
    odd = ["\ud800 bread", "\x00", "🙂", "שלום", "bread " * 2_000_000]
    vectors = EMBEDDER.embed_documents(odd)
    assert np.isfinite(vectors).all()
    assert vectors[4] == pytest.approx(EMBEDDER.embed_query("bread"), abs=1e-5)
    assert not EMBEDDER.embed_query("").any()


@pytest.mark.parametrize("file", ["vectors.npy", "scales.npy", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_files_are_refused(tmp_path, file, damage):
    """With the directory in the message."""
    copy = shutil.copytree(BUNDLED_DIRECTORY / DEFAULT_EMBEDDER, tmp_path / "m")
    content = (copy / file).read_bytes()
    (copy / file).unlink() if damage == "missing" else (copy / file).write_bytes(content[:999])
    with pytest.raises(ModelFileError, match=str(copy)):
        StaticEmbedder.from_directory(copy)


def test_files_of_two_models_do_not_load(tmp_path):
    """Fewer vectors than tokens."""
    copy = shutil.copytree(BUNDLED_DIRECTORY / DEFAULT_EMBEDDER, tmp_path / "m")
    np.save(copy / "vectors.npy", np.zeros((10, 256), dtype=np.int8))
    with pytest.raises(ModelFileError, match=r"vectors of shape \(10, 256\)"):
        StaticEmbedder.from_directory(copy)
