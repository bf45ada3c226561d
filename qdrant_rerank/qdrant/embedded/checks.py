"""Checks of what is asked and written, before the engine sees it. Pure: no I/O.

The engine logs an operation before it applies it. An operation that it then refuses may have
changed a part of the points, and one that breaks it down is replayed each time the collection is
opened. It also takes NaN and infinity in the bound of a range for no bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.utils.finite import not_finite
from qdrant_rerank.utils.validation import MOST, shown

__all__ = [
    "as_list",
    "as_model",
    "dense_vectors",
    "require_finite",
    "require_names",
    "require_one",
    "require_sparse",
    "require_vectors",
]

HIGHEST_INDEX = 2**32 - 1


def require_finite(value: Any, what: str) -> None:
    """Refuse NaN and infinity anywhere in a filter, a query or a vector.

    Args:
        value: a model, a container or a number.
        what: name of the value in errors.

    Raises:
        QdrantRequestError: a number is not finite; vectors are float32, so 1e39 is not.
    """
    place = not_finite(value)
    if place is not None:
        raise QdrantRequestError(
            f"{what} holds NaN or infinity{f' in {place}' if place else ''}; expected finite "
            "numbers. Nothing was done."
            + (" Leave out a bound that there is not." if "range" in (place or "") else "")
        )


def require_one(name: str, value: int, least: int = 1) -> None:
    """Refuse a number of things below 1, or below another number, and one beyond counting.

    Raises:
        QdrantRequestError: the number is too small or too large.
    """
    if value < least:
        raise QdrantRequestError(f"{name} is {shown(value)}; expected {least} or more.")
    if value > MOST:
        raise QdrantRequestError(f"{name} is {shown(value)}; expected no more than {MOST}.")


def require_sparse(vector: models.SparseVector, what: str) -> None:
    """Refuse a sparse vector that no index can hold.

    Raises:
        QdrantRequestError: lengths differ, or an index is negative, too large or there twice.
    """
    indices, values = vector.indices, vector.values
    wrong = None
    if len(indices) != len(values):
        wrong = f"has {len(indices)} indices and {len(values)} values; expected one value per index"
    elif len(set(indices)) != len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        wrong = f"has the index {twice} twice; expected each index once"
    elif indices and not 0 <= min(indices) <= max(indices) <= HIGHEST_INDEX:
        wrong = f"has an index outside of 0 to {HIGHEST_INDEX}"
    if wrong:
        raise QdrantRequestError(f"{what} {wrong}. Nothing was done.")
    require_finite(values, what)


def require_names(names: Iterable[str], params: models.CollectionParams, what: str) -> None:
    """Refuse names of vectors that a collection does not have.

    Raises:
        QdrantRequestError: a name is unknown.
    """
    there = {**dense_vectors(params), **(params.sparse_vectors or {})}
    for name in names:
        if name not in there:
            known = ", ".join(map(_quoted, there)) or "no vectors"
            raise QdrantRequestError(
                f"{what}: the collection has no {_quoted(name)}; it has {known}. Nothing was done."
            )


def require_vectors(given: Any, params: models.CollectionParams, what: str) -> None:
    """Refuse vectors of a point that its collection cannot hold.

    Args:
        given: a mapping of vectors by name, the unnamed vector, or None.
        params: of the collection.
        what: name of the point in errors.

    Raises:
        QdrantRequestError: a name, kind, length or shape is wrong, or a number is not finite.
    """
    if given is None:
        return
    by_name: Mapping[str, Any] = given if isinstance(given, Mapping) else {"": given}
    require_names(by_name, params, what)
    dense = dense_vectors(params)
    for name, vector in by_name.items():
        if isinstance(vector, models.Document | models.Image | models.InferenceObject):
            continue  # told by what makes the vectors
        place = f"{what}: the {_quoted(name)}"
        if isinstance(vector, models.SparseVector) != (name not in dense):
            kinds = ("sparse", "dense") if name in dense else ("dense", "sparse")
            raise QdrantRequestError(
                f"{place} is {kinds[0]}; the collection's is {kinds[1]}. Nothing was done."
            )
        if isinstance(vector, models.SparseVector):
            require_sparse(vector, place)
        else:
            _require_dense(vector, dense[name], place)


def _require_dense(vector: Any, wanted: models.VectorParams, place: str) -> None:
    multiple = wanted.multivector_config is not None
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise QdrantRequestError(
            f"{place} has rows of different lengths, or something that is no number; expected "
            f"{wanted.size} numbers{' per row' if multiple else ''}. Nothing was done."
        ) from error
    shape = " x ".join(map(str, numbers.shape)) or "of one number"
    rows = f"n x {wanted.size}, with n of 1 or more" if multiple else f"{wanted.size}"
    if numbers.ndim not in ((1, 2) if multiple else (1,)) or not numbers.size:
        raise QdrantRequestError(
            f"{place} has the shape {shape}; expected {rows}. Nothing was done."
        )
    if numbers.shape[-1] != wanted.size:
        raise QdrantRequestError(
            f"{place} has the wrong length: expected dim: {wanted.size}, got {numbers.shape[-1]}. "
            "Nothing was done."
        )
    if not np.isfinite(numbers).all():
        raise QdrantRequestError(
            f"{place} holds NaN or infinity; expected finite numbers of float32. Nothing was done."
        )


def dense_vectors(params: models.CollectionParams) -> dict[str, models.VectorParams]:
    """Return the dense vectors by name; that of the unnamed one is empty."""
    dense = params.vectors or {}
    return {"": dense} if isinstance(dense, models.VectorParams) else dict(dense)


def _quoted(name: str) -> str:
    return f"vector {name!r}" if name else "unnamed vector"


def as_model(kind: type[BaseModel], given: Any) -> Any:
    """Return a mapping as the model that it stands for, and anything else as it is.

    Raises:
        QdrantRequestError: the mapping does not fit.
    """
    if not isinstance(given, Mapping):
        return given
    try:
        return kind.model_validate(given)
    except ValueError as error:
        raise QdrantRequestError(f"{given!r} is no {kind.__name__}: {error}") from error


def as_list(given: Any) -> Sequence[Any]:
    """Return one, several or none as a list."""
    return list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
