"""Queries: qdrant-client's models to qdrant-edge's. Pure: no I/O."""

from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.checks import as_list, as_model
from qdrant_rerank.qdrant.embedded.config import same_name
from qdrant_rerank.qdrant.embedded.filters import to_condition, to_filter
from qdrant_rerank.qdrant.embedded.formulas import to_expression
from qdrant_rerank.utils.client_models import (
    RelevanceFeedbackInput,
    RelevanceFeedbackQuery,
    TextQuery,
    optional_field,
)

__all__ = ["VectorOf", "to_order", "to_params", "to_query"]

#: The vector that stands for what a query gives: itself, or that of the point with this id.
VectorOf = Callable[[Any], Any]
#: Points that a prefetch gives if it has no limit, as on a server.
PREFETCH_LIMIT = 10
RRF_K = 2  # Qdrant's own


def to_query(  # noqa: PLR0912 - a line or two for each kind
    query: Any, using: str | None, limit: int, vector_of: VectorOf, indexed: Container[str]
) -> Any:
    """Convert a query of any kind.

    Args:
        query: a vector, a point's id, or one of ``models.Query``.
        using: name of the vector to search.
        limit: points wanted; the number of candidates of an MMR query that does not say.
        vector_of: finds vectors.
        indexed: payload fields with a text index.

    Raises:
        QdrantRequestError: the engine does not know that kind.
    """
    match query:
        case None:
            return None
        case models.NearestQuery(mmr=None):
            return edge.Query.Nearest(vector_of(query.nearest), using=using)
        case models.NearestQuery(mmr=models.Mmr() as mmr):
            return edge.Mmr(
                vector_of(query.nearest),
                1.0 - (0.5 if mmr.diversity is None else mmr.diversity),
                limit if mmr.candidates_limit is None else mmr.candidates_limit,
                using=using,
            )
        case models.FusionQuery():
            if query.fusion == models.Fusion.DBSF:
                return edge.Fusion.Dbsf()
            return edge.Fusion.Rrf(k=RRF_K)
        case models.RrfQuery():
            k = RRF_K if query.rrf.k is None else query.rrf.k
            return edge.Fusion.Rrf(k=k, weights=optional_field(query.rrf, "weights"))
        case models.RecommendQuery():
            return _recommend(query.recommend, using, vector_of)
        case models.DiscoverQuery():
            wanted = edge.DiscoverQuery(
                vector_of(query.discover.target), _pairs(query.discover.context, vector_of)
            )
            return edge.Query.Discover(wanted, using=using)
        case models.ContextQuery():
            context = edge.ContextQuery(_pairs(query.context, vector_of))
            return edge.Query.Context(context, using=using)
        case models.OrderByQuery():
            return to_order(query.order_by)
        case models.SampleQuery():
            return edge.Sample.Random
        case models.FormulaQuery():
            return edge.Formula(
                to_expression(query.formula, partial(to_condition, indexed=indexed)),
                defaults=query.defaults,
            )
        case TextQuery():
            return _text_query(query.text, using)
        case RelevanceFeedbackQuery():
            return _feedback(query.relevance_feedback, using, vector_of)
        case _:
            return edge.Query.Nearest(vector_of(query), using=using)


def _recommend(wanted: models.RecommendInput, using: str | None, vector_of: VectorOf) -> Any:
    positive = [vector_of(example) for example in wanted.positive or []]
    negative = [vector_of(example) for example in wanted.negative or []]
    if wanted.strategy in {None, models.RecommendStrategy.AVERAGE_VECTOR}:
        if not positive:
            raise QdrantRequestError(
                "A recommendation by the average vector needs positive examples; there are none."
            )
        if any(not _is_dense(vector) for vector in [*positive, *negative]):
            raise QdrantRequestError(
                "The embedded Qdrant averages dense vectors alone. Pass strategy=best_score or "
                "sum_scores for sparse vectors and multivectors."
            )
        average = np.mean(np.asarray(positive, dtype=np.float32), axis=0)
        if negative:
            average = 2 * average - np.mean(np.asarray(negative, dtype=np.float32), axis=0)
        return edge.Query.Nearest(average.tolist(), using=using)
    query = edge.RecommendQuery(positive, negative)
    if wanted.strategy == models.RecommendStrategy.SUM_SCORES:
        return edge.Query.RecommendSumScores(query, using=using)
    return edge.Query.RecommendBestScore(query, using=using)


def _is_dense(vector: Any) -> bool:
    return isinstance(vector, Sequence) and not isinstance(vector[0], Sequence)


def _pairs(context: Any, vector_of: VectorOf) -> list[edge.ContextPair]:
    return [
        edge.ContextPair(vector_of(pair.positive), vector_of(pair.negative))
        for pair in as_list(context)
    ]


def _text_query(text: Any, using: str | None) -> edge.TextQuery:
    if using is None:
        raise QdrantRequestError("A text query names its payload field by using=...; it is None.")
    if isinstance(text, str):
        return edge.TextQuery(using, text)
    scoring = None if text.scoring is None else text.scoring.bm25
    if scoring is None:
        return edge.TextQuery(using, text.query)
    return edge.TextQuery(using, text.query, edge.Bm25Params(k=scoring.k, b=scoring.b))


def _feedback(wanted: RelevanceFeedbackInput, using: str | None, vector_of: VectorOf) -> Any:
    naive = wanted.strategy.naive
    query = edge.FeedbackNaiveQuery(
        vector_of(wanted.target),
        [edge.FeedbackItem(vector_of(item.example), item.score) for item in wanted.feedback],
        edge.NaiveFeedbackStrategy(naive.a, naive.b, naive.c),
    )
    return edge.Query.FeedbackNaive(query, using=using)


def to_order(order: str | models.OrderBy) -> edge.OrderBy:
    """Convert the payload field by which points are ordered."""
    if isinstance(order, str):
        return edge.OrderBy(order)
    start: Any = order.start_from
    return edge.OrderBy(
        order.key,
        direction=same_name(edge.Direction, order.direction),
        start_from=start.isoformat() if hasattr(start, "isoformat") else start,
    )


def to_params(
    params: models.SearchParams | None, indexed: Container[str]
) -> edge.SearchParams | None:
    """Convert the parameters of a search."""
    params = as_model(models.SearchParams, params)
    if params is None:
        return None
    wanted, corpus = params.quantization, optional_field(optional_field(params, "idf"), "corpus")
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef,
        exact=bool(params.exact),
        quantization=None
        if wanted is None
        else edge.QuantizationSearchParams(
            ignore=bool(wanted.ignore), rescore=wanted.rescore, oversampling=wanted.oversampling
        ),
        indexed_only=bool(params.indexed_only),
        acorn=None
        if params.acorn is None
        else edge.AcornSearchParams(
            enable=bool(params.acorn.enable), max_selectivity=params.acorn.max_selectivity
        ),
        idf=None if corpus is None else edge.IdfParams(corpus=to_filter(corpus, indexed)),
    )
