"""A collection that stores states of its documents: scored by them, never shown, never stale."""

import asyncio
import pickle
import shutil
import time
import warnings
from contextlib import closing

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    DEFAULT_RERANKER,
    AsyncHybridSearcher,
    Cascade,
    CollectionSettings,
    HybridSearcher,
    SearchOptions,
    TextCrossEncoder,
    Windows,
)
from qdrant_rerank.cross_encoder.document_states import HEAD, is_current
from qdrant_rerank.cross_encoder.state_quantizer import quantizer_file
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY
from qdrant_rerank.qdrant.embedded.choice import embedded_client
from qdrant_rerank.qdrant.schema import STATES_FIELD, STATES_KEY
from qdrant_rerank.qdrant.stored_states import encoded, states_payload, stored_record
from qdrant_rerank.search.pipeline import SCHEMA_S
from tests.fault_server import answer
from tests.loopback_grpc import loopback_server
from tests.loopback_qdrant import loopback_qdrant
from tests.releases import needs_client

QUERY = "melting point of iron"
TEXTS = [
    "Iron melts at 1538 degrees Celsius.",
    "Bread is baked in an oven.",
    "Copper melts at 1085 degrees Celsius.",
    "The sea is 11 km deep at its deepest.",
    "What is the melting point of iron?",
    "Tin is a soft metal, which melts at 232 degrees.",
    "Ore is mined, and iron is made of it.",
    "An oven for bread is hot.",
    "Steel is an alloy of iron and carbon.",
    "Water boils at 100 degrees Celsius.",
    "Metals conduct electricity.",
    "A point has no length.",
]
DOCUMENTS = [
    {"text": text, "year": 2000 + row, "book": "ab"[row % 2]} for row, text in enumerate(TEXTS)
]
IDS = list(range(1, 1 + len(TEXTS)))
PRECISIONS = ["int8", "float16", "pq"]
STORED = CollectionSettings(document_states="int8")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The bundled model, whose parts are kept for all tests."""
    return TextCrossEncoder(DEFAULT_RERANKER, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["embedded", "local mode"])
def engine(request):
    """An embedded engine in memory, of either kind."""
    client = embedded_client(None) if request.param == "embedded" else QdrantClient(":memory:")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of local mode, about what it does not do
        yield client
        client.close()


@pytest.fixture
def other_quantizer(tmp_path):
    """Folder of the bundled model with another quantizer."""
    folder = shutil.copytree(BUNDLED_DIRECTORY / DEFAULT_RERANKER, tmp_path / "model")
    file = quantizer_file(folder / "onnx" / "model.onnx")
    with np.load(file) as kept:
        arrays = dict(kept)
    np.savez_compressed(file, **arrays | {"penalties": arrays["penalties"] * 2})
    return folder


@pytest.fixture
def precision():
    """Of the states; a test may have several."""
    return "int8"


@pytest.fixture
def searcher(engine, encoder, precision):
    """A searcher of a filled collection with states."""
    made = HybridSearcher("docs", client=engine, reranker=encoder)
    settings = CollectionSettings(document_states=precision)
    assert made.add(DOCUMENTS, ids=IDS, settings=settings) == len(TEXTS)
    return made


def scores(results):
    """The reranker's scores by id."""
    return {hit.id: hit.rerank_score for hit in results}


def counts(results):
    """How many documents were scored by stored states, and how many were read."""
    return results.trace.documents_stored, results.trace.documents_read


def stored(client, point_id):
    """What the payload of a point holds of its states."""
    return client.retrieve("docs", [point_id])[0].payload.get(STATES_FIELD)


def states_of(client, point_id):
    """The text that holds the states of a point."""
    return stored(client, point_id)["states"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_candidates_are_scored_by_states(searcher, encoder, precision):
    """The scores are those of the encoder's own states, and the trace says so."""
    found = searcher.search(QUERY, limit=12)
    assert counts(found) == (12, 0)
    assert found.trace.precision == f"int8, states {precision}"
    own = encoder.rerank(QUERY, encoder.encode_documents(TEXTS, precision=precision))
    assert scores(found) == dict(zip(IDS, own, strict=True))
    assert found[0].id == 1


@pytest.mark.parametrize(
    "with_payload",
    [
        True,
        ["text", STATES_FIELD],
        [STATES_FIELD],
        models.PayloadSelectorInclude(include=["text", STATES_FIELD]),
        models.PayloadSelectorExclude(exclude=["year"]),
        False,
    ],
)
@pytest.mark.parametrize("two_phase", [True, False, None])
def test_states_are_never_shown(searcher, with_payload, two_phase):
    """Neither payload nor vectors of a hit have them, whatever is asked for."""
    options = SearchOptions(two_phase=two_phase)
    for asking in (searcher, HybridSearcher("docs", client=searcher.client, reranker=None)):
        found = asking.search(
            QUERY, limit=3, with_payload=with_payload, with_vectors=True, options=options
        )
        assert len(found) == 3
        for hit in found:
            assert STATES_FIELD not in (hit.payload or {})
            assert set(hit.vector) == {"dense", "bm25"}
    assert "text" in searcher.search(QUERY, with_payload=["text"])[0].payload


def test_a_searcher_that_knew_the_collection_before_shows_none(engine, encoder):
    """Metadata and states that are written later are respected at once."""
    plain = HybridSearcher("docs", client=engine, reranker=None)
    plain.add(DOCUMENTS, ids=IDS)
    early = HybridSearcher("docs", client=engine, reranker=encoder)
    assert counts(early.search(QUERY)) == (None, None)
    engine.set_payload("docs", {STATES_FIELD: {"states": "AAAA"}}, points=IDS)
    assert all(STATES_FIELD not in hit.payload for hit in plain.search(QUERY))
    assert all(STATES_FIELD not in hit.payload for hit in early.search(QUERY))


@pytest.mark.parametrize("own", ["mine", {"mine": 1}, ["mine"]])
def test_a_field_of_that_name_that_is_not_ours_is_shown_and_not_taken_out(engine, own):
    """Data of others is neither hidden nor lost; a document to add that has it is refused."""
    plain = HybridSearcher("docs", client=engine, reranker=None)
    plain.add(DOCUMENTS, ids=IDS)
    engine.set_payload("docs", {STATES_FIELD: own}, points=IDS)
    for two_phase in (True, False):
        found = plain.search(QUERY, limit=3, options=SearchOptions(two_phase=two_phase))
        assert [hit.payload[STATES_FIELD] for hit in found] == [own] * 3
    given = {"text": "Iron melts.", STATES_FIELD: own}
    with pytest.raises(InvalidInputError, match=r"Document 0 has a field 'qdrant_rerank_states'"):
        plain.add([given])
    assert given[STATES_FIELD] == own
    again = engine.retrieve("docs", [1], with_payload=True)[0]
    assert plain.add([again.payload | {STATES_FIELD: {"states": "AA"}}], ids=[1]) == 1
    assert stored(engine, 1) is None  # states come with points that were read elsewhere


@pytest.mark.parametrize("precision", ["int8", "pq"])
def test_a_changed_text_is_read(searcher, encoder, precision):
    """No old states score a text that set_payload, upsert or overwrite has changed."""
    client = searcher.client
    client.set_payload("docs", {"text": "Bread, bread, bread."}, points=[1])
    vectors = client.retrieve("docs", [2], with_vectors=True)[0].vector
    kept = stored(client, 2)
    payload = {"text": "Iron turns liquid at 1538 degrees.", STATES_FIELD: kept}
    client.upsert("docs", [models.PointStruct(id=2, vector=vectors, payload=payload)])
    client.overwrite_payload("docs", {"text": "Nothing of this."}, points=[3])
    with pytest.warns(UserWarning, match="qdrant-rerank states --collection docs"):
        found = searcher.search(QUERY, limit=12)
    assert counts(found) == (9, 3)
    now = ["Bread, bread, bread.", payload["text"], "Nothing of this.", *TEXTS[3:]]
    own = encoder.rerank(QUERY, encoder.encode_documents(now, precision=precision))
    assert scores(found) == dict(zip(IDS, own, strict=True))


@pytest.mark.parametrize("precision", ["int8", "pq"])
@pytest.mark.parametrize("damage", ["bit", "cut", "other letters", "number", "another's", "format"])
def test_damaged_states_are_read_anew(searcher, damage):
    """What is not a whole record of this text is not used, and changes no score."""
    before = scores(searcher.search(QUERY, limit=12))
    record = bytearray(stored_record(searcher.client.retrieve("docs", [1])[0].payload))
    record[len(record) // 2] ^= damage == "bit"
    record[0] += damage == "format"
    value = {
        "bit": encoded(record),
        "format": encoded(record),
        "cut": encoded(record[:30]),
        "other letters": "☃" + states_of(searcher.client, 1)[1:],
        "number": 17,
        "another's": states_of(searcher.client, 2),
    }[damage]
    kept = {**stored(searcher.client, 1), "states": value}
    searcher.client.set_payload("docs", {STATES_FIELD: kept}, points=[1])
    found = searcher.search(QUERY, limit=12)
    assert counts(found) == (11, 1)
    assert scores(found) == before


def test_a_running_searcher_notices_other_states(searcher, encoder):
    """Another process may change the precision, or the model and back, while it searches."""
    before = scores(searcher.search(QUERY, limit=12))
    filled = HybridSearcher("docs", client=searcher.client, reranker=encoder)
    assert filled.fill_states(precision="float16").made == len(TEXTS)
    found = searcher.search(QUERY, limit=12)
    assert (counts(found), found.trace.precision) == ((12, 0), "int8, states float16")
    assert filled.fill_states(precision="pq").made == len(TEXTS)
    found = searcher.search(QUERY, limit=12)
    assert (counts(found), found.trace.precision) == ((12, 0), "int8, states pq")
    small = TextCrossEncoder("grown-e5-small-l6-v1", cache_dir=encoder.cache_dir)
    other = HybridSearcher("docs", client=searcher.client, reranker=small)
    assert other.fill_states(precision="int8").made == len(TEXTS)
    whole = searcher.search(QUERY, limit=12)
    assert (counts(whole), whole.trace.precision) == ((0, 12), "int8")
    time.sleep(SCHEMA_S)
    assert filled.fill_states(precision="int8").made == len(TEXTS)
    again = searcher.search(QUERY, limit=12)
    assert (counts(again), scores(again)) == ((12, 0), before)


def test_a_collection_that_cannot_be_read_again_is_as_it_was_known(encoder):
    """The search has its candidates by then, and reads their texts."""
    broken = []

    def sabotage(method, path):
        fails = broken and (method, path) == ("GET", "/collections/docs")
        return broken[0] if fails else None

    with (
        loopback_qdrant(sabotage) as (url, _),
        closing(QdrantClient(url=url, check_compatibility=False)) as client,
    ):
        small = TextCrossEncoder("grown-e5-small-l6-v1", cache_dir=encoder.cache_dir)
        other = HybridSearcher("docs", client=client, reranker=small)
        other.add(DOCUMENTS, ids=IDS, settings=STORED)
        searcher = HybridSearcher("docs", client=client, reranker=encoder)
        before = scores(searcher.search(QUERY, limit=12))
        broken.append(answer(500, b"{}"))
        time.sleep(SCHEMA_S)
        found = searcher.search(QUERY, limit=12)
    assert scores(found) == before
    assert counts(found) == (0, 12)


def test_a_schema_with_states_of_another_model_is_kept_for_a_second(encoder):
    """Not every search reads it again."""
    seen = []
    with (
        loopback_qdrant(lambda *request: seen.append(request)) as (url, _),
        closing(QdrantClient(url=url, check_compatibility=False)) as client,
    ):
        small = TextCrossEncoder("grown-e5-small-l6-v1", cache_dir=encoder.cache_dir)
        other = HybridSearcher("docs", client=client, reranker=small)
        other.add(DOCUMENTS, ids=IDS, settings=STORED)
        searcher = HybridSearcher("docs", client=client, reranker=encoder)
        searcher.search("warms up")
        seen.clear()
        began = time.monotonic()
        for _ in range(8):
            assert counts(searcher.search(QUERY)) == (0, 12)
        seconds = time.monotonic() - began
    assert seen.count(("GET", "/collections/docs")) <= 1 + seconds / SCHEMA_S


def test_states_that_a_collection_does_not_store_are_refused(engine, encoder):
    """``add`` says so before it stores anything, and how to store them."""
    searcher = HybridSearcher("docs", client=engine, reranker=encoder)
    searcher.add(DOCUMENTS[:2])
    with pytest.raises(InvalidInputError, match=r"stores no states\. Run .*--precision int8"):
        searcher.add(DOCUMENTS, settings=STORED)
    assert engine.count("docs").count == 2
    searcher.fill_states()
    assert searcher.add(DOCUMENTS, settings=STORED) == len(TEXTS)
    assert counts(searcher.search(QUERY)) == (12, 0)
    half = CollectionSettings(document_states="float16")
    with pytest.raises(InvalidInputError, match="stores states in int8"):
        searcher.add(DOCUMENTS, settings=half)


def test_filling_in_checks_its_arguments(searcher):
    """Before anything is asked."""
    for wrong in ({"precision": "int4"}, {"batch_size": 0}, {"progress": 1}):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            searcher.fill_states(**wrong)
    plain = HybridSearcher("docs", client=searcher.client, reranker=None)
    with pytest.raises(InvalidInputError, match="see each text alone"):
        plain.fill_states()


def test_a_search_warns_once_of_much_that_is_read(searcher):
    """More than a tenth is told, once, with the command that helps."""
    searcher.client.delete_payload("docs", [STATES_FIELD], points=[1, 2])
    told = "2 of 12 documents .*'qdrant-rerank states --collection docs'"
    with pytest.warns(UserWarning, match=told):
        searcher.search(QUERY, limit=3)
    assert counts(searcher.search(QUERY, limit=3)) == (10, 2)


def test_states_of_another_model_are_not_used(searcher, encoder):
    """Another reranker reads the texts, as if there were no states."""
    small = TextCrossEncoder("grown-e5-small-l6-v1", cache_dir=encoder.cache_dir)
    found = HybridSearcher("docs", client=searcher.client, reranker=small).search(QUERY, limit=12)
    assert counts(found) == (0, 12)
    assert scores(found) == dict(zip(IDS, small.rerank(QUERY, TEXTS), strict=True))
    function = HybridSearcher("docs", client=searcher.client, reranker=lambda q, d: [1.0] * len(d))
    assert counts(function.search(QUERY)) == (None, None)


class Asked(QdrantClient):
    """An engine that notes whose states are fetched."""

    def __init__(self):
        super().__init__(":memory:")
        self.fetched = []

    def retrieve(self, collection_name, ids, with_payload=True, **kwargs):
        """Retrieve, and note the ids."""
        if STATES_FIELD in str(with_payload):
            self.fetched.append(list(ids))
        return super().retrieve(collection_name, ids, with_payload, **kwargs)


@pytest.fixture(params=["embedded", "REST", "gRPC"])
def asked(request, encoder):
    """An engine with states, and how sync and async clients are made that ask it."""
    with closing(Asked()) as engine, loopback_server(engine) as (url, grpc_port):
        HybridSearcher("docs", client=engine, reranker=encoder).add(
            DOCUMENTS, ids=IDS, settings=STORED
        )
        options = {"url": url, "check_compatibility": False, "grpc_port": grpc_port}
        options["prefer_grpc"] = request.param == "gRPC"
        if request.param == "embedded":
            yield engine, lambda: engine, lambda: engine
        else:
            yield engine, lambda: QdrantClient(**options), lambda: AsyncQdrantClient(**options)


def test_a_cascade_fetches_the_states_of_its_stage_alone(asked, encoder):
    """Only of the candidates that reach the stage; the stage before reads the texts."""
    engine, connect, connect_async = asked
    small = TextCrossEncoder("grown-e5-small-l6-v1", cache_dir=encoder.cache_dir)
    cascade = Cascade([(small, 6), (encoder, None)])
    whole = scores(HybridSearcher("docs", client=engine, reranker=encoder).search(QUERY, limit=12))
    assert [len(ids) for ids in engine.fetched] == [12]
    engine.fetched.clear()
    searcher = HybridSearcher("docs", client=connect(), reranker=cascade)
    found = searcher.search(QUERY, limit=6)
    assert scores(found) == {hit.id: whole[hit.id] for hit in found}
    assert counts(found) == (6, 0)
    assert [set(ids) for ids in engine.fetched] == [set(scores(found))]
    assert scores(searcher.search(QUERY, limit=6, deadline_s=30)) == scores(found)
    both = searcher.search_batch([QUERY, "bread"], limit=6)
    assert scores(both[0]) == scores(found)
    assert [len(ids) for ids in engine.fetched] == [6, 6, 6, 6]

    async def search():
        async with AsyncHybridSearcher(
            "docs", client=connect_async(), reranker=cascade
        ) as searcher:
            found = await asyncio.gather(*[searcher.search(QUERY, limit=6) for _ in range(2)])
            if searcher.client is not engine:
                await searcher.client.close()
            return found

    for other in asyncio.run(search()):
        assert scores(other) == scores(found)
        assert counts(other) == (6, 0)
    assert [len(ids) for ids in engine.fetched] == [6] * 6
    if searcher.client is not engine:
        searcher.client.close()


def test_the_first_stage_of_a_cascade_may_have_the_states(searcher, encoder):
    """Then those of all candidates are fetched, and the next stage reads texts."""
    small = TextCrossEncoder("grown-e5-small-l6-v1", cache_dir=encoder.cache_dir)
    cascade = Cascade([(encoder, 6), (small, None)])
    found = HybridSearcher("docs", client=searcher.client, reranker=cascade).search(QUERY, limit=6)
    assert counts(found) == (12, 0)
    read = dict(zip(IDS, small.rerank(QUERY, TEXTS), strict=True))
    assert scores(found) == {hit.id: read[hit.id] for hit in found}


class Hurried:
    """A stage of the user's that has time for two documents."""

    def rerank(self, query, documents):
        """All of them."""
        return [float(len(text)) for text in documents]

    def rerank_until(self, query, documents, deadline):
        """The first two, and how many are not finished."""
        return self.rerank(query, documents[:2]), len(documents) - 2


def test_a_later_stage_that_stops_changes_no_count(searcher, encoder):
    """What the stage with states has scored was scored by them."""
    cascade = Cascade([(encoder, 6), (Hurried(), None)])
    found = HybridSearcher("docs", client=searcher.client, reranker=cascade).search(QUERY, limit=12)
    assert (found.trace.status, *counts(found)) == ("partial", 12, 0)


class Elsewhere:
    """A stage of the user's that sends texts to another process, as bytes."""

    def rerank(self, query, documents):
        """By length."""
        texts = pickle.loads(pickle.dumps(documents))
        assert texts == documents
        return [float(len(text)) for text in texts]


@pytest.mark.parametrize("first", [True, False])
def test_a_stage_may_send_texts_to_another_process(searcher, encoder, first):
    """Before their states were fetched, and after."""
    stages = [Elsewhere(), encoder] if first else [encoder, Elsewhere()]
    cascade = Cascade([(stages[0], 6), (stages[1], None)])
    found = HybridSearcher("docs", client=searcher.client, reranker=cascade).search(QUERY, limit=6)
    assert counts(found) == ((6, 0) if first else (12, 0))


def test_a_cascade_notices_other_states(searcher, encoder):
    """Also those that another process stores while it runs, or deletes."""
    small = TextCrossEncoder("grown-e5-small-l6-v1", cache_dir=encoder.cache_dir)
    cascade = Cascade([(small, 6), (encoder, None)])
    running = HybridSearcher("docs", client=searcher.client, reranker=cascade)
    assert counts(running.search(QUERY, limit=6)) == (6, 0)
    assert searcher.fill_states(precision="float16").made == len(TEXTS)
    found = running.search(QUERY, limit=6)
    assert counts(found) == (6, 0)
    as_float16 = scores(searcher.search(QUERY, limit=12))
    assert scores(found) == {hit.id: as_float16[hit.id] for hit in found}
    searcher.client.delete_payload("docs", [STATES_FIELD], points=IDS)
    with pytest.warns(UserWarning, match="6 of 6 documents"):
        found = running.search(QUERY, limit=6)
    assert counts(found) == (0, 6)
    assert scores(found) == {hit.id: as_float16[hit.id] for hit in found}


def test_a_cascade_checks_records_beside_the_event_loop(encoder):
    """The loop's own work between two turns is a small part of what the checksums take."""
    with closing(embedded_client(None)) as engine:
        searcher = HybridSearcher("docs", client=engine, reranker=encoder)
        searcher.add(DOCUMENTS, ids=IDS, settings=STORED)
        for point in IDS:  # current by their heads; whether they are whole takes long to tell
            record = stored_record(engine.retrieve("docs", [point])[0].payload)
            large = record[: HEAD.size] + bytes(16_000_000)
            engine.set_payload("docs", states_payload(large), points=[point])
        began = time.thread_time()
        assert not is_current(large, TEXTS[-1], encoder.states_models["int8"], "int8")
        checks_s = len(IDS) * (time.thread_time() - began)
        cascade = Cascade([(Elsewhere(), 12), (encoder, None)])

        async def search():
            pauses = []

            async def watch():
                while True:
                    before = time.thread_time()
                    await asyncio.sleep(0.001)
                    pauses.append(time.thread_time() - before)

            async with AsyncHybridSearcher("docs", client=engine, reranker=cascade) as awaited:
                await awaited.search("bread", limit=1, candidates=1)  # what is loaded once
                watching = asyncio.create_task(watch())
                found = await awaited.search(QUERY, limit=12)
                watching.cancel()
            return found, max(pauses)

        with pytest.warns(UserWarning, match="documents of 'docs' were read again"):
            found, longest_s = asyncio.run(search())
    assert counts(found) == (0, 12)
    assert longest_s < checks_s / 3


def test_a_deadline_is_kept(searcher):
    """The first candidates are scored by their states; none is scored wrongly."""
    whole = scores(searcher.search(QUERY, limit=12))
    found = searcher.search(QUERY, limit=12, deadline_s=30)
    assert (found.trace.status, counts(found)) == ("reranked", (12, 0))
    assert scores(found) == whole


def test_a_deadline_in_the_middle(encoder, tmp_path):
    """The first candidates are scored by their states, with their scores; the others follow."""
    slow = TextCrossEncoder(DEFAULT_RERANKER, cache_dir=encoder.cache_dir, threads=1)
    long = [{"text": " ".join(TEXTS[row:] * 20)} for row in range(8)]
    with closing(embedded_client(tmp_path)) as client:
        searcher = HybridSearcher("docs", client=client, reranker=slow, candidates=400)
        searcher.add(long, ids=range(8), settings=STORED)
        points, _ = client.scroll("docs", limit=8, with_payload=True, with_vectors=True)
        for start in range(8, 400, 8):  # the same texts, so that their states are at hand
            copies = [
                models.PointStruct(id=start + row, vector=point.vector, payload=point.payload)
                for row, point in enumerate(points)
            ]
            client.upsert("docs", copies)
        whole = searcher.search(QUERY, limit=400)
        assert counts(whole) == (400, 0)
        right, trace = scores(whole), whole.trace
        first = HybridSearcher("docs", client=client, reranker=None).search(QUERY, limit=400)

        async def search(deadline_s):
            async with AsyncHybridSearcher(
                "docs", client=client, reranker=slow, candidates=400
            ) as awaited:
                return await awaited.search(QUERY, limit=400, deadline_s=deadline_s)

        for wait in (False, True):
            partly = 0
            for share in (0.5, 0.3, 0.7, 0.2, 0.8):  # another load may make all too slow or fast
                deadline_s = trace.recall_s + trace.embed_s + share * trace.infer_s
                if wait:
                    found = asyncio.run(search(deadline_s))
                else:
                    found = searcher.search(QUERY, limit=400, deadline_s=deadline_s)
                done = found.trace.pairs
                assert counts(found) == (done, 0)
                got = scores(found)
                ids = [hit.id for hit in first]
                assert {hit.id for hit in found[:done]} == set(ids[:done])
                assert all(got[point] == right[point] for point in ids[:done])
                assert [hit.id for hit in found[done:]] == ids[done:]
                partly = done if found.trace.status == "partial" else 0
                if partly:
                    break
            assert 0 < partly < 400


@needs_client(1, 20)  # local mode
def test_a_search_for_points_like_a_point(searcher):
    """Its text is the query."""
    assert counts(searcher.search(1, limit=5)) == (11, 0)


def test_batches_groups_and_filters(searcher):
    """Every way to search uses states, with the same scores."""
    whole = scores(searcher.search(QUERY, limit=12))
    first, second = searcher.search_batch([QUERY, "bread"], limit=12)
    assert scores(first) == whole
    assert counts(second) == (12, 0)
    groups = searcher.search_groups(QUERY, group_by="book", group_size=6, limit=2)
    assert {hit.id: hit.rerank_score for group in groups for hit in group.hits} == whole
    assert all(STATES_FIELD not in hit.payload for group in groups for hit in group.hits)
    narrow = searcher.search(
        QUERY, query_filter={"must": [{"key": "book", "match": {"value": "a"}}]}
    )
    assert counts(narrow) == (6, 0)
    assert scores(narrow).items() <= whole.items()
    given = searcher.search(QUERY, recall=np.ones(searcher.embedder.dimension), limit=3)
    assert counts(given) == (12, 0)
    assert scores(given).items() <= whole.items()


def test_long_documents_are_read_in_passages(engine, encoder):
    """Snippets are those of the best passage, from stored states, too."""
    reading = TextCrossEncoder(
        DEFAULT_RERANKER,
        cache_dir=encoder.cache_dir,
        long_documents=Windows(overlap=4),
        max_length=64,
    )
    searcher = HybridSearcher("docs", client=engine, reranker=reading)
    long = " ".join(TEXTS[3:] * 3) + " " + TEXTS[0]
    searcher.add([{"text": long}, {"text": TEXTS[1]}], ids=[1, 2], settings=STORED)
    found = searcher.search(QUERY)
    assert counts(found) == (2, 0)
    assert found[0].id == 1
    assert "1538" in found[0].snippet.text
    assert found[0].snippet.end == len(long)


def test_adding_again_makes_the_states_again(searcher):
    """A document that takes another's place brings its own states; ids do not depend on them."""
    searcher.add([{"text": "Iron is melted at 1538 degrees."}], ids=[1])
    found = searcher.search(QUERY, limit=12)
    assert counts(found) == (12, 0)
    points, _ = searcher.client.scroll("docs", limit=100, with_vectors=True)
    again = [
        models.PointStruct(**point.model_dump(include={"id", "payload"}), vector=point.vector)
        for point in points
    ]
    assert searcher.add(again) == 12
    assert counts(searcher.search(QUERY, limit=12)) == (12, 0)
    payloads = [point.payload for point in points]
    made = HybridSearcher("other", client=searcher.client, reranker=searcher.reranker)
    made.add(payloads)
    assert all(
        STATES_FIELD not in point.payload for point in searcher.client.scroll("other", limit=99)[0]
    )


def test_a_document_without_text_has_no_states(engine, encoder):
    """A point with its own vectors may have no text, and is stored all the same."""
    searcher = HybridSearcher("docs", client=engine, reranker=encoder, sparse=None)
    searcher.add([{"text": TEXTS[0]}], ids=[1], settings=STORED)
    vector = [0.1] * searcher.embedder.dimension
    searcher.add([models.PointStruct(id=2, vector={"dense": vector}, payload={"year": 1})])
    assert stored(engine, 2) is None
    found = searcher.search(QUERY)
    assert (counts(found), found.trace.missing_text) == ((1, 0), 1)


def test_a_reranker_that_makes_none_is_refused(engine, tiny_bert):
    """Nothing is created for a reranker without a trunk, or for none."""
    for reranker in (tiny_bert, None, lambda q, d: [1.0] * len(d)):
        searcher = HybridSearcher("docs", client=engine, reranker=reranker)
        with pytest.raises(InvalidInputError, match=r"see each text alone.* grown-e5-small-v1, "):
            searcher.add(DOCUMENTS, settings=STORED)
        assert not engine.collection_exists("docs")


@pytest.mark.parametrize("model", ["grown-e5-small-l6-v1", "grown-e5-small-cross-v1"])
def test_a_model_without_a_quantizer_is_refused(engine, encoder, model):
    """Nothing is created, or recorded, for a model that has none; the error names one that has."""
    other = TextCrossEncoder(model, cache_dir=encoder.cache_dir)
    searcher = HybridSearcher("docs", client=engine, reranker=other)
    refused = pytest.raises(InvalidInputError, match=f"{model} has none.* {DEFAULT_RERANKER}")
    with refused:
        searcher.add(DOCUMENTS, settings=CollectionSettings(document_states="pq"))
    assert not engine.collection_exists("docs")
    searcher.add(DOCUMENTS, ids=IDS, settings=STORED)
    before = stored(engine, 1)
    with refused:
        searcher.fill_states(precision="pq")
    assert stored(engine, 1) == before
    assert counts(searcher.search(QUERY, limit=12)) == (12, 0)


@pytest.mark.parametrize("precision", ["pq"])
def test_states_of_another_quantizer_are_read_anew(searcher, encoder, other_quantizer):
    """They are those of another model: not used, not current, and made again."""
    changed = TextCrossEncoder(other_quantizer, cache_dir=encoder.cache_dir)
    another = HybridSearcher("docs", client=searcher.client, reranker=changed)
    found = another.search(QUERY, limit=12)
    assert (counts(found), found.trace.precision) == ((0, 12), "int8")
    filled = another.fill_states()
    assert (filled.current, filled.made) == (0, len(TEXTS))
    assert counts(another.search(QUERY, limit=12)) == (12, 0)
    assert another.fill_states(precision="int8").made == len(TEXTS)
    assert counts(searcher.search(QUERY, limit=12)) == (12, 0)  # in int8 it is the same model


@pytest.mark.parametrize("given", ["int4", True, 8])
def test_a_wrong_precision_is_refused(given):
    """The settings say what there is."""
    with pytest.raises(InvalidInputError, match="document_states is"):
        CollectionSettings(document_states=given)


def test_metadata_that_nobody_wrote_is_no_record(engine, encoder):
    """Wrong records of states are as none."""
    for record in ({}, 7, {"precision": "int8", "model": "zz"}, {"precision": 1, "model": "00"}):
        engine.create_collection(
            "docs",
            vectors_config={"dense": models.VectorParams(size=256, distance="Cosine")},
            metadata={STATES_KEY: record},
        )
        searcher = HybridSearcher("docs", client=engine, reranker=encoder, sparse=None)
        searcher.add([TEXTS[0]])
        assert counts(searcher.search(QUERY)) == (None, None)
        engine.delete_collection("docs")


def test_async_and_rest_agree(encoder):
    """Over HTTP, and in an event loop, the scores are the same, and so are the counts."""
    with loopback_qdrant() as (url, _):
        client = QdrantClient(url=url, check_compatibility=False)
        searcher = HybridSearcher("docs", client=client, reranker=encoder)
        searcher.add(DOCUMENTS, ids=IDS, settings=STORED)
        found = searcher.search(QUERY, limit=12)
        client.close()

        async def search():
            async with AsyncHybridSearcher(
                "docs",
                client=AsyncQdrantClient(url=url, check_compatibility=False),
                reranker=encoder,
            ) as awaited:
                both = await asyncio.gather(*[awaited.search(QUERY, limit=12) for _ in range(3)])
                filled = await awaited.fill_states()
                await awaited.client.close()
                return both, filled

        others, filled = asyncio.run(search())
    assert counts(found) == (12, 0)
    for other in others:
        assert scores(other) == scores(found)
        assert counts(other) == (12, 0)
    assert filled.current == len(TEXTS)
