"""The groups of a point, as Qdrant groups it."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

__all__ = ["GroupId", "group_ids", "lookup_ids"]

GroupId = int | str


def group_ids(payload: Mapping[str, Any] | None, group_by: str) -> list[GroupId]:
    """Return the groups that a point belongs to, as Qdrant groups it.

    Args:
        payload: the point's payload.
        group_by: a field or a path, such as ``document.id`` or ``tags[]``.

    Returns:
        Each value of the field once. Empty if the field is missing, or if one of its values is
        neither a whole number nor a text: Qdrant leaves out such a point.
    """
    values = value_by_key(dict(payload or {}), group_by)
    # Not isinstance: a bool is an int, but not a group.
    if not values or any(type(value) not in {int, str} for value in values):
        return []
    return list(dict.fromkeys(values))


def lookup_ids(groups: Iterable[models.PointGroup]) -> dict[GroupId, int | str]:
    """Return the point id of each group. Groups that cannot be an id are left out."""
    found: dict[GroupId, int | str] = {}
    for group in groups:
        if isinstance(group.id, int):
            if group.id >= 0:
                found[group.id] = group.id
            continue
        try:
            found[group.id] = str(UUID(group.id))
        except ValueError:
            continue
    return found
