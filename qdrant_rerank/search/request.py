"""The arguments of a search, checked before anything is asked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError
from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import require_path
from qdrant_rerank.qdrant.lookups import Query, WithPayload, WithVectors, require_selected
from qdrant_rerank.qdrant.recall_request import (
    FilterLike,
    Prefetches,
    RecallBy,
    prefetches_of,
    read_filter,
    read_recall,
)
from qdrant_rerank.utils.finite import not_finite
from qdrant_rerank.utils.validation import (
    a_type,
    require_count,
    require_flag,
    require_number,
    require_positive,
    require_query,
    shown,
)

__all__ = ["SearchRequest", "read_query"]

#: A UUID as Qdrant writes the id of a point.
POINT_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

SHARD_KEYS: TypeAdapter[Any] = TypeAdapter(models.ShardKeySelector)
#: Engines count in 64 bits, and some add to it.
MOST_HITS = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """See :meth:`HybridSearcher.search` and :meth:`HybridSearcher.search_groups`."""

    limit: int
    candidates: int | None
    query_filter: FilterLike | None
    score_threshold: float | None
    with_payload: WithPayload
    with_vectors: WithVectors
    options: SearchOptions | None
    deadline_s: float | None
    offset: int = 0
    recall: RecallBy | None = None
    prefetch: Prefetches | None = None
    lookup_from: models.LookupLocation | None = None
    shard_key_selector: models.ShardKeySelector | None = None
    group_by: str | None = None
    group_size: int = 1
    with_lookup: str | models.WithLookup | None = None
    progress: bool | None = False

    @property
    def given(self) -> bool:
        """Whether the caller says what to search with."""
        return self.recall is not None or self.prefetch is not None

    def check(self, queries: Sequence[Query], candidates: int) -> None:
        """Raise InvalidInputError if an argument is wrong.

        Args:
            queries: texts, or ids of points.
            candidates: the searcher's own number of candidates.
        """
        for query in queries:
            _require_query(query)
        require_selected("with_payload", self.with_payload)
        require_selected("with_vectors", self.with_vectors)
        require_count("offset", self.offset)
        require_positive("group_size", self.group_size, optional=False)
        if self.score_threshold is not None:
            require_number("score_threshold", self.score_threshold, "a score, or None for all")
        require_flag("progress", self.progress, optional=True)
        model = self.recall if isinstance(self.recall, BaseModel) else None  # vectors: read_recall
        for name, given in (
            ("query_filter", self.query_filter),
            ("prefetch", self.prefetch),
            ("recall", model),
        ):
            place = not_finite(given)
            if place is not None:
                raise InvalidInputError(
                    f"{name} holds NaN or infinity{f' in {place}' if place else ''}, which Qdrant "
                    "takes for no bound; expected finite numbers. Leave out a bound that there is "
                    "not."
                )
        self.filter()
        _require_models(self.lookup_from, self.shard_key_selector)
        if not isinstance(self.with_lookup, str | models.WithLookup | None):
            raise InvalidInputError(
                f"with_lookup is {a_type(self.with_lookup)}; expected the name of a collection, or "
                "a models.WithLookup."
            )
        if self.group_by is not None:
            require_path("group_by", self.group_by)
        self.depth(candidates)
        prefetches_of(self.prefetch)
        if isinstance(read_recall(self.recall), models.QueryRequest):
            for name in ("prefetch", "query_filter", "lookup_from", "shard_key_selector"):
                if getattr(self, name) is not None:
                    raise InvalidInputError(
                        f"recall is a QueryRequest, which is sent as it is, so {name} would be "
                        "ignored. Put it into the request."
                    )
        if self.given and not all(isinstance(query, str) for query in queries):
            raise InvalidInputError(
                "query is the id of a point, and recall or prefetch says what to search with; "
                "expected one of them. Pass the text that the reranker compares with as query."
            )

    def filter(self) -> models.Filter | None:
        """Return which points to consider.

        Raises:
            InvalidInputError: the filter is neither a model nor a mapping that is one.
        """
        return read_filter(self.query_filter)

    def depth(self, candidates: int) -> int:
        """Return the number of candidates per query.

        Raises:
            InvalidInputError: fewer than are to be returned.
        """
        require_positive("limit", self.limit, optional=False)
        require_positive("candidates", self.candidates)
        last = self.offset + self.limit
        most = max(last, self.candidates or 0)
        if most > MOST_HITS:
            raise InvalidInputError(
                f"limit, offset and candidates ask for up to {shown(most)} hits; expected no more "
                f"than {MOST_HITS}."
            )
        if self.candidates is None:
            return max(candidates, last)
        if self.candidates < last:
            raise InvalidInputError(
                f"candidates is {self.candidates} and "
                + (f"offset {self.offset} + " if self.offset else "")
                + f"limit {self.limit}; expected candidates of at least limit, since only "
                "candidates can be returned."
            )
        return self.candidates

    def lookup(self) -> models.WithLookup:
        """Return where groups are looked up."""
        if isinstance(self.with_lookup, models.WithLookup):
            return self.with_lookup
        return models.WithLookup(collection=self.with_lookup or "")


def _require_models(lookup_from: Any, shard_key_selector: Any) -> None:
    """Raise InvalidInputError unless these are what qdrant-client takes, or None."""
    if not isinstance(lookup_from, models.LookupLocation | None):
        raise InvalidInputError(
            f"lookup_from is {a_type(lookup_from)}; expected a models.LookupLocation."
        )
    try:
        if shard_key_selector is not None:
            SHARD_KEYS.validate_python(shard_key_selector)
    except ValidationError:
        raise InvalidInputError(
            f"shard_key_selector is {shown(shard_key_selector)}; expected the key of a shard, a "
            "str or a whole number, or several keys."
        ) from None


def _require_query(query: object) -> None:
    """Raise InvalidInputError unless it is a text that is not blank, or the id of a point."""
    if isinstance(query, str):
        require_query(query)
    elif isinstance(query, bool) or not isinstance(query, int | UUID):
        raise InvalidInputError(
            f"query is {a_type(query)}; expected a text, or the id of a point: a whole number or "
            "a UUID. Pass a vector as recall=, beside the text to rerank by."
        )
    elif isinstance(query, int) and not 0 <= query < 2**64:
        raise InvalidInputError(
            f"query is the id {shown(query)}; Qdrant's are whole numbers from 0 to 2**64 - 1, and "
            "UUIDs. A text to search for is a str."
        )


def read_query(query: Any) -> Query:
    """Return a str that is the id of a point, such as ``hit.id``, as a ``UUID``.

    A whole number of numpy, as pandas has them, becomes an int.

    >>> read_query("3b9152ff-2779-5cd0-abfd-0c75e7b54fb9")
    UUID('3b9152ff-2779-5cd0-abfd-0c75e7b54fb9')
    """
    if isinstance(query, np.integer):
        return int(query)
    is_id = isinstance(query, str) and POINT_ID.fullmatch(query)
    found: Query = UUID(str(query)) if is_id else query
    return found
