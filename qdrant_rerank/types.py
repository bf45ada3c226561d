"""Results of a search, and the protocols of its parts: reranker, embedder, sparse encoder."""

import html
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    Self,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    overload,
    runtime_checkable,
)
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client.models import ScoredPoint, SparseVector

from qdrant_rerank.utils.hit_tables import data_frame, hit_lines, html_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "UNSCORED",
    "Embedder",
    "PointId",
    "RerankedPoint",
    "Reranker",
    "RerankerLike",
    "Results",
    "SearchResults",
    "SearchTrace",
    "Snippet",
    "SparseEncoder",
    "StatesPrecision",
    "Status",
    "hit_dict",
    "hit_row",
    "in_retrieval_order",
]

#: How a search ended; see ``SearchTrace.status``.
Status = Literal["reranked", "partial", "degraded", "no text", "recall only", "no candidates"]

#: How a collection stores states of documents: "int8" takes 8 bits per number; "float16" takes 16,
#: and is nearly exact; "pq", product quantisation, takes a byte for several numbers, with a
#: quantizer that was learnt for the model.
StatesPrecision = Literal["int8", "float16", "pq"]

#: The score of a hit that was not scored: the lowest float32, so that it is below any other score
#: and every format and database can hold it, as none can hold minus infinity.
UNSCORED = float(np.finfo(np.float32).min)

PointId = int | str | UUID


@runtime_checkable
class Reranker(Protocol):
    """Any object that scores documents for a query, such as fastembed's TextCrossEncoder."""

    def rerank(self, query: str, documents: list[str], /) -> Iterable[float]:
        """Return one score per document, in input order; higher is more relevant."""
        ...


#: What ``reranker=`` takes: a ``Reranker``, a name, a path, ``LateInteraction``, or an object of
#: another package, whose type this package does not know.
RerankerLike: TypeAlias = Reranker | str | Path | Any


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into dense vectors.

    Attributes:
        name: name of the model. A collection that this package creates records it, and a search
            compares it.
        dimension: length of a vector.
    """

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def embed_query(self, text: str, /) -> NDArray[np.float32]:
        """Return the vector of a query: shape (dimension,), float32."""
        ...

    def embed_documents(self, texts: list[str], /) -> NDArray[np.float32]:
        """Return the vectors of n texts: shape (n, dimension), float32, input order."""
        ...


@runtime_checkable
class SparseEncoder(Protocol):
    """Turns texts into sparse vectors.

    An encoder whose weights lack the inverse document frequency, as BM25's do, has an attribute
    ``needs_idf`` that is True; then ``add`` creates a collection where Qdrant multiplies by it.
    """

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    def embed_query(self, text: str, /) -> SparseVector:
        """Return the vector of a query: the indices and values that are not zero."""
        ...

    def embed_documents(self, texts: list[str], /) -> list[SparseVector]:
        """Return one vector per text, in input order."""
        ...


@dataclass(frozen=True, slots=True)
class Snippet:
    """The part of a long document that the document's score comes from.

    Attributes:
        text: the part itself.
        start: position of its first character in the text of the field.
        end: position after its last character.
        field: payload field or path that holds the part. None if the text comes from a template
            or a function; then ``start`` and ``end`` are positions in that text.
    """

    text: str
    start: int
    end: int
    field: str | None = None


class RerankedPoint(ScoredPoint):
    """A ``ScoredPoint`` with the scores of both stages.

    Attributes:
        score: the score that orders the list: the rerank score, or its blend with the retrieval
            score; the retrieval score if nothing was reranked. For a hit that has no text, or that
            was not scored in time, -3.4028234663852886e+38, the lowest float32 and below any other
            score.
        rerank_score: the reranker's score; None if the hit was not scored.
        retrieval_score: the score that Qdrant returned.
        retrieval_rank: 1-based place before reranking.
        snippet: the part of the text that the score comes from, if the reranker reads long
            documents in passages; else None.
    """

    rerank_score: float | None
    retrieval_score: float
    retrieval_rank: int
    snippet: Snippet | None = None


@dataclass(frozen=True, slots=True)
class SearchTrace:
    """What a search did, and how long it took.

    All times are in seconds. For ``search_batch`` the times and ``retries`` are those of the whole
    batch, the other values those of one query. Where an attribute may be None, None means that the
    reranker does not report it.

    Attributes:
        embed_s: time to make vectors of the query.
        recall_s: time to wait for Qdrant.
        tokenize_s: time to tokenize the pairs; 0 if the reranker does not report it.
        infer_s: time of the reranker, without ``tokenize_s``.
        total_s: time of the whole call.
        candidates: hits that Qdrant returned.
        pairs: hits that were scored; with a deadline these may be only the first candidates.
        tokens: tokens that were scored, without padding.
        padding_share: share of padding in the model's inputs, 0 to 1.
        truncated: hits that were cut, because query and text together exceed the max length.
        windows: rows of the model's inputs; more than ``pairs`` if long documents are read in
            passages.
        activation: function that turned the model's logits into scores; "identity" for none.
        engine: what ran the model: an execution provider of onnxruntime, OpenVINO, or Qdrant for
            late interaction.
        precision: precision of the model's weights, such as "int8", and how they were quantized
            if this package did it.
        cache_hit_rate: share of the pairs whose score came from the score cache, 0 to 1; they
            count no tokens. None without a score cache.
        status: "reranked"; "partial" (the time was up: the candidates after the first ``pairs``
            follow in retrieval order); "degraded" (the reranker failed, or the texts could not be
            read: the hits are in retrieval order); "no text" (none of the hits has text, so nothing
            was scored: the hits are in retrieval order); "recall only" (no reranker); "no
            candidates".
        retries: requests that were sent to Qdrant again.
        cause: type and message of the error if the status is "degraded"; else None.
        vectors: names of the vectors that were searched ("" is the unnamed one), and the payload
            field of a text index; empty if a ``recall`` of the caller's names none. A vector for
            which the query has no terms is not searched.
        text: payload field, path, template or preset that the texts were read by, or the name of a
            function; None if no text was read.
        missing_text: hits that have no text there, and so were not scored.
        documents_stored: hits that were scored by the states that are stored of their text; of a
            cascade, those that reached the stage. None if the collection stores none.
        documents_read: hits whose text was read, since no states are stored of it, or those of
            another text or model, or damaged ones; None as in ``documents_stored``.
    """

    embed_s: float = 0.0
    recall_s: float = 0.0
    tokenize_s: float = 0.0
    infer_s: float = 0.0
    total_s: float = 0.0
    candidates: int = 0
    pairs: int = 0
    tokens: int | None = None
    padding_share: float | None = None
    truncated: int | None = None
    windows: int | None = None
    activation: str | None = None
    engine: str | None = None
    precision: str | None = None
    cache_hit_rate: float | None = None
    status: Status = "reranked"
    retries: int = 0
    cause: str | None = None
    vectors: tuple[str, ...] = ()
    text: str | None = None
    missing_text: int = 0
    documents_stored: int | None = None
    documents_read: int | None = None


Item = TypeVar("Item")


class Results(list[Item]):
    """A list of what was found, best first; a part of it, ``results[:3]``, is one too.

    Attributes:
        query: the query as text.
        trace: what the search did, and how long it took.
    """

    def __init__(self, items: Iterable[Item], *, query: str, trace: SearchTrace) -> None:
        super().__init__(items)
        self.query = query
        self.trace = trace

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Item | Self:
        if isinstance(index, slice):
            return type(self)(super().__getitem__(index), query=self.query, trace=self.trace)
        return super().__getitem__(index)

    _unit = "hits"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict per item, ready for JSON."""
        raise NotImplementedError

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table with one row per hit, best first.

        The payload is in columns ``payload.<field>``, a snippet in ``snippet.<attribute>``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return data_frame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        """Return one row per hit, for tables."""
        raise NotImplementedError

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self.query!r:.80}, {len(self)} {self._unit})"
        return "\n".join([head, *hit_lines(self._rows())])

    def _repr_html_(self) -> str:
        """Return a table for notebooks. All text of query and payload is escaped."""
        trace = self.trace
        unit = "" if self._unit == "hits" else f" {self._unit}"
        return (
            f"<p><b>{html.escape(self.query)}</b>: {len(self)}{unit} of {trace.candidates} "
            f"candidates, {trace.total_s * 1000:.0f} ms (recall {trace.recall_s * 1000:.0f} ms, "
            f"rerank {(trace.tokenize_s + trace.infer_s) * 1000:.0f} ms)"
            + (f"; {trace.missing_text} without text" if trace.missing_text else "")
            + "</p>"
            + html_table(self._rows())
        )


class SearchResults(Results[RerankedPoint]):
    """A list of hits, best first. It prints one line per hit; a notebook shows it as a table.

    Attributes:
        query: the query as text.
        trace: what the search did, and how long it took.
    """

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict per hit, ready for JSON.

        Its keys are rank, id, the scores and payload; also vector and snippet if the hit has them.
        """
        return [hit_dict(rank, point) for rank, point in enumerate(self, start=1)]

    def _rows(self) -> list[dict[str, Any]]:
        return [hit_row(rank, point) for rank, point in enumerate(self, start=1)]


def hit_row(rank: int, point: RerankedPoint) -> dict[str, Any]:
    """Return a hit as a dict, with its payload as it is."""
    row = {
        "rank": rank,
        "id": point.id if isinstance(point.id, int) else str(point.id),
        "score": point.score,
        "payload": point.payload,
        "rerank_score": point.rerank_score,
        "retrieval_score": point.retrieval_score,
        "retrieval_rank": point.retrieval_rank,
    }
    if point.snippet is not None:
        row["snippet"] = asdict(point.snippet)
    return row


def hit_dict(rank: int, point: RerankedPoint) -> dict[str, Any]:
    """Return a hit as a dict, ready for JSON; with its vector if it has one."""
    json = point.model_dump(mode="json", include={"payload", "vector"})
    if json["vector"] is None:
        del json["vector"]
    return hit_row(rank, point) | json


def _id_key(point_id: PointId) -> tuple[bool, str, int]:
    """Return a sort key for ids: numbers by value, then UUIDs by text."""
    if isinstance(point_id, int):
        return (False, "", point_id)
    return (True, str(point_id), 0)


def in_retrieval_order(points: Iterable[ScoredPoint]) -> list[ScoredPoint]:
    """Order neighbours that have the same score by id.

    Engines order ties differently, so without this the same data would rank differently.
    """
    ordered: list[ScoredPoint] = []
    for _, ties in groupby(points, key=lambda point: point.score):
        ordered.extend(sorted(ties, key=lambda point: _id_key(point.id)))
    return ordered
