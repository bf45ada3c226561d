"""The plan of runs, and padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank.inference.batching import TokenizedPair, pad, plan_batches, plan_in_order

LENGTHS = st.lists(st.integers(1, 600), max_size=60)


@given(LENGTHS, st.integers(1, 2000), st.none() | st.integers(1, 8))
def test_every_pair_runs_once_within_the_budgets(lengths, tokens, pairs):
    """A run holds at most the tokens and pairs allowed, unless one pair alone is longer."""
    runs = plan_batches(lengths, tokens_per_batch=tokens, pairs_per_batch=pairs)
    assert sorted(row for run in runs for row in run.rows) == list(range(len(lengths)))
    for run in runs:
        assert run.width == max(lengths[row] for row in run.rows)
        assert len(run.rows) == 1 or len(run.rows) * run.width <= tokens
        assert pairs is None or len(run.rows) <= pairs
    widths = [run.width for run in runs]
    assert widths == sorted(widths, reverse=True)


@given(LENGTHS, st.integers(1, 2000), st.none() | st.integers(1, 8))
def test_in_order_the_runs_follow_on_one_another(lengths, tokens, pairs):
    """Within the same budgets, and none holds less than it could."""
    runs = plan_in_order(lengths, tokens_per_batch=tokens, pairs_per_batch=pairs)
    assert [row for run in runs for row in run.rows] == list(range(len(lengths)))
    for run in runs:
        assert run.width == max(lengths[row] for row in run.rows)
        assert len(run.rows) == 1 or len(run.rows) * run.width <= tokens
        assert pairs is None or len(run.rows) <= pairs
        more = [*run.rows, run.rows[-1] + 1]
        if more[-1] < len(lengths) and len(run.rows) != pairs:
            assert len(more) * max(lengths[row] for row in more) > tokens


@given(LENGTHS, st.integers(1, 600), st.sampled_from([plan_batches, plan_in_order]))
def test_a_long_pair_is_a_run_of_its_own(lengths, long_pair, plan):
    """Whatever else there is; the others share runs as they would without it."""
    runs = plan(lengths, long_pair=long_pair)
    assert sorted(row for run in runs for row in run.rows) == list(range(len(lengths)))
    for run in runs:
        assert len(run.rows) == 1 or run.width <= long_pair
    if all(length <= long_pair for length in lengths):
        assert [run.rows.tolist() for run in runs] == [run.rows.tolist() for run in plan(lengths)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["left", "right"]))
def test_padding_keeps_every_token_where_the_mask_is_one(lengths, side):
    """The rectangle holds the pairs and nothing else under the mask."""
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
