"""Writes requests of Qdrant's Query API. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.qdrant.recall_plan import RecallPlan
from qdrant_rerank.qdrant.schema import Branch
from qdrant_rerank.types import PointId
from qdrant_rerank.utils.client_models import TextQuery, optional_field
from qdrant_rerank.utils.validation import a_type, shown

__all__ = [
    "FilterLike",
    "Prefetches",
    "RecallBy",
    "RecallQuery",
    "Scope",
    "given_request",
    "prefetches_of",
    "read_filter",
    "read_recall",
    "recall_request",
    "searched_vectors",
]

#: A filter as a model, or as the JSON object of Qdrant's REST interface.
FilterLike: TypeAlias = models.Filter | Mapping[str, Any]
Prefetches: TypeAlias = models.Prefetch | Sequence[models.Prefetch]
#: Queries that search no vector.
WITHOUT_VECTOR = (
    models.FusionQuery,
    models.RrfQuery,
    models.FormulaQuery,
    models.OrderByQuery,
    models.SampleQuery,
)
#: What a caller may search with instead of the query's own vectors.
RecallBy: TypeAlias = (
    NDArray[np.float32]
    | Sequence[float]
    | Sequence[Sequence[float]]
    | models.SparseVector
    | models.Document
    | models.Query
    | models.QueryRequest
)
CLAUSES = frozenset(models.Filter.model_fields)
DenseQuery: TypeAlias = NDArray[np.float32] | models.Document | PointId
SparseQuery: TypeAlias = models.SparseVector | models.Document | TextQuery | PointId


@dataclass(frozen=True, slots=True)
class RecallQuery:
    """What the branches of one request search with.

    Attributes:
        dense: for the dense branches: shape (dimension,) float32, (n, dimension) for a
            multivector; a text that Qdrant embeds; or the id of a point.
        sparse: for the other branches.
        like: the point whose neighbours are searched, and which is not among them.
    """

    dense: DenseQuery | None = None
    sparse: SparseQuery | None = None
    like: PointId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """How much is retrieved, from where, and what comes along.

    Attributes:
        limit: points to return.
        offset: points to skip before them.
        candidates: points that each branch of a fused search considers, unless the options have
            their own number.
        query_filter: which points to consider.
        shard_key_selector: which shards to ask.
        lookup_from: where the points are stored whose ids are searched with.
        with_payload: which payload to return.
        with_vectors: which vectors to return.
    """

    limit: int
    offset: int = 0
    candidates: int
    query_filter: models.Filter | None = None
    shard_key_selector: models.ShardKeySelector | None = None
    lookup_from: models.LookupLocation | None = None
    with_payload: models.WithPayloadInterface = True
    with_vectors: models.WithVector = False


def recall_request(
    plan: RecallPlan, query: RecallQuery, scope: Scope, options: SearchOptions
) -> models.QueryRequest:
    """Write the one request that retrieves candidates.

    A sparse vector without entries is left out if there are other branches.
    """
    branches = list(enumerate(plan.branches))
    empty = isinstance(query.sparse, models.SparseVector) and not query.sparse.indices
    if empty and any(branch.dense for branch in plan.branches):
        branches = [(place, branch) for place, branch in branches if branch.dense]
    asked = [_prefetch(branch, query, scope, options) for _, branch in branches]
    if len(asked) == 1:
        _require_weights(options, plan.branches)
        [only] = asked
        return models.QueryRequest(
            query=only.query,
            using=only.using,
            filter=only.filter,
            params=only.params,
            lookup_from=only.lookup_from,
            **_common(scope, options),
        )
    fusion = _fusion(options, plan.branches, [place for place, _ in branches])
    return models.QueryRequest(prefetch=asked, query=fusion, **_common(scope, options))


def given_request(
    recall: Any,
    prefetch: Sequence[models.Prefetch] | None,
    using: str | None,
    scope: Scope,
    options: SearchOptions,
) -> models.QueryRequest:
    """Write the request of a caller who says what to search with.

    Args:
        recall: what :func:`read_recall` returns; None fuses the prefetches.
        prefetch: sub-requests; the filter of the scope holds in each of them.
        using: name of the vector that ``recall`` searches; None if that is the unnamed one, or if
            ``recall`` searches none.
        scope: how much is retrieved, and from where.
        options: the fusion, and parameters of a search without prefetches.
    """
    if isinstance(recall, models.QueryRequest):
        # Sent as it is; what is returned with the points is for the search to say.
        return recall.model_copy(
            update={
                "limit": recall.limit or scope.limit,
                "offset": (recall.offset or 0) + scope.offset or None,
                "with_payload": scope.with_payload,
                "with_vector": scope.with_vectors,
            }
        )
    branches = None
    if prefetch is not None:
        branches = [_narrowed(branch, scope.query_filter) for branch in prefetch]
        if recall is None:
            recall = _fusion(options, prefetch, range(len(prefetch)))
    return models.QueryRequest(
        prefetch=branches,
        query=recall,
        using=using,
        # Fused points passed the filter in their branches.
        filter=None if _fuses(recall) else scope.query_filter,
        params=None if branches else options.search_params,
        lookup_from=None if _fuses(recall) else scope.lookup_from,
        **_common(scope, options),
    )


def searched_vectors(request: models.QueryRequest | models.Prefetch) -> tuple[str, ...]:
    """Return the names of the vectors that a request searches, each once, in its order.

    "" is the unnamed vector; a text index is named by its payload field. Queries that search no
    vector, such as those that fuse or score others, name none.
    """
    prefetch = request.prefetch or []
    parts = prefetch if isinstance(prefetch, list) else [prefetch]
    names = [name for part in parts for name in searched_vectors(part)]
    if request.query is not None and not isinstance(request.query, WITHOUT_VECTOR):
        names.append(request.using or "")
    return tuple(dict.fromkeys(names))


def read_recall(recall: Any) -> Any:
    """Return what a caller searches with, as the Query API takes it.

    Returns:
        A list of floats, or of such lists; a ``SparseVector``, ``Document``, query or
        ``QueryRequest`` as it is.

    Raises:
        InvalidInputError: none of these.
    """
    if recall is None or isinstance(
        recall, models.SparseVector | models.Document | models.QueryRequest | models.Query
    ):
        return recall
    expected = (
        "expected a vector (floats, rows of floats, or a SparseVector), a Document, a query of "
        "qdrant_client.models such as RecommendQuery, or a QueryRequest. Pass a text or a point id "
        "as the query."
    )
    if isinstance(recall, str | bytes | int | UUID):
        raise InvalidInputError(f"recall is {shown(recall)}; {expected}")
    try:
        with np.errstate(over="ignore"):  # infinity is refused below
            vector = np.asarray(recall, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"recall is {a_type(recall)}; {expected}") from error
    if vector.ndim not in {1, 2} or not vector.size or not np.isfinite(vector).all():
        raise InvalidInputError(
            f"recall is of shape {vector.shape}"
            + ("" if np.isfinite(vector).all() else " with numbers that are not finite")
            + f"; {expected}"
        )
    return vector.tolist()


def read_filter(query_filter: Any) -> models.Filter | None:
    """Return a filter as a model.

    Args:
        query_filter: a ``models.Filter``, a mapping as the REST interface takes it, or None.

    Raises:
        InvalidInputError: something else, or a mapping that is no filter.

    >>> read_filter({"must": [{"key": "year", "range": {"gte": 2010}}]}).must[0].range.gte
    2010.0
    """
    if query_filter is None or isinstance(query_filter, models.Filter):
        return query_filter
    expected = (
        "expected a models.Filter, or a dict such as "
        "{'must': [{'key': 'year', 'range': {'gte': 2010}}]}."
    )
    if not isinstance(query_filter, Mapping):
        raise InvalidInputError(f"query_filter is {a_type(query_filter)}; {expected}")
    try:
        return models.Filter.model_validate(dict(query_filter))
    except ValidationError as error:
        # The errors of a condition are of each kind of condition; only its place tells something.
        wheres = [one["loc"] for one in error.errors()]
        clause = wheres[0][0]
        items = {part for loc in wheres if loc[0] == clause for part in loc[1:3]}
        numbers = sorted(part for part in items if isinstance(part, int))
        place = f"[{clause!r}]" + "".join(f"[{number}]" for number in numbers[:1])
        told = f"{place} is no {'condition' if clause in CLAUSES else 'part'} of a filter"
        raise InvalidInputError(
            f"query_filter{told}; {expected}",
            command=f"--filter: {told}; expected JSON such as "
            '{"must": [{"key": "year", "range": {"gte": 2010}}]}.',
        ) from error


def prefetches_of(prefetch: Any) -> list[models.Prefetch] | None:
    """Return the sub-requests of a caller as a list.

    Raises:
        InvalidInputError: something else.
    """
    if prefetch is None:
        return None
    listed = list(prefetch) if isinstance(prefetch, Sequence) else [prefetch]
    for branch in listed:
        if not isinstance(branch, models.Prefetch):
            raise InvalidInputError(
                f"prefetch holds a {type(branch).__name__}; expected models.Prefetch."
            )
    if not listed:
        raise InvalidInputError("prefetch is empty; expected at least one models.Prefetch.")
    return listed


def _prefetch(
    branch: Branch, query: RecallQuery, scope: Scope, options: SearchOptions
) -> models.Prefetch:
    asked: Any = query.dense if branch.dense else query.sparse
    if isinstance(asked, models.Document):
        # Bare, its text could be read as a TextQuery's.
        asked = models.NearestQuery(nearest=asked)
    own = options.dense_candidates if branch.dense else options.sparse_candidates
    by_id = isinstance(asked, int | str | UUID)
    query_filter = scope.query_filter
    if query.like is not None and not by_id and scope.lookup_from is None:
        query_filter = _without(query_filter, query.like)
    return models.Prefetch(
        query=asked.tolist() if isinstance(asked, np.ndarray) else asked,
        using=branch.using or None,
        filter=query_filter,
        params=options.search_params if branch.dense else None,
        limit=own or scope.candidates,
        lookup_from=scope.lookup_from if by_id else None,
    )


def _common(scope: Scope, options: SearchOptions) -> dict[str, Any]:
    return {
        "limit": scope.limit,
        "offset": scope.offset or None,
        "with_payload": scope.with_payload,
        "with_vector": scope.with_vectors,
        "shard_key": scope.shard_key_selector,
        "score_threshold": options.recall_threshold,
    }


def _fusion(
    options: SearchOptions, branches: Sequence[Any], kept: Sequence[int]
) -> models.FusionQuery | models.RrfQuery:
    """Return the query that fuses the branches."""
    if not isinstance(options.fusion, models.Rrf):
        return models.FusionQuery(fusion=models.Fusion(options.fusion))
    _require_weights(options, branches)
    weights = optional_field(options.fusion, "weights")
    if weights is None:
        return models.RrfQuery(rrf=options.fusion)
    weights = [weights[place] for place in kept]
    return models.RrfQuery(rrf=models.Rrf(k=options.fusion.k, weights=weights))


def _require_weights(options: SearchOptions, branches: Sequence[Any]) -> None:
    weights = optional_field(options.fusion, "weights")
    if weights is not None and len(weights) != len(branches):
        names = ", ".join(
            str(branch) if isinstance(branch, Branch) else f"prefetch of {branch.using!r}"
            for branch in branches
        )
        raise InvalidInputError(
            f"fusion has {len(weights)} weights; expected one for each of {names}."
        )


def _fuses(query: Any) -> bool:
    return isinstance(query, models.FusionQuery | models.RrfQuery)


def _narrowed(branch: models.Prefetch, query_filter: models.Filter | None) -> models.Prefetch:
    """Return the sub-request with one more condition."""
    if query_filter is None:
        return branch
    both = query_filter
    if branch.filter is not None:
        both = models.Filter(must=[branch.filter, query_filter])
    return branch.model_copy(update={"filter": both})


def _without(query_filter: models.Filter | None, point_id: PointId) -> models.Filter:
    """Return the filter without one point."""
    other = models.Filter(must_not=[models.HasIdCondition(has_id=[point_id])])
    if query_filter is None:
        return other
    return models.Filter(must=[query_filter, other])
