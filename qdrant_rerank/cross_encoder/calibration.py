"""Scores -> probabilities that a document is relevant, learnt from judged pairs.

A reranker's logits order documents. They are not probabilities, and one threshold means something
else for each model. A ``Calibrator`` is fitted once on scores and judgments, kept as a small JSON
file beside the model, and used as the activation.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError, ModelFileError
from qdrant_rerank.utils.atomic_files import atomic_text
from qdrant_rerank.utils.text_files import open_lines
from qdrant_rerank.utils.validation import as_path, require_choice, require_number, shown

__all__ = ["CalibrationMethod", "Calibrator"]

#: "platt" is a logistic curve: two numbers, different scores stay different. "isotonic" is the best
#: rising curve of steps: it needs some hundred judgments, and scores on one step become equal.
CalibrationMethod = Literal["platt", "isotonic"]
FORMAT = 1
# Inverse strength of regularisation; targets below 1 already keep the curve finite.
NO_REGULARISATION = 1e6


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A callable that maps scores to probabilities and never reverses their order.

    :meth:`fit` or :meth:`load` makes one. Pass it as ``TextCrossEncoder(activation=...)``: then
    ``score_threshold=0.5`` keeps the documents that are more likely relevant than not.

    Attributes:
        method: how it was fitted.
        slope: for the logistic curve 1 / (1 + exp(-(slope * score + intercept))); above 0.
        intercept: for the same curve.
        scores: knots of an isotonic curve, ascending; empty for a logistic curve.
        probabilities: values at the knots, ascending, 0 to 1; straight lines join them.

    Raises:
        InvalidInputError: the values are not a curve that rises between 0 and 1.

    Examples:
        >>> calibrate = Calibrator("platt", slope=1.0, intercept=-2.0)
        >>> calibrate(np.array([-9.0, 2.0, 9.0], dtype=np.float32)).round(2).tolist()
        [0.0, 0.5, 1.0]
    """

    method: CalibrationMethod
    slope: float = 1.0
    intercept: float = 0.0
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_choice("method", self.method, CalibrationMethod)
        for name in ("slope", "intercept"):
            require_number(name, getattr(self, name), "a number")
        for name in ("scores", "probabilities"):
            if not isinstance(getattr(self, name), tuple | list):
                raise InvalidInputError(
                    f"{name} is {shown(getattr(self, name))}; expected a tuple of numbers."
                )
            for value in getattr(self, name):
                require_number(f"A number of {name}", value, "a number")
        numbers = np.array(
            [self.slope, self.intercept, *self.scores, *self.probabilities], dtype=np.float64
        )
        rises = (
            len(self.scores) == len(self.probabilities)
            and bool(self.scores) == (self.method == "isotonic")
            and self.slope > 0
            and bool(np.isfinite(numbers).all())
            and bool((np.diff(self.scores) > 0).all() and (np.diff(self.probabilities) >= 0).all())
            and all(0 <= value <= 1 for value in self.probabilities)
        )
        if not rises:
            raise InvalidInputError(
                f"This {self.method} calibration is not a curve that rises from 0 to 1. Fit it "
                "again: Calibrator.fit(scores, labels)."
            )

    @property
    def name(self) -> str:
        """Name in a trace."""
        return f"calibrated ({self.method})"

    def __call__(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map scores (n,) to probabilities (n,), float64, 0 to 1."""
        values = np.asarray(scores, dtype=np.float64)
        if self.method == "isotonic":
            mapped = np.interp(values, self.scores, self.probabilities)
        else:
            with np.errstate(over="ignore"):  # exp(-x) of a very low score is inf, its limit 0
                mapped = 1 / (1 + np.exp(-(self.slope * values + self.intercept)))
        return np.asarray(mapped)

    @classmethod
    def fit(
        cls,
        scores: Iterable[float],
        labels: Iterable[float],
        method: CalibrationMethod = "platt",
    ) -> "Calibrator":
        """Learn the curve from judged pairs; needs scikit-learn.

        Platt scaling (Platt, Probabilistic Outputs for Support Vector Machines, 1999) fits a
        logistic curve to targets that move from 0 and 1 inwards, the more the fewer judgments
        there are. Isotonic regression (Zadrozny and Elkan, KDD 2002) fits the rising curve with
        the least squared error.

        Args:
            scores: the reranker's logits: its scores with the activation "identity".
            labels: for each score, 1 for relevant and 0 for not relevant, or a probability.
            method: "platt" needs some tens of judgments, "isotonic" some hundreds.

        Raises:
            InvalidInputError: scores and labels differ in number, a score is not finite, a label
                is outside of 0 to 1, all scores or all labels are equal, or relevance falls as the
                scores rise.
            MissingDependencyError: scikit-learn is not installed.
        """
        require_choice("method", method, CalibrationMethod)
        x, y = _checked(scores, labels)
        if method == "isotonic":
            return _fit_isotonic(x, y)
        return _fit_platt(x, y)

    def save(self, path: str | Path) -> None:
        """Write a JSON file (gzipped if the name ends in ``.gz``), whole or not at all.

        Raises:
            InvalidInputError: ``path`` is no path, or cannot be written.
        """
        content: dict[str, Any] = {"format": FORMAT, "method": self.method}
        if self.method == "platt":
            content |= {"slope": self.slope, "intercept": self.intercept}
        else:
            content |= {"scores": self.scores, "probabilities": self.probabilities}
        with atomic_text(path) as file:
            json.dump(content, file, indent=1)
            file.write("\n")

    @classmethod
    def load(cls, path: str | Path) -> "Calibrator":
        """Read a file that :meth:`save` wrote; the curve is the same to the bit.

        Raises:
            InvalidInputError: ``path`` is no path.
            ModelFileError: there is no such file, or it is not a calibration.
        """
        advice = "Save one with Calibrator.fit(scores, labels).save(path)."
        path = as_path("path", path)
        try:
            with open_lines(path) as lines:
                content = json.loads(b"".join(lines))
        except (ValueError, RecursionError) as error:  # of open_lines, or of json
            raise ModelFileError(
                f"{path} is not a readable calibration: {error}. {advice}"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ModelFileError(
                f"{path} is not a calibration of format {FORMAT}, the only one known. {advice}"
            )
        try:
            return cls(
                content["method"],
                slope=float(content.get("slope", 1.0)),
                intercept=float(content.get("intercept", 0.0)),
                scores=tuple(map(float, content.get("scores", ()))),
                probabilities=tuple(map(float, content.get("probabilities", ()))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path} is not a calibration: {error} {advice}") from error


def _checked(
    scores: Iterable[float], labels: Iterable[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        x = np.asarray(list(scores), dtype=np.float64)
        y = np.asarray(list(labels), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"scores and labels must be numbers: {error}.") from error
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise InvalidInputError(
            f"scores have shape {x.shape} and labels {y.shape}; expected one label per score, and "
            "at least two of them."
        )
    if not np.isfinite(x).all():
        raise InvalidInputError(
            f"Score {int(np.flatnonzero(~np.isfinite(x))[0])} is not finite; expected logits."
        )
    outside = np.flatnonzero(~((y >= 0) & (y <= 1)))
    if len(outside):
        raise InvalidInputError(
            f"Label {outside[0]} is {y[outside[0]]}; expected 0, 1 or a probability. Map "
            "graded judgments first, such as grade >= 2 to 1."
        )
    for name, values in (("labels", y), ("scores", x)):
        if values.min() == values.max():
            raise InvalidInputError(
                f"All {len(values)} {name} are {values[0]}; expected some that differ, of relevant "
                "and of other documents."
            )
    return x, y


def _fit_platt(x: NDArray[np.float64], y: NDArray[np.float64]) -> Calibrator:
    regression = _sklearn("linear_model", "LogisticRegression")
    # Platt's targets: as if there were one more judgment of each kind.
    positives, negatives = y.sum(), (1 - y).sum()
    targets = y * (positives + 1) / (positives + 2) + (1 - y) / (negatives + 2)
    # Logistic regression on probabilities: each score once as relevant and once as not, weighted by
    # its target. The scores are scaled, so that the solver works with scores of any size.
    centre, unit = x.mean(), x.std()
    scaled = (x - centre) / unit
    model = regression(C=NO_REGULARISATION, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(
        np.concatenate([scaled, scaled])[:, None],
        np.repeat([1, 0], len(x)),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    slope = float(model.coef_[0, 0] / unit)
    if not slope > 0:
        raise InvalidInputError(
            f"Relevance falls as the scores rise (slope {slope:.3g} over {len(x)} pairs), so they "
            "cannot be calibrated. Are labels and scores in the same order, and is 1 relevant?"
        )
    return Calibrator("platt", slope=slope, intercept=float(model.intercept_[0] - slope * centre))


def _fit_isotonic(x: NDArray[np.float64], y: NDArray[np.float64]) -> Calibrator:
    regression = _sklearn("isotonic", "IsotonicRegression")
    model = regression(y_min=0, y_max=1, increasing=True, out_of_bounds="clip").fit(x, y)
    knots, values = model.X_thresholds_, np.clip(model.y_thresholds_, 0, 1)
    if values[0] == values[-1]:
        raise InvalidInputError(
            f"Relevance does not rise with the scores over {len(x)} pairs, so they cannot be "
            "calibrated. Are labels and scores in the same order, and is 1 relevant?"
        )
    return Calibrator(
        "isotonic", scores=tuple(knots.tolist()), probabilities=tuple(values.tolist())
    )


def _sklearn(module: str, name: str) -> Callable[..., Any]:
    from importlib import import_module

    try:
        found: Callable[..., Any] = getattr(import_module(f"sklearn.{module}"), name)
    except ImportError as error:
        raise MissingDependencyError(
            'Fitting a calibration needs scikit-learn: pip install "qdrant-rerank[calibrate]". '
            "Using one needs nothing."
        ) from error
    return found
