"""What a search returns, and the protocols of what it can be made of."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client.models import ScoredPoint, SparseVector

if TYPE_CHECKING:
    import pandas as pd


__all__ = [
    "Embedder",
    "PointId",
    "RerankedPoint",
    "Reranker",
    "SearchResults",
    "SearchTrace",
    "Snippet",
    "SparseEncoder",
    "Status",
    "id_key",
    "in_retrieval_order",
]

#: What became of a search; see ``SearchTrace.status``.
Status = Literal["reranked", "partial", "degraded", "recall only", "no candidates"]

LONGEST_CELL = 200  # characters of a text shown in a table

PointId = int | str | UUID


@runtime_checkable
class Reranker(Protocol):
    """Anything that scores documents for a query; fastembed's TextCrossEncoder is one."""

    def rerank(self, query: str, documents: Iterable[str]) -> Iterable[float]:
        """One score a document, in input order; higher is more relevant."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into dense vectors.

    Attributes:
        name: recorded in a collection that we create, and compared when it is searched.
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

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Shape (dimension,), float32."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (n, dimension), float32, input order."""
        ...


@runtime_checkable
class SparseEncoder(Protocol):
    """Turns texts into sparse vectors."""

    @property
    def name(self) -> str:
        """Name of the model."""
        ...

    def embed_query(self, text: str) -> SparseVector:
        """Non-zero entries of the query's vector."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector a text, input order."""
        ...


@dataclass(frozen=True, slots=True)
class Snippet:
    """The part of a long document that its score comes from.

    Attributes:
        text: the part.
        start: its first character, counted in the field's text.
        end: the character after its last.
        field: payload field or path that it is of; None where the text was a template's or a
            function's, and ``start`` and ``end`` count in that text.
    """

    text: str
    start: int
    end: int
    field: str | None = None


class RerankedPoint(ScoredPoint):
    """A ``ScoredPoint`` with the scores of both stages.

    Attributes:
        score: what the list is ordered by: the rerank score, or its blend with the retrieval
            score; the retrieval score where nothing was reranked; minus infinity for a hit
            without text, or one that there was no time to score.
        rerank_score: the reranker's score; None if the hit was not scored.
        retrieval_score: the score that Qdrant returned.
        retrieval_rank: 1-based place before reranking.
        snippet: the part of the text that the score comes from, where the reranker reads long
            documents in windows; else None.
    """

    rerank_score: float | None
    retrieval_score: float
    retrieval_rank: int
    snippet: Snippet | None = None


@dataclass(frozen=True, slots=True)
class SearchTrace:
    """What a search did and how long it took, in seconds.

    For ``search_batch`` the times are those of the whole batch, the counts those of one query.

    Attributes:
        embed_s: query text to vectors.
        recall_s: waiting for Qdrant.
        tokenize_s: pairs to token ids; 0 where the reranker does not tell.
        infer_s: the reranker, without tokenising where it tells.
        total_s: the whole call.
        candidates: hits that recall returned.
        pairs: hits that were scored; with a deadline maybe only the first of the candidates.
        tokens: tokens scored, padding left out; None where the reranker does not tell.
        padding_share: padding in what the model read, 0 to 1; None likewise.
        truncated: hits whose text, or the query beside it, did not fit the model's window and was
            cut; None likewise.
        windows: rows that the model read, more than ``pairs`` where it reads long documents in
            parts; None likewise.
        activation: what made the scores of the model's logits, "identity" for none; None likewise.
        engine: what ran the model: onnxruntime's execution provider, or OpenVINO; None likewise.
        precision: of the model's weights, "int8" say, and how they were quantised if it was done
            here; None likewise.
        cache_hit_rate: share of the pairs whose score the score cache held, 0 to 1; they took no
            tokens. None without a score cache.
        status: "reranked"; "partial" (time was up, so the candidates after the first ``pairs``
            follow in retrieval order); "degraded" (the reranker failed, so the order is the first
            stage's); "recall only" (no reranker); or "no candidates".
        retries: requests to Qdrant that were sent again; of the whole batch, too.
        cause: of "degraded": the type of the reranker's error and its message; else None.
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


class SearchResults(list[RerankedPoint]):
    """The hits, best first. A list, and a table in a notebook.

    Attributes:
        query: what was searched for.
        trace: what it took.
    """

    def __init__(self, points: Iterable[RerankedPoint], *, query: str, trace: SearchTrace) -> None:
        super().__init__(points)
        self.query = query
        self.trace = trace

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON-ready dict a hit: rank, id, the scores, the payload (vector and snippet if any).

        A score that JSON cannot hold (minus infinity: a hit that was not scored) is None.
        """
        rows = []
        for rank, point in enumerate(self, start=1):
            row = point.model_dump(mode="json", include={"id", "score", "payload", "vector"})
            if row["vector"] is None:
                del row["vector"]
            row["score"] = point.score if np.isfinite(point.score) else None
            row = {
                "rank": rank,
                **row,
                "rerank_score": point.rerank_score,
                "retrieval_score": point.retrieval_score,
                "retrieval_rank": point.retrieval_rank,
            }
            if point.snippet is not None:
                row["snippet"] = asdict(point.snippet)
            rows.append(row)
        return rows

    def to_pandas(self) -> "pd.DataFrame":
        """One row a hit, in order, with columns ``payload.<field>`` and ``snippet.<part>``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            from qdrant_rerank.errors import MissingDependencyError

            raise MissingDependencyError(
                "to_pandas() needs pandas: pip install pandas. to_dicts() needs nothing."
            ) from error
        columns = ["rank", "id", "score", "rerank_score", "retrieval_score", "retrieval_rank"]
        rows = []
        for row in self.to_dicts():
            payload = row.get("payload") or {}
            rows.append(
                {name: row[name] for name in columns}
                | {f"payload.{field}": value for field, value in payload.items()}
                | {f"snippet.{name}": value for name, value in row.get("snippet", {}).items()}
            )
        return pd.DataFrame(rows, columns=None if rows else columns)

    def __repr__(self) -> str:
        return f"SearchResults({self.query!r}, {len(self)} hits, {list.__repr__(self)})"

    def _repr_html_(self) -> str:
        """A table for notebooks; everything from the payload is escaped."""
        head = "".join(
            f"<th>{name}</th>" for name in ("rank", "was", "score", "recall", "id", "payload")
        )
        body = "".join(self._html_row(rank, point) for rank, point in enumerate(self, start=1))
        trace = self.trace
        return (
            f"<p><b>{html.escape(self.query)}</b>: {len(self)} of {trace.candidates} candidates, "
            f"{trace.total_s * 1000:.0f} ms (recall {trace.recall_s * 1000:.0f} ms, rerank "
            f"{(trace.tokenize_s + trace.infer_s) * 1000:.0f} ms)</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    @staticmethod
    def _html_row(rank: int, point: RerankedPoint) -> str:
        moved = point.retrieval_rank - rank
        arrow = f"{'▲' if moved > 0 else '▼'}{abs(moved)}" if moved else ""
        score = "" if point.rerank_score is None else f"{point.rerank_score:.3f}"
        cells = (
            str(rank),
            f"{point.retrieval_rank} {arrow}".strip(),
            score,
            f"{point.retrieval_score:.3f}",
            html.escape(str(point.id)),
            _snippet_html(point.snippet) + _payload_html(point.payload or {}),
        )
        return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _snippet_html(snippet: Snippet | None) -> str:
    return "" if snippet is None else f"<mark>{_shown(snippet.text)}</mark><br>"


def _payload_html(payload: Mapping[str, Any]) -> str:
    lines = [
        f"<b>{html.escape(str(field))}</b> {_shown(value)}" for field, value in payload.items()
    ]
    return "<br>".join(lines)


def _shown(value: Any) -> str:
    text = str(value)
    return html.escape(text if len(text) <= LONGEST_CELL else text[:LONGEST_CELL] + "…")


def id_key(point_id: PointId) -> tuple[bool, str, int]:
    """Sorts ids: numbers by value, then UUIDs by text."""
    if isinstance(point_id, int):
        return (False, "", point_id)
    return (True, str(point_id), 0)


def in_retrieval_order(points: Iterable[ScoredPoint]) -> list[ScoredPoint]:
    """Points as Qdrant ordered them, neighbours of one score by id.

    Engines order ties differently, so the same data would rank differently from one to another.
    """
    ordered: list[ScoredPoint] = []
    for _, ties in groupby(points, key=lambda point: point.score):
        ordered.extend(sorted(ties, key=lambda point: id_key(point.id)))
    return ordered
