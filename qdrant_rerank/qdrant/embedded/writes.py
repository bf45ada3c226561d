"""The embedded engine's calls that change points: one at a time, logged once they return."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import qdrant_edge as edge
from pydantic_core import to_jsonable_python
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.points import (
    DEEPEST,
    DONE,
    shallow_json,
    to_id,
    to_points,
    to_vectors,
)
from qdrant_rerank.qdrant.embedded.queries import to_filter
from qdrant_rerank.qdrant.embedded.shards import Shards

__all__ = ["WriteCalls"]

UPLOAD_BATCH = 256
# Levels of a filter that is logged; one condition in the place of a list has a level more there.
DEEPEST_FILTER = DEEPEST // 2
UPDATE_MODES = {
    None: None,
    models.UpdateMode.UPSERT: edge.UpdateMode.Upsert,
    models.UpdateMode.INSERT_ONLY: edge.UpdateMode.InsertOnly,
    models.UpdateMode.UPDATE_ONLY: edge.UpdateMode.UpdateOnly,
}


class WriteCalls:
    """What :class:`~qdrant_rerank.qdrant.embedded.engine.EmbeddedEngine` does to points."""

    _shards: Shards

    def upsert(
        self,
        collection_name: str,
        points: models.Batch | Sequence[models.PointStruct],
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Store points, in the place of those with the same ids."""
        return self._update(
            collection_name,
            lambda: edge.UpdateOperation.upsert_points(
                to_points(points),
                condition=_logged(update_filter),
                update_mode=UPDATE_MODES[update_mode],
            ),
        )

    def upload_points(
        self,
        collection_name: str,
        points: Iterable[models.PointStruct],
        batch_size: int = UPLOAD_BATCH,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> None:
        """Store points from any iterable."""
        remaining = iter(points)
        while batch := list(islice(remaining, batch_size)):
            self.upsert(collection_name, batch, update_filter, update_mode)

    def upload_collection(
        self,
        collection_name: str,
        vectors: Any,
        payload: Iterable[dict[Any, Any]] | None = None,
        ids: Iterable[models.ExtendedPointId] | None = None,
        **kwargs: Any,
    ) -> None:
        """Store points given as columns."""
        if isinstance(vectors, Mapping):
            columns = zip(*vectors.values(), strict=True)
            vectors = (dict(zip(vectors, column, strict=True)) for column in columns)
        found = iter(ids) if ids is not None else iter(lambda: str(uuid.uuid4()), None)
        payloads = iter(payload) if payload is not None else iter(dict, None)
        self.upload_points(
            collection_name,
            (
                models.PointStruct(id=i, vector=to_jsonable_python(_listed(v)), payload=p)
                for v, i, p in zip(vectors, found, payloads, strict=False)
            ),
            **kwargs,
        )

    def update_vectors(
        self,
        collection_name: str,
        points: Sequence[models.PointVectors],
        update_filter: models.Filter | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Replace vectors of points."""
        return self._update(
            collection_name,
            lambda: edge.UpdateOperation.update_vectors(
                [edge.PointVectors(to_id(p.id), to_vectors(p.vector)) for p in points],
                condition=_logged(update_filter),
            ),
        )

    def delete_vectors(
        self, collection_name: str, vectors: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove vectors of points."""
        return self._update_some(collection_name, points, "delete_vectors", list(vectors))

    def delete(
        self, collection_name: str, points_selector: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove points."""
        return self._update_some(collection_name, points_selector, "delete_points")

    def set_payload(
        self,
        collection_name: str,
        payload: dict[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Add to the payload of points."""
        given = shallow_json(payload, "The payload", above=_steps(key))
        return self._update_some(collection_name, points, "set_payload", given, key)

    def overwrite_payload(
        self,
        collection_name: str,
        payload: dict[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Replace the payload of points."""
        given = shallow_json(payload, "The payload", above=_steps(key))
        return self._update_some(collection_name, points, "overwrite_payload", given, key)

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove payload fields of points."""
        return self._update_some(collection_name, points, "delete_payload", list(keys))

    def clear_payload(
        self, collection_name: str, points_selector: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove the payload of points."""
        return self._update_some(collection_name, points_selector, "clear_payload")

    def batch_update_points(
        self, collection_name: str, update_operations: Sequence[Any], **kwargs: Any
    ) -> list[models.UpdateResult]:
        """Not in one step here."""
        raise QdrantRequestError(
            "The embedded Qdrant has no batch of mixed changes. Make them one by one."
        )

    def _update(
        self, collection_name: str, operation: Callable[[], edge.UpdateOperation]
    ) -> models.UpdateResult:
        shard = self._shards.shard(collection_name)
        with self._shards.errors(collection_name):
            made = operation()
            with self._shards.writing:
                self._shards.require_room()
                shard.update(made)
        return DONE

    def _update_some(
        self, collection_name: str, selector: Any, operation: str, *args: Any
    ) -> models.UpdateResult:
        """Change the points that a selector names.

        Args:
            collection_name: of the collection.
            selector: ids, a filter, or a ``models.PointsSelector``.
            operation: what the engine calls it for ids; ``_by_filter`` is added for a filter.
            args: of the operation.
        """
        selected: Any = selector
        if isinstance(selected, models.FilterSelector):
            selected = selected.filter
        elif isinstance(selected, models.PointIdsList):
            selected = selected.points
        if isinstance(selected, models.Filter):
            method = getattr(edge.UpdateOperation, f"{operation}_by_filter")
            return self._update(collection_name, lambda: method(_logged(selected), *args))
        ids = [to_id(one) for one in selected]
        method = getattr(edge.UpdateOperation, operation)
        return self._update(collection_name, lambda: method(ids, *args))


def _logged(given: models.Filter | None) -> edge.Filter | None:
    """A filter that a change is logged with."""
    shallow_json(given, "The filter of the change", deepest=DEEPEST_FILTER)
    return to_filter(given)


def _steps(key: str | None) -> int:
    """Levels of a payload that are above what a path names; at most so many."""
    return 0 if key is None else key.count(".") + key.count("[") + 1


def _listed(vector: Any) -> Any:
    return vector.tolist() if hasattr(vector, "tolist") else vector
