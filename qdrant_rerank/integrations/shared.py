"""What the components of all frameworks have in common. It imports none of the frameworks."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError, MissingTextError
from qdrant_rerank.payload import PayloadText, TextSource
from qdrant_rerank.payload.choice import TextChoice
from qdrant_rerank.payload.writers import AUTO, LLAMA_INDEX
from qdrant_rerank.qdrant.recall_request import read_filter
from qdrant_rerank.reranking.rerank import rerank_points
from qdrant_rerank.types import RerankedPoint, SearchResults
from qdrant_rerank.utils.validation import (
    a_type,
    require_number,
    require_positive,
    require_query,
    require_several,
)

__all__ = [
    "SCORES",
    "as_text",
    "missing",
    "require_all",
    "require_page",
    "rerank_payloads",
    "scores_of_hit",
    "text_and_metadata",
]

#: What a hit's metadata gets beside what the writer stored.
SCORES = ("rerank_score", "retrieval_score", "retrieval_rank")


def missing(framework: str, extra: str) -> MissingDependencyError:
    """Return the error of a module whose framework is not installed."""
    return MissingDependencyError(
        f"This module needs {framework}, which is not installed. Run: "
        f'pip install "qdrant-rerank[{extra}]"'
    )


def require_page(
    name: str,
    limit: Any,
    score_threshold: Any,
    *,
    optional: bool = False,
    candidates: Any = None,
    query_filter: Any = None,
    text: Any = AUTO,
) -> None:
    """Check what a component says of the page that it returns.

    Args:
        name: the framework's name of ``limit``.
        limit: hits to return.
        score_threshold: lowest rerank score, or None.
        optional: whether ``limit`` may be None, for all.
        candidates: hits that the reranker reads; None for the searcher's own number.
        query_filter: which points to consider, as Qdrant has it, or None.
        text: what the reranker reads.

    Raises:
        InvalidInputError: one of them is of the wrong kind or out of range.
    """
    require_positive(name, limit, optional=optional)
    require_positive("candidates", candidates)
    if candidates is not None and candidates < (limit or 0):
        raise InvalidInputError(
            f"candidates is {candidates} and {name} {limit}; expected candidates of at least "
            f"{name}, since only candidates can be returned."
        )
    if score_threshold is not None:
        require_number("score_threshold", score_threshold, "a score, or None for all")
    read_filter(query_filter)
    TextChoice(text)


def require_all(name: str, values: Any, kind: type) -> None:
    """Raise InvalidInputError unless all values are of the framework's kind."""
    require_several(name, values)
    for place, value in enumerate(values):
        if not isinstance(value, kind):
            raise InvalidInputError(
                f"{name}[{place}] is {a_type(value)}; expected {kind.__name__}s of "
                f"{kind.__module__.split('.')[0]}."
            )


def as_text(query: str) -> str:
    """Return a framework's query, which is a text even if it looks like the id of a point.

    Raises:
        InvalidInputError: it is no str, or blank.
    """
    require_query(query)
    try:
        UUID(query)
    except ValueError:
        return query
    return f" {query}"


def scores_of_hit(hit: RerankedPoint) -> dict[str, float | int | None]:
    """Return both scores and the former rank of a hit, for its metadata."""
    return {
        "rerank_score": hit.rerank_score,
        "retrieval_score": hit.retrieval_score,
        "retrieval_rank": hit.retrieval_rank,
    }


def text_and_metadata(
    payload: Mapping[str, Any] | None, text: PayloadText, content_key: str, metadata_key: str
) -> tuple[str, dict[str, Any]]:
    """Return what a payload says, and what else is known of it.

    Args:
        payload: of a hit.
        text: reads texts where the framework's own field is missing.
        content_key: field where the framework stores a text.
        metadata_key: field where the framework stores a mapping.

    Returns:
        The text ("" if there is none), and a copy of the framework's mapping; where there is no
        such mapping, the other fields of the payload.
    """
    fields = dict(payload or {})
    content = fields.get(content_key)
    known = {content_key}
    if not isinstance(content, str):
        try:
            content = text(fields)
        except MissingTextError:  # nothing was chosen yet, and this payload does not tell
            content = None
        # Fields of a template stay: they are more than the text.
        whole = text.keys is not None or text.source == LLAMA_INDEX
        known = set(text.fields or ()) if whole else set()
    metadata = fields.get(metadata_key)
    if not isinstance(metadata, Mapping):
        metadata = {field: value for field, value in fields.items() if field not in known}
    return content or "", dict(metadata)


def rerank_payloads(
    query: str,
    payloads: Sequence[Mapping[str, Any]],
    scores: Sequence[float | None],
    *,
    reranker: Any,
    text: TextSource,
    limit: int | None,
    score_threshold: float | None,
) -> SearchResults:
    """Order payloads by a reranker; the id of each is its place among them.

    Args:
        query: the question.
        payloads: one per document, in retrieval order.
        scores: the retrieval score of each; None for an unknown one.
        reranker: a loaded one.
        text: where the text is.
        limit: documents to keep; None for all.
        score_threshold: lowest rerank score to keep; None for all.

    Raises:
        QdrantRerankError: as ``rerank_points``.
    """
    points = [
        {"id": place, "payload": payload, "score": score}
        for place, (payload, score) in enumerate(zip(payloads, scores, strict=True))
    ]
    return rerank_points(
        query,
        points,
        reranker=reranker,
        text=text,
        limit=limit,
        score_threshold=score_threshold,
    )
