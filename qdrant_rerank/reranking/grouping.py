"""Ordered chunks -> groups of chunks, such as documents. Pure: no I/O."""

from collections.abc import Iterable
from typing import Any

from qdrant_client import models

from qdrant_rerank.payload import GroupId, group_ids
from qdrant_rerank.types import RerankedPoint, Results, hit_dict, hit_row
from qdrant_rerank.utils.warn import warn_caller

__all__ = ["GroupedResults", "RerankedGroup", "group_points"]


class RerankedGroup(models.PointGroup):
    """A ``PointGroup`` whose hits have the scores of both stages.

    Attributes:
        id: the value that all its hits have in the ``group_by`` field.
        hits: its best hits, best first.
        lookup: the point with that id in the collection of ``with_lookup``; None if there is none.
    """

    hits: list[RerankedPoint]  # type: ignore[assignment]


class GroupedResults(Results[RerankedGroup]):
    """A list of groups, best first. It prints one line per hit; a notebook shows it as a table.

    Attributes:
        query: the query as text.
        trace: what the search did, and how long it took.
    """

    _unit = "groups"

    @property
    def groups(self) -> list[RerankedGroup]:
        """The groups as a plain list, named as in qdrant-client's ``GroupsResult``."""
        return list(self)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict per group, ready for JSON.

        Its keys are rank, id, hits (one dict per hit, as ``SearchResults.to_dicts`` gives it) and
        lookup (the point of ``with_lookup``, or None).
        """
        return [
            {
                "rank": rank,
                "id": group.id,
                "hits": [hit_dict(place, hit) for place, hit in enumerate(group.hits, start=1)],
                "lookup": None if group.lookup is None else group.lookup.model_dump(mode="json"),
            }
            for rank, group in enumerate(self, start=1)
        ]

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"group": group.id} | hit_row(rank, hit)
            for group in self
            for rank, hit in enumerate(group.hits, start=1)
        ]


def group_points(
    points: Iterable[RerankedPoint], group_by: str, *, group_size: int, limit: int | None = None
) -> list[RerankedGroup]:
    """Group chunks; the groups are in the order of their best chunks.

    Args:
        points: chunks, best first, with the payload field of ``group_by``.
        group_by: see :func:`~qdrant_rerank.payload.group_ids`. A chunk that belongs to several
            groups is in each of them.
        group_size: maximum number of chunks per group.
        limit: maximum number of groups; None for all.

    Warns:
        UserWarning: there are chunks, but none of them is in a group.
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
            "there are no groups. Check the name. Write a nested field as 'outer.inner'."
        )
    return [
        RerankedGroup.model_construct(id=value, hits=hits, lookup=None)
        for value, hits in list(groups.items())[:limit]
    ]
