"""Checks of an encoder's vectors before they are sent: they must be finite numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.utils.arrays import NOT_NUMBERS, as_numbers, not_awaited

__all__ = ["all_finite", "checked_dimension", "dense_output", "require_finite"]


def dense_output(name: str, made: Any) -> NDArray[np.float32]:
    """Return the output of an embedder as float32, of any shape.

    Args:
        name: name of the embedder, for messages.
        made: arrays, lists, iterators, or tensors of torch.

    Raises:
        ModelOutputError: the output is not numbers, or its vectors differ in length.
    """
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which is refused later
            return as_numbers(made, np.float32)
    except NOT_NUMBERS as error:
        raise ModelOutputError(
            f"The embedder {name!r} returned {made!r:.80}; expected an array of float32 numbers."
            f"{not_awaited(made)}"
        ) from error


def checked_dimension(name: str, dimension: Any) -> int:
    """Return the dimension of an embedder.

    Args:
        name: name of the embedder.
        dimension: what its attribute ``dimension`` holds.

    Raises:
        InvalidInputError: it is not a whole number of 1 or more.
    """
    if isinstance(dimension, bool) or not isinstance(dimension, int | np.integer) or dimension < 1:
        raise InvalidInputError(
            f"The dimension of the embedder {name!r} is {dimension!r:.80}; expected the length of "
            "its vectors, a whole number of 1 or more."
        )
    return int(dimension)


def require_finite(name: str, vector: Any, of: str) -> None:
    """Raise ModelOutputError for a vector with NaN or infinity, which no search would find.

    Args:
        name: name of the encoder.
        vector: a dense or sparse vector, or several.
        of: what was embedded, for the message.
    """
    if not all_finite(vector):
        raise ModelOutputError(
            f"The encoder {name!r} returned NaN or infinity in the vector of {of}; expected finite "
            "numbers. Check the model and its input."
        )


def all_finite(vector: Any) -> bool:
    """Return whether a dense or sparse vector has no NaN or infinity in float32.

    Other values, such as a ``models.Document``, count as finite.
    """
    values = vector.values if isinstance(vector, models.SparseVector) else vector
    if not isinstance(values, list | tuple | np.ndarray):
        return True
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.asarray(values, dtype=np.float32)).all())
