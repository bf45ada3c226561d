"""HybridSearcher.add: what it takes, what it refuses, and what stays when it fails."""

import itertools
import threading
import uuid
from contextlib import closing
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from qdrant_rerank import Bm25Encoder, HybridSearcher, SearchOptions
from qdrant_rerank.errors import (
    InvalidInputError,
    MissingTextError,
    ModelOutputError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.qdrant.documents import NAMESPACE
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from qdrant_rerank.qdrant.preparation import MEASURED
from tests.fault_server import Script, answer, serving
from tests.faults import refusal
from tests.loopback_qdrant import loopback_qdrant

IDS = [3, str(uuid.UUID(int=5)), uuid.UUID(int=6)]


@pytest.fixture
def searcher(client):
    """An empty collection-to-be; recall only."""
    return HybridSearcher("docs", client=client, reranker=None)


def stored(searcher):
    """id -> payload of every point; None if there is no collection."""
    if not searcher.client.collection_exists("docs"):
        return None
    records, _ = searcher.client.scroll("docs", limit=100_000)
    return {record.id: record.payload for record in records}


def test_the_collection_is_made_with_both_vectors_and_the_embedders_name(searcher):
    """Cosine, IDF on the server, and who filled it."""
    assert searcher.add(["a text"], progress=False) == 1
    config = searcher.client.get_collection("docs").config
    assert config.params.vectors["dense"].size == 256
    assert config.params.vectors["dense"].distance == models.Distance.COSINE
    assert config.params.sparse_vectors["bm25"].modifier == models.Modifier.IDF
    assert config.metadata == {
        "qdrant_rerank_embedder": "static-minilm-l6-v1",
        "qdrant_rerank_ids": 2,
        "qdrant_rerank_sparse": Bm25Encoder(avg_len=1.0).describe(),
        "qdrant_rerank_text": "text",
    }


def test_texts_mappings_and_points_are_taken_in_one_call(searcher):
    """A text becomes the payload field that is read."""
    point = models.PointStruct(id=9, payload={"text": "point"}, vector={})
    assert searcher.add(["text", {"text": "mapping", "n": 1}, point], progress=False) == 3
    assert sorted(p["text"] for p in stored(searcher).values()) == ["mapping", "point", "text"]
    assert stored(searcher)[9] == {"text": "point"}


def test_a_text_goes_where_the_text_source_reads(client):
    """A dotted path becomes nested payload; several fields cannot take a str."""
    nested = HybridSearcher("docs", client=client, reranker=None, text="article.body")
    nested.add(["words"], progress=False)
    assert list(stored(nested).values()) == [{"article": {"body": "words"}}]
    assert nested.search("words")[0].payload == {"article": {"body": "words"}}
    for source in (["title", "body"], "{title} {body}", lambda payload: payload["body"]):
        several = HybridSearcher("docs", client=client, reranker=None, text=source)
        with pytest.raises(InvalidInputError, match="Document 0 is a str"):
            several.add(["words"], progress=False)


@pytest.mark.filterwarnings("ignore:Documents of .* are in ")
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(
        st.text(min_size=1).filter(str.strip).map(lambda t: t.encode("utf-8", "replace").decode()),
        max_size=12,
    ),
    size=st.integers(1, 5),
)
def test_adding_twice_does_not_duplicate(client, texts, size):
    """Ids come from the texts, whatever the batches."""
    searcher = HybridSearcher(f"c{uuid.uuid4()}", client=client, reranker=None)
    for _ in range(2):
        assert searcher.add(iter(texts), batch_size=size, progress=False) == len(texts)
    assert client.count(searcher.collection).count == len(set(texts))


GERMAN = ["Die Häuser stehen am Fluss.", "Das Eisen schmilzt.", "Brote werden gebacken."]


@pytest.mark.parametrize("named", ["auto", "Qdrant/bm25"])
def test_the_language_of_a_collection_is_read_back(client, named):
    """Who searches need not know it; English stems would find nothing."""
    options = {"client": client, "reranker": None, "embedder": None}
    HybridSearcher("docs", sparse=Bm25Encoder(language="german"), **options).add(
        GERMAN, progress=False
    )
    recorded = client.get_collection("docs").config.metadata["qdrant_rerank_sparse"]
    assert (recorded["model"], recorded["language"]) == ("Qdrant/bm25", "german")
    searcher = HybridSearcher("docs", sparse=named, **options)
    assert [hit.payload["text"] for hit in searcher.search("Haus")] == GERMAN[:1]
    assert searcher.sparse.language == "german"
    assert searcher.add(["Ein neues Haus."], progress=False) == 1
    assert len(searcher.search("Häusern")) == 2


@pytest.mark.parametrize(
    ("recorded", "sparse", "seen"),
    [
        ({"model": "Qdrant/bm25", "language": "german"}, Bm25Encoder(), "bm25' in 'german'"),
        ({"model": "prithivida/Splade"}, "Qdrant/bm25", "'prithivida/Splade'; 'Qdrant/bm25' in"),
        ({"model": "Qdrant/bm25", "language": "klingon"}, "auto", "in 'klingon'"),
    ],
)
def test_a_sparse_encoder_that_does_not_fit_is_refused(client, recorded, sparse, seen):
    """Another language or another model, when adding and when searching."""
    client.create_collection(
        "docs",
        vectors_config={},
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier="idf")},
        metadata={"qdrant_rerank_sparse": recorded},
    )
    searcher = HybridSearcher("docs", client=client, reranker=None, embedder=None, sparse=sparse)
    for call in (lambda: searcher.search("Haus"), lambda: searcher.add(GERMAN, progress=False)):
        with pytest.raises(SchemaMismatchError, match=seen):
            call()


def test_a_language_that_is_not_recorded_is_said(client, caplog):
    """Once the collection is read; English is what most have."""
    client.create_collection(
        "docs",
        vectors_config={},
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier="idf")},
    )
    caplog.set_level("INFO", "qdrant_rerank")
    searcher = HybridSearcher("docs", client=client, reranker=None, embedder=None)
    assert searcher.search("Haus") == []
    assert "does not record the encoder" in caplog.text
    assert "BM25 in english" in caplog.text


def test_documents_that_differ_in_any_field_are_all_stored(searcher):
    """The id covers the payload, whatever the order of its fields."""
    reports = [{"text": "No change.", "year": 2024}, {"text": "No change.", "year": 2025}]
    again = [{"year": 2025, "text": "No change."}, "No change.", {"text": "No change."}]
    assert searcher.add(reports, progress=False) == 2
    added = searcher.add(again, progress=False)
    assert (added, added.overwritten) == (3, 0)
    assert sorted(p.get("year", 0) for p in stored(searcher).values()) == [0, 2024, 2025]


@pytest.mark.parametrize("recorded", [None, {"qdrant_rerank_embedder": "static-minilm-l6-v1"}])
def test_collections_of_the_first_version_keep_their_ids(searcher, caplog, recorded):
    """Their ids are of the text alone; what takes the place of another is counted and told."""
    vectors = {"dense": models.VectorParams(size=256, distance="Cosine")}
    searcher.client.create_collection("docs", vectors_config=vectors, metadata=recorded)
    old = str(uuid.uuid5(NAMESPACE, "No change."))
    vector = {"dense": [1.0] * 256}
    payload = {"text": "No change.", "year": 2023}
    searcher.client.upsert("docs", [models.PointStruct(id=old, payload=payload, vector=vector)])
    reports = [{"text": "No change.", "year": year} for year in (2023, 2024, 2025)]
    assert searcher.add(reports[:1], resume=True, progress=False) == 0
    added = searcher.add(reports, progress=False)
    assert (added, added.overwritten) == (3, 2)
    assert "2 of 3 documents took the place of others in 'docs'" in caplog.text
    assert stored(searcher) == {old: reports[2]}


def test_a_collection_of_a_later_version_is_not_guessed_at(searcher):
    """Its ids may be made in another way."""
    vectors = {"dense": models.VectorParams(size=256, distance="Cosine")}
    later = {"qdrant_rerank_ids": 3}
    searcher.client.create_collection("docs", vectors_config=vectors, metadata=later)
    with pytest.raises(SchemaMismatchError, match="ids of kind 3.*Upgrade qdrant-rerank"):
        searcher.add(["a"], progress=False)


def test_a_field_may_make_the_ids(searcher):
    """A changed document takes its own place; numbers and UUIDs are ids as they are."""
    before = [{"text": "old", "meta": {"url": "a"}}, {"text": "old", "meta": {"url": "b"}}]
    assert searcher.add(before, id_field="meta.url", progress=False) == 2
    after = {"text": "new", "meta": {"url": "a"}}
    assert searcher.add([after], id_field="meta.url", progress=False).overwritten == 0
    assert sorted(p["text"] for p in stored(searcher).values()) == ["new", "old"]
    numbered = [{"text": "x", "n": 7}, {"text": "y", "n": str(IDS[2])}, {"text": "z", "n": 7}]
    assert searcher.add(numbered, id_field="n", progress=False).overwritten == 1
    assert {7, str(IDS[2])} <= set(stored(searcher))


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ({"id_field": "n"}, r"Document 1 has \[\] in the field 'n', its id_field"),
        ({"id_field": "n", "ids": [1, 2]}, "ids and id_field are both given"),
        ({"id_field": "a["}, "id_field is 'a\\['"),
    ],
)
def test_a_field_of_ids_must_be_there(searcher, arguments, seen):
    """In every document."""
    with pytest.raises(InvalidInputError, match=seen):
        searcher.add([{"text": "a", "n": 1}, {"text": "b"}], progress=False, **arguments)


def test_values_of_numpy_are_stored_and_what_has_no_meaning_loses_no_document(searcher):
    """The error names the document and the field, before any is sent."""
    documents = [{"text": f"t{n}", "n": np.int64(n), "ok": np.bool_(True)} for n in range(600)]
    assert searcher.add(documents, progress=False) == 600
    assert {p["n"] for p in stored(searcher).values()} == set(range(600))
    documents[300]["deep"] = [{"x": object()}]
    seen = r"Document 300 has an object in the field 'deep\[0\]\.x'"
    with pytest.raises(InvalidInputError, match=seen) as caught:
        searcher.add(documents, id_field="n", progress=False)
    assert caught.value.__notes__ == ["No document was added."]
    assert searcher.client.count("docs").count == 600


def test_ids_may_be_given(searcher):
    """Whole numbers and UUIDs, as text or not."""
    searcher.add(["a", "b", "c"], ids=IDS, progress=False)
    assert set(stored(searcher)) == {3, IDS[1], str(IDS[2])}


@pytest.mark.parametrize("wrong", [-1, "title-7", 1.5, True, 2**64, np.timedelta64(3)])
def test_wrong_ids_are_refused(searcher, wrong):
    """With the document, the id, and what Qdrant takes."""
    with pytest.raises(InvalidInputError, match=r"Document 1 has the id .*whole numbers"):
        searcher.add(["a", "b"], ids=[1, wrong], progress=False)


@pytest.mark.parametrize(("ids", "seen"), [([1], "1 ids for 2"), ([1, 2, 3], "3 ids for 2")])
def test_ids_must_be_one_a_document(searcher, ids, seen):
    """Counted first where that is possible, else on the way."""
    with pytest.raises(InvalidInputError, match=seen):
        searcher.add(["a", "b"], ids=ids, progress=False)
    with pytest.raises(InvalidInputError, match=r"one id per document"):
        searcher.add(iter(["a", "b"]), ids=iter(ids), progress=False)


def test_a_generator_is_read_a_batch_at_a_time(searcher):
    """A million documents need no list."""
    most = itertools.count()

    def documents():
        for i in range(1000):
            if i % 100 == 0 and i:
                assert searcher.client.count("docs").count >= i - 100
            next(most)
            yield f"document {i}"

    assert searcher.add(documents(), batch_size=100, progress=False, avg_len=2) == 1000
    assert searcher.client.count("docs").count == 1000
    assert searcher.add(documents(), batch_size=100, progress=False) == 1000


def test_a_generator_is_read_ahead_where_the_average_length_is_measured(searcher):
    """By so many documents, whatever the batches; later ones a batch at a time."""
    read = itertools.count()

    def documents():
        for i in range(3 * MEASURED):
            if i == MEASURED:
                record = searcher.client.get_collection("docs").config.metadata
                assert record["qdrant_rerank_sparse"]["avg_len"] == 2.0
            if i > MEASURED:
                assert searcher.client.count("docs").count >= i - 100
            next(read)
            yield f"document {i}" if i < MEASURED else f"document {i} with more words in it"

    assert searcher.add(documents(), batch_size=100, progress=False) == 3 * MEASURED
    assert searcher.sparse.avg_len == 2.0


BAD = pytest.mark.parametrize(
    ("bad", "error", "seen"),
    [
        (
            {"title": "T"},
            MissingTextError,
            r"Document 3 has no text: 'text' is missing.*text='title'",
        ),
        ("", MissingTextError, "Document 3 has no text"),
        (7, InvalidInputError, "Document 3 is an int"),
        ("a\ud800b", InvalidInputError, "Document 3 holds a lone surrogate at character 1"),
        (
            {"text": "c", "at": [1, {"x": object()}]},
            InvalidInputError,
            r"in the field 'at\[1\]\.x'",
        ),
        (models.PointStruct(id=1, vector={"sad": [1.0]}), SchemaMismatchError, "a vector 'sad'"),
    ],
)


@BAD
@pytest.mark.parametrize(("size", "kept"), [(1, "abc"), (2, "ab"), (3, "abc"), (4, ""), (9, "")])
def test_a_batch_with_a_bad_document_is_refused_whole(searcher, bad, error, seen, size, kept):
    """Batches before it are stored, and the error says how many documents that are.

    If it is the first one, no collection is made.
    """
    documents = iter(["a", "b", "c", bad, "d"])
    with pytest.raises(error, match=seen) as caught:
        searcher.add(documents, batch_size=size, progress=False)
    found = stored(searcher)
    assert (found is None) == (not kept)
    assert sorted(p["text"] for p in (found or {}).values()) == list(kept)
    assert caught.value.stored == len(kept)
    assert caught.value.__notes__ == [
        f"{len(kept)} documents before it were added. Add all again with resume=True: it stores "
        "only what is missing."
        if kept
        else "No document was added."
    ]


@BAD
@pytest.mark.parametrize("kind", [list, tuple, lambda some: np.array(some, dtype=object)])
def test_what_can_be_read_twice_is_checked_before_the_first_batch(searcher, bad, error, seen, kind):
    """None of its documents is stored, nor is a collection made, whatever the size of a batch."""
    documents = kind(["a", "b", "c", bad, "d"])
    with pytest.raises(error, match=seen) as caught:
        searcher.add(documents, batch_size=1, progress=False)
    assert stored(searcher) is None
    assert caught.value.__notes__ == ["No document was added."]
    assert searcher.add(documents[:3], ids=iter([1, 2, 3]), batch_size=2, progress=False) == 3


@pytest.mark.parametrize("ids", [[1, 2, "x"], iter([1, 2]), itertools.count(), iter([1, None, 3])])
def test_wrong_ids_are_seen_before_the_first_batch(searcher, ids):
    """Of documents that can be read twice, though the ids cannot."""
    with pytest.raises(InvalidInputError):
        searcher.add(["a", "b", "c"], ids=ids, batch_size=1, progress=False)
    assert stored(searcher) is None


@pytest.mark.parametrize(
    ("documents", "arguments"),
    [
        (["a"], {"ids": [1, 2]}),
        (["a"], {"ids": iter([1, 2])}),
        (["a"], {"ids": [1, 2], "options": SearchOptions(dense_vector="title")}),
        (["a"], {"language": "german"}),
        ([models.PointStruct(id=1, vector={})], {}),
    ],
)
def test_what_is_refused_makes_no_collection(client, documents, arguments):
    """Whether the documents are a list or come one by one."""
    options = arguments.pop("options", None)
    searcher = HybridSearcher(
        "docs", client=client, reranker=None, options=options, sparse=Bm25Encoder()
    )
    for some in (documents, iter(documents)):
        with pytest.raises((InvalidInputError, SchemaMismatchError)):
            searcher.add(some, progress=False, **arguments)
        assert stored(searcher) is None


@pytest.mark.parametrize(("first", "kept"), [(0, None), (1, ["a0"]), (3, ["a0", "a1", "a2"])])
@pytest.mark.parametrize("fails", ["documents", "ids"])
def test_documents_before_a_failing_iterable_are_kept(searcher, first, kept, fails):
    """The iterable's own error comes out; if nothing came before, no collection is made."""

    def failing(items):
        yield from items
        raise RuntimeError("the disk is gone")

    texts, ids = (f"a{n}" for n in range(9)), None
    if fails == "documents":
        texts = failing(islice(texts, first))
    else:
        ids = failing(range(first))
    with pytest.raises(RuntimeError, match="the disk is gone") as caught:
        searcher.add(texts, ids=ids, batch_size=2, progress=False)
    found = stored(searcher)
    assert (found and sorted(p["text"] for p in found.values())) == kept
    assert caught.value.__notes__


def test_vectors_that_a_point_brings_are_kept(searcher):
    """Only what is missing is embedded; a list goes to the dense vector."""
    searcher.add(["seed"], progress=False)
    ones = [1.0] * 256
    searcher.add(
        [
            models.PointStruct(id=1, payload={"text": "bread"}, vector={"dense": ones}),
            models.PointStruct(id=2, payload={"text": "butter"}, vector=ones),
        ],
        progress=False,
    )
    records = searcher.client.retrieve("docs", [1, 2], with_vectors=True)
    for record in records:
        assert record.vector["dense"] == pytest.approx([1 / 16] * 256)
        assert record.vector["bm25"].indices


@pytest.mark.parametrize(
    ("vector", "seen"),
    [
        ({"dense": [1.0] * 3}, "vector of 3 for 'dense', which has 256"),
        ([1.0] * 3, "vector of 3"),
        ({"title": [1.0]}, "brings a vector 'title'"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(searcher, vector, seen):
    """Before they are sent."""
    point = models.PointStruct(id=1, payload={"text": "x"}, vector=vector)
    with pytest.raises(SchemaMismatchError, match=seen):
        searcher.add([point], progress=False)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e39])
@pytest.mark.parametrize("name", ["dense", "bm25"])
def test_vectors_with_numbers_that_are_not_finite_are_refused(searcher, name, number):
    """They would be stored and never found, or found first; nothing of their batch is stored."""
    values = [1.0] * 255 + [number]
    vector = {"bm25": models.SparseVector(indices=list(range(256)), values=values)}
    point = models.PointStruct(
        id=1, payload={"text": "x"}, vector=vector if name == "bm25" else {"dense": values}
    )
    with pytest.raises(InvalidInputError, match=rf"Document 1 brings .* infinity for '{name}'"):
        searcher.add(iter(["good", point]), progress=False)
    assert stored(searcher) is None


def test_a_multivector_of_several_lengths_is_refused(client):
    """Each of its rows is looked at."""
    client.create_collection(
        "docs",
        vectors_config={
            "dense": models.VectorParams(
                size=2,
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(comparator="max_sim"),
            )
        },
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier="idf")},
    )
    searcher = HybridSearcher("docs", client=client, reranker=None, embedder=None)
    point = models.PointStruct(
        id=1, payload={"text": "x"}, vector={"dense": [[1.0, 2.0], [1.0, 2.0, 3.0]]}
    )
    with pytest.raises(SchemaMismatchError, match="vector of 3 for 'dense', which has 2"):
        searcher.add([point], progress=False)


class Encoder:
    """Returns what it was given for texts with "bad" in them; else ones."""

    name, dimension = "an encoder", 2

    def __init__(self, bad, good):
        self.bad, self.good = bad, good

    def embed_query(self, text):
        return self.bad if "bad" in text else self.good

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


@pytest.mark.parametrize("engine", ["local mode", "embedded"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e39])
@pytest.mark.parametrize("sparse", [False, True])
def test_an_encoder_that_returns_no_finite_numbers_is_named(engine, number, sparse):
    """With the document or the query, before anything is sent."""
    if sparse:
        bad, good = (models.SparseVector(indices=[1], values=[value]) for value in (number, 1.0))
        encoders = {"embedder": None, "sparse": Encoder(bad, good)}
    else:
        encoders = {"embedder": Encoder([1.0, number], [1.0, 1.0]), "sparse": None}
    with closing(EdgeClient() if engine == "embedded" else QdrantClient(":memory:")) as client:
        searcher = HybridSearcher("docs", client=client, reranker=None, **encoders)
        assert searcher.add(["good"], progress=False) == 1
        with pytest.raises(ModelOutputError, match=r"'an encoder' returned NaN .* 7 \('bad'\)"):
            searcher.add(["fine", "bad"], ids=[6, 7], progress=False)
        with pytest.raises(ModelOutputError, match=r"'an encoder' .* of the query 'a bad query'"):
            searcher.search("a bad query")
        assert client.count("docs").count == 1
        assert len(searcher.search("good")) == 1


@pytest.mark.parametrize("made", [[None], ["x"], [[1.0, 2.0], [1.0]], object()])
def test_an_embedder_that_returns_no_numbers_is_named(client, made):
    """Of any wrong kind."""
    encoder = Encoder(made, [1.0, 1.0])
    searcher = HybridSearcher("docs", client=client, reranker=None, embedder=encoder)
    searcher.add(["good"], progress=False)
    for call in (lambda: searcher.add(["bad"], progress=False), lambda: searcher.search("bad")):
        with pytest.raises((ModelOutputError, SchemaMismatchError), match="'an encoder' returned"):
            call()


@pytest.mark.parametrize(
    "good",
    [
        {"indices": [1, 2], "values": [1.0, 0.5]},
        SimpleNamespace(indices=np.array([1, 2]), values=np.array([1.0, 0.5], dtype=np.float16)),
        SimpleNamespace(indices=(1, 2), values=(1, 0.5)),
    ],
)
def test_indices_and_values_of_any_kind_are_a_sparse_vector(client, good):
    """As fastembed, LangChain and the REST interface have them."""
    encoder = Encoder(None, good)
    searcher = HybridSearcher("docs", client=client, reranker=None, embedder=None, sparse=encoder)
    searcher.add(["good"], progress=False)
    [found] = searcher.search("good", with_vectors=True)
    assert found.vector["bm25"] == models.SparseVector(indices=[1, 2], values=[1.0, 0.5])


@pytest.mark.parametrize("made", [None, {1: 0.5}, ([1], [0.5]), [0.5], "x", object()])
def test_a_sparse_encoder_that_returns_no_sparse_vector_is_named(client, made):
    """Of any wrong kind, and before anything is sent."""
    encoder = Encoder(made, models.SparseVector(indices=[1], values=[1.0]))
    searcher = HybridSearcher("docs", client=client, reranker=None, embedder=None, sparse=encoder)
    searcher.add(["good"], progress=False)
    for call in (lambda: searcher.add(["bad"], progress=False), lambda: searcher.search("bad")):
        with pytest.raises(ModelOutputError, match=r"'an encoder' returned .*models\.SparseVector"):
            call()


def test_a_sparse_encoder_returns_one_vector_a_text(client):
    """One that does not is named."""

    class Short(Encoder):
        def embed_documents(self, texts):
            return super().embed_documents(texts)[1:]

    one = models.SparseVector(indices=[1], values=[1.0])
    searcher = HybridSearcher(
        "docs", client=client, reranker=None, embedder=None, sparse=Short(one, one)
    )
    with pytest.raises(ModelOutputError, match="returned 1 vectors for 2 texts"):
        searcher.add(["a", "b"], progress=False)


def test_one_document_instead_of_several_is_refused(searcher):
    """A str is an iterable of characters, a mapping one of keys."""
    for one in ("a text", {"text": "a"}, models.PointStruct(id=1, vector={})):
        with pytest.raises(InvalidInputError, match=r"Pass \[document\]"):
            searcher.add(one, progress=False)
    with pytest.raises(InvalidInputError, match="batch_size is 0"):
        searcher.add(["a"], batch_size=0)


def test_concurrent_adds_lose_nothing(searcher):
    """Local mode is corrupted by concurrent writes unless they are locked."""
    threads = [
        threading.Thread(
            target=searcher.add,
            args=([f"document {t} {i}" for i in range(50)],),
            kwargs={"batch_size": 7, "progress": False},
        )
        for t in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert searcher.client.count("docs").count == 300
    assert len(searcher.search("document", limit=300, candidates=300)) == 300


def test_huge_and_odd_documents_are_stored(searcher):
    """10 MB, NUL, emoji, right-to-left."""
    odd = ["word " * 2_000_000, "a\x00b", "🙂🙂", "שלום עולם"]
    assert searcher.add(odd, progress=False) == 4
    with pytest.warns(UserWarning, match="Queries of 'docs' are in Hebrew"):
        assert searcher.search("שלום", limit=1)[0].payload["text"] == odd[3]


def test_a_progress_bar_is_drawn_when_asked_for(searcher, capsys):
    """On stderr, and not in a pipe unless asked for."""
    searcher.add(["a", "b"])
    assert capsys.readouterr().err == ""
    searcher.add(["a", "b"], progress=True)
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("refused", [answer(409, b"conflict"), answer(400, b"a reason")])
def test_a_collection_that_another_process_made_first_is_filled(refused):
    """Its creation is refused, whatever the server says about it, and it is there."""

    def other_process(method, path):
        return refused if (method, path) == ("PUT", "/collections/docs") else None

    with loopback_qdrant(other_process) as (url, _):
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=None)
        assert searcher.add(["iron"], progress=False) == 1
        assert [payload["text"] for payload in stored(searcher).values()] == ["iron"]


def test_a_collection_that_cannot_be_made_is_an_error():
    """The server's reason is in it."""
    script = Script(
        {
            "GET": [
                answer(404, refusal("Collection `docs` doesn't exist!")),
                answer(200, b'{"result": {"exists": false}, "status": "ok", "time": 0.0}'),
            ],
            "PUT": [answer(400, refusal("too many collections exist"))],
        }
    )
    with serving(script) as url:
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=None)
        with pytest.raises(QdrantRequestError, match="too many collections exist"):
            searcher.add(["iron"], progress=False)


@pytest.mark.parametrize(
    ("ids", "seen"),
    [
        (5, "ids is one int; expected several"),
        ("12", "ids is one str; expected several"),
        ([1, None], "ids has None for document 1; expected a whole number or a UUID"),
        ([1], "1 ids for 2 documents; expected one id per document"),
        (iter([1]), "ids ended after 1, but there are more documents"),
    ],
)
def test_ids_that_are_not_one_per_document_are_named(client, ids, seen):
    """Each for what it is."""
    with pytest.raises(InvalidInputError, match=seen):
        HybridSearcher("docs", client=client, reranker=None).add(["a", "b"], ids=ids)
