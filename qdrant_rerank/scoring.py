"""Pairs -> scores: tokenise -> plan -> run -> label logits -> activation -> aggregate.

``PairScorer`` takes finished parts; :mod:`~qdrant_rerank.cross_encoder` loads them.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.activations import Activation, activate, activation_name, choose_activation
from qdrant_rerank.arguments import require_pairs
from qdrant_rerank.batching import Run, TokenizedPair, pad, plan_in_order, plan_runs
from qdrant_rerank.deadline import NEVER, Deadline
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.heads import Label, choose_head, label_logits
from qdrant_rerank.model_config import ModelConfig
from qdrant_rerank.runtime import Runtime
from qdrant_rerank.windows import PairReader, Reading, aggregate

__all__ = ["PairScorer", "PairScores"]

# A run's worth of short pairs, 8 on a CPU, is tokenised at a time where a deadline may pass in
# between: a millisecond or so.
SHORT_PAIR = 64  # tokens


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores, and what they cost.

    Attributes:
        scores: shape (n,), float32, input order, after activation; higher is more relevant; NaN
            where there was no time to score.
        scored: shape (n,), bool; which pairs were scored: all, or with a deadline the first ones.
        tokenize_s: seconds spent tokenising.
        infer_s: seconds spent in the model.
        tokens: tokens scored, padding left out.
        padded_tokens: tokens scored, padding included.
        truncated: shape (n,), bool; pairs of which the window cut something off.
        windows: shape (n,); rows that the model read for each pair, more than 1 where it read a
            long document in parts.
        spans: of each scored document, start and end character of the part that speaks for it;
            None where long documents are truncated.
        activation: name of the activation that made the scores of logits.
    """

    scores: NDArray[np.float32]
    scored: NDArray[np.bool_]
    tokenize_s: float
    infer_s: float
    tokens: int
    padded_tokens: int
    truncated: NDArray[np.bool_]
    windows: NDArray[np.intp]
    spans: list[tuple[int, int]] | None
    activation: str


class PairScorer:
    """Scores pairs with one loaded model. Safe to call from many threads.

    Args:
        reader: tokenises for the model.
        runtime: the model.
        config: what the model's files say about its output.
        activation: see :mod:`~qdrant_rerank.activations`.
        label: see :mod:`~qdrant_rerank.heads`.

    Attributes:
        runtime: as given.
        head: which labels are relevance.
        activation: as given, "auto" resolved.

    Raises:
        ModelOutputError: the model does not run on the tokenizer's ids, or is no reranker.
        InvalidInputError: the activation or the label does not fit the model's head.
    """

    def __init__(
        self,
        reader: PairReader,
        runtime: Runtime,
        config: ModelConfig,
        *,
        activation: Activation = "identity",
        label: Label | None = None,
    ) -> None:
        self._read = reader
        self._windows = windows = reader.windows
        self._pairs_per_run = runtime.pairs_per_run
        if reader.tokenizer.no_yes is not None and "position_ids" not in runtime.inputs:
            self._pairs_per_run = 1  # its own positions would count the padding on the left
        self.runtime = runtime
        # One short pair shows now, not amid a ranking, that the two fit, and what comes out.
        probe = self._logits(reader.tokenizer([("a", "b")]))
        answers = reader.tokenizer.no_yes is not None
        self.head = choose_head(probe, config.labels, label, runtime.path, no_yes=answers)
        self.activation = choose_activation(activation, config, self.head)
        if windows is not None and windows.aggregate == "sum" and self.activation == "identity":
            raise InvalidInputError(
                "aggregate is 'sum' and the scores are raw logits, which may be negative, so that "
                "a longer document would lose. Pass activation='sigmoid', or aggregate='mean'."
            )

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None = None,
        pool: ThreadPoolExecutor | None = None,
        deadline: Deadline = NEVER,
    ) -> PairScores:
        """Score pairs at once.

        Args:
            pairs: (query, document) texts, of one query or of many.
            batch_size: most pairs a run may hold; None to let the token budget decide.
            pool: other threads to use than the runtime's own.
            deadline: with one, pairs are run in their order, and no run is begun after it.

        Raises:
            InvalidInputError: a text is not a str.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        require_pairs(pairs)
        began = time.perf_counter()
        work = _Work()
        drawn = self._runs(pairs, batch_size, deadline, work)
        outputs: list[tuple[Run, NDArray[np.float32]]] = []

        def execute(run: Run) -> None:
            outputs.append((run, self._logits([work.rows[row] for row in run.rows])))

        # With a deadline, the next pairs are tokenised while the first ones run.
        runs = list(drawn) if deadline is NEVER else drawn
        self.runtime.for_each(execute, runs, pool, deadline)
        read = sum(len(run.rows) for run, _ in outputs)
        logits = np.empty((read, self.head.labels), dtype=np.float32)
        for run, output in outputs:
            logits[run.rows] = output
        # A document counts once all of its windows were read.
        count = int(np.searchsorted(np.cumsum(work.counts), read, side="right"))
        counts = work.counts[:count]
        rows = work.rows[: sum(counts)]
        owners = np.repeat(np.arange(count), counts)
        logits = logits[: len(rows)]
        self._require_finite(logits, owners, len(pairs))
        head = activate(self.activation, self.head, logits)
        spans = None
        if self._windows is not None:
            head, best = aggregate(head, counts, self._windows)
            spans = [work.spans[row] for row in best]
        scores = np.full(len(pairs), np.nan, dtype=np.float32)
        scores[:count] = head
        truncated = np.zeros(len(pairs), dtype=np.bool_)
        truncated[owners[np.array([row.truncated for row in rows], dtype=np.bool_)]] = True
        windows = np.zeros(len(pairs), dtype=np.intp)
        windows[:count] = counts
        return PairScores(
            scores=scores,
            scored=np.arange(len(pairs)) < count,
            tokenize_s=work.tokenize_s,
            infer_s=time.perf_counter() - began - work.tokenize_s,
            tokens=sum(len(work.rows[row]) for run, _ in outputs for row in run.rows),
            padded_tokens=sum(len(run.rows) * run.width for run, _ in outputs),
            truncated=truncated,
            windows=windows,
            spans=spans,
            activation=activation_name(self.activation),
        )

    def _runs(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None,
        deadline: Deadline,
        work: "_Work",
    ) -> Iterator[Run]:
        """Tokenise pairs into ``work`` and plan their runs: all at once, or block by block."""
        limits = [limit for limit in (batch_size, self._pairs_per_run) if limit is not None]
        plan = plan_runs if deadline is NEVER else plan_in_order
        block = self.runtime.tokens_per_run // SHORT_PAIR
        size = max(1, len(pairs)) if deadline is NEVER else block
        for start in range(0, len(pairs), size):
            if deadline.passed:
                return
            began = time.perf_counter()
            reading = self._read(pairs[start : start + size])
            before = len(work.rows)
            work.add(reading, time.perf_counter() - began)
            for run in plan(
                [len(row) for row in reading.rows],
                tokens_per_run=self.runtime.tokens_per_run,
                pairs_per_run=min(limits, default=None),
            ):
                yield Run(run.rows + before, run.width)

    def _logits(self, pairs: Sequence[TokenizedPair]) -> NDArray[np.float32]:
        """Label logits of one run, shape (pairs, labels)."""
        tokenizer = self._read.tokenizer
        inputs = pad(
            pairs,
            pad_id=tokenizer.pad_id,
            pad_type_id=tokenizer.pad_type_id,
            side=tokenizer.padding_side,
        )
        no_yes = tokenizer.no_yes
        output = self.runtime.run(*inputs, last_position=no_yes is not None)
        return label_logits(output, len(pairs), self.runtime.path, no_yes)

    def _require_finite(
        self, logits: NDArray[np.float32], owners: NDArray[np.intp], pairs: int
    ) -> None:
        finite = np.isfinite(logits)
        broken = np.unique(owners[~finite.all(axis=1)])
        if len(broken):
            raise ModelOutputError(
                f"{self.runtime.path} returned {logits[~finite][0]} for {len(broken)} of {pairs} "
                f"pairs, the first at index {broken[0]}. The file may be damaged, or its fp16 "
                "arithmetic overflows: fetch it again or use another precision."
            )


@dataclass(slots=True)
class _Work:
    """What has been tokenised so far; see :class:`~qdrant_rerank.windows.Reading`."""

    rows: list[TokenizedPair] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    tokenize_s: float = 0.0

    def add(self, reading: Reading, seconds: float) -> None:
        self.rows += reading.rows
        self.counts += reading.counts
        self.spans += reading.spans
        self.tokenize_s += seconds
