"""The activations of torch.nn with their default arguments, in numpy. Pure; no torch.

Formulas: https://docs.pytorch.org/docs/stable/nn.html#non-linear-activations-weighted-sum-nonlinearity
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TORCH_ACTIVATIONS", "TorchActivation", "sigmoid", "softmax"]

Scores = NDArray[np.float64]
_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, slots=True)
class TorchActivation:
    """A module of torch.nn, as a function of numpy arrays.

    Attributes:
        name: class of the module, such as "Tanh".
        function: logits -> values of the same shape, float64.
        over_labels: whether a value depends on all labels of a pair, which are the last axis.
    """

    name: str
    function: Callable[[Scores], Scores]
    over_labels: bool = False

    def __call__(self, logits: NDArray[np.floating[Any]]) -> Scores:
        """Map logits to values of the same shape, float64."""
        return np.asarray(self.function(logits.astype(np.float64)), dtype=np.float64)


def sigmoid(x: Scores) -> Scores:
    """Map to 0 to 1, at any shape."""
    # exp overflows to inf for logits below -709, and the score is then the right limit, 0.
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def softmax(x: Scores) -> Scores:
    """Map labels, the last axis, to shares that add up to 1."""
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def _softplus(x: Scores) -> Scores:
    return np.logaddexp(0, x)


def _elu(x: Scores) -> Scores:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _log_softmax(x: Scores) -> Scores:
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


_ELEMENTWISE: Mapping[str, Callable[[Scores], Scores]] = {
    "CELU": _elu,
    "ELU": _elu,
    "GELU": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
    "Hardshrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "Hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "Hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Hardtanh": lambda x: np.clip(x, -1, 1),
    "Identity": lambda x: x,
    "LeakyReLU": lambda x: np.where(x > 0, x, 0.01 * x),
    "LogSigmoid": lambda x: -_softplus(-x),
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "PReLU": lambda x: np.where(x > 0, x, 0.25 * x),
    "ReLU": lambda x: np.maximum(x, 0),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "SELU": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * _elu(x)),
    "SiLU": lambda x: x * sigmoid(x),
    "Sigmoid": sigmoid,
    "Softplus": _softplus,
    "Softshrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Tanh": np.tanh,
    "Tanhshrink": lambda x: x - np.tanh(x),
}
#: Class -> activation. RReLU is random, and the others of torch.nn take arguments.
TORCH_ACTIVATIONS: Mapping[str, TorchActivation] = {
    **{name: TorchActivation(name, function) for name, function in _ELEMENTWISE.items()},
    "Softmax": TorchActivation("Softmax", softmax, over_labels=True),
    "Softmin": TorchActivation("Softmin", lambda x: softmax(-x), over_labels=True),
    "LogSoftmax": TorchActivation("LogSoftmax", _log_softmax, over_labels=True),
}
