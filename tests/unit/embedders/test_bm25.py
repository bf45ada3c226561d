"""The BM25 encoder, against fastembed's and the engine's own, in each language."""

import json
from collections import Counter

import pytest
from fastembed import SparseTextEmbedding
from fastembed.sparse.bm25 import supported_languages
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client.models import Distance, Modifier, SparseVectorParams, VectorParams
from qdrant_edge import Bm25, Bm25Config

from qdrant_rerank import HybridSearcher, QdrantInference
from qdrant_rerank.embedders import Bm25Encoder, load_sparse, needs_idf
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
    """At equal settings: documents and queries, on any text, other scripts included."""
    theirs = of_fastembed(language)
    ours = Bm25Encoder(avg_len=256.0, language=language, query_counts=False)
    default = Bm25Encoder(language=language)

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
        # A collection without a record has documents like these; queries differ in counts alone.
        assert default.embed_documents([text]) == ours.embed_documents([text])
        counted = default.embed_query(text)
        assert counted.indices == ours.embed_query(text).indices
        if set(counted.values) <= {1.0}:
            assert entries(counted) == entries(query)

    equal()
    assert load_sparse(theirs).describe() == ours.describe()


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "tamil"])
def test_vectors_equal_the_engines_own(language):
    """What a server computes for models.Document(model="Qdrant/bm25", options=...)."""
    engine = Bm25(Bm25Config(language=language))
    ours = Bm25Encoder(avg_len=256.0, language=language, query_counts=False)

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
    without_length = Bm25Encoder.from_description({"model": "Qdrant/bm25"})
    assert without_length.describe() == Bm25Encoder(avg_len=256.0).describe()
    unmeasured = Bm25Encoder.from_description(json.loads(json.dumps(OURS.describe())))
    assert unmeasured.avg_len is None
    assert made.with_avg_len(7).describe() == made.describe() | {"avg_len": 7}
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


@given(text=st.one_of(ENGLISH, ANY_TEXT), other=ENGLISH)
def test_the_vector_of_a_query_holds_counts(text, other):
    """Each term as often as it occurs, so that vectors of texts add up."""
    terms = Counter(OURS._terms(text))
    counted = OURS.embed_query(text)
    assert sum(counted.values) == terms.total()
    assert min(counted.values, default=1) >= 1
    assert counted.indices == sorted(set(counted.indices))
    both = added(counted, OURS.embed_query(other))
    assert added(OURS.embed_query(f"{text} {other}")) == both
    once = Bm25Encoder(query_counts=False).embed_query(text)
    assert (once.indices, set(once.values) - {1.0}) == (counted.indices, set())


def added(*vectors):
    """The sum of sparse vectors, as index -> value."""
    total = Counter()
    for vector in vectors:
        total.update(dict(zip(vector.indices, vector.values, strict=True)))
    return total


@given(texts=st.lists(st.one_of(ENGLISH, ANY_TEXT), max_size=8), order=st.randoms())
def test_the_average_length_is_that_of_texts_with_terms(texts, order):
    """In any order; a document of that length has the same weights whatever ``b`` is."""
    lengths = [sum(OURS.embed_query(text).values) for text in texts]
    having = [length for length in lengths if length]
    found = OURS.average_length(iter(texts))
    assert found == (pytest.approx(sum(having) / len(having), abs=1e-3) if having else None)
    order.shuffle(texts)
    assert OURS.average_length(texts) == found


def test_a_document_of_average_length_is_neither_raised_nor_lowered():
    """The same weights as without the length; a longer one has lower ones."""
    text = "iron melts iron boils"
    [plain] = Bm25Encoder(b=0).embed_documents([text])
    assert Bm25Encoder(avg_len=4).embed_documents([text]) == [plain]
    [short] = Bm25Encoder(avg_len=3).embed_documents([text])
    assert all(a < b for a, b in zip(short.values, plain.values, strict=True))


def test_a_language_goes_with_a_name_only():
    """An encoder has its own."""
    assert load_sparse("auto", "german").language == "german"
    assert load_sparse("Qdrant/BM25").language == "english"
    for own in (Bm25Encoder(), None, QdrantInference("Qdrant/bm25")):
        with pytest.raises(InvalidInputError, match="language out, and pass sparse=Bm25"):
            load_sparse(own, "german")
    with pytest.raises(InvalidInputError, match="language is 'klingon'; expected one of arabic"):
        load_sparse("auto", "klingon")


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("Qdrant/bm25", True),
        ("Qdrant/bm42-all-minilm-l6-v2-attentions", True),
        ("prithivida/Splade_PP_en_v1", False),
    ],
)
def test_the_weights_of_some_models_need_qdrants_idf(name, needs):
    """As fastembed's own list of models says, whoever runs them; an encoder's own word counts."""
    [listed] = [m for m in SparseTextEmbedding.list_supported_models() if m["model"] == name]
    assert bool(listed["requires_idf"]) is needs
    encoder = QdrantInference(name)
    assert needs_idf(encoder) is needs

    class Own:
        needs_idf = not needs

    Own.name = name
    assert needs_idf(Own()) is not needs


@pytest.mark.parametrize(
    "wrong",
    [{"k": -1}, {"b": 2}, {"avg_len": 0}, {"avg_len": float("inf")}, {"avg_len": "40"}],
)
def test_parameters_out_of_range_are_refused(wrong):
    """Before any document is encoded."""
    with pytest.raises(InvalidInputError):
        Bm25Encoder(**wrong)
