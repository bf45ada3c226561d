"""The plan of batches, and padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank.inference.batching import TokenizedPair, pad, plan_batches

LENGTHS = st.lists(st.integers(1, 600), max_size=60)


@given(LENGTHS, st.integers(1, 2000), st.none() | st.integers(1, 8))
def test_every_pair_is_in_one_batch_within_the_budgets(lengths, tokens, pairs):
    """A batch holds at most the tokens and pairs allowed, unless one pair alone is longer."""
    batches = plan_batches(lengths, tokens_per_batch=tokens, pairs_per_batch=pairs)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(lengths)))
    for batch in batches:
        assert batch.width == max(lengths[row] for row in batch.rows)
        assert len(batch.rows) == 1 or len(batch.rows) * batch.width <= tokens
        assert pairs is None or len(batch.rows) <= pairs
    widths = [batch.width for batch in batches]
    assert widths == sorted(widths, reverse=True)


@given(LENGTHS, st.integers(1, 2000), st.none() | st.integers(1, 8))
def test_in_order_the_batches_follow_on_one_another(lengths, tokens, pairs):
    """Within the same budgets, and none holds less than it could."""
    batches = plan_batches(lengths, tokens_per_batch=tokens, pairs_per_batch=pairs, in_order=True)
    assert [row for batch in batches for row in batch.rows] == list(range(len(lengths)))
    for batch in batches:
        assert batch.width == max(lengths[row] for row in batch.rows)
        assert len(batch.rows) == 1 or len(batch.rows) * batch.width <= tokens
        assert pairs is None or len(batch.rows) <= pairs
        more = [*batch.rows, batch.rows[-1] + 1]
        if more[-1] < len(lengths) and len(batch.rows) != pairs:
            assert len(more) * max(lengths[row] for row in more) > tokens


@given(LENGTHS, st.integers(1, 600), st.booleans())
def test_a_long_pair_is_a_batch_of_its_own(lengths, long_pair, in_order):
    """Whatever else there is; the others share batches as they would without it."""
    batches = plan_batches(lengths, long_pair=long_pair, in_order=in_order)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch.rows) == 1 or batch.width <= long_pair
    if all(length <= long_pair for length in lengths):
        alone = plan_batches(lengths, in_order=in_order)
        assert [batch.rows.tolist() for batch in batches] == [
            batch.rows.tolist() for batch in alone
        ]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["left", "right"]))
def test_padding_keeps_every_token_where_the_mask_is_one(lengths, side):
    """The arrays hold the pairs and nothing else under the mask."""
    pairs = [
        TokenizedPair(np.arange(1, n + 1), np.array([i % 2 for i in range(n)])) for n in lengths
    ]
    ids, mask, types = pad(pairs, pad_id=77, pad_type_id=1, side=side)
    assert ids.shape == mask.shape == types.shape == (len(lengths), max(lengths))
    for row, pair in enumerate(pairs):
        on = mask[row] == 1
        assert ids[row][on].tolist() == pair.ids.tolist()
        assert types[row][on].tolist() == pair.type_ids.tolist()
        assert (ids[row][~on] == 77).all()
        assert on[0 if side == "right" else -1]
