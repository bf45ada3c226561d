"""Pairs that are scored step by step: what was tokenised and run so far, and what is left to do."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.cross_encoder.score_cache import PairOutput
from qdrant_rerank.cross_encoder.windows import PairReader, Reading
from qdrant_rerank.inference.batching import Batch, TokenizedPair

__all__ = ["Block", "PairSteps", "Steps", "Work"]

READ_AT_ONCE = 64  # pairs that one step tokenises, in about as much time as a batch takes


@dataclass(slots=True)
class Work:
    """The pairs of a block that were tokenised and run so far."""

    rows: list[TokenizedPair] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    done: list[tuple[Batch, NDArray[np.float32]]] = field(default_factory=list)
    tokenize_s: float = 0.0
    fell_back: list[int] = field(default_factory=list)

    def engine(self, provider: str) -> str:
        """Name what ran the pairs, and how many did not fit its memory."""
        pairs = sum(self.fell_back)
        return provider if not pairs else f"{provider}, and a CPU for {pairs} that did not fit it"

    def add(self, reading: Reading, seconds: float) -> None:
        """Add pairs that were tokenised."""
        self.rows += reading.rows
        self.counts += reading.counts
        self.spans += reading.spans
        self.tokenize_s += seconds

    def outputs(self, labels: int) -> list[PairOutput]:
        """Return the outputs of the first pairs, up to one that was not read whole."""
        read = sum(len(batch.rows) for batch, _ in self.done)
        logits = np.empty((read, labels), dtype=np.float32)
        for batch, output in self.done:
            logits[batch.rows] = output
        found = []
        start = 0
        for count in self.counts:
            rows = slice(start, start + count)
            start += count
            if start > read:
                break
            truncated = any(row.truncated for row in self.rows[rows])
            # A copy, because a view in the cache would keep the logits of the whole block alive.
            found.append(PairOutput(logits[rows].copy(), truncated, tuple(self.spans[rows])))
        return found


@dataclass(slots=True)
class Block:
    """Pairs that are tokenised and planned together.

    Attributes:
        pairs: (query, document) texts.
        first: number of the first pair in errors.
        keys: of the pairs in the score cache; empty without one.
        kept: what the score cache has of each pair, or None.
        rest: rows of the pairs that the model has to read.
        work: what was read and run of them.
    """

    pairs: Sequence[tuple[str, str]]
    first: int
    keys: Sequence[bytes]
    kept: Sequence[PairOutput | None]
    rest: list[int] = field(init=False)
    work: Work = field(init=False, default_factory=Work)

    def __post_init__(self) -> None:
        self.rest = [row for row, output in enumerate(self.kept) if output is None]

    @property
    def unscored(self) -> list[tuple[str, str]]:
        """The pairs that the model has to read."""
        return [self.pairs[row] for row in self.rest]


class Scorer(Protocol):
    """The model that scores a block."""

    read: PairReader

    def plan(self, rows: Sequence[TokenizedPair]) -> list[Batch]:
        """Group tokenised pairs into batches."""

    def execute(self, work: Work, batch: Batch, *, spread: bool) -> None:
        """Run one batch, into the work."""

    def finish(self, block: Block, seconds: float) -> PairScores:
        """Make the scores of a block whose batches have run."""


class Steps(Protocol):
    """A block of pairs whose steps are done when the caller wants, in threads of the caller's.

    First :meth:`read` is called until it returns True, by one thread at a time. Then each of
    ``batches`` is run, by several threads at a time if the caller likes. Then :meth:`finish` is
    called. A block that is no longer wanted is just dropped.

    Attributes:
        pairs: number of pairs.
        batches: what there is to run; empty before all pairs are read.
        tokens: tokens of each batch, without padding.
    """

    pairs: int
    batches: list[Batch]
    tokens: list[int]

    def read(self) -> bool:
        """Tokenise some of the pairs; returns whether all are read, and ``batches`` is planned."""
        ...

    def run(self, batch: Batch, *, spread: bool = False) -> None:
        """Run the model on one of ``batches``.

        Args:
            batch: one of ``batches``.
            spread: whether the batch may use several cores, if it is long enough.

        Raises:
            ModelOutputError: the model failed.
        """
        ...

    def finish(self) -> PairScores:
        """Return the scores, when all batches have run. ``infer_s`` is the sum of all threads.

        Raises:
            ModelOutputError: a score is not finite.
        """
        ...


class PairSteps:
    """The steps of pairs whose texts the model reads together; see :class:`Steps`.

    Args:
        block: the pairs.
        scorer: the model.

    Attributes:
        pairs: see :class:`Steps`, and so the others.
        batches: see there.
        tokens: see there.
    """

    def __init__(self, block: Block, scorer: Scorer) -> None:
        self.pairs = len(block.pairs)
        self._block = block
        self._scorer = scorer
        self._unread = block.unscored
        self._run_s: list[float] = []  # of each batch; several threads append
        self.batches: list[Batch] = []
        self.tokens: list[int] = []

    def read(self) -> bool:
        """Tokenise some of the pairs."""
        began = time.perf_counter()
        work = self._block.work
        part, self._unread = self._unread[:READ_AT_ONCE], self._unread[READ_AT_ONCE:]
        work.add(self._scorer.read(part), time.perf_counter() - began)
        if self._unread:
            return False
        self.batches = self._scorer.plan(work.rows)
        self.tokens = [sum(len(work.rows[row]) for row in each.rows) for each in self.batches]
        return True

    def run(self, batch: Batch, *, spread: bool = False) -> None:
        """Run the model on one of ``batches``."""
        began = time.perf_counter()
        self._scorer.execute(self._block.work, batch, spread=spread)
        self._run_s.append(time.perf_counter() - began)

    def finish(self) -> PairScores:
        """Return the scores, when all batches have run."""
        seconds = self._block.work.tokenize_s + sum(self._run_s)
        return self._scorer.finish(self._block, seconds)
