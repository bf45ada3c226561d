"""Groups to train on: a query, one passage that answers and several that do not.

The groups of a step depend on the seed and the step alone, so a run that was cut off draws the
same ones when it goes on.
"""

from dataclasses import dataclass

import numpy as np
import torch
from data import Pool
from mine import NONE, Mined
from numpy.typing import NDArray
from tokenizers import Tokenizer

LENGTHS = (48, 64, 96, 128, 160, 192, 224, 288, 352, 432, 512)  # that a micro-batch is padded to
ROWS = 32  # of a micro-batch


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids without special tokens."""

    queries: list[NDArray[np.int32]]
    passages: list[NDArray[np.int32]]
    cls: int
    sep: int
    question_mark: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Pairs of like length.

    Attributes:
        rows: which pairs of the step these are, (n,); fewer than ROWS where the last ones only
            fill.
        ids, mask, types: (ROWS, length), int64.
    """

    rows: NDArray[np.int64]
    ids: torch.Tensor
    mask: torch.Tensor
    types: torch.Tensor


def tokenize(pool: Pool, tokenizer: Tokenizer, query_tokens: int, tokens: int) -> Tokens:
    """Token ids of the whole pool."""
    tokenizer.no_padding()

    def ids(texts: list[str], most: int) -> list[NDArray[np.int32]]:
        tokenizer.enable_truncation(most)
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(e.ids, dtype=np.int32) for e in encoded]

    return Tokens(
        ids([query.text for query in pool.queries], query_tokens),
        ids(pool.passages, tokens),
        *(tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "?")),
    )


class Sampler:
    """Draws the groups of a step."""

    def __init__(
        self, pool: Pool, mined: Mined, weights: dict[str, float], negatives: int, seed: int
    ) -> None:
        self.pool = pool
        self.mined = mined
        self.negatives = negatives
        self.seed = seed
        share = np.array(
            [0.0 if query.held_out else weights[query.source] for query in pool.queries]
        )
        self.share = share / share.sum()

    def step(self, step: int, groups: int, dense: int) -> list[tuple[int, list[int]]]:
        """(row of the query, rows of its passages), the one that answers first.

        Args:
            step: numbers the draw.
            groups: how many.
            dense: negatives of a group that the bi-encoder finds near; BM25 found the others.
        """
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(len(self.share), groups, p=self.share)
        return [(int(row), self._group(int(row), dense, rng)) for row in chosen]

    def _group(self, row: int, dense: int, rng: np.random.Generator) -> list[int]:
        """Negatives of each kind, and one stranger; more of these where the lists are short."""
        query = self.pool.queries[row]
        near, lexical = (
            rng.permutation(found[found != NONE]).tolist()
            for found in (self.mined.dense[row], self.mined.lexical[row])
        )
        rival = rng.permutation(query.rivals)[:1].tolist()
        hard = dict.fromkeys([*near[:dense], *rival, *lexical, *near[dense:]])
        group = [int(rng.choice(query.answers)), *map(int, hard)][: self.negatives]
        while len(group) <= self.negatives:
            stranger = int(rng.integers(len(self.pool.passages)))
            if stranger not in query.answers and stranger not in group:
                group.append(stranger)
        return group


def micro_batches(
    tokens: Tokens,
    pairs: list[tuple[int, int]],
    most: int,
    device: torch.device,
    rng: np.random.Generator | None = None,
) -> list[MicroBatch]:
    """Pairs (query row, passage row), sorted by length into batches of ROWS.

    With ``rng``, half of the questions lose their question mark, as typed queries do.
    """
    bare: dict[int, bool] = {}
    encoded = []
    for query, passage in pairs:
        asked = tokens.queries[query]
        if rng is not None and len(asked) > 1 and asked[-1] == tokens.question_mark:
            asked = asked[:-1] if bare.setdefault(query, rng.random() < 0.5) else asked
        room = most - len(asked) - 4
        first = [tokens.cls, *asked, tokens.sep]
        second = [tokens.cls, *tokens.passages[passage][:room], tokens.sep]
        encoded.append((first, second))
    lengths = np.array([len(first) + len(second) for first, second in encoded])
    order = np.argsort(lengths, kind="stable")
    batches = []
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        width = next(length for length in LENGTHS if length >= lengths[rows].max())
        ids = np.zeros((ROWS, width), dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for at, row in enumerate(np.resize(rows, ROWS)):
            first, second = encoded[row]
            end = len(first) + len(second)
            ids[at, : len(first)] = first
            ids[at, len(first) : end] = second
            mask[at, :end] = 1
            types[at, len(first) : end] = 1
        tensors = (torch.from_numpy(array).to(device) for array in (ids, mask, types))
        batches.append(MicroBatch(rows, *tensors))
    return batches
