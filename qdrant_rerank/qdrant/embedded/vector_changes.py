"""Changes of the vectors of a collection that exists. Pure: no I/O."""

from collections.abc import Mapping
from typing import Any

from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.checks import as_model, dense_vectors
from qdrant_rerank.utils.client_models import DenseVectorNameConfig, SparseVectorNameConfig
from qdrant_rerank.utils.validation import shown

__all__ = ["changed_sparse", "require_new_vectors", "vector_names", "with_vector", "without_vector"]

FORBIDDEN = '<>:"/\\|?*\0\x1f'  # in names, as on a server
LONGEST_NAME = 200  # bytes
LARGEST_SIZE = 2**16


def changed_sparse(
    params: models.CollectionParams, changes: Mapping[str, models.SparseVectorParams]
) -> models.CollectionParams:
    """Change settings of sparse vectors; those that a change does not give stay.

    Raises:
        QdrantRequestError: there is no sparse vector of a name.
    """
    sparse = dict(params.sparse_vectors or {})
    for name, change in changes.items():
        if name not in sparse:
            known = ", ".join(map(repr, sparse)) or "none"
            raise QdrantRequestError(
                f"The collection has no sparse vector {name!r}; it has {known}. Nothing was done."
            )
        old, new = _given(sparse[name]), _given(change)
        index = {**old.get("index", {}), **new.get("index", {})}
        sparse[name] = models.SparseVectorParams(**{**old, **new, "index": index or None})
    return params.model_copy(update={"sparse_vectors": sparse or None})


def with_vector(params: models.CollectionParams, name: str, config: Any) -> models.CollectionParams:
    """Add a vector; one that is there already, with the same settings, changes nothing.

    Args:
        params: of the collection.
        name: of the vector.
        config: a ``models.DenseVectorNameConfig`` or ``models.SparseVectorNameConfig``, or a
            mapping that stands for one.

    Raises:
        QdrantRequestError: a name or a size that no vector can have, or there is a vector of that
            name with other settings.
    """
    if isinstance(config, Mapping):
        is_sparse = "sparse" in config
        kind = SparseVectorNameConfig if is_sparse else DenseVectorNameConfig
        config = as_model(kind, config)
    dense, sparse = dense_vectors(params), dict(params.sparse_vectors or {})
    made: models.VectorParams | models.SparseVectorParams
    match config:
        case DenseVectorNameConfig():
            made = models.VectorParams(**_given(config.dense))
            there: dict[str, Any] = dense
            same: tuple[str, ...] = ("size", "distance", "multivector_config", "datatype")
        case SparseVectorNameConfig():
            wanted = config.sparse
            index = None
            if wanted.datatype is not None:
                index = as_model(models.SparseIndexParams, {"datatype": wanted.datatype.value})
            made = models.SparseVectorParams(modifier=wanted.modifier, index=index)
            there, same = sparse, ("modifier",)
        case _:
            raise QdrantRequestError(
                f"The vector {name!r} is described by a {type(config).__name__}; expected "
                "models.DenseVectorNameConfig or models.SparseVectorNameConfig. Nothing was done."
            )
    old = {**dense, **sparse}.get(name)
    if old is not None:
        if name in there and all(getattr(old, one) == getattr(made, one) for one in same):
            return params
        raise QdrantRequestError(
            f"The collection has a vector {name!r} already, with other settings: {old!r}. Nothing "
            "was done. Delete it first, with all that it holds, or take another name."
        )
    there[name] = made
    changed = params.model_copy(update={"vectors": dense, "sparse_vectors": sparse or None})
    require_new_vectors(changed)
    return changed


def without_vector(params: models.CollectionParams, name: str) -> models.CollectionParams:
    """Leave out a vector; one that is not there changes nothing.

    Raises:
        QdrantRequestError: it is the unnamed vector, and the only dense one.
    """
    if name not in vector_names(params):
        return params
    if isinstance(params.vectors, models.VectorParams) and not name:
        raise QdrantRequestError(
            "The unnamed vector is the collection's only dense one, and cannot be deleted. Nothing "
            "was done. Create another collection."
        )
    dense, sparse = dense_vectors(params), dict(params.sparse_vectors or {})
    dense.pop(name, None)
    sparse.pop(name, None)
    return params.model_copy(update={"vectors": dense, "sparse_vectors": sparse or None})


def require_new_vectors(params: models.CollectionParams) -> None:
    """Refuse names and sizes of vectors that a server refuses.

    Raises:
        QdrantRequestError: a name is too long or has a forbidden character, or a size is wrong.
    """
    dense = dense_vectors(params)
    for name in vector_names(params):
        length = len(name.encode())
        wrong = next((sign for sign in name if sign in FORBIDDEN), None)
        if wrong is not None or name in {".", ".."} or length > LONGEST_NAME:
            raise QdrantRequestError(
                f"{name!r:.80} cannot be the name of a vector; expected at most {LONGEST_NAME} "
                f"bytes, none of {FORBIDDEN[:-2]}. Nothing was done."
            )
        if not name and name not in dense:
            raise QdrantRequestError("A sparse vector has no name; expected one. Nothing was done.")
    for name, one in dense.items():
        if not 1 <= one.size <= LARGEST_SIZE:
            raise QdrantRequestError(
                f"The vector {name!r} has {shown(one.size)} dimensions; expected 1 to "
                f"{LARGEST_SIZE}. Nothing was done."
            )


def vector_names(params: models.CollectionParams) -> set[str]:
    """Return the names of all vectors; that of the unnamed one is empty."""
    return {*dense_vectors(params), *(params.sparse_vectors or {})}


def _given(settings: Any) -> dict[str, Any]:
    """Return the settings that are given."""
    return dict(settings.model_dump(exclude_none=True))
