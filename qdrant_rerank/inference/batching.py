"""Which pairs share a run, and how a run is padded. Pure numpy, no model.

On a CPU a batch is a thread pool, not a tensor: a run of about ``TOKENS_PER_BATCH`` padded
tokens (often one pair) keeps its activations in cache and wastes no work on padding, and
several runs go side by side, one a core.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.inference.cpu import TOKENS_PER_BATCH

__all__ = [
    "Batch",
    "TokenizedPair",
    "blocks_of",
    "pad",
    "padded_width",
    "plan_batches",
    "plan_in_order",
]
# What is in memory of a stream: enough pairs to sort by length and keep all cores busy, few enough
# for flat memory (at most 8 MB of token ids at 512 tokens a pair), however long their texts are.
PAIRS_PER_BLOCK = 1024
CHARACTERS_PER_BLOCK = 8_000_000


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """One tokenised (query, document) pair, special tokens included, not padded.

    Attributes:
        ids: shape (length,), int64.
        type_ids: shape (length,), int64; which segment a token is of.
        truncated: whether the window cut something of the texts off.
    """

    ids: NDArray[np.int64]
    type_ids: NDArray[np.int64]
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs that go through the model together.

    Attributes:
        rows: shape (n,), indices into the pairs that were planned.
        width: length of the longest of them, in tokens; the others are padded to it.
    """

    rows: NDArray[np.intp]
    width: int


def blocks_of(
    pairs: Iterable[tuple[str, str]],
    *,
    most: int = PAIRS_PER_BLOCK,
    characters: int = CHARACTERS_PER_BLOCK,
) -> Iterator[list[tuple[str, str]]]:
    """Cut a stream of pairs into windows, reading no further than the window.

    Args:
        pairs: (query, document) texts.
        most: pairs a window may hold.
        characters: that the texts of a window may have, but for its last pair.

    >>> list(blocks_of([("a", "b"), ("c", "def"), ("g", "h")], characters=4))
    [[('a', 'b'), ('c', 'def')], [('g', 'h')]]
    """
    window: list[tuple[str, str]] = []
    held = 0
    for query, document in pairs:
        window.append((query, document))
        held += len(query) + len(document)
        if len(window) >= most or held >= characters:
            yield window
            window, held = [], 0
    if window:
        yield window


def plan_batches(
    lengths: Sequence[int],
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    pairs_per_batch: int | None = None,
    long_pair: int | None = None,
) -> list[Batch]:
    """Group pairs of similar length into runs, longest first.

    Longest first, so that the last runs to finish are short ones and no core waits long.

    Args:
        lengths: tokens of each pair.
        tokens_per_batch: most padded tokens a run may hold; a longer pair is a run of its own.
        pairs_per_batch: most pairs a run may hold; None for no limit.
        long_pair: tokens of a pair beyond which it is a run of its own; None for no limit.

    Returns:
        Runs that together hold each index of ``lengths`` once.

    >>> [(run.rows.tolist(), run.width) for run in plan_batches([3, 9, 4, 1], tokens_per_batch=8)]
    [([1], 9), ([2, 0], 4), ([3], 1)]
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.intp), kind="stable")
    runs = []
    start = 0
    while start < len(order):
        width = int(lengths[order[start]])
        size = max(1, tokens_per_batch // max(1, width))
        if long_pair is not None and width > long_pair:
            size = 1
        if pairs_per_batch is not None:
            size = min(size, pairs_per_batch)
        runs.append(Batch(order[start : start + size], width))
        start += size
    return runs


def plan_in_order(
    lengths: Sequence[int],
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    pairs_per_batch: int | None = None,
    long_pair: int | None = None,
) -> list[Batch]:
    """Group neighbouring pairs into runs, first to last, for when not all may be run.

    Args:
        lengths: as in :func:`plan_batches`.
        tokens_per_batch: as in :func:`plan_batches`.
        pairs_per_batch: as in :func:`plan_batches`.
        long_pair: as in :func:`plan_batches`.

    Returns:
        Runs that one after the other hold each index of ``lengths`` once, ascending.

    >>> [(run.rows.tolist(), run.width) for run in plan_in_order([3, 4, 9, 1], tokens_per_batch=8)]
    [([0, 1], 4), ([2], 9), ([3], 1)]
    """
    runs = []
    start = width = 0
    for end, length in enumerate(lengths):
        count = end - start
        widest = max(width, length)
        too_many = pairs_per_batch is not None and count >= pairs_per_batch
        too_many |= long_pair is not None and widest > long_pair
        if count and (too_many or widest * (count + 1) > tokens_per_batch):
            runs.append(Batch(np.arange(start, end), width))
            start, widest = end, length
        width = widest
    if start < len(lengths):
        runs.append(Batch(np.arange(start, len(lengths)), width))
    return runs


def padded_width(width: int, multiple: int, most: int | None) -> int:
    """The width of a run's rectangle.

    Args:
        width: tokens of its longest pair.
        multiple: what the width is rounded up to a multiple of.
        most: width that rounding does not pass, since the model has no more positions; None for
            none.

    >>> padded_width(20, 16, 512), padded_width(125, 16, 126), padded_width(20, 1, None)
    (32, 126, 20)
    """
    rounded = -(-width // multiple) * multiple
    return rounded if most is None else max(width, min(rounded, most))


def pad(
    pairs: Sequence[TokenizedPair],
    *,
    pad_id: int,
    pad_type_id: int = 0,
    side: Literal["left", "right"] = "right",
    multiple: int = 1,
    most: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Stack pairs into one rectangle.

    Args:
        pairs: one or more.
        pad_id: token id of padding.
        pad_type_id: its segment.
        side: where padding goes.
        multiple: see :func:`padded_width`.
        most: likewise.

    Returns:
        ``(input_ids, attention_mask, token_type_ids)``, each of shape (pairs, width), int64;
        the mask is 1 on tokens and 0 on padding.
    """
    width = padded_width(max(len(pair) for pair in pairs), multiple, most)
    shape = (len(pairs), width)
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    type_ids = np.full(shape, pad_type_id, dtype=np.int64)
    for row, pair in enumerate(pairs):
        at = slice(0, len(pair)) if side == "right" else slice(width - len(pair), width)
        ids[row, at] = pair.ids
        mask[row, at] = 1
        type_ids[row, at] = pair.type_ids
    return ids, mask, type_ids
