"""Changes of points: qdrant-client's models to qdrant-edge's, checked. Pure: no I/O.

What the engine would log and then refuse is refused here, before anything is logged.
"""

from collections.abc import Container
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.checks import as_model, require_names
from qdrant_rerank.qdrant.embedded.config import same_name
from qdrant_rerank.qdrant.embedded.filters import to_filter
from qdrant_rerank.qdrant.embedded.points import (
    DEEPEST,
    shallow_json,
    to_id,
    to_point_vectors,
    to_points,
)

__all__ = ["to_operation"]

# Levels of a filter that is logged; one condition in the place of a list has a level more there.
DEEPEST_FILTER = DEEPEST // 2


def to_operation(
    given: Any, params: models.CollectionParams, indexed: Container[str]
) -> edge.UpdateOperation:
    """Convert a change of points.

    Args:
        given: one of ``models.UpdateOperation``.
        params: parameters of the collection.
        indexed: payload fields with a text index.

    Raises:
        QdrantRequestError: the collection cannot hold what is written, or a part is wrong.
    """
    match given:
        case models.UpsertOperation(upsert=wanted):
            points = wanted.batch if isinstance(wanted, models.PointsBatch) else wanted.points
            return edge.UpdateOperation.upsert_points(
                to_points(points, params),
                condition=_logged(wanted.update_filter, indexed),
                update_mode=same_name(edge.UpdateMode, getattr(wanted, "update_mode", None)),
            )
        case models.UpdateVectorsOperation(update_vectors=wanted):
            return edge.UpdateOperation.update_vectors(
                to_point_vectors(wanted.points, params),
                condition=_logged(wanted.update_filter, indexed),
            )
        case models.DeleteVectorsOperation(delete_vectors=wanted):
            require_names(wanted.vector, params, "Vectors to delete")
            return _of_some("delete_vectors", wanted, indexed, list(wanted.vector))
        case models.DeleteOperation(delete=selector):
            return _of_some("delete_points", selector, indexed)
        case models.SetPayloadOperation(set_payload=wanted):
            return _of_some("set_payload", wanted, indexed, _payload(wanted), wanted.key)
        case models.OverwritePayloadOperation(overwrite_payload=wanted):
            return _of_some("overwrite_payload", wanted, indexed, _payload(wanted), wanted.key)
        case models.DeletePayloadOperation(delete_payload=wanted):
            return _of_some("delete_payload", wanted, indexed, list(wanted.keys))
        case models.ClearPayloadOperation(clear_payload=selector):
            return _of_some("clear_payload", selector, indexed)
        case _:
            raise QdrantRequestError(
                f"The embedded Qdrant does not know the change {type(given).__name__}; expected "
                "one of models.UpdateOperation."
            )


def _of_some(name: str, selector: Any, indexed: Container[str], *args: Any) -> edge.UpdateOperation:
    """Convert a change of the points that a selector names by ids or by a filter."""
    ids, given = getattr(selector, "points", None), getattr(selector, "filter", None)
    made: edge.UpdateOperation
    if ids is not None:
        made = getattr(edge.UpdateOperation, name)([to_id(one) for one in ids], *args)
        return made
    if given is None:
        raise QdrantRequestError(
            "The change names no points; expected ids or a filter. Nothing was done. "
            "models.Filter() stands for all points."
        )
    made = getattr(edge.UpdateOperation, f"{name}_by_filter")(_logged(given, indexed), *args)
    return made


def _payload(wanted: models.SetPayload) -> Any:
    above = 0 if wanted.key is None else wanted.key.count(".") + wanted.key.count("[") + 1
    return shallow_json(wanted.payload, "The payload", above=above)


def _logged(given: Any, indexed: Container[str]) -> edge.Filter | None:
    """Convert a filter that a change is logged with."""
    given = as_model(models.Filter, given)
    shallow_json(given, "The filter of the change", deepest=DEEPEST_FILTER)
    return to_filter(given, indexed)
