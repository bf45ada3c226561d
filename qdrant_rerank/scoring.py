"""Pairs -> scores: tokenise -> plan -> run -> label logits -> activation -> aggregate.

``PairScorer`` takes finished parts; :mod:`~qdrant_rerank.cross_encoder` loads them.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.activations import Activation, activate, activation_name, choose_activation
from qdrant_rerank.arguments import require_pairs
from qdrant_rerank.batching import Run, TokenizedPair, pad, plan_runs
from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.heads import Label, choose_head, label_logits
from qdrant_rerank.model_config import ModelConfig
from qdrant_rerank.runtime import Runtime
from qdrant_rerank.tokenization import PairTokenizer

__all__ = ["PairScorer", "PairScores"]


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores, and what they cost.

    Attributes:
        scores: shape (n,), float32, input order, after activation; higher is more relevant.
        tokenize_s: seconds spent tokenising.
        infer_s: seconds spent in the model.
        tokens: tokens scored, padding left out.
        padded_tokens: tokens scored, padding included.
        truncated: shape (n,), bool; pairs of which the window cut something off.
        activation: name of the activation that made the scores of logits.
    """

    scores: NDArray[np.float32]
    tokenize_s: float
    infer_s: float
    tokens: int
    padded_tokens: int
    truncated: NDArray[np.bool_]
    activation: str


class PairScorer:
    """Scores pairs with one loaded model. Safe to call from many threads.

    Args:
        tokenizer: of the model.
        runtime: the model.
        config: what the model's files say about its output.
        activation: see :mod:`~qdrant_rerank.activations`.
        label: see :mod:`~qdrant_rerank.heads`.

    Attributes:
        tokenizer: as given.
        runtime: as given.
        head: which labels are relevance.
        activation: as given, "auto" resolved.

    Raises:
        ModelOutputError: the model does not run on the tokenizer's ids, or is no reranker.
        InvalidInputError: the activation or the label does not fit the model's head.
    """

    def __init__(
        self,
        tokenizer: PairTokenizer,
        runtime: Runtime,
        config: ModelConfig,
        *,
        activation: Activation = "identity",
        label: Label | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.runtime = runtime
        # One short pair shows now, not amid a ranking, that the two fit, and what comes out.
        probe = self._logits(tokenizer([("a", "b")]))
        self.head = choose_head(probe, config.labels, label, runtime.path)
        self.activation = choose_activation(activation, config, self.head)

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> PairScores:
        """Score pairs at once.

        Args:
            pairs: (query, document) texts, of one query or of many.
            batch_size: most pairs a run may hold; None to let the token budget decide.
            pool: other threads to use than the runtime's own.

        Raises:
            InvalidInputError: a text is not a str.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        require_pairs(pairs)
        began = time.perf_counter()
        tokenized = self.tokenizer(pairs) if pairs else []
        tokenized_at = time.perf_counter()
        limits = [limit for limit in (batch_size, self.runtime.pairs_per_run) if limit is not None]
        runs = plan_runs(
            [len(pair) for pair in tokenized],
            tokens_per_run=self.runtime.tokens_per_run,
            pairs_per_run=min(limits, default=None),
        )
        logits = np.empty((len(tokenized), self.head.labels), dtype=np.float32)

        def execute(run: Run) -> None:
            logits[run.rows] = self._logits([tokenized[row] for row in run.rows])

        self.runtime.for_each(execute, runs, pool)
        self._require_finite(logits)
        return PairScores(
            scores=activate(self.activation, self.head, logits),
            tokenize_s=tokenized_at - began,
            infer_s=time.perf_counter() - tokenized_at,
            tokens=sum(len(pair) for pair in tokenized),
            padded_tokens=sum(len(run.rows) * run.width for run in runs),
            truncated=np.array([pair.truncated for pair in tokenized], dtype=np.bool_),
            activation=activation_name(self.activation),
        )

    def _logits(self, pairs: Sequence[TokenizedPair]) -> NDArray[np.float32]:
        """Label logits of one run, shape (pairs, labels)."""
        inputs = pad(
            pairs,
            pad_id=self.tokenizer.pad_id,
            pad_type_id=self.tokenizer.pad_type_id,
            side=self.tokenizer.padding_side,
        )
        return label_logits(self.runtime.run(*inputs), len(pairs), self.runtime.path)

    def _require_finite(self, logits: NDArray[np.float32]) -> None:
        broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(broken):
            value = logits[broken[0]][~np.isfinite(logits[broken[0]])][0]
            raise ModelOutputError(
                f"{self.runtime.path} returned {value} for {len(broken)} of {len(logits)} pairs, "
                f"the first at index {broken[0]}. The file may be damaged, or its fp16 "
                "arithmetic overflows: fetch it again or use another precision."
            )
