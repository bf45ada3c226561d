"""Scores of pairs, and their cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PairScores"]


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores, and their cost.

    Attributes:
        scores: shape (n,), float64, input order, after activation; higher is more relevant; NaN
            for a pair that was not scored before the deadline.
        logits: shape (n,), float64; orders pairs with equal scores, since an activation may give
            one score for several logits. For a long document the logit of its best passage.
        label_logits: shape (n, labels), float32; the raw logits of all labels of the model, in its
            order; NaN for a pair that was not scored. For a long document, of its best passage.
        scored: shape (n,), bool; the pairs that were scored: all, or with a deadline the first.
        tokenize_s: seconds spent tokenising.
        infer_s: seconds spent in the model.
        tokens: tokens that the model read, without padding.
        padded_tokens: tokens that the model read, with padding.
        truncated: shape (n,), bool; pairs that were longer than the max length and were cut.
        windows: shape (n,), int; passages that the model read for each pair, now or when it was
            first scored; more than 1 for a long document that was read in passages.
        spans: for each scored document, start and end character of its best passage; None if
            long documents are truncated.
        activation: name of the activation that turned logits into scores.
        engine: onnxruntime's execution provider, or OpenVINO.
        precision: precision of the weights, and the reason if they were quantised on this machine.
        cached: shape (n,), bool; pairs whose logits came from the score cache, so that the model
            read no tokens; None without a score cache.
        stored: shape (n,), bool; pairs whose document's states were stored and current, so that the
            model did not read the document; None if no states came with the documents.
    """

    scores: NDArray[np.float64]
    logits: NDArray[np.float64]
    label_logits: NDArray[np.float32]
    scored: NDArray[np.bool_]
    tokenize_s: float
    infer_s: float
    tokens: int
    padded_tokens: int
    truncated: NDArray[np.bool_]
    windows: NDArray[np.intp]
    spans: list[tuple[int, int]] | None
    activation: str
    engine: str
    precision: str
    cached: NDArray[np.bool_] | None = None
    stored: NDArray[np.bool_] | None = None

    @classmethod
    def joined(cls, parts: Sequence["PairScores"], pairs: int) -> "PairScores":
        """Join the scores of parts of a list, in order; the pairs after them are not scored.

        Args:
            parts: one or more.
            pairs: number of pairs in the whole list.
        """
        if len(parts) == 1 and len(parts[0].scores) == pairs:
            return parts[0]
        missing = pairs - sum(len(part.scores) for part in parts)

        def array(name: str, filling: float) -> NDArray[Any]:
            arrays = [getattr(part, name) for part in parts]
            rest = np.full((missing, *arrays[0].shape[1:]), filling, dtype=arrays[0].dtype)
            return np.concatenate([*arrays, rest])

        first = parts[0]
        return replace(
            first,
            scores=array("scores", np.nan),
            logits=array("logits", np.nan),
            label_logits=array("label_logits", np.nan),
            scored=array("scored", False),
            tokenize_s=sum(part.tokenize_s for part in parts),
            infer_s=sum(part.infer_s for part in parts),
            tokens=sum(part.tokens for part in parts),
            padded_tokens=sum(part.padded_tokens for part in parts),
            truncated=array("truncated", False),
            windows=array("windows", 0),
            spans=None if first.spans is None else [s for part in parts for s in part.spans or ()],
            cached=None if first.cached is None else array("cached", False),
            stored=None if first.stored is None else array("stored", False),
        )
