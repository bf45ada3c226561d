"""Points and scores -> order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client.models import ScoredPoint

from qdrant_rerank.reranking.ordering import (
    blend_scores,
    keep_order,
    order_by_score,
)
from qdrant_rerank.types import UNSCORED, in_retrieval_order

IDS = st.lists(
    st.one_of(st.integers(0, 50), st.uuids().map(str)), unique_by=str, min_size=1, max_size=12
)


def points_of(ids, scores=None):
    """Hits in retrieval order."""
    scores = scores or [1.0 - i / 100 for i in range(len(ids))]
    return [
        ScoredPoint(id=i, version=0, score=s, payload={"id": i})
        for i, s in zip(ids, scores, strict=True)
    ]


@given(IDS, st.data())
def test_neighbours_of_one_score_are_sorted_by_id_and_others_stay(ids, data):
    """Two engines that order ties differently give the same retrieval order."""
    scores = sorted(
        data.draw(st.lists(st.sampled_from([0.1, 0.5]), min_size=len(ids), max_size=len(ids))),
        reverse=True,
    )
    points = points_of(ids, scores)
    low = [p for p in points if p.score == 0.1]
    high = [p for p in points if p.score == 0.5]
    shuffled = data.draw(st.permutations(high)) + data.draw(st.permutations(low))
    ordered = in_retrieval_order(shuffled)
    assert ordered == in_retrieval_order(points)
    assert [p.score for p in ordered] == scores


@given(IDS, st.data())
def test_order_is_by_score_then_retrieval_rank_and_keeps_every_field(ids, data):
    """A permutation of the hits; equal scores stay in retrieval order."""
    points = points_of(ids)
    values = data.draw(
        st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=len(ids), max_size=len(ids))
    )
    ordered = order_by_score(
        points, range(len(ids)), np.array(values, dtype=np.float32), keep_unscored=True
    )
    assert [(p.score, -p.retrieval_rank) for p in ordered] == sorted(
        [(v, -rank) for rank, v in enumerate(values, start=1)], reverse=True
    )
    for point in ordered:
        before = points[point.retrieval_rank - 1]
        assert (point.id, point.payload) == (before.id, before.payload)
        assert (point.retrieval_score, point.rerank_score) == (before.score, point.score)


def test_equal_scores_are_in_the_order_of_their_logits():
    """As a saturated sigmoid gives them; a blend of 1 is the retrieval order all the same."""
    points = points_of([1, 2, 3], [0.9, 0.9, 0.9])
    scores, logits = np.ones(3), np.array([18.0, 20.0, 19.0])
    for blend, ids in ((0.0, [2, 3, 1]), (1.0, [1, 2, 3])):
        ordered = order_by_score(
            points, range(3), scores, logits=logits, keep_unscored=True, blend=blend
        )
        assert [point.id for point in ordered] == ids
    fused = blend_scores([0.9, 0.8, 0.7], scores, "rrf", logits)
    assert fused.tolist() == blend_scores([0.9, 0.8, 0.7], logits, "rrf").tolist()


def test_unscored_hits_follow_in_retrieval_order_or_are_dropped():
    """Their rerank score is None and their score is below every other."""
    points = points_of([1, 2, 3, 4])
    scores = np.array([-50.0, 3.0], dtype=np.float32)
    kept = order_by_score(points, [1, 3], scores, keep_unscored=True)
    assert [p.id for p in kept] == [4, 2, 1, 3]
    assert [p.rerank_score for p in kept] == [3.0, -50.0, None, None]
    assert kept[2].score == kept[3].score == UNSCORED
    assert [p.id for p in order_by_score(points, [1, 3], scores, keep_unscored=False)] == [4, 2]


def test_threshold_and_limit_apply_to_the_rerank_score():
    """A hit without a score reaches no threshold."""
    points = points_of([1, 2, 3])
    scores = np.array([0.5, 2.0], dtype=np.float32)
    ordered = order_by_score(points, [0, 1], scores, keep_unscored=True, score_threshold=0.5)
    assert [p.id for p in ordered] == [2, 1]
    assert [p.id for p in order_by_score(points, [0, 1], scores, keep_unscored=True, limit=1)] == [
        2
    ]


def test_without_a_reranker_the_retrieval_order_stays():
    """score is Qdrant's, rerank_score is None."""
    kept = keep_order(points_of([7, 3, 5], [0.9, 0.9, 0.1]), limit=2, score_threshold=0.5)
    assert [(p.id, p.score, p.rerank_score, p.retrieval_rank) for p in kept] == [
        (7, 0.9, None, 1),
        (3, 0.9, None, 2),
    ]


SCORES = st.lists(st.sampled_from([-4.0, 0.0, 0.25, 3.0, 9.5]), min_size=1, max_size=10)


@given(SCORES, st.data(), st.sampled_from([0.0, 0.3, 1.0, "rrf"]))
def test_a_blend_agrees_with_both_orders_where_they_agree(rerank, data, blend):
    """What neither stage puts lower is not lower; scaling either score changes nothing."""
    retrieval = sorted(
        data.draw(st.lists(st.floats(0, 1, width=16), min_size=len(rerank), max_size=len(rerank))),
        reverse=True,
    )
    scores = np.array(rerank)
    blended = blend_scores(retrieval, scores, blend)
    assert blended.dtype == np.float64
    for better in range(len(scores)):
        for worse in range(better + 1, len(scores)):
            if scores[better] >= scores[worse]:
                assert blended[better] >= blended[worse]
    if blend != 0:
        again = blend_scores([8 * r + 1 for r in retrieval], scores * 2 - 3, blend)
        np.testing.assert_allclose(again, blended, atol=1e-6)


def test_a_blend_by_hand():
    """A share of 0 is the rerank order, of 1 the retrieval order; ranks are fused with k = 60."""
    retrieval, scores = [0.9, 0.5, 0.1], np.array([1.0, 5.0, 3.0], dtype=np.float32)
    assert blend_scores(retrieval, scores, 0.0).tolist() == [1.0, 5.0, 3.0]
    assert blend_scores(retrieval, scores, 1.0).tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert blend_scores(retrieval, scores, 0.25).tolist() == pytest.approx([0.25, 0.875, 0.375])
    assert blend_scores(retrieval, scores, "rrf").tolist() == pytest.approx(
        [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]
    )


def test_a_blended_order_keeps_the_rerank_score_apart():
    """score orders and is cut at the threshold; rerank_score is the reranker's."""
    points = points_of([1, 2, 3, 4], [0.9, 0.5, 0.1, 0.0])
    scores = np.array([2.0, 3.0, 1.0], dtype=np.float32)
    kept = order_by_score(points, [0, 1, 2], scores, keep_unscored=True, blend=0.75)
    assert [(p.id, p.rerank_score, p.retrieval_rank) for p in kept] == [
        (1, 2.0, 1),
        (2, 3.0, 2),
        (3, 1.0, 3),
        (4, None, 4),
    ]
    assert [p.score for p in kept] == pytest.approx([0.875, 0.625, 0.0, UNSCORED])
    cut = order_by_score(
        points, [0, 1, 2], scores, keep_unscored=True, blend=0.75, score_threshold=0.7
    )
    assert [p.id for p in cut] == [1]
