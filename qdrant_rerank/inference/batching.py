"""Pairs -> batches, and a batch -> padded arrays. Pure numpy, no model.

On a CPU a batch of about ``TOKENS_PER_BATCH`` padded tokens (often one pair) keeps its activations
in cache and wastes no work on padding. Several batches run at the same time, one per core.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.inference.cpu import TOKENS_PER_BATCH

__all__ = ["Batch", "TokenizedPair", "blocks_of", "pad", "padded_width", "plan_batches"]
# Part of a stream that is in memory: enough pairs to sort by length and keep all cores busy, few
# enough for flat memory (at most 8 MB of token ids at 512 tokens per pair), however long the texts.
PAIRS_PER_BLOCK = 1024
CHARACTERS_PER_BLOCK = 8_000_000


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """One tokenised (query, document) pair, special tokens included, not padded.

    Attributes:
        ids: shape (length,), int64.
        type_ids: shape (length,), int64; the segment of each token.
        truncated: whether a part of the texts was cut off to fit the max length.
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
        width: tokens of the longest pair; the others are padded to it.
    """

    rows: NDArray[np.intp]
    width: int


def blocks_of(
    pairs: Iterable[tuple[str, str]],
    *,
    most: int = PAIRS_PER_BLOCK,
    characters: int = CHARACTERS_PER_BLOCK,
) -> Iterator[list[tuple[str, str]]]:
    """Cut a stream of pairs into blocks, and read no further than the block.

    Args:
        pairs: (query, document) texts.
        most: pairs per block, at most.
        characters: a block ends with the pair that reaches so many characters.

    >>> list(blocks_of([("a", "b"), ("c", "def"), ("g", "h")], characters=4))
    [[('a', 'b'), ('c', 'def')], [('g', 'h')]]
    """
    block: list[tuple[str, str]] = []
    held = 0
    for query, document in pairs:
        block.append((query, document))
        held += len(query) + len(document)
        if len(block) >= most or held >= characters:
            yield block
            block, held = [], 0
    if block:
        yield block


def plan_batches(
    lengths: Sequence[int],
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    pairs_per_batch: int | None = None,
    long_pair: int | None = None,
    in_order: bool = False,
) -> list[Batch]:
    """Group pairs into batches.

    Pairs of similar length share a batch, and the longest come first: the last batches to finish
    are short ones, and no core waits long.

    Args:
        lengths: tokens of each pair.
        tokens_per_batch: padded tokens per batch, at most; a longer pair is a batch of its own.
        pairs_per_batch: pairs per batch, at most; None for no limit.
        long_pair: tokens beyond which a pair is a batch of its own; None for no limit.
        in_order: whether pairs keep their order instead, for when time may not suffice for all.

    Returns:
        Batches that together hold each index of ``lengths`` once.

    >>> [(b.rows.tolist(), b.width) for b in plan_batches([3, 9, 4, 1], tokens_per_batch=8)]
    [([1], 9), ([2, 0], 4), ([3], 1)]
    >>> in_order = plan_batches([3, 4, 9, 1], tokens_per_batch=8, in_order=True)
    >>> [(b.rows.tolist(), b.width) for b in in_order]
    [([0, 1], 4), ([2], 9), ([3], 1)]
    """
    count = len(lengths)
    order = np.arange(count) if in_order else np.argsort(-np.asarray(lengths), kind="stable")
    batches = []
    start = width = 0
    for end, row in enumerate(order):
        held = end - start
        widest = max(width, lengths[row])
        full = pairs_per_batch is not None and held >= pairs_per_batch
        full |= long_pair is not None and widest > long_pair
        if held and (full or widest * (held + 1) > tokens_per_batch):
            batches.append(Batch(order[start:end], width))
            start, widest = end, lengths[row]
        width = widest
    if count:
        batches.append(Batch(order[start:], width))
    return batches


def padded_width(width: int, multiple: int, most: int | None) -> int:
    """Return the width of a batch's arrays.

    Args:
        width: tokens of its longest pair.
        multiple: the width is rounded up to a multiple of this.
        most: rounding stops here, since the model has no more positions; None for no limit.

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
    """Stack pairs into arrays.

    Args:
        pairs: one or more.
        pad_id: token id of padding.
        pad_type_id: segment of padding.
        side: where padding goes.
        multiple: see :func:`padded_width`.
        most: see :func:`padded_width`.

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
