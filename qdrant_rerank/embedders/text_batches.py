"""Runs an encoder's ONNX model on texts, in batches of similar length."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.inference.batching import Batch, pad, plan_batches
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.tokenization import PairTokenizer

__all__ = ["run_on_texts"]

#: Takes the rows of a batch, the model's output (n, ...) and the attention mask (n, width).
Take = Callable[[NDArray[Any], NDArray[np.float32], NDArray[np.int64]], None]


def run_on_texts(
    runtime: Runtime,
    tokenizer: PairTokenizer,
    texts: Sequence[str],
    take: Take,
    *,
    may_spread: bool = False,
) -> None:
    """Run a model on texts; several batches run at the same time.

    Args:
        runtime: the model.
        tokenizer: its tokenizer.
        texts: any number of texts.
        take: called once per batch, from any thread.
        may_spread: whether a few long batches may use several cores each, by a second session.

    Raises:
        ModelOutputError: the model failed.
    """
    tokenized = tokenizer.single(texts)
    batches = plan_batches(
        [len(item) for item in tokenized],
        tokens_per_batch=runtime.tokens_per_batch,
        pairs_per_batch=runtime.pairs_per_batch,
    )
    spread = may_spread and runtime.has_cores_for(len(batches))

    def execute(batch: Batch) -> None:
        ids, mask, type_ids = pad(
            [tokenized[row] for row in batch.rows],
            pad_id=tokenizer.pad_id,
            pad_type_id=tokenizer.pad_type_id,
            side=tokenizer.padding_side,
        )
        take(batch.rows, runtime.run(ids, mask, type_ids, spread=spread), mask)

    runtime.for_each(execute, batches)
