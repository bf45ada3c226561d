"""Groups to train on: a query, one passage that answers and several that do not.

The groups of a step depend on the seed and the step alone, so a run that was cut off draws the
same ones when it goes on.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from making import PAIRED, Plan
from mine import NONE
from numpy.typing import NDArray
from pools import SENTENCES
from states import States
from torch import Tensor

MOST = 312  # tokens of a pair
MOST_QUERY = 56  # of these
STEP, FRONT_STEP = 16, 8  # a micro-batch and its front are padded to multiples of them, so that
# kernels are reused
TOKENS = 1536  # of a micro-batch, padding included


@dataclass(frozen=True, slots=True)
class Group:
    """A query and its passages.

    Attributes:
        query: row.
        passages: rows, the one that answers first.
        ordinary: which of them are passages of the sets, about which the teacher is asked.
    """

    query: int
    passages: list[int]
    ordinary: list[bool]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Pairs of like length.

    Attributes:
        rows: which pairs of the step these are, (n,).
        ids, mask, types: (n, length), int64.
        lower, top: the trunk's states, (n, length, WIDTH), int8.
        front: how many positions hold all queries.
    """

    rows: NDArray[np.int64]
    ids: Tensor
    mask: Tensor
    types: Tensor
    lower: Tensor
    top: Tensor
    front: int


class Sampler:
    """Draws the groups of a step."""

    def __init__(self, plan: Plan, settings: dict[str, Any], passages: int, seed: int) -> None:
        self.plan = plan
        self.settings = settings
        self.passages = passages
        self.seed = seed
        weights = settings["weights"]
        without = set(settings["without"])
        share = np.array(
            [
                0.0
                if q.held_out
                or q.source in without
                or (made.kind in settings["dropped"] and not q.answers)
                else weights.get(q.source, 1.0)
                for q, made in zip(plan.queries, plan.made, strict=True)
            ]
        )
        self.share = share / share.sum()

    def step(self, step: int, groups: int) -> list[Group]:
        """Groups of one size."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(len(self.share), groups, replace=False, p=self.share)
        return [self._group(int(row), rng) for row in chosen]

    def _group(self, row: int, rng: np.random.Generator) -> Group:
        query, made, settings = self.plan.queries[row], self.plan.made[row], self.settings
        size = 1 + settings["negatives"]
        roll = rng.random()
        answer = int(rng.choice(query.answers)) if query.answers else NONE
        changed = made.part != NONE and made.kind not in settings["dropped"]
        if changed and (query.source in PAIRED or roll < settings["as_changed"]):
            taken, ordinary = [made.part, made.changed], [True, False]
        elif made.diluted != NONE and roll < settings["as_changed"] + settings["as_diluted"]:
            taken, ordinary = [made.diluted], [False]
        else:
            taken, ordinary = [answer], [True]
        if made.echoes and rng.random() < settings["as_echoed"]:
            taken.append(int(rng.choice(made.echoes)))
            ordinary.append(False)
        same = [r for r in self.plan.same[row] if r not in query.answers]
        count = settings["sentences"] if query.source == SENTENCES else settings["same"]
        hard = [int(r) for r in rng.permutation(same)[:count]]
        for listed, share in (
            (self.plan.dense[row], settings["dense"]),
            (self.plan.lexical[row], settings["lexical"]),
        ):
            fits = [int(r) for r in listed if r != NONE and r not in hard]
            # The nearest more often: half of the draws from the first third.
            weight = np.linspace(2.0, 0.6, len(fits)) if fits else np.zeros(0)
            count = min(share, len(fits))
            if count:
                drawn = rng.choice(len(fits), count, replace=False, p=weight / weight.sum())
                hard += [fits[at] for at in drawn]
        taken += hard[: size - len(taken) - 1]
        while len(taken) < size:
            stranger = int(rng.integers(self.passages))
            if stranger not in query.answers and stranger not in taken:
                taken.append(stranger)
        ordinary += [True] * (size - len(ordinary))
        return Group(row, taken, ordinary)


@dataclass(frozen=True, slots=True)
class Texts:
    """States of queries and of passages, in the order of their rows."""

    asked: list[States]
    read: list[States]

    def query(self, row: int) -> tuple[States, int]:
        """Where a query's states are."""
        return _at(self.asked, row)

    def passage(self, row: int) -> tuple[States, int]:
        """Where a passage's states are."""
        return _at(self.read, row)


def _at(several: list[States], row: int) -> tuple[States, int]:
    for states in several:
        if row < (count := len(states.offsets) - 1):
            return states, row
        row -= count
    raise IndexError(row)


def micro_batches(texts: Texts, pairs: list[tuple[int, int]], most: int = MOST) -> list[MicroBatch]:
    """Pairs (query row, passage row), sorted by length into batches of TOKENS."""
    spans = []
    for query, passage in pairs:
        asked, at = texts.query(query)
        read, row = texts.passage(passage)
        first = asked.offsets[at : at + 2]
        second = read.offsets[row : row + 2]
        longest = min(int(first[1] - first[0]), MOST_QUERY)
        room = min(int(second[1] - second[0]), most - longest)
        spans.append((asked, int(first[0]), longest, read, int(second[0]), room))
    lengths = np.array([span[2] + span[5] for span in spans])
    order = np.argsort(lengths, kind="stable")
    batches = []
    widths = -(-lengths[order] // STEP) * STEP
    start = 0
    while start < len(order):
        fits = widths[start:] * np.arange(1, len(order) - start + 1) <= TOKENS
        rows = order[start : start + max(1, int(fits.sum()))]
        start += len(rows)
        width = int(widths[start - 1])
        longest = max(spans[row][2] for row in rows)
        front = min(width, -(-longest // FRONT_STEP) * FRONT_STEP)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        shape = (len(rows), width, texts.read[0].lower.shape[1])
        lower, top = np.zeros(shape, dtype=np.int8), np.zeros(shape, dtype=np.int8)
        for at, row in enumerate(rows):
            asked, first, count, read, second, room = spans[row]
            parts = ((0, asked, first, count), (count, read, second, room))
            for place, source, begin, size in parts:
                ids[at, place : place + size] = source.ids[begin : begin + size]
                lower[at, place : place + size] = source.lower[begin : begin + size]
                top[at, place : place + size] = source.top[begin : begin + size]
            mask[at, : count + room] = 1
            types[at, count : count + room] = 1
        tensors = (torch.from_numpy(array) for array in (ids, mask, types, lower, top))
        batches.append(MicroBatch(rows, *tensors, front))
    return batches
