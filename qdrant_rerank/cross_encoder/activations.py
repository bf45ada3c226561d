"""Logits -> scores.

"auto" does what sentence-transformers' ``CrossEncoder`` does: it uses the activation that the
model's configuration names, else sigmoid for one label and the logit for several.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.heads import Head
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.utils.warn import warn_caller

__all__ = [
    "Activation",
    "activate",
    "activation_name",
    "choose_activation",
    "order_logits",
    "require_activation",
]

NamedActivation = Literal["auto", "identity", "sigmoid", "softmax"]
#: A name, or a callable such as a ``Calibrator``: logits (n,) float32 -> scores (n,) float32.
Activation = NamedActivation | Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]

# The last part of the dotted paths that sentence-transformers writes. Nothing is imported.
KNOWN_PATHS: dict[str, Literal["identity", "sigmoid", "softmax"]] = {
    "Identity": "identity",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}


def require_activation(activation: Any) -> None:
    """Raise InvalidInputError unless it is an activation."""
    if not callable(activation) and activation not in get_args(NamedActivation):
        raise InvalidInputError(
            f"activation is {activation!r}; expected one of "
            f"{', '.join(map(repr, get_args(NamedActivation)))}, or a callable: logits (n,) -> "
            "scores (n,)."
        )


def choose_activation(activation: Activation, config: ModelConfig, head: Head) -> Activation:
    """Replace "auto" by the model's own activation; return any other activation as it is.

    Raises:
        InvalidInputError: softmax over one label, which is 1 for every pair.
    """
    if activation == "auto":
        default: Activation = "sigmoid" if head.labels == 1 or head.log_odds else "identity"
        activation = _configured(config, default)
    if activation == "softmax" and head.labels == 1:
        raise InvalidInputError(
            "activation is 'softmax', but the model has one label, of which softmax is always 1. "
            "Pass 'sigmoid' for scores of 0 to 1."
        )
    return activation


def activation_name(activation: Activation) -> str:
    """Return the name of an activation, for a trace."""
    if isinstance(activation, str):
        return activation
    own = getattr(activation, "name", None) or getattr(activation, "__qualname__", None)
    return str(own or type(activation).__name__)


def activate(
    activation: Activation, head: Head, logits: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Compute scores from label logits.

    Args:
        activation: not "auto".
        head: how relevance is read from the logits.
        logits: shape (n, labels), float32, finite.

    Returns:
        Shape (n,), float64, since a sigmoid in float32 is 1 for every logit above 17; higher is
        more relevant.

    Raises:
        ModelOutputError: a callable did not return one finite score per pair.
    """
    if activation == "softmax":
        logits = logits.astype(np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = shifted / shifted.sum(axis=1, keepdims=True)
        return np.asarray(shares[:, head.column])
    relevance = head.relevance(logits)
    if activation == "sigmoid":
        # exp overflows to inf for logits below -709, and the score is then the right limit, 0.
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-relevance.astype(np.float64))))
    if callable(activation):
        made = activation(relevance)
        try:
            scores = np.asarray(made, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ModelOutputError(
                f"The activation {activation_name(activation)} returned {made!r:.80} for "
                f"{len(relevance)} logits; expected as many finite scores."
            ) from error
        if scores.shape != relevance.shape or not np.isfinite(scores).all():
            raise ModelOutputError(
                f"The activation {activation_name(activation)} returned shape {scores.shape} for "
                f"{len(relevance)} logits; expected as many finite scores."
            )
        return scores
    return relevance.astype(np.float64)


def order_logits(
    activation: Activation, head: Head, logits: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Logits that order pairs whose scores are equal, since an activation may saturate.

    Args:
        activation: not "auto".
        head: which labels are relevance.
        logits: shape (n, labels), float32, finite.

    Returns:
        Shape (n,), float64: the relevance logit; for softmax the log-odds of the label.
    """
    if activation != "softmax":
        return head.relevance(logits).astype(np.float64)
    others = np.delete(logits, head.column, axis=1).astype(np.float64)
    odds: NDArray[np.float64] = logits[:, head.column] - np.logaddexp.reduce(others, axis=1)
    return odds


def _configured(config: ModelConfig, default: Activation) -> Activation:
    path = config.activation
    if path is None:
        return default
    known = KNOWN_PATHS.get(path.rpartition(".")[2]) if path.startswith("torch.") else None
    if known is None:
        warn_caller(
            f"{config.source} names the activation {path!r}, which is none of torch's "
            f"{', '.join(KNOWN_PATHS)} and is not run; {default!r} is used, as "
            "sentence-transformers does. Pass activation= to choose."
        )
        return default
    return known
