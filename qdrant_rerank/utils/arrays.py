"""Numbers of any kind that encoders and rerankers return -> arrays."""

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["NOT_NUMBERS", "as_numbers", "not_awaited"]

#: What :func:`as_numbers` raises for a value that is not numbers, or whose rows differ in length.
NOT_NUMBERS = (TypeError, ValueError, OverflowError, RuntimeError)


def as_numbers(value: Any, dtype: DTypeLike) -> NDArray[Any]:
    """Return numbers as an array.

    Args:
        value: a number, an array, a list, an iterator, or a tensor of torch on any device, with or
            without a gradient; or a list or an iterator of these.
        dtype: type of the array.

    >>> as_numbers(iter([[1, 2], (3, 4)]), np.float32).shape
    (2, 2)
    """
    if isinstance(value, Iterator):
        value = list(value)
    if isinstance(value, list | tuple) and value and hasattr(value[0], "detach"):
        value = [_of_tensor(one) for one in value]
    return np.asarray(_of_tensor(value), dtype=dtype)


def not_awaited(value: Any) -> str:
    """Return what to do about a result that has to be awaited, for a message; "" for any other.

    A coroutine is closed, so that Python does not warn of it, too.

    >>> not_awaited([0.5])
    ''
    """
    if not inspect.isawaitable(value):
        return ""
    if inspect.iscoroutine(value):
        value.close()
    return (
        " It has to be awaited: pass a function that is written with async def, and not a lambda "
        "that calls one, to AsyncHybridSearcher."
    )


def _of_tensor(value: Any) -> Any:
    """Return a tensor as one that numpy reads: without its gradient, in memory, and as float64."""
    return value.detach().cpu().double() if hasattr(value, "detach") else value
