"""Queries and documents -> scores, by any reranker.

A reranker is a ``TextCrossEncoder`` (or the name of one), a ``Cascade``, or an object of the
user's. :func:`score` calls all of them, and checks what they return.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.options import OnRerankError
from qdrant_rerank.reranking.answers import scores_of
from qdrant_rerank.reranking.awaiting import score_async
from qdrant_rerank.reranking.late_interaction import MaxSim
from qdrant_rerank.reranking.remote import RemoteReranker
from qdrant_rerank.reranking.scored import NO_SCORES, Answer, Scored, failure, joined
from qdrant_rerank.types import Reranker
from qdrant_rerank.utils.background import run_in_background
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = ["given_scores", "score"]


@runtime_checkable
class TimedReranker(Reranker, Protocol):
    """A reranker that can stop at a deadline, such as a ``Cascade``."""

    def rerank_until(
        self, query: str, documents: Sequence[str], deadline: Deadline
    ) -> tuple[Sequence[float], int]:
        """Return the scores of the first documents, and how many documents are not finished."""
        ...


class LateCascade(Protocol):
    """A cascade whose first stage has scored in Qdrant."""

    def rerank_after(
        self, query: str, documents: Sequence[str], deadline: Deadline, first: NDArray[np.float64]
    ) -> tuple[Sequence[float], int]:
        """Return what ``rerank_until`` returns, given the scores of the first stage."""
        ...


def given_scores(
    reranker: LateCascade | None,
    work: Sequence[tuple[str, Sequence[str]]],
    first: Sequence[NDArray[np.float64]],
    max_sim: MaxSim,
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
) -> Scored:
    """Return the scores that Qdrant has computed, and those of a cascade's later stages.

    Args:
        reranker: the cascade; None if there are no later stages.
        work: (query, documents) for each query; the documents are only read by a cascade.
        first: the scores of these documents.
        max_sim: where they are from.
        deadline: as in :func:`score`.
        on_error: as in :func:`score`.
    """
    began = time.perf_counter()
    answers = []
    for (query, documents), scores in zip(work, first, strict=True):
        if max_sim.cause is not None:
            answers.append(Answer(cause=max_sim.cause))
        elif reranker is None:
            answers.append(Answer(scores))
        else:
            try:
                done, late = reranker.rerank_after(query, documents, deadline, scores)
                answers.append(Answer(np.asarray(done, dtype=np.float64), late))
            except Exception as error:
                answers.append(Answer(cause=failure(error, on_error)))
    return replace(joined(work, answers, began), engine=max_sim.engine)


def score(
    reranker: Reranker,
    work: Sequence[tuple[str, Sequence[str]]],
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
) -> Scored:
    """Score the documents of several queries.

    Args:
        reranker: a ``TextCrossEncoder`` scores all pairs together; any other reranker is called
            once per query, a ``RemoteReranker`` for several queries at the same time.
        work: (query, documents) for each query.
        deadline: a ``TextCrossEncoder`` stops at it after the first documents of each query, and
            so do a ``Cascade`` and a ``RemoteReranker``. Any other reranker cannot be stopped; it
            is called if there is time left.
        on_error: "raise" raises the reranker's error; "recall" returns no scores for a query
            whose scoring failed.

    Raises:
        ModelOutputError: the reranker did not return one finite score per document.
    """
    began = time.perf_counter()
    if isinstance(reranker, RemoteReranker) and len(work) > 1:  # all at the same time
        return run_in_background(score_async(reranker, work, deadline, on_error))
    if isinstance(reranker, TextCrossEncoder):
        try:
            return _pooled(reranker, work, deadline)
        except Exception as error:  # whatever it is, there is still the retrieval order
            answers = [Answer(cause=failure(error, on_error))] * len(work)
    else:
        answers = []
        for query, documents in work:
            try:
                if isinstance(reranker, TimedReranker):
                    done, late = reranker.rerank_until(query, documents, deadline)
                    answers.append(Answer(np.asarray(done, dtype=np.float64), late))
                else:
                    found = _ask(reranker, query, [] if deadline.passed else documents)
                    answers.append(Answer(found))
            except Exception as error:
                answers.append(Answer(cause=failure(error, on_error)))
    return joined(work, answers, began)


def _pooled(
    encoder: TextCrossEncoder, work: Sequence[tuple[str, Sequence[str]]], deadline: Deadline
) -> Scored:
    """Score the pairs of all queries together."""
    places = [
        (rank, query) for query, (_, documents) in enumerate(work) for rank in range(len(documents))
    ]
    if deadline is not NO_DEADLINE:
        places.sort()  # the first document of every query, then the second ones, and so on
    remaining = deadline.remaining
    pairs = [(work[query][0], work[query][1][rank]) for rank, query in places]
    pooled = encoder.score_pairs([] if remaining == 0 else pairs, deadline_s=remaining or None)
    # The scored pairs are the first ones, so they are the first documents of each query.
    rows: list[list[int]] = [[] for _ in work]
    for row in np.flatnonzero(pooled.scored).tolist():
        rows[places[row][1]].append(row)
    padded, spans = pooled.padded_tokens, pooled.spans
    return Scored(
        scores=[pooled.scores[part] for part in rows],
        logits=[pooled.logits[part] for part in rows],
        waiting=[
            len(documents) - len(part) for (_, documents), part in zip(work, rows, strict=True)
        ],
        causes=[None] * len(work),
        tokenize_s=pooled.tokenize_s,
        infer_s=pooled.infer_s,
        tokens=pooled.tokens,
        padding_share=1 - pooled.tokens / padded if padded else 0.0,
        truncated=[int(pooled.truncated[part].sum()) for part in rows],
        windows=[int(pooled.windows[part].sum()) for part in rows],
        spans=None if spans is None else [[spans[row] for row in part] for part in rows],
        activation=pooled.activation,
        engine=pooled.engine,
        precision=pooled.precision,
        cache_hit_rates=None
        if pooled.cached is None
        else [float(pooled.cached[part].mean()) if part else 0.0 for part in rows],
    )


def _ask(reranker: Reranker, query: str, documents: Sequence[str]) -> NDArray[np.float64]:
    """Call a user's reranker, and check what it returns."""
    if not documents:
        return NO_SCORES
    answer = reranker.rerank(query, list(documents))
    return scores_of(answer, len(documents), f"{type(reranker).__name__}.rerank")
