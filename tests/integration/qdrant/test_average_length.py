"""The average length of BM25: measured, recorded, used, and the same whichever way one adds."""

import asyncio
import json
from contextlib import closing

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from qdrant_rerank import AsyncHybridSearcher, Bm25Encoder, HybridSearcher, QdrantInference
from qdrant_rerank.cli.main import main
from qdrant_rerank.embedders import load_sparse
from qdrant_rerank.errors import InvalidInputError, SchemaMismatchError
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from qdrant_rerank.qdrant.preparation import MEASURED
from qdrant_rerank.qdrant.transport.client import connect
from tests.fault_server import answer, serving
from tests.loopback_qdrant import LoopbackQdrant, loopback_qdrant

TEXTS = ["iron melts", "iron", "bread baked bread hot oven", "copper conducts heat well today"]
AVERAGE = 3.25
HAND_MADE = {
    "vectors_config": {},
    "sparse_vectors_config": {"words": models.SparseVectorParams(modifier="idf")},
}


def lexical(client, collection="docs", **options):
    """A searcher by BM25 alone."""
    return HybridSearcher(collection, client=client, embedder=None, reranker=None, **options)


def record(client, collection="docs"):
    """What the collection records of its sparse encoder."""
    return (client.get_collection(collection).config.metadata or {}).get("qdrant_rerank_sparse")


def weights(client, collection="docs"):
    """text -> its sparse vector."""
    records, _ = client.scroll(collection, limit=10_000, with_vectors=True)
    return {one.payload["text"]: next(iter(one.vector.values())) for one in records if one.payload}


def expected(texts, **parameters):
    """text -> its vector by an encoder of these parameters."""
    return dict(zip(texts, Bm25Encoder(**parameters).embed_documents(texts), strict=True))


def same(found, wanted):
    """Compare vectors whatever the order of their entries, in float32."""
    assert set(found) == set(wanted)
    for text, vector in found.items():
        entries = dict(zip(vector.indices, vector.values, strict=True))
        other = wanted[text]
        assert entries == pytest.approx(
            dict(zip(other.indices, other.values, strict=True)), rel=1e-6
        )
    return True


@pytest.mark.parametrize("engine", ["local mode", "embedded"])
def test_it_is_measured_recorded_and_used(engine):
    """By later additions and other searchers, too."""
    with closing(EdgeClient() if engine == "embedded" else QdrantClient(":memory:")) as client:
        searcher = lexical(client)
        searcher.add(TEXTS, progress=False)
        assert record(client)["avg_len"] == searcher.sparse.avg_len == AVERAGE
        more = ["tin"]
        lexical(client).add(more, progress=False)
        lexical(client, sparse=Bm25Encoder()).add(more, progress=False)
        assert same(weights(client), expected(TEXTS + more, avg_len=AVERAGE))
        assert lexical(client).search("iron")[0].payload["text"] == "iron"


WORDS = st.lists(st.sampled_from("iron bread copper melts the".split()), min_size=1, max_size=9)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(WORDS.map(" ".join), min_size=1, max_size=12),
    order=st.randoms(),
    size=st.integers(1, 5),
    parallel=st.integers(1, 3),
)
def test_the_order_and_the_batches_do_not_change_it(client, texts, order, size, parallel):
    """Of a list; and adding again matches the points that are there."""
    lexical(client, "one").add(texts, progress=False)
    shuffled = list(texts)
    order.shuffle(shuffled)
    other = lexical(client, "two")
    for _ in range(2):
        other.add(shuffled, batch_size=size, parallel=parallel, progress=False)
    assert record(client, "one") == record(client, "two")
    assert same(weights(client, "one"), weights(client, "two"))
    for name in ("one", "two"):
        client.delete_collection(name)


def test_every_way_of_adding_measures_the_same(client, tmp_path):
    """A list, an iterator, batches, an event loop, a file on the command line, a resumed add."""
    documents = [f"document {n} {'word ' * (n % 7)}" for n in range(MEASURED)]
    lexical(client, "list").add(documents, progress=False)
    wanted = record(client, "list")
    lexical(client, "batches").add(iter(documents), batch_size=7, parallel=3, progress=False)
    assert record(client, "batches") == wanted

    async def in_a_loop():
        options = {"client": client, "embedder": None, "reranker": None}
        async with AsyncHybridSearcher("async", **options) as searcher:
            await searcher.add(iter(documents), progress=False)

    asyncio.run(in_a_loop())
    assert record(client, "async") == wanted
    lexical(client, "resumed").add(iter(documents[:MEASURED]), progress=False)
    client.delete("resumed", models.Filter(must=[]))
    lexical(client, "resumed").add(["other"], resume=True, progress=False)
    assert record(client, "resumed") == wanted
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps(document) + "\n" for document in documents))
    place = ("--collection", "docs", "--path", str(tmp_path / "db"), "--embedder", "none")
    done = CliRunner().invoke(main, ["index", str(file), *place], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with closing(connect(path=str(tmp_path / "db"))) as other:
        assert record(other) == wanted


def test_an_iterator_that_fails_while_it_is_read_ahead_loses_nothing(client):
    """What came before the failure is stored, with its own average."""

    def documents():
        yield from TEXTS
        raise RuntimeError("the file ends here")

    with pytest.raises(RuntimeError, match="the file ends here") as raised:
        lexical(client).add(documents(), batch_size=3, progress=False)
    assert "4 documents before it were added" in raised.value.__notes__[0]
    assert same(weights(client), expected(TEXTS, avg_len=AVERAGE))


def test_wrong_documents_and_given_vectors_are_not_measured(client):
    """They are refused in their place, or keep their vectors."""
    own = models.SparseVector(indices=[1], values=[1.0])
    points = [
        models.PointStruct(id=1, payload={"text": "one two three"}, vector={"bm25": own}),
        models.PointStruct(id=2, payload={"text": "iron ore"}, vector={}),
    ]
    with pytest.raises(InvalidInputError, match="Document 2 is an int"):
        lexical(client).add(iter([*points, 7]), batch_size=2, progress=False)
    assert record(client)["avg_len"] == 2.0


def test_it_can_be_given(client):
    """To the encoder or to add; a collection keeps what it records."""
    lexical(client, sparse=Bm25Encoder(avg_len=7)).add(TEXTS, progress=False)
    assert same(weights(client), expected(TEXTS, avg_len=7))
    lexical(client, "other").add(TEXTS, avg_len=9.5, progress=False)
    assert record(client, "other")["avg_len"] == 9.5
    lexical(client, "other").add(TEXTS, avg_len=9.5, progress=False)
    for options, again in (
        ({}, {"avg_len": 7}),
        ({"sparse": Bm25Encoder(avg_len=7)}, {}),
        ({"sparse": Bm25Encoder(k=2)}, {}),
    ):
        with pytest.raises(SchemaMismatchError, match="weights of .*reindex"):
            lexical(client, "other", **options).add(["tin"], progress=False, **again)
    assert len(weights(client, "other")) == len(TEXTS)
    for wrong in (0, -1, "long", float("nan")):
        with pytest.raises(InvalidInputError, match="avg_len"):
            lexical(client, "third").add(TEXTS, avg_len=wrong, progress=False)
    with pytest.raises(InvalidInputError, match=r"avg_len=3 is of BM25, and sparse is QdrantInf"):
        lexical(client, sparse=QdrantInference("Qdrant/bm25")).add(TEXTS, avg_len=3)
    assert not client.collection_exists("third")


def test_a_collection_that_others_filled_keeps_256(client):
    """Their documents have weights of that length, and nothing is recorded."""
    client.create_collection("docs", **HAND_MADE)
    [vector] = Bm25Encoder(avg_len=256.0).embed_documents(["iron"])
    point = models.PointStruct(id=1, payload={"text": "iron"}, vector={"words": vector})
    client.upsert("docs", [point])
    lexical(client).add(TEXTS, progress=False)
    assert record(client) is None
    assert same(weights(client), expected(TEXTS, avg_len=256.0))
    served = QdrantInference("Qdrant/bm25").describe()
    client.update_collection("docs", metadata={"qdrant_rerank_sparse": served})
    lexical(client, sparse=Bm25Encoder()).add(["tin"], progress=False)
    assert same(weights(client), expected([*TEXTS, "tin"], avg_len=256.0))


@pytest.mark.parametrize("engine", ["local mode", "embedded"])
def test_an_empty_collection_is_measured_by_the_first_documents(engine):
    """One that the caller made, or that an add of nothing made; other metadata stays."""
    with closing(EdgeClient() if engine == "embedded" else QdrantClient(":memory:")) as client:
        client.create_collection("docs", **HAND_MADE, metadata={"owner": "me"})
        lexical(client, language="german").add(TEXTS, progress=False)
        assert record(client)["avg_len"] == AVERAGE
        assert record(client)["language"] == "german"
        assert client.get_collection("docs").config.metadata["owner"] == "me"
        assert lexical(client, "empty").add([], progress=False) == 0
        assert record(client, "empty")["avg_len"] is None
        assert lexical(client, "empty").search("iron") == []
        lexical(client, "empty").add(["the"], progress=False)
        assert record(client, "empty")["avg_len"] is None
        assert len(weights(client, "empty")) == 1


class Forbidding(LoopbackQdrant):
    """Lets a collection's points be written, and not its settings."""

    def _result(self, method, path, body):
        if method == "PATCH":
            raise ValueError("forbidden")
        return super()._result(method, path, body)


def test_a_key_that_may_not_change_the_collection_can_still_add():
    """What is not recorded holds for nobody: the default length counts, for all who add."""
    with closing(QdrantClient(":memory:")) as engine:
        engine.create_collection("docs", **HAND_MADE)
        with serving(Forbidding(engine)) as url:
            client = QdrantClient(url=url, check_compatibility=False)
            with closing(client):
                lexical(client).add(TEXTS, progress=False)
        assert record(engine) is None
        assert same(weights(engine), expected(TEXTS, avg_len=256.0))


def test_a_record_whose_answer_was_lost_counts():
    """The schema is read again before anything is encoded."""
    lost = []

    def lose(method, path):
        lost.append(path) if method == "PATCH" else None
        return answer(400, b"{}") if method == "PATCH" else None

    with closing(QdrantClient(":memory:")) as engine:
        engine.create_collection("docs", **HAND_MADE)
        with loopback_qdrant(lose, client=engine) as (url, _):
            client = QdrantClient(url=url, check_compatibility=False)
            with closing(client):
                lexical(client).add(TEXTS, progress=False)
        assert len(lost) == 1
        assert record(engine)["avg_len"] == AVERAGE
        assert same(weights(engine), expected(TEXTS, avg_len=AVERAGE))


def test_a_record_that_a_node_learns_later_is_waited_for():
    """In a cluster: the node that is asked may not know yet what another one agreed to."""
    before, stale = [], []

    def show_late(method, path):
        if method == "PATCH":
            stale.extend([*before] * 3)
        elif (method, path) == ("GET", "/collections/docs"):
            if stale:
                return stale.pop()
            shown = {"result": engine.get_collection("docs").model_dump(mode="json"), "time": 0.0}
            before[:] = [answer(200, json.dumps(shown).encode(), Content_Type="application/json")]
        return None

    with closing(QdrantClient(":memory:")) as engine:
        engine.create_collection("docs", **HAND_MADE)
        with loopback_qdrant(show_late, client=engine) as (url, _):
            client = QdrantClient(url=url, check_compatibility=False)
            with closing(client):
                lexical(client).add(TEXTS, progress=False)
        assert stale == []
        assert record(engine)["avg_len"] == AVERAGE
        assert same(weights(engine), expected(TEXTS, avg_len=AVERAGE))


def test_the_language_of_an_add_is_recorded_and_conflicts_are_told(client):
    """A searcher by name reads it back."""
    searcher = lexical(client)
    searcher.add(["Die Häuser"], language="german", progress=False)
    assert record(client)["language"] == searcher.sparse.language == "german"
    assert len(searcher.search("Haus")) == len(lexical(client, language="german").search("Haus"))
    for options, again in (
        ({"language": "french"}, {}),
        ({}, {"language": "french"}),
        ({"sparse": Bm25Encoder()}, {}),
    ):
        with pytest.raises(SchemaMismatchError, match="german"):
            lexical(client, **options).add(["Ein Haus"], progress=False, **again)
    with pytest.raises(InvalidInputError, match="BM25 is in 'german'"):
        lexical(client, language="german").add(["x"], language="french", progress=False)
    with pytest.raises(InvalidInputError, match="language is 'klingon'"):
        lexical(client, "other").add(["x"], language="klingon", progress=False)
    assert not client.collection_exists("other")


def test_a_language_that_nothing_records_is_the_searchers(client):
    """Otherwise documents would be stemmed in one language and queries in another."""
    client.create_collection("docs", **HAND_MADE)
    client.upsert("docs", [models.PointStruct(id=1, payload={"text": "x"}, vector={})])
    with pytest.raises(SchemaMismatchError, match=r"is searched in 'english'.*language='german'"):
        lexical(client).add(["Häuser"], language="german", progress=False)
    lexical(client, language="german").add(["Häuser"], language="german", progress=False)
    assert lexical(client, language="german").search("Haus")[0].payload["text"] == "Häuser"


def test_what_is_given_for_bm25_needs_a_vector_of_it(client):
    """A collection of dense vectors alone would ignore it."""
    dense = models.VectorParams(size=256, distance=models.Distance.COSINE)
    client.create_collection("docs", {"dense": dense})
    searcher = HybridSearcher("docs", client=client, reranker=None)
    for asked in ({"language": "german"}, {"avg_len": 40}):
        with pytest.raises(SchemaMismatchError, match="has no sparse vector for BM25"):
            searcher.add(TEXTS, progress=False, **asked)
    assert searcher.add(TEXTS, progress=False) == len(TEXTS)


def test_fastembeds_own_encoder_keeps_its_length(client, tmp_path):
    """A collection that it fills through us records 256, and BM25 by name adds with it."""
    sparse_text_embedding = pytest.importorskip("fastembed").SparseTextEmbedding

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "english.txt").write_text("the\n")
    theirs = sparse_text_embedding("Qdrant/bm25", specific_model_path=str(tmp_path))
    lexical(client, sparse=theirs).add(TEXTS, progress=False)
    assert record(client) == load_sparse(theirs).describe()
    lexical(client).add(["tin"], progress=False)
    assert same(weights(client), expected([*TEXTS, "tin"], avg_len=256.0))
    lexical(client, "measured").add(TEXTS, progress=False)
    with pytest.raises(SchemaMismatchError, match=r"avg_len=3.25; weights of avg_len=256"):
        lexical(client, "measured", sparse=theirs).add(["tin"], progress=False)
