"""Groups of hits, built as Qdrant builds them. Pure: no I/O."""

from collections.abc import Iterable
from typing import Any

from qdrant_client import models

from qdrant_rerank.payload import group_ids
from qdrant_rerank.qdrant.embedded.checks import as_model

__all__ = ["complete", "grouped", "with_prefetch_limit"]

Groups = dict[int | str, list[Any]]


def grouped(hits: Iterable[Any], group_by: str, group_size: int) -> Groups:
    """Collect the best hits of each group. Groups come in the order of their best hit.

    Args:
        hits: best first, with the payload field in question.
        group_by: path of the payload field; see :func:`~qdrant_rerank.payload.group_ids`.
        group_size: hits kept per group.
    """
    groups: Groups = {}
    for hit in hits:
        for value in group_ids(hit.payload, group_by):
            members = groups.setdefault(value, [])
            if len(members) < group_size:
                members.append(hit)
    return groups


def complete(groups: Groups, limit: int, group_size: int) -> bool:
    """Return whether further hits cannot change the first groups."""
    first = list(groups.values())[:limit]
    return len(first) == limit and all(len(members) == group_size for members in first)


def with_prefetch_limit(prefetch: Any, limit: int) -> Any:
    """Copy the prefetches with another limit, since any point may belong to a group."""
    if prefetch is None:
        return None
    if isinstance(prefetch, list):
        return [with_prefetch_limit(one, limit) for one in prefetch]
    prefetch = as_model(models.Prefetch, prefetch)
    inner = with_prefetch_limit(prefetch.prefetch, limit)
    return prefetch.model_copy(update={"limit": limit, "prefetch": inner})
