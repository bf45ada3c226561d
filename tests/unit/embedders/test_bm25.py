"""The BM25 encoder, against fastembed's and the engine's own, in each language."""

import json

import pytest
from fastembed import SparseTextEmbedding
from fastembed.sparse.bm25 import supported_languages
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client.models import Distance, Modifier, SparseVectorParams, VectorParams
from qdrant_edge import Bm25, Bm25Config

from qdrant_rerank import HybridSearcher, QdrantInference
from qdrant_rerank.embedders import Bm25Encoder, load_sparse
from qdrant_rerank.embedders.bm25 import LANGUAGES, stop_words
from qdrant_rerank.errors import InvalidInputError

OURS = Bm25Encoder()
STOP_WORDS = stop_words("english")
EVERY_STOP_WORD = sorted({word for language in LANGUAGES for word in stop_words(language)})
#: Inflected words, for the stemmers.
WORDS = """
    running houses Häuser laufenden Straßen maisons courantes corriendo ciudades città correvano
    casas correndo huizen lopende husene løpende husen springande talojen juoksevat házakban
    casele alergând домами бегущих σπίτια τρέχοντας evlerin koşuyorlar البيوت يركضون
""".split()
# Without underscores, words of over 40 characters, and the combining vowel signs of Tamil, where
# fastembed and the engine differ.
ENGLISH = st.lists(
    st.one_of(
        st.sampled_from(sorted(STOP_WORDS)),
        st.from_regex(r"[A-Za-z0-9]{1,40}", fullmatch=True),
        st.sampled_from("running dogs' don't re-index e.g. 3.14 (x) naïve — … ! ,".split()),
    ),
    max_size=30,
).map(" ".join)
ANY_LANGUAGE = st.lists(
    st.one_of(
        st.sampled_from(EVERY_STOP_WORD),
        st.sampled_from(WORDS),
        st.sampled_from(WORDS).map(str.upper),
        st.text(sorted(set("".join(WORDS).lower())), min_size=1, max_size=12),
    ),
    max_size=20,
).map(" ".join)

ANY_TEXT = st.one_of(st.just("வீடுகள்"), st.text(st.characters(exclude_categories=["Cs"])))


@pytest.fixture(scope="module")
def of_fastembed(tmp_path_factory):
    """fastembed's model of a language, with the stop word files that the hub would serve."""
    folder = tmp_path_factory.mktemp("bm25")
    for language in LANGUAGES:
        if words := sorted(stop_words(language)):
            (folder / f"{language}.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "config.json").write_text("{}")
    return lambda language: SparseTextEmbedding(
        "Qdrant/bm25", specific_model_path=str(folder), language=language
    )


def entries(vector):
    """index -> value, whatever the order."""
    return {
        int(i): pytest.approx(float(v), rel=1e-6)
        for i, v in zip(vector.indices, vector.values, strict=True)
    }


@pytest.mark.parametrize("language", supported_languages)
def test_vectors_equal_fastembeds(of_fastembed, language):
    """Documents and queries, on any text, underscores and other scripts included."""
    theirs, ours = of_fastembed(language), Bm25Encoder(language=language)

    @settings(max_examples=40, deadline=None)
    @given(
        text=st.one_of(
            st.just("வீடுகள்"),
            ENGLISH,
            ANY_LANGUAGE,
            st.text(st.characters(exclude_categories=["Cs"])),
        )
    )
    def equal(text):
        [document] = theirs.passage_embed([text])
        [query] = theirs.query_embed(text)
        assert entries(ours.embed_documents([text])[0]) == entries(document)
        assert entries(ours.embed_query(text)) == entries(query)

    equal()
    assert load_sparse(theirs).describe() == ours.describe()


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "tamil"])
def test_vectors_equal_the_engines_own(language):
    """What a server computes for models.Document(model="Qdrant/bm25", options=...)."""
    engine, ours = Bm25(Bm25Config(language=language)), Bm25Encoder(language=language)

    @settings(max_examples=40, deadline=None)
    @given(st.one_of(ENGLISH, ANY_LANGUAGE))
    def equal(text):
        assert entries(ours.embed_documents([text])[0]) == entries(engine.embed_document(text))
        assert entries(ours.embed_query(text)) == entries(engine.embed_query(text))

    equal()


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "tamil"])
def test_the_stop_words_are_the_engines(language):
    """Each of ours is one of them, and of all languages' words no other one is."""
    engine = Bm25(Bm25Config(language=language))
    theirs = {word for word in EVERY_STOP_WORD if not engine.embed_document(word).indices}
    assert theirs == stop_words(language)


def test_the_languages_are_those_of_fastembed():
    """And another one is refused, with their names."""
    assert sorted(LANGUAGES) == sorted(supported_languages)
    for wrong in ("klingon", "de", "", None, ["german"]):
        with pytest.raises(InvalidInputError, match="language is .*; expected one of arabic"):
            Bm25Encoder(language=wrong)


def test_an_encoder_is_made_again_from_what_is_recorded():
    """As JSON; an older record has fewer fields."""
    made = Bm25Encoder(k=1.5, b=0.5, avg_len=40, language="german")
    recorded = json.loads(json.dumps(made.describe()))
    again = Bm25Encoder.from_description(recorded)
    assert again.describe() == recorded
    assert repr(again) == "Bm25Encoder(k=1.5, b=0.5, avg_len=40, language='german')"
    assert Bm25Encoder.from_description({"model": "Qdrant/bm25"}).describe() == OURS.describe()
    served = QdrantInference("Qdrant/bm25", options={"language": "german"}).describe()
    assert served == {"model": "Qdrant/bm25", "language": "german"}
    assert QdrantInference("Qdrant/bm25").describe()["language"] == "english"


def test_a_collection_of_fastembed_is_searched_in_its_language(client, of_fastembed):
    """German words are found by their German stems, and not by the English ones."""
    client.create_collection(
        "docs",
        {"dense": VectorParams(size=256, distance=Distance.COSINE)},
        sparse_vectors_config={"bm25": SparseVectorParams(modifier=Modifier.IDF)},
    )
    texts = ["Die Häuser der Straßen", "Das Brot wird gebacken", "Er lief durch die Wälder"]
    filled = HybridSearcher(
        "docs", client=client, sparse=of_fastembed("german"), embedder=None, reranker=None
    )
    filled.add(texts, progress=False)
    for language, found in (("german", [texts[0]]), ("english", [])):
        searcher = HybridSearcher(
            "docs",
            client=client,
            sparse=Bm25Encoder(language=language),
            embedder=None,
            reranker=None,
        )
        hits = searcher.search("Straße")
        assert [hit.payload["text"] for hit in hits] == found


def test_text_that_utf8_cannot_hold_is_no_error():
    """A lone surrogate separates words."""
    assert OURS.embed_query("dogs\ud800cats") == OURS.embed_query("dogs cats")


@pytest.mark.parametrize("wrong", [{"k": -1}, {"b": 2}, {"avg_len": 0}])
def test_parameters_out_of_range_are_refused(wrong):
    """Before any document is encoded."""
    with pytest.raises(InvalidInputError):
        Bm25Encoder(**wrong)
