"""AsyncHybridSearcher: what the sync one returns, off the event loop, bounded and cancellable."""

import asyncio
import inspect
import threading
import time

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    DEFAULT_RERANKER,
    AsyncHybridSearcher,
    HybridSearcher,
    SearchOptions,
    TextCrossEncoder,
)
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    MissingTextError,
    QdrantConnectionError,
)
from qdrant_rerank.reranking.grouping import GroupedResults
from tests.loopback_qdrant import loopback_qdrant
from tests.releases import needs_client

DOCUMENTS = [
    {"text": text, "n": n, "topic": "metal" if "iron" in text.lower() else "other"}
    for n, text in enumerate(
        [
            "Iron melts at 1538 degrees Celsius.",
            "Sourdough bread is baked in a hot oven.",
            "Blast furnaces turn iron ore into pig iron.",
            "Chocolate melts gently over warm water.",
            "Copper conducts better than iron does.",
            "Penguins keep warm by huddling.",
        ]
    )
]
NO_TEXT = models.PointStruct(
    id=99,
    payload={"n": 99, "topic": "metal"},
    vector={"dense": [1.0] * 256, "bm25": models.SparseVector(indices=[1], values=[1.0])},
)
IDS = [*range(len(DOCUMENTS)), 99]
QUERIES = ["How hot must it be for iron to melt?", "what is baked", "warm"]
IRON = models.Filter(
    must=[models.FieldCondition(key="topic", match=models.MatchValue(value="metal"))]
)


class Failing:
    """A reranker out of order."""

    def rerank(self, query, documents):
        raise RuntimeError("the model fell over")


class Slow:
    """A reranker that takes its time, and counts how many are at it."""

    def __init__(self, seconds):
        self.seconds, self.now, self.most, self.lock = seconds, 0, 0, threading.Lock()

    def rerank(self, query, documents):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        return [float(len(document)) for document in documents]


def options(**given):
    return {"options": SearchOptions(**given)}


# How the searcher is made, and how it is asked.
CASES = [
    pytest.param({}, {}, id="defaults"),
    pytest.param({}, {"limit": 2}, id="limit"),
    pytest.param({}, {"limit": 2, "candidates": 3}, id="candidates"),
    pytest.param({}, {"query_filter": IRON}, id="query_filter"),
    pytest.param({}, {"score_threshold": 0.0}, id="score_threshold"),
    pytest.param({}, {"with_payload": False}, id="with_payload=False"),
    pytest.param({}, {"with_payload": ["n"]}, id="with_payload"),
    pytest.param(
        {}, {"with_payload": models.PayloadSelectorExclude(exclude=["text"])}, id="selector"
    ),
    pytest.param({}, {"with_vectors": ["dense"]}, id="with_vectors"),
    pytest.param({}, {"with_payload": ["n"], "deadline_s": 600}, id="deadline_s"),
    pytest.param({}, {"deadline_s": 1e-9}, id="no time"),
    pytest.param({}, options(fusion="dbsf"), id="fusion"),
    pytest.param({}, options(blend=0.5), id="blend"),
    pytest.param({}, options(blend="rrf"), id="blend=rrf"),
    pytest.param({}, options(on_missing_text="drop"), id="on_missing_text=drop"),
    pytest.param({}, options(on_missing_text="raise"), id="on_missing_text=raise"),
    pytest.param({}, options(dense_vector="dense", sparse_vector="bm25"), id="vectors"),
    pytest.param({}, options(search_params=models.SearchParams(exact=True)), id="search_params"),
    pytest.param({}, options(timeout_s=60, retries=2), id="timeout_s, retries"),
    pytest.param({"options": SearchOptions(blend=0.3)}, {}, id="the searcher's options"),
    pytest.param({"candidates": 4}, {"limit": 3}, id="the searcher's candidates"),
    pytest.param({"reranker": None}, {"limit": 3}, id="no reranker"),
    pytest.param({"reranker": None}, {"score_threshold": 0.4}, id="no reranker, threshold"),
    pytest.param({"embedder": None}, {}, id="sparse alone"),
    pytest.param({"sparse": None}, {}, id="dense alone"),
    pytest.param({"text": "topic"}, {}, id="another text"),
    pytest.param({"text": "{topic}: {text}"}, {}, id="a template"),
    pytest.param({"reranker": Failing()}, {}, id="failing"),
    pytest.param({"reranker": Failing()}, options(on_rerank_error="recall"), id="degraded"),
    pytest.param({}, {"limit": 2, "offset": 1}, id="offset"),
    pytest.param({"reranker": None}, {"limit": 2, "offset": 1}, id="offset, no reranker"),
    pytest.param({}, {"lookup_from": models.LookupLocation(collection="docs")}, id="lookup_from"),
    pytest.param({}, {"with_payload": models.PayloadSelectorInclude(include=["n"])}, id="include"),
    pytest.param({}, options(two_phase=False) | {"with_payload": ["n"]}, id="two_phase=False"),
    pytest.param({}, options(diversity=0.5), id="diversity"),
    pytest.param({}, options(diversity=0.5) | {"deadline_s": 600, "limit": 3}, id="diversity, 3"),
    pytest.param({}, {"options": {"diversity": 2}}, id="options of a wrong kind"),
    pytest.param({}, {"limit": 0}, id="a wrong limit"),
    pytest.param({}, {"limit": 3, "candidates": 2}, id="candidates below limit"),
    pytest.param({}, {"with_payload": "n"}, id="one str"),
    pytest.param({}, {"deadline_s": -1}, id="a wrong deadline"),
    pytest.param({}, {"score_threshold": "high"}, id="a wrong threshold"),
]


def outcome(result):
    """What has to be the same: hits with all that is in them, and the trace without its times."""
    if isinstance(result, Exception):
        return type(result), str(result)
    if isinstance(result, list) and not hasattr(result, "trace"):
        return [outcome(one) for one in result]
    hits = [group.hits for group in result] if isinstance(result, GroupedResults) else [result]
    trace = {
        name: getattr(result.trace, name)
        for name in result.trace.__dataclass_fields__
        if not name.endswith("_s")
    }
    return result.query, [hit.model_dump() for row in hits for hit in row], trace


@pytest.fixture(scope="module")
def tiny(tiny_bert):
    """A small reranker."""
    return TextCrossEncoder(tiny_bert)


@pytest.fixture(scope="module")
def engines():
    """The same points in every kind of engine: (name, sync client, makes the other client)."""
    with loopback_qdrant() as (url, qdrant):
        local, in_memory = QdrantClient(":memory:"), AsyncQdrantClient(":memory:")
        over_http = QdrantClient(url=url, check_compatibility=False)
        for client in (local, over_http):
            filler = HybridSearcher("docs", client=client)
            filler.add([*DOCUMENTS, NO_TEXT], ids=IDS, progress=False)
        asyncio.run(fill(in_memory))
        yield {
            "AsyncQdrantClient in memory": (local, lambda: in_memory),
            "QdrantClient in memory": (local, lambda: local),
            "AsyncQdrantClient over HTTP": (
                over_http,
                lambda: AsyncQdrantClient(url=url, check_compatibility=False),
            ),
        }
        local.close()
        over_http.close()
        asyncio.run(in_memory.close())
        assert qdrant.client.count("docs").count == len(DOCUMENTS) + 1


async def fill(client):
    async with AsyncHybridSearcher("docs", client=client) as searcher:
        assert await searcher.add([*DOCUMENTS, NO_TEXT], ids=IDS, progress=False) == len(IDS)


def outcome_of(call):
    """What a sync call returns or raises."""
    try:
        return outcome(call())
    except Exception as error:
        return outcome(error)


async def awaited(make, made, calls):
    """The outcomes of calls of an async searcher."""
    client = make()
    try:
        async with AsyncHybridSearcher("docs", client=client, **made) as searcher:
            found = []
            for call in calls:
                try:
                    found.append(outcome(await call(searcher)))
                except Exception as error:
                    found.append(outcome(error))
            return found
    finally:
        if not client.init_options["location"]:
            await client.close()


@pytest.mark.parametrize("engine", ["AsyncQdrantClient in memory", "AsyncQdrantClient over HTTP"])
@pytest.mark.parametrize(("made", "asked"), CASES)
def test_async_finds_what_sync_finds(engines, engine, tiny, made, asked):
    """Ids, scores, payloads, the trace's counts and status, and errors word for word."""
    made = {"reranker": tiny} | made
    sync_client, make_client = engines[engine]
    calls = [
        lambda searcher: searcher.search(QUERIES[0], **asked),
        lambda searcher: searcher.search_batch(QUERIES, **asked),
        lambda searcher: searcher.search_groups(QUERIES[0], group_by="topic", **asked),
    ]
    searcher = HybridSearcher("docs", client=sync_client, **made)
    expected = [outcome_of(lambda call=call: call(searcher)) for call in calls]
    assert asyncio.run(awaited(make_client, made, calls)) == expected


@pytest.mark.filterwarnings("ignore:None of the .* group_by='nothing'")
@pytest.mark.parametrize("engine", ["AsyncQdrantClient in memory", "AsyncQdrantClient over HTTP"])
@needs_client(1, 20)
def test_and_so_by_any_kind_of_recall(engines, engine, tiny):
    """A point's id, a vector, a query, a request, sub-requests; and what is wrong with them."""
    ones = [1.0] * 256
    request = models.QueryRequest(query=ones, using="dense", limit=3)
    calls = [
        lambda searcher: searcher.search(0),
        lambda searcher: searcher.search(99),
        lambda searcher: searcher.search(12345),
        lambda searcher: searcher.search_batch([1, "bread"]),
        lambda searcher: searcher.search("q", recall=ones),
        lambda searcher: searcher.search("q", recall=request),
        lambda searcher: searcher.search("q", recall=request, query_filter=IRON),
        lambda searcher: searcher.search(
            "q", prefetch=models.Prefetch(query=ones, using="dense", limit=4)
        ),
        lambda searcher: searcher.search_groups("q", group_by="topic", group_size=1, recall=ones),
        lambda searcher: searcher.search_groups("q", group_by="nothing"),
    ]
    sync_client, make_client = engines[engine]
    searcher = HybridSearcher("docs", client=sync_client, reranker=tiny)
    expected = [outcome_of(lambda call=call: call(searcher)) for call in calls]
    assert asyncio.run(awaited(make_client, {"reranker": tiny}, calls)) == expected
    assert sum(isinstance(seen[0], type) for seen in expected) == 3


@pytest.mark.parametrize("call", ["__init__", "search", "search_batch", "search_groups", "add"])
def test_both_take_the_same_arguments(call):
    """Whatever one of them learns, the other has; of its own are its client and its threads."""
    own = {"client", "concurrency"}
    sync, asynchronous = (
        [
            str(p)
            for p in inspect.signature(getattr(kind, call)).parameters.values()
            if p.name not in own
        ]
        for kind in (HybridSearcher, AsyncHybridSearcher)
    )
    assert sync == asynchronous


def test_an_embedded_engine_of_the_sync_kind_serves_too(engines):
    """What add stores through one, both find."""
    local, _ = engines["QdrantClient in memory"]

    async def main():
        async with AsyncHybridSearcher("more", client=local, reranker=None) as searcher:
            assert await searcher.add(["one", "two"], batch_size=1, progress=False) == 2
            return await searcher.search("two")

    found = asyncio.run(main())
    assert found == HybridSearcher("more", client=local, reranker=None).search("two")
    assert len(found) == 2


def test_the_default_is_an_engine_in_memory_and_closed_at_the_end():
    """As of the sync searcher; the error names what to call."""

    async def main():
        async with AsyncHybridSearcher("docs", reranker=None) as searcher:
            with pytest.raises(CollectionNotFoundError, match=r":memory:.*It has no collections"):
                await searcher.search("q")
            documents = iter(["a", {"title": "b"}])
            with pytest.raises(MissingTextError, match="Document 1 has no text") as caught:
                await searcher.add(documents, batch_size=1, progress=False)
            assert caught.value.__notes__[0].startswith("1 documents before it were added. Add all")
            assert len(await searcher.search("a")) == 1
            assert await searcher.search_batch([]) == []
            return searcher.client

    closed = asyncio.run(main())
    with pytest.raises((RuntimeError, QdrantConnectionError), match="closed"):
        closed.count("docs")


def test_qdrant_url_is_asked_by_an_async_client(monkeypatch):
    """The environment decides, as for the sync searcher."""
    with loopback_qdrant() as (url, _):
        monkeypatch.setenv("QDRANT_URL", url)

        async def main():
            async with AsyncHybridSearcher("docs", reranker=None) as searcher:
                assert isinstance(searcher.client, AsyncQdrantClient)
                await searcher.add(["a"], progress=False)
                return await searcher.search("a")

        assert len(asyncio.run(main())) == 1
        for thread in threading.enumerate():  # qdrant-client's own, which asks for the version
            if "_check_compatibility" in thread.name:
                thread.join(30)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_than_so_many_are_at_work(client, concurrency):
    """The others wait their turn, and all get their answer."""
    HybridSearcher("docs", client=client, reranker=None).add(DOCUMENTS, progress=False)
    slow = Slow(0.03)

    async def main():
        async with AsyncHybridSearcher(
            "docs", client=client, reranker=slow, concurrency=concurrency
        ) as searcher:
            return await asyncio.gather(*(searcher.search(f"query {n}") for n in range(9)))

    found = asyncio.run(main())
    assert [results.query for results in found] == [f"query {n}" for n in range(9)]
    assert slow.most == concurrency


def test_waiting_for_a_turn_counts_towards_the_deadline(client):
    """And the error says what was in the way."""
    HybridSearcher("docs", client=client, reranker=None).add(["a"], progress=False)

    async def main():
        async with AsyncHybridSearcher(
            "docs", client=client, reranker=Slow(0.6), concurrency=1
        ) as searcher:
            first = asyncio.create_task(searcher.search("a"))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            with pytest.raises(QdrantConnectionError, match=r"1 calls were at work.*concurrency"):
                await searcher.search("a", deadline_s=0.1)
            assert time.monotonic() - began < 0.4
            assert len(await first) == 1

    asyncio.run(main())


def test_the_event_loop_never_waits_for_a_model_or_an_engine():
    """Reading texts, embedding, the engine's calls and reranking are all done in other threads."""
    seen = {}

    def note(what):
        seen.setdefault(what, set()).add(threading.current_thread())

    class Engine(QdrantClient):
        def query_points(self, *args, **kwargs):
            note("engine")
            return super().query_points(*args, **kwargs)

    class Noting:
        name, dimension = "noting", 2

        def embed_query(self, text):
            note("embedder")
            return np.ones(2, dtype=np.float32)

        def embed_documents(self, texts):
            note("embedder")
            return np.ones((len(texts), 2), dtype=np.float32)

        def rerank(self, query, documents):
            note("reranker")
            return [0.0 for _ in documents]

    def text(payload):
        note("text")
        return payload["text"]

    async def main():
        async with AsyncHybridSearcher(
            "docs", client=client, text=text, embedder=Noting(), reranker=Noting()
        ) as searcher:
            await searcher.add([{"text": "a"}], progress=False)
            await searcher.search("a")
            await searcher.search_batch(["a", "b"], options=SearchOptions(diversity=0.5))
            await searcher.search_groups("a", group_by="text")

    client = Engine(location=":memory:")
    asyncio.run(main())
    client.close()
    assert set(seen) == {"engine", "embedder", "reranker", "text"}
    assert not any(threading.current_thread() in threads for threads in seen.values())


def test_a_cancelled_search_stops_within_a_run():
    """Its task at once; nothing stays queued for the model, and the next search works."""
    encoder = TextCrossEncoder(DEFAULT_RERANKER, threads=1)
    pool = encoder._model.scorer().runtime._pool
    many = [f"Document {n}: " + "iron ore is smelted in a furnace. " * 12 for n in range(600)]

    async def main():
        async with AsyncHybridSearcher("docs", reranker=encoder, candidates=600) as searcher:
            await searcher.add(many, progress=False)
            task = asyncio.create_task(searcher.search("iron", limit=600))
            while not pool._work_queue.qsize():
                await asyncio.sleep(0.001)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 0.5
            give_up = time.monotonic() + 2
            while pool._work_queue.qsize() and time.monotonic() < give_up:
                await asyncio.sleep(0.001)
            assert pool._work_queue.qsize() == 0
            return await searcher.search("iron", limit=3, candidates=3)

    assert len(asyncio.run(main())) == 3


def test_a_cancelled_add_keeps_what_was_stored(client):
    """The batch under way is the last."""
    read = []

    def documents():
        for n in range(10_000):
            read.append(n)
            yield f"document {n}"

    async def main():
        async with AsyncHybridSearcher("docs", client=client, reranker=None) as searcher:
            task = asyncio.create_task(
                searcher.add(documents(), batch_size=10, progress=False, avg_len=2)
            )
            while len(read) < 50:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    stored = client.count("docs").count
    assert 0 < stored <= len(read) < 10_000
    assert stored % 10 == 0


def test_closed_it_says_so(client):
    """To what comes afterwards, and to what was on its way; closing twice is no harm."""
    HybridSearcher("docs", client=client, reranker=None).add(["a"], progress=False)

    async def main():
        searcher = AsyncHybridSearcher("docs", client=client, reranker=Slow(0.2))
        on_its_way = asyncio.create_task(searcher.search_batch(["a", "b"], with_payload=["text"]))
        await asyncio.sleep(0.1)
        await searcher.close()
        await searcher.close()
        for call in (on_its_way, searcher.search("a"), searcher.add(["b"], progress=False)):
            with pytest.raises(QdrantConnectionError, match="searcher of 'docs' was closed"):
                await call

    asyncio.run(main())
    assert client.count("docs").count == 1


class StaticHash:
    """An embedder of two dimensions."""

    name, dimension = "hash", 2

    def embed_query(self, text):
        """Any vector."""
        return np.ones(2, dtype=np.float32)

    def embed_documents(self, texts):
        """Any vectors."""
        return np.ones((len(texts), 2), dtype=np.float32)


def test_a_cancelled_neighbour_does_not_hold_up_a_call_with_a_deadline(client):
    """Its encoder, which cannot be stopped, keeps its own thread, and no other call's."""

    class Encoder(StaticHash):
        def embed_query(self, text):
            if text == "slow":
                time.sleep(4)
            return super().embed_query(text)

    async def main():
        async with AsyncHybridSearcher(
            "docs", client=client, reranker=None, embedder=Encoder(), concurrency=1
        ) as searcher:
            await searcher.add(["iron", "tin"], progress=False)
            neighbour = asyncio.ensure_future(searcher.search("slow"))
            await asyncio.sleep(0.2)
            neighbour.cancel()
            began = time.monotonic()
            assert len(await searcher.search("iron", deadline_s=3)) == 2
            quick = time.monotonic() - began
            began = time.monotonic()
            with pytest.raises(QdrantConnectionError, match="encoding the query took all of it"):
                await searcher.search("slow", deadline_s=0.3)
            return quick, time.monotonic() - began

    quick, late = asyncio.run(main())
    assert quick < 3
    assert late < 2


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, None, "8"])
def test_a_wrong_concurrency_is_refused(client, concurrency):
    """With what was expected."""
    with pytest.raises(InvalidInputError, match=r"concurrency is .*expected"):
        AsyncHybridSearcher("docs", client=client, concurrency=concurrency)


def test_a_blocking_client_of_a_server_is_refused():
    """It would hold up the event loop."""
    with pytest.raises(InvalidInputError, match="expected an AsyncQdrantClient"):
        AsyncHybridSearcher("docs", client=QdrantClient(port=1, check_compatibility=False))
