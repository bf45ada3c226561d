"""Relevance feedback: a page's scores -> another query."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.feedback import Feedback, feedback_query, rocchio, scaled

FINITE = st.floats(-50, 50, width=32)


@st.composite
def pages(draw):
    """A query, vectors and scores."""
    count, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    return (
        draw(st_numpy.arrays(np.float32, width, elements=st.floats(0.5, 50, width=32))),
        draw(st_numpy.arrays(np.float32, (count, width), elements=FINITE)),
        draw(st_numpy.arrays(np.float32, count, elements=FINITE)),
    )


@given(page=pages(), beta=st.floats(0, 2), gamma=st.floats(0, 2))
def test_the_moved_query_has_length_one_whatever_the_order(page, beta, gamma):
    """Of the hits; and it depends on their directions alone."""
    query, vectors, scores = page
    weights = Feedback(beta=beta, gamma=gamma)
    moved = rocchio(query, vectors, scores, weights)
    assert np.linalg.norm(moved) == pytest.approx(1, abs=1e-5)
    backwards = rocchio(query, vectors[::-1], scores[::-1], weights)
    assert moved == pytest.approx(backwards, abs=1e-3)


@given(page=pages())
def test_without_weights_the_query_stays(page):
    """Its direction, that is."""
    query, vectors, scores = page
    moved = rocchio(query, vectors, scores, Feedback(beta=0, gamma=0))
    assert moved == pytest.approx(query / np.linalg.norm(query), abs=1e-5)


def test_the_query_moves_towards_the_best_and_away_from_the_worst():
    """Rocchio's formula with judgments 1 and 0."""
    query = np.array([1, 0, 0], dtype=np.float32)
    vectors = np.array([[0, 2, 0], [0, 0, 3]], dtype=np.float32)
    moved = rocchio(query, vectors, np.array([5.0, -5.0]), Feedback())
    expected = np.array([1, 0.75, -0.15])
    assert moved == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_a_page_that_cancels_the_query_leaves_it():
    """No vector of length 0 is sent."""
    query = np.array([1, 0], dtype=np.float32)
    moved = rocchio(query, -query[None], np.array([1.0]), Feedback(beta=1, gamma=0))
    assert moved == pytest.approx(query)


@given(scores=st_numpy.arrays(np.float32, st.integers(1, 6), elements=FINITE))
def test_shares_keep_the_order(scores):
    """From 0 to 1."""
    shares = scaled(scores)
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert all((shares[i] <= shares[j]) for i, j in np.ndindex(len(scores), len(scores))
               if scores[i] <= scores[j])  # fmt: skip


def test_qdrants_query_names_the_points():
    """With scores of 0 to 1 and the three weights."""
    query = feedback_query([0.1, 0.2], [7, 8], np.array([2.0, -2.0]), Feedback(a=1, b=2, c=3))
    assert query.model_dump(exclude_none=True) == {
        "relevance_feedback": {
            "target": [0.1, 0.2],
            "feedback": [{"example": 7, "score": 1.0}, {"example": 8, "score": 0.0}],
            "strategy": {"naive": {"a": 1.0, "b": 2.0, "c": 3.0}},
        }
    }


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        ({"page": 1}, "page is 1; expected a whole number of 2 or more"),
        ({"page": True}, "page is True"),
        ({"method": "magic"}, "method is 'magic'; expected one of 'auto', 'rocchio', 'qdrant'"),
        ({"alpha": 0}, "alpha is 0; expected a finite number above 0"),
        ({"beta": -1}, "beta is -1"),
        ({"c": float("nan")}, "c is nan"),
        ({"a": "1"}, "a is '1'"),
    ],
)
def test_wrong_weights_are_named(wrong, seen):
    """When they are made."""
    with pytest.raises(InvalidInputError, match=seen):
        Feedback(**wrong)
