"""SearchOptions, and what their values may be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import (
    a_type,
    require_blend,
    require_choice,
    require_count,
    require_number,
    require_positive,
)

__all__ = [
    "Blend",
    "Fusion",
    "OnMissingText",
    "OnRerankError",
    "SearchOptions",
    "require_options",
]

#: What becomes of a hit without text: an error, the end of the list, or nothing.
OnMissingText = Literal["raise", "last", "drop"]

#: How dense and sparse hits become one list: reciprocal rank fusion, or the sum of the scores
#: normalised by their distribution; both are done by Qdrant.
Fusion = Literal["rrf", "dbsf"]
#: What the order after reranking is by: the rerank score (0), the retrieval score's share of a
#: weighted sum (up to 1), or both ranks fused.
Blend = float | Literal["rrf"]

#: What becomes of a search whose reranker fails: the error, or the first stage's order.
OnRerankError = Literal["raise", "recall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What is seldom changed from one search to the next; vary one with ``dataclasses.replace``.

    Attributes:
        on_missing_text: a hit without text raises MissingTextError, follows the others in
            retrieval order ("last"), or is dropped.
        dense_vector: name of the dense vector to search; None for the one that has the embedder's
            size. Several names are several searches, fused. A multivector must be named.
        sparse_vector: name, or names, of the sparse vector to search; None for the only one.
        fusion: how dense and sparse hits become one list: "rrf", "dbsf" (see Qdrant's hybrid
            queries), or ``models.Rrf(k=..., weights=[...])`` with a weight for each search, dense
            ones first. Nothing is fused where recall is one search.
        dense_candidates: hits of each dense search that are fused; None for as many as are
            reranked.
        sparse_candidates: likewise of each sparse search.
        recall_threshold: lowest retrieval score of a candidate: of the one search, or fused.
        blend: the retrieval score's share of the score that orders the reranked hits, 0 to 1,
            after both are scaled to 0..1 over the candidates; or "rrf" to fuse both ranks.
        diversity: 0 to 1; above 0 the hits stand in the order of maximal marginal relevance, by
            their scores and their dense vectors (the stored ones, else the embedder's), so that
            one that says the same as those before it comes later. Scores stay as they are.
        search_params: of the dense search: ``hnsw_ef``, ``exact``, quantisation.
        two_phase: whether recall fetches only the text of the candidates, and a second request the
            payload of the returned hits. None for whether that spares 16 KiB, by the payloads
            of the collection's first answers, and there is no deadline. A selection of the
            payload, or vectors, always take two.
        consistency: replicas that must agree on a read: a number, "majority", "quorum" or "all".
        timeout_s: whole seconds that Qdrant may take; None for the client's own.
        on_rerank_error: a reranker that fails (any exception, a score that is not finite) raises,
            or "recall": the hits stay in the first stage's order, whatever the threshold, and
            ``trace.status`` is "degraded".
        retries: times that a request is sent again whose failure may pass: Qdrant cannot be
            reached, breaks off, is too slow, too busy (429, and it is asked again when it says),
            or behind a gateway that says 502, 503 or 504. With growing, jittered waits from 0.1 s.

    Raises:
        InvalidInputError: a value out of range, or of the wrong kind.
    """

    on_missing_text: OnMissingText = "last"
    dense_vector: str | Sequence[str] | None = None
    sparse_vector: str | Sequence[str] | None = None
    fusion: Fusion | models.Rrf = "rrf"
    dense_candidates: int | None = None
    sparse_candidates: int | None = None
    recall_threshold: float | None = None
    blend: Blend = 0.0
    diversity: float = 0.0
    search_params: models.SearchParams | None = None
    two_phase: bool | None = None
    consistency: models.ReadConsistency | Literal["majority", "quorum", "all"] | None = None
    timeout_s: int | None = None
    on_rerank_error: OnRerankError = "raise"
    retries: int = 0

    def __post_init__(self) -> None:
        _require_values(self)


def require_options(options: SearchOptions) -> None:
    """Raise InvalidInputError unless they are SearchOptions."""
    if not isinstance(options, SearchOptions):
        raise InvalidInputError(f"options is {a_type(options)}; expected SearchOptions.")


def _require_values(options: SearchOptions) -> None:
    require_choice("on_missing_text", options.on_missing_text, OnMissingText)
    require_choice("on_rerank_error", options.on_rerank_error, OnRerankError)
    require_blend(options.blend)
    if isinstance(options.fusion, models.Rrf):
        _require_rrf(options.fusion)
    else:
        require_choice("fusion", options.fusion, Fusion)
    for name in ("dense_vector", "sparse_vector"):
        _require_names(name, getattr(options, name))
    for name in ("dense_candidates", "sparse_candidates", "timeout_s"):
        require_positive(name, getattr(options, name))
    _require_consistency(options.consistency)
    if options.recall_threshold is not None:
        require_number("recall_threshold", options.recall_threshold, "a retrieval score")
    require_number("diversity", options.diversity, "0 to 1")
    if not 0 <= options.diversity <= 1:
        raise InvalidInputError(f"diversity is {options.diversity}; expected 0 to 1.")
    if options.two_phase not in {None, True, False}:
        raise InvalidInputError(f"two_phase is {options.two_phase!r}; expected a bool or None.")
    require_count("retries", options.retries)


def _require_rrf(rrf: models.Rrf) -> None:
    require_positive("the k of Rrf", rrf.k)
    for weight in rrf.weights or []:
        if not 0 <= weight < float("inf"):
            raise InvalidInputError(f"A weight of Rrf is {weight}; expected 0 or more.")


def _require_consistency(value: Any) -> None:
    if isinstance(value, str):
        known = [kind.value for kind in models.ReadConsistencyType]
        if value not in known:
            raise InvalidInputError(
                f"consistency is {value!r}; expected a number of replicas, or one of "
                f"{', '.join(map(repr, known))}."
            )
        return
    require_positive("consistency", value)


def _require_names(name: str, value: Any) -> None:
    if value is None or isinstance(value, str):
        return
    if not isinstance(value, Sequence) or not value or not all(isinstance(v, str) for v in value):
        raise InvalidInputError(
            f"{name} is {value!r:.80}; expected the name of a vector, several names, or None."
        )
    if len(set(value)) < len(value):
        raise InvalidInputError(f"{name} is {value!r}; expected each name once.")
