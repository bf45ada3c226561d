"""Hits put into groups, as Qdrant does it. Pure: no I/O."""

from collections.abc import Iterable
from typing import Any

from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

__all__ = ["complete", "grouped", "with_prefetch_limit"]

Groups = dict[int | str, list[Any]]


def grouped(hits: Iterable[Any], group_by: str, group_size: int) -> Groups:
    """The best hits of each group; groups in the order of their best hit.

    A point with several values is in several groups; one without a value, or with a value that is
    neither a text nor a whole number, is in none.

    Args:
        hits: best first, with the payload field in question.
        group_by: path of the payload field.
        group_size: hits to keep a group.
    """
    groups: Groups = {}
    for hit in hits:
        values = value_by_key(hit.payload or {}, group_by)
        # Not isinstance: a bool is an int, and no group.
        if values is None or any(type(value) not in {int, str} for value in values):
            continue
        for value in dict.fromkeys(values):
            members = groups.setdefault(value, [])
            if len(members) < group_size:
                members.append(hit)
    return groups


def complete(groups: Groups, limit: int, group_size: int) -> bool:
    """Whether further hits cannot change the first groups."""
    first = list(groups.values())[:limit]
    return len(first) == limit and all(len(members) == group_size for members in first)


def with_prefetch_limit(prefetch: Any, limit: int) -> Any:
    """The prefetches, each bringing so many, since any point may belong to a group."""
    if prefetch is None:
        return None
    if isinstance(prefetch, list):
        return [with_prefetch_limit(one, limit) for one in prefetch]
    assert isinstance(prefetch, models.Prefetch)
    inner = with_prefetch_limit(prefetch.prefetch, limit)
    return prefetch.model_copy(update={"limit": limit, "prefetch": inner})
