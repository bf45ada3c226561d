"""Maximal marginal relevance, against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from qdrant_rerank.reranking.diversity import mmr_order, one_vector

FINITE = st.floats(-50, 50, width=32)
SIZES = st.integers(1, 8)


@st.composite
def rows(draw):
    """Scores and vectors of the same rows."""
    count, width = draw(SIZES), draw(SIZES)
    return (
        draw(st_numpy.arrays(np.float32, count, elements=FINITE)),
        draw(st_numpy.arrays(np.float32, (count, width), elements=FINITE)),
    )


def by_definition(relevance, vectors, diversity):
    """Slowly, row by row."""
    scores = relevance.astype(np.float64)
    low, high = scores.min(), scores.max()
    gain = [(score - low) / (high - low) if high > low else 0.0 for score in scores]

    def cosine(one, two):
        one, two = vectors[one].astype(np.float64), vectors[two].astype(np.float64)
        lengths = np.linalg.norm(one) * np.linalg.norm(two)
        return float(one @ two / lengths) if lengths > 0 else 0.0

    chosen = [int(np.argmax(scores))]
    while len(chosen) < len(scores):
        left = [row for row in range(len(scores)) if row not in chosen]
        marginal = [
            (1 - diversity) * gain[row] - diversity * max(cosine(row, done) for done in chosen)
            for row in left
        ]
        chosen.append(left[int(np.argmax(np.round(marginal, 6)))])
    return chosen, gain, cosine


@given(found=rows(), diversity=st.floats(0.05, 1))
def test_each_row_is_the_best_that_was_left(found, diversity):
    """No row that was left had a greater marginal relevance, beyond rounding."""
    relevance, vectors = found
    order = mmr_order(relevance, vectors, diversity)
    _, gain, cosine = by_definition(relevance, vectors, diversity)
    assert sorted(order) == list(range(len(relevance)))
    assert relevance[order[0]] == relevance.max()
    for place in range(1, len(order)):
        marginal = {
            row: (1 - diversity) * gain[row]
            - diversity * max(cosine(row, done) for done in order[:place])
            for row in order[place:]
        }
        assert marginal[order[place]] >= max(marginal.values()) - 1e-6


@given(found=rows(), diversity=st.floats(0, 1), limit=st.integers(1, 9))
def test_a_limit_takes_the_first_of_the_whole_order(found, diversity, limit):
    """Choosing fewer changes none of them."""
    assert mmr_order(*found, diversity, limit) == mmr_order(*found, diversity)[:limit]


@given(found=rows())
def test_without_diversity_the_order_is_by_relevance(found):
    """Whatever the vectors; ties in input order."""
    relevance, vectors = found
    assert mmr_order(relevance, vectors, 0) == sorted(
        range(len(relevance)), key=lambda row: -relevance[row]
    )


def test_a_near_duplicate_of_the_best_gives_way():
    """That is what it is for."""
    relevance = np.array([3.0, 2.9, 1.0], dtype=np.float32)
    vectors = np.array([[1, 0], [1, 0.01], [0, 1]], dtype=np.float32)
    assert mmr_order(relevance, vectors, 0.1) == [0, 1, 2]
    assert mmr_order(relevance, vectors, 0.6) == [0, 2, 1]
    assert mmr_order(relevance[:0], vectors[:0], 0.5) == []


@pytest.mark.parametrize(
    ("vector", "found"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ({"": [1.0]}, [1.0]),
        ({"other": [1.0]}, None),
        ([[1.0, 3.0], [3.0, 5.0]], [2.0, 4.0]),
        (None, None),
        ([], None),
    ],
)
def test_a_points_vector_comes_in_many_shapes(vector, found):
    """Bare, named, a multivector, or none."""
    assert one_vector(vector, "") == found
