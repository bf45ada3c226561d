"""Pairs -> scores: tokenise -> plan batches -> run -> label logits -> activation -> aggregate.

``PairScorer`` takes finished parts; :mod:`~qdrant_rerank.cross_encoder.text_cross_encoder` loads
them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.activations import (
    Activation,
    activate,
    activation_name,
    choose_activation,
    order_logits,
)
from qdrant_rerank.cross_encoder.heads import Label, choose_head, label_logits
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.cross_encoder.modular import ModularHead
from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.cross_encoder.score_cache import PairOutput, ScoreCache, pair_key
from qdrant_rerank.cross_encoder.steps import Block, PairSteps, Steps, Work
from qdrant_rerank.cross_encoder.windows import PairReader, aggregate
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.inference.batching import (
    Batch,
    TokenizedPair,
    blocks_of,
    pad,
    padded_width,
    plan_batches,
)
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.threads import Workers
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.validation import require_pairs

__all__ = ["PairScorer"]

# With a deadline, one batch of short pairs (8 on a CPU) is tokenised at once, in about 1 ms.
SHORT_PAIR = 64  # tokens
# On a GPU, the second half of the pairs is tokenised while the GPU works on the first half, unless
# the halves have fewer pairs than this.
FEWEST_PAIRS_FOR_GPU = 32


class PairScorer:
    """Scores pairs with one loaded model. Safe to call from many threads.

    Args:
        reader: the model's tokenizer.
        runtime: the loaded model.
        config: the model's configuration.
        activation: see :mod:`~qdrant_rerank.cross_encoder.activations`.
        label: see :mod:`~qdrant_rerank.cross_encoder.heads`.
        cache: keeps the model's logits; None to keep nothing.
        model: digest of everything that decides a logit, as the cache's key.
        precision: precision of the weights, for the result.
        modules: the head, if the file holds the transformer alone; None if it returns logits.

    Attributes:
        read: the reader, as given.
        runtime: as given.
        head: how relevance is read from the logits.
        activation: as given, but "auto" is replaced by the model's own.

    Raises:
        ModelOutputError: the model does not run on the tokenizer's ids, or is not a reranker.
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
        cache: ScoreCache | None = None,
        model: bytes = b"",
        precision: str = "fp32",
        modules: ModularHead | None = None,
    ) -> None:
        self._cache = cache
        self._precision = precision
        self._model = model
        self.read = reader
        self._windows = windows = reader.windows
        self._pairs_per_batch = runtime.pairs_per_batch
        self._width_multiple = runtime.width_multiple
        self._widest: int = reader.tokenizer.max_length
        self._modules = modules
        if reader.tokenizer.no_yes is not None and "position_ids" not in runtime.inputs:
            self._pairs_per_batch = 1  # the model counts positions from the padding on the left
            self._width_multiple = 1
        if runtime.fixed_width is not None:
            self._width_multiple = self._widest = runtime.fixed_width
        self.runtime = runtime
        # One short pair shows now, and not at the first search, that tokenizer and model fit.
        probe = self._logits(reader.tokenizer([("a", "b")]))
        no_yes = reader.tokenizer.no_yes is not None
        self.head = choose_head(probe, config.labels, label, runtime.path, no_yes=no_yes)
        self.activation = choose_activation(activation, config, self.head)
        if windows is not None and windows.aggregate == "sum" and self.activation == "identity":
            raise InvalidInputError(
                "aggregate is 'sum' and the scores are raw logits, which may be negative: a longer "
                "document would get a lower score. Pass activation='sigmoid', or aggregate='mean'."
            )

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None = None,
        pool: Workers | None = None,
        deadline: Deadline = NO_DEADLINE,
        *,
        first: int = 0,
    ) -> PairScores:
        """Score pairs block by block, so that their tokens are never all in memory.

        Args:
            pairs: (query, document) texts, of one query or of many.
            batch_size: most pairs in one batch; None to let the token budget decide.
            pool: threads to use instead of the runtime's own.
            deadline: pairs are then scored in their order, and no batch starts after it.
            first: number of the first pair in errors, if the pairs are part of a longer list.

        Raises:
            InvalidInputError: a text is not a str.
            ModelOutputError: the model failed or returned a score that is not finite.
        """
        require_pairs(pairs, first)
        parts = []
        scored = 0
        for block in blocks_of(pairs):
            parts.append(self._score(block, batch_size, pool, deadline, first + scored))
            if not parts[-1].scored.all():
                break
            scored += len(block)
        return PairScores.joined(parts or [self._scores([], 0, [], Work(), 0.0)], len(pairs))

    def _score(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None,
        pool: Workers | None,
        deadline: Deadline,
        first: int,
    ) -> PairScores:
        """Score a block of pairs, by the cache if it has their logits, else by the model."""
        began = time.perf_counter()
        block = self._look_up(pairs, first)
        if self.runtime.on_gpu and deadline is NO_DEADLINE:
            # Tokenised part by part while the GPU works, each part of pairs of similar length.
            block.rest.sort(key=lambda row: sum(map(len, pairs[row])), reverse=True)
        self._run(block.unscored, batch_size, pool, deadline, block.work)
        return self.finish(block, time.perf_counter() - began)

    def steps(self, pairs: Sequence[tuple[str, str]]) -> list[Steps]:
        """Score pairs step by step, each when and in which thread the caller wants.

        The batches, and so the scores, are those of :meth:`score` without a deadline; on a GPU to
        the rounding of sums.

        Args:
            pairs: (query, document) texts.

        Returns:
            The blocks of the pairs, in order; no text has been tokenised yet.

        Raises:
            InvalidInputError: a text is not a str.
        """
        require_pairs(pairs)
        blocks: list[Steps] = []
        first = 0
        for own in blocks_of(pairs):
            blocks.append(PairSteps(self._look_up(own, first), self))
            first += len(own)
        return blocks

    def _look_up(self, pairs: Sequence[tuple[str, str]], first: int) -> Block:
        """Find the pairs of a block whose logits the cache lacks."""
        keys = [] if self._cache is None else [pair_key(self._model, *pair) for pair in pairs]
        kept = [None] * len(pairs) if self._cache is None else self._cache.get(keys)
        return Block(pairs, first, keys, kept)

    def finish(self, block: Block, seconds: float) -> PairScores:
        """Make the scores of a block when its batches have run, or as many as time allowed."""
        rest, keys, kept = block.rest, block.keys, block.kept
        fresh = block.work.outputs(self.head.labels)
        self._require_finite(fresh, [block.first + row for row in rest], len(block.pairs))
        outputs = list(kept)
        for row, found in zip(rest, fresh, strict=False):
            outputs[row] = found
        if self._cache is not None:
            self._cache.put((keys[row], output) for row, output in zip(rest, fresh, strict=False))
        done: list[PairOutput] = []
        for output in outputs:
            if output is None:  # not before the deadline; later pairs do not count, even if kept
                break
            done.append(output)
        return self._scores(done, len(block.pairs), kept, block.work, seconds)

    def of_outputs(self, outputs: Sequence[PairOutput], pairs: int, seconds: float) -> PairScores:
        """Make the scores of pairs whose outputs were computed elsewhere.

        Args:
            outputs: of the first pairs.
            pairs: number of all pairs.
            seconds: that they took.

        Raises:
            ModelOutputError: a score is not finite.
        """
        self._require_finite(outputs, range(len(outputs)), pairs)
        return self._scores(outputs, pairs, [None] * pairs, Work(), seconds)

    def _run(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None,
        pool: Workers | None,
        deadline: Deadline,
        work: Work,
    ) -> None:
        """Tokenise pairs and run the model on them, into ``work``."""
        planned = self._batches(pairs, batch_size, deadline, work)
        # With a deadline, and on a GPU, the next pairs are tokenised while the first ones run.
        batches = list(planned) if self._at_once(deadline) else planned
        count = len(batches) if isinstance(batches, list) else len(pairs)
        spread = self.runtime.has_cores_for(count)
        self.runtime.for_each(partial(self.execute, work, spread=spread), batches, pool, deadline)

    def execute(self, work: Work, batch: Batch, *, spread: bool) -> None:
        """Run the model on one batch, into ``work``."""
        rows = [work.rows[row] for row in batch.rows]
        work.done.append((batch, self._logits(rows, spread, work.fell_back.append)))

    def _scores(
        self,
        outputs: Sequence[PairOutput],
        pairs: int,
        kept: Sequence[PairOutput | None],
        work: Work,
        seconds: float,
    ) -> PairScores:
        """Make the scores of a block, of which the first pairs have outputs."""
        count = len(outputs)
        logits = np.concatenate(
            [np.empty((0, self.head.labels), np.float32), *(output.logits for output in outputs)]
        )
        head = activate(self.activation, self.head, logits)
        order = order_logits(self.activation, self.head, logits)
        counts = [len(output.logits) for output in outputs]
        spans = None
        if self._windows is not None:
            head, best = aggregate(head, counts, self._windows, order)
            order = order[best]
            logits = logits[best]
            passages = [span for output in outputs for span in output.spans]
            spans = [passages[row] for row in best]
        scores = np.full(pairs, np.nan)
        scores[:count] = head
        ordering = np.full(pairs, np.nan)
        ordering[:count] = order
        labels = np.full((pairs, self.head.labels), np.nan, dtype=np.float32)
        labels[:count] = logits
        truncated = np.zeros(pairs, dtype=np.bool_)
        truncated[:count] = [output.truncated for output in outputs]
        windows = np.zeros(pairs, dtype=np.intp)
        windows[:count] = counts
        cached = None
        if self._cache is not None:
            cached = np.zeros(pairs, dtype=np.bool_)
            cached[:count] = [output is not None for output in kept[:count]]
        return PairScores(
            scores=scores,
            logits=ordering,
            label_logits=labels,
            scored=np.arange(pairs) < count,
            tokenize_s=work.tokenize_s,
            infer_s=seconds - work.tokenize_s,
            tokens=sum(len(work.rows[row]) for batch, _ in work.done for row in batch.rows),
            padded_tokens=sum(len(each.rows) * self._padded(each.width) for each, _ in work.done),
            truncated=truncated,
            windows=windows,
            spans=spans,
            activation=activation_name(self.activation),
            engine=work.engine(self.runtime.provider),
            precision=self._precision,
            cached=cached,
        )

    def _batches(
        self,
        pairs: Sequence[tuple[str, str]],
        batch_size: int | None,
        deadline: Deadline,
        work: Work,
    ) -> Iterator[Batch]:
        """Tokenise pairs into ``work`` and plan their batches: all at once, or part by part."""
        size = self.runtime.tokens_per_batch // SHORT_PAIR
        if self.runtime.on_gpu:
            size = min(size, max(FEWEST_PAIRS_FOR_GPU, -(-len(pairs) // 2)))
        if self._at_once(deadline):
            size = max(1, len(pairs))
        for start in range(0, len(pairs), size):
            if deadline.passed:
                return
            began = time.perf_counter()
            reading = self.read(pairs[start : start + size])
            before = len(work.rows)
            work.add(reading, time.perf_counter() - began)
            planned = self.plan(reading.rows, batch_size, in_order=deadline is not NO_DEADLINE)
            for batch in planned:
                yield Batch(batch.rows + before, batch.width)

    def plan(
        self,
        rows: Sequence[TokenizedPair],
        batch_size: int | None = None,
        *,
        in_order: bool = False,
    ) -> list[Batch]:
        """Group tokenised pairs into batches for this model."""
        limits = [limit for limit in (batch_size, self._pairs_per_batch) if limit is not None]
        return plan_batches(
            [self.runtime.fixed_width or len(row) for row in rows],
            tokens_per_batch=self.runtime.tokens_per_batch,
            pairs_per_batch=min(limits, default=None),
            long_pair=self.runtime.long_pair,
            in_order=in_order,
        )

    def _at_once(self, deadline: Deadline) -> bool:
        """Return whether all pairs are tokenised before the first batch runs."""
        return deadline is NO_DEADLINE and not self.runtime.on_gpu

    def _padded(self, width: int) -> int:
        return padded_width(width, self._width_multiple, self._widest)

    def _logits(
        self,
        pairs: Sequence[TokenizedPair],
        spread: bool = False,
        fell_back: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Run one batch; returns label logits, shape (pairs, labels)."""
        tokenizer = self.read.tokenizer
        inputs = pad(
            pairs,
            pad_id=tokenizer.pad_id,
            pad_type_id=tokenizer.pad_type_id,
            side=tokenizer.padding_side,
            multiple=self._width_multiple,
            most=self._widest,
        )
        no_yes = tokenizer.no_yes
        output = self.runtime.run(
            *inputs, last_position=no_yes is not None, spread=spread, fell_back=fell_back
        )
        if self._modules is not None:
            output = self._modules(output, inputs[1])
        return label_logits(output, len(pairs), self.runtime.path, no_yes)

    def _require_finite(
        self, outputs: Sequence[PairOutput], numbers: Sequence[int], pairs: int
    ) -> None:
        broken = [
            (number, output.logits[~np.isfinite(output.logits)][0])
            for number, output in zip(numbers, outputs, strict=False)
            if not np.isfinite(output.logits).all()
        ]
        if broken:
            number, value = min(broken)
            raise ModelOutputError(
                f"{self.runtime.path} returned {value} for {len(broken)} of {pairs} pairs, the "
                f"first at index {number}. The file may be damaged, or its fp16 arithmetic "
                "overflows: fetch it again or use another precision."
            )
