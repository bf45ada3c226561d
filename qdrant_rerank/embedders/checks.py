"""Checks of an encoder's vectors before they are sent: they must be finite numbers."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.utils.arrays import NOT_NUMBERS, as_numbers, not_awaited
from qdrant_rerank.utils.finite import not_finite

__all__ = [
    "checked_dimension",
    "dense_output",
    "require_finite",
    "sparse_output",
    "sparse_outputs",
]


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


def sparse_output(name: str, made: Any) -> models.SparseVector:
    """Return one vector of a sparse encoder as Qdrant takes it.

    Args:
        name: name of the encoder, for messages.
        made: a ``SparseVector``, or any object or dict with ``indices`` and ``values``, such as
            fastembed's ``SparseEmbedding``.

    Raises:
        ModelOutputError: it is something else.
    """
    if isinstance(made, models.SparseVector):
        return made
    indices, values = (
        made.get(part) if isinstance(made, Mapping) else getattr(made, part, None)
        for part in ("indices", "values")
    )
    try:
        return models.SparseVector(
            indices=np.asarray(indices).tolist(), values=as_numbers(values, np.float64).tolist()
        )
    except (ValidationError, *NOT_NUMBERS) as error:
        raise ModelOutputError(
            f"The sparse encoder {name!r} returned {made!r:.80}; expected one models.SparseVector "
            f"per text, with indices and values.{not_awaited(made)}"
        ) from error


def sparse_outputs(name: str, made: Any, count: int) -> list[models.SparseVector]:
    """Return the vectors that a sparse encoder made of several texts.

    Args:
        name: name of the encoder, for messages.
        made: an iterable of what :func:`sparse_output` takes.
        count: number of texts.

    Raises:
        ModelOutputError: it is not one vector per text.
    """
    listed = made if isinstance(made, Iterable) and not isinstance(made, BaseModel) else [made]
    vectors = [sparse_output(name, one) for one in listed]
    if len(vectors) != count:
        raise ModelOutputError(
            f"The encoder {name!r} returned {len(vectors)} vectors for {count} texts; expected one "
            "per text."
        )
    return vectors


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
    values = vector.values if isinstance(vector, models.SparseVector) else vector
    if not_finite(values) is not None:
        raise ModelOutputError(
            f"The encoder {name!r} returned NaN or infinity in the vector of {of}; expected finite "
            "numbers. Check the model and its input."
        )
