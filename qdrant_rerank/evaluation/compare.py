"""Two configurations side by side on queries without judgments: what changes, and how much.

This does not say which order is better. It says where to look.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group

from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.comparison_page import excerpt, page
from qdrant_rerank.evaluation.comparison_result import (
    ComparedHit,
    ComparedQuery,
    ComparisonResult,
)
from qdrant_rerank.evaluation.comparison_table import tables
from qdrant_rerank.evaluation.overlap import overlap, rank_biased_overlap
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankedPoint, RerankerLike
from qdrant_rerank.utils.atomic_files import atomic_text
from qdrant_rerank.utils.progress import tqdm
from qdrant_rerank.utils.terminal import one_line, shortened
from qdrant_rerank.utils.validation import (
    a_type,
    require_positive,
    require_query,
    require_several,
    shown,
)

__all__ = ["compare", "with_reranker"]

OPENING = 300  # characters of a hit's text kept


@dataclass(frozen=True, slots=True)
class Comparison(ComparisonResult):
    """Two configurations on the same queries; a table in rich and in notebooks."""

    def save_html(self, path: str | Path) -> None:
        """Write one self-contained page, whole or not at all.

        Raises:
            InvalidInputError: the path cannot be written.
        """
        with atomic_text(path) as file:
            file.write(page(self))

    def __rich__(self) -> Group:
        return tables(self)

    def _repr_html_(self) -> str:
        """Render the summary and the queries that changed most; all text is escaped."""
        return excerpt(self)


def compare(
    first: HybridSearcher,
    second: HybridSearcher,
    queries: Iterable[str] | Mapping[str, str],
    *,
    limit: int = 10,
    candidates: int | None = None,
    names: tuple[str, str] | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Search with two configurations, and set their hits side by side.

    If one configuration is the first stage of the other, each query is searched once: the reranked
    hits hold both orders.

    Args:
        first: usually the searcher that is in use now.
        second: a searcher that may replace it, on the same collection or one with the same ids.
        queries: texts, or a mapping of ids to texts as ``read_queries`` returns it.
        limit: hits to compare per query.
        candidates: hits to retrieve, ``limit`` or more; None takes each searcher's own number.
        names: names of the two for tables; None takes the names of their rerankers.
        progress: whether to show a progress bar on stderr; None shows one if stderr is a terminal.

    Raises:
        InvalidInputError: there are no queries, one is empty, or an argument is out of range.
        QdrantRerankError: see :meth:`HybridSearcher.search`.

    Examples:
        >>> searcher = HybridSearcher("docs")
        >>> added = searcher.add(["Bread is baked.", "Iron melts at 1538 C.", "Iron is a metal."])
        >>> recall = with_reranker(searcher, None)
        >>> compared = compare(recall, searcher, ["melting point of iron"], limit=2)
        >>> compared.names
        ('recall order', 'grown-e5-small-v1')
        >>> compared.mean_overlap
        1.0
    """
    texts = _texts(queries)
    require_positive("limit", limit)
    require_positive("candidates", candidates)
    for role, searcher in (("first", first), ("second", second)):
        if not isinstance(searcher, HybridSearcher):
            raise InvalidInputError(f"{role} is {a_type(searcher)}; expected a HybridSearcher.")
    if candidates is not None and candidates < limit:
        raise InvalidInputError(
            f"candidates is {candidates} and limit {limit}; expected candidates of at least limit, "
            "since only candidates can be returned."
        )
    depths = tuple(candidates or max(searcher.candidates, limit) for searcher in (first, second))
    labels = _labels(first, second, names)
    once = depths[0] == depths[1] and _one_recalls_for_the_other(first, second)
    compared = []
    for text in tqdm(texts, unit="query", disable=None if progress is None else not progress):
        orders = _orders(text, (first, second), depths, once=once)
        compared.append(_compared(text, orders, limit, (first, second)))
    return Comparison(labels, limit, (depths[0], depths[1]), tuple(compared))


def with_reranker(searcher: HybridSearcher, reranker: RerankerLike | None) -> HybridSearcher:
    """Return a copy of a searcher with another reranker; both share the client.

    Args:
        searcher: is not changed. Closing either of the two closes a client that it made.
        reranker: as in ``HybridSearcher``; None keeps the order of the first stage.

    Raises:
        ModelError: the model cannot be found or loaded.
    """
    other = copy(searcher)
    other.reranker = None if reranker is None else load_reranker(reranker, searches=True)
    return other


def _orders(
    query: str, searchers: Sequence[HybridSearcher], depths: Sequence[int], *, once: bool
) -> list[list[RerankedPoint]]:
    """Return all candidates in the order of each searcher."""
    if once:
        [reranking] = [searcher for searcher in searchers if searcher.reranker is not None]
        found = reranking.search(query, depths[0], candidates=depths[0])
        recalled = sorted(found, key=lambda point: point.retrieval_rank)
        return [recalled if searcher.reranker is None else found for searcher in searchers]
    return [
        searcher.search(query, depth, candidates=depth)
        for searcher, depth in zip(searchers, depths, strict=True)
    ]


def _compared(
    query: str,
    orders: Sequence[list[RerankedPoint]],
    limit: int,
    searchers: Sequence[HybridSearcher],
) -> ComparedQuery:
    ranks = [{point.id: at for at, point in enumerate(order, start=1)} for order in orders]
    hits = {}
    for point in (*orders[0][:limit], *orders[1][:limit]):
        text = next(filter(None, (searcher.text(point.payload) for searcher in searchers)), "")
        hits[point.id] = ComparedHit(
            id=point.id if isinstance(point.id, int) else str(point.id),
            text=shortened(one_line(text), OPENING),
            first_rank=ranks[0].get(point.id),
            second_rank=ranks[1].get(point.id),
        )
    first, second = ([point.id for point in order[:limit]] for order in orders)
    return ComparedQuery(
        query=one_line(query),
        first=tuple(hits[point_id] for point_id in first),
        second=tuple(hits[point_id] for point_id in second),
        overlap=overlap(first, second),
        rbo=rank_biased_overlap(first, second),
    )


def _texts(queries: Iterable[str] | Mapping[str, str]) -> list[str]:
    given = queries.values() if isinstance(queries, Mapping) else queries
    require_several("queries", given)
    texts = list(given)
    if not texts:
        raise InvalidInputError("There are no queries; expected one or more.")
    for at, text in enumerate(texts):
        try:
            require_query(text)
        except InvalidInputError as error:
            raise InvalidInputError(f"Query {at}: {error}") from None
    return texts


def _one_recalls_for_the_other(first: HybridSearcher, second: HybridSearcher) -> bool:
    """Return whether one is the first stage of the other, with as many candidates."""
    # Of BM25's parameters only these are in a query's vector.
    sparse_alike = first.sparse is second.sparse or (
        isinstance(first.sparse, Bm25Encoder)
        and isinstance(second.sparse, Bm25Encoder)
        and first.sparse.language == second.sparse.language
        and first.sparse.query_counts == second.sparse.query_counts
    )
    return (
        (first.reranker is None) != (second.reranker is None)
        and first.client is second.client
        and first.collection == second.collection
        and first.embedder is second.embedder
        and sparse_alike
        and first.options == second.options
        and first.options.on_missing_text != "drop"  # a dropped hit has a rank before reranking
        and first.options.diversity == 0  # diversity depends on the scores of each
    )


def _labels(
    first: HybridSearcher, second: HybridSearcher, names: tuple[str, str] | None
) -> tuple[str, str]:
    if names is not None:
        if len(names) != 2 or not all(isinstance(name, str) and name.strip() for name in names):
            raise InvalidInputError(
                f"names is {shown(names)}; expected two names, one per searcher."
            )
        return one_line(names[0]), one_line(names[1])
    labels = _label(first.reranker), _label(second.reranker)
    if labels[0] == labels[1]:
        return f"{labels[0]} (first)", f"{labels[1]} (second)"
    return labels


def _label(reranker: RerankerLike | None) -> str:
    if reranker is None:
        return "recall order"
    return str(getattr(reranker, "model_name", type(reranker).__name__))
