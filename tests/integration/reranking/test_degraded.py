"""A reranker that fails: an error, or the retrieval order; never an empty page."""

import math

import pytest

from qdrant_rerank import HybridSearcher, SearchOptions, TextCrossEncoder, rerank_points
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from tests.models import variants

RECALL = SearchOptions(on_rerank_error="recall")
TEXTS = ["Iron melts at 1538 C.", "Bread is baked.", "Ore is mined.", "A furnace is hot."]


class Failing:
    """Raises an error, or returns something that is not a score."""

    def __init__(self, failure, query=None):
        self.failure, self.query = failure, query

    def rerank(self, query, documents):
        if self.query is not None and query != self.query:
            return [float(len(document)) for document in documents]
        if isinstance(self.failure, BaseException):
            raise self.failure
        return self.failure


FAILURES = [
    (RuntimeError("the GPU fell off"), "RuntimeError: the GPU fell off"),
    (MemoryError("4 GB"), "MemoryError: 4 GB"),
    (TimeoutError("late"), "TimeoutError: late"),
    ([0.5, math.nan, 1, 2], "ModelOutputError: Failing.rerank returned nan for document 1"),
    ([0.5, math.inf, 1, 2], "ModelOutputError: Failing.rerank returned inf for document 1"),
    ([0.5], "ModelOutputError: Failing.rerank returned scores of shape"),
    (["high", 1, 2, 3], "ModelOutputError: Failing.rerank returned 'high'"),
    (None, "ModelOutputError: Failing.rerank returned a NoneType"),
]


@pytest.fixture
def filled(client):
    """The texts, without a reranker."""
    searcher = HybridSearcher("docs", client=client, reranker=None)
    searcher.add([{"text": text, "n": n} for n, text in enumerate(TEXTS)], progress=False)
    return searcher


@pytest.mark.parametrize(("failure", "cause"), FAILURES)
@pytest.mark.parametrize("threshold", [None, 1e9])
def test_the_retrieval_order_is_what_is_left(filled, client, failure, cause, threshold, caplog):
    """With its scores, whatever the threshold, and the trace says why."""
    plain = filled.search("iron", limit=3, with_payload=["n"])
    searcher = HybridSearcher("docs", client=client, reranker=Failing(failure), options=RECALL)
    found = searcher.search("iron", limit=3, with_payload=["n"], score_threshold=threshold)
    assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in plain]
    assert [hit.retrieval_rank for hit in found] == [1, 2, 3]
    assert [hit.rerank_score for hit in found] == [None] * 3
    assert [set(hit.payload) for hit in found] == [{"n"}] * 3
    assert (found.trace.status, found.trace.pairs) == ("degraded", 0)
    assert found.trace.cause.startswith(cause)
    assert "hits stay in retrieval order" in caplog.text


@pytest.mark.parametrize(("failure", "cause"), FAILURES)
def test_without_it_the_failure_is_raised(filled, client, failure, cause):
    """The reranker's own exception, as before."""
    searcher = HybridSearcher("docs", client=client, reranker=Failing(failure))
    expected = type(failure) if isinstance(failure, Exception) else ModelOutputError
    with pytest.raises(expected):
        searcher.search("iron")
    hits = filled.search("iron")
    with pytest.raises(expected):
        rerank_points("iron", hits, reranker=searcher.reranker)
    kept = rerank_points("iron", hits, reranker=searcher.reranker, on_rerank_error="recall")
    assert [hit.id for hit in kept] == [hit.id for hit in hits]
    assert kept.trace.cause.startswith(cause)


def test_a_secret_of_the_failure_is_not_shown(filled, client, caplog):
    """A reranker behind HTTP may name its URL; neither the trace nor the log has the key."""
    failing = Failing(RuntimeError("401 for https://me:c4nary@host/rerank?api_key=c4nary"))
    searcher = HybridSearcher("docs", client=client, reranker=failing, options=RECALL)
    cause = searcher.search("iron").trace.cause
    assert cause == "RuntimeError: 401 for https://***@host/rerank?api_key=***"
    assert cause in caplog.text
    assert "c4nary" not in caplog.text


def test_of_a_batch_only_the_query_that_failed_is_degraded(filled, client):
    """The others are reranked."""
    reranker = Failing(RuntimeError("no"), query="iron")
    searcher = HybridSearcher("docs", client=client, reranker=reranker, options=RECALL)
    failed, fine = searcher.search_batch(["iron", "bread"])
    assert (failed.trace.status, fine.trace.status) == ("degraded", "reranked")
    assert fine.trace.cause is None
    assert fine[0].payload["text"] == max(TEXTS, key=len)


def test_a_model_that_returns_nan_keeps_the_page(filled, client, tiny_bert, tmp_path):
    """A real file with damaged weights."""
    broken = TextCrossEncoder(variants.nan_logits(tiny_bert, tmp_path / "nan"))
    searcher = HybridSearcher("docs", client=client, reranker=broken)
    with pytest.raises(ModelOutputError, match="returned nan"):
        searcher.search("iron")
    found = searcher.search("iron", options=RECALL)
    assert [hit.id for hit in found] == [hit.id for hit in filled.search("iron")]
    assert (found.trace.status, found.trace.cause[:17]) == ("degraded", "ModelOutputError:")


def test_a_hit_without_text_is_still_dropped_if_told(filled):
    """What has text stays in order."""
    hits = filled.search("iron")
    hits[1].payload = {}
    found = rerank_points(
        "iron",
        hits,
        reranker=Failing(RuntimeError("no")),
        on_missing_text="drop",
        on_rerank_error="recall",
    )
    assert [hit.id for hit in found] == [hit.id for hit in hits if hit.payload]
    assert [hit.retrieval_rank for hit in found] == [1, 3, 4]


def test_an_interrupt_is_no_failure_of_the_reranker(filled, client):
    """Ctrl-C still ends the search."""
    searcher = HybridSearcher(
        "docs", client=client, reranker=Failing(KeyboardInterrupt()), options=RECALL
    )
    with pytest.raises(KeyboardInterrupt):
        searcher.search("iron")


def test_the_choice_is_checked(client):
    """With the choices named."""
    with pytest.raises(InvalidInputError, match="expected one of 'raise', 'recall'"):
        HybridSearcher("docs", client=client, options=SearchOptions(on_rerank_error="ignore"))
    with pytest.raises(InvalidInputError, match="on_rerank_error"):
        rerank_points("q", [], on_rerank_error="ignore")
