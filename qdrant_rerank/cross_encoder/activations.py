"""Logits -> scores.

"auto" does what sentence-transformers' ``CrossEncoder`` does: it uses the activation that the
model's configuration names, else sigmoid for one label and the logit for several.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.heads import Head
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.cross_encoder.torch_activations import TORCH_ACTIVATIONS, TorchActivation
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.utils.validation import shown
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

# Activations with a name of their own, and their classes in torch.nn.
OWN_NAMES: Mapping[str, NamedActivation] = {
    "Identity": "identity",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}
_BY_NAME = {own: TORCH_ACTIVATIONS[name] for name, own in OWN_NAMES.items()}


def require_activation(activation: Any) -> None:
    """Raise InvalidInputError unless it is an activation."""
    kind = activation if isinstance(activation, type) else type(activation)
    if any(base.__module__.partition(".")[0] == "torch" for base in kind.__mro__):
        raise InvalidInputError(
            f"activation is {activation!r:.60}, a module of torch, which takes tensors. Pass "
            "'sigmoid', 'softmax' or 'identity', or a function of a numpy array, such as "
            "lambda logits: module(torch.from_numpy(logits)).numpy()."
        )
    named = isinstance(activation, str) and activation in get_args(NamedActivation)
    if not callable(activation) and not named:
        raise InvalidInputError(
            f"activation is {shown(activation)}; expected one of "
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
    if _is_over_labels(activation) and head.labels == 1:
        raise InvalidInputError(
            f"activation is {activation_name(activation)!r}, but the model has one label, of which "
            "softmax is always 1. Pass 'sigmoid' for scores of 0 to 1."
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
    relevance = head.relevance(logits)
    if not isinstance(activation, str | TorchActivation):
        return _call(activation, relevance)
    made = activation if isinstance(activation, TorchActivation) else _BY_NAME[activation]
    return made(logits)[:, head.column] if made.over_labels else made(relevance)


def order_logits(
    activation: Activation, head: Head, logits: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return logits that order pairs whose scores are equal, since an activation may saturate.

    Args:
        activation: not "auto".
        head: how relevance is read from the logits.
        logits: shape (n, labels), float32, finite.

    Returns:
        Shape (n,), float64: the relevance logit; the log-odds of the label if the activation is
        over labels, as softmax is.
    """
    if not _is_over_labels(activation):
        return head.relevance(logits).astype(np.float64)
    others = np.delete(logits, head.column, axis=1).astype(np.float64)
    odds: NDArray[np.float64] = logits[:, head.column] - np.logaddexp.reduce(others, axis=1)
    return -odds if activation == TORCH_ACTIVATIONS["Softmin"] else odds


def _is_over_labels(activation: Activation) -> bool:
    if isinstance(activation, TorchActivation):
        return activation.over_labels
    return activation == "softmax"


def _call(
    activation: Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]],
    relevance: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Call a user's activation, and check what it returns."""
    name, expected = activation_name(activation), f"{len(relevance)} logits; expected as many"
    try:
        made = activation(relevance)
    except Exception as error:
        raise ModelOutputError(
            f"The activation {name} failed on {expected} finite scores for a numpy array (n,): "
            f"{type(error).__name__}: {error}"
        ) from error
    try:
        scores = np.asarray(made, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelOutputError(
            f"The activation {name} returned {made!r:.80} for {expected} finite scores."
        ) from error
    if scores.shape != relevance.shape or not np.isfinite(scores).all():
        raise ModelOutputError(
            f"The activation {name} returned shape {scores.shape} for {expected} finite scores."
        )
    return scores


def _configured(config: ModelConfig, default: Activation) -> Activation:
    path = config.activation
    if path is None:
        return default
    name = path.rpartition(".")[2]
    if not path.startswith("torch.nn.") or name not in TORCH_ACTIVATIONS:
        warn_caller(
            f"{config.activation_source} names the activation {path!r}, which is not one of "
            f"torch.nn that is known, and is not run; {default!r} is used. Pass activation= to "
            "choose."
        )
        return default
    return OWN_NAMES.get(name) or TORCH_ACTIVATIONS[name]
