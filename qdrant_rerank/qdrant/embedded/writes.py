"""The embedded engine's calls that change points: one at a time, logged once they return."""

import uuid
from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from typing import Any

from qdrant_client import models

from qdrant_rerank.qdrant.embedded.checks import require_one
from qdrant_rerank.qdrant.embedded.operations import to_operation
from qdrant_rerank.qdrant.embedded.points import DONE, vector_rows
from qdrant_rerank.qdrant.embedded.shards import Shards
from qdrant_rerank.utils.client_models import UpdateMode

__all__ = ["WriteCalls"]

UPLOAD_BATCH = 256


class WriteCalls:
    """Calls of :class:`~qdrant_rerank.qdrant.embedded.engine.EmbeddedEngine` on points."""

    _shards: Shards

    def upsert(
        self,
        collection_name: str,
        points: models.Batch | Sequence[models.PointStruct],
        update_filter: models.Filter | None = None,
        update_mode: UpdateMode | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Store points, in the place of those with the same ids."""
        conditions: dict[str, Any] = {"update_filter": update_filter, "update_mode": update_mode}
        given = (
            models.PointsBatch.model_construct(batch=points, **conditions)
            if isinstance(points, models.Batch)
            else models.PointsList.model_construct(points=points, **conditions)
        )
        return self._update(collection_name, models.UpsertOperation.model_construct(upsert=given))

    def upload_points(
        self,
        collection_name: str,
        points: Iterable[models.PointStruct],
        batch_size: int = UPLOAD_BATCH,
        update_filter: models.Filter | None = None,
        update_mode: UpdateMode | None = None,
        **kwargs: Any,
    ) -> None:
        """Store points from any iterable."""
        require_one("batch_size", batch_size)
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
        """Store points given as columns, or as one vector or mapping of vectors per point."""
        rows = zip(
            vector_rows(vectors),
            iter(lambda: str(uuid.uuid4()), None) if ids is None else ids,
            repeat({}) if payload is None else payload,
            strict=False,
        )
        self.upload_points(
            collection_name,
            (
                models.PointStruct.model_construct(id=i, vector=_as_lists(v), payload=p)
                for v, i, p in rows
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
        given = models.UpdateVectors.model_construct(points=points, update_filter=update_filter)
        return self._update(
            collection_name, models.UpdateVectorsOperation.model_construct(update_vectors=given)
        )

    def delete_vectors(
        self, collection_name: str, vectors: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove vectors of points."""
        given = models.DeleteVectors.model_construct(vector=vectors, **_selected(points))
        return self._update(
            collection_name, models.DeleteVectorsOperation.model_construct(delete_vectors=given)
        )

    def delete(
        self, collection_name: str, points_selector: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove points."""
        given = models.DeleteVectors.model_construct(**_selected(points_selector))
        return self._update(collection_name, models.DeleteOperation.model_construct(delete=given))

    def set_payload(
        self,
        collection_name: str,
        payload: dict[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Add to the payload of points."""
        given = models.SetPayload.model_construct(payload=payload, key=key, **_selected(points))
        return self._update(
            collection_name, models.SetPayloadOperation.model_construct(set_payload=given)
        )

    def overwrite_payload(
        self,
        collection_name: str,
        payload: dict[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Replace the payload of points."""
        given = models.SetPayload.model_construct(payload=payload, key=key, **_selected(points))
        return self._update(
            collection_name,
            models.OverwritePayloadOperation.model_construct(overwrite_payload=given),
        )

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove payload fields of points."""
        given = models.DeletePayload.model_construct(keys=keys, **_selected(points))
        return self._update(
            collection_name, models.DeletePayloadOperation.model_construct(delete_payload=given)
        )

    def clear_payload(
        self, collection_name: str, points_selector: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove the payload of points."""
        given = models.DeleteVectors.model_construct(**_selected(points_selector))
        return self._update(
            collection_name, models.ClearPayloadOperation.model_construct(clear_payload=given)
        )

    def batch_update_points(
        self, collection_name: str, update_operations: Sequence[Any], **kwargs: Any
    ) -> list[models.UpdateResult]:
        """Make several changes, one after the other; none if one of them is refused."""
        self._update(collection_name, *update_operations)
        return [DONE] * len(update_operations)

    def _update(self, collection_name: str, *operations: Any) -> models.UpdateResult:
        """Convert and check all operations, then apply them."""
        params = self._shards.entry(collection_name).config.params
        indexed = self._shards.text_fields(collection_name)
        with self._shards.errors(collection_name):
            made = [to_operation(operation, params, indexed) for operation in operations]
        self._shards.update(collection_name, made)
        return DONE


def _selected(selector: Any) -> dict[str, Any]:
    """Return the points that a selector names: ids, a filter, or a ``models.PointsSelector``."""
    if isinstance(selector, models.FilterSelector):
        selector = selector.filter
    elif isinstance(selector, models.PointIdsList):
        selector = selector.points
    by_filter = isinstance(selector, models.Filter)
    return {"points": None if by_filter else selector, "filter": selector if by_filter else None}


def _as_lists(vectors: Any) -> Any:
    """Return vectors with numpy's arrays as lists."""
    if isinstance(vectors, dict):
        return {name: _as_lists(one) for name, one in vectors.items()}
    if isinstance(vectors, list | tuple) and vectors and hasattr(vectors[0], "tolist"):
        return [one.tolist() for one in vectors]
    return vectors.tolist() if hasattr(vectors, "tolist") else vectors
