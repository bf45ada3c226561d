"""Activations that give one score for several logits, and rerankers that need 64 bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client.models import ScoredPoint

from qdrant_rerank import (
    DEFAULT_RERANKER,
    Calibrator,
    Cascade,
    HybridSearcher,
    TextCrossEncoder,
    Windows,
    rerank_points,
)
from qdrant_rerank.cross_encoder.activations import activate, order_logits
from qdrant_rerank.cross_encoder.heads import Head

QUERY = (
    "At how many degrees Celsius does pure iron melt, "
    "and at how many degrees Celsius does pure iron boil at sea level?"
)
# The default model gives them logits that a float32 sigmoid does not tell apart.
CLOSE = [
    "At the pressure of the air at sea level, the temperature at which pure iron melts is 1538 "
    "degrees Celsius, and the temperature at which it boils is 2862 degrees Celsius.",
    "Pure iron melts at 1538 degrees Celsius, and pure iron boils at 2862 degrees Celsius at sea "
    "level.",
    "The temperature in degrees Celsius at which pure iron melts is 1538, and the temperature in "
    "degrees Celsius at which it boils at the pressure of the air at sea level is 2862.",
    "At sea level pure iron melts at 1538 degrees Celsius and boils at 2862 degrees Celsius.",
]
#: One score for all logits, and one of two.
STEPS = Calibrator("isotonic", scores=(-1e9, 1e9), probabilities=(0.5, 0.5))


def one_for_all(logits):
    """The same score, whatever the logit."""
    return np.ones_like(logits)


ACTIVATIONS = ["sigmoid", Calibrator("platt", slope=50.0, intercept=900.0), STEPS, one_for_all]


def hits_of(texts):
    """Hits in this order."""
    return [
        ScoredPoint(id=row, version=0, score=1 - row / 100, payload={"text": text})
        for row, text in enumerate(texts)
    ]


def order_of(reranker, texts, query=QUERY):
    """Rows of the texts, best first."""
    return [hit.id for hit in rerank_points(query, hits_of(texts), reranker=reranker)]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=["sigmoid", "platt", "steps", "one"])
def test_an_activation_never_changes_the_order(activation):
    """Not in a list, a cascade, a search or a blend of the ranks."""
    plain = TextCrossEncoder(DEFAULT_RERANKER, activation="identity")
    shown = TextCrossEncoder(DEFAULT_RERANKER, activation=activation)
    logits = plain.rerank(QUERY, CLOSE)
    assert len(set(logits)) == len(logits)
    expected = np.argsort(-np.array(logits)).tolist()
    in_float32 = 1 / (1 + np.exp(-np.array(logits, dtype=np.float32)))
    assert np.argsort(-in_float32, kind="stable").tolist() != expected
    assert order_of(plain, CLOSE) == order_of(shown, CLOSE) == expected
    for stages in ([(shown, 2), (plain, None)], [(plain, 3), (shown, None)], [(shown, None)]):
        assert order_of(Cascade(stages), CLOSE)[:2] == expected[:2]
    last = Cascade([(shown, None)])
    assert order_of(last, CLOSE) == expected
    assert last.rerank(QUERY, CLOSE) == pytest.approx(shown.rerank(QUERY, CLOSE), rel=1e-12)


def test_sigmoid_scores_are_told_apart():
    """Those who sort the scores themselves get the order of the logits."""
    scores = TextCrossEncoder(DEFAULT_RERANKER, activation="sigmoid").rerank(QUERY, CLOSE)
    assert len(set(scores)) == len(CLOSE)
    assert order_of(DEFAULT_RERANKER, CLOSE) == np.argsort(-np.array(scores)).tolist()


def test_a_search_shows_the_score_and_orders_by_the_logit(client):
    """Its hits are in the order of the raw logits."""
    searcher = HybridSearcher("c", client=client, reranker=None)
    searcher.add(CLOSE, progress=False)
    searcher.reranker = TextCrossEncoder(DEFAULT_RERANKER)
    expected = [hit.payload["text"] for hit in searcher.search(QUERY)]
    searcher.reranker = TextCrossEncoder(DEFAULT_RERANKER, activation=one_for_all)
    found = searcher.search(QUERY)
    assert [hit.payload["text"] for hit in found] == expected
    assert [hit.score for hit in found] == [1.0] * len(CLOSE)


def test_softmax_orders_by_log_odds():
    """Where the share of one label is 1 for all."""
    logits = np.array([[0, 50, 1], [0, 60, 1], [0, 55, 30]], dtype=np.float32)
    head = Head(3, column=1)
    assert activate("softmax", head, logits).tolist() == [1.0, 1.0, pytest.approx(1)]
    assert np.argsort(-order_logits("softmax", head, logits)).tolist() == [1, 0, 2]


@pytest.mark.parametrize("aggregate", ["max", "mean", "first"])
def test_the_snippet_is_the_passage_of_the_highest_logit(tiny_bert, aggregate):
    """Though all passages have the same score."""
    document = " ".join(f"iron {n} ore melts bread" for n in range(200))
    windows = Windows(aggregate=aggregate)
    found = [
        rerank_points(
            QUERY,
            hits_of([document, document[400:], document[900:]]),
            reranker=TextCrossEncoder(tiny_bert, activation=activation, long_documents=windows),
        )
        for activation in ("identity", one_for_all)
    ]
    snippets = [{hit.id: hit.snippet for hit in hits} for hits in found]
    assert snippets[0] == snippets[1]


class Exact:
    """Scores that the test says."""

    def __init__(self, scores):
        self.scores = scores

    def rerank(self, query, documents):
        """One score per document."""
        return self.scores[: len(list(documents))]


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_a_users_scores_keep_all_their_digits(scores):
    """In the order, in a hit and in a cascade's last stage; float32 would round or overflow."""
    texts = [f"text {n}" for n in range(len(scores))]
    found = rerank_points("q", hits_of(texts), reranker=Exact(scores))
    assert [hit.score for hit in found] == sorted(scores, reverse=True)
    assert [hit.score for hit in found] == [scores[hit.id] for hit in found]
    cascade = Cascade([(Exact([0.0] * len(scores)), len(scores)), (Exact(scores), None)])
    assert cascade.rerank("q", texts) == scores
