"""What an encoder returned, checked before anything is sent: numbers, and finite ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_rerank.errors import ModelOutputError

__all__ = ["all_finite", "dense_output", "require_finite"]


def dense_output(name: str, made: Any) -> NDArray[np.float32]:
    """Vectors of an embedder, float32; of any shape.

    Raises:
        ModelOutputError: not numbers, or vectors of several lengths.
    """
    try:
        with np.errstate(over="ignore"):  # to infinity, which is refused
            return np.asarray(made, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelOutputError(
            f"The embedder {name!r} returned {made!r:.80}; expected an array of float32 numbers."
        ) from error


def require_finite(name: str, vector: Any, of: str) -> None:
    """Raise ModelOutputError for a vector with NaN or infinity, which no search would find.

    Args:
        name: of the encoder.
        vector: dense or sparse, or several.
        of: what it was made of.
    """
    if not all_finite(vector):
        raise ModelOutputError(
            f"The encoder {name!r} returned NaN or infinity in the vector of {of}; expected finite "
            "numbers. Check the model, and its input for what it cannot read."
        )


def all_finite(vector: Any) -> bool:
    """Whether a vector, dense or sparse, has no NaN or infinity, as float32.

    True of what is no vector, such as a ``models.Document``.
    """
    values = vector.values if isinstance(vector, models.SparseVector) else vector
    if not isinstance(values, list | tuple | np.ndarray):
        return True
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.asarray(values, dtype=np.float32)).all())
