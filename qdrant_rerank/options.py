"""The options of a search, and the values that they may have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.client_models import optional_field
from qdrant_rerank.utils.validation import (
    a_type,
    require_blend,
    require_choice,
    require_count,
    require_flag,
    require_number,
    require_positive,
    shown,
)

__all__ = [
    "Blend",
    "Fusion",
    "OnMissingText",
    "OnRerankError",
    "SearchOptions",
    "require_options",
]

#: What happens to a hit without text: an error, the end of the list, or left out.
OnMissingText = Literal["raise", "last", "drop"]
#: How Qdrant merges dense and sparse hits: reciprocal rank fusion, or distribution-based score
#: fusion.
Fusion = Literal["rrf", "dbsf"]
#: What orders the reranked hits: the rerank score (0), a weighted sum in which the retrieval score
#: has this share (up to 1), or the fusion of both ranks.
Blend = float | Literal["rrf"]
#: What happens when the reranker fails: its error, or the retrieval order.
OnRerankError = Literal["raise", "recall"]

LONGEST_S = 10**300  # a float can hold it


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """Settings that seldom change between searches. Use ``dataclasses.replace`` to change one.

    Attributes:
        on_missing_text: "raise" raises MissingTextError for a hit without text; "last" puts it
            after the others, in retrieval order; "drop" leaves it out.
        dense_vector: name of the dense vector to search; None for the one that has the embedder's
            size. Several names are several searches, which are fused. A multivector must be named.
        sparse_vector: name or names of the sparse vector to search; None if there is only one.
        fusion: how dense and sparse hits become one list: "rrf", "dbsf" (see Qdrant's hybrid
            queries), or ``models.Rrf(k=..., weights=[...])`` with one weight per search, dense
            searches first. A single search is not fused.
        dense_candidates: hits per dense search before the fusion; None for as many as are
            reranked.
        sparse_candidates: the same for each sparse search.
        recall_threshold: lowest retrieval score of a candidate: of the fused score, or of the
            only search.
        blend: share of the retrieval score in the score that orders the reranked hits, 0 to 1;
            both scores are first scaled to 0..1 over the candidates. "rrf" fuses both ranks.
        diversity: 0 to 1. Above 0, the hits are ordered by maximal marginal relevance, so that a
            hit that repeats earlier hits comes later. It compares the scores and the dense
            vectors: the stored ones, else the embedder's. The scores do not change.
        search_params: parameters of the dense search: ``hnsw_ef``, ``exact``, quantization.
        two_phase: whether the first request fetches only the text of the candidates, and a second
            request the payload of the returned hits. None decides: yes if that saves 16 KiB,
            estimated from the payloads of the first search, and there is no deadline. If you
            select payload fields, or ask for vectors, there are always two requests.
        consistency: replicas that must agree on a read: a number, "majority", "quorum" or "all".
        timeout_s: whole seconds that Qdrant may take; None for the client's own timeout.
        on_rerank_error: what happens if the reranker raises, or returns a score that is not finite.
            "raise" raises the error. "recall" keeps the retrieval order, ignores the threshold,
            and sets ``trace.status`` to "degraded".
        retries: how often a request is sent again after a failure that may be temporary: no
            connection, a broken connection, a timeout, 429, 502, 503 or 504. The waits start at
            0.1 s, grow, and have jitter; after a 429 the wait is the one that Qdrant asks for.

    Raises:
        InvalidInputError: a value has the wrong type or is out of range.
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
        require_choice("on_missing_text", self.on_missing_text, OnMissingText)
        require_choice("on_rerank_error", self.on_rerank_error, OnRerankError)
        require_blend(self.blend)
        if isinstance(self.fusion, models.Rrf):
            _require_rrf(self.fusion)
        else:
            require_choice("fusion", self.fusion, Fusion)
        for name in ("dense_vector", "sparse_vector"):
            _require_names(name, getattr(self, name))
        require_positive("dense_candidates", self.dense_candidates)
        require_positive("sparse_candidates", self.sparse_candidates)
        require_positive("timeout_s", self.timeout_s, most=LONGEST_S)
        _require_consistency(self.consistency)
        if self.recall_threshold is not None:
            require_number("recall_threshold", self.recall_threshold, "a retrieval score")
        require_number("diversity", self.diversity, "0 to 1", least=0, most=1)
        require_flag("two_phase", self.two_phase, optional=True)
        if not isinstance(self.search_params, models.SearchParams | None):
            raise InvalidInputError(
                f"search_params is {shown(self.search_params)}; expected a models.SearchParams."
            )
        require_count("retries", self.retries)


def require_options(options: Any) -> None:
    """Raise InvalidInputError unless the value is a SearchOptions."""
    if not isinstance(options, SearchOptions):
        raise InvalidInputError(f"options is {a_type(options)}; expected SearchOptions.")


def _require_rrf(rrf: models.Rrf) -> None:
    require_positive("the k of Rrf", rrf.k)
    for weight in optional_field(rrf, "weights") or []:
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
            f"{name} is {shown(value)}; expected the name of a vector, several names, or None."
        )
    if len(set(value)) < len(value):
        raise InvalidInputError(f"{name} is {shown(value)}; expected each name once.")
