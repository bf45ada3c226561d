"""A cascade of rerankers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import Cascade, HybridSearcher, TextCrossEncoder, errors

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
        ([("x", None), ("y", None)], "keep of stage 0 is None, so it would prune nothing"),
        ([("x", 5), ("y", 9)], "keep of stage 1 is 9, but only 5 documents reach it"),
        (["x"], r"Stage 0 is 'x'; expected \(reranker, keep\)"),
        ([(3, 1)], "reranker is a int"),
    ],
)
def test_a_wrong_stage_is_named_before_any_model_is_loaded(stages, said):
    """With what was expected."""
    with pytest.raises(errors.InvalidInputError, match=said):
        Cascade(stages)
