"""Ordered chunks -> groups of chunks, such as documents. No I/O."""

from collections.abc import Iterable

from qdrant_client import models

from qdrant_rerank.payload import GroupId, group_ids
from qdrant_rerank.types import RerankedPoint, SearchTrace
from qdrant_rerank.utils.warn import warn_caller

__all__ = [
    "GroupedResults",
    "RerankedGroup",
    "group_points",
]


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
