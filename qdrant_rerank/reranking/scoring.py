"""What scores documents: a model's name, a ``TextCrossEncoder``, a ``Cascade``, any other reranker.

All of them are asked here, by :func:`score`, and what they answer is checked here.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.options import OnRerankError
from qdrant_rerank.types import Reranker, Status
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.fork import in_child
from qdrant_rerank.utils.validation import a_type

__all__ = ["Scored", "load_reranker", "score"]

logger = logging.getLogger(__name__)

_loading = threading.Lock()

NO_SCORES: NDArray[np.float32] = np.empty(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the documents of several queries, and what they cost.

    Attributes:
        scores: one array a query, shape (documents of the query,), float32, finite; with a
            deadline maybe only of its first documents.
        waiting: documents of a query that were not scored, or not by all stages of a cascade: time
            was up, or the reranker failed.
        causes: what made the reranker fail for a query; None where nothing did.
        tokens: tokens a query; None where the reranker does not tell.
        tokenize_s: seconds.
        infer_s: seconds.
        padding_share: padding in what the model read, 0 to 1; None likewise.
        truncated: documents of a query that did not fit the window; None likewise.
        windows: rows that the model read for a query; None likewise.
        spans: the parts that speak for a query's scored documents, start and end character; None
            where the reranker does not read in parts.
        activation: what made the scores of logits; None where the reranker does not tell.
        engine: what ran the model; None likewise.
        precision: of the model's weights; None likewise.
        cache_hit_rates: share of a query's pairs that the score cache held; None without one.
    """

    scores: list[NDArray[np.float32]]
    waiting: list[int]
    causes: list[str | None]
    tokenize_s: float
    infer_s: float
    tokens: int | None = None
    padding_share: float | None = None
    truncated: list[int] | None = None
    windows: list[int] | None = None
    spans: list[list[tuple[int, int]]] | None = None
    activation: str | None = None
    engine: str | None = None
    precision: str | None = None
    cache_hit_rates: list[float] | None = None

    def trace(self, query: int) -> dict[str, Any]:
        """What a trace tells of one query's second stage; times are of all queries."""
        return {
            "tokenize_s": self.tokenize_s,
            "infer_s": self.infer_s,
            "pairs": len(self.scores[query]),
            "tokens": self.tokens,
            "padding_share": self.padding_share,
            "truncated": None if self.truncated is None else self.truncated[query],
            "windows": None if self.windows is None else self.windows[query],
            "activation": self.activation,
            "engine": self.engine,
            "precision": self.precision,
            "cache_hit_rate": None if self.cache_hit_rates is None else self.cache_hit_rates[query],
            "status": self._status(query),
            "cause": self.causes[query],
        }

    def _status(self, query: int) -> Status:
        if self.causes[query] is not None:
            return "degraded"
        return "partial" if self.waiting[query] else "reranked"


@in_child
def _unlock() -> None:
    global _loading  # noqa: PLW0603 - another thread of the parent may have held it
    _loading = threading.Lock()


def load_reranker(reranker: Reranker | str | Path) -> Reranker:
    """A reranker from what a caller may pass: an object as it is, a name or a path loaded.

    A named model is loaded once a process and shared.

    Raises:
        UnknownModelError: no such name or path.
        ModelFileError: its files are missing or damaged.
        InvalidInputError: not something that reranks.
    """
    if isinstance(reranker, str | Path):
        with _loading:  # or two threads that come first would both load it
            return _shared(str(reranker))
    if not callable(getattr(reranker, "rerank", None)):
        raise InvalidInputError(
            f"reranker is a {type(reranker).__name__}; expected a model name, a path, an object "
            "with rerank(query, documents), or None for the recall order."
        )
    return reranker


@lru_cache(maxsize=4)
def _shared(name: str) -> Reranker:
    return TextCrossEncoder(name)


@runtime_checkable
class TimedReranker(Reranker, Protocol):
    """A reranker that keeps a deadline, as a cascade does."""

    def rerank_until(
        self, query: str, documents: Sequence[str], deadline: Deadline
    ) -> tuple[Sequence[float], int]:
        """Scores of the first documents, and how many documents were not read to the end."""
        ...


def score(
    reranker: Reranker,
    work: Sequence[tuple[str, Sequence[str]]],
    deadline: Deadline = NO_DEADLINE,
    on_error: OnRerankError = "raise",
) -> Scored:
    """Score the documents of several queries.

    Args:
        reranker: a ``TextCrossEncoder`` scores all pairs in one pool; any other is asked once a
            query.
        work: (query, documents) each.
        deadline: a ``TextCrossEncoder`` stops at it, having scored the first documents of each
            query; a ``Cascade`` passes it on. Any other cannot be stopped: it is asked if there is
            time left.
        on_error: with "recall", nothing is scored where the reranker fails.

    Raises:
        ModelOutputError: not one finite score a document.
    """
    began = time.perf_counter()
    scores: list[NDArray[np.float32]] = []
    causes: list[str | None] = [None] * len(work)
    late = [0] * len(work)
    if isinstance(reranker, TextCrossEncoder):
        try:
            return _pooled(reranker, work, deadline)
        except Exception as error:  # whatever it is, the first stage's order is left
            causes = [_cause(error, on_error)] * len(work)
            scores = [NO_SCORES] * len(work)
    else:
        for place, (query, documents) in enumerate(work):
            try:
                if isinstance(reranker, TimedReranker):
                    done, late[place] = reranker.rerank_until(query, documents, deadline)
                    scores.append(np.asarray(done, dtype=np.float32))
                else:
                    scores.append(_ask(reranker, query, [] if deadline.passed else documents))
            except Exception as error:  # as above
                causes[place] = _cause(error, on_error)
                scores.append(NO_SCORES)
    waiting = [
        max(len(documents) - len(done), behind)
        for (_, documents), done, behind in zip(work, scores, late, strict=True)
    ]
    return Scored(scores, waiting, causes, 0.0, time.perf_counter() - began)


def _cause(error: Exception, on_error: OnRerankError) -> str:
    """What to say of an error that is not to be raised."""
    if on_error == "raise":
        raise error
    cause = f"{type(error).__name__}: {error}"
    logger.warning("The reranker failed, so the first stage's order is kept: %s", cause)
    return cause


def _pooled(
    encoder: TextCrossEncoder, work: Sequence[tuple[str, Sequence[str]]], deadline: Deadline
) -> Scored:
    """All pairs at once."""
    places = [
        (rank, query) for query, (_, documents) in enumerate(work) for rank in range(len(documents))
    ]
    if deadline is not NO_DEADLINE:
        places.sort()  # the first document of each query, then the second of each, and so on
    left = deadline.remaining
    pairs = [(work[query][0], work[query][1][rank]) for rank, query in places]
    pooled = encoder.score_pairs([] if left == 0 else pairs, deadline_s=left or None)
    # What was scored comes first, so of each query, too, the first documents were.
    rows: list[list[int]] = [[] for _ in work]
    for row in np.flatnonzero(pooled.scored).tolist():
        rows[places[row][1]].append(row)
    padded, spans = pooled.padded_tokens, pooled.spans
    return Scored(
        scores=[pooled.scores[part] for part in rows],
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


def _ask(reranker: Reranker, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
    name = type(reranker).__name__
    if not documents:
        return NO_SCORES
    answer: Any = reranker.rerank(query, documents)
    try:
        answer = iter(answer)
    except TypeError as error:
        raise ModelOutputError(
            f"{name}.rerank returned {a_type(answer)}; expected a float a document, in input order."
        ) from error
    answer = list(answer)
    try:
        scores = np.asarray(answer, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ModelOutputError(
            f"{name}.rerank returned {answer[0]!r:.80} as a score; expected a float a document, in "
            "input order."
        ) from error
    if scores.shape != (len(documents),):
        raise ModelOutputError(
            f"{name}.rerank returned scores of shape {scores.shape} for {len(documents)} "
            "documents; expected one float a document, in input order."
        )
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        raise ModelOutputError(
            f"{name}.rerank returned {scores[broken[0]]} for document {broken[0]}; expected finite "
            "scores."
        )
    return scores
