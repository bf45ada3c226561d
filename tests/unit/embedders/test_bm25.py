"""The BM25 encoder, against fastembed's and the engine's own."""

import pytest
from fastembed import SparseTextEmbedding
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_edge import Bm25

from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.embedders.bm25 import STOP_WORDS
from qdrant_rerank.errors import InvalidInputError

OURS = Bm25Encoder()
ENGINE = Bm25()
# Without underscores and words of over 40 characters, where fastembed and the engine differ.
ENGLISH = st.lists(
    st.one_of(
        st.sampled_from(sorted(STOP_WORDS)),
        st.from_regex(r"[A-Za-z0-9]{1,40}", fullmatch=True),
        st.sampled_from("running dogs' don't re-index e.g. 3.14 (x) naïve — … ! ,".split()),
    ),
    max_size=30,
).map(" ".join)


@pytest.fixture(scope="module")
def fastembed_bm25(tmp_path_factory):
    """fastembed's model, with the stop word file that the hub would serve."""
    folder = tmp_path_factory.mktemp("bm25")
    (folder / "english.txt").write_text("\n".join(sorted(STOP_WORDS)) + "\n")
    (folder / "config.json").write_text("{}")
    return SparseTextEmbedding("Qdrant/bm25", specific_model_path=str(folder))


def entries(vector):
    """index -> value, whatever the order."""
    return {
        int(i): pytest.approx(float(v), rel=1e-6)
        for i, v in zip(vector.indices, vector.values, strict=True)
    }


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(ENGLISH, st.text(st.characters(exclude_categories=["Cs"]))))
def test_vectors_equal_fastembeds(fastembed_bm25, text):
    """Documents and queries, on any text, underscores and other scripts included."""
    [document] = fastembed_bm25.passage_embed([text])
    [query] = fastembed_bm25.query_embed(text)
    assert entries(OURS.embed_documents([text])[0]) == entries(document)
    assert entries(OURS.embed_query(text)) == entries(query)


@settings(max_examples=200, deadline=None)
@given(ENGLISH)
def test_vectors_equal_the_engines_own(text):
    """What a server computes for models.Document(model="Qdrant/bm25")."""
    assert entries(OURS.embed_documents([text])[0]) == entries(ENGINE.embed_document(text))
    assert entries(OURS.embed_query(text)) == entries(ENGINE.embed_query(text))


def test_every_stop_word_is_one_of_the_engines():
    """The list is the engine's, not ours."""
    assert [word for word in STOP_WORDS if ENGINE.embed_document(word).indices] == []


def test_text_that_utf8_cannot_hold_is_no_error():
    """A lone surrogate separates words."""
    assert OURS.embed_query("dogs\ud800cats") == OURS.embed_query("dogs cats")


@pytest.mark.parametrize("wrong", [{"k": -1}, {"b": 2}, {"avg_len": 0}])
def test_parameters_out_of_range_are_refused(wrong):
    """Before any document is encoded."""
    with pytest.raises(InvalidInputError):
        Bm25Encoder(**wrong)
