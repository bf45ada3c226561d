"""Ordered chunks -> groups of chunks, such as documents. No I/O."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from qdrant_client import models

from qdrant_rerank.notices import warn_caller
from qdrant_rerank.types import RerankedPoint, SearchTrace

__all__ = ["GroupedResults", "RerankedGroup", "group_ids", "group_points", "lookup_ids"]

GroupId = int | str


class RerankedGroup(models.PointGroup):
    """A ``PointGroup`` whose hits have the scores of both stages.

    Attributes:
        id: the value that its hits have in common.
        hits: the best of them, best first.
        lookup: the point of that id in the collection of ``with_lookup``, if there is one.
    """

    hits: list[RerankedPoint]  # type: ignore[assignment]


class GroupedResults(list[RerankedGroup]):
    """The groups, best first.

    Attributes:
        query: what was searched for.
        trace: what it took.
    """

    def __init__(self, groups: Iterable[RerankedGroup], *, query: str, trace: SearchTrace) -> None:
        super().__init__(groups)
        self.query = query
        self.trace = trace

    @property
    def groups(self) -> "list[RerankedGroup]":
        """The groups, as ``GroupsResult`` has them."""
        return list(self)

    def __repr__(self) -> str:
        return f"GroupedResults({self.query!r}, {len(self)} groups, {list.__repr__(self)})"


def group_ids(payload: Mapping[str, Any] | None, group_by: str) -> list[GroupId]:
    """The groups that a point belongs to, as Qdrant sees it.

    Args:
        payload: of the point.
        group_by: a field or a path, such as ``document.id`` or ``tags[]``.

    Returns:
        Each value of the field once. None if the field is missing, or if any of its values is
        neither a whole number nor a text: Qdrant leaves such a point out altogether.
    """
    # Qdrant's paths have indices and wildcards; its own reader knows them. Not isinstance below: a
    # bool is an int, and no group.
    from qdrant_client.local.payload_value_extractor import value_by_key

    values = value_by_key(dict(payload or {}), group_by)
    if not values or any(type(value) not in {int, str} for value in values):
        return []
    return list(dict.fromkeys(values))


def group_points(
    points: Iterable[RerankedPoint], group_by: str, *, group_size: int, limit: int | None = None
) -> list[RerankedGroup]:
    """Groups in the order of their best chunks.

    Args:
        points: chunks, best first, with the payload that holds ``group_by``.
        group_by: see :func:`group_ids`. A chunk of several groups is in each of them.
        group_size: most chunks of a group.
        limit: most groups; None for all.

    Warns:
        UserWarning: there are chunks, and none of them is in a group.
    """
    groups: dict[GroupId, list[RerankedPoint]] = {}
    count = 0
    for count, point in enumerate(points, start=1):  # noqa: B007 - named below
        for value in group_ids(point.payload, group_by):
            hits = groups.setdefault(value, [])
            if len(hits) < group_size:
                hits.append(point)
    if count and not groups:
        warn_caller(
            f"None of the {count} hits has a whole number or a text at group_by={group_by!r}, so "
            "there are no groups. Check the name; nested fields are written 'outer.inner'."
        )
    return [
        RerankedGroup.model_construct(id=value, hits=hits, lookup=None)
        for value, hits in list(groups.items())[:limit]
    ]


def lookup_ids(groups: Iterable[models.PointGroup]) -> dict[GroupId, int | str]:
    """The id that a point would have for each group; groups that cannot be ids are left out."""
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
