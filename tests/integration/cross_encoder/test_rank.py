"""``rank``, as in sentence-transformers: the order of the scores of ``rerank``.

That both packages give the same on one model is tested beside the other peers.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.errors import DeadlineError, InvalidInputError
from tests.models.build import WORDS

QUERY = "which bread rises?"
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join), max_size=12)


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    """A tiny model."""
    return TextCrossEncoder(tiny_bert)


@settings(max_examples=20, deadline=None)
@given(texts=TEXTS, top_k=st.none() | st.integers(1, 15), whole=st.booleans())
def test_it_is_the_order_of_the_scores(encoder, texts, top_k, whole):
    """Best first, equal scores in input order; texts only if they are asked for."""
    scores = encoder.rerank(QUERY, texts)
    order = sorted(range(len(texts)), key=lambda row: -scores[row])[:top_k]
    expected = [
        {"corpus_id": row, "score": pytest.approx(scores[row], abs=1e-5)}
        | ({"text": texts[row]} if whole else {})
        for row in order
    ]
    assert encoder.rank(QUERY, iter(texts), top_k, whole) == expected


def test_saturated_scores_come_in_the_order_of_their_logits(tiny_bert):
    """Equal scores do not make the order a matter of chance."""
    texts = ["the sea", "bread rises in the oven", "rye", "salt and water"]
    flat = TextCrossEncoder(tiny_bert, activation=lambda logits: logits * 0)
    raw = TextCrossEncoder(tiny_bert)
    assert [one["corpus_id"] for one in flat.rank(QUERY, texts)] == [
        one["corpus_id"] for one in raw.rank(QUERY, texts)
    ]


@pytest.mark.parametrize(
    ("documents", "options"),
    [
        (["a"], {"top_k": 0}),
        (["a"], {"top_k": 1.5}),
        (["a"], {"batch_size": 0}),
        (["a"], {"deadline_s": 0}),
        ("a", {}),
        ([3], {}),
    ],
)
def test_wrong_arguments_are_refused(encoder, documents, options):
    """As those of ``rerank``."""
    with pytest.raises(InvalidInputError):
        encoder.rank(QUERY, documents, **options)


def test_a_deadline_ends_it_with_the_scores_so_far(encoder):
    """As that of ``rerank``."""
    with pytest.raises(DeadlineError):
        encoder.rank(QUERY, ["bread " * 100] * 5000, deadline_s=1e-6)
