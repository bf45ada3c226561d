"""Scores of pairs, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PairScores"]


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores, and what they cost.

    Attributes:
        scores: shape (n,), float64, input order, after activation; higher is more relevant; NaN
            where there was no time to score.
        logits: shape (n,), float64; orders pairs with equal scores, since an activation may give
            one score for several logits. Of a long document the logit of its best window.
        scored: shape (n,), bool; which pairs were scored: all, or with a deadline the first ones.
        tokenize_s: seconds spent tokenising.
        infer_s: seconds spent in the model.
        tokens: tokens scored, padding left out.
        padded_tokens: tokens scored, padding included.
        truncated: shape (n,), bool; pairs of which the window cut something off.
        windows: shape (n,); rows that the model read for each pair, now or when it was first
            scored; more than 1 where it read a long document in parts.
        spans: of each scored document, start and end character of the part that speaks for it;
            None where long documents are truncated.
        activation: name of the activation that made the scores of logits.
        engine: what ran the model: onnxruntime's execution provider, or OpenVINO.
        precision: of the weights, and why where they were quantised here.
        cached: shape (n,), bool; which scores are of logits that the score cache held, and so
            took no tokens; None without a score cache.
    """

    scores: NDArray[np.float64]
    logits: NDArray[np.float64]
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

    @classmethod
    def joined(cls, windows: Sequence["PairScores"], pairs: int) -> "PairScores":
        """The scores of windows that follow on one another; what is left is not scored.

        Args:
            windows: one or more.
            pairs: in all.
        """
        if len(windows) == 1 and len(windows[0].scores) == pairs:
            return windows[0]
        left = pairs - sum(len(window.scores) for window in windows)

        def array(name: str, filling: float) -> NDArray[Any]:
            parts = [getattr(window, name) for window in windows]
            return np.concatenate([*parts, np.full(left, filling, dtype=parts[0].dtype)])

        spans = [window.spans for window in windows if window.spans is not None]
        return cls(
            scores=array("scores", np.nan),
            logits=array("logits", np.nan),
            scored=array("scored", False),
            tokenize_s=sum(window.tokenize_s for window in windows),
            infer_s=sum(window.infer_s for window in windows),
            tokens=sum(window.tokens for window in windows),
            padded_tokens=sum(window.padded_tokens for window in windows),
            truncated=array("truncated", False),
            windows=array("windows", 0),
            spans=[span for part in spans for span in part] if spans else None,
            activation=windows[0].activation,
            engine=windows[0].engine,
            precision=windows[0].precision,
            cached=None if windows[0].cached is None else array("cached", False),
        )
