"""Candidates of a search: by texts, ids, vectors or a caller's own request."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from qdrant_client import models

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import TextChoice
from qdrant_rerank.qdrant.lookups import Query, read_texts
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.recall_plan import plan_given_vector
from qdrant_rerank.qdrant.recall_request import (
    Scope,
    given_request,
    prefetches_of,
    read_recall,
    recall_request,
    searched_vectors,
)
from qdrant_rerank.qdrant.schema import CollectionSchema
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.reranking.late_interaction import LateInteraction, MaxSim
from qdrant_rerank.reranking.scored import failure
from qdrant_rerank.search.request import SearchRequest

__all__ = ["Retrieved", "retrieve_candidates"]

#: Kinds of ``recall`` that search no vector whose name the schema has to tell.
WITHOUT_VECTOR = (
    models.QueryRequest,
    models.FusionQuery,
    models.RrfQuery,
    models.FormulaQuery,
    type(None),
)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The candidates of several queries.

    Attributes:
        texts: the queries as texts.
        hits: candidates of each query, in retrieval order.
        dense: name of the dense vector that came along for diversity, or None.
        embed_s: seconds from texts to vectors.
        vectors: names of the vectors that each query searched.
        max_sim: their MaxSim scores, if the reranker is, or begins with, a late interaction.
    """

    texts: list[str]
    hits: list[list[models.ScoredPoint]]
    dense: str | None
    embed_s: float
    vectors: list[tuple[str, ...]]
    max_sim: MaxSim | None = None


async def retrieve_candidates(
    driver: Driver,
    first: FirstStage,
    choice: TextChoice,
    queries: Sequence[Query],
    request: SearchRequest,
    options: SearchOptions,
    scope: Scope,
    *,
    reranked: bool,
    late: LateInteraction | None = None,
) -> Retrieved:
    """Return the candidates of each query, by one request to Qdrant.

    Args:
        driver: asks Qdrant.
        first: the first stage.
        choice: reads the texts of points that are queries.
        queries: texts, or ids of points.
        request: the arguments of the search.
        options: options of the search.
        scope: how much is retrieved, from where, and what comes along.
        reranked: whether the candidates will be reranked by texts, so that each query needs one.
        late: scores the candidates in the same request; None for no such scores.

    Raises:
        QdrantRerankError: see :meth:`HybridSearcher.search`.
    """
    texts = await read_texts(
        driver, first.collection, queries, choice, scope, options, required=reranked
    )
    recall = read_recall(request.recall)
    needs_schema = (
        not request.given
        or bool(options.diversity)
        or late is not None
        or not isinstance(recall, WITHOUT_VECTOR)
    )
    known = first.known
    again = False
    while True:
        schema = await first.schema(driver) if needs_schema else None
        try:
            if late is not None and schema is not None:
                late.require(schema)
            requests, dense, embed_s = await _requests(
                driver, first, schema, queries, texts, request, options, scope
            )
            vectors = [searched_vectors(request) for request in requests]
            if late is None or schema is None:
                hits = await first.retrieve(driver, requests, options)
                return Retrieved(texts, hits, dense, embed_s, vectors)
            began = time.perf_counter()
            asked, cause = await _late_requests(
                driver, late, schema, queries, texts, requests, options
            )
            embed_s += time.perf_counter() - began
            found = await first.retrieve(driver, [*requests, *asked], options, [late.embedder])
            hits, near = found[: len(requests)], found[len(requests) :]
            scores = [late.scores(schema, points) for points in near] or [{} for _ in hits]
            max_sim = MaxSim(scores, late.engine, cause)
            return Retrieved(texts, hits, dense, embed_s, vectors, max_sim)
        except CollectionNotFoundError:
            first.forget()
            raise
        except (SchemaMismatchError, QdrantRequestError) as error:
            # The collection may have been made again with other vectors since its schema was read.
            read_now = isinstance(error, SchemaMismatchError) and schema is not known
            if again or schema is None or read_now or not await first.changed(driver, schema):
                raise
            again = True


async def _requests(
    driver: Driver,
    first: FirstStage,
    schema: CollectionSchema | None,
    queries: Sequence[Query],
    texts: Sequence[str],
    request: SearchRequest,
    options: SearchOptions,
    scope: Scope,
) -> tuple[list[models.QueryRequest], str | None, float]:
    """Return the request of each query, and ``dense`` and ``embed_s`` of :class:`Retrieved`."""
    plan = None
    if schema is not None and (options.diversity or not request.given):
        if not request.given and any(isinstance(query, str) for query in queries):
            await first.learn_dimension(driver)
        plan = first.plan(schema, options)
        if options.diversity and plan.dense is not None:
            scope = replace(scope, with_vectors=[plan.dense] if plan.dense else True)
    dense = None if plan is None else plan.dense
    if plan is None or request.given:
        recall = read_recall(request.recall)
        using = None if schema is None else _using(first, schema, recall, options)
        given = given_request(recall, prefetches_of(request.prefetch), using, scope, options)
        return [given] * len(texts), dense, 0.0
    began = time.perf_counter()
    embedded = await first.embed(driver, queries, texts, plan)
    embed_s = time.perf_counter() - began
    return [recall_request(plan, query, scope, options) for query in embedded], dense, embed_s


async def _late_requests(
    driver: Driver,
    late: LateInteraction,
    schema: CollectionSchema,
    queries: Sequence[Query],
    texts: Sequence[str],
    requests: Sequence[models.QueryRequest],
    options: SearchOptions,
) -> tuple[list[models.QueryRequest], str | None]:
    """Return the requests for MaxSim scores; none, and the cause, where the embedder failed."""
    try:
        vectors = await driver.encode(late.embed, schema, queries, texts)
    except (SchemaMismatchError, QdrantConnectionError):  # of the collection, or no time left
        raise
    except Exception as error:
        return [], failure(error, options.on_rerank_error)
    return [late.request(one, query) for one, query in zip(requests, vectors, strict=True)], None


def _using(
    first: FirstStage, schema: CollectionSchema, recall: Any, options: SearchOptions
) -> str | None:
    """Name of the vector that a caller's own query searches."""
    if isinstance(recall, WITHOUT_VECTOR):
        return None
    if isinstance(recall, list):
        shape = (len(recall), len(recall[0])) if isinstance(recall[0], list) else (len(recall),)
        return plan_given_vector(schema, shape, options.dense_vector).using or None
    plan = first.plan(schema, options)
    sparse = isinstance(recall, models.SparseVector) or plan.dense is None
    return (plan.sparse if sparse else plan.dense) or None
