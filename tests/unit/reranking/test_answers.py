"""Scores of peers and servers: by the index of an item, never by its place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.reranking.answers import (
    items_of,
    scores_by_index,
    scores_by_position,
    scores_of,
)


class Item:
    """As a client's object."""

    def __init__(self, index, relevance_score):
        self.index, self.relevance_score = index, relevance_score


class Answered:
    """As a client's response."""

    def __init__(self, results):
        self.results = results


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30), st.randoms())
def test_the_order_of_the_items_does_not_matter(scores, random):
    """Objects and dicts give the same."""
    rows = list(range(len(scores)))
    random.shuffle(rows)
    dicts = [{"index": row, "score": scores[row]} for row in rows]
    objects = [Item(row, scores[row]) for row in rows]
    assert scores_by_index(dicts, len(scores), "it").tolist() == scores
    assert scores_by_index(objects, len(scores), "it").tolist() == scores


BROKEN = [
    ([], "it answered 0 scores for 2 documents, and none for document 0"),
    ([{"index": 1, "score": 0.5}], "answered 1 scores for 2 documents, and none for document 0"),
    ([{"index": 0, "score": 1}, {"index": 0, "score": 2}], "two scores for document 0"),
    ([{"index": 0, "score": 1}, {"index": 2, "score": 2}], "document 2, but there are 2 documents"),
    ([{"index": -1, "score": 1}, {"index": 0, "score": 2}], "document -1, but there are 2"),
    ([{"index": 0, "score": 1}, {"index": "1", "score": 2}], "an item with the index '1'"),
    ([{"index": True, "score": 1}, {"index": 0, "score": 2}], "an item with the index True"),
    ([{"index": 1.0, "score": 1}, {"index": 0, "score": 2}], "an item with the index 1.0"),
    ([{"score": 1}, {"score": 2}], "an item with the index None"),
    ([0.5, 0.25], "an item with the index None"),
    ([{"index": 0}, {"index": 1}], "the score None for document 0"),
    ([{"index": 0, "score": "high"}, {"index": 1, "score": 1}], "the score 'high' for document 0"),
    ([{"index": 0, "score": True}, {"index": 1, "score": 1}], "the score True for document 0"),
    ([{"index": 0, "score": float("nan")}, {"index": 1, "score": 1}], "the score nan for document"),
    ([{"index": 0, "score": float("inf")}, {"index": 1, "score": 1}], "the score inf for document"),
    ([{"index": 0, "score": 10**400}, {"index": 1, "score": 1}], "the score 1000"),
    ([{"index": 0, "score": [1]}, {"index": 1, "score": 1}], r"the score \[1\] for document 0"),
]


@pytest.mark.parametrize(("items", "said"), BROKEN)
def test_an_answer_without_one_finite_score_per_document_is_an_error(items, said):
    """It says which document, and who answered."""
    with pytest.raises(ModelOutputError, match=said):
        scores_by_index(items, 2, "it")


def test_an_order_without_scores_counts_only_where_that_is_known():
    """As a language model answers that only sorts: 1 / rank."""
    items = [{"id": 2}, {"id": 0}, {"id": 1}]
    found = scores_by_index(items, 3, "it", index="id", ordered=True)
    np.testing.assert_array_equal(found, [1 / 2, 1 / 3, 1])
    with pytest.raises(ModelOutputError, match="the score None"):
        scores_by_index(items, 3, "it", index="id")
    with pytest.raises(ModelOutputError, match="the score None for document 0"):
        scores_by_index([{"id": 2, "score": 1.0}, *items[1:]], 3, "it", index="id", ordered=True)


@pytest.mark.parametrize("answer", [[1], (1,), {"results": [1]}, {"data": [1]}, {"rerank": [1]}])
def test_the_list_is_found_in_every_answer(answer):
    """Of Cohere, Voyage and Elastic; the bare one of text-embeddings-inference."""
    assert list(items_of(answer, "it")) == [1]
    assert items_of(Answered([2]), "it") == [2]


@pytest.mark.parametrize("answer", [None, "text", 3, {}, {"error": "no"}, {"results": "x"}, {3}])
def test_an_answer_without_a_list_is_an_error(answer):
    """Never an empty page."""
    with pytest.raises(ModelOutputError, match="expected a list with the index and the score"):
        items_of(answer, "it")


@pytest.mark.parametrize(
    "answer", [None, "0.5", b"1", {"a": 1}, 3.0, {0.5}, frozenset([1]), {1: 2}.keys(), [10**400]]
)
def test_scores_in_order_are_a_list_of_numbers(answer):
    """No text, no dict, whose keys would be read, and no set, which has no order."""
    with pytest.raises(ModelOutputError, match="expected one float per document"):
        scores_by_position(answer, 1, "it")


@pytest.mark.parametrize("answer", [np.array(3.0), np.array("high", dtype=object)])
def test_an_array_without_an_axis_is_no_list(answer):
    """A number alone could be of any document."""
    with pytest.raises(ModelOutputError, match="expected one float per document"):
        scores_by_position(answer, 1, "it")


def test_a_coroutine_is_not_a_score():
    """It is closed, and the message says who awaits it."""

    async def scores(query, documents):
        return [1.0]

    with pytest.raises(ModelOutputError, match=r"returned a coroutine.*async def.*AsyncHybrid"):
        scores_of(scores("q", ["d"]), 1, "it")


@pytest.mark.parametrize(
    "answer",
    [
        [0.25, 0.5],
        (0.25, 0.5),
        np.array([0.25, 0.5], dtype=np.float32),
        iter([0.25, 0.5]),
        [{"index": 1, "score": 0.5}, {"index": 0, "score": 0.25}],
        {"results": [{"index": 1, "score": 0.5}, {"index": 0, "score": 0.25}]},
        Answered([Item(1, 0.5), Item(0, 0.25)]),
    ],
)
def test_scores_are_read_by_index_where_there_is_one(answer):
    """Else by position; an array's ``data`` is no list of results."""
    assert scores_of(answer, 2, "it").tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    "answer", [["high", "low"], [("a", 1), ("b", 2)], None, {"a": 1}, "ab", []]
)
def test_other_answers_are_errors(answer):
    """A text has a method ``index``, which is no index."""
    with pytest.raises(ModelOutputError):
        scores_of(answer, 2, "it")
