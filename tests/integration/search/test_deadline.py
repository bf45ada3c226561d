"""A deadline: what is scored when time is up, in which order, and what is left behind."""

import asyncio
import math
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.models import ScoredPoint

from qdrant_rerank import (
    DEFAULT_RERANKER,
    AsyncHybridSearcher,
    HybridSearcher,
    SearchOptions,
    TextCrossEncoder,
    rerank_points,
)
from qdrant_rerank.errors import DeadlineError, InvalidInputError, QdrantConnectionError
from qdrant_rerank.types import UNSCORED
from qdrant_rerank.utils.deadline import Deadline
from tests.loopback_grpc import loopback_server

QUERY = "How hot must it be for iron to melt?"
# Far more than any machine scores in a second, and cheap to make.
MANY = [f"Document {n}: " + "iron ore is smelted in a furnace. " * 12 for n in range(3000)]
WRONG = [0, -1, -0.5, math.nan, True, "1", [1]]


@pytest.fixture(scope="module")
def encoder():
    """The bundled model on two threads."""
    return TextCrossEncoder(DEFAULT_RERANKER, threads=2)


def hits(texts):
    """As Qdrant returns them."""
    return [
        ScoredPoint(id=n, version=0, score=1 - n / 10_000, payload={"text": text})
        for n, text in enumerate(texts)
    ]


def queued(encoder):
    """Runs that wait for a thread."""
    return encoder._model.scorer().runtime._pool._work_queue.qsize()


class Careless:
    """A reranker that knows no deadline, as fastembed's."""

    def __init__(self, seconds=0.0):
        self.seconds, self.asked = seconds, 0

    def rerank(self, query, documents):
        self.asked += 1
        time.sleep(self.seconds)
        return [float(len(document)) for document in documents]


def test_the_first_pairs_are_scored_and_have_their_scores(encoder):
    """A prefix of the pairs; the scores are those without a deadline; nothing stays queued."""
    pairs = [(QUERY, text) for text in MANY]
    began = time.perf_counter()
    found = encoder.score_pairs(pairs, deadline_s=0.8)
    took = time.perf_counter() - began
    count = int(found.scored.sum())
    assert 0 < count < len(pairs)
    assert found.scored[:count].all()
    assert took < 4
    assert np.isnan(found.scores[count:]).all()
    assert not found.windows[count:].any()
    assert found.tokens == encoder.token_count(pairs[:count])
    again = encoder.score_pairs(pairs[: min(count, 20)]).scores
    assert found.scores[: len(again)] == pytest.approx(again, abs=1e-5)
    assert queued(encoder) == 0


def test_no_run_is_begun_after_the_deadline(tiny):
    """What was begun is finished, and is the first of the items, whatever each takes."""
    begun, done = [], []

    def work(item):
        begun.append(time.monotonic())
        time.sleep(0.03 * (1 + item % 3))
        done.append(item)

    deadline = Deadline.after(0.3)
    count = tiny[0]._model.scorer().runtime.for_each(work, iter(range(1000)), deadline=deadline)
    assert max(begun) < deadline.at + 0.3  # the clock of a busy machine
    assert sorted(done) == list(range(count))
    assert 2 <= count < 100
    assert (deadline.remaining, deadline.passed, Deadline().remaining) == (0, True, None)
    assert tiny[0]._model.scorer().runtime.for_each(work, iter([1]), deadline=deadline) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(st.text(max_size=60), max_size=70),
    size=st.none() | st.integers(1, 9),
    windows=st.booleans(),
)
def test_with_time_enough_a_deadline_changes_no_score(tiny, texts, size, windows):
    """Whatever the texts, the batch size, and how long documents are read."""
    pairs = [("bread", text) for text in texts]
    plain = tiny[windows].score_pairs(pairs, size)
    timed = tiny[windows].score_pairs(pairs, size, deadline_s=600)
    assert timed.scored.all()
    assert timed.scores == pytest.approx(plain.scores, abs=1e-5)
    assert (timed.tokens, timed.spans) == (plain.tokens, plain.spans)
    assert timed.windows.tolist() == plain.windows.tolist()
    assert timed.truncated.tolist() == plain.truncated.tolist()


@pytest.fixture(scope="module")
def tiny(tiny_bert):
    """A small model with a small window, truncating and reading in windows."""
    return [
        TextCrossEncoder(tiny_bert, threads=2, max_length=24, long_documents=how)
        for how in ("truncate", "windows")
    ]


def test_a_late_rerank_raises_and_brings_what_it_has(encoder):
    """A list that is not one score per document would be taken for one."""
    with pytest.raises(DeadlineError, match=r"of 3000 documents were scored in 0\.5 s") as caught:
        encoder.rerank(QUERY, MANY, deadline_s=0.5)
    scores = caught.value.scores
    assert 0 < len(scores) < len(MANY)
    first = MANY[: min(len(scores), 3)]
    assert isinstance(caught.value, TimeoutError)
    assert encoder.rerank(QUERY, first, deadline_s=600) == pytest.approx(scores[:3], abs=1e-5)


@pytest.mark.parametrize("deadline_s", WRONG)
def test_what_is_no_time_is_refused_before_any_work(encoder, client, deadline_s):
    """Everywhere a deadline is taken."""
    searcher = HybridSearcher("docs", client=client, reranker=encoder)
    for call in (
        lambda: encoder.rerank(QUERY, ["a"], deadline_s=deadline_s),
        lambda: encoder.score_pairs([(QUERY, "a")], deadline_s=deadline_s),
        lambda: rerank_points(QUERY, hits(["a"]), reranker=encoder, deadline_s=deadline_s),
        lambda: searcher.search(QUERY, deadline_s=deadline_s),
        lambda: searcher.search_batch([QUERY], deadline_s=deadline_s),
    ):
        with pytest.raises(InvalidInputError, match="deadline_s is"):
            call()


@pytest.mark.parametrize("deadline_s", [1e8, 1e9, 1e10, 1e12, 1e300, 10**400, math.inf])
def test_years_are_as_good_as_no_deadline(encoder, deadline_s):
    """The clocks beneath end at some hundred years."""
    assert encoder.rerank(QUERY, ["a"] * 40, deadline_s=deadline_s) == encoder.rerank(
        QUERY, ["a"] * 40
    )


@pytest.mark.parametrize("kind", ["local mode", "REST", "gRPC"])
@pytest.mark.parametrize(
    "long",
    [
        {"deadline_s": 1e8},
        {"deadline_s": 1e10},
        {"deadline_s": math.inf},
        {"options": SearchOptions(timeout_s=2**40)},
        {"options": SearchOptions(timeout_s=2**70), "deadline_s": 30},
    ],
)
def test_a_request_may_take_years(client, kind, long):
    """Of a client that blocks, and of an event loop's."""
    with loopback_server(client) as (url, grpc_port):
        where = {
            "url": url,
            "grpc_port": grpc_port,
            "prefer_grpc": kind == "gRPC",
            "check_compatibility": False,
        }
        engine = client if kind == "local mode" else QdrantClient(**where)
        searcher = HybridSearcher("docs", client=engine, reranker=None)
        searcher.add(["iron", "tin"], progress=False)
        assert len(searcher.search("iron", **long)) == 2

        async def main():
            awaited = client if kind == "local mode" else AsyncQdrantClient(**where)
            async with AsyncHybridSearcher("docs", client=awaited, reranker=None) as searcher:
                return len(await searcher.search("iron", **long))

        assert asyncio.run(main()) == 2
        if engine is not client:
            engine.close()


@pytest.mark.parametrize("threshold", [None, 1e9])
def test_a_partial_page_is_the_scored_head_then_the_rest(encoder, threshold):
    """The rest in retrieval order; a threshold drops of the scored ones only."""
    points = hits(MANY)
    points[3].payload = {}
    results = rerank_points(
        QUERY, points, reranker=encoder, deadline_s=0.8, score_threshold=threshold
    )
    pairs = results.trace.pairs
    assert results.trace.status == "partial"
    assert 0 < pairs < len(MANY)
    head = [hit for hit in results if hit.rerank_score is not None]
    rest = results[len(head) :]
    assert len(head) == (pairs if threshold is None else 0)
    assert [hit.score for hit in head] == sorted((hit.score for hit in head), reverse=True)
    assert {hit.id for hit in head} <= set(range(pairs + 1))
    assert all(hit.rerank_score is None and hit.score == UNSCORED for hit in rest)
    ranks = [hit.retrieval_rank for hit in rest]
    assert ranks == sorted(ranks)
    assert len(head) + len(rest) == (3000 if threshold is None else 2999 - pairs)
    assert results.to_dicts()[-1]["score"] == UNSCORED


def test_a_search_of_many_queries_scores_the_head_of_each(encoder, client):
    """Not all of the first query and nothing of the last."""
    searcher = HybridSearcher("docs", client=client, reranker=encoder, candidates=600)
    searcher.add(MANY[:600], progress=False)
    queries = ["iron", "ore", "furnace", "smelting", "document"]
    batch = searcher.search_batch(queries, limit=600, deadline_s=2)
    scored = [results.trace.pairs for results in batch]
    assert {results.trace.status for results in batch} == {"partial"}
    assert max(scored) - min(scored) <= 1
    assert max(scored) > 0
    for results in batch:
        assert len(results) == 600
        head = results[: results.trace.pairs]
        assert {hit.retrieval_rank for hit in head} == set(range(1, results.trace.pairs + 1))


def test_in_time_a_deadline_changes_nothing(bundled, client):
    """Same hits, same scores, same payload selection; the trace says "reranked"."""
    searcher = HybridSearcher("docs", client=client, reranker=bundled)
    searcher.add([{"text": f"{text} iron", "n": n} for n, text in enumerate("abcde")])
    plain = searcher.search(QUERY, limit=3, with_payload=["n"], with_vectors=["dense"])
    timed = searcher.search(
        QUERY, limit=3, with_payload=["n"], with_vectors=["dense"], deadline_s=600
    )
    assert timed.to_dicts() == plain.to_dicts()
    assert (timed.trace.status, timed.trace.pairs) == ("reranked", 5)
    assert set(timed[0].payload) == {"n"}


def test_another_reranker_is_asked_only_while_there_is_time():
    """Reading the texts takes all of it, so the page is the first stage's."""
    reranker = Careless()

    def slow_text(payload):
        time.sleep(0.2)
        return payload["text"]

    points = hits(["a", "bbb", "cc"])
    late = rerank_points(QUERY, points, reranker=reranker, text=slow_text, deadline_s=0.1)
    assert [(hit.id, hit.score, hit.rerank_score) for hit in late] == [
        (n, point.score, None) for n, point in enumerate(points)
    ]
    assert (late.trace.status, late.trace.pairs, reranker.asked) == ("partial", 0, 0)
    begun = rerank_points(QUERY, points, reranker=Careless(0.3), deadline_s=0.1)
    assert [hit.id for hit in begun] == [1, 2, 0]
    assert begun.trace.status == "reranked"
    assert begun.trace.total_s > 0.3


def test_no_time_for_the_text_encoder_either(bundled):
    """A cross-encoder of ours is not started when time is up."""

    def slow_text(payload):
        time.sleep(0.2)
        return payload["text"]

    late = rerank_points(QUERY, hits(["a", "b"]), reranker=bundled, text=slow_text, deadline_s=0.1)
    assert [hit.id for hit in late] == [0, 1]
    assert (late.trace.status, late.trace.pairs, late.trace.tokens) == ("partial", 0, 0)


def test_time_that_is_up_before_recall_is_an_error(client, bundled):
    """There is nothing that could be returned."""

    class SlowEmbedder:
        name, dimension = "slow", 2

        def embed_query(self, text):
            time.sleep(0.2)
            return np.ones(2, dtype=np.float32)

        def embed_documents(self, texts):
            return np.ones((len(texts), 2), dtype=np.float32)

    searcher = HybridSearcher("docs", client=client, reranker=bundled, embedder=SlowEmbedder())
    searcher.add(["a"], progress=False)
    with pytest.raises(QdrantConnectionError, match="No time was left"):
        searcher.search("a", deadline_s=0.1)
    assert len(searcher.search("a", deadline_s=600)) == 1


@pytest.mark.parametrize("deadline_s", [None, 600])
def test_ctrl_c_stops_within_a_run_and_leaves_none_queued(encoder, deadline_s):
    """And the encoder still works."""
    pairs = [(QUERY, text) for text in MANY]
    encoder.score_pairs(pairs[:2])
    over = threading.Event()

    def interrupt():
        while not queued(encoder) and not over.is_set():
            time.sleep(0.001)
        if not over.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # as a terminal does

    # A shell starts background jobs with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    other = threading.Thread(target=interrupt)
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            encoder.score_pairs(pairs, deadline_s=deadline_s)
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)
    other.join()
    give_up = time.perf_counter() + 5
    while queued(encoder) and time.perf_counter() < give_up:
        time.sleep(0.01)
    assert queued(encoder) == 0
    assert len(encoder.rerank(QUERY, MANY[:2])) == 2


def test_a_failing_run_is_an_error_with_a_deadline_too(encoder):
    """It is not taken for time that was up."""
    with pytest.raises(InvalidInputError, match="document of pair 1"):
        encoder.score_pairs([(QUERY, "a"), (QUERY, None)], deadline_s=600)
