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
from states import States
from torch import Tensor

MOST = 208  # tokens of a pair
MOST_QUERY = 56  # of these
STEP = 8  # a micro-batch is padded to a multiple of it
ROWS = 32  # of a micro-batch


@dataclass(frozen=True, slots=True)
class Group:
    """A query and its passages.

    Attributes:
        query: row.
        passages: rows, the one that answers first.
        advised: the rows that the teachers are asked about, NONE where they are not.
        blind: the scalars are left out.
    """

    query: int
    passages: list[int]
    advised: list[int]
    blind: bool


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Pairs of like length.

    Attributes:
        rows: which pairs of the step these are, (n,).
        ids, mask, types: (n, length), int64.
        lower, top: the trunk's states, (n, length, WIDTH), int8.
        front: how many positions hold all queries.
        keep: 0 for pairs whose scalars are left out, (n,), float32.
    """

    rows: NDArray[np.int64]
    ids: Tensor
    mask: Tensor
    types: Tensor
    lower: Tensor
    top: Tensor
    front: int
    keep: Tensor


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
                0.0 if q.held_out or q.source in without else weights.get(q.source, 1.0)
                for q in plan.queries
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
        taken: list[int] = []
        advised: list[int] = []
        roll = rng.random()
        blind = bool(rng.random() < settings["blind"])
        answer = int(rng.choice(query.answers)) if query.answers else NONE
        if made.part != NONE and (query.source in PAIRED or roll < settings["as_changed"]):
            taken, advised = [made.part, made.changed], [answer, NONE]
        elif made.diluted != NONE and roll < settings["as_changed"] + settings["as_diluted"]:
            taken, advised = [made.diluted], [answer]
        else:
            taken, advised = [answer], [answer]
        if made.echoes and rng.random() < settings["as_echoed"]:
            taken.append(int(rng.choice(made.echoes)))
            advised.append(NONE)
        near = [int(r) for r in self.plan.dense[row] if r != NONE]
        lexical = [int(r) for r in self.plan.lexical[row] if r != NONE]
        rivals = [r for r in query.rivals if r not in query.answers]
        hard: list[int] = []
        if rivals and rng.random() < settings["rival"]:
            hard.append(int(rng.choice(rivals)))
        for listed, share in ((near, settings["dense"]), (lexical, settings["lexical"])):
            fits = [r for r in listed if r not in hard]
            # The nearest more often: half of the draws from the first third.
            weight = np.linspace(2.0, 0.6, len(fits)) if fits else np.zeros(0)
            count = min(share, len(fits))
            if count:
                drawn = rng.choice(len(fits), count, replace=False, p=weight / weight.sum())
                hard += [fits[at] for at in drawn]
        hard = hard[: size - len(taken) - 1]
        taken += hard
        advised += hard
        while len(taken) < size:
            stranger = int(rng.integers(self.passages))
            if stranger not in query.answers and stranger not in taken:
                taken.append(stranger)
                advised.append(stranger)
        if query.source in PAIRED:
            advised = [NONE] * size
        return Group(row, taken, advised, blind)


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


def micro_batches(
    texts: Texts, pairs: list[tuple[int, int, bool]], most: int = MOST
) -> list[MicroBatch]:
    """Pairs (query row, passage row, blind), sorted by length into batches of ROWS."""
    spans = []
    for query, passage, _ in pairs:
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
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        width = -(-int(lengths[rows].max()) // STEP) * STEP
        front = min(width, -(-max(spans[row][2] for row in rows) // STEP) * STEP)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        shape = (len(rows), width, texts.read[0].lower.shape[1])
        lower, top = np.zeros(shape, dtype=np.int8), np.zeros(shape, dtype=np.int8)
        keep = np.ones(len(rows), dtype=np.float32)
        for at, row in enumerate(rows):
            asked, first, count, read, second, room = spans[row]
            parts = ((0, asked, first, count), (count, read, second, room))
            for place, source, begin, size in parts:
                ids[at, place : place + size] = source.ids[begin : begin + size]
                lower[at, place : place + size] = source.lower[begin : begin + size]
                top[at, place : place + size] = source.top[begin : begin + size]
            mask[at, : count + room] = 1
            types[at, count : count + room] = 1
            keep[at] = not pairs[row][2]
        tensors = (torch.from_numpy(array) for array in (ids, mask, types, lower, top))
        batches.append(MicroBatch(rows, *tensors, front, torch.from_numpy(keep)))
    return batches
