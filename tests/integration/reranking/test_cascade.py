"""A cascade of rerankers."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import Cascade, HybridSearcher, TextCrossEncoder, errors
from qdrant_rerank.utils.deadline import NO_DEADLINE

TEXTS = [f"document {word}" for word in "iron bread ore steel oven melt rise bake".split()]


@pytest.fixture(scope="module")
def small(tiny_bert):
    """A cross-encoder of random weights."""
    return TextCrossEncoder(tiny_bert)


@pytest.fixture(scope="module")
def large(tiny_xlmr):
    """Another."""
    return TextCrossEncoder(tiny_xlmr)


@settings(max_examples=20, deadline=None)
@given(keep=st.integers(1, 10), texts=st.lists(st.sampled_from(TEXTS), max_size=8, unique=True))
def test_the_best_of_the_first_stage_have_the_last_ones_scores(small, large, keep, texts):
    """The others follow in the first stage's order."""
    scores = np.array(Cascade([(small, keep), (large, None)]).rerank("iron", texts))
    first, last = np.array(small.rerank("iron", texts)), np.array(large.rerank("iron", texts))
    order = np.argsort(-first, kind="stable")
    went_on, stayed = order[:keep], order[keep:]
    assert np.array_equal(scores[went_on], last[went_on])
    if len(stayed):
        assert scores[stayed].max() < scores[went_on].min()
        assert np.all(np.diff(scores[stayed]) <= 0)


def test_one_stage_is_the_reranker_itself(small):
    """Nothing is pruned."""
    assert Cascade([(small, None)]).rerank("iron", TEXTS) == small.rerank("iron", TEXTS)


def test_three_stages_prune_twice(small, large):
    """Four documents reach the second stage, two the last."""
    asked = []

    class Spy:
        def __init__(self, inner):
            self.inner = inner

        def rerank(self, query, documents):
            documents = list(documents)
            asked.append(len(documents))
            return self.inner.rerank(query, documents)

    scores = Cascade([(Spy(small), 4), (Spy(large), 2), (Spy(small), 2)]).rerank("iron", TEXTS)
    assert asked == [8, 4, 2]
    assert len(set(scores)) == len(TEXTS)


def test_a_search_takes_it(client, small, large):
    """As any reranker."""
    searcher = HybridSearcher("c", client=client, reranker=Cascade([(small, 3), (large, None)]))
    searcher.add(TEXTS)
    found = searcher.search("iron ore", limit=8)
    assert found.trace.pairs == len(found) == 8
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([], "stages is empty"),
        ([("x", 0), ("y", None)], "keep of stage 0 is 0"),
        ([("x", None), ("y", None)], "keep of stage 0 is None, so it would remove nothing"),
        ([("x", 5), ("y", 9)], "keep of stage 1 is 9, but only 5 documents reach it"),
        ("grown", r"stages is 'grown'; expected a list of \(reranker, keep\) pairs"),
        (["x"], r"Stage 0 is 'x'; expected \(reranker, keep\)"),
        ([(3, 1)], "reranker is an int"),
    ],
)
def test_a_wrong_stage_is_named_before_any_model_is_loaded(stages, said):
    """With what was expected."""
    with pytest.raises(errors.InvalidInputError, match=said):
        Cascade(stages)


class Costly:
    """Takes so many seconds, and says which documents it was asked for."""

    def __init__(self, seconds, sign=1.0):
        self.seconds, self.sign, self.asked = seconds, sign, []

    def rerank(self, query, documents):
        self.asked.append(list(documents))
        time.sleep(self.seconds)
        return [self.sign * len(document) for document in self.asked[-1]]


LENGTHS = ["aaa", "a", "aaaa", "aa"]


def test_a_stage_without_time_leaves_the_order_of_the_one_before(client):
    """All documents have a score, and a search says that it is partial."""
    first, last = Costly(0), Costly(0)
    cascade = Cascade([(first, 3), (last, None)])
    assert cascade.rerank("q", LENGTHS, deadline_s=600) == pytest.approx([3, 1.99, 4, 2])
    assert last.asked == [["aaaa", "aaa", "aa"]]
    searcher = HybridSearcher("c", client=client, reranker=None)
    searcher.add(LENGTHS, progress=False)
    searcher.reranker = cascade
    assert searcher.search("a", deadline_s=600).trace.status == "reranked"
    first.seconds, last.asked = 0.5, []
    assert cascade.rerank("q", LENGTHS, deadline_s=0.4) == pytest.approx([3, 1.99, 4, 2])
    found = searcher.search("a", deadline_s=0.4)
    assert [hit.payload["text"] for hit in found] == sorted(LENGTHS, reverse=True)
    assert (found.trace.status, found.trace.pairs) == ("partial", 4)
    assert last.asked == []


def test_a_first_stage_that_stops_brings_what_it_has(small, large):
    """Its scores are those of the first documents; the search is partial."""
    cascade = Cascade([(small, 3), (large, None)])
    many = [f"{text} {n} " * 40 for n in range(2000) for text in TEXTS[:2]]
    with pytest.raises(
        errors.DeadlineError, match=r"of 4000 documents were scored in 0\.3"
    ) as late:
        cascade.rerank("iron", many, deadline_s=0.3)
    assert late.value.scores == pytest.approx(small.rerank("iron", many[: len(late.value.scores)]))
    with pytest.raises(errors.InvalidInputError, match="deadline_s is 0"):
        cascade.rerank("iron", TEXTS, deadline_s=0)


@settings(max_examples=25, deadline=None)
@given(
    keep=st.integers(1, 6),
    lengths=st.lists(st.integers(1, 30), max_size=8, unique=True),
    done=st.integers(0, 8),
)
def test_what_a_stage_reached_comes_before_what_it_did_not(keep, lengths, done):
    """Whatever it had time for, of the best of the stage before first."""

    class Stopping:
        def rerank(self, query, documents):
            raise NotImplementedError

        def rerank_until(self, query, documents, deadline):
            return [-float(len(document)) for document in documents[:done]], 1

    texts = ["a" * length for length in lengths]
    scores, late = Cascade([(Costly(0), keep), (Stopping(), None)]).rerank_until(
        "q", texts, NO_DEADLINE
    )
    by_first = sorted(texts, key=len, reverse=True)
    reached = by_first[:keep][:done]
    expected = sorted(reached, key=len) + by_first[len(reached) :]
    order = np.argsort(-np.array(scores, dtype=np.float32), kind="stable")
    assert [texts[row] for row in order] == expected
    assert late == max(0, min(keep, len(texts)) - done)
