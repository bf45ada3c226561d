"""A second recall from the scores of the first page: see :mod:`~qdrant_rerank.feedback`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qdrant_rerank.diversity import one_vector
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.feedback import Feedback, feedback_query, rocchio
from qdrant_rerank.first_stage import FirstStage
from qdrant_rerank.flow import Flow, Terms, compute
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.query_request import PointId, RecallQuery, Scope, dense_request, without
from qdrant_rerank.recall import RecallPlan
from qdrant_rerank.reranking import SecondStage
from qdrant_rerank.types import RerankedPoint

__all__ = ["recall_again"]

Hits = list[models.ScoredPoint]


def recall_again(
    first: FirstStage,
    stage: SecondStage,
    queries: Sequence[RecallQuery],
    texts: Sequence[str],
    hits: Sequence[Hits],
    plan: RecallPlan,
    scope: Scope,
    options: SearchOptions,
    terms: Terms,
) -> Flow[list[Hits]]:
    """The hits of each query, followed by those that a second recall adds.

    The first page of each is scored, and its scores say where the dense vector should look. Where
    no time is left, or a page has fewer than two scores, the hits stay as they are.
    """
    feedback = options.feedback
    branch = next((branch for branch in plan.branches if branch.dense), None)
    if feedback is None or branch is None or branch.multivector:
        raise InvalidInputError(
            "feedback needs recall by a dense vector that is no multivector. Pass options without "
            "it."
        )
    if terms.deadline.passed:
        return list(hits)
    pages, _ = yield from compute(
        partial(
            stage.run,
            [(text, found[: feedback.page]) for text, found in zip(texts, hits, strict=True)],
            limit=None,
            score_threshold=None,
            deadline=terms.deadline,
        )
    )
    judged = [[hit for hit in page if hit.rerank_score is not None] for page in pages]
    rows = [row for row, page in enumerate(judged) if len(page) > 1]
    if not rows:
        return list(hits)
    method = feedback.method
    if method == "auto":
        served = yield from first.has(models.RelevanceFeedbackQuery)
        method = "qdrant" if served else "rocchio"
    asked: list[object] = []
    if method == "qdrant":
        asked = [_weighed(queries[row], judged[row], feedback) for row in rows]
    else:
        vectors = yield from _vectors(first, queries, judged, rows, branch.using, scope, options)
        asked = [_moved(queries[row], judged[row], vectors, feedback) for row in rows]
    requests = []
    for row, query in zip(rows, asked, strict=True):
        # A vector, unlike an id, does not leave out the point that it is of.
        like = queries[row].like if method == "rocchio" else None
        less = (
            scope
            if like is None
            else replace(scope, query_filter=without(scope.query_filter, like))
        )
        requests.append(dense_request(branch, query, less, options))
    more = dict(zip(rows, (yield from first.recall(requests, options)), strict=True))
    return [_union(found, more.get(row, [])) for row, found in enumerate(hits)]


def _union(found: Hits, more: Hits) -> Hits:
    known = {hit.id for hit in found}
    return [*found, *(hit for hit in more if hit.id not in known)]


def _scores(page: Sequence[RerankedPoint]) -> NDArray[np.float64]:
    return np.array([hit.rerank_score for hit in page], dtype=np.float64)


def _weighed(
    query: RecallQuery, page: Sequence[RerankedPoint], feedback: Feedback
) -> models.RelevanceFeedbackQuery:
    target: Any = query.dense.tolist() if isinstance(query.dense, np.ndarray) else query.dense
    return feedback_query(target, [hit.id for hit in page], _scores(page), feedback)


def _moved(
    query: RecallQuery,
    page: Sequence[RerankedPoint],
    vectors: dict[object, Sequence[float] | None],
    feedback: Feedback,
) -> list[float]:
    start = query.dense if isinstance(query.dense, np.ndarray) else vectors.get(str(query.like))
    kept = [hit for hit in page if vectors.get(str(hit.id)) is not None]
    if start is None or not kept:
        raise InvalidInputError(
            "Rocchio's feedback moves a query vector towards stored ones, but Qdrant returned "
            "none. Pass Feedback(method='qdrant'), or options without feedback."
        )
    stored = np.array([vectors[str(hit.id)] for hit in kept], dtype=np.float32)
    moved: list[float] = rocchio(
        np.asarray(start, dtype=np.float32), stored, _scores(kept), feedback
    ).tolist()
    return moved


def _vectors(
    first: FirstStage,
    queries: Sequence[RecallQuery],
    judged: Sequence[Sequence[RerankedPoint]],
    rows: Sequence[int],
    using: str,
    scope: Scope,
    options: SearchOptions,
) -> Flow[dict[object, Sequence[float] | None]]:
    """The stored vectors of the pages, and of points that are queries, by id."""
    ids: list[PointId] = [hit.id for row in rows for hit in judged[row]]
    ids += [like for row in rows if (like := queries[row].like) is not None]
    records = yield from first.points.fetch(
        ids,
        options,
        with_payload=False,
        with_vectors=[using] if using else True,
        shard_key=scope.shard_key_selector,
    )
    return {str(key): one_vector(record.vector, using) for key, record in records.items()}
