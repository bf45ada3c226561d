"""The candidates of a search, as a flow: by texts, ids, vectors or a caller's own request."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import models

from qdrant_rerank.errors import CollectionNotFoundError, QdrantRequestError
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import PayloadText
from qdrant_rerank.qdrant.lookups import Query
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.recall_plan import RecallPlan, plan_given_vector
from qdrant_rerank.qdrant.recall_request import Scope, given_request, recall_request
from qdrant_rerank.qdrant.transport.steps import Flow
from qdrant_rerank.search.request import SearchRequest

__all__ = ["Recalled", "recall_candidates"]


@dataclass(frozen=True, slots=True)
class Recalled:
    """The candidates of several queries.

    Attributes:
        texts: the queries as texts.
        hits: of each query, in retrieval order.
        dense: name of the dense vector that came along for diversity, or None.
        embed_s: seconds from texts to vectors.
    """

    texts: list[str]
    hits: list[list[models.ScoredPoint]]
    dense: str | None
    embed_s: float


def recall_candidates(
    first: FirstStage,
    text: PayloadText,
    queries: Sequence[Query],
    request: SearchRequest,
    options: SearchOptions,
    scope: Scope,
    *,
    reranked: bool,
) -> Flow[Recalled]:
    """The candidates of each query, by one request to Qdrant.

    Args:
        first: asks Qdrant.
        text: reads the texts of points that are queries.
        queries: texts, or ids of points.
        request: the arguments of the search.
        options: of the search.
        scope: how much is recalled, from where, and what comes along.
        reranked: whether they will be, so that each query needs a text.
    """
    texts = yield from first.points.read_texts(queries, text, scope, options, required=reranked)
    asked = yield from _asked(first, queries, texts, request, options, scope)
    known = first.known
    try:
        hits = yield from first.recall(asked.requests, options)
    except CollectionNotFoundError:
        first.forget()
        raise
    except QdrantRequestError:
        if not (yield from first.changed(known)):
            raise
        asked = yield from _asked(first, queries, texts, request, options, scope)
        hits = yield from first.recall(asked.requests, options)
    return Recalled(texts, hits, asked.dense, asked.embed_s)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What recall is asked.

    Attributes:
        requests: one a query.
        dense: see ``Recalled``.
        embed_s: see ``Recalled``.
    """

    requests: list[models.QueryRequest]
    dense: str | None
    embed_s: float


def _asked(
    first: FirstStage,
    queries: Sequence[Query],
    texts: Sequence[str],
    request: SearchRequest,
    options: SearchOptions,
    scope: Scope,
) -> Flow[_Asked]:
    """The request of each query, for the collection as it is known."""
    plan: RecallPlan | None = None
    if not request.given or options.diversity:
        plan = yield from first.plan(options)
        if options.diversity and plan.dense is not None:
            scope = replace(scope, with_vectors=[plan.dense] if plan.dense else True)
    embed_s = 0.0
    if request.given or plan is None:
        requests = [(yield from _given_request(first, request, scope, options))] * len(texts)
    else:
        began = time.perf_counter()
        embedded = yield from first.embed(queries, texts, plan)
        embed_s = time.perf_counter() - began
        requests = [recall_request(plan, query, scope, options) for query in embedded]
    return _Asked(requests, None if plan is None else plan.dense, embed_s)


def _given_request(
    first: FirstStage, request: SearchRequest, scope: Scope, options: SearchOptions
) -> Flow[models.QueryRequest]:
    """The request of a caller who says what to recall with."""
    recall, using = request.read_recall(), None
    if recall is not None and not isinstance(recall, models.QueryRequest):
        using = yield from _using(first, recall, options)
    return given_request(recall, request.read_prefetch(), using, scope, options)


def _using(first: FirstStage, recall: Any, options: SearchOptions) -> Flow[str | None]:
    """Name of the vector that a caller's own query searches."""
    if isinstance(recall, list):
        shape = (len(recall), len(recall[0])) if isinstance(recall[0], list) else (len(recall),)
        schema = yield from first.schema()
        return plan_given_vector(schema, shape, options.dense_vector).using or None
    if isinstance(recall, models.FusionQuery | models.RrfQuery | models.FormulaQuery):
        return None
    plan = yield from first.plan(options)
    sparse = isinstance(recall, models.SparseVector) or plan.dense is None
    return (plan.sparse if sparse else plan.dense) or None
